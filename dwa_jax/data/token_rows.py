"""Rows of token ids of unequal lengths, in one array: a million of them are no million objects.

N rows, L ids in all.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np


class TokenRows(Sequence):
    """N rows of token ids.

    Args:
        tokens: (L,) int32, the rows one after the other; it may lie on disk (`np.memmap`).
        starts: (N + 1,) int64, where each row begins, and L.
    """

    def __init__(self, tokens: np.ndarray, starts: np.ndarray):
        self.tokens, self.starts = tokens, starts

    @classmethod
    def of(cls, rows: Iterable[Sequence[int] | np.ndarray]) -> TokenRows:
        """Makes them of rows of ids: lists, arrays, or these."""
        if isinstance(rows, TokenRows):
            return rows
        rows = list(rows)
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        starts = _starts(lengths)
        if all(isinstance(row, np.ndarray) for row in rows):
            tokens = np.concatenate([np.zeros(0, np.int32), *rows]).astype(np.int32, copy=False)
        else:
            ids = itertools.chain.from_iterable(rows)
            tokens = np.fromiter(ids, np.int32, int(starts[-1]))
        return cls(tokens, starts)

    @classmethod
    def joined(cls, parts: Sequence[TokenRows]) -> TokenRows:
        """Puts rows behind each other."""
        lengths = np.concatenate([np.zeros(0, np.int64), *(part.lengths for part in parts)])
        tokens = np.concatenate([np.zeros(0, np.int32), *(part.tokens for part in parts)])
        return cls(tokens, _starts(lengths))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, row: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, row: slice) -> list[np.ndarray]: ...

    def __getitem__(self, row: int | slice) -> np.ndarray | list[np.ndarray]:
        """Returns one row, an (length,) int32 view; of a slice, a list of them."""
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        row %= len(self)
        return self.tokens[self.starts[row] : self.starts[row + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64, ids a row."""
        return np.diff(self.starts)

    def take(self, rows: np.ndarray) -> TokenRows:
        """Returns the rows at (M,) `rows`, in that order."""
        lengths = self.lengths[rows]
        starts = _starts(lengths)
        # Of each id the place where it comes from: its row's start, and how far it is behind it.
        places = np.repeat(self.starts[:-1][rows] - starts[:-1], lengths) + np.arange(starts[-1])
        return TokenRows(self.tokens[places], starts)

    def counts(self, token: int) -> np.ndarray:
        """Returns (N,) int64, how often an id occurs in each row."""
        found = np.flatnonzero(self.tokens == token)
        return np.diff(np.searchsorted(found, self.starts)).astype(np.int64)


def _starts(lengths):
    return np.concatenate([[0], np.cumsum(lengths)])
