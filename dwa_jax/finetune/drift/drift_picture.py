"""The picture of what `watched.watch` found."""

from typing import TYPE_CHECKING

import numpy as np

from dwa_jax.finetune import plots
from dwa_jax.finetune.drift.watched import Compared
from dwa_jax.finetune.uncertainty import likeness
from dwa_jax.finetune.uncertainty.reference import Reference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BEFORE, _NOW = "#808890", "#c4672d"


def draw_drift(reference: Reference, seen: Compared) -> "Figure":
    """Draws lengths, scores, categories and distances of validation and later texts, and errors.

    Args:
      reference: of the run.
      seen: what came of looking.
    """
    before, now = reference.validation, seen.later
    far = likeness.of_reference(reference)
    figure = plots.new_figure(figsize=(9, 6), layout="constrained")
    panels = figure.subplots(2, 3).flat
    _shares(panels[0], before.lengths, now.lengths, "length, tokens")
    if np.isfinite(now.predicted_scores).all():
        edges = np.linspace(-1, 1, 21)
        _shares(panels[1], before.predicted_scores, now.predicted_scores, "predicted score", edges)
    else:
        panels[1].set_axis_off()
    top = max(before.predicted_categories.max(), now.predicted_categories.max()) + 1
    edges = np.arange(top + 1) - 0.5
    shown = before.predicted_categories, now.predicted_categories
    _shares(panels[2], *shown, "predicted category", edges)
    _shares(panels[3], far.distances(before.representations), seen.distances, "distance")
    panels[3].axvline(seen.limit, color="#b03030", linewidth=1, linestyle="--")
    panels[0].legend(fontsize=8)
    _line(panels[4], seen.windows, "unlike")
    names = ("mae", "accuracy", "mean_score")
    name = next((n for n in names if any(n in one for one in seen.windows)), "texts")
    _line(panels[5], seen.windows, name)
    alarms = ", ".join(seen.alarms)
    figure.suptitle(f"alarm: {alarms}" if alarms else "no alarm")
    return figure


def _shares(axes, before, now, title, edges=None):
    if edges is None:
        edges = np.histogram_bin_edges(np.concatenate([before, now]), 20)
    for values, colour, label in ((before, _BEFORE, "validation"), (now, _NOW, "later")):
        counts = np.histogram(values, edges)[0] / len(values)
        fill = colour == _BEFORE
        axes.stairs(counts, edges, fill=fill, color=colour, alpha=0.6 if fill else 1, label=label)
    axes.set(title=title, ylabel="share")
    axes.locator_params(axis="x", nbins=5)


def _line(axes, windows, name):
    values = [np.nan if one.get(name) is None else one[name] for one in windows]
    axes.plot(range(1, len(values) + 1), values, color=_NOW, marker="o")
    axes.set(title=f"{name.replace('_', ' ')}, over time", xlabel="part of the texts")
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
