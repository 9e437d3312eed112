"""What a job does, and how it is submitted. Needs submitit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit
from submitit.helpers import Checkpointable

from dwa_jax import messages
from experiments.sweeps import runner
from experiments.sweeps.plan import Run


@dataclass
class Some(Checkpointable):
    """Runs some runs in turn; one that is finished is not run again.

    Attributes:
      places: what {data} and the like stand for.
      folder: of the cells.
      weights: folders with the weights of some backbones.
      keep_checkpoints: whether a finished run keeps its checkpoints, and its weights.
    """

    places: Mapping[str, str]
    folder: Path
    weights: Mapping[str, str]
    keep_checkpoints: bool

    def __call__(self, runs: Sequence[Run]) -> dict[str, str]:
        """Returns {run's id: its state}."""
        return runner.run_all(
            runs,
            self.places,
            self.folder,
            weights=self.weights,
            keep_checkpoints=self.keep_checkpoints,
        )

    def checkpoint(self, *args: Any, **kwargs: Any) -> submitit.helpers.DelayedSubmission:
        """Ends the run under way, which saves a checkpoint, and asks for the same once more."""
        runner.end_all()
        return super().checkpoint(*args, **kwargs)


def make_executor(folder: Path, cluster: str, parameters: Mapping[str, Any]) -> submitit.Executor:
    """Makes what jobs are submitted with.

    Args:
      folder: for what they print and what is handed over, by their numbers.
      cluster: "local" or "slurm".
      parameters: submitit's.

    Raises:
      ValueError: it does not know one of them.
    """
    try:
        executor = submitit.AutoExecutor(folder=folder / "%j", cluster=cluster)
        executor.update_parameters(**parameters)
    except Exception as error:  # of many types, over many lines
        raise ValueError(f"--job: {messages.one_line(error, 400)}") from None
    return executor


def submit(
    executor: submitit.Executor, work: Some, parts: Sequence[Sequence[Run]]
) -> list[submitit.Job]:
    """Submits a job for each part, several as one array.

    Raises:
      ValueError: the scheduler refuses.
    """
    if not parts:
        return []
    try:
        return executor.map_array(work, parts)
    except Exception as error:
        raise ValueError(f"no job was submitted: {messages.one_line(error, 400)}") from None
