"""The pictures of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dwa_jax.atomic_files import replacing
from dwa_jax.finetune.predictions_file import SplitPredictions
from dwa_jax.finetune.uncertainty.calibration import reliability_curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TASKS = ("regression", "classification")
# Of the histogram of scores.
_EDGES = np.linspace(-1, 1, 41)


def new_figure(**options: Any) -> "Figure":
    """Makes an empty figure; takes what matplotlib's own takes."""
    # Not pyplot, whose backend is the caller's: a notebook shows pictures of its own. Here, because
    # it would be a quarter of all imports of a start that draws nothing.
    from matplotlib.figure import Figure

    return Figure(**options)


def histogram(scores: np.ndarray) -> list[int]:
    """Counts scores in 40 bins of equal width over [-1, 1]; nan is left out."""
    return np.histogram(scores[~np.isnan(scores)], _EDGES)[0].tolist()


def _score_distribution(histogram, thresholds, counts):
    # The training scores' histogram, the thresholds and the share of each class.
    figure = new_figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.hist(_EDGES[:-1], bins=_EDGES.tolist(), weights=histogram, color="#8fb3d9")
    edges = [-1, *thresholds, 1]
    for threshold in thresholds:
        axes.axvline(threshold, color="#b03030", linestyle="--", linewidth=1)
    top = axes.get_ylim()[1]
    axes.set_ylim(0, 1.15 * top)
    for k, count in enumerate(counts):
        middle = (edges[k] + edges[k + 1]) / 2
        share = f"class {k}\n{count / sum(counts):.0%}"
        axes.text(middle, 1.13 * top, share, ha="center", va="top", fontsize=8)
    axes.set(xlim=(-1, 1), xlabel="score", ylabel="training rows", title="Scores and thresholds")
    return figure


def score_panels(
    train: Sequence[int], true: Sequence[int], predicted: Sequence[int], split: str
) -> "Figure":
    """Draws the papers' figure 2: training scores, true and predicted ones of a split, and all.

    Args:
      train: counts of `histogram`, of the training rows.
      true: of the rows of the split.
      predicted: of their predictions.
      split: its name.
    """
    parts = {
        "A  training scores": (train, "#4878a8"),
        f"B  {split} scores": (true, "#5a9e6f"),
        f"C  predictions on {split}": (predicted, "#c4672d"),
    }
    figure = new_figure(figsize=(8, 5.4))
    # Placed by hand, which costs a fifth of a solver's time: every run draws this.
    figure.subplots_adjust(0.08, 0.09, 0.98, 0.95, wspace=0.2, hspace=0.2)
    panels = figure.subplots(2, 2, sharex=True).flat
    for axes, (title, (counts, colour)) in zip(panels, parts.items(), strict=False):
        axes.stairs(counts, _EDGES, fill=True, color=colour, alpha=0.75)
        axes.set_title(title, loc="left", fontsize=9)
        axes.set_ylabel("rows")
    last = panels[3]
    for title, (counts, colour) in parts.items():
        # Densities, since the sets are of unlike size.
        density = np.asarray(counts) / max(sum(counts), 1) / np.diff(_EDGES)
        last.stairs(density, _EDGES, color=colour, linewidth=1.4, label=title[3:])
    last.set_title("D  the three together", loc="left", fontsize=9)
    last.set_ylabel("density")
    last.legend(fontsize=8)
    for axes in figure.axes:
        axes.grid(alpha=0.3)
        axes.set(xlim=(-1, 1), xticks=(-1, -0.5, 0, 0.5, 1))
    last.set_ylim(0, 1.35 * last.get_ylim()[1])
    for axes in figure.axes[2:]:
        axes.set_xlabel("score")
    return figure


def _curves(records, title, groups):
    # Quantities over steps, one panel a group {panel title: names}; those never recorded are
    # left out.
    groups = {
        panel: [name for name in names if any(name in record for record in records)]
        for panel, names in groups.items()
    }
    groups = {panel: names for panel, names in groups.items() if names}
    if not groups:
        return None
    figure = new_figure(figsize=(7, 2.4 * len(groups)), layout="constrained")
    all_axes = figure.subplots(len(groups), 1, sharex=True, squeeze=False)
    for axes, (panel, names) in zip(all_axes[:, 0], groups.items(), strict=True):
        for name in names:
            points = [(r["step"], r[name]) for r in records if r.get(name) is not None]
            label = name if len(names) == 1 else name.replace(f"{panel}_", "")
            axes.plot(*zip(*points, strict=True), label=label, linewidth=1)
        axes.set_title(panel, loc="left", fontsize=9)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    all_axes[-1, 0].set_xlabel("step")
    figure.suptitle(title)
    return figure


