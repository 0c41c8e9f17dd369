"""Which weights enter and leave each hidden unit of a model, and its activations."""

from loplax.units.checks import check
from loplax.units.discover import find
from loplax.units.groups import UnitGroup, Units, WeightAxis
from loplax.units.products import convolve_patches, sum_of_products
from loplax.units.taps import tap
from loplax.units.verify import verify

__all__ = [
    "UnitGroup",
    "Units",
    "WeightAxis",
    "check",
    "convolve_patches",
    "find",
    "sum_of_products",
    "tap",
    "verify",
]
