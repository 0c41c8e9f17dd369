"""Walker2d: a two-legged robot learns to walk."""
