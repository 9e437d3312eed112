"""Texts that lie on disk: a million of them are no million objects.

N texts of M that a file holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, overload

import numpy as np

_CHUNK = 4096


class KeptSource(NamedTuple):
    """The M texts of a file, and what was found out about them once.

    Args:
        name: what no other texts have.
        column: (M,) Arrow strings; they may be mapped into memory.
        digests: (M,) uint64 of `same_texts.text_digests`.
        normalize: what these texts went through before that.
    """

    name: str
    column: Any
    digests: np.ndarray
    normalize: Callable[[str], str] | None


class KeptTexts(Sequence):
    """Texts that are made strings as they are asked for.

    Args:
        source: where they lie.
        rows: (N,) places there; None for all of them in their order.
    """

    def __init__(self, source: KeptSource, rows: np.ndarray | None = None):
        self.source = source
        self._rows = np.arange(len(source.column)) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Returns a text; of a slice, a list of them."""
        if isinstance(index, slice):
            return self.source.column.take(self._rows[index]).to_pylist()
        return self.source.column[int(self._rows[index])].as_py()

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _CHUNK):
            yield from self[start : start + _CHUNK]

    def take(self, rows: np.ndarray) -> KeptTexts:
        """Returns those at (K,) `rows`, in that order."""
        return KeptTexts(self.source, self._rows[rows])

    @property
    def digests(self) -> np.ndarray:
        """(N,) uint64, see `KeptSource`."""
        return self.source.digests[self._rows]

    @property
    def identity(self) -> bytes:
        """What no other texts, nor these in another order, have."""
        digest = hashlib.blake2b(self.source.name.encode(), digest_size=16)
        digest.update(np.asarray(self._rows, np.int64).tobytes())
        return digest.digest()
