"""The mathematics every trunk shares, and the thin Linen modules that hold its weights.

Functions take arrays and know nothing of modules. Statistics (a norm's moments, a
softmax) are taken in at least float32, and in float64 where the inputs are float64.

Axes: B batch, T query tokens, S key tokens, D width, H heads, K key/value heads,
G query heads that share one of them, E width of one head, R rank, I in, O out.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from dwa_jax.backbones.config import BackboneConfig


def _wide(dtype):
    # Not promote_types, which strict dtype promotion forbids for half precision.
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32


def _along_last(vector, x):
    # Explicit, so that the library also runs under rank promotion "raise".
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)


# For cheap elementwise work: the backward pass starts again from the inputs, which are
# kept anyway and in the compute dtype, instead of storing wide intermediates. Saves a
# quarter of a layer's memory and is no slower. Inside a scan nothing needs prevent_cse.
_recomputed = functools.partial(jax.checkpoint, prevent_cse=False)


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


def linear(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    u: jax.Array | None = None,
    v: jax.Array | None = None,
    *,
    dtype: DTypeLike,
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """Computes x W + b, plus the low-rank update (dropout(x) U) V where there is one.

    Args:
      x: (..., I).
      kernel: (I, O).
      bias: (O,) or None.
      u: (I, R) or None.
      v: (R, O) or None, already scaled by alpha / rank.
      dtype: what everything is cast to first.
      dropout_rate: rate on the update's input.
      dropout_key: PRNG key; None for rate 0.

    Returns:
      (..., O) in `dtype`. Source: Hu et al. 2021, "LoRA", section 4.1.
    """
    x = x.astype(dtype)
    y = jnp.dot(x, kernel.astype(dtype))
    if bias is not None:
        y = y + _along_last(bias.astype(dtype), y)
    if u is not None and v is not None:
        x = dropout(x, dropout_rate, dropout_key)
        y = y + jnp.dot(jnp.dot(x, u.astype(dtype)), v.astype(dtype))
    return y


@_recomputed
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float) -> jax.Array:
    """Normalises the last axis to mean 0 and variance 1, then scales and shifts.

    Args:
      x: (..., D).
      scale: (D,).
      bias: (D,).
      eps: added to the variance.

    Returns:
      (..., D) in x's dtype. Source: Ba et al. 2016, "Layer Normalization".
    """
    wide = x.astype(_wide(x.dtype))
    wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
    wide = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + eps)
    scale, bias = scale.astype(wide.dtype), bias.astype(wide.dtype)
    return (wide * _along_last(scale, x) + _along_last(bias, x)).astype(x.dtype)


@_recomputed
def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """Divides the last axis by its root mean square, then scales.

    Args:
      x: (..., D).
      scale: (D,).
      eps: added to the mean square.

    Returns:
      (..., D) in x's dtype. Source: Zhang and Sennrich 2019, "RMSNorm".
    """
    wide = x.astype(_wide(x.dtype))
    wide = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + eps)
    return (wide * _along_last(scale.astype(wide.dtype), x)).astype(x.dtype)


def rotary_angles(
    positions: int, head_dim: int, theta: float, dtype: DTypeLike = jnp.float32
) -> tuple[jax.Array, jax.Array]:
    """Returns cos and sin of each position's angles, position / theta^(2 i / E).

    Args:
      positions: T; the angles are of 0 .. T - 1.
      head_dim: E, even.
      theta: base.
      dtype: compute dtype; the angles are at least float32.

    Returns:
      (cos, sin), each (T, E / 2). Source: Su et al. 2021, "RoFormer".
    """
    # On the host, so that a device's own power function does not enter the angles.
    frequencies = 1.0 / theta ** (np.arange(0, head_dim, 2) / head_dim)
    wide = _wide(dtype)
    angles = jnp.arange(positions, dtype=wide)[:, None] * jnp.asarray(frequencies, wide)[None, :]
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotates the pairs (x_i, x_{i + E/2}) of every head by its position's angles.

    Args:
      x: (B, T, H, E).
      cos: (T, E / 2).
      sin: (T, E / 2).

    Returns:
      (B, T, H, E) in x's dtype.
    """
    first, second = jnp.split(x.astype(cos.dtype), 2, axis=-1)
    cos, sin = cos[None, :, None, :], sin[None, :, None, :]
    rotated = jnp.concatenate((first * cos - second * sin, second * cos + first * sin), axis=-1)
    return rotated.astype(x.dtype)


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array,
    *,
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """Scaled dot-product attention with grouped query heads.

    Args:
      query: (B, T, H, E).
      key: (B, S, K, E); head h of the query reads head h // (H / K).
      value: (B, S, K, E).
      mask: boolean, (B, 1 or T, S); True where a query may look.
      dropout_rate: rate on the probabilities.
      dropout_key: PRNG key; None for rate 0.

    Returns:
      (B, T, H, E). A query that may look nowhere gets the mean of the values, so
      that neither it nor its gradient is NaN.
    """
    b, t, h, e = query.shape
    k = key.shape[2]
    # Heads lead the contractions: both become plain batched matrix products.
    query = query.reshape(b, t, k, h // k, e).transpose(0, 2, 3, 1, 4)
    key, value = key.transpose(0, 2, 1, 3), value.transpose(0, 2, 1, 3)
    logits = jnp.einsum("bkgte,bkse->bkgts", query * e**-0.5, key)
    logits = logits.astype(_wide(logits.dtype))
    # Half of the lowest number: subtracting the maximum cannot overflow to infinity.
    logits = jnp.where(mask[:, None, None], logits, 0.5 * jnp.finfo(logits.dtype).min)
    probabilities = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    probabilities = dropout(probabilities, dropout_rate, dropout_key)
    mixed = jnp.einsum("bkgts,bkse->bkgte", probabilities, value)
    return mixed.transpose(0, 3, 1, 2, 4).reshape(b, t, h, e)


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """Returns the elementwise function behind a `hidden_act` name.

    Args:
      name: one of `config.ACTIVATIONS`.

    Returns:
      A function of one array, same shape and dtype.
    """
    functions = {
        "gelu": lambda x: jax.nn.gelu(x, approximate=False),
        "gelu_new": jax.nn.gelu,
        "gelu_pytorch_tanh": jax.nn.gelu,
        "relu": jax.nn.relu,
        "silu": jax.nn.silu,
        "swish": jax.nn.silu,
    }
    return _recomputed(functions[name])


class Block(nn.Module):
    """The fields every part of a trunk has."""

    config: BackboneConfig
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32
    lora_dropout: float = 0.0

    def matrix_init(self) -> Callable[..., jax.Array]:
        return nn.initializers.normal(self.config.initializer_range)

    def dropout(self, x: jax.Array, rate: float, deterministic: bool) -> jax.Array:
        rate = 0.0 if deterministic else rate
        return dropout(x, rate, self.make_rng("dropout") if rate else None)

    def part(self, cls: Callable, *args: Any, **kwargs: Any) -> Any:
        return cls(self.config, self.dtype, self.param_dtype, self.lora_dropout, *args, **kwargs)


class Linear(Block):
    """A matrix, and its low-rank update where the "lora" collection holds one."""

    features: int = 0
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool = True) -> jax.Array:
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", self.matrix_init(), shape, self.param_dtype)
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        if not self.has_variable("lora", "u"):
            return linear(x, kernel, bias, dtype=self.dtype)
        u: jax.Array = self.get_variable("lora", "u")
        v: jax.Array = self.get_variable("lora", "v")
        rate = 0.0 if deterministic else self.lora_dropout
        key = self.make_rng("dropout") if rate else None
        return linear(x, kernel, bias, u, v, dtype=self.dtype, dropout_rate=rate, dropout_key=key)


