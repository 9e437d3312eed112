"""The pictures of runs, as SVG to be set into a page. A colour and a marker stand for a run.

The colours are Okabe and Ito's, which the colour-blind tell apart (Color Universal Design, 2008).
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from dwa_jax.finetune.uncertainty.calibration import Reliability
from experiments.pages.drawing import INK, STYLE, shorten, to_svg
from experiments.pages.formatting import MINUS

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # one more, so that both repeat late
_DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1, 1, 1)))
_GREY = "#808890"
# Names come from people, who may mean a dollar by a dollar sign.
_STYLE = STYLE | {"font.size": 8.5, "axes.titlesize": 9, "text.parse_math": False}
_WIDTH = 4.0  # inches: the 384 pixels that a column of the page has
_LEFT = 0.66  # inches left of a plot, for its numbers and label
POINTS = 160  # a curve's; more are averaged
_MARKED = 12  # points, up to which each has its marker
DOTS = 1000  # of a scatter plot
REACH = 1.5  # scores beyond are drawn here
_NUMBERED = 12  # classes, up to which a confusion's counts are written


class Look(NamedTuple):
    """How a run is drawn, and what it is called where it is."""

    label: str
    colour: str
    marker: str


class Series(NamedTuple):
    """A curve: `values` (S,) over `steps` (S,), NaN where missing; `line` is the task's."""

    look: Look
    steps: Sequence[int] | np.ndarray
    values: Sequence[float] | np.ndarray
    line: int = 0


def looks(names: Sequence[str]) -> list[Look]:
    """Gives each run its look; several are numbered, so that no shortening makes two alike."""
    alone = len(names) == 1
    return [
        Look(
            shorten(name, 30) if alone else f"{i + 1} {shorten(name, 22)}",
            _COLOURS[i % len(_COLOURS)],
            _MARKERS[i % len(_MARKERS)],
        )
        for i, name in enumerate(names)
    ]


def draw_curves(
    name: str,
    title: str,
    series: Sequence[Series],
    *,
    lines: Sequence[str] = (),
    share: bool = False,
    alone: bool = False,
) -> str:
    """Draws a quantity over steps.

    Args:
      name: of the picture.
      title: of the quantity.
      series: at least one; each has a finite value.
      lines: what the kinds of line stand for, where there are several.
      share: whether the values lie in [0, 1].
      alone: whether the page is on one run, which need not be named.

    Returns:
      The SVG.
    """
    handles = [] if alone else [_handle(look) for look in dict.fromkeys(s.look for s in series)]
    if len(lines) > 1:
        colour = series[0].look.colour if alone else INK
        handles += [
            Line2D([], [], color=colour, linestyle=_DASHES[i % len(_DASHES)], label=text)
            for i, text in enumerate(lines)
        ]
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(2.0, handles, bottom=0.42)
        for place, one in enumerate(series):
            _curve(axes, one, place)
        if share:
            axes.set_ylim(-0.03, 1.03)
        axes.set(title=title)
        axes.set_xlabel("step", labelpad=1)
        axes.locator_params(nbins=5)
        return to_svg(figure, name)


