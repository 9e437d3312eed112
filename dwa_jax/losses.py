"""Task losses, and the imbalance loss with learned alpha and beta.

A loss is computed from part of a batch (a device's rows, a microbatch) but belongs to
the whole: `Statistics` holds the whole batch's counts, every function returns the
rows' share of the loss, and shares add up. Axis letters: B rows, K categories.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Statistics(NamedTuple):
    """Label counts of the whole batch.

    Attributes:
      num_scores: () rows that carry a score.
      class_counts: (K,) rows of each class.
      proportions: (K,) what the imbalance loss takes as p_k; see `class_proportions`.
      share: () what part of a term without rows this call counts: 1 / microbatches.
    """

    num_scores: jax.Array
    class_counts: jax.Array
    proportions: jax.Array
    share: jax.Array | float = 1.0


class TaskLoss(NamedTuple):
    """A loss of one task, with what it learns itself.

    Attributes:
      init: () -> variables, a dict of scalars; empty for most losses.
      apply: (variables, outputs, batch, statistics) -> () share of the loss.
      penalty: variables -> (), added to the variables' own objective only.
      project: variables -> variables, back into their bounds after an update.
    """

    init: Callable[[], dict]
    apply: Callable[[dict, jax.Array, dict, Statistics], jax.Array]
    penalty: Callable[[dict], Any] = lambda variables: 0.0
    project: Callable[[dict], dict] = lambda variables: variables


# What p_k of the imbalance loss may be: see `class_proportions`.
PROPORTIONS = ("batch", "laplace", "moving_average", "dataset")


def count_labels(batch: dict, num_classes: int) -> tuple[jax.Array, jax.Array]:
    """Counts a whole batch's labels.

    Returns:
      (rows with a score (), rows of each class (K,)).
    """
    one_hot = jax.nn.one_hot(batch["category"], num_classes, dtype=batch["category_mask"].dtype)
    return batch["score_mask"].sum(), batch["category_mask"] @ one_hot


def class_proportions(kind: str, counts: jax.Array, average: jax.Array) -> jax.Array:
    """p_k of equations 7 to 9.

    Args:
      kind: "batch": the batch's own, 0 for an absent class; "laplace": (n_k + 1) / (n + K);
        "moving_average" or "dataset": `average` as it is.
      counts: (K,) rows of each class in the batch.
      average: (K,) proportions kept across batches, or the training split's.

    Raises:
      ValueError: the kind is unknown.
    """
    if kind == "batch":
        return counts / jnp.maximum(counts.sum(), 1)
    if kind == "laplace":
        return (counts + 1) / (counts.sum() + counts.shape[0])
    if kind in PROPORTIONS:
        return average
    raise ValueError(f"unknown class proportions {kind!r}; there are: {', '.join(PROPORTIONS)}")


def squared_error(
    predictions: jax.Array, scores: jax.Array, mask: jax.Array, num_scores: jax.Array
) -> jax.Array:
    """Mean squared error over the rows that carry a score.

    Args:
      predictions: (B,) predicted scores.
      scores: (B,) true ones, anything where the mask is 0.
      mask: (B,) 1 where the row has a score.
      num_scores: () such rows in the whole batch.

    Returns:
      () these rows' share.
    """
    mask = mask.astype(predictions.dtype)
    errors = jnp.where(mask > 0, predictions - scores.astype(predictions.dtype), 0)
    return jnp.sum(mask * errors**2) / jnp.maximum(num_scores, 1).astype(predictions.dtype)


def class_cross_entropy(
    logits: jax.Array, categories: jax.Array, mask: jax.Array, class_counts: jax.Array
) -> jax.Array:
    """Mean cross-entropy of each class's rows, L_{c,k} of equation 9.

    Args:
      logits: (B, K).
      categories: (B,) integers in [0, K), anything where the mask is 0.
      mask: (B,) 1 where the row has a category.
      class_counts: (K,) rows of each class in the whole batch.

    Returns:
      (K,) these rows' share; 0 for a class without rows.
    """
    one_hot = jax.nn.one_hot(categories, logits.shape[-1], dtype=logits.dtype)
    cross_entropy = -jnp.sum(one_hot * jax.nn.log_softmax(logits), axis=-1)
    sums = (mask.astype(logits.dtype) * cross_entropy) @ one_hot
    return sums / jnp.maximum(class_counts, 1).astype(logits.dtype)


def imbalance(
    class_losses: jax.Array,
    proportions: jax.Array,
    alpha: jax.Array,
    beta: jax.Array,
    share: jax.Array | float = 1.0,
) -> jax.Array:
    """The imbalance loss of equations 7 to 9: sum_k p_k^-beta (p_k L_{c,k} - alpha log p_k).

    The sum runs over the classes with p_k > 0. The alpha term is constant in the model's
    parameters and its derivative in alpha is never negative, nor is the one in beta: by
    descent both only ever shrink.

    Args:
      class_losses: (K,) mean cross-entropy of each class's rows.
      proportions: (K,) p_k.
      alpha: () weight of the log-proportion term.
      beta: () exponent; 0 leaves the plain mean cross-entropy.
      share: () what part of the alpha term this call counts.

    Returns:
      () the loss.
    """
    absent = proportions <= 0
    p = jnp.where(absent, 1, proportions).astype(class_losses.dtype)
    log_p = jnp.log(p)
    terms = p * class_losses - share * alpha * log_p
    return jnp.sum(jnp.where(absent, 0, jnp.exp(-beta * log_p) * terms))


def mse_loss() -> TaskLoss:
    """The regression task's loss: mean squared error on the score."""

    def apply(variables, outputs, batch, statistics):
        del variables
        return squared_error(
            outputs[..., 0], batch["score"], batch["score_mask"], statistics.num_scores
        )

    return TaskLoss(dict, apply)


def cross_entropy_loss() -> TaskLoss:
    """Plain mean cross-entropy over the rows that carry a category."""

    def apply(variables, outputs, batch, statistics):
        del variables
        counts = statistics.class_counts.astype(outputs.dtype)
        means = class_cross_entropy(outputs, batch["category"], batch["category_mask"], counts)
        return jnp.sum(means * counts) / jnp.maximum(counts.sum(), 1)

    return TaskLoss(dict, apply)


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


CLASSIFICATION_LOSSES: dict[str, Callable[..., TaskLoss]] = {
    "imbalance": imbalance_loss,
    "cross_entropy": cross_entropy_loss,
}
REGRESSION_LOSSES: dict[str, Callable[..., TaskLoss]] = {"mse": mse_loss}
