"""What the columns of a table mean, and a row of it checked cell by cell.

A label may be missing (an empty cell, a JSON null or an absent key), a row's
text may not, and a row must carry at least one label of those asked for.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dwa_jax.data import cells
from dwa_jax.data.rows import BadRow, DataError, Origins, Rows

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
    """Which columns hold what, and what their cells may be.

    Args:
        text: the column that holds the text.
        score: the column that holds the score; None where there are no scores.
        category: the column that holds the category; None where there are no categories.
        category_names: K names; categories are then these names instead of integers.
        num_classes: K; an integer category must be below it. None where any will do.
        score_range: (lowest, highest) score, rescaled linearly to [-1, 1]; None where the scores
            are in [-1, 1] already.
        unscored: whether a row may do without any label.
        labels: numbers by label word, see `cells.label_map`: scores in `score_range` where there
            is a score column, and else categories in the order of their numbers.
        written: how numbers are.
        split: the column that says which split a row belongs to, or None.
        group: the column that holds what rows that belong together share, or None.
        time: the column that holds a row's time, or None.
        time_format: how times are written, see `cells.time`.

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
    labels: Mapping[Any, float] | str | None = None
    written: cells.Written = cells.PLAIN
    split: str | None = None
    group: str | None = None
    time: str | None = None
    time_format: str = ""

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
        cells.check_time_format(self.time_format)
        if self.labels:
            if self.score is None and self.category is None:
                raise ValueError("labels need a score_column or a category_column")
            if self.score is None and names is not None:
                raise ValueError("labels and category_names both name the categories; give one")
            cells.label_map(self.labels)

    @property
    def marks(self) -> list[str]:
        """The columns with a row's score and category."""
        return [name for name in (self.score, self.category) if name is not None]

    @property
    def names(self) -> list[str]:
        """The text's column, then the labels', then those that tell rows apart."""
        others = [name for name in (self.split, self.group, self.time) if name is not None]
        return [self.text, *self.marks, *others]

    def collect(
        self,
        parts: Iterable[tuple[str, Iterable[tuple[int, Sequence[object] | BadRow]]]],
        bad: list[LeftOut],
        on_bad_row: str = "error",
        note: Callable[[str], None] | None = None,
        advice: str = "",
    ) -> Rows:
        """Checks records and makes rows of them.

        Args:
            parts: (name for messages, its records: (row number, one cell a name or a BadRow)).
            bad: where rows that are left out are added.
            on_bad_row: "error" raises one error for all bad rows, "skip" leaves them out.
            note: told, in a line, what was found of the cells.
            advice: what may be done about bad rows, behind the first ones in an error.

        Returns:
            The good rows in their order.

        Raises:
            DataError: a part has no row, or (unless skipped) a row is bad.
        """
        check = _Check(self)
        # A column each, since a million rows of Python's would be hundreds of megabytes.
        texts: list[str] = []
        splits: list[str] = []
        groups: list[str | None] = []
        scores, times = array("d"), array("d")
        categories, numbers, which = array("i"), array("q"), array("i")
        files: list[str] = []
        for file, records in parts:
            before = len(texts) + len(bad)
            for number, row in records:
                try:
                    text, score, category, split, group, time = check(row)
                except cells.BadCell as problem:
                    bad.append(LeftOut(file, number, str(problem)))
                    continue
                texts.append(text)
                scores.append(math.nan if score is None else score)
                categories.append(-1 if category is None else category)
                numbers.append(number)
                which.append(len(files))
                if self.split:
                    splits.append(split)
                if self.group:
                    groups.append(group)
                if self.time:
                    times.append(time)
            files.append(file)
            if len(texts) + len(bad) == before:
                raise DataError(f"{file}: holds no rows")
        if bad and on_bad_row == "error":
            raise DataError(f"{listed(bad)}{advice}")
        if bad and not texts:
            raise DataError(f"no good row is left: {listed(bad)}")
        if check.joined and note is not None:
            note(f"{check.joined} texts are lists, joined by spaces")
        if note is not None and (alone := sum(group is None for group in groups)):
            note(f"{alone} rows have no {self.group!r}, and count as a group each")
        return Rows(
            texts=texts,
            scores=np.array(scores, np.float64),
            categories=np.array(categories, np.int32),
            origin=Origins(files, np.array(which), np.array(numbers)),
            splits=splits if self.split else None,
            groups=groups if self.group else None,
            times=np.array(times, np.float64) if self.time else None,
        )


class _Check:
    """A row's cells -> text, score, category, split, group, time; raises BadCell."""

    def __init__(self, columns: Columns):
        self.joined = 0
        self._columns, self._marks = columns, columns.marks
        self._places = {name: place for place, name in enumerate(columns.names)}
        self._range = cells.check_range(columns.score_range)
        labels = cells.label_map(columns.labels) if columns.labels else None
        self._scores = labels if columns.score is not None else None
        self._ranks = None
        if labels is not None and columns.score is None:
            # Labels with one number are one category.
            ranks = {value: rank for rank, value in enumerate(sorted(set(labels.values())))}
            self._ranks = {word: ranks[value] for word, value in labels.items()}

    def __call__(self, row: Sequence[object] | BadRow) -> tuple:
        if isinstance(row, BadRow):
            raise cells.BadCell(row.problem)
        of = self._columns

        def cell(name):
            return None if name is None else row[self._places[name]]

        text = cells.text(row[0])
        self.joined += not isinstance(row[0], str)
        score = cells.score(cell(of.score), self._range, self._scores, of.written)
        category = cell(of.category)
        if self._ranks is not None and not cells.is_missing(category):
            category = cells.mapped(category, self._ranks)
        category = cells.category(category, of.category_names, of.num_classes)
        if self._marks and score is None and category is None and not of.unscored:
            raise cells.BadCell(f"no label: empty {' and '.join(map(repr, self._marks))}")
        group = cell(of.group)
        return (
            text,
            score,
            category,
            cells.split_name(cell(of.split)) if of.split else None,
            None if cells.is_missing(group) else str(group),
            cells.time(cell(of.time), of.time_format) if of.time else None,
        )


def listed(bad: Sequence[LeftOut]) -> str:
    """Returns one line with the first bad rows, and how many more there are."""
    more = len(bad) - _SHOWN_BAD_ROWS
    return "; ".join(map(str, bad[:_SHOWN_BAD_ROWS])) + f"; and {more} more bad rows" * (more > 0)
