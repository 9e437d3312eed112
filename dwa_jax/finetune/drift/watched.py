"""Looks at later texts with a trained model, and says whether it still fits.

>>> seen = watched.watch(model, rows, categories)
>>> seen.alarms

Axis: N texts.
"""

from typing import Any, NamedTuple

import numpy as np

from dwa_jax import data
from dwa_jax.finetune.drift.shifts import LEVEL, Shift, compare_with_run
from dwa_jax.finetune.drift.windows import over_time
from dwa_jax.finetune.predictor import Predictor
from dwa_jax.finetune.uncertainty import conformal
from dwa_jax.finetune.uncertainty import reference as references
from dwa_jax.finetune.uncertainty.reference import KeptRows

# Texts that are compared: with a hundred times as many a difference that matters to nobody shows.
MOST = references.MOST


class Compared(NamedTuple):
    """What came of looking.

    Attributes:
      later: the texts that were looked at.
      distances: (N,) to the training texts, see `uncertainty.likeness`.
      limit: of a distance, beyond which a text is unlike them.
      shifts: a test each.
      windows: from `over_time`.
      level: of all tests together.
    """

    later: KeptRows
    distances: np.ndarray
    limit: float
    shifts: list[Shift]
    windows: list[dict[str, Any]]
    level: float

    @property
    def alarms(self) -> list[str]:
        """Names of the tests that speak against texts that have not changed."""
        return [one.name for one in self.shifts if one.corrected < self.level]

    def to_dict(self) -> dict[str, Any]:
        """Returns what JSON holds of it."""
        return {
            "texts": len(self.distances),
            "level": self.level,
            "alarms": self.alarms,
            "tests": [one._asdict() for one in self.shifts],
            "unlike": float((self.distances > self.limit).mean()),
            "over_time": self.windows,
        }


def watch(
    model: Predictor,
    rows: data.Rows,
    categories: np.ndarray,
    *,
    most: int = MOST,
    level: float = LEVEL,
) -> Compared:
    """Compares texts with those that a model was trained and validated on.

    Args:
      model: a trained one.
      rows: texts in order, with scores where there are some.
      categories: (N,) of the rows, -1 where missing.
      most: rows that are looked at; of more, so many are drawn by the run's seed.
      level: probability of an alarm about texts that have not changed.

    Raises:
      ValueError: the run keeps nothing to compare with, or no text has a token.
    """
    run, far = model.run, model.likeness
    if run.reference is None or far is None:
        raise ValueError(
            f"{run.folder} keeps nothing of its rows ({references.FILE}), as runs of earlier "
            "versions do; train it again"
        )
    drawn = np.arange(len(rows))
    if len(rows) > most:
        drawn = np.sort(np.random.default_rng(run.config.seed).permutation(len(rows))[:most])
    part = rows.take(drawn)
    encoded = model.tokens(part.texts, part.origin, allow_wordless=True)
    good = np.flatnonzero(~encoded.wordless)
    if not len(good):
        raise ValueError("none of the texts has a token that this tokenizer knows")
    ids = encoded.ids.take(good)
    later = model.observe(ids, part.scores[good], np.asarray(categories)[drawn][good])
    distances = far.distances(later.representations)
    tasks = [task.name for task in run.tasks]
    windows = over_time(
        later, distances > far.limit, _inside(model, later), tasks, run.config.num_classes
    )
    shifts = compare_with_run(run.reference, later)
    return Compared(later, distances, far.limit, shifts, windows, level)


def _inside(model, later):
    # 1 where the interval holds the true score, 0 where not, nan where there is none.
    found = model.fit_intervals()
    if found is None:
        return np.full(len(later.scores), np.nan)
    around = found.around(later.predicted_scores, later.predicted_categories, later.lengths)
    held = conformal.is_inside(around, later.scores).astype(float)
    return np.where(np.isnan(later.scores), np.nan, held)
