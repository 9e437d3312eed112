"""Command lines of programs with a few options: one line for a mistake, and status 2."""

import argparse
import contextlib
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TextIO

from dwa_jax import plain_text
from dwa_jax.messages import one_line

# What the library calls by its arguments, and a program by its options.
_OPTIONS = {
    "overwrite=True": "--overwrite",
    "check=False": "--no-check",
    "format=": "--format=",
    "backbone=FOLDER": "--backbone=FOLDER",
    "abstain=": "--abstain=",
}
_ARGUMENTS = re.compile(rf"(?<![\w.-])({'|'.join(_OPTIONS)})")
# Of the option of programs that read a run.
BACKBONE = "where the backbone is now, of a run with LoRA that was moved: the same weights"


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line; no option can be abbreviated.

    Every program has --traceback, which is `run`'s.
    """

    def __init__(self, **options):
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options
        )
        self.add_argument(
            "--traceback", action="store_true", help="shows where in the code an error was raised"
        )

    def add_compilation_cache(self) -> None:
        """Adds the option whose value `dwa_jax.compilation_cache.enable` takes."""
        self.add_argument(
            "--compilation_cache",
            default="",
            metavar="DIR",
            help="where compiled programs are kept for the next start; by default in the user's "
            "cache folder, off keeps none",
        )

    def error(self, message: str) -> NoReturn:
        """Ends the program."""
        complain(message)
        sys.exit(2)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Ends the program once its help is printed, or nobody reads it."""
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            end_unread()
        super().exit(status, message)


def say(text: str, file: TextIO | None = None) -> None:
    """Prints a line on standard output, or elsewhere; nothing in it acts, and nothing raises."""
    file = sys.stdout if file is None else file
    text = plain_text.for_terminal(text)
    print(plain_text.encodable(text, getattr(file, "encoding", None)), file=file)


def complain(message: str) -> None:
    """Prints what went wrong, on one line of standard error."""
    with contextlib.suppress(OSError):
        say(f"error: {plain_text.for_line(plain_text.without_advice(message))}", sys.stderr)


def begin_in_utf8() -> None:
    """Starts the process anew where Python would read names in another encoding than UTF-8.

    File names and the command line are bytes, and in our files they are UTF-8: in an ASCII or
    Latin-1 locale a name would be another than the same name in a table. What is printed stays
    in the terminal's encoding.
    """
    if sys.getfilesystemencoding().lower() not in ("utf-8", "utf8"):
        os.environ.setdefault("PYTHONIOENCODING", sys.stdout.encoding if sys.stdout else "utf-8")
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def check_first(check: Callable[[], object]) -> None:
    """Answers help, and mistakes that show at once, before a program imports what takes seconds.

    A signal that comes during those imports ends the process, which has begun nothing.

    Args:
      check: parses the command line; raises like what `run` runs.
    """
    run(check)
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_DFL)


def check_run(folder: str | os.PathLike) -> None:
    """Raises ValueError where a folder holds no run, as reading it would."""
    path = Path(os.path.expanduser(folder))
    if not os.path.lexists(path / "config.json"):
        raise ValueError(f"{path} holds no run: there is no config.json")


def run(program: Callable[[], object]) -> None:
    """Runs a program; SIGTERM ends it like Ctrl-C, so that what it began is cleared away.

    Where nobody reads its output any longer, as behind `| head`, it ends without a word.

    Args:
      program: raises ValueError or OSError for a mistake of the user's.
    """

    begin_in_utf8()

    def stop(signum, frame):
        sys.exit(128 + signum)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        program()
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        end_unread()
    except Exception as error:
        words = words_of(error)
        if words is None:
            raise
        if "--traceback" in sys.argv:
            traceback.print_exc()
        complain(words)
        sys.exit(2)


def end_unread() -> NoReturn:
    """Ends the program as a broken pipe ends others."""
    # Or the interpreter would try again to write what is left, and complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)


def words_of(error: Exception) -> str | None:
    """Returns the line that says what its user can mend; None where it is a fault of ours."""
    words = one_line(error, 4000)
    if isinstance(error, ValueError | OSError):
        return _ARGUMENTS.sub(lambda match: _OPTIONS[match[0]], words)
    # By its name: not every program imports jax.
    on_device = type(error).__name__ == "JaxRuntimeError"
    if isinstance(error, MemoryError) or (on_device and words.startswith("RESOURCE_EXHAUSTED")):
        whose = "device" if on_device else "machine"
        return (
            f"the {whose}'s memory is full; smaller batches, shorter texts, more microbatches, "
            f"remat or LoRA need less ({words})"
        )
    return None
