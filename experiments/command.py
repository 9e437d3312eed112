"""Command lines of programs with a few options: one line for a mistake, and status 2."""

import argparse
import signal
import sys
from collections.abc import Callable
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line; no option can be abbreviated."""

    def __init__(self, **options):
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options
        )

    def error(self, message: str) -> NoReturn:
        """Ends the program."""
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


def run(program: Callable[[], None]) -> None:
    """Runs a program; SIGTERM ends it like Ctrl-C, so that what it began is cleared away.

    Args:
      program: raises ValueError or OSError for a mistake of the user's.
    """

    def stop(signum, frame):
        sys.exit(128 + signum)

    signal.signal(signal.SIGTERM, stop)
    try:
        program()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
