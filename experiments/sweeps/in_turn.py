"""Runs programs in turn within one process, each as `python -m` would.

python -m experiments.sweeps.in_turn

A run like an earlier one finds modules imported, and its step traced and compiled: of a short
run's time they are the larger part. What a run writes is the same, bit for bit.

Reads a request a line from standard input, {"module": ..., "arguments": [...], "log": FILE}, and
answers each on standard output with the program's exit status. Where a program ends the process,
that ends with its status and gives no answer. Where whoever asks is gone, or closes standard
input, a program under way is ended as by Ctrl-C.
"""

import json
import os
import queue
import runpy
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dwa_jax import regular_files
from experiments.terminal import ending


def answer_requests(requests: int, answers: int) -> None:
    """Answers requests until there are no more.

    Args:
      requests: descriptor to read from.
      answers: descriptor to write to.
    """
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    asked = threading.Event()

    def read():
        with open(requests, encoding="utf-8") as file:
            for line in file:
                asked.set()
                lines.put(line)
        if asked.is_set():
            os.kill(os.getpid(), signal.SIGINT)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    while line := lines.get():
        request = json.loads(line)
        status = run_program(request["module"], request["arguments"], Path(request["log"]))
        asked.clear()
        os.write(answers, f"{status}\n".encode())


def run_program(module: str, arguments: Sequence[str], log: Path) -> int:
    """Runs one program, all of whose output is appended to a file; returns its exit status."""
    _forget_peak()
    with regular_files.open_to_append(log) as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
        sys.argv = [module, *arguments]
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            return end.code if isinstance(end.code, int) else int(end.code is not None)
        except Exception:  # as the interpreter would, of which another run is left
            traceback.print_exc()
            return 1
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            # Until the next one a signal finds nothing to save.
            ending.end_at_once()
    return 0


def _forget_peak():
    # The peak of memory that the next run reports shall be its own: proc(5).
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    """Runs the program."""
    ending.end_at_once()
    # Descriptors 0 and 1 are the programs' own, as they are of any.
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    answer_requests(requests, answers)


if __name__ == "__main__":
    main()
