"""Fast Adaptive Multitask Optimization: equal rates of decrease from the losses. N tasks."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dwa_jax.weighting.common import masked_softmax, weighed
from dwa_jax.weighting.from_losses import SMALLEST_LOSS
from dwa_jax.weighting.protocol import Weighting, present_mask


class FamoState(NamedTuple):
    """What FAMO carries.

    Attributes:
      logits: (N,) task logits.
      log_losses: (N,) logarithms of the losses at the last step that had the task.
      present: (N,) 1 for a task of the last step; all 0 before the first one.
      optimizer: the state of Adam over the logits.
    """

    logits: jax.Array
    log_losses: jax.Array
    present: jax.Array
    optimizer: Any


def famo(
    num_tasks: int = 2, *, learning_rate: float = 0.025, weight_decay: float = 1e-3
) -> Weighting:
    """FAMO: descends on log losses, with logits moved towards the tasks that improve least.

    coefficient_t = c z_t / L_t with z = softmax(logits) and c such that they sum to 1. The
    logits descend by Adam on sum_t z_t (log L_t before the step - log L_t after it).
    Source: Liu et al., "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023. Its
    code runs the batch a second time for the losses after the step; here they are those
    of the next step's batch. A loss must be positive.

    Args:
      num_tasks: N.
      learning_rate: of the logits.
      weight_decay: pull of the logits to 0, added to their gradient.

    Returns:
      A `Weighting`; its objective is c sum_t z_t log L_t, for the log only.

    Raises:
      ValueError: an option is negative.
    """
    if learning_rate < 0 or weight_decay < 0:
        raise ValueError(
            "famo: learning_rate and weight_decay must not be negative, not "
            f"{learning_rate} and {weight_decay}"
        )
    optimizer = optax.chain(optax.add_decayed_weights(weight_decay), optax.adam(learning_rate))

    def init(key):
        del key
        zeros = jnp.zeros((num_tasks,))
        return {}, FamoState(zeros, zeros, zeros, optimizer.init(zeros))

    def moved(state, log_losses, present):
        # A task tells how it fared only if both steps had it; it is weighed as it was then.
        both = (present > 0) & (state.present > 0)
        decrease = jnp.where(both, state.log_losses - log_losses, 0)

        def rate(logits):
            return jnp.sum(masked_softmax(logits, state.present) * decrease)

        updates, optimizer_state = optimizer.update(
            jax.grad(rate)(state.logits), state.optimizer, state.logits
        )
        new = (optax.apply_updates(state.logits, updates), optimizer_state)
        started = state.present.sum() > 0
        return jax.tree.map(
            lambda a, b: jnp.where(started, a, b), new, (state.logits, state.optimizer)
        )

    def weigh(variables, state, signals):
        del variables
        present = present_mask(signals).astype(state.logits.dtype)
        losses = jnp.maximum(signals.losses, SMALLEST_LOSS).astype(state.logits.dtype)
        log_losses = jnp.log(losses)
        logits, optimizer_state = moved(state, log_losses, present)
        ratios = masked_softmax(logits, present) / losses
        coefficients = ratios / jnp.where(ratios.sum() > 0, ratios.sum(), 1)
        state = FamoState(
            logits=logits,
            log_losses=jnp.where(present > 0, log_losses, state.log_losses),
            present=present,
            optimizer=optimizer_state,
        )
        # c z_t log L_t = (c z_t / L_t) L_t log L_t.
        objective = jnp.sum(coefficients * losses * log_losses)
        return weighed(coefficients.astype(signals.losses.dtype), objective, state)

    return Weighting(init, weigh, uses_gramian=False)
