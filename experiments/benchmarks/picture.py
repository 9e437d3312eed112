"""The suites `step` and `lora` as a picture: one group of bars a row."""

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
