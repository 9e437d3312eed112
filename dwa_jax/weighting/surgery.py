"""Gradient surgery: each task's gradient is bent away from the others, one after another.

A bent gradient stays a combination of the original ones, so row i of an (N, N) matrix
says what task i's gradient has become, and the coefficients are the column sums. Axis
letters: N tasks.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dwa_jax.weighting.common import cosines, safe_gramian, weighed
from dwa_jax.weighting.protocol import Weighting


class SurgeryState(NamedTuple):
    """What gradient surgery carries.

    Attributes:
      key: random key for the order in which a task meets the others.
      similarity: (N, N) moving average of cosines, GradVac's target; PCGrad's stays 0.
    """

    key: jax.Array
    similarity: jax.Array


def _bend(key, angles, similarity, decay, limit):
    """Bends every gradient towards the target cosines; returns unit-norm rows and new targets."""
    size = angles.usable.shape[0]
    eye = jnp.eye(size, dtype=angles.matrix.dtype)

    def one_task(i, key, target):
        order = jax.random.permutation(key, size)

        def meet(step, carry):
            row, target = carry
            j = order[step]
            products = jnp.sum(angles.matrix * row[None, :], axis=1)
            length = jnp.sqrt(jnp.maximum(jnp.sum(row * products), 0))
            # A gradient that surgery has reduced to nothing meets the rest unchanged.
            meets = (i != j) & (angles.usable[i] > 0) & (angles.usable[j] > 0)
            meets &= length > 8 * size * jnp.finfo(row.dtype).eps
            cosine = products[j] / jnp.where(length > 0, length, 1)
            cosine = jnp.clip(cosine, -1, 1)
            wanted = jnp.clip(target[j], -limit, limit)
            sine, wanted_sine = jnp.sqrt(1 - cosine**2), jnp.sqrt(1 - wanted**2)
            step_length = length * (wanted * sine - cosine * wanted_sine) / wanted_sine
            add = jnp.where(meets & (cosine < wanted), step_length, 0)
            averaged = (1 - decay) * target[j] + decay * cosine
            return row.at[j].add(add), target.at[j].set(jnp.where(meets, averaged, target[j]))

        return jax.lax.fori_loop(0, size, meet, (eye[i], target))

    keys = jax.random.split(key, size)
    return jax.vmap(one_task)(jnp.arange(size), keys, similarity)


def _surgery(num_tasks, decay, limit):
    def init(key):
        return {}, SurgeryState(key, jnp.zeros((num_tasks, num_tasks)))

    def weigh(variables, state, signals):
        del variables
        gramian, present = safe_gramian(signals)
        angles = cosines(gramian)
        carried, key = jax.random.split(state.key)
        similarity = state.similarity.astype(gramian.dtype)
        rows, similarity = _bend(key, angles, similarity, decay, limit)
        # From unit gradients back to the tasks' own; norms may be far apart.
        rows = rows * (angles.norms[:, None] / angles.norms[None, :])
        coefficients = jnp.sum(present[:, None] * rows, axis=0)
        state = SurgeryState(carried, similarity.astype(state.similarity.dtype))
        return weighed(coefficients, 0, state)

    return Weighting(init, weigh)


def pcgrad(num_tasks: int = 2) -> Weighting:
    """PCGrad: takes out of each gradient what points against another one.

    g_i loses its projection on g_j wherever their product is negative, the others in
    random order; the coefficients belong to the sum of the results, not to their mean.
    Source: Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020.

    Args:
      num_tasks: N.

    Returns:
      A `Weighting`.
    """
    return _surgery(num_tasks, decay=0.0, limit=1.0)


def gradvac(num_tasks: int = 2, *, decay: float = 0.5, max_target: float = 0.9999) -> Weighting:
    """GradVac: bends each gradient until its cosine with another reaches a moving average.

    Where the cosine phi of (the bent) g_i and g_j is below the average phi' so far, g_i
    gains |g_i| (phi' sqrt(1 - phi^2) - phi sqrt(1 - phi'^2)) / (|g_j| sqrt(1 - phi'^2)) g_j;
    then phi' <- (1 - decay) phi' + decay phi. Averages start at 0, where it is PCGrad.
    Source: Wang et al., "Gradient Vaccine", ICLR 2021; the default decay is TorchJD's. As
    the formula divides by 0 at phi' = 1, which a float32 average reaches, it is used
    up to `max_target`.

    Args:
      num_tasks: N.
      decay: share of the new cosine in the average, in [0, 1].
      max_target: largest cosine aimed at, in (0, 1).

    Returns:
      A `Weighting`.

    Raises:
      ValueError: an option is out of its range.
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"gradvac: decay must be in [0, 1], not {decay}")
    if not 0 < max_target < 1:
        raise ValueError(f"gradvac: max_target must be in (0, 1), not {max_target}")
    return _surgery(num_tasks, decay, max_target)
