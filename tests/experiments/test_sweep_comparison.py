"""Comparisons with a baseline: against closed forms, brute force and simulated truths."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from dwa_jax import metrics
from dwa_jax.multiple_tests import holm
from experiments.sweeps import comparison
from experiments.sweeps.comparison import SeedPredictions, compare


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


def _texts_of_seeds(random, pool, rows, seeds):
    """(S, rows) which of the pool's texts each seed's split tests, as a sweep's splits do."""
    return np.stack([random.permutation(pool)[:rows] for _ in range(seeds)])


# Texts in the file, and in a test split: what two seeds share is their quotient.
HEADLINES, TWEETS = (939, 188), (4200, 500)


def _simulate(random, rounds, share, lasting, *, design=HEADLINES, seeds=10, methods=1):
    """Differences to a baseline that is as good: (rounds, methods, S) and their shared covariance.

    `share` of a difference's variance is the seed's; of the rest, `lasting` is a text's own and
    the same in every seed, what remains is of a seed and a text together. Rows have the heavy
    tails of differences between squared errors.
    """
    pool, rows = design
    texts = _texts_of_seeds(random, pool, rows, seeds)
    shape = (rounds, methods + 1)
    own = math.sqrt(share) * random.normal(size=(*shape, seeds))

    def heavy(*size):
        return random.normal(size=size) * random.normal(size=size)

    by_row = np.zeros((*shape, seeds, rows))
    if lasting:
        by_row += math.sqrt((1 - share) * lasting * rows) * heavy(*shape, pool)[..., texts]
    if lasting < 1:
        by_row += math.sqrt((1 - share) * (1 - lasting) * rows) * heavy(*shape, seeds, rows)
    by_row = by_row[:, 1:] - by_row[:, :1]
    means = by_row.mean(axis=-1)
    influence = np.zeros((rounds, methods, seeds, pool))
    for s in range(seeds):
        influence[:, :, s, texts[s]] = (by_row[:, :, s] - means[:, :, s, None]) / rows
    return means + own[:, 1:] - own[:, :1], comparison.shared_covariance(influence)


@pytest.mark.parametrize(
    ("share", "lasting"),
    [(s, 0.0) for s in (0.05, 0.5, 0.95)] + [(s, 1.0) for s in (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)],
)
def test_intervals_hold_the_truth_as_often_as_they_say(share, lasting):
    random, held = np.random.default_rng(6), []
    for _ in range(4):  # as many splits
        found = comparison.mean_interval(*_simulate(random, 300, share, lasting))
        held += ((found.low <= 0) & (found.high >= 0)).ravel().tolist()
        assert ((found.p < 0.05) == ((found.low > 0) | (found.high < 0))).all()
    assert 0.93 <= np.mean(held) <= 0.97


def test_a_plain_t_test_would_not_where_texts_are_hard_in_every_seed():
    by_seed, shared = _simulate(np.random.default_rng(7), 400, 0.05, 1.0)
    plain = comparison.mean_interval(by_seed)
    assert np.mean((plain.low <= 0) & (plain.high >= 0)) < 0.85
    assert (shared > 0).all()


@pytest.mark.parametrize(("share", "lasting"), [(0.05, 1.0), (0.95, 0.0)])
def test_seventeen_methods_that_are_as_good_are_seldom_told_apart(share, lasting):
    random, any_marked = np.random.default_rng(8), []
    for _ in range(8):
        by_seed, shared = _simulate(random, 25, share, lasting, methods=17)
        for p in comparison.mean_interval(by_seed, shared).p:
            any_marked.append(min(holm(p.tolist())) < comparison.LEVEL)
    assert np.mean(any_marked) <= 0.05


def test_the_stated_power_is_what_simulated_sweeps_have():
    # 17 methods on two datasets: the first step of Holm is at .05 / 34.
    shift = comparison.detectable(10, 34, power=0.8)
    by_seed = shift + np.random.default_rng(9).normal(size=(4000, 10))
    found = np.mean(comparison.mean_interval(by_seed).p < 0.05 / 34)
    assert found == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / 4000))


def test_without_shared_texts_it_is_the_paired_t_test_over_seeds():
    random = np.random.default_rng(0)
    by_seed = random.normal(0.3, 1, 10)
    found = comparison.mean_interval(by_seed)
    expected = stats.ttest_1samp(by_seed, 0)
    low, high = expected.confidence_interval(0.95)
    assert (found.low, found.high, found.p) == pytest.approx((low, high, expected.pvalue))


