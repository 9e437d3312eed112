"""A loss of one's own: the squared earth mover's distance, for categories that are ordered.

Cross-entropy minds only the true category's probability; here a guess two categories off costs
more than one next door. Source: Hou, Yu and Samaras, "Squared Earth Mover's Distance-based Loss
for Training Deep Neural Networks" (2016), arXiv 1611.05916. B rows, K categories.
"""

import jax
import jax.numpy as jnp

from dwa_jax import losses


def earth_mover_loss() -> losses.TaskLoss:
    """Mean over the rows of sum_k (F_k - G_k)^2, F and G the two cumulative distributions."""

    def apply(variables, outputs, batch, statistics):
        del variables  # it learns nothing itself; see losses.imbalance_loss for one that does
        predicted = jnp.cumsum(jax.nn.softmax(outputs), axis=-1)
        true = jnp.arange(outputs.shape[-1]) >= batch["category"][:, None]
        rows = jnp.sum((predicted - true) ** 2, axis=-1)
        # Rows without a category count for nothing, and the mean is over the whole batch's
        # rows, also where a microbatch holds only some of them.
        return losses.labelled_mean(rows, batch["category_mask"], statistics.class_counts.sum())

    return losses.TaskLoss(init=dict, apply=apply)


# From here on --config.classification_loss="earth_mover" knows it.
losses.CLASSIFICATION_LOSSES["earth_mover"] = earth_mover_loss
