"""Hopper: a one-legged robot learns to hop."""
