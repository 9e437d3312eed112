"""One page on a run, or on several side by side.

python -m experiments.report --workdir=DIR [DIR ...] [--output=FILE]

The page is self-contained HTML: what the runs differ in, how they trained, what they predicted.
Runs that are not finished are shown as far as they went. By default it is written into the run's
folder, as report.html; that of several runs into the current folder. An earlier report is
replaced, any other file is not.
"""

from collections.abc import Sequence
from pathlib import Path

from experiments import command, document, whole
from experiments.document import Box, Bullets, Heading, Paragraph
from experiments.reports import folder, predictions, training
from experiments.reports.folder import Run

_MADE_BY = "experiments.report"
_DEFAULT = "report.html"


def write(workdirs: Sequence[Path], output: Path | None = None) -> Path:
    """Writes the page.

    Args:
      workdirs: the runs' folders.
      output: the file; by default report.html, of one run in its folder, of several in the
        current one.

    Returns:
      The file.

    Raises:
      ValueError: a folder holds no run, a file of it is damaged, or the output is a file that
        this did not write; nothing is written.
      OSError: something cannot be read or written.
    """
    runs = folder.read(workdirs)
    path = output or (workdirs[0] / _DEFAULT if len(runs) == 1 else Path(_DEFAULT))
    ours = document.is_page(path, _MADE_BY)
    if path.is_file() and not ours:
        raise ValueError(f"{path} is there already and no report of runs; give another --output")
    whole.check_file(path, overwrite=ours)
    text = page(runs)
    with whole.whole_file(path, overwrite=ours) as partial:
        partial.write_text(text, "utf-8")
    return path


def page(runs: Sequence[Run]) -> str:
    """Returns the page.

    Args:
      runs: at least one.
    """
    if len(runs) == 1:
        title = f"Run {runs[0].name}"
    else:
        title = f"{len(runs)} runs side by side"
    blocks = [Heading(1, title), Paragraph(_first(runs)), *_notes(runs)]
    blocks += training.overview(runs) + training.configurations(runs)
    blocks += predictions.results(runs) + training.curves(runs)
    blocks += predictions.scores(runs) + predictions.predicted_vs_true(runs)
    blocks += predictions.confusions(runs) + predictions.errors_by_class(runs)
    blocks += predictions.worst(runs)
    return document.page(title, blocks, _MADE_BY)


def _first(runs):
    if len(runs) == 1:
        return f"Judged by the {runs[0].graded_on}." if runs[0].graded else "Nothing to judge yet."
    numbered = training.headings(runs)
    return f"{', '.join(numbered)}. Numbers and colours are the same throughout the page."


def _notes(runs):
    """What a reader must know before comparing."""
    notes = []
    for name, run in zip(training.headings(runs), runs, strict=True):
        if not run.summary:
            notes.append(
                f"{name} is not finished: there is no summary.json. What is shown is as far as "
                "it went, its metrics are of the validation split, and its thresholds are not "
                "known yet."
            )
        elif run.summary["predictions"] != "test":
            notes.append(
                f"{name} has no test split: its figures are of the {run.split}, on which its "
                "best epoch was chosen."
            )
        if run.skipped:
            notes.append(f"{name}: {run.skipped} updates were left out, see metrics.jsonl.")
    if not folder.same_rows(runs):
        notes.append("The runs predicted different rows: their figures are not comparable.")
    elif not folder.same_labels(runs):
        notes.append(
            "The runs predicted the same rows, whose true classes are not the same: what is said "
            "of classes, accuracy and F1 is each run's own."
        )
    return (
        [Box("Before you compare" if len(runs) > 1 else "Note", [Bullets(notes)])] if notes else []
    )


def main() -> None:
    """Runs the program."""
    parser = command.Parser(prog="python -m experiments.report", description=__doc__)
    parser.add_argument(
        "--workdir", nargs="+", action="extend", required=True, metavar="DIR", help="of a run"
    )
    parser.add_argument("more", nargs="*", metavar="DIR", help="of further runs")
    parser.add_argument("--output", default="", metavar="FILE", help="the page")
    options = parser.parse_intermixed_args()
    folders = [Path(name).expanduser() for name in (*options.workdir, *options.more)]
    output = Path(options.output).expanduser() if options.output else None
    print(f"wrote {write(folders, output)}")


if __name__ == "__main__":
    command.run(main)
