"""How far a method lies from a baseline, and how sure that is.

Two things are random in a sweep: the seed (initial weights, order of rows, the split) and the texts
that there are. Every seed gives one difference between the two methods, on its own test texts; the
interval is Student's over these differences. Test sets of two seeds share some texts, and what is
hard about a text is the same in both, so the differences are not quite independent: what the shared
texts make them have in common is estimated from those texts, and added.

A bootstrap over seeds and texts, the usual alternative, is too narrow for ten seeds: resampling
S of them spreads by (S - 1) / S of the variance, and without Student's tails.

Axes: B rows of a seed's test set, S seeds, T distinct texts, K categories.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from dwa_jax.multiple_tests import holm

# One labelling for every method: five classes with borders halfway between equispaced anchors'.
COMMON_THRESHOLDS = (-0.6, -0.2, 0.2, 0.6)
# What a sweep decides by; the other metrics describe.
PRIMARY = "mse"
LEVEL = 0.05  # of significance, after correction


class SeedPredictions(NamedTuple):
    """What one run says of its test set.

    Attributes:
      texts: B keys that identify a test row across seeds; a text that occurs twice counts as one
        text with two rows.
      score: (B,) true scores, NaN where there is none.
      predicted_score: (B,), NaN where there is none.
      category: (B,) true categories in the run's own labelling, -1 where there is none.
      predicted_category: (B,), -1 where there is none.
      common_category: (B,) true scores under COMMON_THRESHOLDS, -1 where there is none.
      common_predicted: (B,) predicted scores under COMMON_THRESHOLDS, -1 where there is none.
    """

    texts: list[str]
    score: np.ndarray
    predicted_score: np.ndarray
    category: np.ndarray
    predicted_category: np.ndarray
    common_category: np.ndarray
    common_predicted: np.ndarray


def compare(baseline: dict[int, SeedPredictions], other: dict[int, SeedPredictions]) -> list[dict]:
    """Compares two methods on the same rows, by seed.

    A metric is a seed's own value: `mse`; `balanced_mse`, the mean over the common classes of the
    class's mean squared error; `accuracy_common`, of the scores under the common labelling; and,
    only where both methods have the same categories on every seed, `accuracy` of the predicted
    categories and `balanced_accuracy`, the mean over classes of the share that was found. The
    difference is the mean over seeds of other - baseline, see `mean_interval`.

    Args:
      baseline: seed -> its predictions.
      other: the same for the method compared.

    Returns:
      One dict a metric: metric, difference, low, high, p, seeds, by_seed (the differences within
      each seed). A metric that either method has no prediction for is left out; where some of its
      predictions are missing the numbers are None, since leaving the rows out would flatter. With
      one seed nothing is known of others: there is a difference, and no interval.

    Raises:
      ValueError: if no seed is common to both, or a seed's rows or true scores differ.
    """
    seeds = sorted(set(baseline) & set(other))
    if not seeds:
        raise ValueError(
            f"no seed in common: the baseline has {sorted(baseline)}, the other {sorted(other)}"
        )
    for number in seeds:
        _check_paired(number, baseline[number], other[number])
    pairs = [(baseline[number], other[number]) for number in seeds]
    texts, index = np.unique(
        np.concatenate([np.asarray(first.texts, object) for first, _ in pairs]),
        return_inverse=True,
    )
    of_text = np.split(index, np.cumsum([len(first.texts) for first, _ in pairs])[:-1])
    entries = []
    for name in _METRICS:
        parts = _metric(name, pairs)
        if parts is None:
            continue
        by_seed, influence = _by_seed(parts, of_text, len(texts))
        entry: dict[str, Any] = {
            "metric": name,
            "difference": None,
            "low": None,
            "high": None,
            "p": None,
        }
        if np.isfinite(by_seed).all():
            entry["difference"] = float(by_seed.mean())
            if len(seeds) > 1:
                found = mean_interval(by_seed, shared_covariance(influence))
                entry |= {key: float(value) for key, value in found._asdict().items()}
        entry["seeds"] = seeds
        entry["by_seed"] = [_plain(value) for value in by_seed]
        entries.append(entry)
    return entries


class Interval(NamedTuple):
    """A 95 % interval of a mean, and the p value of 0.

    Attributes:
      low: (...,) its lower end.
      high: (...,) its upper end.
      p: (...,) two-sided.
    """

    low: np.ndarray
    high: np.ndarray
    p: np.ndarray


def mean_interval(by_seed: ArrayLike, shared: ArrayLike = 0.0) -> Interval:
    """Finds Student's interval of the mean of seeds' differences, which may have texts in common.

    With sigma^2 the variance of a difference and c the mean covariance of two, the mean of S has
    the variance (sigma^2 + (S - 1) c) / S, and the sample variance estimates sigma^2 - c: so the
    variance is s^2 / S + c. c is known far better than s^2, from hundreds of texts, so there are
    more than S - 1 degrees of freedom: S - 1 over the share of the first part. (Satterthwaite's
    (1946) are that over the share's square; as the share is estimated too, the small p values that
    a correction asks for then come up to 1.7 times as often as they should.) With c = 0 it is the
    paired t test over seeds.

    Args:
      by_seed: (..., S) differences, S at least 2.
      shared: (...,) c, see `shared_covariance`; at least 0.

    Returns:
      Interval and p.
    """
    by_seed, shared = np.asarray(by_seed, float), np.asarray(shared, float)
    count, mean = by_seed.shape[-1], by_seed.mean(axis=-1)
    own = by_seed.var(axis=-1, ddof=1) / count
    variance = own + shared
    some = own > 0
    freedom = (count - 1) * variance / np.where(some, own, 1)
    freedom = np.where(some, np.minimum(freedom, 1e9), 1e9)
    error = np.sqrt(variance)
    half = error * special.stdtrit(freedom, 1 - LEVEL / 2)
    # Differences that are all 0 differ by nothing; all alike, and not 0, they leave no doubt.
    doubtless = np.where(mean == 0, 0.0, np.inf)
    ratio = np.where(error > 0, np.abs(mean) / np.where(error > 0, error, 1), doubtless)
    return Interval(mean - half, mean + half, 2 * special.stdtr(freedom, -ratio))


def shared_covariance(influence: np.ndarray) -> np.ndarray:
    """Estimates the mean covariance of two seeds' differences that their shared texts cause.

    Args:
      influence: (..., S, T) what a text adds to a seed's difference, beside the seed's mean; 0
        for a text that the seed does not test.

    Returns:
      (...,) the mean over pairs of seeds, and 0 where it came out below that. The idea is that of
      standard errors clustered in two ways (Cameron, Gelbach and Miller 2011, "Robust inference
      with multiway clustering").
    """
    seeds = influence.shape[-2]
    both = np.square(influence.sum(axis=-2)).sum(axis=-1)
    both -= np.square(influence).sum(axis=(-2, -1))
    return np.maximum(both / max(seeds * (seeds - 1), 1), 0)


def detectable(seeds: int, tests: int, power: float = 0.8) -> float:
    """Returns the difference that is found with that probability, as first of so many by Holm.

    Args:
      seeds: S, at least 2.
      tests: that are corrected for.
      power: the probability.

    Returns:
      It in standard deviations of the seeds' differences, of a two-sided paired t test.
    """
    freedom = seeds - 1
    critical = special.stdtrit(freedom, 1 - LEVEL / (2 * tests))
    return float(special.nctdtrinc(freedom, 1 - power, critical) / math.sqrt(seeds))


def correct(entries: list[dict]) -> None:
    """Sets p_holm of every comparison of a sweep, in place.

    One family a metric: all methods, datasets and backbones of the sweep, so that the chance of
    one or more results by luck alone is at most LEVEL for the whole report. A method that predicted
    the very same as another ("same_as") is no test of its own, and gets the other's value.

    Args:
      entries: of `compare`, with dataset, backbone, method and same_as (a method, or None).
    """
    for metric in {entry["metric"]: None for entry in entries}:
        family = [entry for entry in entries if entry["metric"] == metric]
        tests = [entry for entry in family if entry["same_as"] is None]
        for entry, p in zip(tests, holm([entry["p"] for entry in tests]), strict=True):
            entry["p_holm"] = p
        of = {(e["dataset"], e["backbone"], e["method"]): e["p_holm"] for e in tests}
        for entry in family:
            if entry["same_as"] is not None:
                first = (entry["dataset"], entry["backbone"], entry["same_as"])
                entry["p_holm"] = of.get(first)


_METRICS = ("mse", "balanced_mse", "accuracy_common", "accuracy", "balanced_accuracy")


def _metric(name, pairs):
    """The parts whose means make a metric: each a (value by row, counts by row) a seed, or None."""
    if name in ("mse", "balanced_mse"):
        by_pair = [_squared_errors(*pair) for pair in pairs]
    elif name == "accuracy_common":
        names = ("common_category", "common_predicted")
        by_pair = [_found(first, second, *names) for first, second in pairs]
    else:
        if not all(np.array_equal(first.category, second.category) for first, second in pairs):
            return None
        names = ("category", "predicted_category")
        by_pair = [_found(first, second, *names) for first, second in pairs]
    if any(rows is None for rows in by_pair):
        return None
    if not name.startswith("balanced_"):
        return [by_pair]
    own_labels = name == "balanced_accuracy"
    classes = [first.category if own_labels else first.common_category for first, _ in pairs]
    present = np.unique(np.concatenate(classes))
    return [
        [
            (np.where(own == k, values, 0), (own == k) & (counts > 0))
            for own, (values, counts) in zip(classes, by_pair, strict=True)
        ]
        for k in present[present >= 0]
    ]


def _squared_errors(first, second):
    scored = np.isfinite(first.score)
    if not scored.any() or not all(
        np.isfinite(one.predicted_score[scored]).any() for one in (first, second)
    ):
        return None
    errors = [np.square(one.predicted_score - first.score) for one in (first, second)]
    return np.where(scored, errors[1] - errors[0], 0), scored


def _found(first, second, true_name, predicted_name):
    true = getattr(first, true_name)
    labelled = true >= 0
    found = []
    for one in (first, second):
        predicted = getattr(one, predicted_name)
        if not (predicted[labelled] >= 0).any():
            return None
        found.append(np.where(predicted >= 0, (predicted == true).astype(float), np.nan))
    return np.where(labelled, found[1] - found[0], 0), labelled


def _by_seed(parts, of_text, num_texts):
    """(S,) a metric's differences, and (S, T) what each text adds to them.

    A metric is the mean over its parts, of those that have rows, of sum / count.
    """
    seeds = len(of_text)
    present = np.array([[counts.any() for _, counts in part] for part in parts])  # (parts, S)
    by_seed, influence = np.zeros(seeds), np.zeros((seeds, num_texts))
    for s, rows in enumerate(of_text):
        weight = 1 / max(present[:, s].sum(), 1)
        for part, here in zip(parts, present, strict=True):
            if not here[s]:
                continue
            values, counts = part[s]
            mean = values.sum() / counts.sum()
            by_seed[s] += weight * mean
            added = weight * np.where(counts, values - mean, 0) / counts.sum()
            influence[s] += np.bincount(rows, added, minlength=num_texts)
        if not present[:, s].any():
            by_seed[s] = np.nan
    return by_seed, influence


def _plain(value):
    return float(value) if math.isfinite(value) else None


def _check_paired(number, first, second):
    for name in ("texts", "score", "common_category"):
        ours, theirs = (np.asarray(getattr(one, name)) for one in (first, second))
        if ours.shape != theirs.shape:
            raise ValueError(
                f"seed {number}: the methods have {len(ours)} and {len(theirs)} test rows, "
                "expected the same rows"
            )
        equal = ours == theirs
        if name == "score":
            equal |= np.isnan(ours) & np.isnan(theirs)
        if not equal.all():
            row = int(np.flatnonzero(~equal)[0])
            raise ValueError(
                f"seed {number}: {name}[{row}] is {ours[row].item()!r} in one method and "
                f"{theirs[row].item()!r} in the other, expected the same rows"
            )
