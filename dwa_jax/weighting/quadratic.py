"""Tiny quadratic programs, solved inside jit to machine precision.

For a few tasks every active set is tried at once; for many the right one is searched.
All matrices are symmetric positive semi-definite. Axis letters: N tasks.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from dwa_jax.weighting.common import matvec

# Beyond this many tasks 2^N systems cost more than a search for the right one: on one core as much
# at five, 1.4 times (UPGrad: 4 times) as much at seven, 2 to 3.5 times at eight.
MAX_ENUMERATED = 5


def subsets(size: int) -> np.ndarray:
    """Returns the (2^N, N) masks of all subsets of N tasks, the empty one first."""
    return np.array(list(itertools.product([False, True], repeat=size)))


def sweep(matrix: jax.Array, free: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Solves for the free variables of a symmetric system in place of them.

    With F the free and B the other indices, the result holds -A_FF^-1, A_FF^-1 A_FB and
    A_BB - A_BF A_FF^-1 A_FB (the sweep operator). Elimination without pivoting is stable
    because the matrix is definite on F.

    Args:
      matrix: (N, N) with ones, or zeros, on its diagonal.
      free: (N,) booleans.

    Returns:
      (N, N) swept matrix; () false where A_FF is singular to working precision.
    """
    size = matrix.shape[0]
    tolerance = 8 * size * jnp.finfo(matrix.dtype).eps
    valid = jnp.array(True)
    for k in range(size):
        row = matrix[k]
        pivoted = row[k] > tolerance
        valid &= pivoted | ~free[k]
        use = pivoted & free[k]
        pivot = jnp.where(use, row[k], 1)
        at_k = np.arange(size) == k
        swept = matrix - row[:, None] * row[None, :] / pivot
        swept = jnp.where(at_k[:, None], (row / pivot)[None, :], swept)
        swept = jnp.where(at_k[None, :], (row / pivot)[:, None], swept)
        swept = jnp.where(at_k[:, None] & at_k[None, :], -1 / pivot, swept)
        matrix = jnp.where(use, swept, matrix)
    return matrix, valid


def unit_diagonal(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns A_ij / (d_i d_j) and (N,) d, the root of the diagonal, or 1 where that is 0."""
    diagonal = jnp.diagonal(matrix)
    scale = jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1))
    return matrix / scale[:, None] / scale[None, :], scale


def solve_definite(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """Returns A^-1 b for an (N, N) definite matrix and (N,) right-hand side."""
    scaled, scale = unit_diagonal(matrix)
    inverse, _ = sweep(scaled, jnp.ones(right.shape, bool))
    return -matvec(inverse, right / scale) / scale


def bounded_quadratic(matrix: jax.Array, linear: jax.Array, lower: jax.Array) -> jax.Array:
    """Minimises x'Ax / 2 + q'x subject to x >= lower.

    Of all active sets the one is taken that violates the optimality conditions least,
    which is far sharper than comparing objective values: those are flat at the optimum.
    Where A is singular and there are many solutions, one of them is returned; beyond
    `MAX_ENUMERATED` variables A has to be definite.

    Args:
      matrix: (N, N) A.
      linear: (N,) q.
      lower: (N,) bounds.

    Returns:
      (N,) x.
    """
    matrix, scale = unit_diagonal(matrix)
    linear, lower = linear / scale, lower * scale
    solver = _by_enumeration if matrix.shape[0] <= MAX_ENUMERATED else _by_pivoting
    return jnp.maximum(solver(matrix, linear, lower), lower) / scale


def _by_enumeration(matrix, linear, lower):
    def candidate(free):
        swept, valid = sweep(matrix, free)
        solution = matvec(swept, jnp.where(free, linear, -lower))
        # Slack of a free variable, multiplier of one at its bound.
        gap = jnp.where(free, solution - lower, linear - solution)
        violation = jnp.where(valid, jnp.max(jnp.maximum(-gap, 0)), jnp.inf)
        return jnp.where(free, solution, lower), violation

    candidates, violations = jax.vmap(candidate)(subsets(matrix.shape[0]))
    return candidates[jnp.argmin(violations)]


def _by_pivoting(matrix, linear, lower):
    # Block principal pivoting (Judice and Pires, 1994): every variable that violates its
    # condition changes sides at once; where that stops helping, only the last one does,
    # which cannot cycle (Murty's rule).
    size = matrix.shape[0]
    # Of the size of what is solved for, which many tasks and their mean make small.
    scale = jnp.maximum(jnp.max(jnp.abs(linear)), jnp.max(jnp.abs(lower)))
    rounding = 8 * size * jnp.finfo(matrix.dtype).eps
    patience, max_steps = 3, 40 * size

    def solve(free):
        swept, _ = sweep(matrix, free)
        solution = matvec(swept, jnp.where(free, linear, -lower))
        gap = jnp.where(free, solution - lower, linear - solution)
        return jnp.where(free, solution, lower), gap

    def exchange(carry):
        free, gap, best, fewest, patience_left, count = carry
        wrong = gap < -rounding * scale
        improved = wrong.sum() < fewest
        left = jnp.where(improved, patience, patience_left - 1)
        last = jnp.arange(size) == size - 1 - jnp.argmax(wrong[::-1])
        free = free ^ jnp.where(left > 0, wrong, last)
        gap = solve(free)[1]
        best = jax.tree.map(
            lambda new, old: jnp.where(-gap.min() < best[1], new, old), (free, -gap.min()), best
        )
        return free, gap, best, jnp.minimum(fewest, wrong.sum()), left, count + 1

    def going(carry):
        # A singular matrix' rounding may exceed the tolerance: then what is near will do.
        _, gap, best, _, _, count = carry
        near = (count >= 3 * size) & (best[1] <= rounding)
        return (-gap.min() > rounding * scale) & ~near & (count < max_steps)

    free = jnp.zeros((size,), bool)
    gap = solve(free)[1]
    start = (free, gap, (free, -gap.min()), jnp.array(size + 1), jnp.array(patience), jnp.array(0))
    return solve(jax.lax.while_loop(going, exchange, start)[2][0])[0]
