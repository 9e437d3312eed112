"""Dropout as a function: no module, no state."""

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Zeroes each element with probability `rate` and scales the rest to keep the mean.

    Args:
      x: array of any shape.
      rate: probability of zero, in [0, 1); with 0 `key` may be None.
      key: PRNG key.

    Returns:
      An array like x.

    Raises:
      ValueError: there is no key and the rate is not 0.
    """
    if rate == 0.0:
        return x
    if key is None:
        raise ValueError(f"dropout of rate {rate} needs a key")
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))
