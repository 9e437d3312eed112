"""Intervals hold as often as they say, over draws of data, whatever the model."""

import numpy as np
import pytest

from dwa_jax.finetune.uncertainty import conformal
from dwa_jax.finetune.uncertainty.reference import KeptRows, Reference


def rows(count, draw, spread=None):
    # A model that errs more on long texts, and that knows nothing of it.
    lengths = draw.integers(3, 60, count)
    scores = draw.uniform(-1, 1, count)
    predicted = np.clip(scores + draw.normal(0, 0.003 * lengths), -1, 1)
    return KeptRows(
        lengths=lengths,
        unknown=np.zeros(count, int),
        scores=scores,
        predicted_scores=predicted,
        categories=np.full(count, -1),
        predicted_categories=np.digitize(predicted, [-0.5, 0.5]),
        representations=np.ones((count, 1), np.float16),
    )


def held(how, coverage, count=120, draws=60):
    # (draws, new texts): whether each is held, and the lengths of them.
    draw = np.random.default_rng(5)
    inside, lengths, categories = [], [], []
    for _ in range(draws):
        reference, new = Reference(rows(200, draw), rows(count, draw)), rows(300, draw)
        found = conformal.fit_intervals(reference, 3, coverage, how)
        around = found.around(new.predicted_scores, new.predicted_categories, new.lengths)
        inside.append(conformal.is_inside(around, new.scores))
        lengths.append(new.lengths)
        categories.append(new.predicted_categories)
    return np.array(inside), np.array(lengths), np.array(categories)


@pytest.mark.parametrize("how", conformal.HOW)
@pytest.mark.parametrize("coverage", [0.6, 0.9])
def test_intervals_hold_as_often_as_asked(how, coverage):
    inside, _, _ = held(how, coverage)
    # At least that, and not more than groups of at least 15 rows add (theorem 2 of Lei et al.).
    assert coverage - 0.01 <= inside.mean() <= coverage + 1 / 15


def test_by_group_they_hold_within_each_group_and_else_they_do_not():
    inside, lengths, _ = held("marginal", 0.9)
    assert inside[lengths < 20].mean() > 0.97 and inside[lengths > 45].mean() < 0.83
    inside, lengths, _ = held("by_length", 0.9)
    assert inside[lengths < 20].mean() > 0.89 and inside[lengths > 45].mean() > 0.85
    inside, _, categories = held("by_category", 0.9)
    assert all(inside[categories == k].mean() > 0.88 for k in range(3))


def test_the_quantile_counts_the_new_text_as_well():
    values = np.array([3.0, 1.0, 2.0, 9.0, 5.0, 7.0, 4.0, 8.0, 6.0])
    assert conformal.smallest_above(values, 0.9) == 9
    assert conformal.smallest_above(values, 0.8) == 8
    assert conformal.smallest_above(values, 0.91) == np.inf
    assert conformal.smallest_above(values[:0], 0.5) == np.inf


def test_a_group_of_too_few_rows_promises_nothing_and_no_interval_leaves_the_range():
    draw = np.random.default_rng(0)
    validation = rows(40, draw)._replace(predicted_categories=np.repeat([0, 1], [32, 8]))
    reference = Reference(rows(10, draw), validation)
    found = conformal.fit_intervals(reference, 3, 0.9, "by_category")
    around = found.around(np.array([0.9, 0.0, 1.4]), np.array([0, 1, 2]), np.array([5, 5, 5]))
    assert around[0, 1] == 1 and -1 < around[0, 0] < 0.9
    assert around[1:].tolist() == [[-1, 1], [-1, 1]]


@pytest.mark.parametrize(
    ("coverage", "how", "words"),
    [(1.0, "marginal", "between 0 and 1"), (0.9, "by_name", "marginal, by_category, by_length")],
)
def test_what_cannot_be_asked_for_is_refused(coverage, how, words):
    draw = np.random.default_rng(0)
    with pytest.raises(ValueError, match=words):
        conformal.fit_intervals(Reference(rows(9, draw), rows(9, draw)), 3, coverage, how)


def test_without_scores_there_are_no_intervals():
    draw = np.random.default_rng(0)
    blank = rows(40, draw)._replace(scores=np.full(40, np.nan))
    assert conformal.fit_intervals(Reference(rows(9, draw), blank), 3, 0.9, "marginal") is None
