"""Splits: rows -> train, validation and test, never with the same text on two sides.

What counts as the same text, and what else belongs together, is in `same_texts`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dwa_jax.data.rows import DataError, Rows
from dwa_jax.data.same_texts import Normalize, shared_with, together

NAMES = ("train", "validation", "test")


def split(
    rows: Rows,
    *,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int,
    stratify: bool = True,
    normalize: Normalize = None,
) -> dict[str, Rows]:
    """Divides rows at random into train, validation and test.

    All rows of one text go to one side, and so do all of one group where the rows have groups.
    Each side's size is its fraction of the rows, exactly where neither text nor group repeats,
    otherwise to within the rows of a few of them. Where rows have times, train is what came
    first and test what came last.

    Args:
        rows: N rows.
        fractions: three shares that sum to 1; (0.9, 0.1, 0.0) is the papers' 9:1 without test.
        seed: non-negative integer; the same rows and seed give the same split.
        stratify: whether each side gets its fraction of each category, and of the scores in
            their order: of any ten neighbours one is validated, with the default fractions.
        normalize: what the model's texts go through first, such as `normalize_tweet`.

    Returns:
        {"train": Rows, "validation": Rows, "test": Rows}, each in the order of `rows`; a
        side whose fraction is 0 has no rows.

    Raises:
        ValueError: `fractions` are not three shares of 1.
        DataError: there are too few different texts to give each side with a fraction a row.
    """
    shares = np.asarray(fractions, dtype=np.float64)
    if (
        shares.shape != (3,)
        or not np.all(np.isfinite(shares) & (shares >= 0))
        or not math.isclose(shares.sum(), 1.0, abs_tol=1e-6)
        or shares[0] == 0
    ):
        raise ValueError(
            "fractions are three shares (train > 0, validation, test) that sum to 1,"
            f" got {tuple(fractions)}"
        )
    shares = shares / shares.sum()
    parts = together(rows, normalize)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(parts.first))
    if rows.times is not None:
        # Of what belongs together the last decides: nothing that is trained on is yet to come.
        last = np.full(len(order), -np.inf)
        np.maximum.at(last, parts.part, rows.times)
        order = order[np.argsort(last[order], kind="stable")]
        dealt = _in_order(parts.sizes[order], shares)
    elif stratify:
        dealt = _stratified(parts.first[order], parts.sizes[order], rows, shares, rng)
    else:
        dealt = _filled(parts.sizes[order], np.array([len(order)]), shares)
    side = np.empty(len(order), np.int64)
    side[order] = dealt
    found = {name: np.flatnonzero(side[parts.part] == i) for i, name in enumerate(NAMES)}
    for name, share in zip(NAMES, shares, strict=True):
        if share > 0 and not len(found[name]):
            what = "texts" if rows.groups is None else "groups"
            raise DataError(
                f"{name} is empty: {len(rows)} rows with {len(order)} different {what} are too"
                f" few for its fraction {share:g}; give more rows or another fraction"
            )
    return {name: rows.take(of) for name, of in found.items()}


def fold_of(
    rows: Rows,
    *,
    folds: int,
    seed: int,
    stratify: bool = True,
    normalize: Normalize = None,
) -> np.ndarray:
    """Deals rows at random into folds of like size, for cross-validation.

    As in `split` all rows of one text or group are in one fold.

    Args:
        rows: N rows.
        folds: how many, at least 2.
        seed: non-negative integer; the same rows and seed give the same folds.
        stratify: whether each fold gets a like share of each category, and of low and high scores.
        normalize: as in `split`.

    Returns:
        (N,) integers in [0, folds).

    Raises:
        DataError: there are too few different texts to give each fold a row.
    """
    parts = together(rows, normalize)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(parts.first))
    sizes, shares = parts.sizes[order], np.full(folds, 1 / folds)
    if stratify:
        dealt = _stratified(parts.first[order], sizes, rows, shares, rng)
    else:
        dealt = _filled(sizes, np.array([len(order)]), shares)
    if len(np.unique(dealt)) < folds:
        what = "texts" if rows.groups is None else "groups"
        raise DataError(
            f"{len(rows)} rows with {len(order)} different {what} are too few for {folds} folds"
        )
    fold = np.empty(len(order), np.int64)
    fold[order] = dealt
    return fold[parts.part]


# Each of the following deals G parts, in an order that was drawn, to the sides: (G,) places.


def _in_order(sizes, shares):
    # The first ones fill the first side, and so on.
    bounds = np.cumsum(_round_to_sum(shares, int(sizes.sum())))
    middles = np.cumsum(sizes) - sizes / 2
    return np.minimum(np.searchsorted(bounds, middles, side="left"), len(shares) - 1)


def _stratified(first, sizes, rows, shares, rng):
    # Neighbours in category and score, in blocks just large enough to give each side a row.
    block = math.ceil(1 / shares[shares > 0].min() - 1e-9)
    category, score = rows.categories[first], np.nan_to_num(rows.scores[first], nan=np.inf)
    order = np.lexsort((score, category))
    edges, done = [np.zeros(1, np.int64)], 0
    for count in np.unique(category, return_counts=True)[1].tolist():
        blocks = max(1, count // block)
        edges.append(done + np.rint(np.arange(1, blocks + 1) * count / blocks).astype(np.int64))
        done += count
    bounds = np.concatenate(edges)
    starts, lengths = bounds[:-1], np.diff(bounds)
    # Inside a block as drawn again, not by score.
    number = np.repeat(np.arange(len(lengths)) * len(order), lengths)
    order = np.sort(number + order) - number
    # What is left of each goes by chance, too.
    drawn = rng.permutation(len(lengths))
    starts, lengths = starts[drawn], lengths[drawn]
    behind = np.cumsum(lengths) - lengths
    order = order[np.repeat(starts - behind, lengths) + np.arange(len(order))]
    dealt = np.empty(len(order), np.int64)
    dealt[order] = _filled(sizes[order], lengths, shares)
    return dealt


def _filled(sizes, lengths, shares):
    # Parts lie in blocks of `lengths`. Each block gives each side the whole part of its share, and
    # the rest goes to the side that is owed most in all.
    if not len(sizes):
        return sizes
    behind = np.cumsum(lengths) - lengths
    rows = np.add.reduceat(sizes, behind)
    wanted = np.floor(shares * rows[:, None] + 1e-9).astype(np.int64)
    left = rows - wanted.sum(1)
    open_ = (np.asarray(_round_to_sum(shares, int(sizes.sum()))) - wanted.sum(0)).tolist()
    may = np.flatnonzero(shares > 0).tolist()
    for number in np.flatnonzero(left).tolist():
        for _ in range(left[number]):
            side = max(may, key=open_.__getitem__)
            wanted[number, side] += 1
            open_[side] -= 1
    dealt = np.empty(len(sizes), np.int64)
    # A million blocks of single rows are a few different ones.
    known: dict[tuple[int, ...], np.ndarray] = {}
    single = np.maximum.reduceat(sizes, behind) == 1
    owed = [0] * len(shares)
    for start, length, alone, whole in zip(
        behind.tolist(), lengths.tolist(), single.tolist(), map(tuple, wanted.tolist()), strict=True
    ):
        settled = alone and not any(owed)
        if not settled or whole not in known:
            of = sizes[start : start + length].tolist()
            filled, left_over = _fill(of, [a + b for a, b in zip(whole, owed, strict=True)])
            if settled:
                known[whole] = filled
            else:
                owed = left_over
        else:
            filled = known[whole]
        dealt[start : start + length] = filled
    return dealt


def _fill(sizes, lacking):
    # The side that lacks most takes the part: sizes end within one part of what is wanted.
    sides = []
    for size in sizes:
        side = lacking.index(max(lacking))
        sides.append(side)
        lacking[side] -= size
    return np.array(sides), lacking


def _round_to_sum(shares: np.ndarray, total: int) -> list[int]:
    """Rounds shares * total to integers that sum to total (largest remainders go up)."""
    exact = shares / shares.sum() * total
    counts = np.floor(exact + 1e-9).astype(int)
    most_cut_off = np.argsort(-(exact - counts), kind="stable")
    counts[most_cut_off[: total - counts.sum()]] += 1
    return counts.tolist()


def check_disjoint(
    train: Rows,
    validation: Rows,
    test: Rows | None = None,
    *,
    normalize: Normalize = None,
) -> tuple[Rows, int]:
    """Drops from train the rows whose text or group validation or test also has.

    For splits that come as separate files. Validation and test are left alone: they are
    what results are compared on.

    Args:
        train: the rows to clean.
        validation: rows held out.
        test: more rows held out.
        normalize: as in `split`.

    Returns:
        The remaining train rows, and the number of rows dropped.

    Raises:
        DataError: no train row remains.
    """
    held_out = [rows for rows in (validation, test) if rows is not None]
    keep = np.flatnonzero(~shared_with(train, held_out, normalize))
    dropped = len(train) - len(keep)
    if not len(keep):
        raise DataError(
            f"train is empty: all of its {len(train)} rows have texts of validation or test;"
            " are these the same file?"
        )
    return train.take(keep), dropped


def count_shared(rows: Rows, others: Rows, *, normalize: Normalize = None) -> int:
    """Returns how many of some rows have a text or group that others have too."""
    return int(shared_with(rows, [others], normalize).sum())