def draw_scores(
    name: str,
    look: Look,
    true: np.ndarray,
    predicted: np.ndarray,
    thresholds: Sequence[float] | None,
) -> str:
    """Draws histograms of true and predicted scores, and the thresholds between classes.

    Args:
      name: of the picture.
      look: of the run.
      true: scores, finite.
      predicted: finite, of the same rows or of none.
      thresholds: (K-1,), or None.

    Returns:
      The SVG.
    """
    edges = np.linspace(-1, 1, 41)
    if predicted.size and np.abs(predicted).max() > 1:
        edges = np.linspace(-REACH, REACH, 61)
    handles: list[Rectangle | Line2D] = [
        Rectangle((0, 0), 1, 1, color=_GREY, alpha=0.5, linewidth=0, label="true")
    ]
    if predicted.size:
        handles.append(Line2D([], [], color=look.colour, label="predicted"))
    if thresholds:
        handles.append(Line2D([], [], color=INK, linestyle="--", linewidth=0.9, label="threshold"))
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(2.0, handles, bottom=0.42)
        counts = np.histogram(np.clip(true, edges[0], edges[-1]), edges)[0]
        axes.stairs(counts, edges, fill=True, color=_GREY, alpha=0.5, linewidth=0)
        if predicted.size:
            counts = np.histogram(np.clip(predicted, edges[0], edges[-1]), edges)[0]
            axes.stairs(counts, edges, color=look.colour, linewidth=1.4)
        top = axes.get_ylim()[1]
        for threshold in thresholds or ():
            axes.axvline(threshold, color=INK, linestyle="--", linewidth=0.9)
        cuts = [-1, *(thresholds or ()), 1]
        if 2 < len(cuts) <= 9:
            axes.set_ylim(0, 1.1 * top)
            for k, (left, right) in enumerate(itertools.pairwise(cuts)):
                axes.text((left + right) / 2, 1.09 * top, k, ha="center", va="top", color=_GREY)
        axes.set(title=look.label, ylabel="rows", xlim=(edges[0], edges[-1]))
        axes.set_xlabel("score", labelpad=1)
        axes.locator_params(axis="x", nbins=6, steps=[1, 5, 10])
        axes.locator_params(axis="y", nbins=5)
        return to_svg(figure, name)


def draw_predicted_vs_true(name: str, look: Look, true: np.ndarray, predicted: np.ndarray) -> str:
    """Draws predicted over true scores; of many rows, a part drawn by chance.

    Args:
      name: of the picture.
      look: of the run.
      true: (N,) finite.
      predicted: (N,) finite.

    Returns:
      The SVG.
    """
    if len(true) > DOTS:
        kept = np.random.default_rng(0).choice(len(true), DOTS, replace=False)
        true, predicted = true[kept], predicted[kept]
    reach = REACH if predicted.size and np.abs(predicted).max() > 1 else 1
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(2.9, [], bottom=0.42)
        axes.plot([-1, 1], [-1, 1], color=INK, linewidth=0.8, alpha=0.6)
        axes.plot(
            true,
            np.clip(predicted, -reach, reach),
            ".",
            color=look.colour,
            alpha=0.5,
            markersize=6,
            markeredgewidth=0,
            clip_on=False,
        )
        axes.set(title=look.label, xlim=(-1.03, 1.03), ylim=(-1.03 * reach, 1.03 * reach))
        axes.locator_params(nbins=6, steps=[1, 5, 10])
        axes.set_xlabel("true score", labelpad=1)
        axes.set_ylabel("predicted score", labelpad=1)
        return to_svg(figure, name)


def draw_reliability(name: str, look: Look, curves: Mapping[str, Reliability]) -> str:
    """Draws how often the predicted class is right over the probability that it was given.

    Args:
      name: of the picture.
      look: of the run.
      curves: as predicted, and it may be without temperature.

    Returns:
      The SVG.
    """
    colours = (look.colour, _GREY)
    handles = [
        Line2D([], [], color=colour, marker=look.marker, markersize=4.5, label=label)
        for label, colour in zip(curves, colours, strict=False)
    ]
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(2.9, handles if len(handles) > 1 else [], bottom=0.42)
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, alpha=0.6)
        for one, colour in zip(curves.values(), colours, strict=False):
            axes.plot(one.confidence, one.accuracy, color=colour, linewidth=1)
            sizes = 90 * one.counts / one.counts.sum() + 6
            axes.scatter(
                one.confidence, one.accuracy, sizes, color=colour, marker=look.marker, zorder=3
            )
        axes.set(title=look.label, xlim=(0, 1.02), ylim=(-0.03, 1.03))
        axes.locator_params(nbins=6)
        axes.set_xlabel("probability of the predicted class", labelpad=1)
        axes.set_ylabel("share that is of it", labelpad=1)
        return to_svg(figure, name)


