"""What a person sees on the terminal: notes, a summary, a progress bar, the epochs, the end."""

from collections.abc import Mapping

from absl import logging
from rich.table import Table
from rich.text import Text

from dwa_jax import plain_text
from dwa_jax.finetune.listener import ProgressBar


class Terminal(ProgressBar):
    """Writes to standard output, with colour and a moving bar where it is a terminal."""

    def __init__(self):
        # What libraries log of themselves (backends tried, files saved) is not for this reader.
        logging.set_verbosity(logging.ERROR)
        super().__init__()

    def begin(self, facts: Mapping[str, object]) -> None:
        """Prints what is about to run."""
        self.table("dwa_jax", facts)

    def table(self, title: str, rows: Mapping[str, object]) -> None:
        """Prints names and values in two columns."""
        table = Table(title=_cell(title), show_header=False, title_justify="left", box=None)
        for name, value in rows.items():
            table.add_row(_cell(name), _cell(_short(value)))
        self._rich.print(table)

    def columns(self, title: str, heads: list[str], rows: dict[str, list]) -> None:
        """Prints names and, below each head, a number or nothing where there is none."""
        table = Table(title=_cell(title), title_justify="left", box=None, header_style="none")
        table.add_column("")
        for head in heads:
            table.add_column(_cell(head), justify="right")
        for name, values in rows.items():
            cells = ["-" if value is None else f"{value:.4f}" for value in values]
            table.add_row(_cell(name), *cells)
        self._rich.print(table)


def _cell(text):
    return Text(plain_text.for_terminal(text))


def _short(value):
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_short(item) for item in value)
    return str(value)
