"""Says whether later texts are still like those that a run was trained on.

python -m experiments.watch --workdir=DIR --input=FILE
python -m experiments.watch --workdir=DIR --input=FILE --output=DIR

The input is read as the run's own files were: several with commas between, a pattern or a folder;
labels need not be there. Lengths, unknown tokens, scores, categories and representations are
compared with the training and validation texts, and where labels are there the errors with those
on the validation rows. A table shows what was, what is, and p values corrected for the number of
tests; --output has it as drift.json, with a picture, drift.png.

The exit status is 0 where nothing speaks against texts that have not changed, 3 for an alarm, and 2
where a mistake, said in one line, left it open.
"""

import sys

from experiments.terminal import command

ALARM = 3


def parse(argv: list[str] | None = None):
    """Parses the command line; a mistake ends the program with one line and status 2."""
    parser = command.Parser(prog="python -m experiments.watch", description=__doc__)
    add = parser.add_argument
    add("--workdir", required=True, help="folder of the finished run")
    add("--backbone", default="", help=command.BACKBONE)
    add("--input", required=True, help="file or files of texts, with labels or without")
    add("--text_column", default="", help="column of the texts; by default the run's")
    add("--time_column", default="", help="column that orders the rows; by default their files do")
    add("--max_rows", type=int, default=1000, help="texts that are looked at, drawn of more")
    add(
        "--level",
        type=float,
        default=0.05,
        help="probability of an alarm about texts that have not changed, for all tests together",
    )
    add("--output", default="", metavar="DIR", help="folder for drift.json and drift.png")
    parser.add_compilation_cache()
    args = parser.parse_args(argv)
    if args.max_rows < 1:
        raise ValueError(f"--max_rows={args.max_rows} must be at least 1")
    if not 0 < args.level < 1:
        raise ValueError(f"--level={args.level:g} must be between 0 and 1")
    return args


if __name__ == "__main__":
    command.check_first(lambda: command.check_run(parse().workdir))

import numpy as np
from absl import logging

from dwa_jax import compilation_cache, regular_files
from dwa_jax.finetune import corpus, own_files, plots, run_folder
from dwa_jax.finetune.drift.drift_picture import draw_drift
from dwa_jax.finetune.drift.later_rows import read_later, with_categories
from dwa_jax.finetune.drift.watched import Compared, watch
from dwa_jax.finetune.predictor import Predictor
from experiments.terminal.console import Terminal

# Fewer texts than these rarely tell.
_FEW = 50
# Columns of the table over time; drift.json has more.
_OVER_TIME = ("unlike", "mean_score", "interval_coverage", "mae", "accuracy")


def main(args) -> Compared:
    """Runs the program.

    Raises:
      ValueError: a mistake of the user's; one line says which.
      OSError: something cannot be read or written.
    """
    logging.set_verbosity(logging.ERROR)
    compilation_cache.enable(args.compilation_cache)
    console = Terminal()
    model = Predictor.load(args.workdir, backbone=args.backbone)
    files = corpus.expand_names(args.input, "--input")
    columns = {"text_column": args.text_column, "time_column": args.time_column}
    rows = read_later(
        model.config, files, **columns, note=lambda text: console.note(f"note: {text}")
    )
    categories = with_categories(model.config, rows, model.thresholds)
    seen = watch(model, rows, categories, most=args.max_rows, level=args.level)
    _tell(console, seen, len(rows))
    if args.output:
        _write(args.output, model.run.reference, seen)
    return seen


def _tell(console, seen, count):
    heads = ["before", "now", "p", "corrected p"]
    tests = {
        f"{one.name} ({one.measure})": [one.before, one.now, one.p_value, one.corrected]
        for one in seen.shifts
    }
    looked = len(seen.distances)
    console.columns(f"{looked} of {count} texts, beside the run's", heads, tests)
    over = {
        f"part {i}, {part['texts']} texts": [_known(part.get(name)) for name in _OVER_TIME]
        for i, part in enumerate(seen.windows, 1)
    }
    console.columns("over time", [name.replace("_", " ") for name in _OVER_TIME], over)
    if looked < _FEW:
        console.note(f"note: {looked} texts are few: only a large difference shows")
    alarms = ", ".join(seen.alarms)
    console.note(f"alarm: {alarms}" if alarms else f"no alarm at a level of {seen.level:g}")


def _known(value):
    return None if value is None or np.isnan(value) else value


def _write(output, reference, seen):
    folder = regular_files.named_path(output)
    folder.mkdir(parents=True, exist_ok=True)
    with own_files.placing(folder) as place:
        run_folder.write_json(place / "drift.json", seen.to_dict())
        plots.save({"drift": draw_drift(reference, seen)}, place)


def status_of(seen: Compared) -> int:
    """Returns what the program ends with."""
    return ALARM if seen.alarms else 0


if __name__ == "__main__":
    command.run(lambda: sys.exit(status_of(main(parse()))))
