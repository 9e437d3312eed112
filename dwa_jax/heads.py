"""Pooling, and heads shaped like each family's Hugging Face classification head.

Axis letters: B rows, T tokens, D width, K outputs. A head is a plain dict of
parameters and two pure functions, in float32 or wider whatever the trunk computes in.
"""

import jax
import jax.numpy as jnp

from dwa_jax import backbones

POOLINGS = ("first", "last", "mean")


def default_pooling(family: str) -> str:
    """Returns the pooling of the family's own classifier: first token or last real token."""
    return _classifier(family).pooling


def check_pooling(how: str) -> None:
    """Raises a ValueError that lists the poolings where `how` is not one of them."""
    if how not in POOLINGS:
        raise ValueError(f"unknown pooling {how!r}; there are: {', '.join(POOLINGS)}")


def pool(hidden: jax.Array, attention_mask: jax.Array, how: str) -> jax.Array:
    """Reduces hidden states to one vector a row, by the attention mask alone.

    Args:
      hidden: (B, T, D).
      attention_mask: (B, T) 1 for real tokens, with padding on either side.
      how: "first": the first real token; "last": the last one; "mean": their mean.

    Returns:
      (B, D).

    Raises:
      ValueError: `how` is unknown.
    """
    if how == "mean":
        mask = attention_mask.astype(bool)
        dtype = jnp.promote_types(hidden.dtype, jnp.float32)
        weights = mask.astype(dtype)[:, :, None]
        total = jnp.sum(hidden.astype(dtype) * weights, axis=1)
        return total / jnp.maximum(weights.sum(axis=1), 1)
    index = position(attention_mask, how)
    return jnp.take_along_axis(hidden, index[:, None, None], axis=1)[:, 0]


def position(attention_mask: jax.Array, how: str) -> jax.Array:
    """Returns where the pooling of one token looks.

    Args:
      attention_mask: (B, T) 1 for real tokens, with padding on either side.
      how: "first": the first real token; "last": the last one.

    Returns:
      (B,) indices.

    Raises:
      ValueError: `how` is none of the two.
    """
    check_pooling(how)
    mask = attention_mask.astype(bool)
    if how == "first":
        return jnp.argmax(mask, axis=1)
    if how == "last":
        return mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)
    raise ValueError(f"the pooling {how!r} looks at more than one position")


def init(key: jax.Array, family: str, width: int, outputs: int) -> dict:
    """Makes a head's parameters: normal with deviation 0.02, biases zero.

    Args:
      key: split between the matrices.
      family: a name in `backbones.FAMILIES`, whose classifier gives the shape. "bert" and
        "roberta": dense, tanh, out_proj; "llama" and "qwen2": one matrix without bias.
      width: D.
      outputs: K.

    Returns:
      {"dense": {"kernel" (D, D), "bias"}, "out_proj": {"kernel" (D, K), "bias"}} or
      {"score": {"kernel" (D, K)}}.

    Raises:
      ValueError: the family is unknown.
    """
    shape = _classifier(family).tensors
    dense_key, out_key = jax.random.split(key)
    out = 0.02 * jax.random.normal(out_key, (width, outputs))
    if ("score", "kernel") in shape:
        return {"score": {"kernel": out}}
    return {
        "dense": {
            "kernel": 0.02 * jax.random.normal(dense_key, (width, width)),
            "bias": jnp.zeros((width,)),
        },
        "out_proj": {"kernel": out, "bias": jnp.zeros((outputs,))},
    }


def _classifier(family):
    if family not in backbones.FAMILIES:
        known = ", ".join(backbones.FAMILIES)
        raise ValueError(f"unknown family {family!r}; there are: {known}")
    return backbones.FAMILIES[family].classifier


def apply(params: dict, pooled: jax.Array) -> jax.Array:
    """Applies a head.

    Args:
      params: what `init` returned.
      pooled: (B, D) pooled hidden states.

    Returns:
      (B, K) outputs, in float32 or wider.
    """
    x = pooled.astype(jnp.promote_types(pooled.dtype, jnp.float32))
    if "score" in params:
        return x @ params["score"]["kernel"]
    x = jnp.tanh(x @ params["dense"]["kernel"] + params["dense"]["bias"])
    return x @ params["out_proj"]["kernel"] + params["out_proj"]["bias"]
