"""Weights that do not change: a fixed mixture of the tasks, or one task alone. N tasks."""

from collections.abc import Sequence

import jax.numpy as jnp

from dwa_jax.weighting.protocol import Weighed, Weighting


def constant(num_tasks: int = 2, *, weights: Sequence[float] | None = None) -> Weighting:
    """Fixed coefficients, the papers' baseline.

    Args:
      num_tasks: N.
      weights: (N,) coefficients. By default 0.75 for regression and 0.25 for
        classification, as in the papers, when there are two tasks; else 1 / N each.

    Raises:
      ValueError: the number of weights is not N, or one is negative or not finite.
    """
    if weights is None:
        weights = (0.75, 0.25) if num_tasks == 2 else (1.0 / num_tasks,) * num_tasks
    weights = tuple(float(weight) for weight in weights)
    if len(weights) != num_tasks:
        raise ValueError(f"constant: {len(weights)} weights {weights} for {num_tasks} tasks")
    if not all(0 <= weight < float("inf") for weight in weights):
        raise ValueError(f"constant: weights must be finite and not negative, not {weights}")

    def init(key):
        del key
        return {}, ()

    def weigh(variables, state, signals):
        del variables
        coefficients = jnp.asarray(weights, signals.losses.dtype)
        return Weighed(coefficients, coefficients @ signals.losses, state, {"weight": coefficients})

    return Weighting(init, weigh, uses_gramian=False)


def single_task(num_tasks: int = 2, *, task: int = 0) -> Weighting:
    """One task alone: coefficient 1 for it, 0 for the others.

    Args:
      num_tasks: N.
      task: the task's index; 0 is regression in this library's programs.

    Raises:
      ValueError: `task` is not in [0, N).
    """
    if not 0 <= task < num_tasks:
        raise ValueError(f"single_task: task must be in [0, {num_tasks}), not {task}")
    return constant(num_tasks, weights=[float(index == task) for index in range(num_tasks)])
