"""The quadratic binary task."""
