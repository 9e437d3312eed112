"""Tests of whether later texts are like those of a run: each of a question of its own.

Lengths and unknown tokens are compared with the training and validation texts together. What the
model makes of a text differs a little between texts that it learned from and any others, so scores,
categories and representations are compared with both apart, and the larger of the two p values
counts: an alarm says that texts are like neither (an intersection-union test; Berger 1982).
Where labels are there, errors larger and hits fewer than on the validation rows are tested for as
well. The p values are corrected by Holm's method, so that the chance of an alarm about texts that
have not changed is at most the level, for all tests together.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from dwa_jax.finetune.drift.mean_discrepancy import discrepancy_test
from dwa_jax.finetune.uncertainty import likeness
from dwa_jax.finetune.uncertainty.reference import KeptRows, Reference
from dwa_jax.multiple_tests import holm

LEVEL = 0.05


class Shift(NamedTuple):
    """One test.

    Attributes:
      name: of what is compared.
      measure: what the two numbers are.
      before: of the run's texts.
      now: of the later ones.
      p_value: of the test alone.
      corrected: for the number of tests.
    """

    name: str
    measure: str
    before: float
    now: float
    p_value: float
    corrected: float = float("nan")


def compare_with_run(reference: Reference, later: KeptRows) -> list[Shift]:
    """Compares later texts with a run's.

    Args:
      reference: of the run.
      later: the texts; with labels where there are some.

    Returns:
      A test of each: length, unknown tokens, representation, category; score, error and accuracy
      where there is what they take.
    """
    own = KeptRows(*(np.concatenate(pair) for pair in zip(*reference, strict=True)))
    found = [_lengths(reference, own, later), _unknown(reference, own, later)]
    found += [_representations(reference, later)]
    found += _scores(reference, own, later) + [_categories(reference, own, later)]
    found += _errors(reference.validation, later) + _hits(reference.validation, later)
    corrected = holm([one.p_value for one in found])
    return [one._replace(corrected=p) for one, p in zip(found, corrected, strict=True)]


def _lengths(reference, own, later):
    # Apart, too: a tokenizer that was made of the training texts splits others into more tokens.
    p = max(_smirnov(rows.lengths, later.lengths) for rows in reference)
    return Shift("length", "mean tokens", _mean(own.lengths), _mean(later.lengths), p)


def _unknown(reference, own, later):
    before, now = own.unknown > 0, later.unknown > 0
    p = max(_fisher(rows.unknown > 0, now, "two-sided") for rows in reference)
    return Shift("unknown tokens", "share of texts with one", _mean(before), _mean(now), p)


def _representations(reference, later):
    far = likeness.of_reference(reference)
    before, now = (
        _mean(far.distances(rows.representations)) for rows in (reference.validation, later)
    )
    p = max(discrepancy_test(rows.representations, later.representations)[1] for rows in reference)
    return Shift("representation", "mean distance to the nearest", before, now, p)


def _scores(reference, own, later):
    if not np.isfinite(later.predicted_scores).all():
        return []
    now = later.predicted_scores
    p = max(_smirnov(rows.predicted_scores, now) for rows in reference)
    return [Shift("score", "mean predicted", _mean(own.predicted_scores), _mean(now), p)]


def _categories(reference, own, later):
    now = later.predicted_categories
    p = max(_counts_differ(rows.predicted_categories, now) for rows in reference)
    return Shift("category", "mean predicted", _mean(own.predicted_categories), _mean(now), p)


def _errors(validation, later):
    before, now = (
        np.abs(rows.scores.astype(float) - rows.predicted_scores) for rows in (validation, later)
    )
    before, now = before[np.isfinite(before)], now[np.isfinite(now)]
    if not len(before) or not len(now):
        return []
    p = float(stats.mannwhitneyu(now, before, alternative="greater", method="asymptotic").pvalue)
    return [Shift("error", "mean absolute, larger", _mean(before), _mean(now), _defined(p))]


def _hits(validation, later):
    before, now = (
        (rows.categories == rows.predicted_categories)[rows.categories >= 0]
        for rows in (validation, later)
    )
    if not len(before) or not len(now):
        return []
    p = _fisher(before, now, "greater")
    return [Shift("accuracy", "share found, smaller", _mean(before), _mean(now), p)]


def _smirnov(before, now):
    return _defined(stats.ks_2samp(before, now, method="asymp").pvalue)


def _fisher(before, now, alternative):
    table = [[values.sum(), (~values).sum()] for values in (before, now)]
    return float(stats.fisher_exact(table, alternative=alternative).pvalue)


def _counts_differ(before, now):
    size = max(before.max(), now.max()) + 1
    table = np.stack([np.bincount(values, minlength=size) for values in (before, now)])
    table = table[:, table.sum(axis=0) > 0]
    return float(stats.chi2_contingency(table).pvalue) if table.shape[1] > 1 else 1.0


def _defined(p):
    # Of samples that are all one value there is nothing that could differ.
    return 1.0 if np.isnan(p) else float(min(p, 1.0))


def _mean(values):
    return float(np.mean(values, dtype=float))
