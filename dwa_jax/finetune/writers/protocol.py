"""What a writer is, and what the records are called in one."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

# What a record is about -> how its numbers' names begin.
_PREFIXES = {"step": "train", "evaluation": "validation", "skipped": "skipped"}


class Opening(NamedTuple):
    """What a writer begins with.

    Attributes:
      folder: the run's.
      config: the whole configuration.
      past: records that metrics.jsonl holds already, where the run goes on. What an earlier
        process handed on beyond them is void: those steps come again.
      say: prints a line.
    """

    folder: Path
    config: dict
    past: list[dict]
    say: Callable[[str], None]


class Writer(Protocol):
    """Takes the records of a run, made from an `Opening` right before the first step.

    Whatever it raises while it is made ends the run; later on it is said once, and the run
    goes on without it.

    Attributes:
      package: what must be importable; "" for nothing.
      extra: of this project, which installs that package.
    """

    package: str
    extra: str

    def __init__(self, opening: Opening):
        """Begins."""

    def write(self, record: dict) -> None:
        """Takes a record as metrics.jsonl holds it: numbers that are not finite are None.

        Or, after the last of those, the metrics of a trained model, once a split:
        {"kind": "result", "split": ..., "step": ..., ...}.
        """

    def close(self) -> None:
        """Ends, also where the run was interrupted or failed."""


def scalars(record: dict) -> dict[str, float]:
    """Names every number of a record.

    Args:
      record: as a writer gets it.

    Returns:
      {"train/loss_regression": ...}, "validation/..." for evaluations, "skipped/..." for
      updates left out, and the split's name for results. Of a list each number has its place
      behind the name; texts, matrices and what was not finite are left out.
    """
    prefix = _PREFIXES.get(record["kind"]) or record["split"]
    found = {}
    for name, value in record.items():
        if name == "step":
            continue
        if isinstance(value, list):
            numbers = {f"{name}/{index}": item for index, item in enumerate(value)}
        else:
            numbers = {name: value}
        for place, number in numbers.items():
            if isinstance(number, int | float):
                found[f"{prefix}/{place}"] = float(number)
    return found
