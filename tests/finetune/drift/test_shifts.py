"""Alarms about texts that have not changed are rare, and changes are found."""

import numpy as np
import pytest
from scipy import stats

from dwa_jax.finetune.drift.mean_discrepancy import discrepancy_test
from dwa_jax.finetune.drift.shifts import compare_with_run
from dwa_jax.finetune.uncertainty.reference import KeptRows, Reference

ALL = {"length", "unknown tokens", "representation", "score", "category", "error", "accuracy"}


def rows(count, draw, *, fitted=0.0, longer=0, turned=0.0, worse=0.0):
    # What was trained on is predicted a little better than what was not.
    scores = draw.uniform(-1, 1, count)
    predicted = np.clip(scores + draw.normal(0, 0.3 + worse - fitted, count), -1, 1)
    vectors = draw.normal(0, 1, (count, 8)) + np.eye(8)[0] * (3 - turned) + np.eye(8)[1] * turned
    lengths = longer + draw.poisson(12, count) + 2
    return KeptRows(
        lengths=lengths,
        unknown=draw.binomial(1, 0.02, count),
        scores=scores,
        predicted_scores=predicted,
        categories=np.digitize(scores, [-0.3, 0.3]),
        predicted_categories=np.digitize(predicted, [-0.3, 0.3]),
        representations=(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("f2"),
    )


def reference(draw):
    return Reference(rows(70, draw, fitted=0.1), rows(50, draw))


def alarms(own, later):
    return {one.name for one in compare_with_run(own, later) if one.corrected < 0.05}


@pytest.mark.parametrize("fitted", [0.0, 0.1], ids=["like validation", "like training"])
def test_texts_that_have_not_changed_rarely_raise_an_alarm(fitted):
    draw = np.random.default_rng(1)
    found = [bool(alarms(reference(draw), rows(40, draw, fitted=fitted))) for _ in range(30)]
    # At most 5 % but for chance: more than 5 of 30 have a probability of .003.
    assert sum(found) <= 5


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"longer": 4}, {"length"}),
        ({"turned": 2.0}, {"representation"}),
        ({"worse": 0.9}, {"error", "accuracy"}),
    ],
)
def test_a_change_is_found_by_its_own_test(change, expected):
    draw = np.random.default_rng(2)
    found = alarms(reference(draw), rows(120, draw, **change))
    assert expected <= found


def test_without_labels_and_scores_only_what_is_there_is_tested():
    draw = np.random.default_rng(3)
    own, later = reference(draw), rows(50, draw)
    missing = np.full(50, np.nan)
    assert {one.name for one in compare_with_run(own, later)} == ALL
    bare = later._replace(scores=missing, categories=np.full(50, -1))
    assert {one.name for one in compare_with_run(own, bare)} == ALL - {"error", "accuracy"}
    bare = bare._replace(predicted_scores=missing)
    assert {one.name for one in compare_with_run(own, bare)} == ALL - {"error", "accuracy", "score"}


def test_the_discrepancy_is_that_of_its_definition_and_its_p_values_are_uniform():
    draw = np.random.default_rng(4)
    first, second = draw.normal(size=(20, 3)), draw.normal(0.4, 1, size=(30, 3))

    both = np.concatenate([first, second])
    apart = ((both[:, None] - both) ** 2).sum(axis=2)
    kernel = np.exp(-apart / np.median(apart[np.triu_indices(50, 1)]))
    expected = kernel[:20, :20].mean() + kernel[20:, 20:].mean() - 2 * kernel[:20, 20:].mean()
    assert discrepancy_test(first, second, 9)[0] == pytest.approx(expected, rel=1e-4)

    same = [discrepancy_test(*draw.normal(size=(2, 15, 3)), 99, seed)[1] for seed in range(100)]
    assert stats.kstest(same, "uniform").pvalue > 0.01
    assert discrepancy_test(first, 3 + second, 99)[1] == 0.01
