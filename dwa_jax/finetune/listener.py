"""Who is told how a run goes: nobody, a bar, or whatever a program makes of it."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO, cast

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from dwa_jax import plain_text

# Seconds between two lines where nothing can move, as in a log file.
_BETWEEN_LINES = 60.0


class Degrading:
    """A text file that writes what it can: no print ends a training of hours.

    What its encoding lacks is written as its code, and nothing where nobody reads any longer.
    """

    def __init__(self, file: TextIO):
        """Writes to a file, or what stands for one."""
        self._file = file

    def write(self, text: str) -> int:
        """Writes a text."""
        with contextlib.suppress(OSError, ValueError):
            try:
                self._file.write(text)
            except UnicodeEncodeError:
                encoding = getattr(self._file, "encoding", None)
                self._file.write(plain_text.encodable(text, encoding))
        return len(text)

    def flush(self) -> None:
        """Hands on what was written."""
        with contextlib.suppress(OSError, ValueError):
            self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def degrading_console(file: TextIO, **options: Any) -> Console:
    """Makes a console whose output degrades where the file cannot take it, and never raises."""
    return Console(
        file=cast(TextIO, Degrading(file)), highlight=False, soft_wrap=True, markup=False, **options
    )


class StepListener:
    """Is told of the steps of one training; of this class it keeps silent."""

    def advance(self) -> None:
        """A step was begun."""

    def show(self, record: Mapping[str, Any]) -> None:
        """A step was recorded, as in metrics.jsonl."""

    @contextlib.contextmanager
    def telling(self, text: str) -> Iterator[None]:
        """Something long is going on while the block runs."""
        yield


class Listener:
    """Is told how a run goes; of this class it keeps silent.

    A listener of one's own overrides what it wants to hear. What it raises ends the run.
    """

    def note(self, text: str) -> None:
        """Hears one line for the reader: what was noticed, warned of, or left out."""

    def begin(self, facts: Mapping[str, object]) -> None:
        """Hears what is about to run: name of a fact -> a number or words for the reader."""

    @contextlib.contextmanager
    def progress(self, total: int, done: int) -> Iterator[StepListener]:
        """Is there while the steps run.

        Args:
          total: steps of the run.
          done: of them, where the run goes on.

        Yields:
          What is told of the steps.
        """
        yield StepListener()

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Hears of an evaluated epoch: "epoch", "best" and metrics of the validation split."""


