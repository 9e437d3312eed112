"""Bad rows that were left out: a line for the terminal, and what summary.json keeps of them."""

from collections import Counter
from collections.abc import Sequence

from dwa_jax import data

# Rows that the terminal shows, and that summary.json lists; the rest are counted.
_SHOWN, _LISTED = 3, 1000


def note(split: str, rows: Sequence[data.LeftOut]) -> str:
    """Says how many rows were left out, of which files, and shows the first few.

    Args:
      split: what the files were given as.
      rows: at least one row.

    Returns:
      One line.
    """
    files = ", ".join(f"{file}: {count}" for file, count in _by_file(rows).items())
    first = "; ".join(map(str, rows[:_SHOWN]))
    more = f"; and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    return f"{split}: {len(rows)} bad rows left out ({files}): {first}{more}"


def summarize(rows: Sequence[data.LeftOut]) -> dict:
    """Counts and lists rows that were left out.

    Args:
      rows: any number of rows, in the order in which they were read.

    Returns:
      JSON values: "count"; "by_file", file -> count; "rows", the first thousand with "file",
      "row" and "problem"; "not_listed", how many more there are.
    """
    return {
        "count": len(rows),
        "by_file": dict(_by_file(rows)),
        "rows": [row._asdict() for row in rows[:_LISTED]],
        "not_listed": max(0, len(rows) - _LISTED),
    }


def _by_file(rows):
    return Counter(row.file for row in rows)
