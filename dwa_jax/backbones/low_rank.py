"""x (W + U V) in the order that multiplies least, forward and backward.

Axes: N rows, I in, O out, R rank.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from dwa_jax.backbones.products import is_cpu, transposed_product, turns


class Order(NamedTuple):
    """Which products a low-rank layer takes.

    Attributes:
      merged: adds U V to W once, instead of sending every row through U and V.
      through_matrix: takes the factors' gradients from x^T y_bar, the gradient of U V.
    """

    merged: bool
    through_matrix: bool


class Multiplications(NamedTuple):
    """What LoRA adds to a matrix's products, in multiplications.

    Attributes:
      once: forward, and what further passes backward share.
      inputs: a pass backward's, for the gradient of x.
      factors: a pass backward's, for the gradients of U and V.
    """

    once: int
    inputs: int
    factors: int


def multiplications(
    order: Order, rows: int, num_in: int, num_out: int, rank: int
) -> Multiplications:
    """Counts what an order adds to x W and y_bar W^T.

    Args:
      order: any.
      rows: N.
      num_in: I.
      num_out: O.
      rank: R.
    """
    through_u, through_v, matrix = rows * num_in * rank, rows * rank * num_out, num_in * num_out
    once = matrix * rank if order.merged else through_u + through_v
    inputs = 0 if order.merged else through_v + through_u
    if order.through_matrix:
        return Multiplications(once, inputs, rows * matrix + 2 * matrix * rank)
    # u_bar and v_bar need x U and y_bar V^T, which are there where LoRA is not merged.
    if order.merged:
        return Multiplications(once + through_u, inputs, 2 * through_v + through_u)
    return Multiplications(once, inputs, through_u + through_v)


def choose_order(rows: int, num_in: int, num_out: int, rank: int) -> Order:
    """Chooses the order that multiplies least in a pass forward and one backward.

    Args:
      rows: N.
      num_in: I.
      num_out: O.
      rank: R.

    Returns:
      An `Order`. Source: Cherniuk et al. 2023, "Run LoRA Run".
    """
    orders = [Order(*flags) for flags in itertools.product((True, False), (False, True))]
    return min(orders, key=lambda order: sum(multiplications(order, rows, num_in, num_out, rank)))


def order_for(rows: int, num_in: int, num_out: int, rank: int, dtype: DTypeLike) -> Order:
    """As `choose`, but never merged in half precision, which would round U V away."""
    order = choose_order(rows, num_in, num_out, rank)
    return order if jnp.finfo(dtype).bits >= 32 else order._replace(merged=False)


def multiply(
    x: jax.Array,
    kernel: jax.Array,
    u: jax.Array,
    v: jax.Array,
    platform: str = "",
    *,
    may_merge: bool = True,
) -> jax.Array:
    """Computes x (W + U V).

    Args:
      x: (..., I).
      kernel: (I, O).
      u: (I, R).
      v: (R, O), already scaled; all four of one dtype.
      platform: see `products.is_cpu`.
      may_merge: whether W + U V may be kept for the way back.

    Returns:
      (..., O).
    """
    num_in, num_out = kernel.shape
    order = order_for(x.size // num_in, num_in, num_out, u.shape[-1], x.dtype)
    order = order._replace(merged=order.merged and may_merge)
    return _multiply(order, platform, x, kernel, u, v)


def _multiply(order, platform, x, kernel, u, v):
    num_in, num_out = kernel.shape
    turned, on_cpu = turns(num_in, num_out, platform), is_cpu(platform)

    @jax.custom_vjp
    def run(x, kernel, u, v):
        return forward(x, kernel, u, v)[0]

    def through(x, u):
        # Or XLA computes it again, transposed, for the gradient of V.
        return jax.lax.optimization_barrier(x @ u)

    def forward(x, kernel, u, v):
        if order.merged:
            total = kernel + u @ v
            return x @ total, (x, total, u, v, None)
        inner = through(x, u)
        return x @ kernel + inner @ v, (x, kernel, u, v, inner)

    def backward(kept, y_bar):
        x, matrix, u, v, inner = kept
        flat, flat_bar = x.reshape(-1, x.shape[-1]), y_bar.reshape(-1, y_bar.shape[-1])
        inner_bar = y_bar @ v.T
        x_bar = y_bar @ matrix.T
        if not order.merged:
            x_bar = x_bar + inner_bar @ u.T
        # Of a frozen matrix nobody asks for it, and it is not computed.
        kernel_bar = transposed_product(flat, flat_bar, turned=turned)
        if order.through_matrix:
            v_bar = transposed_product(u, kernel_bar, turned=on_cpu)
            return x_bar, kernel_bar, kernel_bar @ v.T, v_bar
        flat_inner_bar = inner_bar.reshape(flat.shape[0], -1)
        u_bar = transposed_product(flat, flat_inner_bar, turned=turned)
        inner = through(flat, u) if inner is None else inner.reshape(flat.shape[0], -1)
        return x_bar, kernel_bar, u_bar, transposed_product(inner, flat_bar, turned=on_cpu)

    run.defvjp(forward, backward)
    return run(x, kernel, u, v)
