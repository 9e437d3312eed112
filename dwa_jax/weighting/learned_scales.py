"""Weights from one learned scale a task: uncertainty weighting and IMTL-L. N tasks."""

import jax.numpy as jnp

from dwa_jax.weighting.common import weighed
from dwa_jax.weighting.protocol import Weighting, present_mask


def uncertainty(num_tasks: int = 2) -> Weighting:
    """Uncertainty weighting: each task's loss over twice a learned variance.

    The objective is sum_t (exp(-s_t) L_t + s_t) / 2 with the log-variances s_t learned
    from 0, and coefficient_t = exp(-s_t) / 2. Source: Kendall, Gal and Cipolla,
    "Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018; the paper gives a
    cross-entropy exp(-s_t) without the half, which only shifts its s_t.

    Args:
      num_tasks: N.

    Returns:
      A `Weighting` with variables {"log_variances": (N,)}.
    """

    def init(key):
        del key
        return {"log_variances": jnp.zeros((num_tasks,))}, ()

    def weigh(variables, state, signals):
        present = present_mask(signals)
        log_variances = variables["log_variances"]
        coefficients = 0.5 * present * jnp.exp(-log_variances)
        objective = jnp.sum(coefficients * signals.losses + 0.5 * present * log_variances)
        return weighed(coefficients, objective, state)

    return Weighting(init, weigh, uses_gramian=False)


def imtl_l(num_tasks: int = 2) -> Weighting:
    """IMTL-L: learned scales that bring every scaled loss to 1.

    The objective is sum_t (exp(s_t) L_t - s_t) with s_t learned from 0, and coefficient_t =
    exp(s_t). Source: Liu et al., "Towards Impartial Multi-Task Learning", ICLR 2021.

    Args:
      num_tasks: N.

    Returns:
      A `Weighting` with variables {"log_scales": (N,)}.
    """

    def init(key):
        del key
        return {"log_scales": jnp.zeros((num_tasks,))}, ()

    def weigh(variables, state, signals):
        present = present_mask(signals)
        log_scales = variables["log_scales"]
        coefficients = present * jnp.exp(log_scales)
        objective = jnp.sum(coefficients * signals.losses - present * log_scales)
        return weighed(coefficients, objective, state)

    return Weighting(init, weigh, uses_gramian=False)
