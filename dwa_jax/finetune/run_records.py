"""The records of a run: one object a logged step, one an evaluation, one an update left out."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from dwa_jax import regular_files
from dwa_jax.atomic_files import replacing, unwritten
from dwa_jax.finetune.run_folder import plain

# Bytes of a line; one has some hundreds.
_LONGEST = 2**20


class Records:
    """Records in memory, in order, none twice after a restart."""

    def __init__(self) -> None:
        self._records: list[dict[str, Any]] = []

    def rewind(self, step: int, evaluated: int) -> None:
        """Drops what came after a checkpoint.

        Args:
          step: of the checkpoint.
          evaluated: epochs that were evaluated by then; at an epoch's end it may not be yet.
        """
        self._records = _until(self._records, step, evaluated)

    def write(self, record: dict[str, Any]) -> None:
        """Appends one record."""
        self._records.append(plain(record))

    def read(self) -> list[dict[str, Any]]:
        """Returns every record."""
        return list(self._records)


def _until(records, step, evaluated):
    return [
        record
        for record in records
        if record["step"] <= step
        and (record["kind"] != "evaluation" or record["epoch"] <= evaluated)
    ]


class MetricsFile(Records):
    """metrics.jsonl: one object a line, in order, none twice after a restart."""

    def __init__(self, path: Path):
        self.path = path

    def rewind(self, step: int, evaluated: int) -> None:
        """Drops what came after a checkpoint, and a last line that was not written to its end.

        Args:
          step: of the checkpoint.
          evaluated: epochs that were evaluated by then; at an epoch's end it may not be yet.
        """
        if not regular_files.check_regular(self.path):
            return
        kept = _until(self.read(), step, evaluated)
        with replacing(self.path) as partial:
            partial.write_text("".join(json.dumps(record) + "\n" for record in kept), "utf-8")

    def write(self, record: dict) -> None:
        """Appends one record.

        Raises:
          OSError: the disk is full, or will not be written.
        """
        try:
            with regular_files.open_to_append(self.path) as file:
                file.write((json.dumps(plain(record)) + "\n").encode())
        except OSError as error:
            raise unwritten(self.path, error) from error
        except ValueError as error:  # something else took its place
            raise OSError(f"{self.path} cannot be written: {error}") from error

    def read(self) -> list[dict]:
        """Returns every record but a last one that was not written to its end.

        Raises:
          ValueError: another line is damaged.
        """
        if not regular_files.check_regular(self.path):
            return []
        records: list[dict] = []
        with regular_files.open_to_read(self.path) as file:
            while line := file.readline(_LONGEST):
                if not line.endswith(b"\n") and len(line) < _LONGEST:
                    # The last one, of a process that was killed: whole but for its end, or not.
                    with contextlib.suppress(ValueError, RecursionError):
                        records.append(_checked(line))
                    break
                try:
                    records.append(_checked(line))
                except (ValueError, RecursionError):
                    raise ValueError(
                        f"line {len(records) + 1} of {self.path} is damaged; remove that line to "
                        "continue without it"
                    ) from None
        return records


def _checked(line):
    record = json.loads(line)
    if (
        not isinstance(record, dict)
        or not isinstance(record.get("kind"), str)
        or not all(
            type(record.get(name)) is int and 0 <= record[name] < 2**53
            for name in ("step", "epoch")
        )
        or (record["kind"] == "step" and not all(map(_is_number, record.values())))
    ):
        raise ValueError("no record")
    return record


def _is_number(value):
    # "step" is the kind's own. JSON of Python's has infinities, and integers of any length.
    return (
        value is None
        or value == "step"
        or (isinstance(value, int | float) and abs(value) <= sys.float_info.max)
    )
