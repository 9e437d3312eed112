"""Dynamic Weight Adapter: weights from gradient norms and a small learned network.

Equations 5, 6 and 13 to 15 of "Dynamic Multi-Task Weight Adaptation", with the
repairs that make them well defined. Axis letters: N tasks, K categories, F width.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dwa_jax.gramian import gradient_norms
from dwa_jax.weighting.common import masked_softmax, mean_weights
from dwa_jax.weighting.protocol import Weighed, Weighting, present_mask


class DwaState(NamedTuple):
    """What DWA carries from step to step.

    Attributes:
      norms: (N,) moving average of the gradient norms; negative before the first one.
    """

    norms: jax.Array


def balanced_lambda(norms: jax.Array, present: jax.Array) -> jax.Array:
    """Weights that make every task's weighted gradient equally long (equation 6).

    lambda_t is proportional to 1 / norm_t, which for two tasks is
    norm_other / (norm_t + norm_other). Tasks whose norm is exactly 0 take all the
    weight, in equal parts, as that limit has it; where every norm is 0, or one is not
    finite, the tasks that are present weigh the same.

    Args:
      norms: (N,) gradient norms, not negative.
      present: (N,) 1 for a task that the batch has labels for, 0 for another.

    Returns:
      (N,) weights over the tasks present; they sum to 1.
    """
    here = present > 0
    usable = jnp.isfinite(jnp.where(here, norms, 1)).all()
    norms = jnp.where(here & usable, norms, 1)
    # Relative to the smallest norm, so that neither quotients nor sums overflow.
    smallest = jnp.min(jnp.where(here & usable, norms, jnp.inf))
    smallest = jnp.where(jnp.isfinite(smallest), smallest, 1)
    inverse = smallest / jnp.where(norms > 0, norms, 1)
    weights = jnp.where(here, jnp.where(smallest > 0, inverse, (norms == 0).astype(norms.dtype)), 0)
    return weights / jnp.where(here.any(), weights.sum(), 1)


def _network_init(key, num_inputs, width, num_tasks):
    # FC1 as PyTorch starts a linear layer; FC2 at zero, so that training starts
    # from equal weights whatever the scale of the losses.
    bound = num_inputs**-0.5
    kernel_key, bias_key = jax.random.split(key)
    return {
        "fc1": {
            "kernel": jax.random.uniform(
                kernel_key, (num_inputs, width), minval=-bound, maxval=bound
            ),
            "bias": jax.random.uniform(bias_key, (width,), minval=-bound, maxval=bound),
        },
        "fc2": {"kernel": jnp.zeros((width, num_tasks)), "bias": jnp.zeros((num_tasks,))},
    }


def _network(variables, inputs):
    # Equations 13 to 15, up to the softmax.
    hidden = jax.nn.relu(inputs @ variables["fc1"]["kernel"] + variables["fc1"]["bias"])
    return hidden @ variables["fc2"]["kernel"] + variables["fc2"]["bias"]


def dwa(
    num_tasks: int = 2,
    *,
    width: int = 16,
    floor: float = 0.0,
    kl_to_uniform: float = 0.0,
    temperature: float | None = None,
    class_inputs: int = 0,
    through_weights: bool = False,
    rescale: bool = False,
    norm_decay: float = 0.0,
    balance_gradients: bool = True,
    learn_weights: bool = True,
) -> Weighting:
    """Dynamic Weight Adapter: coefficient_t = lambda_t * w_t.

    lambda comes from the gradient norms (equation 6), w from a two-layer network on the
    lambda-weighted losses (equations 13 to 15), which descends on the total loss and so
    always learns to favour the smaller one: with `floor` = 0 its optimum is a vertex.

    Args:
      num_tasks: N.
      width: F, the hidden width of the network (the papers do not give it).
      floor: the smallest weight w_t, in [0, 1 / N).
      kl_to_uniform: strength of a pull KL(w || uniform) in the network's objective.
      temperature: replaces the network by its regularised optimum,
        softmax(-lambda * losses / temperature), and learns nothing.
      class_inputs: K appends the batch's K class proportions and their entropy to the
        network's inputs (equation 13 names them, 14 drops them); 0 leaves them out.
      through_weights: lets the trunk's gradient pass through w as well.
      rescale: multiplies lambda and w by N each, so that a task starts at weight 1
        instead of 1 / N^2.
      norm_decay: decay of a moving average over the gradient norms; 0 uses the step's own.
      balance_gradients: false sets lambda to 1 / N ("adaptive w" of the ablation).
      learn_weights: false sets w to 1 / N ("adaptive lambda" of the ablation).

    Raises:
      ValueError: an option is out of its range.
    """
    if not 0 <= floor < 1 / num_tasks:
        raise ValueError(f"dwa: floor must be in [0, 1 / {num_tasks}), not {floor}")
    if not 0 <= norm_decay < 1:
        raise ValueError(f"dwa: norm_decay must be in [0, 1), not {norm_decay}")
    if temperature is not None and temperature <= 0:
        raise ValueError(f"dwa: temperature must be positive, not {temperature}")
    if width < 1:
        raise ValueError(f"dwa: width must be at least 1, not {width}")
    if kl_to_uniform < 0:
        raise ValueError(f"dwa: kl_to_uniform must not be negative, not {kl_to_uniform}")
    has_network = learn_weights and temperature is None

    def init(key):
        variables = {}
        if has_network:
            num_inputs = num_tasks + (class_inputs + 1 if class_inputs else 0)
            variables = _network_init(key, num_inputs, width, num_tasks)
        return variables, DwaState(norms=jnp.full((num_tasks,), -1.0))

    def balance(norms, state, present):
        finite = jnp.isfinite(norms) & (present > 0)
        old = state.norms.astype(norms.dtype)
        average = jnp.where(old < 0, norms, norm_decay * old + (1 - norm_decay) * norms)
        average = jnp.where(finite, average, old)
        # Without a past to fall back on, a norm that is not finite is passed on as it is.
        used = jnp.where(average < 0, norms, average) if norm_decay else norms
        state = DwaState(norms=average.astype(state.norms.dtype))
        if not balance_gradients:
            return mean_weights(present), state
        return balanced_lambda(used, present), state

    def inputs(weighted_losses, signals):
        if not class_inputs:
            return weighted_losses
        p = signals.class_proportions
        entropy = -jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1)), 0))
        return jnp.concatenate([weighted_losses, p, entropy[None]])

    def task_weights(variables, balances, losses, signals, present):
        if not learn_weights:
            return mean_weights(present)
        weighted = balances * losses
        if temperature is not None:
            soft = masked_softmax(-weighted / temperature, present)
        else:
            soft = masked_softmax(_network(variables, inputs(weighted, signals)), present)
        return present * floor + (1 - present.sum() * floor) * soft

    def weigh(variables, state, signals):
        present = present_mask(signals)
        balances, state = balance(gradient_norms(signals.gramian), state, present)
        balances = jax.lax.stop_gradient(balances)

        def total(losses):
            weights = task_weights(variables, balances, losses, signals, present)
            return jnp.sum(balances * weights * losses), weights

        objective, weights = total(signals.losses)
        if through_weights:
            coefficients = jax.grad(total, has_aux=True)(signals.losses)[0]
        else:
            coefficients = balances * weights
        if kl_to_uniform:
            count = jnp.maximum(present.sum(), 1)
            positive = weights > 0
            log_ratio = jnp.log(jnp.where(positive, weights, 1) * count)
            objective += kl_to_uniform * jnp.sum(jnp.where(positive, weights * log_ratio, 0))
        if rescale:
            coefficients = coefficients * jnp.maximum(present.sum(), 1) ** 2
        metrics = {"lambda": balances, "weight": weights}
        return Weighed(jax.lax.stop_gradient(coefficients), objective, state, metrics)

    return Weighting(init, weigh, uses_gramian=balance_gradients)


def adaptive_lambda(
    num_tasks: int = 2, *, rescale: bool = False, norm_decay: float = 0.0
) -> Weighting:
    """DWA's gradient balance alone, w = 1 / N each (the papers' ablation "adaptive lambda").

    Args:
      num_tasks: N.
      rescale: as in `dwa`.
      norm_decay: as in `dwa`.

    Returns:
      A `Weighting`.

    Raises:
      ValueError: an option is out of its range.
    """
    return dwa(num_tasks, learn_weights=False, rescale=rescale, norm_decay=norm_decay)


def adaptive_w(
    num_tasks: int = 2,
    *,
    width: int = 16,
    floor: float = 0.0,
    kl_to_uniform: float = 0.0,
    temperature: float | None = None,
    class_inputs: int = 0,
    through_weights: bool = False,
    rescale: bool = False,
) -> Weighting:
    """DWA's learned network alone, lambda = 1 / N each (the papers' ablation "adaptive w").

    Args:
      num_tasks: N.
      width: as in `dwa`, and so are the others.
      floor: the smallest weight.
      kl_to_uniform: strength of the pull to uniform weights.
      temperature: replaces the network by a closed form.
      class_inputs: K appends class proportions to the network's inputs.
      through_weights: lets the trunk's gradient pass through w.
      rescale: multiplies the coefficients by N^2.

    Returns:
      A `Weighting`.

    Raises:
      ValueError: an option is out of its range.
    """
    return dwa(
        num_tasks,
        balance_gradients=False,
        width=width,
        floor=floor,
        kl_to_uniform=kl_to_uniform,
        temperature=temperature,
        class_inputs=class_inputs,
        through_weights=through_weights,
        rescale=rescale,
    )
