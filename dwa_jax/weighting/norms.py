"""Weights from gradient norms: equal gradients, GradNorm and DB-MTL. N tasks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dwa_jax.gramian import gradient_norms
from dwa_jax.weighting.common import gramian_method, masked_softmax, safe_gramian, weighed
from dwa_jax.weighting.dwa import balanced_lambda as inverse_norms
from dwa_jax.weighting.from_losses import SMALLEST_LOSS
from dwa_jax.weighting.protocol import Weighting


def equal_gradient(num_tasks: int = 2) -> Weighting:
    """Makes every weighted gradient equally long: coefficient_t proportional to 1 / norm_t.

    DWA's lambda (equation 6) by itself, with coefficients that sum to 1. For two tasks it
    is also IMTL-G.

    Args:
      num_tasks: N.

    Returns:
      A `Weighting`.
    """
    del num_tasks

    def solve(gramian, present):
        return inverse_norms(gradient_norms(gramian), present)

    return gramian_method(solve)


class GradNormState(NamedTuple):
    """What GradNorm carries.

    Attributes:
      initial_losses: (N,) each task's loss at the first step that had it.
      seen: (N,) booleans, false for a task that no step has had.
    """

    initial_losses: jax.Array
    seen: jax.Array


def gradnorm(num_tasks: int = 2, *, alpha: float = 1.5) -> Weighting:
    """GradNorm: learns weights that let every task train at the same rate.

    The objective is sum_t |w_t norm_t - target_t| with target_t = mean_s(w_s norm_s)
    r_t^alpha held constant, r_t the task's relative loss L_t / L_t(0) over the tasks' mean
    of it. Source: Chen et al., "GradNorm", ICML 2018. There the w_t are learned directly
    and renormalised to sum N after each update; here w = N softmax(log_weights), which
    sums to N by construction and cannot turn negative.

    Args:
      num_tasks: N.
      alpha: strength of the pull to a common rate; 0 makes weighted gradients equally long.

    Returns:
      A `Weighting` with variables {"log_weights": (N,)}.

    Raises:
      ValueError: `alpha` is negative.
    """
    if alpha < 0:
        raise ValueError(f"gradnorm: alpha must not be negative, not {alpha}")

    def init(key):
        del key
        state = GradNormState(jnp.zeros((num_tasks,)), jnp.zeros((num_tasks,), bool))
        return {"log_weights": jnp.zeros((num_tasks,))}, state

    def weigh(variables, state, signals):
        gramian, present = safe_gramian(signals)
        losses = signals.losses.astype(gramian.dtype)
        first = (present > 0) & ~state.seen
        initial = jnp.where(first, losses, state.initial_losses.astype(gramian.dtype))
        state = GradNormState(
            initial.astype(state.initial_losses.dtype), state.seen | (present > 0)
        )
        count = jnp.maximum(present.sum(), 1)
        usable = (present > 0) & (initial > 0)
        relative = jnp.where(usable, losses / jnp.where(usable, initial, 1), present)
        relative = jnp.maximum(relative, 0)
        mean_relative = relative.sum() / count
        rate = jnp.where(
            mean_relative > 0, relative / jnp.where(mean_relative > 0, mean_relative, 1), present
        )
        weights = present.sum() * masked_softmax(variables["log_weights"], present)
        weighted_norms = weights * gradient_norms(gramian)
        target = jax.lax.stop_gradient(weighted_norms.sum() / count * rate**alpha)
        objective = jnp.sum(present * jnp.abs(weighted_norms - target))
        return weighed(weights.astype(gramian.dtype), objective, state)

    return Weighting(init, weigh)


def db_mtl(num_tasks: int = 2) -> Weighting:
    """DB-MTL: log losses, and every gradient stretched to the length of the longest.

    With h_t = g_t / L_t the gradient of log L_t, coefficient_t = max_s |h_s| / (|h_t| L_t).
    Source: Lin et al., "Dual-Balancing for Multi-Task Learning", 2023. The paper averages
    the h_t over steps, which no function of the Gramian can; this is its method without
    that average. A task without a gradient gets coefficient 0.

    Args:
      num_tasks: N.

    Returns:
      A `Weighting`.
    """

    def init(key):
        del key
        return {}, ()

    def weigh(variables, state, signals):
        del variables
        gramian, present = safe_gramian(signals)
        losses = jnp.maximum(signals.losses.astype(gramian.dtype), SMALLEST_LOSS)
        norms = gradient_norms(gramian)
        longest = jnp.max(norms / losses)
        balanced = jnp.where(norms > 0, longest / jnp.where(norms > 0, norms, 1), 0)
        coefficients = jnp.where(longest > 0, balanced, present / losses)
        return weighed(coefficients, 0, state)

    return Weighting(init, weigh)
