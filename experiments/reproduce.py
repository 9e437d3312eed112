"""Runs a sweep of methods, datasets, backbones and seeds, and reports what differs.

python -m experiments.reproduce --table=5 | --figure=3 | --sweep=configs/sweeps/weightings.py
  [--workdir=DIR] [--workers=2] [--data=FOLDER] [--seeds=0,1,2] [--report_only]
"""

import importlib.util
import sys
import time
from pathlib import Path

from absl import app, flags

from experiments import workdir
from experiments.console import Console
from experiments.sweeps import collect, papers, report, runner, streams
from experiments.sweeps.plan import Sweep, slug

_TABLE = flags.DEFINE_enum("table", None, list(papers.TABLES), "A table of the papers.")
_FIGURE = flags.DEFINE_enum("figure", None, list(papers.FIGURES), "A figure of the papers.")
_SWEEP = flags.DEFINE_string("sweep", None, "File with a sweep of one's own: get_sweep().")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Of all sweeps' runs and their reports; runs/sweeps."
)
_DATA = flags.DEFINE_string("data", "../shared/data", "Folder with the datasets' files.")
_WORKERS = flags.DEFINE_integer("workers", 1, "Runs at a time, each on one core.", lower_bound=1)
_WEIGHTS = flags.DEFINE_multi_string(
    "weights", [], "BACKBONE=FOLDER: takes a backbone's weights from a local folder."
)
_BACKBONES = flags.DEFINE_list(
    "backbones", None, "Other backbones: names in configs/, such as qwen, or minilm."
)
_DATASETS = flags.DEFINE_list("datasets", None, "Only these datasets of the sweep.")
_METHODS = flags.DEFINE_list(
    "methods", None, "Only these methods, by their folders' names, and the baseline."
)
_SEEDS = flags.DEFINE_list("seeds", None, "Other seeds.")
_REPORT_ONLY = flags.DEFINE_bool("report_only", False, "Runs nothing; reports what is there.")
_KEEP = flags.DEFINE_bool("keep_checkpoints", False, "Keeps finished runs' checkpoints.")


def load(path: Path) -> Sweep:
    """Loads a sweep's file.

    Raises:
      ValueError: there is no such file, or it does not hold a sweep.
    """
    if not path.is_file():
        found = ", ".join(sorted(str(p) for p in Path("configs/sweeps").glob("[a-z]*.py")))
        raise ValueError(f"{path}: no such file; there are: {found}")
    specification = importlib.util.spec_from_file_location(f"sweep_{path.stem}", path)
    module = importlib.util.module_from_spec(specification)
    try:
        specification.loader.exec_module(module)
        return Sweep(**module.get_sweep())
    except (AttributeError, TypeError, SyntaxError, ImportError) as error:
        raise ValueError(f"{path} does not hold a sweep: {error}") from None


def chosen() -> tuple[Path, Sweep]:
    """Returns the file and the sweep that the command line asks for.

    Raises:
      ValueError: nothing, or more than one thing, or an unknown name is asked for.
    """
    asked = [flag for flag in (_TABLE, _FIGURE, _SWEEP) if flag.value is not None]
    if len(asked) != 1:
        raise ValueError("give one of --table, --figure and --sweep")
    if _TABLE.value is not None:
        path = Path(f"configs/sweeps/{papers.TABLES[_TABLE.value]}.py")
    elif _FIGURE.value is not None:
        path = Path(f"configs/sweeps/{papers.FIGURES[_FIGURE.value]}.py")
    else:
        path = Path(_SWEEP.value)
    sweep = load(path)
    choices = {"datasets": _DATASETS.value or ()}
    if _METHODS.value:
        by_name = {key: name for name in sweep.methods for key in (name, slug(name))}
        choices["methods"] = [by_name.get(name, name) for name in _METHODS.value]
    if _SEEDS.value:
        if not all(seed.isdigit() for seed in _SEEDS.value):
            raise ValueError(f"--seeds={','.join(_SEEDS.value)}: expected integers with commas")
        choices["seeds"] = [int(seed) for seed in _SEEDS.value]
    sweep = sweep.narrowed(**choices)
    if _BACKBONES.value:
        files = {name: f"configs/{name}.py" for name in _BACKBONES.value}
        for file in files.values():
            if not Path(file).is_file():
                raise ValueError(f"--backbones: there is no {file}")
        sweep = sweep.with_backbones(files)
    return path, sweep


def weights(sweep: Sweep) -> dict[str, str]:
    """Returns {backbone: folder of its weights}, as --weights has it.

    Raises:
      ValueError: one is not of the form BACKBONE=FOLDER, or names another backbone.
    """
    found = {}
    for text in _WEIGHTS.value:
        name, _, folder = text.partition("=")
        if name not in sweep.backbones or not folder:
            raise ValueError(
                f"--weights={text}: expected BACKBONE=FOLDER with one of "
                f"{', '.join(sweep.backbones)}"
            )
        found[name] = folder
    return found


def command() -> str:
    """Returns the command line as another person would type it."""
    kept = []
    for argument in sys.argv[1:]:
        name, _, value = argument.partition("=")
        if name == "--weights":
            argument = f"{name}={value.partition('=')[0]}=FOLDER"
        if name not in ("--workdir", "--report_only", "--data"):
            kept.append(argument)
    return " ".join(["python -m experiments.reproduce", *kept])


def reproduce(console: Console) -> int:
    """Runs what is missing, and writes results.json, timing.json and the report.

    Returns:
      How many runs failed.

    Raises:
      ValueError: the command line or the sweep is wrong.
    """
    path, sweep = chosen()
    root = Path(_WORKDIR.value or "runs/sweeps")
    cells, folder = root / "cells", root / path.stem
    places = {"data": _DATA.value, "streams": str(root / "streams")}
    local = weights(sweep)
    if not _REPORT_ONLY.value:
        if sweep.streams:
            options = dict(sweep.streams)
            source = Path(options.pop("source").replace("{data}", _DATA.value))
            streams.write(source, root / "streams", sweep.seeds, **options)
        runner.run_all(
            sweep,
            places,
            cells,
            weights=local,
            workers=_WORKERS.value,
            keep_checkpoints=_KEEP.value,
            say=console.note,
        )
    results, timing = collect.collect(sweep, cells, command=command(), papers=papers.STATEMENTS)
    folder.mkdir(parents=True, exist_ok=True)
    workdir.write_json(folder / "results.json", results)
    workdir.write_json(folder / "timing.json", timing)
    report.write(results, timing, folder)
    console.note(report.summarize(results))
    failed = [run["id"] for run in results["runs"] if run["status"] == "failed"]
    if failed:
        console.note(f"{len(failed)} runs failed: {', '.join(failed)}")
    console.note(f"report: {folder / 'report.html'}")
    return len(failed)


def main(argv: list[str]) -> None:
    """Runs the program; status 1 if a run failed, 2 for a mistake in what was asked for."""
    if len(argv) > 1:
        print(f"error: unexpected argument {argv[1]!r}", file=sys.stderr)
        sys.exit(2)
    console = Console()
    started = time.perf_counter()
    try:
        failed = reproduce(console)
    except KeyboardInterrupt:
        console.note("stopped; the same command continues the sweep")
        sys.exit(130)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    console.note(f"{time.perf_counter() - started:.0f} s")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    app.run(main)
