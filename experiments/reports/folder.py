"""Runs as their folders tell of them, finished or not: nothing here needs a checkpoint or JAX."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dwa_jax import plain_text, regular_files
from dwa_jax.finetune import predictions_file, run_folder, stored
from dwa_jax.finetune.predictions_file import SplitPredictions
from dwa_jax.finetune.run_records import MetricsFile


@dataclass(frozen=True)
class RunFolder:
    """A run's folder.

    Attributes:
      name: unlike those of the runs beside it.
      folder: where it is.
      config: the whole configuration.
      versions: package -> version that it began with.
      steps: the step records of metrics.jsonl.
      evaluations: the evaluation records, of the validation split after each epoch.
      skipped: updates that were left out.
      summary: summary.json, or None for a run that is not finished.
      predictions: predictions.csv, or None where there is none.
    """

    name: str
    folder: Path
    config: dict
    versions: dict
    steps: list[dict]
    evaluations: list[dict]
    skipped: int
    summary: dict | None
    predictions: SplitPredictions | None

    @property
    def split(self) -> str:
        """Names what `predictions` are of."""
        return f"{self.summary['predictions']} split" if self.summary else "predictions.csv"

    @property
    def graded(self) -> dict:
        """The metrics that the run is judged by: of `split`, or the last on validation so far."""
        if self.summary:
            return self.summary[self.summary["predictions"]]
        return self.evaluations[-1] if self.evaluations else {}

    @property
    def graded_on(self) -> str:
        """Names what `graded` is of."""
        if self.summary:
            return self.split
        if not self.evaluations:
            return "nothing yet"
        return f"validation split after epoch {self.evaluations[-1]['epoch']}"

    @property
    def thresholds(self) -> list[float] | None:
        """(K-1,) between the categories; None where no row had a score, or nobody knows yet."""
        return self.summary["thresholds"] if self.summary else None

    @property
    def errors(self) -> np.ndarray | None:
        """(N,) predicted minus true scores, NaN where either is missing."""
        rows = self.predictions
        return None if rows is None else rows.predicted_scores - rows.scores

    def class_counts(self) -> list[int] | None:
        """Counts the rows of each category: with a score, where scores are predicted."""
        matrix, rows = self.graded.get("confusion"), self.predictions
        if self.summary and rows is not None:
            counted = rows.categories >= 0
            if np.isfinite(rows.predicted_scores).any():
                counted &= ~np.isnan(rows.scores)
            return np.bincount(
                rows.categories[counted], minlength=self.config["num_classes"]
            ).tolist()
        return [sum(row) for row in matrix] if matrix else None


def as_float(value: object) -> float:
    """Returns a record's value as a number, NaN for null and whatever else is none."""
    return float(value) if isinstance(value, int | float) else math.nan


def read(folders: Sequence[Path]) -> list[RunFolder]:
    """Reads runs.

    Args:
      folders: at least one, none twice.

    Returns:
      The runs, in that order.

    Raises:
      ValueError: a folder holds no run, or a file of it is damaged; one line says which.
      OSError: a file cannot be read.
    """
    resolved = [folder.resolve() for folder in folders]
    for place, folder in enumerate(resolved):
        if folder in resolved[:place]:
            raise ValueError(f"--workdir names {folders[place]} twice")
    names = _names(resolved)
    return [_read(folder, name) for folder, name in zip(folders, names, strict=True)]


def _names(folders):
    """The last part of each path, and as many before it as make all of them differ."""
    for count in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-count:]) for folder in folders]
        if len(set(names)) == len(names):
            break
    return [plain_text.for_line(name) for name in names]


def _read(folder, name):
    path = folder / "config.json"
    if not regular_files.check_regular(path):
        raise ValueError(f"{folder} holds no run: there is no config.json")
    content = run_folder.read_object(path)
    config, versions = content.get("config"), content.get("versions", {})
    if not isinstance(config, dict) or not isinstance(config.get("num_classes"), int):
        raise ValueError(f"{path} is damaged: it has no config, or one without num_classes")
    if not isinstance(versions, dict):
        raise ValueError(f"{path} is damaged: versions are no names and values")
    # It may be another version's: keys that are not known here are shown, where they can be.
    known = run_folder.stored_config(path, config)
    config = {
        key: value
        for key, value in config.items()
        if key in known.to_dict() or not isinstance(value, dict | list)
    }
    summary = _summary(folder / "summary.json", config["num_classes"])
    logged = folder
    if summary and "folds" in summary and not regular_files.check_regular(folder / "metrics.jsonl"):
        logged = run_folder.fold_folder(folder, summary["folds"]["kept"])
        for part in (logged.parent, logged):
            regular_files.check_real_folder(part)
    records = MetricsFile(logged / "metrics.jsonl").read()
    for line, record in enumerate(records, 1):
        if record["kind"] == "evaluation":
            where = f"line {line} of {logged / 'metrics.jsonl'}"
            stored.check_metrics(record, where, config["num_classes"])
    kinds = {
        kind: [record for record in records if record["kind"] == kind]
        for kind in ("step", "evaluation", "skipped")
    }
    rows = folder / "predictions.csv"
    return RunFolder(
        name=name,
        folder=folder,
        config=config,
        versions=versions,
        steps=kinds["step"],
        evaluations=kinds["evaluation"],
        skipped=len(kinds["skipped"]),
        summary=summary,
        predictions=predictions_file.read_predictions(rows, config["num_classes"])
        if regular_files.check_regular(rows)
        else None,
    )


def _summary(path, num_classes):
    if not regular_files.check_regular(path):
        return None
    summary = run_folder.read_object(path)
    stored.check_summary(summary, path, num_classes)
    return summary


def same_rows(one: SplitPredictions, other: SplitPredictions) -> bool:
    """Says whether two runs predicted the same texts and scores."""
    return one.texts == other.texts and np.array_equal(one.scores, other.scores, True)


def same_classes(one: SplitPredictions, other: SplitPredictions) -> bool:
    """Says whether the same rows have the same true categories in two runs."""
    return np.array_equal(one.categories, other.categories)
