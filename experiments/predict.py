"""Predicts texts with a finished run.

python -m experiments.predict --workdir=DIR --input=FILE --output=FILE
python -m experiments.predict --workdir=DIR < LINES > JSONL

The input is a .csv, .tsv, .txt, .json, .jsonl, .ndjson, .parquet or .xlsx file, or several with the
same columns, as a pattern, a folder or with commas between; the output, one file, holds rows of the
same kind (of Excel those of a CSV, of JSON an object a line) in the same order with all their
columns, and behind them predicted_score, where the run has a score_range also predicted_in_range,
interval_low and interval_high around it, predicted_category (and predicted_name, where the run has
names), probability_0 to probability_K-1, truncated (1 where a text lost its end), and with
--abstain unlike and abstained. Without --input each line of standard input is a text;
without --output rows go to standard output, of lines as JSON. A row without a usable text keeps its
place, without a prediction; what there is when something ends the program is kept as
NAME.incomplete.SUFFIX. Text files are compressed where a name ends in .gz, .bz2, .xz or .zst; what
comes out is UTF-8.
"""

import argparse
import contextlib
import io
import os
import sys
import time
from pathlib import Path
from typing import Any

from experiments.terminal import command, how_sure


def parse(argv: list[str] | None = None):
    """Parses the command line; a mistake ends the program with one line and status 2."""
    parser = command.Parser(prog="experiments.predict", description=__doc__)
    add = parser.add_argument
    add("--workdir", required=True, help="folder of the finished run")
    add("--backbone", default="", help=command.BACKBONE)
    add("--input", default="-", help="file or files of texts; - is standard input, a text a line")
    add("--output", default="-", help="file to write; - is standard output, as JSON lines")
    add("--text_column", default="", help="column of the texts; by default the run's")
    add("--delimiter", default="", help="between the cells of a text file; by default found")
    add("--encoding", default="", help="of a text file; by default found")
    add(
        "--columns",
        default=None,
        help="names of all columns of a file without a header, with commas between; by default the "
        "run's; an empty one is a file with a header",
    )
    add(
        "--on_bad_row",
        default="keep",
        choices=["keep", "skip", "error"],
        help="keep: a row without a usable text gets no prediction; skip: is left out; error: ends "
        "it",
    )
    add(
        "--clip_scores",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="scores beyond the range of the run's are given as its ends; by default the run's",
    )
    add("--batch_size", type=int, default=None, help="rows at once; by default the run's")
    add(
        "--explain",
        default="none",
        choices=["none", "occlusion"],
        help="occlusion: a column with what each word adds; one more prediction a word",
    )
    how_sure.add_options(parser)
    add("--overwrite", action="store_true", help="replaces an output that is there")
    add(
        "--spreadsheet_safe",
        action="store_true",
        help="an apostrophe before cells of a CSV that a spreadsheet would run as a formula",
    )
    parser.add_compilation_cache()
    args = parser.parse_args(argv)
    args.output = os.path.expanduser(args.output)
    how_sure.check_options(args)
    return args


if __name__ == "__main__":
    command.check_first(lambda: command.check_run(parse().workdir))

from absl import logging
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from dwa_jax import compilation_cache, host_memory, regular_files
from dwa_jax.atomic_files import check_file, whole_file
from dwa_jax.data import tables
from dwa_jax.finetune import corpus, listener
from dwa_jax.finetune.predict_tables import columns, predict_table
from dwa_jax.finetune.predictor import Predictor

# Batches a chunk: enough to find rows of like length, few enough to forget.
_BATCHES = 64


def _reader(args, predictor, added):
    column = args.text_column or predictor.run.config.text_column
    wanted = tables.Wanted(
        column, added=list(added), chunk_rows=_BATCHES * predictor.batch_size, whole=True
    )
    to = tables.format_of(Path(args.output)) if args.output != "-" else ".jsonl"
    if args.input == "-":
        if sys.stdin.isatty():
            command.say("note: texts from the keyboard, a line each; Ctrl-D ends them", sys.stderr)
        # What stands for it, in a notebook for instance, may hold texts already.
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
        return tables.LinesReader(sys.stdin, "standard input", to, wanted)
    # A file's own name may hold what would make it a pattern.
    names = (
        [args.input] if Path(args.input).is_file() else corpus.expand_names(args.input, "--input")
    )
    if not names:
        raise ValueError(f"--input={args.input!r} names no file")
    config = predictor.run.config
    columns = args.columns if args.columns is not None else ",".join(config.columns)
    layout = tables.Layout(
        args.delimiter,
        args.encoding,
        tuple(name.strip() for name in columns.split(",") if name.strip()),
    )
    try:
        reader = tables.open_tables(names, wanted, layout)
    except tables.UnknownFormat as error:
        raise ValueError(f"{error}; lines, a text each, go to standard input: < FILE") from None
    if args.output == "-" and reader.suffix == ".parquet":
        raise ValueError("Parquet needs a file to go to: --output=FILE.parquet")
    if args.output != "-" and to != reader.suffix:
        raise ValueError(
            f"--output={args.output}: the input is {reader.suffix}, and so is the output"
        )
    return reader


