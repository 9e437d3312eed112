"""Eigenvalues and pseudo-inverses of small matrices, accurate for unequal gradients.

Axis letters: N tasks.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from dwa_jax.weighting.common import matvec

# Beyond this many tasks the rotations, one after another, cost more than two of TorchJD's
# evaluations, and the platform's own solver is used.
MAX_ROTATED = 8


def eigh(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues and eigenvectors of a positive semi-definite matrix, small ones accurate too.

    The Gramian of a long and a short gradient is graded, and the methods behind
    `jnp.linalg.eigh` lose in their own precision the eigenvalues that are small beside the
    largest. Up to `MAX_ROTATED` rows Jacobi rotations keep them (Demmel and Veselic,
    "Jacobi's method is more accurate than QR", 1992). Beyond, the platform's method runs in
    float64, whatever JAX's default precision: its error is 1e-16 of the largest eigenvalue.

    Args:
      matrix: (N, N) symmetric.

    Returns:
      (N,) eigenvalues in descending order, (N, N) eigenvectors in columns.
    """
    return _by_rotations(matrix) if matrix.shape[0] <= MAX_ROTATED else _in_float64(matrix)


def _in_float64(matrix):
    with jax.enable_x64(True):
        values, vectors = jnp.linalg.eigh(matrix.astype(jnp.float64))
        values, vectors = (x.astype(matrix.dtype) for x in (values[::-1], vectors[:, ::-1]))
    return jnp.maximum(values, 0), vectors


def _by_rotations(matrix, sweeps=8):
    # A round goes over all pairs; convergence is quadratic.
    size = matrix.shape[0]
    pairs = np.array(list(itertools.combinations(range(size), 2)))
    if size == 2:
        sweeps = 1

    def rotate(step, carry):
        a, vectors = carry
        p, q = jnp.asarray(pairs)[step % len(pairs)]
        off = a[p, q]
        half_gap = (a[q, q] - a[p, p]) / 2
        # tan of the smaller of the two angles that annihilate a_pq.
        denominator = jnp.abs(half_gap) + jnp.hypot(half_gap, off)
        sign = jnp.where(half_gap >= 0, 1, -1)
        tangent = sign * off / jnp.where(denominator > 0, denominator, 1)
        cosine = jax.lax.rsqrt(1 + tangent**2)
        sine = tangent * cosine

        def columns(x):
            x_p, x_q = x[:, p], x[:, q]
            return x.at[:, p].set(cosine * x_p - sine * x_q).at[:, q].set(sine * x_p + cosine * x_q)

        diagonal_p, diagonal_q = a[p, p] - tangent * off, a[q, q] + tangent * off
        a = columns(columns(a).T)
        a = a.at[p, p].set(diagonal_p).at[q, q].set(diagonal_q)
        return a.at[p, q].set(0).at[q, p].set(0), columns(vectors)

    start = (matrix, jnp.eye(size, dtype=matrix.dtype))
    rotated, vectors = jax.lax.fori_loop(0, sweeps * len(pairs), rotate, start)
    values = jnp.maximum(jnp.diagonal(rotated), 0)
    order = jnp.argsort(-values)
    return values[order], vectors[:, order]


def rank_tolerance(matrix: jax.Array) -> np.floating:
    """Returns the eigenvalue below which a matrix of cosines counts as singular."""
    return 8 * matrix.shape[0] * jnp.finfo(matrix.dtype).eps


def pseudo_solve(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """Returns A^+ b, the least-squares solution of least norm, for an (N, N) matrix of cosines."""
    values, vectors = eigh(matrix)
    kept = values > rank_tolerance(matrix)
    inverse = jnp.where(kept, 1 / jnp.where(kept, values, 1), 0)
    return matvec(vectors, inverse * matvec(vectors.T, right))
