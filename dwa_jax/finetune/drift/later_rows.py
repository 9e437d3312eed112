"""Texts that came after a run, with labels where their files have them."""

from collections.abc import Callable, Sequence

import numpy as np

from dwa_jax import data, stratify
from dwa_jax.data import tables
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.corpus import read_files


def read_later(
    config: Config,
    files: Sequence[str],
    *,
    text_column: str = "",
    time_column: str = "",
    note: Callable[[str], None],
) -> data.Rows:
    """Reads texts as the run's own were read; a row without a usable text is left out.

    Args:
      config: of the run, whose keys say what columns are called and mean.
      files: names of tables.
      text_column: of the texts; by default the run's.
      time_column: by which the rows are put in order; "" leaves the files'.
      note: told of what is left out or missing.

    Raises:
      ValueError: a file cannot be read, or no row is usable.
    """

    def read(category_column):
        return read_files(
            config,
            list(files),
            text_column=text_column or config.text_column,
            category_column=category_column,
            on_bad_row="skip",
            unscored=True,
            time_column=time_column or None,
            note=note,
        )

    try:
        rows, left = read(config.category_column or None)
    except tables.MissingColumn:
        if not config.category_column:
            raise
        # New texts need no labels; whatever else is missing is missing again.
        rows, left = read(None)
    if left:
        first = f"{left[0].file}, row {left[0].row}: {left[0].problem}"
        note(f"{len(left)} bad rows are left out, the first: {first}")
    if rows.times is not None:
        rows = rows.take(np.argsort(rows.times, kind="stable"))
    return rows


def with_categories(config: Config, rows: data.Rows, thresholds: np.ndarray | None) -> np.ndarray:
    """Returns (N,) categories: those given, else those of the scores by the run's thresholds."""
    if thresholds is None or not config.derive_categories:
        return rows.categories
    scored = ~np.isnan(rows.scores)
    derived = np.asarray(stratify.categorize(np.where(scored, rows.scores, 0.0), thresholds))
    return np.where((rows.categories < 0) & scored, derived, rows.categories)
