"""Pooling, and heads shaped like each family's Hugging Face classification head.

Axis letters: B rows, T tokens, D width, K outputs. A head is a plain dict of
parameters and two pure functions, in float32 or wider whatever the trunk computes in.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dwa_jax import backbones
from dwa_jax.backbones.layers import activation, layer_norm

POOLINGS = ("first", "last", "mean")
# Between a head's two matrices.
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": jnp.tanh,
    "relu": activation("relu"),
    "gelu": activation("gelu"),
}


def default_pooling(config: backbones.BackboneConfig) -> str:
    """Returns what the trunk's file says its classifier pools, or what all of its family do."""
    return config.pooling or _classifier(config.family).pooling


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
    """Makes a head's parameters: normal with deviation 0.02, biases zero, a norm's scale one.

    Args:
      key: split between the matrices.
      family: a name in `backbones.FAMILIES`, whose classifier gives the shape.
      width: D.
      outputs: K.

    Returns:
      Module -> leaves: {"score": {"kernel" (D, K)}}, or "dense" (D, D) and "out_proj" (D, K)
      with what biases the family has, and "norm" between them where it has one.

    Raises:
      ValueError: the family is unknown.
    """
    shape = _classifier(family).tensors
    last = next(reversed(shape))[0]
    dense_key, out_key = jax.random.split(key)
    params: dict[str, dict[str, jax.Array]] = {}
    for module, leaf in shape:
        columns = outputs if module == last else width
        if leaf == "kernel":
            drawn = jax.random.normal(out_key if module == last else dense_key, (width, columns))
            value = 0.02 * drawn
        else:
            value = jnp.ones((columns,)) if leaf == "scale" else jnp.zeros((columns,))
        params.setdefault(module, {})[leaf] = value
    return params


def shapes(family: str, width: int, outputs: int) -> dict:
    """Returns what `init` would return, as shapes and types alone."""
    return jax.eval_shape(lambda key: init(key, family, width, outputs), jax.random.key(0))


def start_at(params: dict, family: str, outputs: np.ndarray | None) -> dict:
    """Makes a head begin near the same outputs for every text, whatever vector it is shown.

    A pooled vector of a pre-trained decoder may be fifty times as long as an encoder's: weights
    drawn for the one shout at the other, and the first steps unlearn what the trunk knows. So the
    last matrix is zero, unless it stands behind a tanh, which bounds what it sees; there weights
    that are small and not zero let the trunk learn from the first step on.

    Args:
      params: what `init` returned.
      family: a name in `backbones.FAMILIES`.
      outputs: (K,) what to give; only a head with a bias can, another gives zeros. None: zeros.

    Returns:
      The head with that bias.
    """
    last = _last(params)
    module = dict(params[last])
    if len(params) == 1 or _classifier(family).activation != "tanh":
        module["kernel"] = jnp.zeros_like(module["kernel"])
    if outputs is not None and "bias" in module:
        module["bias"] = jnp.asarray(outputs, module["bias"].dtype)
    return {**params, last: module}


def with_outputs_scaled(params: dict, factor: float) -> dict:
    """Scales what a head puts out.

    Args:
      params: what `init` returned, trained or not.
      factor: of the outputs, and so of the last matrix and its bias.

    Returns:
      The head with these.
    """
    last = _last(params)
    return {**params, last: jax.tree.map(lambda leaf: leaf * factor, params[last])}


def _last(params):
    # By name: what went through `jax.tree` or a checkpoint has lost its order.
    return "score" if "score" in params else "out_proj"


def _classifier(family):
    if family not in backbones.FAMILIES:
        known = ", ".join(backbones.FAMILIES)
        raise ValueError(f"unknown family {family!r}; there are: {known}")
    return backbones.FAMILIES[family].classifier


def apply(
    params: dict, pooled: jax.Array, config: backbones.BackboneConfig | None = None
) -> jax.Array:
    """Applies a head.

    Args:
      params: what `init` returned.
      pooled: (B, D) pooled hidden states.
      config: of the trunk; its family gives the activation between two matrices, and it
        the constant of a norm there. Without one: tanh, and no norm.

    Returns:
      (B, K) outputs, in float32 or wider.
    """
    x = pooled.astype(jnp.promote_types(pooled.dtype, jnp.float32))
    if "score" in params:
        return _linear(params["score"], x)
    name = "tanh" if config is None else _classifier(config.family).activation
    x = ACTIVATIONS[name](_linear(params["dense"], x))
    if "norm" in params:
        if config is None:
            raise ValueError("this head has a norm, whose constant is in the trunk's config")
        scale = params["norm"]["scale"]
        x = layer_norm(x, scale, jnp.zeros_like(scale), config.norm_eps)
    return _linear(params["out_proj"], x)


def _linear(params, x):
    # A GPU's own choice would be 10 bits of a float32's 23.
    y = jnp.matmul(x, params["kernel"], precision=jax.lax.Precision.HIGHEST)
    return y + params["bias"] if "bias" in params else y