def confusion(name: str, look: Look, matrix: Sequence[Sequence[int]]) -> str:
    """Draws the counts of each true and predicted class; the shade is the share of the true one.

    Args:
      name: of the picture.
      look: of the run.
      matrix: (K, K), a row a true class.

    Returns:
      The SVG.
    """
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = len(counts)
    with matplotlib.rc_context(_STYLE | {"axes.grid": False}):
        figure, axes = _axes(min(2.9, 0.6 + 0.46 * size), [], bottom=0.42)
        for i, j in np.ndindex(counts.shape):
            # Never so dark that ink, black or white, cannot be read on it.
            axes.add_patch(
                Rectangle((j, i), 1, 1, color=look.colour, alpha=0.62 * shares[i, j], linewidth=0)
            )
            if size <= _NUMBERED:
                axes.text(j + 0.5, i + 0.5, counts[i, j], ha="center", va="center")
        every = math.ceil(size / _NUMBERED)
        ticks = np.arange(0, size, every)
        axes.set(title=look.label, xlim=(0, size), ylim=(size, 0))
        axes.set(xticks=ticks + 0.5, xticklabels=ticks, yticks=ticks + 0.5, yticklabels=ticks)
        axes.set_xlabel("predicted class", labelpad=1)
        axes.set_ylabel("true class", labelpad=1)
        axes.tick_params(length=0)
        return to_svg(figure, name)


def by_class(name: str, title: str, bars: Sequence[tuple[Look, Sequence[float]]]) -> str:
    """Draws a quantity of each class, a bar a run.

    Args:
      name: of the picture.
      title: of the quantity.
      bars: of each run, its value a class, NaN where there is none.

    Returns:
      The SVG.
    """
    handles = [
        Rectangle((0, 0), 1, 1, color=look.colour, linewidth=0, label=look.label)
        for look, _ in bars
    ]
    size = max(len(values) for _, values in bars)
    thickness = 0.8 / len(bars)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(2.0, handles if len(bars) > 1 else [], bottom=0.42)
        for i, (look, values) in enumerate(bars):
            places = np.arange(len(values)) - 0.4 + (i + 0.5) * thickness
            axes.bar(places, np.nan_to_num(values), 0.92 * thickness, color=look.colour)
        axes.set(title=title, xlim=(-0.6, size - 0.4))
        axes.set_xlabel("true class", labelpad=1)
        axes.set_xticks(range(0, size, math.ceil(size / _NUMBERED)))
        axes.grid(axis="x", visible=False)
        axes.locator_params(axis="y", nbins=5)
        return to_svg(figure, name)


def _axes(height, handles, bottom):
    """A plot of that many inches under its title, and the legend below it."""
    longest = max((len(handle.get_label()) for handle in handles), default=0)
    # A character is about 0.06 inches wide, a handle 0.36, the space between columns 0.14.
    columns = max(1, min(3, int((_WIDTH - 0.3) / (0.06 * longest + 0.5))))
    legend = 0.19 * math.ceil(len(handles) / columns)
    total = 0.3 + height + bottom + legend
    # Placed by hand: a solver would take longer than the drawing.
    figure = Figure(figsize=(_WIDTH, total))
    axes = figure.add_axes(
        (_LEFT / _WIDTH, (bottom + legend) / total, 1 - (_LEFT + 0.12) / _WIDTH, height / total)
    )
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", MINUS))
    if handles:
        figure.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=((_LEFT - 0.1) / _WIDTH, 0),
            ncols=columns,
            borderaxespad=0,
            handlelength=2.2,
            labelspacing=0.3,
            columnspacing=1.2,
        )
    return figure, axes


def _handle(look):
    return Line2D([], [], color=look.colour, marker=look.marker, markersize=4.5, label=look.label)


def _curve(axes, series, place):
    look = series.look
    steps, values = np.asarray(series.steps, float), np.asarray(series.values, float)
    if len(steps) > POINTS:
        parts = np.array_split(np.arange(len(steps)), POINTS)
        finite = [values[part][np.isfinite(values[part])] for part in parts]
        low, values, high = (
            np.array([how(part) if part.size else np.nan for part in finite])
            for how in (np.min, np.mean, np.max)
        )
        steps = np.array([steps[part].mean() for part in parts])
        axes.fill_between(steps, low, high, color=look.colour, alpha=0.15, linewidth=0)
    few = len(steps) <= _MARKED
    every = max(1, len(steps) // 6)
    axes.plot(
        steps,
        values,
        color=look.colour,
        linestyle=_DASHES[series.line % len(_DASHES)],
        linewidth=1.3,
        marker=look.marker,
        markersize=4,
        # Not all at the same steps, so that none hides another.
        markevery=1 if few else (place % every, every),
    )
