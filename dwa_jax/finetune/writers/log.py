"""metrics.jsonl, which is the record of a run, and the writers beside it."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

from dwa_jax.finetune.run_folder import plain
from dwa_jax.finetune.run_records import MetricsFile, Records
from dwa_jax.finetune.writers.protocol import Opening, Writer
from dwa_jax.messages import one_line


class Log:
    """Takes what `MetricsFile` does, and hands it on.

    An error of metrics.jsonl ends the run; one of a writer is said, and the writer left out.
    """

    def __init__(
        self,
        folder: Path | None,
        config: dict,
        chosen: Mapping[str, type[Writer]],
        say: Callable[[str], None],
    ):
        """Opens nothing yet.

        Args:
          folder: the run's; None keeps the records in memory.
          config: the whole configuration.
          chosen: from `writers.choose_writers`.
          say: prints a line.
        """
        self._file = Records() if folder is None else MetricsFile(folder / "metrics.jsonl")
        self._folder, self._config, self._chosen, self._say = folder, config, chosen, say
        self._open: dict[str, Writer] = {}

    def rewind(self, step: int, evaluated: int) -> None:
        """Drops what came after a checkpoint, and opens the writers.

        Args:
          step: of the checkpoint.
          evaluated: epochs that were evaluated by then.

        Raises:
          ValueError: a writer cannot begin; says why.
          OSError: metrics.jsonl cannot be written.
        """
        self._file.rewind(step, evaluated)
        past = self._file.read() if self._chosen else []
        for name, make in self._chosen.items():
            assert self._folder is not None, "writers have a folder"
            opening = Opening(self._folder, self._config, past, self._say)
            try:
                self._open[name] = make(opening)
            except Exception as error:  # whatever another's package raises
                raise ValueError(f"writers: {name} cannot begin: {one_line(error)}") from error

    def write(self, record: dict) -> None:
        """Appends one record.

        Raises:
          OSError: metrics.jsonl cannot be written.
        """
        self._file.write(record)
        self._hand_on(record)

    def conclude(self, summary: dict, step: int) -> None:
        """Tells the writers, and only them, the metrics of the model that is kept.

        Args:
          summary: with "validation", "test" and "also_tested", as in summary.json.
          step: the model's.
        """
        # Validation's own name is that of the curve over all epochs.
        results = {"best": summary["validation"], "test": summary["test"]}
        results |= {f"also_tested/{name}": of for name, of in summary["also_tested"].items()}
        for split, result in results.items():
            if result is not None:
                self._hand_on({"kind": "result", "split": split, "step": step, **result})

    def read(self) -> list[dict]:
        """Returns the records of metrics.jsonl."""
        return self._file.read()

    def close(self) -> None:
        """Ends the writers."""
        for name in list(self._open):
            self._try(name, lambda writer: writer.close())
        self._open.clear()

    def _hand_on(self, record):
        if self._open:
            record = plain(record)
        for name in list(self._open):
            self._try(name, lambda writer: writer.write(record))

    def _try(self, name, action):
        try:
            action(self._open[name])
        except Exception as error:  # whatever another's package raises
            writer = self._open.pop(name)
            self._say(
                f"warning: {name} is left out from here on ({one_line(error)}); metrics.jsonl "
                "goes on"
            )
            with contextlib.suppress(Exception):
                writer.close()
