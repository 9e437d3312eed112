"""What the columns of a table mean, and a row of it checked cell by cell.

A label may be missing (an empty cell, a JSON null or an absent key), a row's
text may not, and a row must carry at least one label of those asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dwa_jax.data import cells
from dwa_jax.data.rows import BadRow, DataError, Rows

_SHOWN_BAD_ROWS = 5


class LeftOut(NamedTuple):
    """A bad row that was skipped; as a string, one line that says so.

    Args:
        file: the file as it was given to `read`.
        row: its row number there (see `tables.reader`).
        problem: what is wrong with it.
    """

    file: str
    row: int
    problem: str

    def __str__(self) -> str:
        return f"{self.file}, row {self.row}: {self.problem}"


@dataclass(frozen=True)
class Columns:
    """Which columns hold what, and what their cells may be; arguments as `read` has them.

    Raises:
        ValueError: an option is not one that there is, or two columns are one.
    """

    text: str = "text"
    score: str | None = "score"
    category: str | None = None
    category_names: Sequence[str] | None = None
    num_classes: int | None = None
    score_range: tuple[float, float] | None = None
    unscored: bool = False

    def __post_init__(self) -> None:
        names = self.category_names
        if names is not None and self.category is None:
            raise ValueError("category_names needs a category_column")
        if names is not None and len(set(names)) != len(names):
            raise ValueError(f"category_names must differ from each other, got {list(names)}")
        if len(set(self.names)) != len(self.names):
            raise ValueError(
                f"text, score and category must be different columns, got {self.names}"
            )
        cells.check_range(self.score_range)

    @property
    def labels(self) -> list[str]:
        """The columns with labels."""
        return [name for name in (self.score, self.category) if name is not None]

    @property
    def names(self) -> list[str]:
        """The text's column, then the labels'."""
        return [self.text, *self.labels]

    def collect(
        self,
        parts: Iterable[tuple[str, Iterable[tuple[int, Sequence[object] | BadRow]]]],
        bad: list[LeftOut],
        on_bad_row: str = "error",
    ) -> Rows:
        """Checks records and makes rows of them.

        Args:
            parts: (name for messages, its records: (row number, one cell a name or a BadRow)).
            bad: where rows that are left out are added.
            on_bad_row: "error" raises one error for all bad rows, "skip" leaves them out.

        Returns:
            The good rows in their order.

        Raises:
            DataError: a part has no row, or (unless skipped) a row is bad.
        """
        texts: list[str] = []
        scores: list[float] = []
        categories: list[int] = []
        origin: list[tuple[str, int]] = []
        score_range = cells.check_range(self.score_range)
        for file, records in parts:
            before = len(texts) + len(bad)
            for number, row in records:
                try:
                    text, score, category = self._check(row, score_range)
                except cells.BadCell as problem:
                    bad.append(LeftOut(file, number, str(problem)))
                    continue
                texts.append(text)
                scores.append(math.nan if score is None else score)
                categories.append(-1 if category is None else category)
                origin.append((file, number))
            if len(texts) + len(bad) == before:
                raise DataError(f"{file}: holds no rows")
        if bad and on_bad_row == "error":
            raise DataError(listed(bad))
        if bad and not texts:
            raise DataError(f"no good row is left: {listed(bad)}")
        return Rows(
            texts=texts,
            scores=np.asarray(scores, dtype=np.float64),
            categories=np.asarray(categories, dtype=np.int32),
            origin=origin,
        )

    def _check(self, row, score_range):
        if isinstance(row, BadRow):
            raise cells.BadCell(row.problem)
        named: dict[str | None, object] = dict(zip(self.names, row, strict=True))
        text = cells.text(named[self.text])
        score = cells.score(named.get(self.score), score_range)
        category = cells.category(named.get(self.category), self.category_names, self.num_classes)
        if self.labels and score is None and category is None and not self.unscored:
            raise cells.BadCell(f"no label: empty {' and '.join(map(repr, self.labels))}")
        return text, score, category


def listed(bad: Sequence[LeftOut]) -> str:
    """Returns one line with the first bad rows, and how many more there are."""
    more = len(bad) - _SHOWN_BAD_ROWS
    return "; ".join(map(str, bad[:_SHOWN_BAD_ROWS])) + f"; and {more} more bad rows" * (more > 0)