def _confusion(matrix, split):
    # Shade is the share of a true class.
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = new_figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for i, j in np.ndindex(counts.shape):
        colour = "white" if shares[i, j] > 0.5 else "black"
        axes.text(j, i, str(counts[i, j]), ha="center", va="center", color=colour)
    ticks = range(len(counts))
    axes.set(
        xticks=ticks,
        yticks=ticks,
        xlabel="predicted class",
        ylabel="true class",
        title=f"Confusion, {split}",
    )
    return figure


def _predicted_vs_true(true, predicted, split):
    figure = new_figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    low, high = min(-1.0, predicted.min(initial=0)), max(1.0, predicted.max(initial=0))
    axes.plot([-1, 1], [-1, 1], color="#b03030", linewidth=1)
    axes.scatter(true, predicted, s=10, alpha=0.5, edgecolors="none")
    axes.set(
        xlim=(-1.02, 1.02),
        ylim=(low - 0.02, high + 0.02),
        xlabel="true score",
        ylabel="predicted score",
        title=f"Scores, {split}",
    )
    axes.grid(alpha=0.3)
    return figure


def _reliability(curves, split):
    # Area of a dot is its share of the rows.
    figure = new_figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#b03030", linewidth=1)
    for (name, one), colour in zip(curves.items(), ("#4878a8", "#c4672d"), strict=False):
        label = f"{name}: error {one.error:.3f}"
        axes.plot(one.confidence, one.accuracy, color=colour, linewidth=1, label=label)
        size = 200 * one.counts / one.counts.sum() + 4
        axes.scatter(one.confidence, one.accuracy, s=size, color=colour)
    axes.set(
        xlim=(0, 1),
        ylim=(-0.02, 1.02),
        xlabel="probability of the predicted class",
        ylabel="share of rows whose class it is",
        title=f"Reliability, {split}",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left")
    return figure


def weights(records: Sequence[dict]) -> "Figure | None":
    """Draws how the tasks' weights moved over the logged steps; None where none was logged."""
    steps = [record for record in records if record["kind"] == "step"]
    panels = {
        name: [f"{name}_{task}" for task in _TASKS] for name in ("lambda", "weight", "coefficient")
    }
    panels |= {"alpha and beta": ["alpha", "beta"], "learning_rate": ["learning_rate"]}
    return _curves(steps, "Task weights", panels)


def draw(
    summary: Mapping, records: Sequence[dict], predictions: SplitPredictions | None
) -> dict[str, "Figure"]:
    """Draws every picture of a run.

    Args:
      summary: as in summary.json.
      records: those of metrics.jsonl.
      predictions: as in predictions.csv; None where that is gone.

    Returns:
      {"score_distribution", "losses", "weights", "confusion", "predicted_vs_true",
      "score_panels", "reliability": figure} without those that there is nothing for.
    """
    steps = [record for record in records if record["kind"] == "step"]
    figures: dict[str, Figure | None] = {}
    if summary["thresholds"] is not None and "score_histogram" in summary:
        figures["score_distribution"] = _score_distribution(
            summary["score_histogram"],
            summary["thresholds"],
            summary["rows"]["train"]["by_class"],
        )
    loss = {"loss": [f"loss_{name}" for name in ("regression", "classification", "imbalance")]}
    loss |= {"gradient_norm": [f"gradient_norm_{task}" for task in _TASKS]}
    figures["losses"] = _curves(steps, "Training losses and gradient norms", loss)
    figures["weights"] = weights(records)
    split = summary["predictions"]
    figures["confusion"] = _confusion(summary[split]["confusion"], split)
    if predictions is not None:
        true, predicted = predictions.scores, predictions.predicted_scores
        known = ~np.isnan(true) & np.isfinite(predicted)
        if known.any():
            figures["predicted_vs_true"] = _predicted_vs_true(true[known], predicted[known], split)
            if "score_histogram" in summary:
                shown = histogram(true[known]), histogram(np.clip(predicted[known], -1, 1))
                figures["score_panels"] = score_panels(summary["score_histogram"], *shown, split)
        curves = reliability_curves(
            predictions.probabilities, predictions.categories, summary.get("temperature")
        )
        if curves:
            figures["reliability"] = _reliability(curves, split)
    return {name: figure for name, figure in figures.items() if figure is not None}


def save(figures: Mapping[str, "Figure"], folder: Path) -> None:
    """Writes figures as folder/NAME.png.

    Raises:
      OSError: one cannot be written.
    """
    folder.mkdir(exist_ok=True)
    for name, figure in figures.items():
        with replacing(folder / f"{name}.png") as partial:
            figure.savefig(partial, dpi=120, format="png")
