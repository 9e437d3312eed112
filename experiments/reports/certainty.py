"""How sure runs are, and whether they may be: blocks of a page."""

from collections.abc import Sequence

import numpy as np

from dwa_jax.finetune.uncertainty.calibration import reliability_curves
from experiments.pages.document import DASH, Block, Cell, Figure, Gallery, Heading, Paragraph, Table
from experiments.pages.formatting import fixed
from experiments.reports import pictures
from experiments.reports.folder import RunFolder, as_float
from experiments.reports.training import headings


def how_sure(runs: Sequence[RunFolder]) -> list:
    """Tabulates intervals and calibration, and draws a reliability diagram a run."""
    looks = pictures.looks([run.name for run in runs])
    rows, figures = [], []
    for i, (head, run, look) in enumerate(zip(headings(runs), runs, looks, strict=True)):
        summary, found = run.summary or {}, run.predictions
        covered, width = (
            as_float(run.graded.get(name)) for name in ("interval_coverage", "interval_width")
        )
        temperature = summary.get("temperature")
        curves = {}
        if found is not None:
            curves = reliability_curves(found.probabilities, found.categories, temperature)
        if curves:
            errors = [f"{name} {fixed(one.error, 3)}" for name, one in curves.items()]
            alt = f"Reliability diagram, {look.label}, {run.split}, error {'; '.join(errors)}"
            svg = pictures.draw_reliability(f"reliability-{i}", look, curves)
            figures.append(Figure(f"reliability-{i}", svg, alt, f"{run.split}: {_counted(curves)}"))
        if curves or np.isfinite(width):
            rows.append([Cell(head), *_cells(run, covered, width, temperature, curves)])
    if not rows:
        return []
    columns = ["run", "intervals", "to hold", "held", "mean width", "temperature"]
    columns += ["calibration error", "without temperature"]
    blocks: list[Block] = [Heading(2, "How sure")]
    blocks.append(
        Paragraph(
            "An interval is made from the errors on the validation rows so that it holds the true "
            "score as often as the run's coverage says; held is how often it did on the rows here. "
            "The calibration error is the mean distance, over rows, of how sure the model is of "
            "its class from how often it is right."
        )
    )
    blocks.append(Table(columns, rows))
    return [*blocks, Gallery(figures)] if figures else blocks


def _counted(curves):
    count = int(curves["as predicted"].counts.sum())
    return f"{count} rows; the larger a mark, the more of them."


def _cells(run, covered, width, temperature, curves):
    intervals = np.isfinite(width)
    config = run.config
    errors = [curves[name].error if name in curves else np.nan for name in _CURVES]
    return [
        Cell(str(config.get("intervals", DASH)) if intervals else DASH),
        Cell(fixed(as_float(config.get("coverage")), 2) if intervals else DASH),
        Cell(fixed(covered, 3)),
        Cell(fixed(width, 3)),
        Cell(DASH if temperature is None else fixed(temperature, 2)),
        *(Cell(fixed(error, 3)) for error in errors),
    ]


_CURVES = ("as predicted", "without temperature")