class Embedding(Block):
    """A table looked up by row."""

    rows: int = 0

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        shape = (self.rows, self.config.hidden_size)
        table = self.param("embedding", self.matrix_init(), shape, self.param_dtype)
        # An id outside the table (a tokenizer of another model) becomes NaN, not a wrong row.
        return jnp.take(table, ids, axis=0, mode="fill").astype(self.dtype)


class LayerNorm(Block):
    """`layer_norm` and its weights."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
        return layer_norm(x, scale, bias, self.config.norm_eps)


class RMSNorm(Block):
    """`rms_norm` and its weights."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), self.param_dtype)
        return rms_norm(x, scale, self.config.norm_eps)


class Attention(Block):
    """Projections around `attention`, with rotary positions where angles are given."""

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array,
        angles: tuple[jax.Array, jax.Array] | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        c = self.config

        def project(name, heads):
            part = self.part(Linear, heads * c.head_dim, c.qkv_bias, name=name)
            return part(x, deterministic).reshape(*x.shape[:2], heads, c.head_dim)

        query = project("query", c.num_heads)
        key = project("key", c.num_kv_heads)
        value = project("value", c.num_kv_heads)
        if angles is not None:
            query, key = rotate(query, *angles), rotate(key, *angles)
        rate = 0.0 if deterministic else c.attention_dropout
        dropout_key = self.make_rng("dropout") if rate else None
        mixed = attention(
            query, key, value, mask, dropout_rate=rate, dropout_key=dropout_key
        ).reshape(*x.shape[:2], c.num_heads * c.head_dim)
        return self.part(Linear, x.shape[-1], c.output_bias, name="output")(mixed, deterministic)


