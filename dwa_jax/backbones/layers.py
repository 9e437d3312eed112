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
from jax.sharding import Mesh
from jax.typing import DTypeLike

from dwa_jax import sharding
from dwa_jax.backbones import low_rank
from dwa_jax.backbones.attention import Lengths, attention, wide
from dwa_jax.backbones.config import BackboneConfig
from dwa_jax.backbones.dropout import dropout
from dwa_jax.backbones.products import is_cpu, product
from dwa_jax.backbones.rotary import Scaling


def _along_last(vector, x):
    # Explicit, so that the library also runs under rank promotion "raise".
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)


_FLAT_LAYERS = 12

# For cheap elementwise work: the backward pass starts again from the inputs, which are
# kept anyway and in the compute dtype, instead of storing wide intermediates. Saves a
# quarter of a layer's memory and is no slower. Inside a scan nothing needs prevent_cse.
_recomputed = functools.partial(jax.checkpoint, prevent_cse=False)


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
    platform: str = "",
    may_merge: bool = True,
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
      platform: see `products.is_cpu`.
      may_merge: see `low_rank.multiply`.

    Returns:
      (..., O) in `dtype`. Source: Hu et al. 2021, "LoRA", section 4.1.
    """
    x, kernel = x.astype(dtype), kernel.astype(dtype)
    if u is None or v is None:
        y = product(x, kernel, platform)
    elif dropout_rate:
        update = product(dropout(x, dropout_rate, dropout_key), u.astype(dtype), platform)
        y = product(x, kernel, platform) + product(update, v.astype(dtype), platform)
    else:
        u, v = u.astype(dtype), v.astype(dtype)
        y = low_rank.multiply(x, kernel, u, v, platform, may_merge=may_merge)
    if bias is not None:
        y = y + _along_last(bias.astype(dtype), y)
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
    y = x.astype(wide(x.dtype))
    y = y - jnp.mean(y, axis=-1, keepdims=True)
    y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + eps)
    scale, bias = scale.astype(y.dtype), bias.astype(y.dtype)
    return (y * _along_last(scale, x) + _along_last(bias, x)).astype(x.dtype)


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
    y = x.astype(wide(x.dtype))
    y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + eps)
    return (y * _along_last(scale.astype(y.dtype), x)).astype(x.dtype)


def rotary_angles(
    positions: int,
    head_dim: int,
    theta: float,
    dtype: DTypeLike = jnp.float32,
    scaling: Scaling | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Returns cos and sin of each position's angles, position / theta^(2 i / E).

    Args:
      positions: T; the angles are of 0 .. T - 1.
      head_dim: E, even.
      theta: base.
      dtype: compute dtype; the angles are at least float32.
      scaling: what is done to the frequencies first.

    Returns:
      (cos, sin), each (T, E / 2). Source: Su et al. 2021, "RoFormer".
    """
    # On the host: a device's own power function does not enter the angles, and XLA, which
    # would compute a cosine again wherever it is used, finds a table.
    wide_dtype = jnp.dtype(wide(dtype))
    frequencies = 1.0 / theta ** (np.arange(0, head_dim, 2) / head_dim)
    if scaling is not None:
        frequencies = scaling(frequencies)
    steps = np.arange(positions, dtype=wide_dtype)
    angles = steps[:, None] * frequencies.astype(wide_dtype)[None, :]
    return jnp.asarray(np.cos(angles)), jnp.asarray(np.sin(angles))


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotates the pairs (x_i, x_{i + E/2}) of every head by its position's angles.

    Args:
      x: (B, T, H, E).
      cos: (T, E / 2), or (B, T, E / 2) where rows differ.
      sin: likewise.

    Returns:
      (B, T, H, E) in x's dtype.
    """
    if cos.ndim == 2:
        cos, sin = cos[None], sin[None]
    # Pairs as an axis of two that is turned round: a concatenation of halves takes a CPU
    # several times as long.
    halves = x.astype(cos.dtype).reshape(*x.shape[:-1], 2, -1)
    cos, sin = cos[:, :, None, None, :], jnp.stack((-sin, sin), axis=-2)[:, :, None]
    rotated = (halves * cos + halves[..., ::-1, :] * sin).reshape(x.shape)
    return rotated.astype(x.dtype)


def at(x: jax.Array, positions: jax.Array | None) -> jax.Array:
    """Returns x (B, T, ...) at one position a row, (B, 1, ...); all of it for None."""
    if positions is None:
        return x
    index = positions.reshape(-1, *[1] * (x.ndim - 1))
    return jnp.take_along_axis(x, index, axis=1)


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


@jax.custom_vjp
def _probed(y, probe):
    del probe
    return y


_probed.defvjp(lambda y, probe: (y, None), lambda _, y_bar: (y_bar, y_bar))


class Block(nn.Module):
    """The fields every part of a trunk has; `mesh` where it runs on several devices."""

    config: BackboneConfig
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32
    lora_dropout: float = 0.0
    platform: str = ""
    mesh: Mesh | None = None

    def matrix_init(self) -> Callable[..., jax.Array]:
        return nn.initializers.normal(self.config.initializer_range)

    def dropout(self, x: jax.Array, rate: float, deterministic: bool) -> jax.Array:
        rate = 0.0 if deterministic else rate
        return dropout(x, rate, self.make_rng("dropout") if rate else None)

    def recorded(self, kind: str, y: jax.Array, given: jax.Array) -> jax.Array:
        """Hands out a matrix's input and its output's cotangent where "records" may change.

        Args:
          kind: of the matrix, see `dwa_jax.records.Site`.
          y: its output.
          given: its input.

        Returns:
          y; its cotangent is also that of the variable `kind` of the collection "probes".

        Raises:
          ValueError: the matrix was used before in this pass.
        """
        if self.is_initializing() or not self.is_mutable_collection("records"):
            return y
        if self.has_variable("records", kind):
            raise ValueError(
                f"{'/'.join(self.path)} is used twice in one pass: its gradient is no product of "
                "one input and one cotangent; take gradient_norms='trees'"
            )
        self.put_variable("records", kind, given)
        if not self.has_variable("probes", kind):
            return y
        return _probed(y, self.get_variable("probes", kind))

    def whole(self, matrix: jax.Array) -> jax.Array:
        """Gathers a matrix that is split over devices, as what the trunk computes in."""
        if self.mesh is None or self.is_initializing():
            return matrix
        # Cast first: in half precision half as many bytes travel.
        return sharding.gathered(matrix.astype(self.dtype), self.mesh)

    def in_rows(self, x: jax.Array) -> jax.Array:
        """Keeps x (B, ...) where its rows are, where a matrix might draw it elsewhere."""
        return sharding.by_rows(x, self.mesh) if self.mesh and self.spread_over(x) > 1 else x

    def spread_over(self, x: jax.Array) -> int:
        """Returns over how many devices the rows of x (B, ...) are spread."""
        if self.mesh is None or self.is_initializing() or x.shape[0] % self.mesh.size:
            return 1
        return self.mesh.size

    def part(self, cls: Callable, *args: Any, **kwargs: Any) -> Any:
        numbers = self.config, self.dtype, self.param_dtype, self.lora_dropout
        return cls(*numbers, self.platform, self.mesh, *args, **kwargs)


class Linear(Block):
    """A matrix, and its low-rank update where the "lora" collection holds one."""

    features: int = 0
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool = True) -> jax.Array:
        shape = (x.shape[-1], self.features)
        kernel = self.whole(self.param("kernel", self.matrix_init(), shape, self.param_dtype))
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        if not self.has_variable("lora", "u"):
            y = self.in_rows(linear(x, kernel, bias, dtype=self.dtype, platform=self.platform))
            return self.recorded("dense", y, x.astype(self.dtype))
        u: jax.Array = self.whole(self.get_variable("lora", "u"))
        v: jax.Array = self.whole(self.get_variable("lora", "v"))
        rate = 0.0 if deterministic else self.lora_dropout
        key = self.make_rng("dropout") if rate else None
        y = linear(
            x,
            kernel,
            bias,
            u,
            v,
            dtype=self.dtype,
            dropout_rate=rate,
            dropout_key=key,
            platform=self.platform,
            may_merge=self.mesh is None or not sharding.splits_parameters(self.mesh),
        )
        return self.in_rows(y)


class Embedding(Block):
    """A table looked up by row."""

    rows: int = 0

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        shape = (self.rows, self.config.hidden_size)
        table = self.param("embedding", self.matrix_init(), shape, self.param_dtype)
        # An id outside the table (a tokenizer of another model) becomes NaN, not a wrong row.
        found = jnp.take(self.whole(table), ids, axis=0, mode="fill").astype(self.dtype)
        found = self.in_rows(found)
        return self.recorded("embedding", found, ids)


class LayerNorm(Block):
    """`layer_norm` and its weights."""

    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape, self.param_dtype)
        bias = jnp.zeros(shape, self.param_dtype)
        if self.use_bias:
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
        angles: tuple[jax.Array, ...] | None = None,
        deterministic: bool = True,
        positions: jax.Array | None = None,
        lengths: Lengths | None = None,
    ) -> jax.Array:
        c = self.config

        def project(name, heads, x):
            part = self.part(Linear, heads * c.head_dim, c.qkv_bias, name=name)
            return part(x, deterministic).reshape(*x.shape[:2], heads, c.head_dim)

        asking = at(x, positions)
        query = project("query", c.num_heads, asking)
        key = project("key", c.num_kv_heads, x)
        value = project("value", c.num_kv_heads, x)
        if c.qk_norm:
            query = self.part(RMSNorm, name="query_norm")(query)
            key = self.part(RMSNorm, name="key_norm")(key)
        if angles is not None:
            key = rotate(key, *angles)
            if positions is not None:
                angles = tuple(table[positions][:, None] for table in angles)
            query = rotate(query, *angles)
        if mask.shape[1] > 1:
            mask = at(mask, positions)
        rate = 0.0 if deterministic else c.attention_dropout
        drop_key = self.make_rng("dropout") if rate else None
        mixed = attention(
            query,
            key,
            value,
            mask,
            dropout_rate=rate,
            dropout_key=drop_key,
            platform=self.platform,
            # One query a row is not worth it.
            lengths=lengths if positions is None else None,
            devices=self.spread_over(x),
        )
        mixed = mixed.reshape(*asking.shape[:2], c.num_heads * c.head_dim)
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
    `embed`, `context` (what every layer is given beside x) and `finish`. A layer is
    called with x (B, T, D), the context, whether dropout is off, `positions` (None, or
    (B,) where it returns (B, 1, D) at these positions alone, as `at` cuts it), and its row
    of each of the trunk's `each`.
    """

    unroll: int = 0
    remat: bool = False
    right_padded: bool = False
    single: bool = False

    def stack(self, layer: type[nn.Module]) -> Any:
        count = self.config.num_layers
        unroll = min(self.unroll, count)
        if not unroll:
            # A CPU's loop costs a tenth of the step; compiling more layers, more than that.
            flat = is_cpu(self.platform) and count <= _FLAT_LAYERS and not self.remat
            unroll = count if flat else 1
        if self.remat:
            # Inside a scan nothing can be merged across iterations anyway.
            merges = self.single or unroll == count
            layer = nn.remat(layer, prevent_cse=merges, static_argnums=(3,))
        elif self.mesh is not None and sharding.splits_parameters(self.mesh):
            # A loop would keep what a layer gathers for the way back: all of the weights.
            layer = nn.remat(
                layer, prevent_cse=False, static_argnums=(3,), policy=sharding.gathers_again
            )
        if self.single:
            return self.part(layer)
        scanned = nn.scan(
            layer,
            variable_axes={"params": 0, "lora": 0, "probes": 0, "records": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(*[nn.broadcast] * 3, *[0] * len(self.each())),
            length=count,
            unroll=max(unroll, 1),
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

    def top(
        self,
        x: jax.Array,
        attention_mask: jax.Array,
        positions: jax.Array | None = None,
        *,
        deterministic: bool = True,
    ) -> jax.Array:
        """The only layer of a `single` trunk and the final norm, from hidden states.

        Args:
          x: (B, T, D).
          attention_mask: (B, T).
          positions: (B,) the one token a row that is wanted; None for all.
          deterministic: whether dropout is off.

        Returns:
          (B, T, D), or (B, 1, D) at the positions.
        """
        context = self.context(attention_mask.astype(bool))
        own = jax.tree.map(lambda leaf: leaf[0], self.each())
        return self.finish(self.layers(x, context, deterministic, positions, *own)[0])

    def embed(self, input_ids: jax.Array, deterministic: bool) -> jax.Array:
        raise NotImplementedError

    def context(self, attention_mask: jax.Array) -> Any:
        raise NotImplementedError

    def lengths(self, attention_mask: jax.Array, *, causal: bool = False) -> Lengths | None:
        """The mask (B, T) as a GPU's fused attention takes it; None where it cannot be said so."""
        if not self.right_padded or is_cpu(self.platform):
            return None
        tokens = attention_mask.sum(axis=1, dtype=jnp.int32)
        return Lengths(tokens, causal, self.config.window)

    def each(self) -> tuple[jax.Array, ...]:
        """Arrays (L, ...) of which every layer is given its own row, where layers differ."""
        return ()

    def finish(self, x: jax.Array) -> jax.Array:
        raise NotImplementedError

    def run(self, x: jax.Array, attention_mask: jax.Array, deterministic: bool) -> jax.Array:
        if self.config.num_layers == 0:
            return x
        context = self.context(attention_mask.astype(bool))
        return self.layers(x, context, deterministic, None, *self.each())[0]

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
