"""Squared error on the score, plain and weighted by how frequent a score is.

Axis letters: B rows, N training rows, S bins of the score's range [-1, 1].
"""

import jax
import jax.numpy as jnp
import numpy as np

from dwa_jax.losses.protocol import Labels, TaskLoss, labelled_mean


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
    return labelled_mean(masked_errors(predictions, scores, mask) ** 2, mask, num_scores)


def masked_errors(predictions: jax.Array, scores: jax.Array, mask: jax.Array) -> jax.Array:
    """Prediction minus score, (B,); 0 where the mask is, whatever the score holds there."""
    return jnp.where(mask > 0, predictions - scores.astype(predictions.dtype), 0)


def mse_loss() -> TaskLoss:
    """The regression task's loss: mean squared error on the score."""

    def apply(variables, outputs, batch, statistics):
        del variables
        return squared_error(
            outputs[..., 0], batch["score"], batch["score_mask"], statistics.num_scores
        )

    return TaskLoss(dict, apply)


def score_histogram(scores: np.ndarray, num_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts scores in equally wide bins over [-1, 1].

    Args:
      scores: (N,) training scores.
      num_bins: S, at least 2.

    Returns:
      (edges (S+1,) in float32, the precision that batches carry scores in, so that a
      score falls in the same bin there as here; counts (S,)).

    Raises:
      ValueError: too few bins, or there is no score.
    """
    if not isinstance(num_bins, int) or num_bins < 2:
        raise ValueError(f"num_bins={num_bins} must be an integer of at least 2")
    scores = check_training_scores(scores).astype(np.float32)
    edges = np.linspace(-1, 1, num_bins + 1).astype(np.float32)
    bins = np.searchsorted(edges[1:-1], scores, side="right")
    return edges, np.bincount(bins, minlength=num_bins)


def check_training_scores(scores: np.ndarray) -> np.ndarray:
    """Returns the training scores in float64; a ValueError where there is none."""
    scores = np.asarray(scores, np.float64)
    if not scores.size:
        raise ValueError("no training row has a score to take the scores' density from")
    return scores


# What a score's weight is of its density: the power that is taken of it.
_POWERS = {"inverse": -1.0, "sqrt_inverse": -0.5}


def density_weights(
    counts: np.ndarray, *, kernel_size: int = 5, sigma: float = 2.0, weight: str = "sqrt_inverse"
) -> np.ndarray:
    """Weights of label-distribution smoothing (Yang et al., 2021, section 3.1).

    Args:
      counts: (S,) training rows of each bin.
      kernel_size: bins that the Gaussian kernel covers; odd.
      sigma: its standard deviation, in bins.
      weight: "inverse" of the smoothed density, or "sqrt_inverse" of its square root.

    Returns:
      (S,) weights, 1 in the mean over the training rows. Bins without training rows
      have at most the largest weight of a bin that has some.

    Raises:
      ValueError: an option is out of range.
    """
    if not isinstance(kernel_size, int) or kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"lds: kernel_size={kernel_size} must be an odd integer of at least 1")
    if not 0 < sigma < np.inf:
        raise ValueError(f"lds: sigma={sigma} must be a finite number above 0")
    if weight not in _POWERS:
        raise ValueError(f"lds: weight={weight!r} is not one of {', '.join(_POWERS)}")
    reach = kernel_size // 2
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    # Beyond the ends of the range there are no scores: zeros. "full" and a cut, because
    # "same" would follow the longer of the two.
    density = np.convolve(counts, kernel, mode="full")[reach : reach + len(counts)]
    density = np.maximum(density, density[counts > 0].min())
    weights = density ** _POWERS[weight]
    return weights * counts.sum() / (weights @ counts)


def lds_loss(
    *,
    labels: Labels,
    num_bins: int = 50,
    kernel_size: int = 5,
    sigma: float = 2.0,
    weight: str = "sqrt_inverse",
) -> TaskLoss:
    """Squared error weighted by label-distribution smoothing (LDS; Yang et al., 2021).

    A score's weight is the inverse of its density among the training scores, which is
    their histogram smoothed by a Gaussian kernel.

    Args:
      labels: of the training split.
      num_bins: S, of the histogram over [-1, 1].
      kernel_size: bins that the kernel covers; odd.
      sigma: its standard deviation, in bins.
      weight: "inverse" or "sqrt_inverse".

    Raises:
      ValueError: an option is out of range, or no training row has a score.
    """
    edges, counts = score_histogram(labels.scores, num_bins)
    weights = density_weights(counts, kernel_size=kernel_size, sigma=sigma, weight=weight)

    def apply(variables, outputs, batch, statistics):
        del variables
        predictions, scores, mask = outputs[..., 0], batch["score"], batch["score_mask"]
        bins = jnp.searchsorted(edges[1:-1], scores.astype(jnp.float32), side="right")
        row_weights = jnp.asarray(weights, predictions.dtype)[bins]
        errors = masked_errors(predictions, scores, mask)
        return labelled_mean(row_weights * errors**2, mask, statistics.num_scores)

    return TaskLoss(dict, apply)
