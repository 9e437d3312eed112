"""The pictures of a run."""

from pathlib import Path

import numpy as np

# Not pyplot, whose backend is the caller's: a notebook shows pictures of its own.
from matplotlib.figure import Figure

from dwa_jax.finetune.run_folder import replacing


def score_distribution(path: Path, scores: np.ndarray, thresholds, counts) -> None:
    """Draws the training scores' histogram, the thresholds and the share of each class."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.hist(scores, bins=np.linspace(-1, 1, 41).tolist(), color="#8fb3d9")
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
    _save(figure, path)


def curves(path: Path, records: list[dict], title: str, groups: dict[str, list[str]]) -> None:
    """Draws quantities over steps, one panel a group.

    Args:
      path: the file.
      records: the step records of metrics.jsonl.
      title: of the picture.
      groups: panel title -> names of the quantities in it; those never recorded are left out.
    """
    groups = {
        panel: [name for name in names if any(name in record for record in records)]
        for panel, names in groups.items()
    }
    groups = {panel: names for panel, names in groups.items() if names}
    if not groups:
        return
    figure = Figure(figsize=(7, 2.4 * len(groups)), layout="constrained")
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
    _save(figure, path)


def confusion(path: Path, matrix: list[list[int]], split: str) -> None:
    """Draws the confusion matrix; shade is the share of a true class."""
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
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
    _save(figure, path)


def predicted_vs_true(path: Path, true: np.ndarray, predicted: np.ndarray, split: str) -> None:
    """Draws predicted over true scores."""
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
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
    _save(figure, path)


def _save(figure, path):
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120, format="png")


def draw_run(
    folder: Path, corpus, records: list[dict], result: dict, predictions: dict, split: str
) -> None:
    """Draws every picture of a run.

    Args:
      folder: where to; made if need be.
      corpus: its rows, categories and thresholds.
      records: the records of metrics.jsonl.
      result: the split's metrics.
      predictions: its predictions.
      split: its name.
    """
    folder.mkdir(exist_ok=True)
    steps = [record for record in records if record["kind"] == "step"]
    tasks = ("regression", "classification")
    if corpus.thresholds is not None:
        scores, categories = corpus.rows["train"].scores, corpus.categories["train"]
        counts = np.bincount(categories[categories >= 0], minlength=len(corpus.thresholds) + 1)
        score_distribution(
            folder / "score_distribution.png", scores[~np.isnan(scores)], corpus.thresholds, counts
        )
    loss = {"loss": [f"loss_{name}" for name in ("regression", "classification", "imbalance")]}
    loss |= {"gradient_norm": [f"gradient_norm_{task}" for task in tasks]}
    curves(folder / "losses.png", steps, "Training losses and gradient norms", loss)
    weights = {
        name: [f"{name}_{task}" for task in tasks] for name in ("lambda", "weight", "coefficient")
    }
    weights |= {"alpha and beta": ["alpha", "beta"], "learning_rate": ["learning_rate"]}
    curves(folder / "weights.png", steps, "Task weights", weights)
    confusion(folder / "confusion.png", result["confusion"], split)
    rows = corpus.rows[split]
    known = ~np.isnan(rows.scores) & np.isfinite(predictions["score"])
    if known.any():
        predicted_vs_true(
            folder / "predicted_vs_true.png", rows.scores[known], predictions["score"][known], split
        )
