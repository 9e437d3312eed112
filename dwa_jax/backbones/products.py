"""Matrix products, whose gradients take the order that a CPU is fast at.

Axes: N rows, I in, O out.
"""

import jax
import jax.numpy as jnp


def is_cpu(platform: str = "") -> bool:
    """Says whether a program is for a CPU.

    Args:
      platform: what it is for, as `jax.devices` names it; "" is JAX's default. A program that
        is traced on one platform may be compiled for another.
    """
    return (platform or jax.default_backend()) == "cpu"


def product(x: jax.Array, kernel: jax.Array, platform: str = "") -> jax.Array:
    """Computes x W; on a CPU with a derivative of its own, so for reverse mode alone.

    Args:
      x: (..., I).
      kernel: (I, O).
      platform: see `is_cpu`.

    Returns:
      (..., O).
    """
    return _product(x, kernel) if is_cpu(platform) else jnp.dot(x, kernel)


def transposed_product(a: jax.Array, b: jax.Array, *, turned: bool) -> jax.Array:
    """Computes a^T b, the form of a matrix's gradient.

    XLA's fast product on CPU sums over the last axis of its first factor; what sums over
    the first axis takes a third longer. Where `turned`, a^T is written out first.

    Args:
      a: (N, I).
      b: (N, O).
      turned: whether that pays; see `turns`.

    Returns:
      (I, O).
    """
    if turned:
        return jax.lax.optimization_barrier(a.T) @ b
    return a.T @ b


def turns(num_in: int, num_out: int, platform: str = "") -> bool:
    """Says whether the input (N, I) of a layer I x O should be turned for its gradients.

    On a CPU alone, and not where it is the wider side, as in a feed-forward block's second
    matrix: its input comes from an activation, which XLA would compute once more, in the turned
    order.
    """
    return is_cpu(platform) and num_in <= num_out


@jax.custom_vjp
def _product(x, kernel):
    return jnp.dot(x, kernel)


def _forward(x, kernel):
    return jnp.dot(x, kernel), (x, kernel)


def _backward(kept, y_bar):
    x, kernel = kept
    flat, flat_bar = x.reshape(-1, x.shape[-1]), y_bar.reshape(-1, y_bar.shape[-1])
    num_in, num_out = kernel.shape
    turned = turns(num_in, num_out, "cpu")
    # Of a frozen matrix nobody asks for its gradient, and it is not computed.
    kernel_bar = transposed_product(flat, flat_bar, turned=turned)
    return y_bar @ kernel.T, kernel_bar


_product.defvjp(_forward, _backward)
