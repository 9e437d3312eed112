"""Dropout as a function: no module, no state."""

import math

import jax
import jax.numpy as jnp

# Bits that a rate is compared with where they are dear; it is met within 1e-5.
_BITS = 16


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
    if jax.random.key_impl(key) == "rbg":
        most = round(2**_BITS * (1.0 - rate))
        return jnp.where(_half_words(key, x.shape) < most, x / (most / 2**_BITS), 0).astype(x.dtype)
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))


def quick_key(key: jax.Array) -> jax.Array:
    """Makes a key of XLA's own generator, for a GPU, which waits for JAX's default one.

    Half a word an element is drawn from it instead of two; other numbers than from `key`, and
    as good for dropout.
    """
    return jax.random.wrap_key_data(jnp.tile(jax.random.key_data(key), 2), impl="rbg")


def _half_words(key, shape):
    size = math.prod(shape)
    words = jax.random.bits(key, (-(-size // 2),), jnp.uint32)
    # Written out, or every half of a word is drawn by itself.
    words = jax.lax.optimization_barrier(words)
    halves = jax.lax.bitcast_convert_type(words, jnp.uint16)
    return halves.reshape(-1)[:size].reshape(shape).astype(jnp.int32)
