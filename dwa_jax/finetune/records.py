"""The records of a run: one object a logged step, one an evaluation, one an update left out."""

import json
from pathlib import Path
from typing import Any

from dwa_jax.atomic_files import replacing, unwritten
from dwa_jax.finetune.run_folder import plain


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
        if not self.path.exists():
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
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(plain(record)) + "\n")
        except OSError as error:
            raise unwritten(self.path, error) from error

    def read(self) -> list[dict]:
        """Returns every record but a last one that was not written to its end.

        Raises:
          ValueError: another line is damaged.
        """
        if not self.path.exists():
            return []
        records = []
        lines = self.path.read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            try:
                records.append(json.loads(line))
            except ValueError:
                if number == len(lines) and not line.endswith(b"\n"):
                    break
                raise ValueError(
                    f"line {number} of {self.path} is damaged; remove that line to continue "
                    "without it"
                ) from None
        return records
