"""Many runs: over seeds, methods and settings, resumable, with results and figures."""

from loplax import extras

with extras.needed("studies", "loplax.studies"):
    import xarray as xarray  # what all of them begin with
