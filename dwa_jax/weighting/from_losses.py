"""Weights from the losses alone, with nothing learned: functions of the losses and of chance.

Axis letters: N tasks.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dwa_jax.weighting.common import masked_softmax, mean_weights, weighed
from dwa_jax.weighting.protocol import Weighting, present_mask

# Where a logarithm or a quotient of a loss is taken, a loss is not let below this.
SMALLEST_LOSS = 1e-8


def random(num_tasks: int = 2) -> Weighting:
    """Random loss weighting: the softmax of fresh standard normal draws at every step.

    Source: Lin et al., "Reasonable Effectiveness of Random Weighting", TMLR 2022.

    Args:
      num_tasks: N.

    Returns:
      A `Weighting`; its state is the random key.
    """

    def init(key):
        return {}, key

    def weigh(variables, state, signals):
        del variables
        state, draw = jax.random.split(state)
        logits = jax.random.normal(draw, (num_tasks,), signals.losses.dtype)
        coefficients = masked_softmax(logits, present_mask(signals))
        return weighed(coefficients, jnp.sum(coefficients * signals.losses), state)

    return Weighting(init, weigh, uses_gramian=False)


class LossHistory(NamedTuple):
    """What Dynamic Weight Average carries.

    Attributes:
      total: (N,) sum of the losses in the current period.
      count: (N,) number of steps of the current period that had the task.
      newer: (N,) mean losses of the last period.
      older: (N,) mean losses of the one before.
      seen: (N,) number of periods with a mean, up to 2.
      step: () steps into the current period.
    """

    total: jax.Array
    # A tuple's own method of that name gives way: checkpoints know the field by it.
    count: jax.Array  # type: ignore[assignment]
    newer: jax.Array
    older: jax.Array
    seen: jax.Array
    step: jax.Array


def dynamic_weight_average(
    num_tasks: int = 2, *, temperature: float = 2.0, period: int = 100
) -> Weighting:
    """Dynamic Weight Average: more weight for a task whose loss falls slowly.

    coefficient_t = N softmax(L_t(k-1) / L_t(k-2) / temperature)_t with L_t(k) the mean loss
    of period k; 1 each in the first two periods. Source: Liu, Johns and Davison,
    "End-to-End Multi-Task Learning with Attention", CVPR 2019, where a period is an epoch.

    Args:
      num_tasks: N.
      temperature: T, positive; a large one evens the weights out.
      period: steps in a period, at least 1.

    Returns:
      A `Weighting`.

    Raises:
      ValueError: an option is out of its range.
    """
    if not temperature > 0:
        raise ValueError(f"dynamic_weight_average: temperature must be positive, not {temperature}")
    if period < 1:
        raise ValueError(f"dynamic_weight_average: period must be at least 1, not {period}")

    def init(key):
        del key
        zeros = jnp.zeros((num_tasks,))
        counts = jnp.zeros((num_tasks,), jnp.int32)
        return {}, LossHistory(zeros, counts, zeros, zeros, counts, jnp.zeros((), jnp.int32))

    def roll(history):
        has_mean = history.count > 0
        mean = history.total / jnp.maximum(history.count, 1).astype(history.total.dtype)
        # A task that was absent for a whole period keeps what was last known of it.
        return LossHistory(
            total=jnp.zeros_like(history.total),
            count=jnp.zeros_like(history.count),
            newer=jnp.where(has_mean, mean, history.newer),
            older=jnp.where(has_mean, history.newer, history.older),
            seen=jnp.where(has_mean, jnp.minimum(history.seen + 1, 2), history.seen),
            step=jnp.zeros_like(history.step),
        )

    def weigh(variables, state, signals):
        del variables
        present = present_mask(signals)
        dtype = present.dtype
        known = (state.seen == 2) & (state.older > 0)
        rate = jnp.where(known, state.newer / jnp.where(known, state.older, 1), 1).astype(dtype)
        coefficients = present.sum() * masked_softmax(rate / temperature, present)
        losses = jnp.where(present > 0, signals.losses, 0)
        state = state._replace(
            total=state.total + losses.astype(state.total.dtype),
            count=state.count + present.astype(state.count.dtype),
            step=state.step + 1,
        )
        ended = state.step == period
        state = jax.tree.map(lambda a, b: jnp.where(ended, a, b), roll(state), state)
        return weighed(coefficients, jnp.sum(coefficients * losses), state)

    return Weighting(init, weigh, uses_gramian=False)


def _scalarisation(
    value_and_coefficients: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
) -> Weighting:
    # A method that replaces the losses by one function of them.
    def init(key):
        del key
        return {}, ()

    def weigh(variables, state, signals):
        del variables
        value, coefficients = value_and_coefficients(signals.losses, present_mask(signals))
        return weighed(coefficients, value, state)

    return Weighting(init, weigh, uses_gramian=False)


def geometric_mean(num_tasks: int = 2) -> Weighting:
    """Geometric loss strategy: descends on the geometric mean of the losses.

    coefficient_t = mean / (N L_t). Source: Chennupati et al., "MultiNet++", CVPR
    workshops 2019.

    Args:
      num_tasks: N.

    Returns:
      A `Weighting`; its objective is the geometric mean.
    """
    del num_tasks

    def value_and_coefficients(losses, present):
        losses = jnp.where(present > 0, jnp.maximum(losses, SMALLEST_LOSS), 1)
        shares = mean_weights(present)
        value = jnp.exp(jnp.sum(shares * jnp.log(losses)))
        return value, shares * value / losses

    return _scalarisation(value_and_coefficients)


def stch(
    num_tasks: int = 2,
    *,
    mu: float = 1.0,
    weights: Sequence[float] | None = None,
    reference: Sequence[float] | None = None,
) -> Weighting:
    """Smooth Tchebycheff scalarisation: descends on a smooth maximum of the losses.

    The value is mu log sum_t exp(weight_t (L_t - reference_t) / mu). Source: Lin et al.,
    "Smooth Tchebycheff Scalarization for Multi-Objective Optimization", ICML 2024.

    Args:
      num_tasks: N.
      mu: width of the smoothing in units of the weighted losses, positive.
      weights: (N,) preferences, not negative; by default 1 / N each.
      reference: (N,) the best losses that can be hoped for; by default 0.

    Returns:
      A `Weighting`; its objective is the value.

    Raises:
      ValueError: `mu` is not positive, or a sequence has the wrong length.
    """
    if not mu > 0:
        raise ValueError(f"stch: mu must be positive, not {mu}")
    for name, given in (("weights", weights), ("reference", reference)):
        if given is not None and len(given) != num_tasks:
            raise ValueError(f"stch: {len(given)} {name} {given} for {num_tasks} tasks")
    if weights is not None and min(weights) < 0:
        raise ValueError(f"stch: weights must not be negative, not {weights}")

    def value_and_coefficients(losses, present):
        if weights is None:
            preferences = mean_weights(present)
        else:
            preferences = jnp.asarray(weights, losses.dtype)
        ideal = 0 if reference is None else jnp.asarray(reference, losses.dtype)
        scaled = preferences * (losses - ideal) / mu
        # The largest term is taken out, so that a small mu does not overflow.
        top = jnp.max(jnp.where(present > 0, scaled, -jnp.inf))
        top = jnp.where(present.sum() > 0, top, 0)
        total = jnp.sum(jnp.where(present > 0, jnp.exp(scaled - top), 0))
        value = mu * (top + jnp.log(jnp.where(total > 0, total, 1)))
        return value, preferences * masked_softmax(scaled, present)

    return _scalarisation(value_and_coefficients)
