"""Low-rank adaptation as a transform over a parameter tree (equation 16).

A target kernel W (in, out), or a stack of them (L, in, out), gets factors U (in, R)
and V (R, out), stacked likewise; its effective value is W + scale * U V. Axis
letters: L layers, R rank.
"""

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from dwa_jax import paths

# Every matrix of attention and feed-forward, in the names of `dwa_jax.backbones`.
ATTENTION_AND_MLP = r"(attention|mlp)/\w+/kernel$"
# Above the width of any model; a rank beyond it is a slip that would take gigabytes.
MAX_RANK = 65_536


@struct.dataclass
class Lora:
    """LoRA factors of a parameter tree.

    Attributes:
      factors: nested dict in the shape of the parameters' own, holding
        {"u": (..., in, R), "v": (..., R, out)} in place of each target kernel's module.
      scale: what U V is multiplied by: alpha / R, or alpha / sqrt(R) if rank-stabilised.
    """

    factors: dict
    scale: float = struct.field(pytree_node=False)


def init(
    key: jax.Array,
    params: Mapping,
    *,
    rank: int,
    targets: Sequence[str] | None = None,
    alpha: float | None = None,
    rank_stabilized: bool = False,
    dtype: jnp.dtype = jnp.float32,
) -> Lora:
    """Makes factors for every kernel that a target pattern matches; U V is 0 at the start.

    Example:
      >>> params = {"attention": {"query": {"kernel": jnp.ones((12, 64, 32))}}}
      >>> lora = init(jax.random.key(0), params, rank=4, targets=["query"])
      >>> jax.tree.map(jnp.shape, lora.factors)
      {'attention': {'query': {'u': (12, 64, 4), 'v': (12, 4, 32)}}}

    Args:
      key: split so that every factor gets its own.
      params: nested dict; kernels are (in, out) or stacked (L, in, out).
      rank: R, from 1 to `MAX_RANK`; one above a kernel's full rank is warned about.
      targets: regular expressions over paths, each of which must match something;
        None: every matrix of attention and feed-forward.
      alpha: the scale's numerator; by default R, as in the papers, so that the scale is 1.
      rank_stabilized: divides alpha by sqrt(R) instead of R (Kalajdzievski 2023).
      dtype: of the factors.

    Returns:
      A `Lora`. U is uniform within 1 / sqrt(in), V is zero.

    Raises:
      ValueError: the rank is out of bounds, a target matches nothing or is no kernel.
    """
    if not isinstance(rank, Integral) or not 1 <= rank <= MAX_RANK:
        raise ValueError(
            f"LoRA rank must be a whole number, at least 1 and at most {MAX_RANK:,}, not {rank}"
        )
    alpha = rank if alpha is None else alpha
    patterns = (ATTENTION_AND_MLP,) if targets is None else targets
    rules = [(pattern, True) for pattern in patterns]
    selected = paths.flatten(paths.assign(params, rules, default=False))
    flat = paths.flatten(params)
    # A pattern such as "query" names a module: of its leaves only the kernel is a matrix.
    chosen = [path for path in sorted(flat) if selected[path] and not path.endswith("/bias")]
    factors, too_high = {}, {}
    for index, path in enumerate(chosen):
        kernel, module = flat[path], path.rpartition("/")[0]
        if not path.endswith("/kernel") or kernel.ndim not in (2, 3):
            raise ValueError(
                f"LoRA target {path!r} of shape {kernel.shape} is not an (in, out) kernel"
            )
        *layers, num_in, num_out = kernel.shape
        if rank > min(num_in, num_out):
            too_high[path] = num_in, num_out
        u_key = jax.random.fold_in(key, index)
        bound = 1 / math.sqrt(num_in)
        factors[f"{module}/u"] = jax.random.uniform(
            u_key, (*layers, num_in, rank), dtype, minval=-bound, maxval=bound
        )
        factors[f"{module}/v"] = jnp.zeros((*layers, rank, num_out), dtype)
    if not factors:
        raise ValueError(f"no kernel matches the LoRA targets {targets}")
    if too_high:
        lowest = min(too_high, key=lambda path: min(too_high[path]))
        num_in, num_out = too_high[lowest]
        warnings.warn(
            f"LoRA rank {rank} exceeds the full rank of {len(too_high)} of {len(chosen)} kernels; "
            f"of {lowest} ({num_in} x {num_out}) for instance, which rank "
            f"{min(num_in, num_out)} adapts fully",
            stacklevel=2,
        )
    scale = alpha / math.sqrt(rank) if rank_stabilized else alpha / rank
    return Lora(paths.unflatten(factors), float(scale))


def variables(lora: Lora) -> dict:
    """Returns the factors as the backbones' "lora" collection wants them, V already scaled."""
    return scaled(lora.factors, lora.scale)


def scaled(factors: Mapping, scale: float) -> dict:
    """Multiplies every V of a nested dict of factors by `scale`."""
    flat = paths.flatten(factors)
    return paths.unflatten(
        {path: leaf * scale if path.endswith("/v") else leaf for path, leaf in flat.items()}
    )


def merge(params: Mapping, lora: Lora) -> dict:
    """Adds scale * U V to every target kernel.

    Args:
      params: nested dict that `lora` was made for.
      lora: its factors.

    Returns:
      A nested dict of the same structure, shapes and dtypes as `params`.

    Raises:
      ValueError: `params` lacks a kernel that `lora` has factors for.
    """
    flat, factors = paths.flatten(params), paths.flatten(lora.factors)
    merged = dict(flat)
    for path in factors:
        if not path.endswith("/u"):
            continue
        module = path.removesuffix("/u")
        if f"{module}/kernel" not in flat:
            raise ValueError(f"LoRA has factors for {module!r}, which the parameters lack")
        kernel = flat[f"{module}/kernel"]
        update = jnp.matmul(factors[path], factors[f"{module}/v"]) * lora.scale
        merged[f"{module}/kernel"] = (kernel + update).astype(kernel.dtype)
    return paths.unflatten(merged)


def replace_factors(lora: Lora, factors: Mapping) -> Lora:
    """Returns `lora` with other factors, after training for instance."""
    return dataclasses.replace(lora, factors=dict(factors))


def count(tree: Any) -> int:
    """Returns how many numbers a tree of arrays holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
