"""A contender in a process of its own: another framework's threads and memory are not beside it.

python -m experiments.benchmarks.alone '{"shape": "minilm", "rank": 0, ...}', which takes a step
for each line that it reads.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable

from dwa_jax import host_memory
from experiments.benchmarks.timing import Contender, prepare_contender


class Process:
    """A process that has compiled a contender's step and waits to be told to take one.

    Attributes:
      contender: what is to be timed.
      pid: of the process.
    """

    def __init__(self, **request):
        """Starts it and waits until it has compiled.

        Args:
          **request: what `make_run` takes.

        Raises:
          ValueError: it failed; says with what.
        """
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed by `end`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "experiments.benchmarks.alone", json.dumps(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.pid = self._process.pid
        assert self._process.stdin and self._process.stdout  # asked for above
        self._commands, self._answers = self._process.stdin, self._process.stdout
        try:
            self.contender = Contender(self._step, json.loads(self._answer()))
        except BaseException:
            self.end()
            raise

    def _answer(self):
        line = self._answers.readline()
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            said = self._errors.read().strip().splitlines()
            killed = "killed: is there too little memory?" if status == -9 else f"status {status}"
            raise ValueError(said[-1] if said and status != -9 else killed)
        return line

    def _step(self):
        self._commands.write("\n")
        self._commands.flush()
        self._answer()

    def end(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()


def make_run(
    shape: str, rank: int, rows: int, tokens: int, dtype: str, method: str, mode: str
) -> Callable[[], None]:
    """Makes what takes a contender's steps, one a call, and waits for each.

    Args:
      shape: one of `shapes.names()`.
      rank: of LoRA; 0 trains everything.
      rows: B.
      tokens: T.
      dtype: what the trunk computes in.
      method: one of `ours.METHODS`, or of `peers.METHODS`.
      mode: "ours", or one of `peers.MODES`.
    """
    import jax.numpy as jnp

    from experiments.benchmarks import ours

    model = ours.make_model(shape, rank, jnp.dtype(dtype))
    batch = ours.make_batch(shape, rows, tokens)
    if mode == "ours":
        return ours.Runner(model, ours.METHODS[method], batch).run
    from experiments.benchmarks import peers

    return peers.Peer(model, ours.peer_state(model, method), batch, method, mode).run


def main() -> None:
    """Answers with the seconds of compilation, then takes a step for each line."""
    # What libraries print does not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    run = make_run(**json.loads(sys.argv[1]))
    host_memory.keep()
    contender = prepare_contender(run)
    answers.write(f"{contender.compile_seconds}\n")
    answers.flush()
    for _ in sys.stdin:
        contender.run()
        answers.write("done\n")
        answers.flush()


if __name__ == "__main__":
    host_memory.begin()
    main()
