"""The protocol between the engine and the methods that weigh tasks.

A method is a pair of pure functions from small statistics to one coefficient a
task. It sees no parameters, no model and no autodiff of the trunk. Axis letters:
N tasks, K categories.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Signals(NamedTuple):
    """What a method may look at in one step; every field is detached.

    Attributes:
      losses: (N,) task losses over the whole batch.
      gramian: (N, N) inner products of the tasks' gradients.
      class_losses: (K,) mean cross-entropy of each class's rows, 0 for an absent class;
        None where no task has classes.
      class_proportions: (K,) share of each class among the labelled rows, or None.
      present: (N,) booleans, true where the batch has labels for the task; None: all.
    """

    losses: jax.Array
    gramian: jax.Array
    class_losses: jax.Array | None = None
    class_proportions: jax.Array | None = None
    present: jax.Array | None = None


class Weighed(NamedTuple):
    """What a method says of one step.

    Attributes:
      coefficients: (N,) what each task's gradient is multiplied by.
      objective: () what the method's own variables descend on.
      state: the method's next state.
      metrics: dict of small arrays, (N,) or (), for the log.
      gradient: of the objective in the method's own variables; methods leave it to `decide`.
    """

    coefficients: jax.Array
    objective: jax.Array
    state: Any
    metrics: dict[str, jax.Array]
    gradient: Any = ()


class Weighting(NamedTuple):
    """A method: `init(key) -> (variables, state)`, `weigh(variables, state, signals) -> Weighed`.

    Attributes:
      init: makes what the method learns by descent and what it merely carries.
      weigh: one step's coefficients.
      uses_gramian: false lets the engine skip the backward passes that only the
        Gramian needs; `signals.gramian` is then zero.
    """

    init: Callable[[jax.Array], tuple[Any, Any]]
    weigh: Callable[[Any, Any, Signals], Weighed]
    uses_gramian: bool = True


def decide(method: Weighting, variables: Any, state: Any, signals: Signals) -> Weighed:
    """One step of a method, with the gradient that its own variables descend along.

    Args:
      method: any.
      variables: what it learns by descent.
      state: what it carries.
      signals: one step's; nothing is differentiated through them.

    Returns:
      What the method says, its `gradient` filled in: a tree like `variables`.
    """
    signals = jax.lax.stop_gradient(signals)

    def objective(variables):
        weighed = method.weigh(variables, state, signals)
        return weighed.objective, weighed

    gradient, weighed = jax.grad(objective, has_aux=True)(variables)
    return weighed._replace(gradient=gradient)


def present_mask(signals: Signals) -> jax.Array:
    """Returns `signals.present` as an (N,) mask in the losses' dtype, all ones where it is None."""
    if signals.present is None:
        return jnp.ones_like(signals.losses)
    return signals.present.astype(signals.losses.dtype)
