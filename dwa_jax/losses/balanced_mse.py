"""Balanced MSE: regression as if every score were as frequent as any other (Ren et al., 2022).

The prediction is the mean of a Gaussian of standard deviation sigma, the learned noise
scale, for scores of uniform density; its likelihood on the training scores, whose
density is p, is what is maximised:

    (y - m)^2 / (2 sigma^2) + log sum or integral of p(y') exp(-(y' - m)^2 / (2 sigma^2)),

times 2 sigma^2 without a gradient, which gives it the scale of the squared error. The
density is a histogram (BNI) or a mixture of Gaussians (GAI). The batch itself as a sample
of it (BMC) is left out: a row's loss would depend on rows of other parts of the batch.
The value leaves out -log p(y), a constant in the model, so it may be below 0.

Axis letters: B rows, N training rows, S bins, C mixture components.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dwa_jax.losses.protocol import Labels, TaskLoss, labelled_mean
from dwa_jax.losses.regression import check_training_scores, masked_errors, score_histogram

# Half of the scores' range: more noise than scores in [-1, 1] can have. Without a bound
# it grows as long as the predictions are no better than a constant.
_LARGEST_NOISE = 1.0
_SMALLEST_NOISE = 0.01


def balanced_mse_loss(*, labels: Labels, num_bins: int = 100, noise_scale: float = 0.2) -> TaskLoss:
    """Balanced MSE with the training scores' histogram as their density (BNI).

    The head's output is the predicted score, as under the squared error.

    Args:
      labels: of the training split. A bin without scores has the density 0 and drops out
        of the sum.
      num_bins: S, over [-1, 1].
      noise_scale: where the learned sigma starts. It stays in [2 / num_bins, 1]: below a
        bin's width the sum over bins is no longer the integral that it stands for.

    Raises:
      ValueError: an option is out of range, or no training row has a score.
    """
    edges, counts = score_histogram(labels.scores, num_bins)
    centres = (edges[1:] + edges[:-1])[counts > 0].astype(np.float64) / 2
    log_p = np.log(counts[counts > 0] / counts.sum())

    def log_normalizer(predictions, variance):
        c, log = jnp.asarray(centres, variance.dtype), jnp.asarray(log_p, variance.dtype)
        distances = (predictions[:, None] - c) ** 2
        return jax.nn.logsumexp(log - distances / (2 * variance), axis=-1)

    return _balanced("balanced_mse", log_normalizer, noise_scale, smallest=2 / num_bins)


def balanced_mse_gai_loss(
    *, labels: Labels, num_components: int = 8, noise_scale: float = 0.2
) -> TaskLoss:
    """Balanced MSE with a mixture of Gaussians as the scores' density (GAI).

    The integral is then a closed form. The head's output is the predicted score, as under
    the squared error.

    Args:
      labels: of the training split.
      num_components: C.
      noise_scale: where the learned sigma starts; it stays in [0.01, 1].

    Raises:
      ValueError: an option is out of range, or no training row has a score.
    """
    mixture = fit_mixture(labels.scores, num_components)

    def log_normalizer(predictions, variance):
        weights, means, variances = (jnp.asarray(part, variance.dtype) for part in mixture)
        total = variances + variance
        distances = (predictions[:, None] - means) ** 2
        # The Gaussian of the first term has its own normalizer, which does not cancel here.
        log_scales = 0.5 * jnp.log(variance / total)
        terms = jnp.log(weights) + log_scales - distances / (2 * total)
        return jax.nn.logsumexp(terms, axis=-1)

    return _balanced("balanced_mse_gai", log_normalizer, noise_scale, smallest=_SMALLEST_NOISE)


def _balanced(
    name: str,
    log_normalizer: Callable[[jax.Array, jax.Array], jax.Array],
    noise_scale: float,
    smallest: float,
) -> TaskLoss:
    if not smallest <= noise_scale <= _LARGEST_NOISE:
        raise ValueError(
            f"{name}: noise_scale={noise_scale} must start within [{smallest:g}, {_LARGEST_NOISE}]"
        )

    def init():
        return {"noise_scale": jnp.asarray(noise_scale, float)}

    def apply(variables, outputs, batch, statistics):
        predictions, mask = outputs[..., 0], batch["score_mask"]
        variance = jnp.asarray(variables["noise_scale"], predictions.dtype) ** 2
        errors = masked_errors(predictions, batch["score"], mask)
        rows = errors**2 / (2 * variance) + log_normalizer(predictions, variance)
        rows = jax.lax.stop_gradient(2 * variance) * rows
        return labelled_mean(rows, mask, statistics.num_scores)

    def project(variables):
        return {"noise_scale": jnp.clip(variables["noise_scale"], smallest, _LARGEST_NOISE)}

    return TaskLoss(init, apply, project=project)


class Mixture(NamedTuple):
    """A mixture of Gaussians over scores.

    Attributes:
      weights: (C,) sum to 1.
      means: (C,)
      variances: (C,)
    """

    weights: np.ndarray
    means: np.ndarray
    variances: np.ndarray


def fit_mixture(
    scores: np.ndarray,
    num_components: int,
    *,
    floor: float = 1e-4,
    tolerance: float = 1e-6,
    iterations: int = 200,
) -> Mixture:
    """Fits a mixture of Gaussians to scores by expectation maximisation, from their quantiles.

    Args:
      scores: (N,) training scores.
      num_components: C.
      floor: added to every variance, so that a component may sit on one repeated score.
      tolerance: gain in mean log-likelihood at which it stops.
      iterations: at most so many.

    Raises:
      ValueError: there is no component, or no score.
    """
    if not isinstance(num_components, int) or num_components < 1:
        raise ValueError(f"num_components={num_components} must be an integer of at least 1")
    # Repeated scores once, with their counts: scored texts often have few distinct ones.
    points, counts = np.unique(check_training_scores(scores), return_counts=True)
    shares = counts / counts.sum()
    means = np.quantile(scores, (np.arange(num_components) + 0.5) / num_components)
    variances = np.full(num_components, np.var(scores) / num_components**2 + floor)
    weights = np.full(num_components, 1 / num_components)
    previous = -np.inf
    for _ in range(iterations):
        distances = (points[:, None] - means) ** 2
        logs = np.log(weights) - 0.5 * (np.log(2 * np.pi * variances) + distances / variances)
        totals = np.logaddexp.reduce(logs, axis=1)
        likelihood = shares @ totals
        if likelihood - previous < tolerance:
            break
        previous = likelihood
        # A component that lost all its points keeps a weight of almost nothing.
        taken = shares[:, None] * np.exp(logs - totals[:, None]) + 1e-15
        weights = taken.sum(axis=0) / taken.sum()
        means = points @ taken / taken.sum(axis=0)
        distances = (points[:, None] - means) ** 2
        variances = (taken * distances).sum(axis=0) / taken.sum(axis=0) + floor
    return Mixture(weights, means, variances)
