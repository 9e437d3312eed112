"""The suites `step` and `lora` as pictures: bars of every row, lines over the sizes of batches."""

from pathlib import Path

from matplotlib.figure import Figure

_OURS, _PEERS = "#0072b2", "#999999"


def draw_ratios(path: Path, results: list[dict]) -> None:
    """Draws milliseconds a step with their quartiles, ours in colour.

    Args:
      path: of the PNG.
      results: of `suites.compare`.
    """
    heights = [0.5 + 0.25 * len(result["contenders"]) for result in results]
    figure = Figure(figsize=(9, sum(heights) + 0.3), layout="constrained")
    axes = figure.subplots(len(results), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, result in zip(axes, results, strict=True):
        names = list(result["contenders"])
        values = [result["contenders"][name] for name in names]
        middle = [value["ms"] for value in values]
        spread = [
            [value["ms"] - value["low_ms"] for value in values],
            [value["high_ms"] - value["ms"] for value in values],
        ]
        colours = [_PEERS if name.startswith("PyTorch") else _OURS for name in names]
        axis.barh(names, middle, xerr=spread, color=colours, ecolor="black", height=0.7)
        for y, value in enumerate(values):
            axis.text(
                value["high_ms"], y, f"  {value['ratio']:.2f} x", va="center", fontsize="small"
            )
        axis.invert_yaxis()
        axis.set_title(result["title"], loc="left", fontsize="medium")
        axis.margins(x=0.15)
        axis.tick_params(labelsize="small")
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("milliseconds a step (median, quartiles)")
    figure.savefig(path, dpi=120, format="png")


# Ways to the gradients' norms in the whole trunk, as `ours.METHODS` and a reader call them.
_WAYS = {
    "dwa trainable trees": ("trees", "#d55e00"),
    "dwa trainable": ("exact", "#0072b2"),
    "dwa trainable sketch": ("sketch", "#009e73"),
}


def lines(results: list[dict]) -> dict[str, dict[str, tuple[list[int], list[float]]]]:
    """Returns {shape: {method: (tokens a batch, ratios)}}, of shapes trained whole at two sizes."""
    found: dict[str, dict] = {}
    for result in results:
        row = result["row"]
        if row["rank"]:
            continue
        for name in _WAYS:
            if name in result["contenders"]:
                sizes = found.setdefault(row["shape"], {}).setdefault(name, {})
                sizes[row["rows"] * row["tokens"]] = result["contenders"][name]["ratio"]
    return {
        shape: {
            name: (sorted(sizes), [sizes[size] for size in sorted(sizes)])
            for name, sizes in by_name.items()
        }
        for shape, by_name in found.items()
        if max(map(len, by_name.values())) > 1
    }


def draw_costs(path: Path, results: list[dict]) -> None:
    """Draws what DWA's step costs over the constant one, against the tokens of a batch.

    Args:
      path: of the PNG.
      results: of `suites.compare`, of which `lines` finds some.
    """
    shapes = lines(results)
    figure = Figure(figsize=(1 + 4 * len(shapes), 3.2), layout="constrained")
    all_axes = figure.subplots(1, len(shapes), squeeze=False, sharey=True)[0]
    for axes, (shape, by_name) in zip(all_axes, shapes.items(), strict=True):
        for name, (sizes, ratios) in by_name.items():
            label, colour = _WAYS[name]
            axes.plot(sizes, ratios, marker="o", color=colour, label=label)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.set_title(shape, fontsize="medium")
        axes.set_xlabel("tokens a batch")
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0].set_ylabel("time over the constant step")
    all_axes[0].set_ylim(bottom=1)
    all_axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110, format="png")
