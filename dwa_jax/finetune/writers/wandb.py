"""Weights & Biases. Its own variables say the rest: WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE."""

import os
import uuid

from dwa_jax import regular_files
from dwa_jax.atomic_files import replacing
from dwa_jax.finetune.writers.protocol import Opening, scalars

# Seconds that the end of a run waits for the network; `wandb sync` sends what was not sent.
_PATIENCE = 60


class WeightsAndBiases:
    """Logs to one W&B run, however often the process is started again.

    The run's id is in WORKDIR/wandb/id. Its rows are the records of metrics.jsonl by their
    number, so that one that is there already is not sent again: after a restart it would be
    the same. Offline (WANDB_MODE=offline) there is nothing that knows what is there, and each
    process writes a folder with all of the run: `wandb sync` the last one.
    """

    package = extra = "wandb"

    def __init__(self, opening: Opening):
        """Starts or resumes the run.

        Raises:
          wandb.errors.Error: nobody is logged in, or the server cannot be reached.
          OSError: the folder cannot be written.
        """
        import wandb

        folder = opening.folder / "wandb"
        regular_files.check_real_folder(folder)
        folder.mkdir(exist_ok=True)
        path = folder / "id"
        if not regular_files.check_regular(path):
            with replacing(path) as partial:
                partial.write_text(uuid.uuid4().hex, "utf-8")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "dwa_jax"),
            id=regular_files.read_text(path, 1000).strip(),
            name=os.environ.get("WANDB_NAME", opening.folder.absolute().name),
            resume="allow",
            dir=str(opening.folder),
            config=opening.config,
            # The terminal is this program's, which says what there is to say.
            settings=wandb.Settings(silent=True, console="off", finish_timeout=_PATIENCE),
        )
        for kind in ("train", "validation", "skipped"):
            self._run.define_metric(f"{kind}/*", step_metric="step")
        self._rows, self._there, self._concluded = 0, self._run.step, False
        for record in opening.past:
            self.write(record)
        where = self._run.settings.sync_dir if self._run.offline else self._run.url
        opening.say(f"Weights & Biases: {where}")

    def write(self, record: dict) -> None:
        """Logs a record as a row; a result goes to the run's summary."""
        if record["kind"] == "result":
            self._run.summary.update(scalars(record))
            self._concluded = True
            return
        if self._rows >= self._there:
            self._run.log({**scalars(record), "step": record["step"]}, step=self._rows)
        self._rows += 1

    def close(self) -> None:
        """Ends the process's part; without results the run counts as failed until it goes on."""
        self._run.finish(exit_code=0 if self._concluded else 1)
