"""loplax: neural networks that keep learning, in JAX."""
