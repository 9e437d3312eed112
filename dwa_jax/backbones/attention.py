"""Scaled dot-product attention: in one piece, a few heads at a time, or a GPU's fused one.

Axes: B batch, T query tokens, S key tokens, H heads, K key/value heads, G query heads that
share one of them, E width of one head.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import DTypeLike

from dwa_jax.backbones.dropout import dropout
from dwa_jax.backbones.products import is_cpu

# Scores that a CPU's caches hold. Beyond it the backward pass is bound by memory, and a few
# heads at a time, whose scores are computed again, are faster than all of them at once.
_CACHED_BYTES = 2**21


# The widest head that every fused kernel takes; its width must be a multiple of 8.
_FUSED_WIDTH = 128


@struct.dataclass
class Lengths:
    """A mask in the words of a GPU's fused attention: the first tokens of every row.

    Attributes:
      tokens: (B,) real tokens, with all padding behind them.
      causal: whether a token sees none behind itself.
      window: tokens that it sees, itself included; None: all.
    """

    tokens: jax.Array
    causal: bool = struct.field(pytree_node=False)
    window: int | None = struct.field(pytree_node=False, default=None)


def wide(dtype: DTypeLike) -> DTypeLike:
    """Returns the dtype that statistics of values of `dtype` are taken in."""
    # Not promote_types, which strict dtype promotion forbids for half precision.
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array,
    *,
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
    platform: str = "",
    lengths: Lengths | None = None,
    devices: int = 1,
) -> jax.Array:
    """Scaled dot-product attention with grouped query heads.

    Args:
      query: (B, T, H, E).
      key: (B, S, K, E); head h of the query reads head h // (H / K).
      value: (B, S, K, E).
      mask: boolean, (B, 1 or T, S); True where a query may look.
      dropout_rate: rate on the probabilities.
      dropout_key: PRNG key; None for rate 0.
      platform: see `products.is_cpu`.
      lengths: what the mask says, where it can be said so; then a GPU's fused attention
        is taken where there is one for this dtype, width and rate.
      devices: over which the rows are spread; divides B.

    Returns:
      (B, T, H, E). A query that may look nowhere gets the mean of the values, so
      that neither it nor its gradient is NaN; of fused attention, whatever that gives.

    Raises:
      ValueError: there is no key and the rate is not 0.
    """
    if lengths is not None and not is_cpu(platform) and not dropout_rate:
        mixed = fused(query, key, value, lengths)
        if mixed is not None:
            return mixed
    b, t, h, e = query.shape
    s, k = key.shape[1], key.shape[2]
    # Heads lead the contractions: both become plain batched matrix products.
    query = query.reshape(b, t, k, h // k, e).transpose(0, 2, 3, 1, 4)
    key, value = key.transpose(0, 2, 1, 3), value.transpose(0, 2, 1, 3)
    at_a_time = b // devices * k
    if is_cpu(platform):
        each = h // k * t * s * jnp.dtype(wide(query.dtype)).itemsize
        at_a_time = _heads_at_a_time(b // devices * k, each)
    if at_a_time == b // devices * k:
        # Memory is what a GPU lacks, and what its products wait for.
        kept = is_cpu(platform)
        mixed = _at_once(dropout_rate, kept, query, key, value, mask[:, None, None], dropout_key)
    else:
        # Every key/value head by itself, with its row's mask.
        mask = jnp.broadcast_to(mask[:, None], (b, k, *mask.shape[1:]))[:, :, None]
        # Every device goes through groups of its own rows.
        own = (devices,) if devices > 1 else ()
        q, k_, v, mask = (
            x.reshape(*own, -1, at_a_time, *x.shape[2:]) for x in (query, key, value, mask)
        )
        if own:
            q, k_, v, mask = (x.swapaxes(0, 1) for x in (q, k_, v, mask))
        if dropout_key is not None:
            dropout_key = jax.random.split(dropout_key, q.shape[0])
        mixed = _in_parts(dropout_rate, q, k_, v, mask, dropout_key)
        mixed = (mixed.swapaxes(0, 1) if own else mixed).reshape(query.shape)
    return mixed.transpose(0, 3, 1, 2, 4).reshape(b, t, h, e)


def fused(query: jax.Array, key: jax.Array, value: jax.Array, lengths: Lengths) -> jax.Array | None:
    """cuDNN's attention, which writes no scores; None where it does not apply.

    Args:
      query: (B, T, H, E).
      key: (B, S, K, E).
      value: (B, S, K, E).
      lengths: what a query may look at.

    Source: Dao 2023, "FlashAttention-2".
    """
    width = query.shape[-1]
    if jnp.finfo(query.dtype).bits != 16 or width > _FUSED_WIDTH or width % 8:
        return None
    if not all(map(_may_fuse, jax.local_devices())):
        return None
    window = None if lengths.window is None else (lengths.window - 1, 0)
    try:
        return jax.nn.dot_product_attention(
            query,
            key,
            value,
            is_causal=lengths.causal,
            query_seq_lengths=lengths.tokens,
            key_value_seq_lengths=lengths.tokens,
            local_window_size=window,
            implementation="cudnn",
        )
    except (NotImplementedError, RuntimeError):
        return None  # there is no cuDNN, or it has no such kernel


def _may_fuse(device):
    # Where one machine compiles for another there is nothing to ask; AMD's say a name.
    major = str(getattr(device, "compute_capability", "8.0")).partition(".")[0]
    return major.isdecimal() and int(major) >= 8


def _heads_at_a_time(heads, bytes_each):
    if heads * bytes_each <= _CACHED_BYTES:
        return heads
    most = max(_CACHED_BYTES // bytes_each, 1)
    return max(n for n in range(1, heads + 1) if heads % n == 0 and n <= most)


# Below: query (..., G, T, E), key and value (..., S, E), mask (..., 1, 1 or T, S).


def _probabilities(query, key, mask, normaliser=None):
    logits = jnp.einsum("...gte,...se->...gts", query * query.shape[-1] ** -0.5, key)
    logits = logits.astype(wide(logits.dtype))
    # Half of the lowest number: subtracting the maximum cannot overflow to infinity.
    logits = jnp.where(mask, logits, 0.5 * jnp.finfo(logits.dtype).min)
    if normaliser is None:
        top = logits.max(axis=-1, keepdims=True)
        normaliser = top, jnp.exp(logits - top).sum(axis=-1, keepdims=True)
    top, total = normaliser
    return jnp.exp(logits - top) / total, normaliser


def _mixed(rate, probabilities, value, key):
    return jnp.einsum(
        "...gts,...se->...gte", dropout(probabilities.astype(value.dtype), rate, key), value
    )


def _gradients(rate, mixed_bar, query, key, value, mask, dropout_key, mixed, probabilities):
    # By hand, because what jax derives divides by the softmax's sum once more, and holds
    # what it divides by as wide as the scores.
    used = dropout(probabilities.astype(value.dtype), rate, dropout_key)
    value_bar = jnp.einsum("...gts,...gte->...se", used, mixed_bar)
    # What is subtracted below nearly cancels: in half precision neither side may be rounded
    # before. Dropout multiplies by the same numbers in both directions.
    wider = probabilities.dtype
    bar = jnp.einsum("...gte,...se->...gts", mixed_bar, value, preferred_element_type=wider)
    bar = dropout(bar, rate, dropout_key)
    inner = jnp.sum(mixed_bar.astype(wider) * mixed.astype(wider), axis=-1, keepdims=True)
    scores_bar = jnp.where(mask, probabilities * (bar - inner), 0).astype(query.dtype)
    scale = query.shape[-1] ** -0.5
    query_bar = jnp.einsum("...gts,...se->...gte", scores_bar, key) * scale
    key_bar = jnp.einsum("...gts,...gte->...se", scores_bar, query * scale)
    return query_bar, key_bar, value_bar


def _with_derivative(forward, backward):
    run = jax.custom_vjp(lambda *parts: forward(*parts)[0])
    run.defvjp(forward, backward)
    return run


def _at_once(rate, keep, query, key, value, mask, dropout_key):
    """Attention that keeps its probabilities for the backward pass, or computes them again."""

    def forward(query, key, value, mask, dropout_key):
        probabilities, normaliser = _probabilities(query, key, mask)
        mixed = _mixed(rate, probabilities, value, dropout_key)
        kept = probabilities if keep else normaliser
        return mixed, (query, key, value, mask, dropout_key, mixed, kept)

    def backward(kept, mixed_bar):
        query, key, value, mask, dropout_key, mixed, found = kept
        if not keep:
            found, _ = _probabilities(query, key, mask, found)
        parts = query, key, value, mask, dropout_key, mixed, found
        return *_gradients(rate, mixed_bar, *parts), None, None

    return _with_derivative(forward, backward)(query, key, value, mask, dropout_key)


def _in_parts(rate, query, key, value, mask, dropout_key):
    """Attention of a stack of groups; nothing of T x S outlives a group.

    Source: Dao et al. 2022, "FlashAttention", algorithms 1 and 4, with one block a head.
    """

    def forward(*parts):
        def group(parts):
            query, key, value, mask, dropout_key = parts
            probabilities, normaliser = _probabilities(query, key, mask)
            return _mixed(rate, probabilities, value, dropout_key), normaliser

        mixed, normaliser = jax.lax.map(group, parts)
        return mixed, (parts, mixed, normaliser)

    def backward(kept, mixed_bar):
        def group(given):
            parts, mixed, normaliser, mixed_bar = given
            query, key, value, mask, dropout_key = parts
            probabilities, _ = _probabilities(query, key, mask, normaliser)
            kept = query, key, value, mask, dropout_key, mixed, probabilities
            return _gradients(rate, mixed_bar, *kept)

        return *jax.lax.map(group, (*kept, mixed_bar)), None, None

    return _with_derivative(forward, backward)(query, key, value, mask, dropout_key)
