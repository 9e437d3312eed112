"""What runs predicted, and how far off they are: blocks of a page."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dwa_jax.finetune import categories
from dwa_jax.finetune.predictions_file import SplitPredictions
from experiments.pages.document import (
    DASH,
    Block,
    Box,
    Cell,
    Figure,
    Gallery,
    Heading,
    Paragraph,
    Table,
)
from experiments.pages.formatting import MINUS, fixed, places, signed
from experiments.reports import pictures
from experiments.reports.folder import RunFolder, as_float
from experiments.reports.training import headings

WORST = 20
_LONGEST = 400  # characters of a text that are shown
_METRICS = {
    "mse": "MSE",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R²",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "cosine": "cosine",
    "balanced_mse": "balanced MSE",
    "accuracy": "accuracy",
    "precision_weighted": "precision, weighted",
    "recall_weighted": "recall, weighted",
    "f1_weighted": "F1, weighted",
    "f1_macro": "F1, macro",
    "quadratic_weighted_kappa": "kappa, quadratic weights",
    "category_distance": "category distance",
    "category_distance_macro": "category distance, macro",
    "expected_calibration_error": "calibration error",
    "interval_coverage": "intervals that hold the score",
    "interval_width": "mean width of intervals",
}
_ERRORS = ("mse", "mae", "rmse", "balanced_mse")
_STEPWISE = "no predictions.csv yet"


def results(runs: Sequence[RunFolder]) -> list:
    """Tabulates the metrics: of what each run is judged by, and of its other splits."""
    blocks: list[Block] = [Heading(2, "Results")]
    columns = [
        (head, run.graded_on, run.graded) for head, run in zip(headings(runs), runs, strict=True)
    ]
    blocks.append(_metrics(columns, "One run each: a difference may be the seed's as well."))
    for head, run in zip(headings(runs), runs, strict=True):
        if folds := (run.summary or {}).get("folds"):
            blocks.append(_over_folds(head, folds))
    others = []
    for head, run in zip(headings(runs), runs, strict=True):
        summary = run.summary or {}
        if summary.get("test") and summary.get("validation"):
            others.append((head, "validation split", summary["validation"]))
        for name, found in (summary.get("also_tested") or {}).items():
            others.append((head, name, found))
    if others:
        title = "On the validation split, and on other files"
        blocks.append(Box(title, [_metrics(others, "")], folded=True))
    return blocks


def _over_folds(head, folds):
    rows = []
    for key, title in _METRICS.items():
        numbers = folds["metrics"].get(key, {})
        mean, *others = [
            as_float(numbers.get(name)) for name in ("mean", "standard_deviation", "low", "high")
        ]
        if np.isfinite(mean):
            decimals = places(mean) if key in _ERRORS else 3
            rows.append([Cell(title), *(Cell(fixed(x, decimals)) for x in (mean, *others))])
    caption = (
        f"{head}: test metrics over {len(folds['each'])} folds. From, to: {folds['interval']}. The "
        f"model is that of fold {folds['kept']}, best by the {folds['kept_by']}."
    )
    return Table(["metric", "mean", "standard deviation", "from", "to"], rows, caption)


def _metrics(columns, caption):
    rows = []
    for key, title in _METRICS.items():
        values = [as_float(metrics.get(key)) for _, _, metrics in columns]
        if not np.isfinite(values).any():
            continue
        decimals = 3
        if key in _ERRORS:
            decimals = places(min(value for value in values if np.isfinite(value)))
        rows.append([Cell(title), *(Cell(fixed(value, decimals)) for value in values)])
    if not rows:
        return Paragraph("No run was evaluated yet.")
    graded = [Cell("graded on"), *(Cell(split) for _, split, _ in columns)]
    head = ["metric", *(head for head, _, _ in columns)]
    return Table(head, [graded, *rows], caption if len(columns) > 1 else "")


def scores(runs: Sequence[RunFolder]) -> list:
    """Draws true and predicted scores with the thresholds, and tabulates these."""
    looks = pictures.looks([run.name for run in runs])
    blocks: list[Block] = [Heading(2, "Scores and thresholds")]
    figures = []
    for i, (run, look) in enumerate(zip(runs, looks, strict=True)):
        rows = run.predictions
        if rows is None:
            continue
        true = rows.scores[np.isfinite(rows.scores)]
        predicted = rows.predicted_scores[np.isfinite(rows.predicted_scores)]
        if not true.size and not predicted.size:
            continue
        svg = pictures.draw_scores(f"scores-{i}", look, true, predicted, run.thresholds)
        caption = f"{run.split}: {len(true)} true scores, {len(predicted)} predicted."
        caption += _beyond(predicted)
        alt = f"Histogram of true and predicted scores, {look.label}, {caption}"
        figures.append(Figure(f"scores-{i}", svg, alt, caption))
    if not figures:
        return [*blocks, Paragraph(f"No run has scores to show: {_STEPWISE}, or none in it.")]
    blocks.append(
        Paragraph(
            "The thresholds were fitted to the scores of the training split, which a run's folder "
            "does not keep; the histograms are of the rows that the run predicted."
        )
    )
    blocks.append(Gallery(figures))
    ranges = [categories.intervals(run.thresholds) for run in runs]
    if any(ranges):
        table = []
        for k in range(max(len(found) for found in ranges if found)):
            texts = [found[k] if found and k < len(found) else DASH for found in ranges]
            cells = [Cell(text.replace("-", MINUS)) for text in texts]
            table.append([Cell(_class_name(runs, k)), *cells])
        stratifiers = [str(run.config.get("stratifier", DASH)) for run in runs]
        table.append([Cell("stratifier"), *map(Cell, stratifiers)])
        blocks.append(Table(["class", *headings(runs)], table))
    return blocks


def _beyond(predicted):
    far = int((np.abs(predicted) > pictures.REACH).sum())
    return f" {far} predicted beyond ±{pictures.REACH:g} are drawn there." if far else ""


def _class_name(runs, k):
    """The class's number, and its name where all runs that have it agree."""
    names = {_names(run)[k] for run in runs if k < run.config["num_classes"]}
    name = names.pop() if len(names) == 1 else ""
    return f"{k} {name}".rstrip()


