"""Directions that a fairness condition on the tasks' gains defines: Nash-MTL and FairGrad.

The gain of task t is g_t'd, and d = sum_t a_t g_t, so the gains are G a. Axis letters: N tasks.
"""

import jax
import jax.numpy as jnp

from dwa_jax.weighting.common import cosines, gramian_method, matvec, unit_trace
from dwa_jax.weighting.protocol import Weighting
from dwa_jax.weighting.quadratic import solve_definite


def _fair(matrix, weights, power, max_steps=60):
    """Solves (C b)_t = weights_t b_t^-power for b > 0, with (N, N) C of unit diagonal.

    b is where b'Cb / 2 minus a sum of concave functions of each b_t is least, so Newton's
    method, damped so as to keep b positive, converges from anywhere.
    """
    size, eps = matrix.shape[0], jnp.finfo(matrix.dtype).eps
    # Opposed gradients have no solution; this is the least that bounds it.
    matrix = matrix + 4 * size * eps * jnp.eye(size)
    # How fast the second derivative of the concave part changes, which limits the step;
    # below 1 a step could leave b > 0.
    curvature = max(1.0, (power + 1) / 2)

    def step(carry):
        b, _, count = carry
        pull = weights * b**-power
        hessian = matrix + jnp.diag(power * pull / b)
        change = solve_definite(hessian, pull - matvec(matrix, b))
        size_of_change = jnp.max(jnp.abs(change / b))
        damped = change / jnp.where(size_of_change > 0.1, 1 + curvature * size_of_change, 1)
        b = b + damped
        return b, size_of_change, count + 1

    def going(carry):
        _, size_of_change, count = carry
        return (size_of_change > 4 * eps) & (count < max_steps)

    start = weights ** (1 / (power + 1))
    return jax.lax.while_loop(going, step, (start, jnp.asarray(1.0, start.dtype), 0))[0]


def nash_mtl(num_tasks: int = 2, *, max_norm: float = 1.0) -> Weighting:
    """Nash-MTL: the bargaining solution, where every task's share of the gain is the same.

    a solves G a = 1 / a. Source: Navon et al., "Multi-Task Learning as a Bargaining Game",
    ICML 2022. The paper's direction always has length sqrt(N); its code, followed by
    TorchJD and here, solves for G over its Frobenius norm, which makes the length
    (N |G|)^1/2, and cuts that down to `max_norm`. Solved exactly, where they linearise,
    and for two tasks in closed form. A task without a gradient gets coefficient 0.

    Args:
      num_tasks: N.
      max_norm: largest length of the direction, positive; 0 leaves it as it is.

    Returns:
      A `Weighting`.

    Raises:
      ValueError: `max_norm` is negative.
    """
    if max_norm < 0:
        raise ValueError(f"nash_mtl: max_norm must not be negative, not {max_norm}")

    def solve(gramian, present):
        del present
        angles = cosines(gramian)
        if num_tasks == 2:
            # By symmetry b_1 = b_2.
            closeness = 1 + angles.matrix[0, 1]
            b = jax.lax.rsqrt(jnp.maximum(closeness, 8 * jnp.finfo(gramian.dtype).eps))
            b = jnp.broadcast_to(b, (2,))
        else:
            b = _fair(angles.matrix, jnp.ones_like(angles.norms), 1.0)
        a = angles.usable * b / angles.norms
        normalised, trace = unit_trace(gramian)
        # Root of the Frobenius norm; the trace is split off so that no square overflows.
        a = a * jnp.sqrt(trace) * jnp.sum(normalised**2) ** 0.25
        if not max_norm:
            return a
        b = angles.usable * b
        length = jnp.sqrt(jnp.maximum(jnp.sum(b * matvec(angles.matrix, b)), 0))
        length = length * jnp.sqrt(trace) * jnp.sum(normalised**2) ** 0.25
        return a * jnp.minimum(1, max_norm / jnp.where(length > 0, length, max_norm))

    return gramian_method(solve)


def fairgrad(num_tasks: int = 2, *, alpha: float = 1.0) -> Weighting:
    """FairGrad: the direction whose gains are alpha-fair.

    a solves G a = a^(-1 / alpha): alpha = 1 is proportional fairness, Nash-MTL's
    condition; a large one equalises the gains; 0 is the plain mean. Source: Ban and Ji,
    "Fair Resource Allocation in Multi-Task Learning", ICML 2024. Solved exactly, by a
    Newton method instead of least squares. A task without a gradient gets coefficient 0.

    Args:
      num_tasks: N.
      alpha: fairness, not negative.

    Returns:
      A `Weighting`.

    Raises:
      ValueError: `alpha` is negative.
    """
    if alpha < 0:
        raise ValueError(f"fairgrad: alpha must not be negative, not {alpha}")
    if alpha == 0:
        return gramian_method(lambda gramian, present: present / jnp.maximum(present.sum(), 1))
    power = 1 / alpha

    def solve(gramian, present):
        del present
        normalised, trace = unit_trace(gramian)
        angles = cosines(normalised)
        b = _fair(angles.matrix, angles.norms ** (power - 1), power)
        # From unit trace back: G a = a^-p scales as a ~ trace^(-1 / (1 + p)).
        return angles.usable * b / angles.norms * trace ** (-1 / (1 + power))

    return gramian_method(solve)
