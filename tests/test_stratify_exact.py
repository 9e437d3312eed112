"""The exact solver against searches that know nothing of it; balance, notes, speed.

Axes: N scores, K categories.
"""

import time
import warnings

import numpy as np
import pytest

from dwa_jax import stratify
from tests.test_stratify import FEW, SHAPES, read_scores, synthetic

pytestmark = pytest.mark.slow

REAL = ("semeval_headlines", "vader_tweets", "vader_amazon", "vader_movies")


class Objective:
    """Equation 1 from its definition, by sums over distinct scores."""

    def __init__(self, scores, spacing_penalty):
        self.values, self.counts = np.unique(scores, return_counts=True)
        self.size, self.penalty = len(scores), spacing_penalty

    def __call__(self, thresholds):
        k = len(thresholds) + 1
        category = np.searchsorted(thresholds, self.values)
        count = np.bincount(category, self.counts, k)
        mean = np.bincount(category, self.counts * self.values, k) / np.maximum(count, 1)
        error = self.counts @ np.square(self.values - mean[category])
        return error / self.size + self.penalty * np.sum((np.diff(thresholds) - 2 / (k - 1)) ** 2)


def search(objective, start, rng, tries):
    """Random moves of some of the thresholds at all scales, kept where they help."""
    best, lowest = start, objective(start)
    for _ in range(tries):
        moved = rng.random(start.size) < 0.6
        common = rng.random() < 0.3
        step = rng.normal(size=1 if common else start.size) * 10 ** rng.uniform(-6, -0.7)
        tried = np.sort(best + moved * step)
        if tried[0] > -1 and tried[-1] < 1 and np.all(np.diff(tried) > 0):
            found = objective(tried)
            if found < lowest:
                best, lowest = tried, found
    return lowest


def check_no_search_goes_lower(scores, num_classes, spacing_penalty, tries):
    rng = np.random.default_rng(0)
    exact = stratify.das(scores, num_classes, spacing_penalty=spacing_penalty, solver="exact")
    objective = Objective(scores, spacing_penalty)
    lowest = objective(exact)
    assert lowest == pytest.approx(
        stratify.das_objective(exact, scores, spacing_penalty=spacing_penalty), rel=1e-9
    )
    starts = [exact, stratify.das(scores, num_classes, spacing_penalty=spacing_penalty)]
    starts.append(stratify.fit("equal_width", scores, num_classes))
    starts += [np.sort(rng.uniform(-0.95, 0.95, num_classes - 1)) for _ in range(4)]
    for start in starts:
        assert search(objective, start, rng, tries) >= lowest - 1e-6


@pytest.mark.parametrize("spacing_penalty", [0, 0.02, 0.1, 0.3])
@pytest.mark.parametrize("name", REAL)
@pytest.mark.filterwarnings(FEW)
def test_no_random_search_goes_below_exact_on_real_scores(name, spacing_penalty):
    check_no_search_goes_lower(read_scores(name), 5, spacing_penalty, 400)


@pytest.mark.parametrize("num_classes", [2, 3, 5])
@pytest.mark.parametrize("shape", [*SHAPES, "ends"])
@pytest.mark.filterwarnings(FEW)
def test_no_random_search_goes_below_exact(shape, num_classes):
    values = [-1, -0.5, 0, 0.2, 0.7, 1]
    scores = np.repeat(values, [9, 1, 80, 3, 3, 4]) if shape == "ends" else synthetic(shape)
    for spacing_penalty in (0, 0.02, 0.1, 0.3):
        check_no_search_goes_lower(scores, num_classes, spacing_penalty, 120)


def test_exact_thresholds_lie_where_the_spacing_wants_them_between_the_scores():
    # A gap of 1 costs nothing here, and leaves the middle of the room between -1, 0 and 1.
    found = stratify.das([-1, -1, 0, 0, 1, 1], 3, spacing_penalty=0.3, solver="exact")
    np.testing.assert_allclose(found, [-0.5, 0.5], atol=1e-6)
    # Between -1, -0.5 and 0 gaps up to 1 have room: both thresholds go as far as the scores let.
    scores = [-1, -1, -0.5, -0.5, 0, 0]
    found = stratify.das(scores, 3, spacing_penalty=0.01, solver="exact")
    np.testing.assert_allclose(found, [-1, 0], atol=1e-6)
    np.testing.assert_array_equal(stratify.stratum_counts(scores, found), [2, 2, 2])


@pytest.mark.parametrize("solver", ["descent", "exact"])
def test_thresholds_keep_their_categories_in_single_precision(solver):
    scores = read_scores("vader_tweets")
    for spacing_penalty in (0, 0.01, 0.3):
        found = stratify.das(scores, 5, spacing_penalty=spacing_penalty, solver=solver)
        np.testing.assert_array_equal(
            stratify.categorize(scores.astype(np.float32), found),
            stratify.categorize(scores, found),
        )


@pytest.mark.parametrize("solver", ["descent", "exact"])
@pytest.mark.parametrize("name", ["semeval_headlines", "vader_tweets"])
def test_the_default_penalty_keeps_real_categories_within_four_to_one(name, solver):
    from configs import base

    penalty = float(base.get_config().stratifier.removeprefix("das(spacing_penalty=").rstrip(")"))
    scores = read_scores(name)
    thresholds = stratify.das(scores, 5, spacing_penalty=penalty, solver=solver)
    balance = stratify.balance(scores, thresholds)
    assert balance.counts.sum() == scores.size
    assert balance.ratio == balance.counts.max() / balance.counts.min() <= 4
    assert balance.ratio < stratify.balance(scores, [-0.6, -0.2, 0.2, 0.6]).ratio


def test_balance_of_an_empty_category_is_infinite():
    found = stratify.balance([-0.9, -0.9, 0.5], [-0.5, 0.0])
    np.testing.assert_array_equal(found.counts, [2, 0, 1])
    assert found.ratio == np.inf


@pytest.mark.parametrize("solver", ["descent", "exact"])
def test_narrow_scores_that_leave_a_category_empty_are_told_of(solver):
    scores = synthetic("narrow")
    with pytest.warns(UserWarning, match=r"das leaves a category with 0 of 1500 .*penalty=0\.1"):
        stratify.das(scores, 5, spacing_penalty=0.1, solver=solver)
    with pytest.warns(UserWarning, match="das leaves a category with 1 of 13 .* 5, 1, 7"):
        stratify.das([-0.5] * 5 + [0.0] + [0.5] * 7, 3, spacing_penalty=0.0, solver=solver)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stratify.das(scores, 5, spacing_penalty=0.0, solver=solver)


@pytest.mark.parametrize("solver", ["descent", "exact"])
def test_fifty_categories_or_a_million_scores_take_no_five_seconds(solver):
    rng = np.random.default_rng(0)
    scores = np.clip(rng.normal(0.1, 0.4, 4000), -1, 1)
    many = rng.uniform(-1, 1, 1_000_000)
    for given, num_classes in ((scores, 50), (many, 5)):
        began = time.process_time()
        stratify.das(given, num_classes, spacing_penalty=0.01, solver=solver)
        assert time.process_time() - began < 5
