"""Directions that quadratic programs over the tasks' gradients define.

MGDA, CAGrad, and the projections onto the dual cone (the directions that conflict with no
task): UPGrad and DualProj. Axis letters: N tasks.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dwa_jax.weighting.common import (
    cosines,
    gramian_method,
    matvec,
    mean_weights,
    unit_trace,
)
from dwa_jax.weighting.protocol import Weighting
from dwa_jax.weighting.quadratic import MAX_ENUMERATED, bounded_quadratic, subsets, sweep


def mgda(num_tasks: int = 2) -> Weighting:
    """MGDA: the shortest convex combination of the gradients.

    Its negative is a direction of descent for every task; it is 0 at Pareto-stationary
    points, and so where one task's gradient is 0. Sources: Desideri, "Multiple-gradient
    descent algorithm", 2012; Sener and Koltun, NeurIPS 2018. Solved exactly, where both
    the latter and TorchJD stop Frank-Wolfe early. The gradients are not normalised.

    Args:
      num_tasks: N.

    Returns:
      A `Weighting`.
    """
    del num_tasks

    def solve(gramian, present):
        diagonal = jnp.diagonal(gramian)
        at_zero = jnp.where(diagonal == 0, present, 0)
        smallest = jnp.min(jnp.where(present > 0, diagonal, jnp.inf))
        gramian = gramian / jnp.where(jnp.isfinite(smallest) & (smallest > 0), smallest, 1)
        # For x = s w with w on the simplex, |J'x|^2 + (sum x - 1)^2 is least over s at
        # q / (1 + q), q = |J'w|^2: the sum may be a penalty and the result is still exact.
        matrix = gramian + present[:, None] * present[None, :] + jnp.diag(1 - present)
        x = bounded_quadratic(matrix, -present, jnp.zeros_like(present)) * present
        weights = x / jnp.where(x.sum() > 0, x.sum(), 1)
        return jnp.where(at_zero.sum() > 0, mean_weights(at_zero), weights)

    return gramian_method(solve)


def _regularised(gramian, regularization):
    return unit_trace(gramian)[0] + regularization * jnp.eye(len(gramian), dtype=gramian.dtype)


def _check_preferences(name, num_tasks, preferences, regularization):
    if preferences is not None and len(preferences) != num_tasks:
        raise ValueError(
            f"{name}: {len(preferences)} preferences {preferences} for {num_tasks} tasks"
        )
    if preferences is not None and min(preferences) < 0:
        raise ValueError(f"{name}: preferences must not be negative, not {preferences}")
    if regularization < 0:
        raise ValueError(f"{name}: regularization must not be negative, not {regularization}")


def _preferences(preferences, present):
    if preferences is None:
        return mean_weights(present)
    return present * jnp.asarray(preferences, present.dtype)


def upgrad(
    num_tasks: int = 2,
    *,
    preferences: Sequence[float] | None = None,
    regularization: float = 1e-4,
) -> Weighting:
    """UPGrad: projects each gradient onto the dual cone of all of them, and averages.

    Source: Quinton and Rey, "Jacobian Descent for Multi-Objective Optimization", 2024. As
    in TorchJD the Gramian is divided by its trace and `regularization` is added to its
    diagonal, which makes the weights unique and a conflict of that order possible; 0 is
    the paper's definition.

    Args:
      num_tasks: N.
      preferences: (N,) weights of the projected gradients; by default 1 / N each.
      regularization: relative to the trace, not negative.

    Returns:
      A `Weighting`.

    Raises:
      ValueError: an option has the wrong length or is negative.
    """
    _check_preferences("upgrad", num_tasks, preferences, regularization)

    def solve(gramian, present):
        matrix = _regularised(gramian, regularization)
        targets = jnp.diag(_preferences(preferences, present))
        zero = jnp.zeros_like(present)
        projected = jax.vmap(bounded_quadratic, (None, None, 0))(matrix, zero, targets)
        return present * projected.sum(0)

    return gramian_method(solve)


def dualproj(
    num_tasks: int = 2,
    *,
    preferences: Sequence[float] | None = None,
    regularization: float = 1e-4,
) -> Weighting:
    """DualProj: projects the mean gradient onto the dual cone of the gradients.

    Source: Lopez-Paz and Ranzato, "Gradient Episodic Memory", NeurIPS 2017, equation 11.
    Regularised as `upgrad` is.

    Args:
      num_tasks: N.
      preferences: (N,) weights of the mean; by default 1 / N each.
      regularization: relative to the trace, not negative.

    Returns:
      A `Weighting`.

    Raises:
      ValueError: an option has the wrong length or is negative.
    """
    _check_preferences("dualproj", num_tasks, preferences, regularization)

    def solve(gramian, present):
        matrix = _regularised(gramian, regularization)
        target = _preferences(preferences, present)
        return present * bounded_quadratic(matrix, jnp.zeros_like(present), target)

    return gramian_method(solve)


def _cagrad_by_enumeration(gramian, products, radius, present):
    """The v >= 0 of `cagrad` by its closed form on every support; zeros where there is none."""
    angles = cosines(gramian)
    ones, scaled_products = present / angles.norms, products / angles.norms

    def candidate(support):
        swept, valid = sweep(angles.matrix, support)
        inside = jnp.where(support[:, None] & support[None, :], -swept, 0)
        one, of_ones = jnp.where(support, ones, 0), matvec(inside, ones)
        norm = jnp.sum(one * of_ones)
        # The product with g_0 of the shortest vector that all of the support share alike.
        middle = jnp.sum(of_ones * scaled_products) / jnp.where(norm > 0, norm, 1)
        rest = scaled_products - middle * ones
        of_rest = matvec(inside, rest)
        square = radius**2 - jnp.sum(jnp.where(support, rest, 0) * of_rest)
        valid &= (norm > 0) & (square >= 0) & ~jnp.any(support & (angles.usable == 0))
        root = jnp.sqrt(jnp.maximum(square, 0) / jnp.where(norm > 0, norm, 1))
        v = root * of_ones - of_rest
        gain = matvec(angles.matrix, v) + rest - root * ones
        gap = jnp.where(present > 0, jnp.where(support, v, gain), 0)
        return v, jnp.where(valid, jnp.max(jnp.maximum(-gap, 0)), jnp.inf)

    candidates, violations = jax.vmap(candidate)(subsets(gramian.shape[0])[1:])
    best = jnp.argmin(violations)
    # On a Pareto front no support satisfies the conditions.
    found = violations[best] <= jnp.finfo(gramian.dtype).eps ** 0.5 * radius
    return jnp.where(found, candidates[best], 0) / angles.norms


def _cagrad_by_bisection(gramian, products, radius, present):
    """The v >= 0 of `cagrad` by bisection over the worst task's gain; for many tasks."""
    # A task without a gradient gains nothing, whatever the direction.
    moves = jnp.where(jnp.diagonal(gramian) > 0, present, 0)
    stuck = jnp.any((present > 0) & (moves == 0))
    # Opposed gradients would let v grow without end.
    ridge = 32 * gramian.shape[0] * jnp.finfo(gramian.dtype).eps
    matrix = gramian + ridge * jnp.diag(jnp.diagonal(gramian))

    def reach(gain):
        v = bounded_quadratic(matrix, moves * (products - gain), jnp.zeros_like(products))
        return v, jnp.sqrt(jnp.maximum(jnp.sum(v * matvec(gramian, v)), 0))

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) / 2
        inside = reach(middle)[1] <= radius
        return jnp.where(inside, middle, low), jnp.where(inside, high, middle)

    low = jnp.min(jnp.where(present > 0, products, jnp.inf))
    high = jnp.max(products) + radius * jnp.sqrt(jnp.max(jnp.diagonal(gramian)))
    high = jnp.where(stuck, jnp.minimum(high, 0), high)
    low, _ = jax.lax.fori_loop(0, 30, halve, (low, high))
    v, length = reach(low)
    # On a Pareto front no gain is possible and the ball's surface is not reached.
    found = length > 0.99 * radius
    return jnp.where(found, v * radius / jnp.where(found, length, 1), 0)