def _names(run):
    names = run.config.get("category_names") or []
    return [str(name) for name in names] or [""] * run.config["num_classes"]


def predicted_vs_true(runs: Sequence[RunFolder]) -> list:
    """Draws predicted over true scores, a picture a run."""
    looks = pictures.looks([run.name for run in runs])
    figures = []
    for i, (run, look) in enumerate(zip(runs, looks, strict=True)):
        rows, errors = run.predictions, run.errors
        if rows is None or errors is None or not np.isfinite(errors).any():
            continue
        known = np.isfinite(errors)
        true, predicted = rows.scores[known], rows.predicted_scores[known]
        svg = pictures.draw_predicted_vs_true(f"scatter-{i}", look, true, predicted)
        caption = f"{run.split}: {len(true)} rows"
        caption += f", {pictures.DOTS} of them drawn." if len(true) > pictures.DOTS else "."
        caption += _beyond(predicted)
        alt = f"Predicted over true scores, {look.label}, {caption}"
        figures.append(Figure(f"scatter-{i}", svg, alt, caption))
    if not figures:
        return []
    return [Heading(2, "Predicted and true scores"), Gallery(figures)]


def confusions(runs: Sequence[RunFolder]) -> list:
    """Draws the counts of true and predicted classes, a picture a run."""
    looks = pictures.looks([run.name for run in runs])
    figures, derived = [], False
    for i, (run, look) in enumerate(zip(runs, looks, strict=True)):
        matrix = run.graded.get("confusion")
        if not matrix or not np.sum(matrix):
            continue
        derived |= "classification" not in run.config.get("tasks", ())
        svg = pictures.confusion(f"confusion-{i}", look, matrix)
        counts = "; ".join(f"true {k}: {', '.join(map(str, row))}" for k, row in enumerate(matrix))
        alt = f"Confusion, {look.label}, {counts}"
        figures.append(Figure(f"confusion-{i}", svg, alt, f"{run.graded_on}."))
    if not figures:
        return []
    text = "Rows are true classes, columns predicted ones; the shade is the share of a true class."
    if derived:
        text += " A run without a classification task has its classes read off the predicted score."
    return [Heading(2, "Confusion"), Paragraph(text), Gallery(figures)]


