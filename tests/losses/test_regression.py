"""Squared error and label-distribution smoothing, against NumPy and SciPy."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from dwa_jax import losses
from dwa_jax.losses import regression
from tests.losses import cases

POWER = {"inverse": 1.0, "sqrt_inverse": 0.5}


def _reference(scores, num_bins, kernel_size, sigma, weight):
    # A score's weight, from SciPy's Gaussian filter of NumPy's histogram.
    counts, edges = np.histogram(scores, bins=num_bins, range=(-1, 1))
    reach = kernel_size // 2
    density = scipy.ndimage.gaussian_filter1d(
        counts.astype(float), sigma, mode="constant", truncate=reach / sigma
    )
    of_row = np.clip(np.digitize(scores, edges) - 1, 0, num_bins - 1)
    weights = density[of_row] ** -POWER[weight]
    return weights / weights.mean()


def _batch_of(scores):
    rows = len(scores)
    return {
        "score": jnp.asarray(scores, jnp.float32),
        "score_mask": jnp.ones(rows),
        "category": jnp.zeros(rows, int),
        "category_mask": jnp.zeros(rows),
    }


def test_mse_is_numpys_over_the_rows_with_a_score():
    batch, logits = cases.batch(6)
    there = np.asarray(batch["score_mask"]) > 0
    expected = ((np.asarray(logits)[there, 0] - np.asarray(batch["score"])[there]) ** 2).mean()
    value = cases.value(losses.mse_loss(), logits[:, :1], batch)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("num_bins", "kernel_size", "sigma", "weight"),
    [(50, 5, 2.0, "sqrt_inverse"), (20, 9, 1.5, "inverse"), (7, 11, 3.0, "inverse")],
)
def test_lds_weights_are_inverse_of_scipys_smoothed_histogram(num_bins, kernel_size, sigma, weight):
    labels = cases.labels()
    task = losses.lds_loss(
        labels=labels, num_bins=num_bins, kernel_size=kernel_size, sigma=sigma, weight=weight
    )
    weights = _reference(labels.scores, num_bins, kernel_size, sigma, weight)
    predictions = np.random.default_rng(0).uniform(-1, 1, len(weights))
    expected = (weights * (predictions - labels.scores) ** 2).mean()
    value = cases.value(task, jnp.asarray(predictions)[:, None], _batch_of(labels.scores))
    np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("weight", POWER)
def test_lds_weighs_one_in_the_mean_over_the_training_rows(weight):
    labels = cases.labels()
    off_by_a_half = jnp.asarray(labels.scores + 0.5)[:, None]
    value = cases.value(
        losses.lds_loss(labels=labels, weight=weight), off_by_a_half, _batch_of(labels.scores)
    )
    np.testing.assert_allclose(value, 0.25, rtol=1e-5)


def test_lds_without_smoothing_makes_every_occupied_bin_count_alike():
    counts = np.array([8, 0, 2, 1])
    weights = regression.density_weights(counts, kernel_size=1, weight="inverse")
    np.testing.assert_allclose((weights * counts)[[0, 2, 3]], 11 / 3)
    # A bin without training rows: no more than the largest of the others.
    assert weights[1] == weights[3]


def test_lds_of_scores_on_the_edges_of_bins_and_outside_the_training_scores():
    scores = np.array([-1.0, -0.6, -0.2, 0.2, 0.6, 1.0])  # five bins; 0.6 is no float32
    task = losses.lds_loss(
        labels=losses.Labels(np.ones(cases.K), np.repeat(scores, [1, 2, 3, 4, 5, 6])),
        num_bins=5,
        kernel_size=1,
        weight="inverse",
    )
    rows = [(-1.0, 1), (-0.6, 2), (-0.2, 3), (0.2, 4), (0.6, 11), (1.0, 11)]
    for score, count in rows:
        value = cases.value(task, jnp.array([[score + 1]]), _batch_of([score]))
        np.testing.assert_allclose(value, 21 / 5 / count, rtol=1e-5)
    narrow = losses.lds_loss(labels=losses.Labels(np.ones(cases.K), np.full(9, 0.5)))
    value = cases.value(narrow, jnp.array([[0.0]]), _batch_of([-1.0]))
    np.testing.assert_allclose(value, 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_bins": 1}, "num_bins=1 must be an integer of at least 2"),
        ({"num_bins": 2.5}, "num_bins=2.5 must be"),
        ({"kernel_size": 4}, "kernel_size=4 must be an odd integer"),
        ({"sigma": 0.0}, "sigma=0.0 must be a finite number above 0"),
        ({"weight": "log"}, "weight='log' is not one of inverse, sqrt_inverse"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        losses.lds_loss(labels=cases.labels(), **options)
