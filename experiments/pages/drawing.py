"""What every picture of a page has in common: its style, and its way into the page.

Within the SVG the ink is `currentColor`, so that it follows a page's light or dark scheme, and
text stays text.
"""

import io
import re
import warnings
from typing import Any, Literal

from matplotlib.figure import Figure

INK = "#1c1e20"  # becomes currentColor: no other colour may equal it
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sweep",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#888888",
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    **{
        f"{part}.{key}": INK
        for part, key in (
            ("text", "color"),
            ("axes", "labelcolor"),
            ("axes", "edgecolor"),
            ("xtick", "color"),
            ("ytick", "color"),
            ("axes", "titlecolor"),
        )
    },
}


def shorten(name: str, limit: int = 34) -> str:
    """Cuts a name that a picture has no room for."""
    return name if len(name) <= limit else name[: limit - 1] + "…"


def subplots(
    *shape: int,
    figsize: tuple[float, float],
    layout: Literal["constrained"] | None = None,
    **options: Any,
):
    """Makes a figure and its axes; unlike pyplot's it leaves a notebook's backend alone.

    Args:
      *shape: rows and columns of the axes, where there is more than one.
      figsize: (width, height) in inches.
      layout: of `Figure`.
      **options: of `Figure.subplots`.
    """
    figure = Figure(figsize=figsize, layout=layout)
    return figure, figure.subplots(*shape, **options)


def to_svg(figure, name: str) -> str:
    """Returns a figure as SVG to be set into a page.

    Args:
      figure: matplotlib's.
      name: no other picture of the page may have it.

    Returns:
      The SVG element; its ids begin with the name.
    """
    text = io.StringIO()
    with warnings.catch_warnings():
        # The page's fonts draw the text, not those that it is measured with here.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(
            text, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    return _inline(text.getvalue(), name)


def _inline(svg, name):
    """Takes off what only a file of its own needs, and makes ids unlike those of other pictures."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    prefix = re.sub(r"[^A-Za-z0-9]+", "-", name)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}-", svg)
    svg = re.sub(r'(xlink:)?href="#', f'href="#{prefix}-', svg)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    svg = svg.replace(INK, "currentColor")
    # Text without a colour of its own is black: it has to follow the page as well.
    return svg.replace("<svg ", '<svg fill="currentColor" ', 1)
