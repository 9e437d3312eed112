"""Everything worth knowing of a GPU that is there for minutes, in order of worth.

python -m experiments.benchmarks.device_day --output=day.json
python -m experiments.benchmarks.device_day --output=day.json --tiny   a rehearsal, on a CPU too

Each part has a process and a time limit of its own, and is written as it ends; what fails or
takes too long is written with its reason, and the next part begins. PyTorch's parts need
pip install -e ".[benchmark]" with a PyTorch for the GPU.
"""

import os
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from experiments.terminal import command

# One process after another: none may take the memory that the next one, or PyTorch, needs.
_ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


class Part(NamedTuple):
    """One measurement.

    Attributes:
      name: what a reader calls it.
      request: see `worker.measure`.
      seconds: that it may take.
    """

    name: str
    request: dict
    seconds: float


def parse(argv: list[str] | None = None):
    """Parses the command line; a mistake ends the program with one line and status 2."""
    parser = command.Parser(prog="python -m experiments.benchmarks.device_day", description=__doc__)
    parser.add_argument("--output", required=True, help="JSON file that the parts go to")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to rehearse")
    parser.add_argument("--seconds", type=float, default=600, help="that all of it may take")
    parser.add_argument("--only", default="", help="parts whose name holds this")
    args = parser.parse_args(argv)
    if not args.seconds > 0:
        parser.error(f"--seconds={args.seconds:g} must be above 0")
    return args


if __name__ == "__main__":
    command.check_first(parse)

from dwa_jax import messages
from dwa_jax.finetune.run_folder import versions, write_json
from experiments.benchmarks import worker

_FULL = {"shape": "qwen2-0.5b", "rank": 0, "rows": 8, "tokens": 512, "dtype": "bfloat16"}
_TINY = {"shape": "qwen2-tiny", "rank": 0, "rows": 2, "tokens": 16, "dtype": "float32"}
_CONFIGURATIONS = (
    "qwen_dwa",
    "twitter_roberta_large_dwa",
    "qwen",
    "tinyllama",
    "tinyllama_dwa",
)
_SCRATCH = {"vocab_size": 100, "width": 16, "layers": 2, "heads": 2, "feed_forward": 16}


def parts(tiny: bool) -> list[Part]:
    """Returns what is measured, the most wanted first."""
    of_all = _TINY if tiny else _FULL
    compared = {key: of_all[key] for key in ("shape", "rows", "tokens")}
    tokens = 16 if tiny else 512
    changes: dict = {}
    if tiny:
        changes = {"backbone": "scratch", "scratch": _SCRATCH, "lora_rank": 0, "dtype": "float32"}
    found = [
        _step("ours, DWA over trainable", of_all, method="dwa trainable"),
        _step("ours, constant", of_all, method="constant"),
        _step("PyTorch, DWA, three passes", of_all, method="PyTorch dwa three passes"),
        _step("PyTorch, constant", of_all, method="PyTorch constant"),
        Part(
            "parity with PyTorch, float32 in all digits",
            {"kind": "parity", "dtype": "float32", "precision": "highest", **compared},
            120,
        ),
        Part(
            "parity with PyTorch, bfloat16",
            {"kind": "parity", "dtype": "bfloat16", "precision": "default", **compared},
            120,
        ),
    ]
    for name in _CONFIGURATIONS:
        request = {"config": f"configs/{name}.py", "changes": changes, "tokens": tokens}
        found.append(Part(f"step of {name}", {"kind": "configured_step", **request}, 120))
    found += [
        _step(
            "PyTorch compiled, DWA, three passes",
            of_all,
            method="PyTorch dwa three passes",
            mode="compiled",
        ),
        _step("ours, DWA over the representation", of_all, method="dwa representation"),
        _step("ours, sketched", of_all, method="dwa trainable sketch"),
        Part(
            "the same bits twice",
            {"kind": "repeats", "config": "configs/qwen_dwa.py", "tokens": tokens}
            | {"changes": changes},
            120,
        ),
        Part(
            "a short fine-tuning",
            {"kind": "fine_tuning", "rows": 60 if tiny else 4000, "epochs": 1 if tiny else 3},
            120,
        ),
    ]
    return found


def _step(name, of_all, **more):
    return Part(name, {"kind": "contender_step", **of_all, **more}, 100)


def run_parts(chosen: list[Part], output: Path, seconds: float) -> dict:
    """Measures parts one after another, and writes the file after each.

    Args:
      chosen: from `parts`.
      output: JSON file.
      seconds: that all may take; what is left then is not begun.

    Returns:
      What was written.
    """
    ends = time.monotonic() + seconds
    found: dict = {"versions": versions(), "parts": {}}
    for part in chosen:
        left = ends - time.monotonic()
        started = time.monotonic()
        result: dict
        if left <= 0:
            result = {"not_measured": "no time was left"}
        else:
            result = _measured(part, min(part.seconds, left))
        result["took_seconds"] = time.monotonic() - started
        found["parts"][part.name] = result
        write_json(output, found)
        command.say(f"{part.name}: {_words(result)}")
    return found


def _measured(part, seconds):
    try:
        return worker.measure(part.request, environment=_ENVIRONMENT, seconds=seconds)
    except subprocess.TimeoutExpired:
        return {"not_measured": f"took more than {seconds:.0f} s"}
    except (ValueError, OSError) as error:
        return {"not_measured": messages.one_line(error, 400)}


def _words(result):
    shown = {key: value for key, value in result.items() if key != "took_seconds"}
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in shown.items()
    )


def main(args) -> None:
    """Runs the program.

    Raises:
      OSError: the file cannot be written.
    """
    chosen = [part for part in parts(args.tiny) if args.only in part.name]
    run_parts(chosen, Path(os.path.expanduser(args.output)), args.seconds)


if __name__ == "__main__":
    command.run(lambda: main(parse()))
