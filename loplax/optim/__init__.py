"""Gradient transformations that keep networks able to learn."""

from loplax.optim.adam import adam as adam
from loplax.optim.continual_backprop import (
    ContinualBackpropState as ContinualBackpropState,
)
from loplax.optim.continual_backprop import continual_backprop as continual_backprop
from loplax.optim.l2_init import l2_init as l2_init
from loplax.optim.redo import redo as redo
from loplax.optim.replacement import PerUnit as PerUnit
from loplax.optim.shrink_and_perturb import shrink_and_perturb as shrink_and_perturb
