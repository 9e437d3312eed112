"""Cross-entropy by row and by class, and the loss that is its plain mean.

Axis letters: B rows, K categories.
"""

import jax
import jax.numpy as jnp

from dwa_jax.losses.protocol import TaskLoss


def row_cross_entropy(logits: jax.Array, categories: jax.Array) -> jax.Array:
    """Cross-entropy of each row.

    Args:
      logits: (B, K).
      categories: (B,) integers in [0, K); any other gives the row a loss of 0.

    Returns:
      (B,) -log softmax(logits) at the row's category.
    """
    one_hot = jax.nn.one_hot(categories, logits.shape[-1], dtype=logits.dtype)
    return -jnp.sum(one_hot * jax.nn.log_softmax(logits), axis=-1)


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
    sums = (mask.astype(logits.dtype) * row_cross_entropy(logits, categories)) @ one_hot
    return sums / jnp.maximum(class_counts, 1).astype(logits.dtype)


def cross_entropy_loss() -> TaskLoss:
    """Plain mean cross-entropy over the rows that carry a category."""

    def apply(variables, outputs, batch, statistics):
        del variables
        counts = statistics.class_counts.astype(outputs.dtype)
        means = class_cross_entropy(outputs, batch["category"], batch["category_mask"], counts)
        return jnp.sum(means * counts) / jnp.maximum(counts.sum(), 1)

    return TaskLoss(dict, apply)
