"""One page on a run, or on several side by side.

python -m experiments.report --workdir=DIR [DIR ...] [--output=FILE]

The page is self-contained HTML: what the runs differ in, how they trained, what they predicted.
Runs that are not finished are shown as far as they went. By default it is written into the run's
folder, as report.html; that of several runs into the current folder. An earlier report is
replaced, any other file is not.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from experiments.terminal import command


def parse():
    """Parses the command line; a mistake ends the program with one line and status 2."""
    parser = command.Parser(prog="python -m experiments.report", description=__doc__)
    parser.add_argument(
        "--workdir", nargs="+", action="extend", required=True, metavar="DIR", help="of a run"
    )
    parser.add_argument("more", nargs="*", metavar="DIR", help="of further runs")
    parser.add_argument("--output", default="", metavar="FILE", help="the page")
    parser.add_argument("--overwrite", action="store_true", help="replaces whatever file is there")
    options = parser.parse_intermixed_args()
    options.workdir += options.more
    for name in options.workdir:
        command.check_run(name)
    return options


if __name__ == "__main__":
    command.check_first(parse)

from dwa_jax import atomic_files
from experiments.pages import document
from experiments.pages.document import Box, Bullets, Heading, Paragraph
from experiments.reports import certainty, folder, predictions, training
from experiments.reports.folder import RunFolder

_MADE_BY = "experiments.report"
_DEFAULT = "report.html"


def write(workdirs: Sequence[Path], output: Path | None = None, *, overwrite: bool = False) -> Path:
    """Writes the page.

    Args:
      workdirs: the runs' folders.
      output: the file; by default report.html, of one run in its folder, of several in the
        current one.
      overwrite: whether a file that this did not write, or not as it is now, is replaced.

    Returns:
      The file.

    Raises:
      ValueError: a folder holds no run, a file of it is damaged, or the output is a file that
        this did not write; nothing is written.
      OSError: something cannot be read or written.
    """
    runs = folder.read(workdirs)
    path = output or (workdirs[0] / _DEFAULT if len(runs) == 1 else Path(_DEFAULT))
    ours = overwrite or document.is_page(path, _MADE_BY)
    if path.is_file() and not ours:
        raise ValueError(
            f"{path} is there already and no report of runs, or was changed since; give another "
            "--output, or --overwrite"
        )
    atomic_files.check_file(path, overwrite=ours)
    text = report_page(runs)
    with atomic_files.whole_file(path, overwrite=ours) as partial:
        partial.write_text(text, "utf-8")
        if ours and not overwrite and path.exists() and not document.is_page(path, _MADE_BY):
            raise ValueError(f"{path} was changed while this was running, and stays as it is")
    return path


def report_page(runs: Sequence[RunFolder]) -> str:
    """Returns the page.

    Args:
      runs: at least one.
    """
    if len(runs) == 1:
        title = f"Run {runs[0].name}"
    else:
        title = f"{len(runs)} runs side by side"
    blocks = [Heading(1, title), *_first(runs), *_notes(runs)]
    blocks += training.overview(runs) + training.configurations(runs)
    blocks += predictions.results(runs) + training.curves(runs)
    blocks += predictions.scores(runs) + predictions.predicted_vs_true(runs)
    blocks += predictions.confusions(runs) + predictions.errors_by_class(runs)
    blocks += certainty.how_sure(runs)
    blocks += predictions.worst(runs)
    return document.page(title, blocks, _MADE_BY)


def _first(runs):
    if len(runs) == 1:
        return [Paragraph(str(runs[0].folder))]
    named = zip(training.headings(runs), runs, strict=True)
    return [
        Paragraph("Numbers and colours are the same throughout the page."),
        Bullets([f"{name}: {run.folder}" for name, run in named]),
    ]


def _notes(runs):
    """What a reader must know before believing or comparing."""
    notes, named = [], list(zip(training.headings(runs), runs, strict=True))
    for name, run in named:
        if not run.summary:
            notes.append(
                f"{name} is not finished: there is no summary.json. It is shown as far as it "
                "went, judged by the validation split; its thresholds are not known yet."
            )
        elif run.summary["predictions"] != "test":
            notes.append(
                f"{name} has no test split: its figures are of the {run.split}, on which its "
                "best epoch was chosen."
            )
        if run.skipped:
            notes.append(f"{name}: {run.skipped} updates were left out, see metrics.jsonl.")
    predicted = [(name, run.predictions) for name, run in named if run.predictions is not None]
    if predicted:
        first, other = predicted[0]
        rows = [name for name, one in predicted if not folder.same_rows(one, other)]
        if rows:
            notes.append(
                f"Other rows than those of {first} were predicted by {', '.join(rows)}: figures "
                "of different rows cannot be compared."
            )
        classes = [
            name
            for name, one in predicted
            if name not in rows and not folder.same_classes(one, other)
        ]
        if classes:
            notes.append(
                f"The same rows as in {first} have other true classes in {', '.join(classes)}: "
                "accuracy, F1 and all that is said of classes is each run's own."
            )
    title = "Before you compare" if len(runs) > 1 else "Note"
    return [Box(title, [Bullets(notes)])] if notes else []


def main() -> None:
    """Runs the program."""
    options = parse()
    folders = [Path(os.path.expanduser(name)) for name in options.workdir]
    output = Path(os.path.expanduser(options.output)) if options.output else None
    command.say(f"wrote {write(folders, output, overwrite=options.overwrite)}")


if __name__ == "__main__":
    command.run(main)
