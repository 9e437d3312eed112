"""Rows that a program holds already: lists, arrays, or columns of pandas or pyarrow."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dwa_jax.data import cells
from dwa_jax.data.columns import Columns
from dwa_jax.data.rescaling import as_written
from dwa_jax.data.rows import DataError, Rows


def from_columns(
    texts: Iterable[str],
    scores: Iterable[float | None] | None = None,
    categories: Iterable[int | str | None] | None = None,
    *,
    name: str = "texts",
    category_names: Sequence[str] | None = None,
    num_classes: int | None = None,
    score_range: tuple[float, float] | None = None,
    labels: Mapping[str, float] | str | None = None,
    written: cells.Written = cells.PLAIN,
) -> Rows:
    """Takes over columns, with the checks that the rows of a file meet.

    Args:
      texts: N strings.
      scores: N numbers; None or nan where a row has none. None where no row has one.
      categories: N integers in [0, K), or names where `category_names` are given; None or nan
        where a row has none. None where no row has one.
      name: what messages call the texts.
      category_names: K names, in order.
      num_classes: K; a category must be below it.
      score_range: (lowest, highest) score, rescaled linearly to [-1, 1].
      labels: numbers by label word, of the scores, or of the categories where there are none.
      written: how numbers are, where they are texts.

    Raises:
      DataError: a text, score or category is not usable (names its place, counted from 0), or
        the columns differ in length.
    """
    columns = {"texts": _cells(texts, "texts")}
    if scores is not None:
        columns["scores"] = _cells(scores, "scores")
    if categories is not None:
        columns["categories"] = _cells(categories, "categories")
    lengths = {column: len(of) for column, of in columns.items()}
    if len(set(lengths.values())) > 1:
        words = ", ".join(f"{count} {column}" for column, count in lengths.items())
        raise DataError(f"{name}: columns of one length are needed; there are {words}")
    if not columns["texts"]:
        raise DataError(f"{name}: there is no text")
    records = list(zip(*columns.values(), strict=True))
    meaning = Columns(
        text="texts",
        score="scores" if scores is not None else None,
        category="categories" if categories is not None else None,
        category_names=category_names if categories is not None else None,
        num_classes=num_classes,
        score_range=score_range,
        unscored=True,
        labels=labels if scores is not None or categories is not None else None,
        written=written,
    )
    return meaning.collect([(name, enumerate(records))], [])


def from_split(split: Any, name: str, **options: Any) -> Rows:
    """Takes over a split that was given as one value.

    Args:
      split: `Rows`, a mapping with "texts" and it may be "scores" and "categories", or a
        sequence (texts, scores) or (texts, scores, categories).
      name: what messages call it.
      **options: of `from_columns`.

    Raises:
      DataError: it is none of these, or something in it is not usable.
    """
    if isinstance(split, Rows):
        return split
    if isinstance(split, Mapping):
        unknown = sorted(set(map(str, split)) - {"texts", "scores", "categories"})
        if unknown or "texts" not in split:
            raise DataError(
                f"{name} has keys {', '.join(map(str, split))}; expected texts, and it may be "
                "scores and categories"
            )
        return from_columns(**dict(split), name=name, **options)
    if isinstance(split, tuple | list) and 2 <= len(split) <= 3 and not isinstance(split[0], str):
        return from_columns(*split, name=name, **options)
    raise DataError(
        f"{name} must be (texts, scores), (texts, scores, categories) or a mapping with these "
        f"names; got {type(split).__name__}"
    )


def _cells(values, what):
    if isinstance(values, str | bytes | Mapping):
        raise DataError(f"{what} must be a list or a column, got {type(values).__name__}")
    single = getattr(values, "dtype", None) == np.float32
    for method in ("to_pylist", "tolist"):  # pyarrow's; numpy's and pandas'
        if hasattr(values, method):
            values = getattr(values, method)()
            break
    try:
        # What float32 holds of 0.2 is meant to be 0.2.
        found = map(_cell, values)
        return [as_written(v) if single and v is not None else v for v in found]
    except TypeError:
        raise DataError(f"{what} must be a list or a column, got {values!r:.60}") from None


def _cell(value):
    if isinstance(value, np.generic):
        value = value.item()
    # pandas' own missing values compare with nothing.
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    return None if isinstance(value, float) and math.isnan(value) else value
