"""Rows: scored texts in memory, and the error every file of this package raises about data.

N is the number of rows. A missing score is nan, a missing category is -1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dwa_jax.data.kept_texts import KeptTexts


class DataError(ValueError):
    """Something in the user's data is wrong; the message is one line and names file and row."""


class BadRow(NamedTuple):
    """A record that cannot be read.

    Args:
        problem: what is wrong with it, in one line.
        whole: whether the record itself can be read, and only what was asked for of it cannot.
    """

    problem: str
    whole: bool = False


class Origins(Sequence[tuple[str, int]]):
    """Where rows come from: pairs (file, row number), in twelve bytes each."""

    def __init__(self, files: Sequence[str], which: np.ndarray, numbers: np.ndarray):
        """
        Args:
            files: names.
            which: (N,) places in `files`.
            numbers: (N,) row numbers there.
        """
        self._files = files
        self._which = np.asarray(which, np.int32)
        self._numbers = np.asarray(numbers, np.int64)

    @classmethod
    def of(cls, pairs: Sequence[tuple[str, int]]) -> Origins:
        """Returns pairs as such, if they are none yet."""
        if isinstance(pairs, cls):
            return pairs
        places: dict[str, int] = {}
        which = [places.setdefault(file, len(places)) for file, _ in pairs]
        return cls(list(places), np.array(which), np.array([number for _, number in pairs]))

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.take(range(*index.indices(len(self))))
        return self._files[self._which[index]], int(self._numbers[index])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    @property
    def columns(self) -> tuple[Sequence[str], np.ndarray, np.ndarray]:
        """What they were made of: names of files, (N,) int32 places there, (N,) int64 numbers."""
        return self._files, self._which, self._numbers

    def take(self, indices: Sequence[int] | np.ndarray) -> Origins:
        """Returns those at `indices`, (M,) integers in [0, N), in that order."""
        indices = np.asarray(indices, np.int64)
        return Origins(self._files, self._which[indices], self._numbers[indices])


@dataclass(frozen=True, eq=False)
class Rows:
    """Scored texts as columns of equal length.

    Args:
        texts: N strings.
        scores: (N,) float64 in [-1, 1]; nan where missing.
        categories: (N,) int32 in [0, K); -1 where missing.
        origin: N pairs (file, row number) for messages; kept as `Origins`.
        splits: N names "train", "validation" or "test", where the data say; None where not.
        groups: N values that rows of one group share, None for a row by itself; None where
            there are no groups.
        times: (N,) float64 that grow with time; None where there are none.

    Raises:
        ValueError: the columns differ in length.
    """

    texts: Sequence[str]
    scores: np.ndarray
    categories: np.ndarray
    origin: Sequence[tuple[str, int]]
    splits: list[str] | None = None
    groups: list[str | None] | None = None
    times: np.ndarray | None = None

    def __post_init__(self) -> None:
        lengths = {
            "texts": len(self.texts),
            "scores": len(self.scores),
            "categories": len(self.categories),
            "origin": len(self.origin),
        }
        for name in ("splits", "groups", "times"):
            if getattr(self, name) is not None:
                lengths[name] = len(getattr(self, name))
        if len(set(lengths.values())) != 1:
            raise ValueError(f"columns of equal length expected, got {lengths}")
        object.__setattr__(self, "origin", Origins.of(self.origin))

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Sequence[int] | np.ndarray) -> Rows:
        """Returns the rows at `indices`, in that order.

        Args:
            indices: (M,) integers in [0, N).

        Returns:
            M rows.
        """
        indices = np.asarray(indices, dtype=np.int64)
        return Rows(
            texts=_taken(self.texts, indices),
            scores=self.scores[indices],
            categories=self.categories[indices],
            origin=Origins.of(self.origin).take(indices),
            splits=None if self.splits is None else [self.splits[i] for i in indices],
            groups=None if self.groups is None else [self.groups[i] for i in indices],
            times=None if self.times is None else self.times[indices],
        )


def _taken(texts, indices):
    if isinstance(texts, KeptTexts):
        return texts.take(indices)
    return [texts[i] for i in indices]
