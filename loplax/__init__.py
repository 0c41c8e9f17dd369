"""loplax: neural networks that keep learning, in JAX."""

__version__ = "0.2.0"
