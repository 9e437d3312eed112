"""Balanced MSE against sums by hand, numerical integration and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import sklearn.mixture

from dwa_jax import losses
from dwa_jax.losses import balanced_mse
from tests.losses import cases

pytestmark = pytest.mark.slow

EVEN = losses.Labels(np.ones(cases.K), (np.arange(4000) + 0.5) / 2000 - 1)


def _by_definition(predictions, scores, sigma, density, points=None):
    # 2 sigma^2 (-log N(y; m, sigma^2) + log of the integral of N(y'; m, sigma^2) p(y')).
    rows = []
    for m, y in zip(predictions, scores, strict=True):
        gaussian = scipy.stats.norm(m, sigma)
        integral, _ = scipy.integrate.quad(
            lambda t, g=gaussian: g.pdf(t) * density(t), -2.5, 2.5, points=points, limit=500
        )
        rows.append(2 * sigma**2 * (np.log(integral) - gaussian.logpdf(y)))
    return np.mean(rows)


def _rows(rows=5):
    batch, logits = cases.batch(2, rows=rows)
    batch["score_mask"] = jnp.ones(rows)
    return batch, np.asarray(logits[:, 0], np.float64) / 2, np.asarray(batch["score"], np.float64)


@pytest.mark.parametrize("sigma", [0.05, 0.3, 0.9])
def test_bins_are_a_sum_over_the_histogram(sigma):
    batch, predictions, scores = _rows()
    labels = cases.labels()
    counts, edges = np.histogram(labels.scores, bins=40, range=(-1, 1))
    centres = (edges[1:] + edges[:-1]) / 2
    expected = 0.0
    for m, y in zip(predictions, scores, strict=True):
        balance = sum(
            n / counts.sum() * np.exp(-((c - m) ** 2) / (2 * sigma**2))
            for n, c in zip(counts, centres, strict=True)
        )
        expected += (y - m) ** 2 + 2 * sigma**2 * np.log(balance)
    task = losses.balanced_mse_loss(labels=labels, num_bins=40, noise_scale=sigma)
    value = cases.value(task, jnp.asarray(predictions)[:, None], batch)
    np.testing.assert_allclose(value, expected / len(scores), rtol=1e-4, atol=1e-6)


def test_bins_stand_for_the_integral_over_the_histograms_density():
    batch, predictions, scores = _rows()
    labels = cases.labels()
    counts, edges = np.histogram(labels.scores, bins=40, range=(-1, 1))

    def density(t):
        inside = counts[min(int((t + 1) * 20), 39)] if -1 <= t < 1 else 0
        return inside / counts.sum() * 20

    expected = _by_definition(predictions, scores, 0.3, density, points=edges)
    # The midpoint rule over bins of width h is off by about h^2 / 24 times the Gaussian's
    # second derivative, 1 / sigma^2, and the loss has the factor 2 sigma^2.
    task = losses.balanced_mse_loss(labels=labels, num_bins=40, noise_scale=0.3)
    value = cases.value(task, jnp.asarray(predictions)[:, None], batch)
    np.testing.assert_allclose(value, expected, rtol=0, atol=0.05**2 / 12)


@pytest.mark.parametrize("sigma", [0.05, 0.4])
def test_the_mixtures_closed_form_is_the_integral(sigma):
    batch, predictions, scores = _rows()
    labels = cases.labels()
    mixture = balanced_mse.fit_mixture(labels.scores, 3)

    def density(t):
        return mixture.weights @ scipy.stats.norm.pdf(t, mixture.means, mixture.variances**0.5)

    expected = _by_definition(
        predictions, scores, sigma, density, points=[*predictions, *mixture.means]
    )
    task = losses.balanced_mse_gai_loss(labels=labels, num_components=3, noise_scale=sigma)
    value = cases.value(task, jnp.asarray(predictions)[:, None], batch)
    np.testing.assert_allclose(value, expected, rtol=1e-4)


@pytest.mark.parametrize("sigma", [0.02, 0.05])
def test_where_scores_are_even_it_is_the_squared_error_and_a_constant(sigma):
    # Far from the ends: the sum is the Gaussian's whole integral whatever the prediction.
    batch, _, scores = _rows()
    batch["score"] = jnp.asarray(scores / 2)
    predictions = jnp.linspace(-0.6, 0.6, 5)[:, None]
    task = losses.balanced_mse_loss(labels=EVEN, num_bins=200, noise_scale=sigma)
    constant = 2 * sigma**2 * np.log(np.sqrt(2 * np.pi) * sigma / 2)
    expected = cases.value(losses.mse_loss(), predictions, batch)
    value = cases.value(task, predictions, batch)
    np.testing.assert_allclose(value - constant, expected, rtol=1e-4)
    gradients = [
        jax.jit(jax.grad(lambda x, t=task: cases.value(t, x, batch)))(predictions)
        for task in (task, losses.mse_loss())
    ]
    np.testing.assert_allclose(*gradients, atol=1e-4)


def test_it_asks_for_predictions_further_from_where_scores_are_frequent():
    # With one Gaussian of variance v around mu as density, a score y is likeliest under the
    # prediction y + (y - mu) sigma^2 / v, beyond y as seen from mu.
    labels = cases.labels()
    mixture = balanced_mse.fit_mixture(labels.scores, 1)
    batch, _, scores = _rows()
    sigma = 0.2
    best = scores + (scores - mixture.means[0]) * sigma**2 / mixture.variances[0]
    task = losses.balanced_mse_gai_loss(labels=labels, num_components=1, noise_scale=sigma)
    gradient = jax.jit(jax.grad(lambda x: cases.value(task, x, batch)))
    np.testing.assert_allclose(gradient(jnp.asarray(best)[:, None]), 0, atol=1e-6)
    assert np.abs(gradient(jnp.asarray(scores)[:, None])).min() > 1e-3


@pytest.mark.parametrize("name", ["balanced_mse", "balanced_mse_gai"])
def test_the_noise_scale_descends_on_the_likelihood_at_the_scale_of_the_squared_error(name):
    with jax.enable_x64(True):
        batch, predictions, _ = _rows()
        outputs, sigma, h = jnp.asarray(predictions)[:, None], 0.3, 1e-6
        task = cases.make(losses.REGRESSION_LOSSES[name], noise_scale=sigma)

        def likelihood(s):
            return cases.value(task, outputs, batch, noise_scale=s) / (2 * s**2)

        numeric = (likelihood(sigma + h) - likelihood(sigma - h)) / (2 * h) * 2 * sigma**2
        exact = jax.jit(jax.grad(lambda s: cases.value(task, outputs, batch, noise_scale=s)))(sigma)
        np.testing.assert_allclose(exact, numeric, rtol=1e-6)


@pytest.mark.parametrize("name", ["balanced_mse", "balanced_mse_gai"])
def test_the_noise_scale_learned_is_that_of_the_scores(name):
    # Scores are a uniform signal and Gaussian noise, and the predictions are the signal.
    rng = np.random.default_rng(0)
    signal, noise = rng.uniform(-0.6, 0.6, 3000), rng.normal(0, 0.1, 3000)
    task = cases.make(
        losses.REGRESSION_LOSSES[name], losses.Labels(np.ones(cases.K), signal + noise)
    )
    batch, _ = cases.batch(rows=3000)
    batch |= {"score": jnp.asarray(signal + noise), "score_mask": jnp.ones(3000)}

    @jax.jit
    def descend(variables):
        gradient = jax.grad(task.apply)(
            variables, jnp.asarray(signal)[:, None], batch, cases.statistics(batch)
        )
        return task.project(jax.tree.map(lambda v, g: v - 0.3 * g, variables, gradient))

    variables = task.init()
    for _ in range(60):
        variables = descend(variables)
    # The signal ends at 0.6, so it is not quite the uniform density that is assumed.
    assert variables["noise_scale"] == pytest.approx(0.1, rel=0.15)


def test_the_noise_scale_stays_within_its_bounds():
    bins = losses.balanced_mse_loss(labels=cases.labels(), num_bins=40)
    assert bins.project({"noise_scale": jnp.asarray(-1.0)})["noise_scale"] == pytest.approx(0.05)
    assert bins.project({"noise_scale": jnp.asarray(7.0)})["noise_scale"] == 1
    assert bins.project({"noise_scale": jnp.asarray(0.3)})["noise_scale"] == pytest.approx(0.3)
    mixture = losses.balanced_mse_gai_loss(labels=cases.labels())
    assert mixture.project({"noise_scale": jnp.asarray(0.0)})["noise_scale"] == pytest.approx(0.01)
    with pytest.raises(ValueError, match=r"noise_scale=0.01 must start within \[0.05, 1.0\]"):
        losses.balanced_mse_loss(labels=cases.labels(), num_bins=40, noise_scale=0.01)
    with pytest.raises(ValueError, match=r"balanced_mse_gai: noise_scale=2.0 must start within"):
        losses.balanced_mse_gai_loss(labels=cases.labels(), noise_scale=2.0)
    with pytest.raises(ValueError, match="num_components=0 must be an integer of at least 1"):
        losses.balanced_mse_gai_loss(labels=cases.labels(), num_components=0)


def test_the_mixture_is_as_likely_as_scikit_learns():
    rng = np.random.default_rng(3)
    scores = np.concatenate([rng.normal(-0.5, 0.1, 300), rng.normal(0.3, 0.2, 900)])
    mixture = balanced_mse.fit_mixture(scores, 2)
    reference = sklearn.mixture.GaussianMixture(2, random_state=0, n_init=3, tol=1e-6)
    expected = reference.fit(scores[:, None]).score(scores[:, None])
    densities = scipy.stats.norm.pdf(scores[:, None], mixture.means, mixture.variances**0.5)
    assert np.log(densities @ mixture.weights).mean() == pytest.approx(expected, abs=1e-3)
    np.testing.assert_allclose(np.sort(mixture.means), [-0.5, 0.3], atol=0.03)
    assert mixture.weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("scores", [[0.5], [0.5] * 20, [-1.0, 0.0, 1.0] * 5])
def test_the_mixture_of_fewer_scores_than_components_is_finite(scores):
    mixture = balanced_mse.fit_mixture(np.array(scores), 8)
    assert all(np.isfinite(part).all() for part in mixture)
    task = losses.balanced_mse_gai_loss(labels=losses.Labels(np.ones(cases.K), np.array(scores)))
    batch, logits = cases.batch(0)
    value, gradient = jax.jit(jax.value_and_grad(lambda x: cases.value(task, x, batch)))(
        logits[:, :1]
    )
    assert np.isfinite(value) and np.isfinite(gradient).all()