def test_what_seeds_share_is_the_covariance_over_the_texts_of_both():
    random = np.random.default_rng(1)
    (a, b), (c, d) = (_pair(random, 30, texts=[f"{i}" for i in range(o, o + 30)]) for o in (0, 20))
    gaps = [np.square(y.predicted_score - y.score) - np.square(x.predicted_score - x.score)
            for x, y in ((a, b), (c, d))]  # fmt: skip
    centred = [gap - gap.mean() for gap in gaps]
    # Rows 20 to 29 of the first are rows 0 to 9 of the second.
    covariance = max(centred[0][20:] @ centred[1][:10] / 30**2, 0)
    expected = comparison.mean_interval([gap.mean() for gap in gaps], covariance)
    found = _by_metric(compare({0: a, 1: c}, {0: b, 1: d}))["mse"]
    assert (found["low"], found["high"], found["p"]) == pytest.approx(tuple(map(float, expected)))


def test_one_seed_has_a_difference_and_no_interval():
    first, second = _pair(np.random.default_rng(2), 30)
    for entry in compare({3: first}, {3: second}):
        assert entry["difference"] == entry["by_seed"][0] != 0
        assert (entry["low"], entry["high"], entry["p"], entry["seeds"]) == (None, None, None, [3])


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
    found = _by_metric(compare(baseline, other))

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
            "balanced_accuracy": np.nanmean(own["accuracy_by_class"]),
        }

    assert list(found) == [*evaluated(list(baseline.values())[:1])]
    for i, seed in enumerate((0, 1, 5)):
        before, after = evaluated([baseline[seed]]), evaluated([other[seed]])
        for name, entry in found.items():
            assert entry["by_seed"][i] == pytest.approx(after[name] - before[name], abs=1e-12)
    for entry in found.values():
        assert entry["difference"] == pytest.approx(np.mean(entry["by_seed"]))


def test_the_order_of_rows_does_not_matter():
    first, second = _pair(np.random.default_rng(2), 60)
    order = np.random.default_rng(3).permutation(60)

    def turned(one):
        texts = [one.texts[i] for i in order]
        return SeedPredictions(texts, *(values[order] for values in one[1:]))

    straight = compare({0: first}, {0: second})
    shuffled = compare({0: turned(first)}, {0: turned(second)})
    for ours, theirs in zip(straight, shuffled, strict=True):
        for key in ("difference", "low", "high", "p"):
            assert ours[key] == pytest.approx(theirs[key])


def test_equal_methods_differ_by_nothing():
    first, _ = _pair(np.random.default_rng(7), 50)
    for entry in compare({0: first, 1: first}, {0: first, 1: first}):
        assert (entry["difference"], entry["low"], entry["high"], entry["p"]) == (0, 0, 0, 1)


def test_accuracy_is_left_out_where_one_seed_has_other_labels():
    random = np.random.default_rng(9)
    (a, b), (c, d) = _pair(random, 30), _pair(random, 30)
    assert "accuracy" in _by_metric(compare({0: a, 1: c}, {0: b, 1: d}))
    d = d._replace(category=4 - d.category)
    found = _by_metric(compare({0: a, 1: c}, {0: b, 1: d}))
    assert list(found) == ["mse", "balanced_mse", "accuracy_common"]


def test_a_method_without_categories_is_compared_by_its_scores():
    first, second = _pair(np.random.default_rng(10), 30)
    second = second._replace(predicted_category=np.full(30, -1))
    found = compare({0: first}, {0: second})
    assert [entry["metric"] for entry in found] == ["mse", "balanced_mse", "accuracy_common"]


def test_a_missing_prediction_is_not_passed_over():
    random = np.random.default_rng(11)
    (a, b), (c, d) = _pair(random, 30), _pair(random, 30)
    d.predicted_score[4] = np.nan
    found = _by_metric(compare({0: a, 1: c}, {0: b, 1: d}))
    for name in ("mse", "balanced_mse"):
        entry = found[name]
        assert [entry[key] for key in ("difference", "low", "high", "p")] == [None] * 4
        assert entry["by_seed"][0] is not None and entry["by_seed"][1] is None
    # The categories are all there.
    assert found["accuracy"]["low"] <= found["accuracy"]["difference"] <= found["accuracy"]["high"]


def test_only_seeds_that_both_have_are_compared():
    random = np.random.default_rng(12)
    (a, b), (c, d) = _pair(random, 30), _pair(random, 30)
    found = compare({0: a, 1: c, 2: a}, {7: b, 1: d})
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


def test_the_whole_report_is_one_family_and_the_same_method_counts_once():
    def entry(method, p, dataset="a", metric="mse", same_as=None):
        keys = {"dataset": dataset, "backbone": "b", "method": method, "metric": metric}
        return {**keys, "p": p, "same_as": same_as}

    entries = [entry("x", 0.01), entry("y", 0.02), entry("x", 0.03, "c"), entry("x", 0.5)]
    entries += [entry("z", 0.02, same_as="y"), entry("x", 0.04, metric="accuracy")]
    comparison.correct(entries)
    corrected = [found["p_holm"] for found in entries]
    assert corrected[:4] == pytest.approx(holm([0.01, 0.02, 0.03, 0.5]))
    assert corrected[4:] == pytest.approx([corrected[1], 0.04])
