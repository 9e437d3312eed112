"""Classification losses for imbalanced classes that learn nothing: rivals of the imbalance loss.

All but the focal loss take each class's frequency from the training split, once. Every
one is a mean over the rows that carry a category. Axis letters: B rows, K categories.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from dwa_jax.losses.cross_entropy import row_cross_entropy
from dwa_jax.losses.protocol import Labels, TaskLoss, labelled_mean


def effective_number_weights(class_counts: np.ndarray, beta: float) -> np.ndarray:
    """Class weights (1 - beta) / (1 - beta^n_k), scaled to sum to K (Cui et al., 2019).

    Args:
      class_counts: (K,) training rows of each class.
      beta: in [0, 1); 0 weighs all classes alike, towards 1 they are inverse frequencies.

    Returns:
      (K,) weights; 0 for a class without training rows, which would otherwise take
      almost all of the sum from the classes there are.

    Raises:
      ValueError: beta is out of range, or no class has a row.
    """
    if not 0 <= beta < 1:
        raise ValueError(f"class_balanced: beta={beta} must be in [0, 1)")
    counts = _check_counts(class_counts)
    present = counts > 0
    # 1 - beta^n without the cancellation where beta is close to 1.
    log_beta = np.log(beta) if beta > 0 else -np.inf
    unseen = -np.expm1(np.where(present, counts, 1) * log_beta)
    weights = np.where(present, (1 - beta) / unseen, 0)
    return weights * len(weights) / weights.sum()


def focal_cross_entropy(logits: jax.Array, categories: jax.Array, gamma: float) -> jax.Array:
    """Focal loss of each row, -(1 - p)^gamma log p with p the softmax of the row's category.

    Args:
      logits: (B, K).
      categories: (B,) integers in [0, K); any other gives the row a loss of 0.
      gamma: at least 0; 0 is the cross-entropy.

    Returns:
      (B,) losses, with a finite gradient also where p rounds to 1.
    """
    cross_entropy = row_cross_entropy(logits, categories)
    # A power below 1 has no derivative at 0.
    rest = jnp.maximum(-jnp.expm1(-cross_entropy), jnp.finfo(logits.dtype).tiny)
    return jnp.exp(gamma * jnp.log(rest)) * cross_entropy


def class_balanced_loss(*, labels: Labels, beta: float = 0.999, gamma: float = 0.0) -> TaskLoss:
    """Class-balanced softmax loss: weights by the effective number of rows (Cui et al., 2019).

    The sum of the weighted losses is divided by the number of rows, not by the sum of
    their weights, so that a batch of rare classes counts for more.

    Args:
      labels: of the training split. A class without rows there has the weight 0, and
        the others' weights still sum to K.
      beta: in [0, 1); 0 is the cross-entropy, towards 1 the weights are inverse frequencies.
      gamma: of the focal loss that is weighted; 0 weighs the cross-entropy.

    Raises:
      ValueError: an option is out of range, or no training row has a category.
    """
    weights = effective_number_weights(labels.class_counts, beta)
    _check_exponent("class_balanced", "gamma", gamma)

    def rows(logits, categories):
        one_hot = jax.nn.one_hot(categories, logits.shape[-1], dtype=logits.dtype)
        row_weights = one_hot @ jnp.asarray(weights, logits.dtype)
        return row_weights * focal_cross_entropy(logits, categories, gamma)

    return _mean_of(rows)


def focal_loss(*, gamma: float = 2.0) -> TaskLoss:
    """Focal loss over the softmax: easy rows count less (Lin et al., 2017, eq. 4).

    Its weighted form is `class_balanced_loss` with a gamma.

    Args:
      gamma: at least 0; 0 is the cross-entropy.

    Raises:
      ValueError: gamma is out of range.
    """
    _check_exponent("focal", "gamma", gamma)
    return _mean_of(lambda logits, categories: focal_cross_entropy(logits, categories, gamma))


def logit_adjusted_loss(*, labels: Labels, tau: float = 1.0) -> TaskLoss:
    """Cross-entropy of logits + tau log prior (Menon et al., 2021, eq. 10).

    The head's own logits, without the prior, are what predicts: they aim at the balanced
    error.

    Args:
      labels: of the training split; the prior is each class's share of its rows. A class
        without rows counts as if it had one: with a prior of 0 nothing would ever lower
        its logit.
      tau: at least 0; 0 is the cross-entropy, 1 is consistent for the balanced error.

    Raises:
      ValueError: tau is out of range, or no training row has a category.
    """
    _check_exponent("logit_adjusted", "tau", tau)
    counts = np.maximum(_check_counts(labels.class_counts), 1)
    offsets = tau * np.log(counts / counts.sum())
    return _mean_of(
        lambda logits, categories: row_cross_entropy(
            logits + jnp.asarray(offsets, logits.dtype), categories
        )
    )


def balanced_softmax_loss(*, labels: Labels) -> TaskLoss:
    """Balanced softmax, -log (n_y e^{z_y} / sum_k n_k e^{z_k}) (Ren et al., 2020).

    The same function as `logit_adjusted_loss` at tau = 1; a class without training rows
    is treated alike.

    Args:
      labels: of the training split.

    Raises:
      ValueError: no training row has a category.
    """
    return logit_adjusted_loss(labels=labels, tau=1.0)


def _mean_of(row_loss):
    def apply(variables, outputs, batch, statistics):
        del variables
        rows = row_loss(outputs, batch["category"])
        return labelled_mean(rows, batch["category_mask"], statistics.class_counts.sum())

    return TaskLoss(dict, apply)


def _check_exponent(loss, name, value):
    if not 0 <= value < math.inf:
        raise ValueError(f"{loss}: {name}={value} must be a finite number of at least 0")


def _check_counts(class_counts):
    counts = np.asarray(class_counts, np.float64)
    if not counts.sum() > 0:
        raise ValueError("no training row has a category to take class frequencies from")
    return counts
