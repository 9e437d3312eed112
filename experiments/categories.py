"""What the K categories of a run are called."""

import itertools

from experiments.corpus import Corpus
from experiments.trained import Trained


def intervals(run: Trained | Corpus) -> list[str] | None:
    """Writes each category's scores, such as "(-0.20, 0.15]"; None where there are none."""
    if run.thresholds is None:
        return None
    edges = ["-1", *(f"{value:+.3f}" for value in run.thresholds), "+1"]
    return [
        f"{'(' if k else '['}{low}, {high}]"
        for k, (low, high) in enumerate(itertools.pairwise(edges))
    ]


def labels(run: Trained) -> list[str]:
    """Returns the names that the run was given, else "0" and so on with their intervals."""
    if run.config.category_names:
        return list(run.config.category_names)
    ranges = intervals(run)
    numbers = map(str, range(run.config.num_classes))
    return [f"{k} {ranges[int(k)]}" if ranges else k for k in numbers]
