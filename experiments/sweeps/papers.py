"""The papers' own numbers, and which sweep asks the question of which of their tables and figures.

papers.csv holds every row of tables 2 to 5 of "Dynamic Multi-Task Weight Adaptation for Efficient
Sentiment Analysis Fine-Tuning on LLMs" (OpenReview QIht9mksbL): MSE on scores in [-1, 1]; accuracy,
weighted precision and weighted F1 in percent; device memory in MiB; seconds for 100 epochs. They
are of the validation split of the best of 100 epochs, on texts that are not public (NEU, FXE,
INV: news of the EUR/USD rate).
"""

import csv
import statistics
from pathlib import Path
from typing import NamedTuple

_DWA = "Dynamic Multi-Task Weight Adaptation, OpenReview QIht9mksbL"

# What the texts state, and of what.
STATEMENTS = [
    {
        "what": "DWA over constant weights (.25 and .75), all of the trunk trained, mean of the "
        "nine cells of table 2: lower MSE",
        "figure": "12.36 %",
        "source": f"{_DWA}, abstract; its table gives 12.3 %",
    },
    {
        "what": "the same: higher accuracy",
        "figure": "1.41 %",
        "source": f"{_DWA}, abstract; of the accuracy itself, 1.07 points by its table",
    },
    {
        "what": "the same: time of a run",
        "figure": "1.62 times",
        "source": f"{_DWA}, table 2: 1.615 to 1.624 in its nine cells",
    },
    {
        "what": "the precursor (DAO), improvement in MSE over previous work",
        "figure": "15.58 %",
        "source": "arXiv 2408.11856, abstract",
    },
    {
        "what": "the precursor (DAO), improvement in accuracy over previous work",
        "figure": "1.24 %",
        "source": "arXiv 2408.11856, abstract",
    },
]

TABLES = {
    "2": "table2",
    "3": "table3",
    "4": "table4",
    "5": "table5",
    "a11": "table_a11",
    "a12": "table_a12",
    "a13": "table_a13",
}
FIGURES = {"2": "figure2", "3": "figure3", "6": "figure6"}

CONSTANT, DWA = "Constant", "DWA"  # of table 2, which both ratios are of
# Of figure 3: with DWA's weights, all in all.
FIGURE3_DWA = {"mse": 0.0188, "accuracy": 0.7737}


class PaperRow(NamedTuple):
    """A row of a table; None where the table has no such column.

    Attributes:
      table: "2" to "5".
      method: what the rows differ in: weights, rank or thresholds.
      model: the backbone.
      dataset: NEU, FXE or INV.
      epoch: the best one on validation, of 100.
      mse: of the score.
      acc: accuracy, percent.
      prec: weighted precision, percent.
      f1: weighted F1, percent.
      gpu_mib: device memory, MiB.
      time_s: seconds for 100 epochs.
      time_usage_percent: of the time of full fine-tuning.
      batch: rows a step.
    """

    table: str
    method: str
    model: str
    dataset: str
    epoch: float | None
    mse: float | None
    acc: float | None
    prec: float | None
    f1: float | None
    gpu_mib: float | None
    time_s: float | None
    time_usage_percent: float | None
    batch: float | None


def rows(table: str) -> list[PaperRow]:
    """Returns the rows of a table, none of one whose numbers are not public (a11 to a13).

    Full fine-tuning, which table 3 is to be set beside, is table 2's DWA.
    """
    with (Path(__file__).parent / "papers.csv").open(encoding="utf-8", newline="") as file:
        found = [_row(line) for line in csv.DictReader(file)]
    if table == "3":
        full = [row for row in found if (row.table, row.method) == ("2", DWA)]
        found += [row._replace(table="3", method="full", time_usage_percent=100.0) for row in full]
    return [row for row in found if row.table == table]


def ratios() -> tuple[float, float]:
    """Returns DWA's gain in MSE over constant weights in percent, and its time over theirs.

    Means over the nine cells of table 2.
    """
    by_cell: dict[tuple[str, str], dict[str, PaperRow]] = {}
    for row in rows("2"):
        by_cell.setdefault((row.model, row.dataset), {})[row.method] = row
    pairs = [(found[CONSTANT], found[DWA]) for found in by_cell.values()]

    def over(name):
        values = [(getattr(dwa, name), getattr(constant, name)) for constant, dwa in pairs]
        return statistics.fmean(ours / theirs for ours, theirs in values)

    # The gain is a mean of shares, as the abstract's is.
    return 100 * (1 - over("mse")), over("time_s")


def _row(line):
    values = [line[name] for name in PaperRow._fields]
    return PaperRow(*values[:4], *(float(value) if value else None for value in values[4:]))
