"""Event files for TensorBoard, without TensorFlow: tensorboard --logdir=WORKDIR/tensorboard"""

import os
import shlex
import socket
import time
from pathlib import Path

from dwa_jax import regular_files
from dwa_jax.finetune import own_files
from dwa_jax.finetune.config import flatten_keys
from dwa_jax.finetune.writers.protocol import Opening, scalars


class TensorBoard:
    """Writes one event file, in WORKDIR/tensorboard.

    Where a run goes on, the file is written anew from the records of metrics.jsonl: no reader
    then meets a step twice, whatever it makes of a restart, and what was missed is there. The
    price is that the earlier points bear the time of the restart.
    """

    package = extra = "tensorboard"

    def __init__(self, opening: Opening):
        """Makes the file.

        Raises:
          OSError: it cannot be written.
        """
        # Not the package's own EventFileWriter: it works on a thread, which tells of a full
        # disk late, and it imports TensorFlow where there is one.
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.plugins.text.summary_v2 import text_pb
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        folder = opening.folder / "tensorboard"
        regular_files.check_real_folder(folder)
        folder.mkdir(exist_ok=True)
        # Only the run's own: another program may log into the same folder.
        ours = own_files.claimed(opening.folder)
        earlier = [
            path
            for path in folder.glob("events.out.tfevents.*")
            if f"tensorboard/{path.name}" in ours and regular_files.kind_of(path) == "a file"
        ]
        new = _new(folder)
        own_files.claim(opening.folder, f"tensorboard/{new.name}")
        self._file = RecordWriter(new.open("xb"))
        self._put(self._event(wall_time=time.time(), file_version="brain.Event:2"))
        table = text_pb("config", _table(flatten_keys(opening.config)))
        self._put(self._event(wall_time=time.time(), summary=table))
        for record in opening.past:
            self._put(self._points(record))
        self._file.flush()
        for path in earlier:
            path.unlink()
        opening.say(f"TensorBoard: tensorboard --logdir={shlex.quote(str(folder))}")

    def write(self, record: dict) -> None:
        """Appends a record's numbers.

        Raises:
          OSError: the disk is full, or will not be written.
        """
        self._put(self._points(record))
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _points(self, record):
        values = [
            self._summary.Value(tag=tag, simple_value=number)
            for tag, number in scalars(record).items()
        ]
        return self._event(
            wall_time=time.time(), step=record["step"], summary=self._summary(value=values)
        )

    def _put(self, event):
        self._file.write(event.SerializeToString())


def _table(config: dict) -> str:
    # Markdown, which the page shows as a table.
    shown = {key: repr(value).replace("|", "\\|") for key, value in config.items()}
    rows = [f"| {key} | `{value}` |" for key, value in shown.items()]
    return "\n".join(["| key | value |", "|---|---|", *rows])


def _new(folder: Path) -> Path:
    # As TensorBoard's own are called; readers sort them by name.
    return folder / (f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}")