@contextlib.contextmanager
def _kept_so_far(path, overwrite, written):
    # Hours of work are not thrown away because of what a file holds at its end: the rows that
    # there are when something ends it go by another name.
    beside = path.with_name(f"{path.name.partition('.')[0]}.incomplete{''.join(path.suffixes)}")
    with whole_file(path, overwrite=overwrite) as partial:
        try:
            yield partial
        except OSError:
            raise  # of the output, it may be
        except BaseException as error:
            if not sum(written):
                raise
            regular_files.check_regular(beside)
            os.replace(partial, beside)
            words = f"the rows before it are in {beside}"
            if isinstance(error, ValueError):
                raise ValueError(f"{error}; {words}") from error
            command.say(f"note: {words}", sys.stderr)
            raise


def predict(args) -> None:
    """Runs the program.

    Raises:
      ValueError: a mistake of the user's; one line says which.
      OSError: something cannot be read or written.
    """
    logging.set_verbosity(logging.ERROR)
    compilation_cache.enable(args.compilation_cache)
    console = listener.degrading_console(sys.stderr)
    if args.output != "-":
        check_file(Path(args.output), overwrite=args.overwrite)  # before the model is read
    predictor = Predictor.load(args.workdir, args.batch_size, args.backbone)
    if args.clip_scores is not None:
        predictor.clip_scores = args.clip_scores
    how_sure.apply_options(args, predictor)
    host_memory.keep()
    added = columns(predictor, args.explain, args.abstain)
    reader = _reader(args, predictor, added)
    if args.spreadsheet_safe and reader.suffix != ".csv":
        raise ValueError(f"--spreadsheet_safe is of CSV, and the output is {reader.suffix}")
    cut: list[int] = []
    started = time.perf_counter()
    bar = Progress(
        TextColumn("predicting"),
        BarColumn(),
        TextColumn("{task.fields[values]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )

    written: list[int] = []

    def show(rows, share):
        written.append(rows)
        rate = rows / (time.perf_counter() - started)
        text = f"{rows} texts, {rate:.0f} texts/s"
        bar.update(task, total=None if share is None else 1.0, completed=share or 0, values=text)

    options = {
        "on_bad_row": args.on_bad_row,
        "explain": args.explain,
        "abstain": args.abstain,
        "name": args.output if args.output != "-" else "",
        "show": show,
        "cut": cut.append,
        "spreadsheet_safe": args.spreadsheet_safe,
    }
    with contextlib.ExitStack() as held:
        held.enter_context(bar)
        if not console.is_terminal:
            held.enter_context(
                listener.every_minute(console.print, lambda: f"{sum(written[-1:])} texts")
            )
        task = bar.add_task("", total=None, values="")
        output: Any = sys.stdout
        if args.output != "-":
            output = held.enter_context(_kept_so_far(Path(args.output), args.overwrite, written))
        elif isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")
        try:
            done = predict_table(predictor, reader, output, **options)
        except tables.MissingColumn as error:
            raise ValueError(f"{error}; name the text's with --text_column") from None
    seconds = time.perf_counter() - started
    for note in reader.notes:
        command.say(f"note: {reader.name}: {note}", sys.stderr)
    for what, rows in (("without a prediction", done.blank), ("left out", done.left_out)):
        if rows:
            more = f"; and {len(rows) - 3} more" if len(rows) > 3 else ""
            command.say(
                f"note: {len(rows)} bad rows {what}: {'; '.join(rows[:3])}{more}", sys.stderr
            )
    if predictor.run.reference is None:
        command.say(
            f"note: {args.workdir} keeps nothing of its rows, as runs of earlier versions do: "
            "predictions have no intervals",
            sys.stderr,
        )
    if args.abstain is not None:
        command.say(f"note: {done.abstained} texts are marked as abstained", sys.stderr)
    if done.at_ends:
        low, high = predictor.run.config.score_range or (-1, 1)
        command.say(
            f"note: {done.at_ends} scores lie beyond {low:g} to {high:g}, given as its ends; "
            "--no-clip_scores gives them as they are",
            sys.stderr,
        )
    if sum(cut):
        tokens = predictor.run.max_tokens
        command.say(f"note: {sum(cut)} texts cut to {tokens} tokens, as in training", sys.stderr)
    command.say(
        f"{done.rows} texts in {seconds:.1f} s, {done.rows / seconds:.1f} texts/s, compilation "
        "included",
        sys.stderr,
    )


if __name__ == "__main__":
    host_memory.begin()
    command.run(lambda: predict(parse()))
