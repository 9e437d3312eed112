"""What every loss is given and gives back, and how a batch's labels are counted.

A loss is computed from part of a batch (a device's rows, a microbatch) but belongs to
the whole: `Statistics` holds the whole batch's counts, every function returns the
rows' share of the loss, and shares add up. Axis letters: B rows, K categories,
N training rows.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


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


class Labels(NamedTuple):
    """Labels of the training split, for losses that weigh by how frequent they are.

    Attributes:
      class_counts: (K,) rows of each class.
      scores: (N,) the scores that there are, in [-1, 1].
    """

    class_counts: np.ndarray
    scores: np.ndarray


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


def labelled_mean(row_losses: jax.Array, mask: jax.Array, count: jax.Array) -> jax.Array:
    """Mean over the rows that carry a label.

    Args:
      row_losses: (B,) finite, also where the mask is 0: zero times an infinite
        derivative would be NaN.
      mask: (B,) 1 where the row has the label.
      count: () such rows in the whole batch.

    Returns:
      () these rows' share; 0 where the batch has no label.
    """
    total = jnp.sum(mask.astype(row_losses.dtype) * row_losses)
    return total / jnp.maximum(count, 1).astype(row_losses.dtype)