class ProgressBar(Listener):
    """Shows notes, a bar and the epochs: a moving one in a terminal or a notebook.

    Elsewhere, as in a log file, the bar is a line a minute.
    """

    def __init__(self) -> None:
        """Finds out where it prints: to standard output as it is now."""
        self._rich = degrading_console(sys.stdout)
        self._epochs_begun = False

    def note(self, text: str) -> None:
        """Prints one line."""
        self._rich.print(Text(plain_text.for_terminal(text)))

    @contextlib.contextmanager
    def progress(self, total: int, done: int) -> Iterator[StepListener]:
        """Shows a bar of `total` steps, of which some are done."""
        if self._rich.is_jupyter:
            with _NotebookBar(total, done) as notebook:
                yield notebook
            return
        if not self._rich.is_terminal:
            lines = _Lines(total, done)
            with every_minute(self.note, lines.status):
                yield lines
            return
        columns = (
            TextColumn("training"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[rate]}"),
        )
        with _WithLine(*columns, console=self._rich) as bar:
            yield _Bar(bar, bar.add_task("", total=total, completed=done, values="", rate=""))

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Prints an evaluated epoch as a row of the table, with its head before the first."""
        widths = {name: max(10, len(name) + 2) for name in record if name not in ("epoch", "best")}
        if not self._epochs_begun:
            self._epochs_begun = True
            self.note(
                "epoch  "
                + "".join(f"{name:>{wide}}" for name, wide in widths.items())
                + "   (validation)"
            )
        cells = "".join(
            f"{'-':>{wide}}" if record[name] is None else f"{record[name]:>{wide}.4f}"
            for name, wide in widths.items()
        )
        self.note(f"{record['epoch']:>5}  {cells}" + ("   best so far" if record["best"] else ""))


class _WithLine(Progress):
    # What there is to tell has a line of its own: beside the bar it would be cut.
    def get_renderables(self):
        yield from super().get_renderables()
        for task in self.tasks:
            if task.fields["values"]:
                yield Text(task.fields["values"])


class _Bar(StepListener):
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self):
        self._progress.advance(self._task)

    def show(self, record):
        self._progress.update(self._task, values=_losses(record), rate=_rate(record))

    @contextlib.contextmanager
    def telling(self, text):
        (task,) = self._progress.tasks
        before = task.fields["values"]
        self._progress.update(self._task, values=text)
        yield
        self._progress.update(self._task, values=before)


# Seconds between two pictures of a notebook's bar, and its characters.
_BETWEEN_PICTURES = 0.5
_WIDTH = 20


class _NotebookBar(StepListener):
    # Rich's own needs ipywidgets in a notebook, and warns where it is missing; an output that is
    # updated in place needs nothing.
    def __init__(self, total: int, done: int) -> None:
        self._total, self._done = total, done
        self._started, self._done_before = time.monotonic(), done
        self._rate, self._words = "", ""

    def __enter__(self) -> "_NotebookBar":
        # Only a notebook asks, so it is there.
        from IPython.display import display

        self._shown = time.monotonic()
        self._handle = display(self._drawn(), raw=True, display_id=True)
        return self

    def __exit__(self, *error: Any) -> None:
        self._update(at_once=True)

    def advance(self):
        self._done += 1
        self._update()

    def show(self, record):
        self._rate, self._words = _rate(record), _losses(record)
        self._update()

    @contextlib.contextmanager
    def telling(self, text):
        before, self._words = self._words, text
        self._update(at_once=True)
        yield
        self._words = before
        self._update(at_once=True)

    def _update(self, at_once=False):
        now = time.monotonic()
        if at_once or now - self._shown >= _BETWEEN_PICTURES:
            self._shown = now
            self._handle.update(self._drawn(), raw=True)

    def _drawn(self):
        full = _WIDTH * self._done // max(self._total, 1)
        line = f"training {'━' * full}{'·' * (_WIDTH - full)} {self._done}/{self._total}"
        made = self._done - self._done_before
        if made:
            left = (time.monotonic() - self._started) / made * (self._total - self._done)
            line += f" {left // 60:.0f}:{left % 60:02.0f} left"
        return {"text/plain": f"{line} {self._rate}\n{self._words}".rstrip()}


@contextlib.contextmanager
def every_minute(say: Callable[[str], None], status: Callable[[], str]) -> Iterator[None]:
    """Says a line a minute while the block runs, whatever it is at; for where nothing can move.

    Args:
      say: prints a line; called on a thread of its own.
      status: makes the line.
    """
    over = threading.Event()

    def lines():
        while not over.wait(_BETWEEN_LINES):
            say(status())

    thread = threading.Thread(target=lines, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class _Lines(StepListener):
    def __init__(self, total: int, done: int) -> None:
        self._total, self._done = total, done
        self._record = self._doing = ""

    def advance(self):
        self._done += 1

    def show(self, record):
        self._record = f", {_rate(record)}; {_losses(record)}"

    @contextlib.contextmanager
    def telling(self, text):
        self._doing = f"; {text}"
        yield
        self._doing = ""

    def status(self):
        return f"step {self._done} of {self._total}{self._record}{self._doing}"


def _rate(record):
    return f"{record['tokens_per_second']:,.0f} tokens/s"


def _losses(record):
    tasks = [name.removeprefix("coefficient_") for name in record if "coefficient_" in name]
    shown = [
        f"{task} {record[f'loss_{task}']:.3f} x {record[f'coefficient_{task}']:.2f}"
        for task in sorted(tasks, reverse=True)
    ]
    return f"loss x weight: {', '.join(shown)}"
