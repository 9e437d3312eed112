"""Runs a sweep of methods, datasets, backbones and seeds, and reports what differs.

python -m experiments.reproduce --table=5 --workers=2
python -m experiments.reproduce --figure=3
python -m experiments.reproduce --sweep=configs/sweeps/weightings.py --seeds=0,1,2
"""

import dataclasses
import importlib.util
import os
import sys
import time
from pathlib import Path

from experiments.sweeps import launchers, papers
from experiments.sweeps.plan import Run, Sweep, slug
from experiments.terminal.command import Parser, check_first, run


def parser() -> Parser:
    """Returns the command line's parser."""
    found = Parser(prog="python -m experiments.reproduce", description=__doc__)
    asked = found.add_mutually_exclusive_group(required=True)
    asked.add_argument("--table", choices=list(papers.TABLES), help="a table of the papers")
    asked.add_argument("--figure", choices=list(papers.FIGURES), help="a figure of the papers")
    asked.add_argument("--sweep", metavar="FILE", help="a sweep of one's own: get_sweep()")
    found.add_argument(
        "--workdir", default="runs/sweeps", help="of all sweeps' runs and their reports"
    )
    found.add_argument("--data", default="../shared/data", help="folder with the datasets' files")
    found.add_argument(
        "--workers", type=int, default=1, help="runs at a time, each on one core, or jobs"
    )
    found.add_argument(
        "--launcher",
        choices=launchers.LAUNCHERS,
        default=launchers.PROCESSES,
        help="processes of this program, or jobs: of this machine, or of SLURM",
    )
    found.add_argument(
        "--job",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="what a job asks for: timeout_min=90, gpus_per_node=1, slurm_partition=gpu, ...",
    )
    found.add_argument(
        "--runs_per_job", type=int, default=1, help="seeds of one method, one after the other"
    )
    found.add_argument(
        "--weights",
        metavar="BACKBONE=FOLDER",
        action="append",
        default=[],
        help="takes a backbone's weights from a local folder",
    )
    found.add_argument("--backbones", type=_names, help="others, by their names in configs/")
    found.add_argument("--datasets", type=_names, help="only these")
    found.add_argument("--methods", type=_names, help="only these, and the baseline")
    found.add_argument("--seeds", type=_names, help="others")
    found.add_argument(
        "--protocol",
        choices=["paper"],
        help="100 epochs, 9:1, no test split: the numbers are the validation split's",
    )
    found.add_argument(
        "--readme",
        metavar="FILE",
        help="a Markdown file whose text on these results is renewed, between its marks",
    )
    found.add_argument(
        "--archive",
        metavar="FILE",
        help="finished runs without their texts, cells.tar.xz or the like: taken from there first, "
        "and kept there in the end",
    )
    found.add_argument("--report_only", action="store_true", help="runs nothing")
    found.add_argument(
        "--overwrite", action="store_true", help="replaces reports that were changed since"
    )
    found.add_argument("--keep_checkpoints", action="store_true", help="of finished runs")
    return found


def _names(text):
    return [name for name in text.split(",") if name]


def load(path: Path) -> Sweep:
    """Loads a sweep's file.

    Raises:
      ValueError: there is no such file, or it does not hold a sweep.
    """
    if not path.is_file():
        # Not the one that holds what they share.
        there = [
            str(other)
            for other in sorted(Path("configs/sweeps").glob("[a-z]*.py"))
            if "def get_sweep(" in other.read_text("utf-8")
        ]
        raise ValueError(f"{path}: no such file; there are: {', '.join(there)}")
    specification = importlib.util.spec_from_file_location(f"sweep_{path.stem}", path)
    if specification is None or specification.loader is None:
        raise ValueError(f"{path} does not hold a sweep: a Python file ends in .py")
    module = importlib.util.module_from_spec(specification)
    try:
        specification.loader.exec_module(module)
        return Sweep(**module.get_sweep())
    except (AttributeError, TypeError, SyntaxError, ImportError) as error:
        raise ValueError(f"{path} does not hold a sweep: {error}") from None


def chosen(options) -> tuple[Path, Sweep]:
    """Returns the file and the sweep that the command line asks for.

    Raises:
      ValueError: an unknown name is asked for.
    """
    if options.table is not None:
        path = Path(f"configs/sweeps/{papers.TABLES[options.table]}.py")
    elif options.figure is not None:
        path = Path(f"configs/sweeps/{papers.FIGURES[options.figure]}.py")
    else:
        path = Path(options.sweep)
    sweep = load(path)
    choices = {"datasets": options.datasets or ()}
    if options.methods:
        by_name = {key: name for name in sweep.methods for key in (name, slug(name))}
        choices["methods"] = [by_name.get(name, name) for name in options.methods]
    if options.seeds:
        if not all(seed.isdigit() for seed in options.seeds):
            raise ValueError(f"--seeds={','.join(options.seeds)}: expected integers with commas")
        choices["seeds"] = [int(seed) for seed in options.seeds]
    sweep = sweep.narrowed(**choices)
    if options.protocol:
        settings = {**sweep.settings, "protocol": options.protocol}
        sweep = dataclasses.replace(sweep, settings=settings)
    if options.backbones:
        files = {name: f"configs/{name}.py" for name in options.backbones}
        for file in files.values():
            if not Path(file).is_file():
                raise ValueError(f"--backbones: there is no {file}")
        sweep = sweep.with_backbones(files)
    return path, sweep