def cagrad(num_tasks: int = 2, *, c: float = 0.5, stationary: float = 1e-4) -> Weighting:
    """CAGrad: near the mean gradient g_0, the direction whose worst gain over tasks is best.

    max_d min_t g_t'd subject to |d - g_0| <= c |g_0|, that is d = g_0 + c |g_0| g_w / |g_w|
    with w on the simplex least in g_w'g_0 + c |g_0| |g_w|. Source: Liu et al.,
    "Conflict-Averse Gradient Descent", NeurIPS 2021. As in TorchJD the coefficients are 0
    where |g_w| is, the formula being undefined there: at points that no direction in reach
    improves for every task, such as one where a task has no gradient. There is no
    rescaling by 1 + c.

    Args:
      num_tasks: N.
      c: radius over |g_0|, not negative; from 1 on the direction conflicts with no task.
      stationary: |g_w| below which it counts as 0, over the root of the Gramian's trace.

    Returns:
      A `Weighting`.

    Raises:
      ValueError: an option is negative.
    """
    if c < 0 or stationary < 0:
        raise ValueError(f"cagrad: c and stationary must not be negative, not {c}, {stationary}")
    by_enumeration = num_tasks <= MAX_ENUMERATED
    find = _cagrad_by_enumeration if by_enumeration else _cagrad_by_bisection

    def solve(gramian, present):
        gramian, _ = unit_trace(gramian)
        mean = mean_weights(present)
        products = matvec(gramian, mean)
        radius = c * jnp.sqrt(jnp.maximum(jnp.sum(mean * products), 0))
        v = find(gramian, products, radius, present)
        # |g_w| = radius / sum(v), as v = radius w / |g_w|.
        moving = (v.sum() > 0) & (radius >= stationary * v.sum())
        return jnp.where(radius > 0, jnp.where(moving, mean + v, 0), mean)

    return gramian_method(solve)
