"""Directions from linear algebra on the Gramian: IMTL-G, ConFIG and Aligned-MTL. N tasks."""

import jax
import jax.numpy as jnp

from dwa_jax.weighting.common import cosines, gramian_method, matvec, mean_weights, unit_trace
from dwa_jax.weighting.dwa import balanced_lambda
from dwa_jax.weighting.protocol import Weighting
from dwa_jax.weighting.spectral import eigh, pseudo_solve, rank_tolerance


def imtl_g(num_tasks: int = 2) -> Weighting:
    """IMTL-G: the combination, with weights that sum to 1, of equal projection on all gradients.

    The weights are proportional to C^+ 1 over the norms, with C the cosines; for two tasks
    to 1 over the norms. Source: Liu et al., "Towards Impartial Multi-Task Learning", ICLR
    2021. Where gradients are linearly dependent this is the least-squares solution for
    unit gradients; TorchJD's G^+ norms is the one for the gradients themselves, and it
    gives zeros for two opposed gradients. With three tasks or more weights may be
    negative. A task without a gradient gets weight 0.

    Args:
      num_tasks: N.

    Returns:
      A `Weighting`.
    """

    def solve(gramian, present):
        angles = cosines(unit_trace(gramian)[0])
        usable = angles.usable
        if num_tasks == 2:
            return balanced_lambda(angles.norms, usable)
        weights = usable * pseudo_solve(angles.matrix, usable) / angles.norms
        total = weights.sum()
        # Gradients that cancel leave nothing but rounding to divide by.
        noise = 8 * num_tasks * jnp.finfo(total.dtype).eps * jnp.max(1 / angles.norms)
        sound = jnp.abs(total) > noise
        return jnp.where(sound, weights / jnp.where(sound, total, 1), 0)

    return gramian_method(solve)


def config_mtl(num_tasks: int = 2) -> Weighting:
    """ConFIG: the direction of equal cosine with every gradient, as long as its projections add up.

    d = (sum_t g_t'u) u with u along U^+ 1, U the matrix of unit gradients. As U^+ = U'(UU')^+
    and UU' is the matrix C of cosines, u is along U'x with x = C^+ 1 and |U'x|^2 = 1'x, so
    coefficient_t = (sum_s norm_s (C x)_s) x_t / (1'x norm_t). Source: Liu, Chu and
    Thuerey, "ConFIG", ICLR 2025, equation 2. A task without a gradient gets coefficient 0.

    Args:
      num_tasks: N.

    Returns:
      A `Weighting`.
    """
    del num_tasks

    def solve(gramian, present):
        del present
        angles = cosines(unit_trace(gramian)[0])
        usable = angles.usable
        x = usable * pseudo_solve(angles.matrix, usable)
        squared = jnp.sum(usable * x)
        length = jnp.sum(usable * angles.norms * matvec(angles.matrix, x))
        # Least-squares solutions for rows that cancel are 0, up to rounding.
        sound = squared > rank_tolerance(angles.matrix)
        return jnp.where(sound, length / jnp.where(sound, squared, 1) * x / angles.norms, 0)

    return gramian_method(solve)


def aligned_mtl(num_tasks: int = 2, *, scale: str = "min") -> Weighting:
    """Aligned-MTL: the mean of gradients made orthogonal and equally long.

    Coefficients are sigma V diag(eigenvalues)^-1/2 V' / N over the eigenvalues of the
    Gramian that are not 0, with sigma^2 one of them. Source: Senushkin et al.,
    "Independent Component Alignment for Multi-Task Learning", CVPR 2023.

    Args:
      num_tasks: N.
      scale: which eigenvalue is the new common one: "min" (the paper's), "median" (the
        lower of two) or "rmse" (the mean).

    Returns:
      A `Weighting`.

    Raises:
      ValueError: `scale` is unknown.
    """
    if scale not in ("min", "median", "rmse"):
        raise ValueError(f"aligned_mtl: scale must be min, median or rmse, not {scale!r}")

    def solve(gramian, present):
        gramian, _ = unit_trace(gramian)
        angles = cosines(gramian)
        # The rank is that of the cosines: in the Gramian itself a short gradient and a
        # dependent one look alike.
        values, vectors = jax.vmap(eigh)(jnp.stack([angles.matrix, gramian]))
        dependent = jnp.sum(values[0] <= rank_tolerance(gramian))
        rank = jnp.sum(angles.usable > 0) - dependent
        values, vectors = values[1], vectors[1]
        kept = jnp.arange(num_tasks) < rank
        values = jnp.where(kept, values, 1)
        if scale == "rmse":
            common = jnp.sum(jnp.where(kept, values, 0)) / rank.astype(values.dtype)
        else:
            common = values[rank - 1 if scale == "min" else rank - 1 - (rank - 1) // 2]
        factors = jnp.where(kept, jnp.sqrt(common / values), 0)
        return present * matvec(vectors, factors * matvec(vectors.T, mean_weights(present)))

    return gramian_method(solve)
