"""Data sets of the Hugging Face hub, by the library `datasets`."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dwa_jax.data.rows import DataError
from dwa_jax.data.tables.reader import ABSENT, Record, TableReader, dig, owner
from dwa_jax.messages import one_line


class HubReader(TableReader):
    """Reads "hub:NAME", "hub:NAME:SPLIT" or "hub:NAME:CONFIG:SPLIT"; a NAME may be a folder."""

    def records(self) -> Iterator[Record]:
        table = load(self.name)
        names = self.wanted.columns
        self.check_columns(table.column_names)
        there = {owner(name, table.column_names) for name in names} - {None}
        chosen = [name for name in table.column_names if name in there]
        rows, row = iter(table.select_columns(chosen)), 0
        while True:
            row += 1
            try:
                record = next(rows, None)
            except Exception as error:  # as below
                raise DataError(
                    f"{self.name}, row {row}: cannot be decoded: {one_line(error)}"
                ) from None
            if record is None:
                return
            cells = [dig(record, name) for name in names]
            yield row, None, [None if cell is ABSENT else cell for cell in cells], None


def load(source: str) -> Any:
    """Loads a data set.

    Args:
      source: as `HubReader` takes it.

    Raises:
      DataError: it cannot be had.
    """
    # A colon inside brackets is part of the split: train[:100].
    name, *choice = re.split(r":(?![^\[]*\])", source.removeprefix("hub:"))
    if not name or len(choice) > 2:
        raise DataError(
            f"{source}: a hub data set is written hub:NAME, hub:NAME:SPLIT or hub:NAME:CONFIG:SPLIT"
        )
    try:
        import datasets
    except ImportError:
        raise DataError(
            f"{source}: reading from the hub needs the extra 'hub' (pip install 'dwa_jax[hub]')"
        ) from None
    try:
        if (Path(name) / "state.json").exists():  # what Dataset.save_to_disk writes
            if choice:
                raise ValueError("it is one saved data set, without configurations and splits")
            return datasets.load_from_disk(name)
        *config, split = choice or ["train"]
        return datasets.load_dataset(name, *config, split=split or "train")
    except Exception as error:  # the hub's client raises many unrelated kinds
        raise DataError(f"{source}: cannot be loaded: {one_line(error)}") from None
