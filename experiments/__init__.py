"""The benchmark problems as programs."""
