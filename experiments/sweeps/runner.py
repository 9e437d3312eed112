"""Runs the cells of a sweep by the main program, several at a time.

A folder that holds a summary is finished and is not run again; one that was interrupted
continues; one that fails is left with its last words and does not stop the others. Runs that
differ in their seed alone follow each other in one process, see `in_turn`.
"""

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from dwa_jax import regular_files
from dwa_jax.atomic_files import replacing
from experiments.sweeps import in_turn
from experiments.sweeps.plan import Run

# One core a run, whatever the number of workers: sums then always run in one order.
_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
SUMMARY, FAILED, LOG = "summary.json", "failed.txt", "console.txt"


def _beside(folder, name):
    # Beside a run's folder, which holds what the run itself writes and nothing else.
    return folder.parent / f"{folder.name}.{name}"


def state_of(folder: Path) -> str:
    """Returns "finished", "failed", "started" or "missing"."""
    if (folder / SUMMARY).exists():
        return "finished"
    if _beside(folder, FAILED).exists():
        return "failed"
    return "started" if folder.exists() else "missing"


def error_of(folder: Path) -> str | None:
    """Returns the last words of a failed run."""
    path = _beside(folder, FAILED)
    return path.read_text("utf-8").strip() if path.exists() else None


def run_all(
    runs: Iterable[Run],
    places: Mapping[str, str],
    folder: Path,
    *,
    weights: Mapping[str, str] | None = None,
    workers: int = 1,
    keep_checkpoints: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, str]:
    """Runs what is not finished.

    Args:
      runs: what to run; one that occurs twice is run once.
      places: what {data} and the like stand for.
      folder: of the cells.
      weights: folders with the weights of some backbones.
      workers: runs at a time, each on a core of its own where the system lets us choose.
      keep_checkpoints: whether a finished run keeps its checkpoints, and its weights.
      say: prints one line.

    Returns:
      {run's id: its state} of every run.

    Raises:
      KeyboardInterrupt: Ctrl-C; the runs under way saved a checkpoint first.
      SystemExit: SIGTERM, likewise.
    """
    runs, todo = left_to_run(runs, folder)
    total = len(runs)
    if todo:
        say(f"{total - len(todo)} of {total} runs are finished; {len(todo)} to go")
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    slots = [
        _Slot(cores[i % len(cores)] if cores and workers > 1 else None) for i in range(workers)
    ]
    done = total - len(todo)
    try:
        while todo or any(slot.run for slot in slots):
            for slot in slots:
                if slot.run is None and todo:
                    run = _next(todo, slot, slots)
                    todo.remove(run)
                    arguments = run.command(places, weights or {}, folder)
                    if keep_checkpoints:
                        arguments.append("--config.keep_checkpoints=True")
                    slot.start(run, arguments, folder / run.id)
            for slot, status in _ended(slots):
                run, slot.run = slot.run, None
                done += 1
                state = _conclude(folder / run.id, status, keep_checkpoints)
                seconds = time.perf_counter() - slot.started
                say(f"[{done}/{total}] {run.title}: {state} ({seconds:.0f} s)")
    finally:  # Ctrl-C, and what SIGTERM is turned into, too
        end_all(slots)
    return {run.id: state_of(folder / run.id) for run in runs}


def left_to_run(runs: Iterable[Run], folder: Path) -> tuple[list[Run], list[Run]]:
    """Returns the runs, each once, and those of them that have not finished.

    Args:
      runs: two methods of a sweep may be one and the same run.
      folder: of the cells.
    """
    runs = list(dict.fromkeys(runs))
    return runs, [run for run in runs if state_of(folder / run.id) != "finished"]


def end_all(slots: "Iterable[_Slot] | None" = None) -> None:
    """Ends processes; runs under way save a checkpoint first.

    Args:
      slots: of these; by default all that there are.
    """
    slots = list(_SLOTS if slots is None else slots)
    for slot in slots:
        slot.close()
    for slot in slots:
        slot.end()


def _next(todo, slot, slots):
    # As the process's last one if there is any, or else like none that is under way: two
    # processes would compile the same at once.
    for run in todo:
        if slot.last is not None and run.program == slot.last:
            return run
    under_way = {other.last for other in slots if other.run}
    return next((run for run in todo if run.program not in under_way), todo[0])


_SLOTS: "weakref.WeakSet[_Slot]" = weakref.WeakSet()


class _Slot:
    """One process at a time, on one core, with one run at a time.

    Attributes:
      run: under way, or None.
      started: when it began.
      last: `Run.program` of the last one.
    """

    def __init__(self, core):
        self._core = core
        self._process: Any = None  # a Popen with pipes
        self.run, self.started, self.last = None, 0.0, None
        _SLOTS.add(self)

    def start(self, run, arguments, folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        failed = _beside(folder, FAILED)
        if regular_files.check_regular(failed):
            failed.unlink()
        # The next method's memory is its own: it is one of the report's columns.
        if self._process is None or run.program != self.last:
            self.end()
            self._process = _begin(self._core)
        self.run, self.started, self.last = run, time.perf_counter(), run.program
        _, module, *rest = arguments
        log = str(_beside(folder, LOG))
        request = {"module": module, "arguments": rest, "log": log}
        with contextlib.suppress(BrokenPipeError):  # it is gone, and `status` will say so
            self._process.stdin.write(f"{json.dumps(request)}\n".encode())
            self._process.stdin.flush()

    @property
    def answers(self):
        return self._process.stdout

    def status(self):
        # What the run ended with: an answer, or else the process's own end.
        if line := self.answers.readline():
            return int(line)
        status = self._process.wait()
        self.end()
        return status

    def close(self):
        # Which ends the process, and its run as Ctrl-C would.
        if self._process is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def end(self):
        if self._process is not None:
            self.close()
            self._process.wait()
            self._process.stdout.close()
            self._process = None


def _begin(core):
    environment = dict(os.environ)
    environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {_ONE_THREAD}".strip()
    process = subprocess.Popen(
        [sys.executable, "-m", in_turn.__name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        # Ctrl-C reaches the sweep alone, which passes it on once.
        start_new_session=True,
    )
    if core is not None:
        os.sched_setaffinity(process.pid, {core})
    return process


def _ended(slots):
    # (slot, status) of those whose run ended; waits for one.
    with selectors.DefaultSelector() as waiting:
        for slot in slots:
            if slot.run is not None:
                waiting.register(slot.answers, selectors.EVENT_READ, slot)
        ready = [key.data for key, _ in waiting.select()]
    return [(slot, slot.status()) for slot in ready]


def _conclude(folder: Path, returncode: int, keep_checkpoints: bool) -> str:
    log = _beside(folder, LOG)
    if returncode == 0 and (folder / SUMMARY).exists():
        log.unlink(missing_ok=True)
        if not keep_checkpoints:
            # A sweep is for its numbers, and nobody reads hundreds of models.
            for name in ("model.safetensors", "reference.safetensors"):
                (folder / name).unlink(missing_ok=True)
        return "finished"
    lines = log.read_text("utf-8", errors="replace").strip().splitlines()
    last = lines[-1] if lines else "no output"
    write_failure(folder, f"exit status {returncode}: {last}")
    return f"failed: {last}"


def write_failure(folder: Path, words: str) -> None:
    """Notes why a run failed, which `error_of` returns."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing(_beside(folder, FAILED)) as partial:
        partial.write_text(f"{words}\n", "utf-8")
