"""dwa_jax: dynamic multi-task weight adaptation for sentiment polarity, in JAX."""

__version__ = "0.1.0"
