"""x (W + U V) in the order that multiplies least, forward and backward.

Axes: N rows, I in, O out, R rank.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dwa_jax.backbones.products import transposed_product, turns


class Order(NamedTuple):
    """Which products a low-rank layer takes.

    Attributes:
      merged: adds U V to W once, instead of sending every row through U and V.
      through_matrix: takes the factors' gradients from x^T y_bar, the gradient of U V.
    """

    merged: bool
    through_matrix: bool


def choose(rows: int, num_in: int, num_out: int, rank: int) -> Order:
    """Chooses by the number of multiplications.

    Merged, LoRA adds I O R multiplications to the forward pass and the gradient of x;
    otherwise N R (I + O) to each. The factors' gradients take N I O + 2 I O R through the
    gradient of U V, and otherwise 2 N R (I + O), half of which (x U and y_bar V^T) is
    there already where the layer is not merged.

    Args:
      rows: N.
      num_in: I.
      num_out: O.
      rank: R.

    Returns:
      An `Order`. Source: Cherniuk et al. 2023, "Run LoRA Run".
    """
    through_factors = rows * rank * (num_in + num_out)
    matrix_gradient = rows * num_in * num_out + 2 * num_in * num_out * rank
    costs = {
        Order(True, False): num_in * num_out * rank + 2 * through_factors,
        Order(True, True): num_in * num_out * rank + matrix_gradient,
        # Forward, the gradient of x, and then half of the factors' gradients is there.
        Order(False, False): 2 * through_factors + through_factors,
        Order(False, True): 2 * through_factors + matrix_gradient,
    }
    return min(costs, key=costs.__getitem__)


def multiply(x: jax.Array, kernel: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
    """Computes x (W + U V).

    In half precision U V is never added to W, which would round small updates away.

    Args:
      x: (..., I).
      kernel: (I, O).
      u: (I, R).
      v: (R, O), already scaled; all four of one dtype.

    Returns:
      (..., O).
    """
    rows = x.size // x.shape[-1]
    num_in, num_out = kernel.shape
    order = choose(rows, num_in, num_out, u.shape[-1])
    if jnp.finfo(x.dtype).bits < 32:
        order = order._replace(merged=False)
    return _multiply(order, x, kernel, u, v)


def _multiply(order, x, kernel, u, v):
    turned = turns(*kernel.shape)

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
            v_bar = transposed_product(u, kernel_bar, turned=True)
            return x_bar, kernel_bar, kernel_bar @ v.T, v_bar
        flat_inner_bar = inner_bar.reshape(flat.shape[0], -1)
        u_bar = transposed_product(flat, flat_inner_bar, turned=turned)
        inner = through(flat, u) if inner is None else inner.reshape(flat.shape[0], -1)
        return x_bar, kernel_bar, u_bar, transposed_product(inner, flat_bar, turned=True)

    run.defvjp(forward, backward)
    return run(x, kernel, u, v)
