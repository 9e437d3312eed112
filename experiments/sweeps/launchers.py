"""Where the runs of a sweep run: in processes of this machine, or as jobs.

Jobs are submitit's, which writes SLURM's scripts, keeps what each job prints, and submits one
again that was preempted. A job takes some runs in turn, in the folder that the sweep was started
in; all that it has in common with the sweep is the folder of the cells, which every node must see.
"""

import ast
import importlib.util
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dwa_jax import messages
from experiments.sweeps import runner
from experiments.sweeps.plan import Run

PROCESSES, LOCAL, SLURM = "processes", "local", "slurm"
LAUNCHERS = (PROCESSES, LOCAL, SLURM)
# Of a job, where nothing else is said: submitit's own default is minutes.
_MINUTES = 24 * 60
_LOOK_AGAIN, _PATIENCE = 0.5, 60  # seconds


def read_options(launcher: str, options: Sequence[str]) -> dict[str, Any]:
    """Reads what jobs ask of a scheduler, and looks whether they can be submitted from here.

    Args:
      launcher: one of LAUNCHERS.
      options: KEY=VALUE, submitit's: timeout_min=90, gpus_per_node=1, slurm_partition=gpu.

    Returns:
      {key: value}.

    Raises:
      ValueError: it cannot be used; one line says why.
    """
    found: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not key.isidentifier() or not equals:
            raise ValueError(f"--job={option}: expected KEY=VALUE, such as timeout_min=90")
        found[key] = _value(value)
    if launcher == PROCESSES:
        if found:
            raise ValueError(f"--job={options[0]}: only with --launcher={LOCAL} or {SLURM}")
        return found
    if importlib.util.find_spec("submitit") is None:
        raise ValueError(f"--launcher={launcher} needs submitit: pip install dwa_jax[jobs]")
    if launcher == SLURM and shutil.which("sbatch") is None:
        raise ValueError(f"--launcher={SLURM}: there is no sbatch here; start it on a login node")
    return found


def _value(text):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):  # a word
        return text


def submit_all(
    runs: Iterable[Run],
    places: Mapping[str, str],
    folder: Path,
    *,
    launcher: str,
    job: Mapping[str, Any],
    runs_per_job: int = 1,
    weights: Mapping[str, str] | None = None,
    workers: int = 1,
    keep_checkpoints: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Submits what is not finished as jobs, and waits for them.

    Args:
      runs: what to run; one that occurs twice is run once.
      places: what {data} and the like stand for.
      folder: of the cells; what jobs print is beside it, in `jobs`.
      launcher: LOCAL or SLURM.
      job: from `read_options`.
      runs_per_job: at most; only those that differ in their seed alone share a job, in which the
        later ones find their programs compiled.
      weights: folders with the weights of some backbones.
      workers: jobs at a time.
      keep_checkpoints: whether a finished run keeps its checkpoints, and its weights.
      say: prints one line.

    Raises:
      ValueError: the scheduler refuses; one line says why.
      KeyboardInterrupt: Ctrl-C; jobs were told to end, and save a checkpoint first.
      SystemExit: SIGTERM, likewise.
    """
    runs, todo = runner.left_to_run(runs, folder)
    if not todo:
        return
    parts = _parts(todo, runs_per_job)
    say(
        f"{len(runs) - len(todo)} of {len(runs)} runs are finished; "
        f"{len(todo)} to go, in {len(parts)} jobs"
    )
    from experiments.sweeps import jobs  # which needs submitit

    executor = jobs.make_executor(
        folder.parent / "jobs",
        launcher,
        {"timeout_min": _MINUTES, "name": "dwa_jax"}
        | ({"slurm_array_parallelism": workers} if launcher == SLURM else {})
        | dict(job),
    )
    work = jobs.Some(dict(places), folder.absolute(), dict(weights or {}), keep_checkpoints)
    # A scheduler waits for room itself, and takes all at once as one array.
    at_once = len(parts) if launcher == SLURM else workers
    waiting, done = list(parts), len(runs) - len(todo)
    under_way: list[tuple[Any, list[Run]]] = []
    try:
        while waiting or under_way:
            room = at_once - len(under_way)
            begun, waiting = waiting[:room], waiting[room:]
            under_way += zip(jobs.submit(executor, work, begun), begun, strict=True)
            time.sleep(_LOOK_AGAIN)
            for one, part in [pair for pair in under_way if pair[0].done()]:
                under_way.remove((one, part))
                for run in part:
                    done += 1
                    state = _conclude(folder / run.id, one)
                    say(f"[{done}/{len(runs)}] {run.title}: {state} (job {one.job_id})")
    finally:
        for one, _ in under_way:
            one.cancel()
        for one, _ in under_way:
            one.wait()


def _parts(runs, most):
    # Seeds of one program together, `most` at a time, in the order of their first.
    alike: dict[str, list[Run]] = {}
    for run in runs:
        alike.setdefault(run.program, []).append(run)
    return [
        group[start : start + most]
        for group in alike.values()
        for start in range(0, len(group), most)
    ]


def _conclude(folder, job):
    told = _words_of(job)
    if told is None:
        # What is there on another machine may take a moment to be seen on this one.
        for _ in range(_PATIENCE):
            if runner.state_of(folder) in ("finished", "failed"):
                break
            time.sleep(1)
    state = runner.state_of(folder)
    if state == "finished":
        return state
    if state != "failed":
        # A job that was killed has not said itself how its runs ended.
        runner.write_failure(folder, f"job {job.job_id}: {told or 'it ended before this run'}")
    return f"failed: {runner.error_of(folder)}"


def _words_of(job):
    # Why a job ended before its work was done; None where it did it.
    if job.paths.result_pickle.exists():
        if (error := job.exception()) is None:
            return None
        # Between two rules is the traceback.
        _, *trace = str(error).split("-" * 22)
        return _last_line(trace[0] if trace else str(error)) or type(error).__name__
    lines = [job.state, _last_line(job.stderr() or "")]
    return ": ".join(line for line in lines if line)


def _last_line(text):
    lines = [line for line in text.splitlines() if line.strip(" -")]
    return messages.one_line(ValueError(lines[-1]), 300) if lines else ""
