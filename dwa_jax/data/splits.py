"""Splits: rows -> train, validation and test, never with the same text on two sides.

"The same text" means equal after `normalize_text`, which is coarser than what any tokenizer does
to a text before it reads it: compatibility characters unified (NFKC), letter case folded, accents,
control and zero-width characters dropped (as uncased BERT drops them), runs of whitespace
collapsed. Digits and punctuation are kept, so "EUR/USD at 1.08" and "EUR/USD at 1.09" are two
texts. What is done to texts before the tokenizer, such as `normalize_tweet`, is given.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from dwa_jax.data import cells
from dwa_jax.data.long_texts import pieces
from dwa_jax.data.rows import DataError, Rows

NAMES = ("train", "validation", "test")


def normalize_text(text: str) -> str:
    """Returns the form under which two texts count as the same text."""
    return " ".join(filter(None, map(_normalized, pieces(text))))


def _normalized(text):
    if text.isascii():
        return " ".join(text.casefold().split())
    text = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text).casefold())
    kept = (" " if c.isspace() else c for c in text if c.isspace() or cells.is_read(c))
    return " ".join("".join(kept).split())


def split(
    rows: Rows,
    *,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int,
    stratify: bool = True,
    normalize: Callable[[str], str] | None = None,
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
    members = _together(rows, normalize)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(members))
    if rows.times is not None:
        # Of what belongs together the last decides: nothing that is trained on is yet to come.
        last = [max(rows.times[i] for i in members[group]) for group in order]
        order = order[np.argsort(last, kind="stable")]
        sides = _in_order([members[group] for group in order], shares, len(rows))
    elif stratify:
        sides = _stratified([members[group] for group in order], rows, shares, rng)
    else:
        sides = _filled([[members[group] for group in order]], shares, len(rows))
    for name, share, side in zip(NAMES, shares, sides, strict=True):
        if share > 0 and not side:
            what = "texts" if rows.groups is None else "groups"
            raise DataError(
                f"{name} is empty: {len(rows)} rows with {len(members)} different {what} are too"
                f" few for its fraction {share:g}; give more rows or another fraction"
            )
    return {name: rows.take(sorted(side)) for name, side in zip(NAMES, sides, strict=True)}


def fold_of(
    rows: Rows,
    *,
    folds: int,
    seed: int,
    stratify: bool = True,
    normalize: Callable[[str], str] | None = None,
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
    members = _together(rows, normalize)
    rng = np.random.default_rng(seed)
    drawn = [members[group] for group in rng.permutation(len(members))]
    shares = np.full(folds, 1 / folds)
    sides = (
        _stratified(drawn, rows, shares, rng) if stratify else _filled([drawn], shares, len(rows))
    )
    if not all(sides):
        what = "texts" if rows.groups is None else "groups"
        raise DataError(
            f"{len(rows)} rows with {len(members)} different {what} are too few for {folds} folds"
        )
    found = np.empty(len(rows), np.int64)
    for fold, side in enumerate(sides):
        found[side] = fold
    return found


def _together(rows: Rows, normalize: Callable[[str], str] | None) -> list[list[int]]:
    # Rows that share a text or a group, directly or by way of others.
    parent = list(range(len(rows)))

    def root(i):
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[bytes, int] = {}
    for i, keys in enumerate(_keys(rows, normalize)):
        for key in keys:
            # The earlier row leads, so that groups come in the order of their first rows.
            one, other = sorted((root(i), root(first.setdefault(key, i))))
            parent[other] = one
    members: dict[int, list[int]] = {}
    for i in range(len(rows)):
        members.setdefault(root(i), []).append(i)
    return list(members.values())


def _keys(rows: Rows, normalize: Callable[[str], str] | None) -> Iterable[list[bytes]]:
    # Of millions of texts copies would not fit; two that shared a digest would share a side.
    def digest(kind, value):
        written = f"{kind} {value}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(written, digest_size=8).digest()

    groups = rows.groups or itertools.repeat(None, len(rows))
    for text, group in zip(rows.texts, groups, strict=True):
        read = normalize_text(text if normalize is None else normalize(text))
        yield [digest("text", read), *([digest("group", group)] if group is not None else [])]


def _in_order(members: list[list[int]], shares: np.ndarray, total: int) -> list[list[int]]:
    # The first ones fill the first side, and so on.
    bounds = np.cumsum(_round_to_sum(shares, total))
    sides: list[list[int]] = [[], [], []]
    done = 0
    for group in members:
        middle = done + len(group) / 2
        side = int(np.searchsorted(bounds, middle, side="left"))
        sides[min(side, 2)].extend(group)
        done += len(group)
    return sides


def _stratified(
    members: list[list[int]], rows: Rows, shares: np.ndarray, rng: np.random.Generator
) -> list[list[int]]:
    # Neighbours in category and score, in blocks just large enough to give each side a row.
    size = math.ceil(1 / shares[shares > 0].min() - 1e-9)
    of = [group[0] for group in members]
    category, score = rows.categories[of], np.nan_to_num(rows.scores[of], nan=np.inf)
    order = np.lexsort((score, category))
    blocks: list[list[list[int]]] = []
    for value in np.unique(category):
        same = [int(i) for i in order if category[i] == value]
        count = max(1, len(same) // size)
        edges = [round(k * len(same) / count) for k in range(count + 1)]
        # Inside a block as drawn again, not by score.
        blocks += [[members[i] for i in sorted(same[a:b])] for a, b in itertools.pairwise(edges)]
    # What is left of each goes by chance, too.
    blocks = [blocks[i] for i in rng.permutation(len(blocks))]
    return _filled(blocks, shares, len(rows))


def _filled(blocks: list[list[list[int]]], shares: np.ndarray, total: int) -> list[list[int]]:
    # Each block gives each side the whole part of its share, and the rest goes to the side that
    # is owed most in all.
    sizes = [sum(map(len, block)) for block in blocks]
    whole = [np.floor(shares * size + 1e-9).astype(int) for size in sizes]
    open_ = np.asarray(_round_to_sum(shares, total)) - sum(whole)
    sides: list[list[int]] = [[] for _ in shares]
    owed = np.zeros(len(shares))
    for block, size, wanted in zip(blocks, sizes, whole, strict=True):
        wanted = wanted.astype(float)
        for _ in range(size - int(wanted.sum())):
            side = int(np.argmax(np.where(shares > 0, open_, -np.inf)))
            wanted[side] += 1
            open_[side] -= 1
        lacking = wanted + owed
        for group in block:
            # The side that lacks most takes the text: sizes end within one text of what is wanted.
            side = int(np.argmax(np.where(shares > 0, lacking, -np.inf)))
            sides[side].extend(group)
            lacking[side] -= len(group)
        owed = lacking
    return sides


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
    normalize: Callable[[str], str] | None = None,
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
    held_out = {
        key
        for rows in (validation, test)
        if rows is not None
        for keys in _keys(rows, normalize)
        for key in keys
    }
    keep = [i for i, keys in enumerate(_keys(train, normalize)) if held_out.isdisjoint(keys)]
    dropped = len(train) - len(keep)
    if not keep:
        raise DataError(
            f"train is empty: all of its {len(train)} rows have texts of validation or test;"
            " are these the same file?"
        )
    return train.take(keep), dropped


def count_shared(rows: Rows, others: Rows, *, normalize: Callable[[str], str] | None = None) -> int:
    """Returns how many of some rows have a text or group that others have too."""
    known = {key for keys in _keys(others, normalize) for key in keys}
    return sum(not known.isdisjoint(keys) for keys in _keys(rows, normalize))
