"""What serving costs beside `predict`: the same texts through both, in turns, on one machine.

python -m experiments.benchmarks.served --workdir=DIR --input=FILE [--clients=32] [--rounds=5]

The input holds a text a line. `predict` reads and writes them as a file, in a process that has
compiled its programs and stays; the server answers them one by one to clients that each wait for
an answer before they ask again. The clients are a thread of plain sockets on the same cores, and
what they take of them is said. Rounds are interleaved, and ratios are taken within each: of texts a
second, and of processor time a text, which programs of others on the machine change less.
"""

import contextlib
import io
import json
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks.clients import ask_all, request_of
from experiments.terminal import command

_PERCENTILES = (50, 95, 99)
_TICK = os.sysconf("SC_CLK_TCK")


def parse(argv: list[str] | None = None):
    """Parses the command line; a mistake ends the program with one line and status 2."""
    parser = command.Parser(prog="python -m experiments.benchmarks.served", description=__doc__)
    add = parser.add_argument
    add("--workdir", required=True, help="folder of the finished run")
    add("--backbone", default="", help=command.BACKBONE)
    add("--input", required=True, help="a text a line")
    add("--clients", type=int, default=32, help="requests at a time")
    add("--rounds", type=int, default=5, help="in each of which both are timed")
    add("--batch_size", type=int, default=None, help="texts at once; by default the run's")
    args = parser.parse_args(argv)
    if args.clients < 1 or args.rounds < 1:
        parser.error("--clients and --rounds are at least 1")
    return args


if __name__ == "__main__":
    command.check_first(lambda: command.check_run(parse().workdir))


def _predict(connection, workdir, backbone, batch_size, path):
    # A process of its own, which predicts the file whenever it is asked, and tells the seconds.
    from dwa_jax import compilation_cache, host_memory

    host_memory.begin()

    from dwa_jax.data import tables
    from dwa_jax.finetune.predict_tables import predict_table
    from dwa_jax.finetune.predictor import Predictor

    compilation_cache.enable("")
    predictor = Predictor.load(workdir, batch_size, backbone)
    host_memory.keep()
    wanted = tables.Wanted("text", added=[], chunk_rows=64 * predictor.batch_size, whole=True)
    with contextlib.suppress(EOFError):
        while connection.recv():
            began, cpu = time.perf_counter(), time.process_time()
            with open(path, encoding="utf-8") as file:
                reader = tables.LinesReader(file, path, ".jsonl", wanted)
                done = predict_table(predictor, reader, io.StringIO(), on_bad_row="error")
            spent = time.process_time() - cpu
            connection.send((done.rows, time.perf_counter() - began, spent))


@contextlib.contextmanager
def predicting(args) -> Iterator[Callable[[], tuple[int, float, float]]]:
    """Yields what predicts the file, and returns (texts, seconds, seconds of all cores)."""
    ours, theirs = multiprocessing.Pipe()
    given = (theirs, args.workdir, args.backbone, args.batch_size, args.input)
    process = multiprocessing.get_context("spawn").Process(target=_predict, args=given, daemon=True)
    process.start()
    theirs.close()

    def once():
        ours.send(True)
        return ours.recv()

    try:
        yield once
    finally:
        ours.close()
        process.join()


@contextlib.contextmanager
def answering(args) -> Iterator[tuple[int, int]]:
    """Serves the run; yields (process id, port)."""
    options = [f"--workdir={args.workdir}", "--port=0", f"--backbone={args.backbone}"]
    if args.batch_size:
        options.append(f"--batch_size={args.batch_size}")
    with subprocess.Popen(
        [sys.executable, "-m", "experiments.serve", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().strip()
            if not line:
                raise ValueError("the server did not begin; python -m experiments.serve says why")
            yield process.pid, int(line.rpartition(":")[2])
        finally:
            process.terminate()


def _cpu(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _counted(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    found = re.findall(r"^(dwa_\w+?)(?:_total)? ([\d.e+]+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def time_both(args, told: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Times both; see the options.

    Args:
      args: from `parse`.
      told: each round.

    Raises:
      ValueError: a text cannot be predicted, or a program of ours does not run.
      OSError: a file cannot be read.
    """
    lines = Path(args.input).read_text("utf-8").splitlines()
    requests = [request_of(line) for line in lines]
    rounds: list[dict[str, Any]] = []
    with predicting(args) as predict, answering(args) as (pid, port):
        predict()  # compiles
        ask_all(port, requests[: 4 * args.clients], args.clients)
        for number in range(args.rounds):
            found: dict[str, Any] = {}
            for what in ("predict", "server")[:: 1 if number % 2 else -1]:
                if what == "predict":
                    count, seconds, cpu = predict()
                    found["predict"] = {"rate": count / seconds, "cpu_ms": 1000 * cpu / count}
                    continue
                before, counted, own = _cpu(pid), _counted(port), time.process_time()
                answered = ask_all(port, requests, args.clients)
                own = time.process_time() - own
                now = _counted(port)
                batches = now["dwa_batch_texts_count"] - counted["dwa_batch_texts_count"]
                computing = now["dwa_computing_seconds"] - counted["dwa_computing_seconds"]
                found["server"] = {
                    "rate": len(requests) / answered.seconds,
                    "cpu_ms": 1000 * (_cpu(pid) - before) / len(requests),
                    "clients_cpu_ms": 1000 * own / len(requests),
                    "in_model": computing / answered.seconds,
                    "texts_a_batch": len(requests) / batches,
                    "ms": _quantiles(answered.waited),
                }
            rounds.append(found)
            told(found)
    return {"texts": len(lines), "clients": args.clients, "rounds": rounds} | _summary(rounds)


def _quantiles(waited: Sequence[float]) -> dict[int, float]:
    cuts = statistics.quantiles(waited, n=100, method="inclusive")
    return {share: 1000 * cuts[share - 1] for share in _PERCENTILES}


def _summary(rounds):
    median = statistics.median
    ratios = [one["server"]["rate"] / one["predict"]["rate"] for one in rounds]
    costs = [one["server"]["cpu_ms"] / one["predict"]["cpu_ms"] for one in rounds]
    return {
        "ratio": median(ratios),
        "ratios": ratios,
        "cpu_ratio": median(costs),
        "predict_rate": median(one["predict"]["rate"] for one in rounds),
        "server_rate": median(one["server"]["rate"] for one in rounds),
        "ms": {p: median(one["server"]["ms"][p] for one in rounds) for p in _PERCENTILES},
    }


def main(args) -> None:
    """Runs the program."""
    found = time_both(args, lambda one: print(json.dumps(one), flush=True))
    low, high = min(found["ratios"]), max(found["ratios"])
    waited = ", ".join(f"p{share} {ms:.0f} ms" for share, ms in found["ms"].items())
    command.say(
        f"{found['texts']} texts, {found['clients']} clients, {len(found['rounds'])} rounds: "
        f"server / predict {found['ratio']:.2f} ({low:.2f} to {high:.2f}), "
        f"{found['server_rate']:.0f} of {found['predict_rate']:.0f} texts/s, processor time a text "
        f"{found['cpu_ratio']:.2f} of its; {waited}"
    )


if __name__ == "__main__":
    command.run(lambda: main(parse()))
