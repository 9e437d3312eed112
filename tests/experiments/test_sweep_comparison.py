"""Comparisons with a baseline: against closed forms, brute force and simulated truths."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from dwa_jax import metrics
from experiments.sweeps import comparison
from experiments.sweeps.comparison import SeedPredictions, compare, holm


def _bins(scores):
    return np.where(np.isnan(scores), -1, np.digitize(scores, comparison.COMMON_THRESHOLDS, True))


def _predictions(score, predicted, texts=None, category=None, predicted_category=None):
    score, predicted = np.asarray(score, float), np.asarray(predicted, float)
    common, found = _bins(score), _bins(predicted)
    return SeedPredictions(
        texts=texts or [f"text {i}" for i in range(len(score))],
        score=score,
        predicted_score=predicted,
        category=common if category is None else category,
        predicted_category=found if predicted_category is None else predicted_category,
        common_category=common,
        common_predicted=found,
    )


def _pair(random, rows, shift=0.05, texts=None):
    score = random.uniform(-1, 1, rows)
    first = _predictions(score, score + 0.3 * random.normal(size=rows), texts)
    second = _predictions(score, score + shift + 0.3 * random.normal(size=rows), texts)
    return first, second


def _by_metric(entries):
    return {entry["metric"]: entry for entry in entries}


def test_with_one_seed_a_mean_has_the_intervals_of_normal_theory():
    first, second = _pair(np.random.default_rng(0), 1500, shift=0.1)
    found = _by_metric(compare({3: first}, {3: second}))["mse"]
    gaps = (second.predicted_score - second.score) ** 2 - (first.predicted_score - first.score) ** 2
    error = gaps.std() / math.sqrt(len(gaps))
    assert found["difference"] == pytest.approx(gaps.mean())
    assert found["low"] == pytest.approx(gaps.mean() - 1.96 * error, abs=0.06 * error)
    assert found["high"] == pytest.approx(gaps.mean() + 1.96 * error, abs=0.06 * error)
    expected = 2 * stats.norm.sf(abs(gaps.mean()) / error)
    assert 0.001 < expected < 0.5
    assert found["p"] == pytest.approx(expected, rel=0.2, abs=0.004)
    assert found["seeds"] == [3] and found["by_seed"] == [found["difference"]]


def test_differences_are_those_of_the_metrics_over_all_rows():
    # Seeds of unlike size, texts that come back within a seed and across seeds, missing labels.
    random = np.random.default_rng(1)
    baseline, other = {}, {}
    for seed, rows in ((0, 40), (1, 70), (5, 25)):
        texts = [f"text {i}" for i in random.integers(0, 50, rows)]
        first, second = _pair(random, rows, texts=texts)
        for one in (first, second):
            for values, missing in zip(one[1:], (np.nan, np.nan, -1, -1, -1, -1), strict=True):
                values[:3] = missing
        baseline[seed], other[seed] = first, second
    found = _by_metric(compare(baseline, other, resamples=200))

    def evaluated(predictions):
        joined = [np.concatenate([p[i] for p in predictions]) for i in range(1, 7)]
        score, predicted, category, predicted_category, common, common_predicted = joined
        kept = common >= 0
        own = metrics.evaluate(
            score[kept], predicted[kept], category[kept], predicted_category[kept], 5
        )
        shared = metrics.evaluate(
            score[kept], predicted[kept], common[kept], common_predicted[kept], 5
        )
        return {
            "mse": own["mse"],
            "balanced_mse": shared["balanced_mse"],
            "accuracy_common": shared["accuracy"],
            "accuracy": own["accuracy"],
        }

    assert list(found) == ["mse", "balanced_mse", "accuracy_common", "accuracy"]
    for groups, pick in (
        ([0, 1, 5], lambda entry: entry["difference"]),
        ([1], lambda entry: entry["by_seed"][1]),
    ):
        before = evaluated([baseline[seed] for seed in groups])
        after = evaluated([other[seed] for seed in groups])
        for name, entry in found.items():
            assert pick(entry) == pytest.approx(after[name] - before[name], abs=1e-12), name


def test_the_order_of_rows_does_not_matter():
    first, second = _pair(np.random.default_rng(2), 60)
    order = np.random.default_rng(3).permutation(60)

    def turned(one):
        texts = [one.texts[i] for i in order]
        return SeedPredictions(texts, *(values[order] for values in one[1:]))

    straight = compare({0: first}, {0: second}, resamples=300)
    shuffled = compare({0: turned(first)}, {0: turned(second)}, resamples=300)
    for ours, theirs in zip(straight, shuffled, strict=True):
        for key in ("difference", "low", "high", "p"):
            assert ours[key] == pytest.approx(theirs[key])


def test_resampled_means_have_the_variance_of_two_crossed_multinomials():
    random = np.random.default_rng(4)
    seeds, texts = 5, 40
    x = random.normal(size=(seeds, 1)) + random.normal(size=(1, texts))
    x = x + random.normal(size=(seeds, texts))
    totals = np.stack([x, np.ones_like(x)], axis=-1)
    draws = comparison._mean_of_ratios(comparison._resample(totals, 40_000, 0))
    # E[W_i W_j] of a multinomial of n in n cells is 1 - 1/n, and 1 more on the diagonal.
    of_seeds = 1 - 1 / seeds + np.eye(seeds)
    of_texts = 1 - 1 / texts + np.eye(texts)
    square = np.einsum("st,uv,su,tv->", x, x, of_seeds, of_texts) / (seeds * texts) ** 2
    assert draws.mean() == pytest.approx(x.mean(), abs=0.01)
    assert draws.var() == pytest.approx(square - x.mean() ** 2, rel=0.03)


def test_a_text_met_by_every_seed_is_still_one_text():
    first, second = _pair(np.random.default_rng(5), 300)
    shared = compare(dict.fromkeys(range(5), first), dict.fromkeys(range(5), second))
    apart = [
        {s: one._replace(texts=[f"{s} {t}" for t in one.texts]) for s in range(5)}
        for one in (first, second)
    ]
    distinct = compare(*apart)
    widths = [entries[0]["high"] - entries[0]["low"] for entries in (shared, distinct)]
    # Of equal seeds, given their weights W, the variance is sum W^2 / S^2 of one seed's, and
    # E[W^2] = 2 - 1/S.
    assert widths[0] / widths[1] == pytest.approx(math.sqrt(5 / 1.8), rel=0.05)


@pytest.mark.parametrize(("share", "expected"), [(1.0, 0.84), (0.5, 0.92)])
def test_coverage_with_five_seeds_is_what_the_docstring_says(share, expected):
    random = np.random.default_rng(6)
    seeds, texts, rounds, held = 5, 60, 600, 0
    for i in range(rounds):
        x = math.sqrt(share * seeds) * random.normal(size=(seeds, 1))
        x = x + math.sqrt((1 - share) * texts) * random.normal(size=(1, texts))
        totals = np.stack([x, np.ones_like(x)], axis=-1)
        draws = comparison._mean_of_ratios(comparison._resample(totals, 400, i))
        low, high = np.quantile(draws, (0.025, 0.975))
        held += low <= 0 <= high
    # Four standard errors of a share of 600.
    assert held / rounds == pytest.approx(expected, abs=4 * math.sqrt(0.84 * 0.16 / rounds))


def test_equal_methods_differ_by_nothing():
    first, _ = _pair(np.random.default_rng(7), 50)
    for entry in compare({0: first, 1: first}, {0: first, 1: first}, resamples=100):
        assert (entry["difference"], entry["low"], entry["high"], entry["p"]) == (0, 0, 0, 1)


def test_a_difference_in_every_row_has_the_least_p_that_the_resamples_can_show():
    score = np.random.default_rng(8).uniform(-1, 1, 50)
    first, second = _predictions(score, score), _predictions(score, score + 0.1)
    found = _by_metric(compare({0: first, 1: first}, {0: second, 1: second}, resamples=999))["mse"]
    assert found["difference"] == pytest.approx(0.01)
    assert found["p"] == pytest.approx(2 / 1000)


def test_accuracy_is_left_out_where_one_seed_has_other_labels():
    random = np.random.default_rng(9)
    (a, b), (c, d) = _pair(random, 30), _pair(random, 30)
    assert "accuracy" in _by_metric(compare({0: a, 1: c}, {0: b, 1: d}, resamples=50))
    d = d._replace(category=4 - d.category)
    found = _by_metric(compare({0: a, 1: c}, {0: b, 1: d}, resamples=50))
    assert list(found) == ["mse", "balanced_mse", "accuracy_common"]


def test_a_method_without_categories_is_compared_by_its_scores():
    first, second = _pair(np.random.default_rng(10), 30)
    second = second._replace(predicted_category=np.full(30, -1))
    found = compare({0: first}, {0: second}, resamples=50)
    assert [entry["metric"] for entry in found] == ["mse", "balanced_mse", "accuracy_common"]


def test_a_missing_prediction_is_not_passed_over():
    random = np.random.default_rng(11)
    (a, b), (c, d) = _pair(random, 30), _pair(random, 30)
    d.predicted_score[4] = np.nan
    found = _by_metric(compare({0: a, 1: c}, {0: b, 1: d}, resamples=50))
    for name in ("mse", "balanced_mse"):
        entry = found[name]
        assert [entry[key] for key in ("difference", "low", "high", "p")] == [None] * 4
        assert entry["by_seed"][0] is not None and entry["by_seed"][1] is None
    # The categories are all there.
    assert found["accuracy"]["low"] <= found["accuracy"]["difference"] <= found["accuracy"]["high"]


def test_only_seeds_that_both_have_are_compared():
    random = np.random.default_rng(12)
    (a, b), (c, d) = _pair(random, 30), _pair(random, 30)
    found = compare({0: a, 1: c, 2: a}, {7: b, 1: d}, resamples=50)
    assert all(entry["seeds"] == [1] for entry in found)
    with pytest.raises(ValueError, match=r"no seed in common: the baseline has \[0\].*\[1\]"):
        compare({0: a}, {1: d})


def test_rows_that_do_not_pair_are_refused():
    first, second = _pair(np.random.default_rng(13), 30)
    with pytest.raises(ValueError, match="seed 2: the methods have 30 and 29 test rows"):
        shorter = SeedPredictions(second.texts[:-1], *(values[:-1] for values in second[1:]))
        compare({2: first}, {2: shorter})
    with pytest.raises(ValueError, match=r"seed 2: texts\[0\] is 'text 0' .* 'other'"):
        compare({2: first}, {2: second._replace(texts=["other", *second.texts[1:]])})
    with pytest.raises(ValueError, match=r"seed 2: score\[0\]"):
        compare({2: first}, {2: second._replace(score=second.score + 0.01)})


def test_holm_on_the_example_that_encyclopedias_give():
    # p = 0.01, 0.04, 0.03, 0.005 at 0.05: the first and the fourth are rejected, no other.
    adjusted = holm([0.01, 0.04, 0.03, 0.005])
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_is_the_closure_of_bonferroni():
    # Closed testing: a hypothesis falls if every intersection that holds it falls.
    random = np.random.default_rng(14)
    for size in range(1, 7):
        p = (random.uniform(size=size) ** 2).round(2).tolist()
        expected = [
            max(
                min(1.0, len(others) * min(p[j] for j in others))
                for n in range(1, size + 1)
                for others in itertools.combinations(range(size), n)
                if i in others
            )
            for i in range(size)
        ]
        assert holm(p) == pytest.approx(expected)


def test_holm_counts_only_what_was_tested():
    assert holm([0.01, None, 0.04]) == [*holm([0.01, 0.04])[:1], None, holm([0.01, 0.04])[1]]
    assert holm([]) == []
    with pytest.raises(ValueError, match=r"p_values\[1\] is 1.5"):
        holm([0.1, 1.5])