def find_weights(given: list[str], sweep: Sweep) -> dict[str, str]:
    """Returns {backbone: folder of its weights}, as --weights has it.

    Raises:
      ValueError: one is not of the form BACKBONE=FOLDER, or names another backbone.
    """
    found = {}
    for text in given:
        name, _, folder = text.partition("=")
        if name not in sweep.backbones or not folder:
            raise ValueError(
                f"--weights={text}: expected BACKBONE=FOLDER with one of "
                f"{', '.join(sweep.backbones)}"
            )
        found[name] = folder
    return found


def requested(arguments: list[str]):
    """Returns (the command line's options, the sweep's file, the sweep, its weights).

    Raises:
      ValueError: the command line or the sweep is wrong.
    """
    options = parser().parse_args(arguments)
    for name in ("workers", "runs_per_job"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name}={getattr(options, name)} must be at least 1")
    options.job = launchers.read_options(options.launcher, options.job)
    path, sweep = chosen(options)
    return options, path, sweep, find_weights(options.weights, sweep)


if __name__ == "__main__":
    check_first(lambda: requested(sys.argv[1:]))

from dwa_jax.finetune import own_files
from experiments.sweeps import archive, cheap, claims, collect, report, runner, streams, tuning
from experiments.terminal.console import Terminal

_WRITTEN = ("results.json", "timing.json", "report.md", "report.html", "pictures")


def command(arguments: list[str]) -> str:
    """Returns the command line as another person would type it."""
    kept = []
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name == "--weights":
            argument = f"{name}={value.partition('=')[0]}=FOLDER"
        if name not in (
            "--workdir",
            "--report_only",
            "--overwrite",
            "--data",
            "--traceback",
            "--archive",
            "--launcher",
            "--job",
            "--runs_per_job",
        ):
            kept.append(argument)
    return " ".join(["python -m experiments.reproduce", *kept])


def reproduce(arguments: list[str], console: Terminal) -> int:
    """Runs what is missing, and writes results.json, timing.json and the report.

    Args:
      arguments: of the command line.
      console: where progress goes.

    Returns:
      How many runs failed.

    Raises:
      ValueError: the command line or the sweep is wrong.
    """
    options, path, sweep, local = requested(arguments)
    root = Path(os.path.expanduser(options.workdir))
    name = f"{path.stem}_{options.protocol}" if options.protocol else path.stem
    cells, folder = root / "cells", root / name
    places = {"data": os.path.expanduser(options.data), "streams": str(root / "streams")}
    if not options.overwrite:  # before hours of runs
        own_files.check_own(folder, _WRITTEN)
    if options.readme:
        claims.check_marks(Path(options.readme), name)
    kept = Path(os.path.expanduser(options.archive)) if options.archive else None
    if kept and kept.exists():
        console.note(f"{kept}: {archive.unpack(kept, cells)} finished runs taken from it")
    if not options.report_only:
        if sweep.streams:
            making = dict(sweep.streams)
            source = Path(making.pop("source").replace("{data}", places["data"]))
            if "groups" in making:
                streams.write_groups(source, root / "streams", making["groups"])
            else:
                streams.write(source, root / "streams", sweep.seeds, **making)

        def run_all(runs):
            common = {
                "weights": local,
                "workers": options.workers,
                "keep_checkpoints": options.keep_checkpoints,
                "say": console.note,
            }
            if options.launcher == launchers.PROCESSES:
                runner.run_all(runs, places, cells, **common)
                return
            asked = {"launcher": options.launcher, "job": options.job}
            launchers.submit_all(
                runs, places, cells, **asked, runs_per_job=options.runs_per_job, **common
            )

        try:
            asked: set[Run] = set()
            while waiting := [run for run in tuning.runs(sweep, cells) if run not in asked]:
                asked.update(waiting)
                run_all(waiting)
            run_all(tuning.tune(sweep, cells)[0].runs())
        finally:
            if kept:
                console.note(f"{kept}: it holds {archive.pack(cells, kept)} finished runs")
    sweep, tuned = tuning.tune(sweep, cells)
    if not options.report_only:
        # Its rows are those of the baseline as it was tuned.
        cheap.measure_missing(sweep, cells, places, local, console.note)
    line = command(arguments)
    results, timing = collect.collect(
        sweep, cells, command=line, papers=papers.STATEMENTS, tuned=tuned
    )
    results["cheap"] = cheap.read(sweep, cells)
    folder.mkdir(parents=True, exist_ok=True)
    with own_files.placing(folder, overwrite=options.overwrite) as place:
        for file, found in (("results.json", results), ("timing.json", timing)):
            # Of a name that no text has, what stands for it is JSON's own escape.
            (place / file).write_text(collect.as_lines(found), "utf-8", "backslashreplace")
        report.write(results, timing, place)
    if options.readme:
        claims.place(Path(options.readme), name, results)
    console.note(report.summary_section(results))
    failed = [run["id"] for run in results["runs"] if run["status"] == "failed"]
    if failed:
        console.note(f"{len(failed)} runs failed: {', '.join(failed)}")
    console.note(f"report: {folder / 'report.html'}")
    return len(failed)


def main() -> None:
    """Runs the program; status 1 if a run failed, 2 for a mistake in what was asked for."""
    started = time.perf_counter()
    console = Terminal()
    try:
        failed = reproduce(sys.argv[1:], console)
    except KeyboardInterrupt:
        console.note("stopped; the same command continues the sweep")
        raise
    console.note(f"{time.perf_counter() - started:.0f} s")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    run(main)
