"""Splits: rows -> train, validation and test, never with the same text on two sides.

"The same text" means equal after `normalize_text`: compatibility characters
unified (NFKC), letter case folded, runs of whitespace collapsed. Digits and
punctuation are kept, so "EUR/USD at 1.08" and "EUR/USD at 1.09" are two texts.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

import numpy as np

from dwa_jax.data.rows import DataError, Rows

NAMES = ("train", "validation", "test")


def normalize_text(text: str) -> str:
    """Returns the form under which two texts count as the same text."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def split(
    rows: Rows, *, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int
) -> dict[str, Rows]:
    """Divides rows at random into train, validation and test.

    All rows of one text go to one side. Each side's size is its fraction of the rows,
    exactly where no text repeats, otherwise to within the rows of one text.

    Args:
        rows: N rows.
        fractions: three shares that sum to 1; (0.9, 0.1, 0.0) is the papers' 9:1 without test.
        seed: non-negative integer; the same rows and seed give the same split.

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
    groups: dict[str, list[int]] = {}
    for index, text in enumerate(rows.texts):
        groups.setdefault(normalize_text(text), []).append(index)
    members = list(groups.values())

    wanted = _round_to_sum(shares, len(rows))
    sides: list[list[int]] = [[], [], []]
    for group in np.random.default_rng(seed).permutation(len(members)):
        # The side that lacks most takes the text: sizes end within one text of what is wanted.
        lacking = [want - len(side) for want, side in zip(wanted, sides, strict=True)]
        sides[int(np.argmax(lacking))].extend(members[group])
    for name, share, side in zip(NAMES, shares, sides, strict=True):
        if share > 0 and not side:
            raise DataError(
                f"{name} is empty: {len(rows)} rows with {len(members)} different texts are too"
                f" few for its fraction {share:g}; give more rows or another fraction"
            )
    return {name: rows.take(sorted(side)) for name, side in zip(NAMES, sides, strict=True)}


def _round_to_sum(shares: np.ndarray, total: int) -> list[int]:
    """Rounds shares * total to integers that sum to total (largest remainders go up)."""
    exact = shares / shares.sum() * total
    counts = np.floor(exact + 1e-9).astype(int)
    most_cut_off = np.argsort(-(exact - counts), kind="stable")
    counts[most_cut_off[: total - counts.sum()]] += 1
    return counts.tolist()


def check_disjoint(train: Rows, validation: Rows, test: Rows | None = None) -> tuple[Rows, int]:
    """Drops from train the rows whose text validation or test also has.

    For splits that come as separate files. Validation and test are left alone: they are
    what results are compared on.

    Args:
        train: the rows to clean.
        validation: rows held out.
        test: more rows held out.

    Returns:
        The remaining train rows, and the number of rows dropped.

    Raises:
        DataError: no train row remains.
    """
    held_out = {
        normalize_text(text)
        for rows in (validation, test)
        if rows is not None
        for text in rows.texts
    }
    keep = [i for i, text in enumerate(train.texts) if normalize_text(text) not in held_out]
    dropped = len(train) - len(keep)
    if not keep:
        raise DataError(
            f"train is empty: all of its {len(train)} rows have texts of validation or test;"
            " are these the same file?"
        )
    return train.take(keep), dropped
