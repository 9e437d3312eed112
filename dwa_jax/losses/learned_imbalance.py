"""The papers' imbalance loss, with learned alpha and beta (equations 7 to 12).

Axis letters: B rows, K categories.
"""

import warnings

import jax
import jax.numpy as jnp

from dwa_jax.losses.cross_entropy import class_cross_entropy
from dwa_jax.losses.protocol import TaskLoss, class_proportions


def imbalance(
    class_losses: jax.Array,
    proportions: jax.Array,
    alpha: jax.Array,
    beta: jax.Array,
    share: jax.Array | float = 1.0,
    batch_proportions: jax.Array | None = None,
) -> jax.Array:
    """The imbalance loss of equations 7 to 9: sum_k p_k^-beta (q_k L_{c,k} - alpha log p_k).

    q_k, before the mean of a class's rows, is the class's share of the batch, which makes
    sum_k q_k L_{c,k} the mean over the batch's rows whatever p_k is; the papers' p_k is q_k.
    A class with p_k = 0 has the weight 1 and no alpha term. The alpha term is constant in the
    model's parameters and its derivative in alpha is never negative, nor is the one in beta: by
    descent both only ever shrink.

    Args:
      class_losses: (K,) mean cross-entropy of each class's rows; 0 for a class without rows.
      proportions: (K,) p_k.
      alpha: () weight of the log-proportion term.
      beta: () exponent; 0 leaves the plain mean cross-entropy.
      share: () what part of the alpha term this call counts.
      batch_proportions: (K,) q_k, `proportions` if None.

    Returns:
      () the loss.
    """
    if batch_proportions is None:
        batch_proportions = proportions
    p = jnp.where(proportions > 0, proportions, 1).astype(class_losses.dtype)
    log_p = jnp.log(p)
    terms = batch_proportions.astype(p.dtype) * class_losses - share * alpha * log_p
    return jnp.sum(jnp.exp(-beta * log_p) * terms)


def imbalance_loss(
    *,
    alpha: float = 0.1,
    beta: float = 0.5,
    mode: str = "bounded",
    alpha_max: float = 2.0,
    beta_max: float = 2.0,
    prior: float = 1.0,
) -> TaskLoss:
    """The imbalance loss with alpha and beta learned by descent (equations 7 to 12).

    Args:
      alpha: its start (the papers do not give it).
      beta: its start (likewise).
      mode: "bounded": both projected to [0, maximum] after every update; "frozen":
        neither moves; "prior": bounded, with a quadratic pull to the start in their own
        objective; "literal": as printed, which is unbounded below and diverges.
      alpha_max: upper bound of alpha.
      beta_max: upper bound of beta.
      prior: strength of the pull, for "prior".

    Raises:
      ValueError: the mode is unknown, or a start lies outside its bounds.
    """
    if mode not in ("bounded", "frozen", "prior", "literal"):
        raise ValueError(
            f"unknown imbalance mode {mode!r}; there are: bounded, frozen, prior, literal"
        )
    if mode == "literal":
        warnings.warn(
            "imbalance mode 'literal': alpha and beta descend without a bound and the loss "
            "is unbounded below; long runs diverge",
            stacklevel=2,
        )
    elif not (0 <= alpha <= alpha_max and 0 <= beta <= beta_max):
        raise ValueError(
            f"alpha = {alpha} and beta = {beta} must start within "
            f"[0, {alpha_max}] and [0, {beta_max}]"
        )

    def init():
        return {"alpha": jnp.asarray(alpha, float), "beta": jnp.asarray(beta, float)}

    def apply(variables, outputs, batch, statistics):
        if mode == "frozen":
            variables = jax.lax.stop_gradient(variables)
        means = class_cross_entropy(
            outputs, batch["category"], batch["category_mask"], statistics.class_counts
        )
        return imbalance(
            means,
            statistics.proportions,
            jnp.asarray(variables["alpha"], means.dtype),
            jnp.asarray(variables["beta"], means.dtype),
            statistics.share,
            class_proportions("batch", statistics.class_counts, statistics.class_counts),
        )

    def penalty(variables):
        if mode != "prior":
            return 0.0
        return 0.5 * prior * ((variables["alpha"] - alpha) ** 2 + (variables["beta"] - beta) ** 2)

    def project(variables):
        if mode in ("literal", "frozen"):
            return variables
        return {
            "alpha": jnp.clip(variables["alpha"], 0, alpha_max),
            "beta": jnp.clip(variables["beta"], 0, beta_max),
        }

    return TaskLoss(init, apply, penalty, project)
