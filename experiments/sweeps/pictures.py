"""The pictures of a sweep, each a PNG file beside its report."""

import itertools
import math
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np

from experiments.pages.drawing import INK, STYLE, shorten, subplots

_COLOURS = {
    "regression": "#3b7dc4",
    "classification": "#d9822b",
    "imbalance": "#8a63b8",
    "alpha": "#2f9e77",
    "beta": "#c2527d",
}
_BETTER, _WORSE, _OPEN = "#2f9e63", "#cc4b44", "#7d8590"

# Panel title -> the names of curves that belong in it: a prefix, or the names themselves.
_PANELS = {
    "λ": ("lambda_",),
    "w": ("weight_",),
    "α, β": ("alpha", "beta"),
    "coefficient": ("coefficient_",),
    "loss": ("loss_",),
    "gradient norm": ("gradient_norm_",),
}
_WEIGHTS = ("λ", "w", "α, β")


class Difference(NamedTuple):
    """A row of a forest plot: a method's difference, its interval, and what was settled."""

    method: str
    difference: float
    low: float
    high: float
    by_seed: list[float | None]
    mark: str


def forest(path: Path, rows: list[Difference], label: str) -> None:
    """Draws differences to the baseline with their intervals, and those of each seed.

    Args:
      path: of the PNG file.
      rows: one a method, from the top.
      label: of the axis.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = subplots(figsize=(7.4, 1.0 + 0.3 * len(rows)), layout="constrained")
        axes.axvline(0, color=INK, linewidth=0.9)
        for y, row in enumerate(rows):
            colour = {"better": _BETTER, "worse": _WORSE}.get(row.mark, _OPEN)
            axes.plot([row.low, row.high], [y, y], color=colour, linewidth=2)
            known = [value for value in row.by_seed if value is not None]
            axes.scatter(known, [y + 0.26] * len(known), s=7, color=_OPEN, alpha=0.7, linewidths=0)
            fill = colour if row.mark else "none"
            axes.scatter([row.difference], [y], s=34, color=fill, edgecolors=colour, zorder=3)
        axes.set(yticks=range(len(rows)), yticklabels=[shorten(row.method) for row in rows])
        axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel=label)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        _finish(figure, path)


def draw_steps(path: Path, by_method: dict[str, dict[str, dict]]) -> bool:
    """Draws how weights moved over the steps: a row a method, a column a quantity.

    Args:
      path: of the PNG file.
      by_method: method -> curve -> step, mean, low, high; methods without weights that move
        are left out.

    Returns:
      Whether there is a file: not where no method has any.
    """
    panels = {
        method: {title: _members(found, names) for title, names in _PANELS.items()}
        for method, found in by_method.items()
    }
    panels = {m: p for m, p in panels.items() if any(p[title] for title in _WEIGHTS)}
    columns = [title for title in _PANELS if any(p[title] for p in panels.values())]
    if not panels:
        return False
    with matplotlib.rc_context(STYLE | {"font.size": 8}):
        # Placed by hand: a solver's time grows with the square of the panels.
        width, height = 2.0 * len(columns) + 0.6, 1.5 * len(panels) + 1.15
        figure, grid = subplots(
            len(panels), len(columns), figsize=(width, height), sharex=True, squeeze=False
        )
        figure.subplots_adjust(
            left=0.5 / width,
            right=1 - 0.1 / width,
            top=1 - 0.5 / height,
            bottom=0.7 / height,
            wspace=0.35,
            hspace=0.5,
        )
        drawn = {}
        for row, (method, found) in enumerate(panels.items()):
            for column, title in enumerate(columns):
                axes = grid[row, column]
                if not found[title]:
                    axes.axis("off")
                for name in found[title]:
                    key, line = _curve(axes, name, by_method[method][name])
                    drawn[key] = line
                if row == 0:
                    axes.set_title(title)
                if title in ("λ", "w"):
                    axes.set_ylim(-0.03, 1.03)
                axes.locator_params(axis="x", nbins=4)
                axes.locator_params(axis="y", nbins=4)
            # Over the row, not on an axis, of which the first may be empty.
            grid[row, 0].annotate(
                shorten(method, 60),
                (0, 1),
                (0, 19 if row == 0 else 5),
                xycoords="axes fraction",
                textcoords="offset points",
                weight="bold",
                annotation_clip=False,
            )
        for axes in grid[-1]:
            axes.set_xlabel("step")
        order = [key for key in _COLOURS if key in drawn] + [k for k in drawn if k not in _COLOURS]
        figure.legend(
            [drawn[key] for key in order], order, loc="lower center", ncols=min(5, len(order))
        )
        _finish(figure, path)
    return True


def against_axis(
    path: Path,
    label: str,
    panels: dict[str, list[tuple[float, list]]],
    beside: dict[str, tuple[str, float, list]] | None = None,
) -> bool:
    """Draws metrics against the scale that the methods are points of.

    Args:
      path: of the PNG file.
      label: of the scale.
      panels: metric -> (number, values of the seeds) a method.
      beside: metric -> (name, number, values of the seeds) of a method that is no point of the
        scale: a star at its number, and a line at its mean.

    Returns:
      Whether there is a file: not where there is no value.
    """
    kept = {}
    for title, points in panels.items():
        points = [(x, [v for v in values if v is not None]) for x, values in points]
        points = sorted((x, values) for x, values in points if values)
        if points:
            kept[title] = points
    if not kept:
        return False
    numbers = sorted({x for points in kept.values() for x, _ in points})
    with matplotlib.rc_context(STYLE):
        rows, columns = math.ceil(len(kept) / 2), min(2, len(kept))
        figure, grid = subplots(
            rows, columns, figsize=(3.7 * columns, 2.5 * rows), squeeze=False, layout="constrained"
        )
        for axes in grid.flat[len(kept) :]:
            axes.axis("off")
        for axes, (title, points) in zip(grid.flat, kept.items(), strict=False):
            xs = [x for x, _ in points]
            means = [np.mean(values) for _, values in points]
            axes.vlines(
                xs,
                [min(values) for _, values in points],
                [max(values) for _, values in points],
                color=_COLOURS["regression"],
                alpha=0.35,
                linewidth=4,
            )
            for x, values in points:
                axes.scatter([x] * len(values), values, s=9, color=_OPEN, linewidths=0, zorder=2)
            # A line only where each number is one method's.
            style = "-" if len(set(xs)) == len(xs) else "none"
            axes.plot(xs, means, "o", linestyle=style, color=_COLOURS["regression"], markersize=5)
            if numbers[0] > 0 and numbers[-1] >= 4 * numbers[0]:
                axes.set_xscale("log", base=2)
            if beside and title in beside:
                _star(axes, *beside[title])
            if len(numbers) <= 8:
                axes.set_xticks(numbers, [f"{x:g}" for x in numbers])
                axes.minorticks_off()
            axes.set(title=title, xlabel=label)
            axes.margins(x=0.1, y=0.15)
        _finish(figure, path)
    return True


def draw_weights(path: Path, by_step: dict[str, dict], by_epoch: dict[str, list]) -> bool:
    """Draws the papers' figure 6: the classification's weight by batch, both tasks' by epoch.

    Args:
      path: of the PNG file.
      by_step: curve -> step, mean, low, high.
      by_epoch: curve -> one value an epoch.

    Returns:
      Whether there is a file: not where no weight was logged.
    """
    tasks = ("regression", "classification")
    if not all(f"weight_{task}" in by_step and f"weight_{task}" in by_epoch for task in tasks):
        return False
    with matplotlib.rc_context(STYLE):
        figure, (top, low) = subplots(2, 1, figsize=(7.4, 5.0), layout="constrained")
        _curve(top, "weight_classification", by_step["weight_classification"])
        top.set(title="Weight of the classification by batch", xlabel="batch", ylabel="w")
        for task in tasks:
            values = by_epoch[f"weight_{task}"]
            epochs = range(1, len(values) + 1)
            style = {"color": _COLOURS[task], "marker": "o", "markersize": 3.5}
            low.plot(epochs, values, label=task, **style)
        low.set(title="Mean weights of both tasks by epoch", xlabel="epoch", ylabel="mean w")
        low.legend()
        for axes in (top, low):
            axes.set_ylim(-0.03, 1.03)
        low.xaxis.get_major_locator().set_params(integer=True)
        _finish(figure, path)
    return True


def draw_thresholds(path: Path, edges: list, counts: list, by_stratifier: dict[str, list]) -> None:
    """Draws the histogram of scores and, below it, where each stratifier cuts.

    Args:
      path: of the PNG file.
      edges: (bins + 1,) of the histogram.
      counts: (bins,).
      by_stratifier: name -> thresholds.
    """
    names = list(by_stratifier)
    with matplotlib.rc_context(STYLE):
        height = 0.32 * len(names) + 0.5
        figure, (top, low) = subplots(
            2,
            1,
            sharex=True,
            figsize=(7.4, 2.1 + height),
            height_ratios=(2.1, height),
            layout="constrained",
        )
        top.stairs(counts, edges, fill=True, color=_COLOURS["regression"], alpha=0.55)
        top.set(ylabel="rows")
        first, last = min(edges[0], -1), max(edges[-1], 1)
        for y, name in enumerate(names):
            cuts = [first, *by_stratifier[name], last]
            for k, (left, right) in enumerate(itertools.pairwise(cuts)):
                low.barh(
                    y,
                    right - left,
                    left=left,
                    height=0.62,
                    color=_COLOURS["regression"],
                    alpha=0.2 if k % 2 == 0 else 0.5,
                    linewidth=0,
                )
            low.scatter(by_stratifier[name], [y] * (len(cuts) - 2), marker="|", s=130, color=INK)
        low.set(yticks=range(len(names)), yticklabels=[shorten(name) for name in names])
        low.set(ylim=(len(names) - 0.4, -0.6), xlim=(first, last), xlabel="score")
        low.grid(axis="y", visible=False)
        low.tick_params(axis="y", length=0)
        _finish(figure, path)


def _star(axes, name, number, values):
    known = [value for value in values if value is not None]
    if known:
        colour, mean = _COLOURS["classification"], float(np.mean(known))
        axes.axhline(mean, color=colour, linewidth=0.9, linestyle="--")
        axes.scatter([number] * len(known), known, s=9, color=_OPEN, linewidths=0, zorder=2)
        axes.plot([number], [mean], "*", color=colour, markersize=11, label=name)
        axes.legend(handlelength=1.2)


def _members(found, names):
    return [name for name in found if any(name == n or name.startswith(n) for n in names)]


def _curve(axes, name, curve):
    prefixes = [start for names in _PANELS.values() for start in names if start.endswith("_")]
    key = name.removeprefix(next((start for start in prefixes if name.startswith(start)), ""))
    step = np.asarray(curve["step"], float)
    # None, where a value is missing, becomes NaN.
    mean, low, high = (np.asarray(curve[part], float) for part in ("mean", "low", "high"))
    colour = _COLOURS.get(key, f"C{sum(map(ord, key)) % 10}")
    axes.fill_between(step, low, high, color=colour, alpha=0.22, linewidth=0, zorder=1)
    (line,) = axes.plot(step, mean, color=colour, linewidth=1.2)
    return key, line


def _finish(figure, path):
    # For pages of unknown background, so it brings its own.
    figure.savefig(path, dpi=110, facecolor="white")