def errors_by_class(runs: Sequence[RunFolder]) -> list:
    """Draws and tabulates the squared error of each true class."""
    looks = pictures.looks([run.name for run in runs])
    found = {}
    for run, look in zip(runs, looks, strict=True):
        values = [as_float(value) for value in run.graded.get("mse_by_class") or []]
        if np.isfinite(values).any():
            found[look] = values
    if not found:
        return []
    svg = pictures.by_class("mse-by-class", "MSE by true class", list(found.items()))
    alt = f"Mean squared error of each true class: {', '.join(look.label for look in found)}"
    rows = []
    for k in range(max(map(len, found.values()))):
        row = [Cell(_class_name(runs, k))]
        for run, look in zip(runs, looks, strict=True):
            errors, counts = found.get(look), run.class_counts()
            if errors is None or k >= len(errors):
                row.append(Cell(DASH))
                continue
            detail = f"{counts[k]} rows" if counts else ""
            row.append(Cell(fixed(errors[k], places(errors[k])), detail=detail))
        rows.append(row)
    caption = "Mean squared error of the score over the rows of a true class, and how many they are"
    splits = dict.fromkeys(
        run.graded_on for run, look in zip(runs, looks, strict=True) if look in found
    )
    table = Table(["class", *headings(runs)], rows, f"{caption}: {', '.join(splits)}.")
    figure = Figure("mse-by-class", svg, alt, "")
    return [Heading(2, "Errors by class"), Gallery([figure]), table]


class Worst(NamedTuple):
    """The rows that a run predicted worst, and by what: "error" or "mistake"."""

    rows: np.ndarray
    by: str


def find_worst(rows: SplitPredictions) -> Worst:
    """Finds the rows that were predicted worst.

    Args:
      rows: of the run.

    Returns:
      At most 20 places: those of the largest absolute error of the score; where no row has
      one, those whose category is wrong, the surest first.
    """
    error = np.abs(rows.predicted_scores - rows.scores)
    known = np.flatnonzero(np.isfinite(error))
    if known.size:
        return Worst(known[np.argsort(-error[known], kind="stable")][:WORST], "error")
    wrong = (rows.categories >= 0) & (rows.categories != rows.predicted_categories)
    places = np.flatnonzero(wrong)
    if rows.probabilities is not None:
        sure = rows.probabilities[places, rows.predicted_categories[places]]
        places = places[np.argsort(-sure, kind="stable")]
    return Worst(places[:WORST], "mistake")


def worst(runs: Sequence[RunFolder]) -> list:
    """Tabulates each run's worst predictions, with their texts."""
    blocks: list[Block] = [Heading(2, f"The worst {WORST} predictions")]
    for head, run in zip(headings(runs), runs, strict=True):
        inner: list[Block]
        if run.predictions is None:
            inner = [Paragraph(f"There is {_STEPWISE}: it is written once the run has ended.")]
        else:
            inner = _worst_rows(run)
        blocks += inner if len(runs) == 1 else [Box(head, inner, folded=True)]
    return blocks


def _worst_rows(run):
    rows, found = run.predictions, find_worst(run.predictions)
    if not found.rows.size:
        return [Paragraph(f"No row of the {run.split} has a label that was missed.")]
    names = _names(run)

    def category(k):
        name = names[k] if 0 <= k < len(names) else ""
        return Cell(f"{k} {name}".rstrip() if k >= 0 else DASH)

    table = []
    for i in found.rows:
        text, true, predicted = rows.texts[i], rows.scores[i], rows.predicted_scores[i]
        classes = [category(rows.categories[i]), category(rows.predicted_categories[i])]
        if found.by == "error":
            first = signed(predicted - true, 3)
            classes = [Cell(signed(true, 3)), Cell(signed(predicted, 3)), *classes]
        elif rows.probabilities is not None:
            first = fixed(rows.probabilities[i, rows.predicted_categories[i]], 3)
        else:
            first = DASH
        table.append([Cell(first), Cell(_cut(text)), *classes])
    head = ["error", "text", "score", "predicted score", "class", "predicted class"]
    if found.by != "error":
        head = ["probability", "text", "class", "predicted class"]
    missing = int(np.isnan(rows.predicted_scores).sum()) if found.by == "error" else 0
    caption = f"Of the {len(rows.texts)} rows of the {run.split}, by "
    caption += (
        "the absolute error of the score."
        if found.by == "error"
        else "the probability of a wrong class."
    )
    if missing:
        caption += f" {missing} rows have no finite prediction, and are not among them."
    if any(len(rows.texts[i]) > _LONGEST for i in found.rows):
        caption += f" Texts are cut after {_LONGEST} characters."
    return [Table(head, table, caption, text_columns=2)]


def _cut(text):
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
