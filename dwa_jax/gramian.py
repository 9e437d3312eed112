"""Inner products of the tasks' gradients. Axis letters: N tasks."""

from typing import Any

import jax
import jax.numpy as jnp


def exact_product(left: jax.Array, right: jax.Array) -> jax.Array:
    """Multiplies matrices with all digits of float32, of which a GPU would drop half."""
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)


def gramian(trees: Any) -> jax.Array:
    """Inner products of trees of arrays, in float32 or wider.

    Args:
      trees: a list of N trees of one structure; or one tree, whose arrays have a leading axis N.

    Returns:
      (N, N) symmetric matrix.
    """
    if not isinstance(trees, list):
        stacked = jax.tree.leaves(trees)
        dtype = jnp.result_type(jnp.float32, *stacked)
        rows = [leaf.reshape(leaf.shape[0], -1).astype(dtype) for leaf in stacked]
        return sum((exact_product(leaf, leaf.T) for leaf in rows), start=jnp.zeros((), dtype))
    leaves = [jax.tree.leaves(tree) for tree in trees]
    dtype = jnp.result_type(jnp.float32, *leaves[0])
    products = {}
    for i in range(len(leaves)):
        for j in range(i, len(leaves)):
            products[i, j] = sum(
                jnp.sum(a.astype(dtype) * b.astype(dtype))
                for a, b in zip(leaves[i], leaves[j], strict=True)
            )
    size = range(len(leaves))
    # In one line, which `gradient_norms` counts on.
    return jnp.stack([products[min(i, j), max(i, j)] for i in size for j in size]).reshape(
        len(leaves), len(leaves)
    )


def gradient_norms(matrix: jax.Array) -> jax.Array:
    """Returns the gradients' L2 norms (N,), the root of a Gramian's diagonal.

    Element by element, from a matrix in one line: so XLA sees that nobody asks for the
    others, and a method of norms alone does not pay for them.
    """
    count = matrix.shape[0]
    line = matrix.reshape(-1)
    places = [i * (count + 1) for i in range(count)]
    return jnp.sqrt(jnp.stack([jax.lax.slice(line, (at,), (at + 1,))[0] for at in places]))