class MLP(Block):
    """The feed-forward block: down(act(up x)), or down(act(gate x) * up x)."""

    gated: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool = True) -> jax.Array:
        c = self.config
        act = activation(c.activation)

        def matrix(name, features, value):
            return self.part(Linear, features, c.mlp_bias, name=name)(value, deterministic)

        up = matrix("up", c.intermediate_size, x)
        if self.gated:
            hidden = act(matrix("gate", c.intermediate_size, x)) * up
        else:
            hidden = act(up)
        return matrix("down", x.shape[-1], hidden)


class Trunk(Block):
    """What the two kinds of trunk share: the stack of scanned layers and its halves.

    A subclass sets `self.embeddings` and `self.layers` in `setup`, and defines
    `embed`, `context` (what every layer is given beside x) and `finish`.
    """

    unroll: int = 1
    remat: bool = False

    def stack(self, layer: type[nn.Module]) -> Any:
        if self.remat:
            # Inside a scan nothing can be merged across iterations anyway.
            layer = nn.remat(layer, prevent_cse=False, static_argnums=(3,))
        count = self.config.num_layers
        scanned = nn.scan(
            layer,
            variable_axes={"params": 0, "lora": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=nn.broadcast,
            length=count,
            unroll=max(1, min(self.unroll, count)),
        )
        return self.part(scanned)

    def __call__(
        self, input_ids: jax.Array, attention_mask: jax.Array, *, deterministic: bool = True
    ) -> jax.Array:
        x = self.lower(input_ids, attention_mask, deterministic=deterministic)
        return self.finish(x)

    def lower(
        self, input_ids: jax.Array, attention_mask: jax.Array, *, deterministic: bool = True
    ) -> jax.Array:
        """Embeddings and every layer, without the final norm: (B, T, D)."""
        self.check(input_ids, attention_mask)
        x = self.embed(input_ids, deterministic)
        return self.run(x, attention_mask, deterministic)

    def upper(
        self, x: jax.Array, attention_mask: jax.Array, *, deterministic: bool = True
    ) -> jax.Array:
        """Every layer and the final norm, from hidden states: (B, T, D)."""
        return self.finish(self.run(x, attention_mask, deterministic))

    def embed(self, input_ids: jax.Array, deterministic: bool) -> jax.Array:
        raise NotImplementedError

    def context(self, attention_mask: jax.Array) -> Any:
        raise NotImplementedError

    def finish(self, x: jax.Array) -> jax.Array:
        raise NotImplementedError

    def run(self, x: jax.Array, attention_mask: jax.Array, deterministic: bool) -> jax.Array:
        if self.config.num_layers == 0:
            return x
        context = self.context(attention_mask.astype(bool))
        return self.layers(x, context, deterministic)[0]

    def check(self, input_ids: jax.Array, attention_mask: jax.Array) -> None:
        if input_ids.ndim != 2 or input_ids.shape != attention_mask.shape:
            raise ValueError(
                "input_ids and attention_mask must both be (batch, tokens), got "
                f"{input_ids.shape} and {attention_mask.shape}"
            )
        if input_ids.shape[1] > self.config.max_positions:
            raise ValueError(
                f"{input_ids.shape[1]} tokens are more than the {self.config.max_positions} "
                f"positions of this {self.config.family} model"
            )
