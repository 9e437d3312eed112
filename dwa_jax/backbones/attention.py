"""Scaled dot-product attention, in one piece or head by head.

Axes: B batch, T query tokens, S key tokens, H heads, K key/value heads, G query heads that
share one of them, E width of one head, N heads worked on at a time.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

# Scores that a CPU's caches hold. Beyond it the backward pass is bound by memory, and a few
# heads at a time, whose scores are computed again, are faster than all of them at once.
_CACHED_BYTES = 2**21


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
    dropout: Callable[[jax.Array], jax.Array] | None = None,
) -> jax.Array:
    """Scaled dot-product attention with grouped query heads.

    Args:
      query: (B, T, H, E).
      key: (B, S, K, E); head h of the query reads head h // (H / K).
      value: (B, S, K, E).
      mask: boolean, (B, 1 or T, S); True where a query may look.
      dropout: probabilities -> probabilities; None for none.

    Returns:
      (B, T, H, E). A query that may look nowhere gets the mean of the values, so
      that neither it nor its gradient is NaN.
    """
    b, t, h, e = query.shape
    s, k = key.shape[1], key.shape[2]
    # Heads lead the contractions: both become plain batched matrix products.
    query = query.reshape(b, t, k, h // k, e).transpose(0, 2, 3, 1, 4)
    key, value = key.transpose(0, 2, 1, 3), value.transpose(0, 2, 1, 3)
    at_a_time = _heads_at_a_time(b * k, h // k * t * s * jnp.dtype(wide(query.dtype)).itemsize)
    if dropout is not None or at_a_time == b * k:
        logits = _masked(_scores(query, key), mask[:, None, None])
        probabilities = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
        if dropout is not None:
            probabilities = dropout(probabilities)
        mixed = jnp.einsum("bkgts,bkse->bkgte", probabilities, value)
    else:
        # Every key/value head by itself, with its row's mask.
        mask = jnp.broadcast_to(mask[:, None], (b, k, *mask.shape[1:]))
        q, k_, v, mask = (x.reshape(b * k, *x.shape[2:]) for x in (query, key, value, mask))
        mixed = _in_parts(q, k_, v, mask, at_a_time).reshape(query.shape)
    return mixed.transpose(0, 3, 1, 2, 4).reshape(b, t, h, e)


def _heads_at_a_time(heads, bytes_each):
    if jax.default_backend() != "cpu" or heads * bytes_each <= _CACHED_BYTES:
        return heads
    most = max(_CACHED_BYTES // bytes_each, 1)
    return max(n for n in range(1, heads + 1) if heads % n == 0 and n <= most)


def _scores(query, key):
    logits = jnp.einsum("...gte,...se->...gts", query * query.shape[-1] ** -0.5, key)
    return logits.astype(wide(logits.dtype))


def _masked(logits, mask):
    # Half of the lowest number: subtracting the maximum cannot overflow to infinity.
    return jnp.where(mask, logits, 0.5 * jnp.finfo(logits.dtype).min)


def _in_parts(query, key, value, mask, at_a_time):
    """`attention` of heads in groups of `at_a_time`; nothing of T x S outlives a group.

    query (H, G, T, E), key and value (H, S, E), mask (H, 1 or T, S).
    Source: Dao et al. 2022, "FlashAttention", algorithms 1 and 4, with one block a head.
    """

    def grouped(x):
        return x.reshape(-1, at_a_time, *x.shape[1:])

    def joined(x):
        return x.reshape(-1, *x.shape[2:])

    def probabilities(q, k, allowed, top=None, total=None):
        logits = _masked(_scores(q, k), allowed[:, None])
        if top is None:
            top = logits.max(axis=-1, keepdims=True)
        exponentials = jnp.exp(logits - top)
        if total is None:
            total = exponentials.sum(axis=-1, keepdims=True)
        return exponentials / total, top, total

    @jax.custom_vjp
    def run(query, key, value, mask):
        return forward(query, key, value, mask)[0]

    def forward(query, key, value, mask):
        def group(parts):
            q, k, v, allowed = parts
            p, top, total = probabilities(q, k, allowed)
            return jnp.einsum("ngts,nse->ngte", p.astype(v.dtype), v), top, total

        mixed, top, total = jax.lax.map(group, (query, key, value, mask))
        return mixed, (query, key, value, mask, mixed, top, total)

    def backward(kept, mixed_bar):
        def group(parts):
            q, k, v, allowed, mixed, top, total, bar = parts
            p, _, _ = probabilities(q, k, allowed, top, total)
            v_bar = jnp.einsum("ngts,ngte->nse", p.astype(v.dtype), bar)
            p_bar = jnp.einsum("ngte,nse->ngts", bar, v).astype(p.dtype)
            inner = jnp.sum((bar * mixed).astype(p.dtype), axis=-1, keepdims=True)
            scores_bar = jnp.where(allowed[:, None], p * (p_bar - inner), 0).astype(q.dtype)
            scale = q.shape[-1] ** -0.5
            q_bar = jnp.einsum("ngts,nse->ngte", scores_bar, k) * scale
            k_bar = jnp.einsum("ngts,ngte->nse", scores_bar, q * scale)
            return q_bar, k_bar, v_bar

        return *jax.lax.map(group, (*kept, mixed_bar)), None

    run.defvjp(forward, backward)
    return joined(run(*map(grouped, (query, key, value, mask))))
