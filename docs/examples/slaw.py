"""A weighting of one's own: SLAW, a task's weight is the inverse of how much its loss varies.

Source: Crawshaw and Košecká, "SLAW: Scaled Loss Approximate Weighting for Efficient Multi-Task
Learning" (2021), arXiv 2109.08218. N tasks.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dwa_jax import weighting


class Moments(NamedTuple):
    """What SLAW carries from step to step: moving averages, both 0 at the start.

    Attributes:
      mean: (N,) of the losses.
      square: (N,) of their squares.
    """

    mean: jax.Array
    square: jax.Array


def slaw(num_tasks: int = 2, *, decay: float = 0.99) -> weighting.Weighting:
    """Weights N / s_t / sum_j (1 / s_j), s_t the standard deviation of task t's loss.

    Args:
      num_tasks: N.
      decay: of the moving averages, in [0, 1).

    Raises:
      ValueError: the decay is out of its range.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"slaw: decay={decay} must be in [0, 1)")

    def init(key):
        del key  # nothing is drawn
        zeros = jnp.zeros(num_tasks)
        return {}, Moments(zeros, zeros)  # nothing is learned by descent

    def weigh(variables, state, signals):
        del variables
        # A batch without labels for a task says nothing about its loss.
        here = jnp.ones(num_tasks, bool) if signals.present is None else signals.present

        def average(old, new):
            return jnp.where(here, decay * old + (1 - decay) * new, old)

        mean = average(state.mean, signals.losses)
        square = average(state.square, signals.losses**2)
        deviation = jnp.sqrt(jnp.maximum(square - mean**2, 1e-10))
        inverse = jnp.where(here, 1 / deviation, 0)
        coefficients = here.sum() * inverse / jnp.maximum(inverse.sum(), 1e-10)
        total = jnp.sum(coefficients * signals.losses)
        return weighting.Weighed(
            coefficients, total, Moments(mean, square), {"weight": coefficients}
        )

    # It looks at the losses alone: the engine need not compare gradients.
    return weighting.Weighting(init, weigh, uses_gramian=False)


# From here on --config.weighting="slaw" and weighting.get("slaw") know it.
weighting.METHODS["slaw"] = slaw
