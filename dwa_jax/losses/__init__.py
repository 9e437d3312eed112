"""Task losses behind one protocol: the papers' imbalance loss and its rivals.

A new one is a factory that returns a `TaskLoss` and a line below. A factory with a
keyword `labels` is given the training split's `Labels`.
"""

import inspect
from collections.abc import Callable

from dwa_jax.losses.balanced_mse import balanced_mse_gai_loss, balanced_mse_loss
from dwa_jax.losses.class_frequency import (
    balanced_softmax_loss,
    class_balanced_loss,
    focal_loss,
    logit_adjusted_loss,
)
from dwa_jax.losses.cross_entropy import class_cross_entropy, cross_entropy_loss
from dwa_jax.losses.learned_imbalance import imbalance, imbalance_loss
from dwa_jax.losses.protocol import (
    PROPORTIONS,
    Labels,
    Statistics,
    TaskLoss,
    class_proportions,
    count_labels,
    labelled_mean,
)
from dwa_jax.losses.regression import lds_loss, mse_loss, squared_error

CLASSIFICATION_LOSSES: dict[str, Callable[..., TaskLoss]] = {
    "imbalance": imbalance_loss,
    "cross_entropy": cross_entropy_loss,
    "class_balanced": class_balanced_loss,
    "focal": focal_loss,
    "logit_adjusted": logit_adjusted_loss,
    "balanced_softmax": balanced_softmax_loss,
}
REGRESSION_LOSSES: dict[str, Callable[..., TaskLoss]] = {
    "mse": mse_loss,
    "lds": lds_loss,
    "balanced_mse": balanced_mse_loss,
    "balanced_mse_gai": balanced_mse_gai_loss,
}


def takes_labels(factory: Callable[..., TaskLoss]) -> bool:
    """Returns whether a loss is made from the training split's labels."""
    return "labels" in inspect.signature(factory).parameters


__all__ = [
    "CLASSIFICATION_LOSSES",
    "PROPORTIONS",
    "REGRESSION_LOSSES",
    "Labels",
    "Statistics",
    "TaskLoss",
    "balanced_mse_gai_loss",
    "balanced_mse_loss",
    "balanced_softmax_loss",
    "class_balanced_loss",
    "class_cross_entropy",
    "class_proportions",
    "count_labels",
    "cross_entropy_loss",
    "focal_loss",
    "imbalance",
    "imbalance_loss",
    "labelled_mean",
    "lds_loss",
    "logit_adjusted_loss",
    "mse_loss",
    "squared_error",
    "takes_labels",
]
