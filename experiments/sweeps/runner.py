"""Runs the cells of a sweep as processes of the main program, several at a time.

A folder that holds a summary is finished and is not run again; one that was interrupted
continues; one that fails is left with its last words and does not stop the others.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from dwa_jax import regular_files
from dwa_jax.atomic_files import replacing
from experiments.sweeps.plan import Run

# One core a run, whatever the number of workers: sums then always run in one order.
_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
SUMMARY, FAILED, LOG = "summary.json", "failed.txt", "console.txt"


def state_of(folder: Path) -> str:
    """Returns "finished", "failed", "started" or "missing"."""
    if (folder / SUMMARY).exists():
        return "finished"
    if (folder.parent / f"{folder.name}.{FAILED}").exists():
        return "failed"
    return "started" if folder.exists() else "missing"


def error_of(folder: Path) -> str | None:
    """Returns the last words of a failed run."""
    path = folder.parent / f"{folder.name}.{FAILED}"
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
    # Two methods of a sweep may be one and the same run.
    runs = list({run.id: run for run in runs}.values())
    todo = [run for run in runs if state_of(folder / run.id) != "finished"]
    total = len(runs)
    if todo:
        say(f"{total - len(todo)} of {total} runs are finished; {len(todo)} to go")
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    active: dict[int, tuple[Run, subprocess.Popen, float]] = {}
    done = total - len(todo)
    try:
        while todo or active:
            for slot in range(workers):
                if slot not in active and todo:
                    run = todo.pop(0)
                    core = cores[slot % len(cores)] if cores and workers > 1 else None
                    arguments = run.command(places, weights or {}, folder)
                    if keep_checkpoints:
                        arguments.append("--config.keep_checkpoints=True")
                    process = _start(arguments, folder / run.id, core)
                    active[slot] = (run, process, time.perf_counter())
            time.sleep(0.2)
            for slot, (run, process, started) in list(active.items()):
                if process.poll() is None:
                    continue
                del active[slot]
                done += 1
                state = _conclude(folder / run.id, process.returncode, keep_checkpoints)
                seconds = time.perf_counter() - started
                name = f"{run.dataset}, {run.backbone}, {run.method}, seed {run.seed}"
                say(f"[{done}/{total}] {name}: {state} ({seconds:.0f} s)")
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C, and what SIGTERM is turned into
        for _, process, _ in active.values():
            process.send_signal(signal.SIGINT)
        for _, process, _ in active.values():
            process.wait()
        raise
    return {run.id: state_of(folder / run.id) for run in runs}


def _start(arguments: Sequence[str], folder: Path, core: int | None) -> subprocess.Popen:
    folder.parent.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {_ONE_THREAD}".strip()
    failed = folder.parent / f"{folder.name}.{FAILED}"
    if regular_files.check_regular(failed):
        failed.unlink()
    with regular_files.open_to_append(folder.parent / f"{folder.name}.{LOG}") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            # Ctrl-C reaches the sweep alone, which passes it on once.
            start_new_session=True,
        )
    if core is not None:
        os.sched_setaffinity(process.pid, {core})
    return process


def _conclude(folder: Path, returncode: int, keep_checkpoints: bool) -> str:
    log = folder.parent / f"{folder.name}.{LOG}"
    if returncode == 0 and (folder / SUMMARY).exists():
        log.unlink(missing_ok=True)
        if not keep_checkpoints:
            # A sweep is for its numbers, and nobody reads hundreds of models.
            for name in ("model.safetensors", "reference.safetensors"):
                (folder / name).unlink(missing_ok=True)
        return "finished"
    lines = log.read_text("utf-8", errors="replace").strip().splitlines()
    last = lines[-1] if lines else "no output"
    with replacing(folder.parent / f"{folder.name}.{FAILED}") as partial:
        partial.write_text(f"exit status {returncode}: {last}\n", "utf-8")
    return f"failed: {last}"
