"""What a person sees on the terminal: notes, a summary, a progress bar, the epochs, the end."""

import contextlib
from collections.abc import Mapping

from absl import logging
from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text


class Console:
    """Writes to standard output, with colour and a moving bar where it is a terminal."""

    def __init__(self):
        # What libraries log of themselves (backends tried, files saved) is not for this reader.
        logging.set_verbosity(logging.ERROR)
        self._rich = RichConsole(highlight=False, soft_wrap=True)
        self._epochs_begun = False

    def note(self, text: str) -> None:
        """Prints one line."""
        self._rich.print(text, markup=False)

    def table(self, title: str, rows: Mapping[str, object]) -> None:
        """Prints names and values in two columns."""
        table = Table(title=title, show_header=False, title_justify="left", box=None)
        for name, value in rows.items():
            table.add_row(name, escape(_short(value)))
        self._rich.print(table)

    def columns(self, title: str, heads: list[str], rows: dict[str, list]) -> None:
        """Prints names and, below each head, a number or nothing where there is none."""
        table = Table(title=title, title_justify="left", box=None, header_style="none")
        table.add_column("")
        for head in heads:
            table.add_column(escape(head), justify="right")
        for name, values in rows.items():
            cells = ["-" if value is None else f"{value:.4f}" for value in values]
            table.add_row(name, *cells)
        self._rich.print(table)

    @contextlib.contextmanager
    def progress(self, total: int, done: int):
        """Shows a bar of `total` steps; yields one with `advance`, `show` and `telling`."""
        columns = (
            TextColumn("training"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[rate]}"),
        )
        bar = _Lines(*columns, console=self._rich, disable=not self._rich.is_terminal)
        with bar:
            yield _Bar(bar, bar.add_task("", total=total, completed=done, values="", rate=""))

    def epoch(self, values: dict) -> None:
        """Prints an evaluated epoch as a row of the table, with its head before the first."""
        names = [name for name in values if name not in ("epoch", "best")]
        if not self._epochs_begun:
            self._epochs_begun = True
            self.note("epoch  " + "".join(f"{name:>10}" for name in names) + "   (validation)")
        cells = "".join(
            f"{'-':>10}" if values[name] is None else f"{values[name]:>10.4f}" for name in names
        )
        self.note(f"{values['epoch']:>5}  {cells}" + ("   best so far" if values["best"] else ""))


class _Lines(Progress):
    # What there is to tell has a line of its own: beside the bar it would be cut.
    def get_renderables(self):
        yield from super().get_renderables()
        for task in self.tasks:
            if task.fields["values"]:
                yield Text(task.fields["values"])


class _Bar:
    def __init__(self, progress, task):
        self._progress, self._task = progress, task

    def advance(self):
        self._progress.advance(self._task)

    def show(self, record):
        tasks = [name.removeprefix("coefficient_") for name in record if "coefficient_" in name]
        shown = [
            f"{task} {record[f'loss_{task}']:.3f} x {record[f'coefficient_{task}']:.2f}"
            for task in sorted(tasks, reverse=True)
        ]
        rate = f"{record['tokens_per_second']:,.0f} tokens/s"
        text = f"loss x weight: {', '.join(shown)}"
        self._progress.update(self._task, values=text, rate=rate)

    @contextlib.contextmanager
    def telling(self, text):
        (task,) = self._progress.tasks
        before = task.fields["values"]
        self._progress.update(self._task, values=text)
        yield
        self._progress.update(self._task, values=before)


def _short(value):
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_short(item) for item in value)
    return str(value)
