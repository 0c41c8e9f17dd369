"""Ant: a four-legged robot learns to walk."""
