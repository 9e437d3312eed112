"""SIGINT and SIGTERM: at once where nothing would be lost, else after a checkpoint.

Python runs a handler only between two of its own instructions, and a compilation can take
longer than anyone waits. So what compiles does so on a thread, and the main one listens.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import TypeVar

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Seconds between two looks at whether a signal came while another thread works.
_PATIENCE = 0.05


class Interrupted(Exception):
    """A signal asked the run to stop; a checkpoint was written.

    Attributes:
      signum: the signal.
    """

    def __init__(self, signum: int):
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class Stop:
    """Whether a signal came.

    Attributes:
      signum: the first one, or None.
    """

    signum: int | None = None

    def check(self) -> None:
        """Returns if no signal came.

        Raises:
          Interrupted: one did.
        """
        if self.signum is not None:
            raise Interrupted(self.signum)

    def wait_for(self, work: Callable[[], T]) -> T:
        """Runs something long on a thread of its own.

        Args:
          work: what may be left unfinished.

        Returns:
          What it returns.

        Raises:
          Interrupted: a signal came; the thread is left behind.
          Exception: whatever `work` raises.
        """
        done: futures.Future[T] = futures.Future()

        def run():
            try:
                done.set_result(work())
            except BaseException as error:  # raised again below
                done.set_exception(error)

        # Not an executor: the interpreter would wait for its threads at the end.
        threading.Thread(target=run, daemon=True).start()
        while not done.done():
            self.check()
            futures.wait([done], _PATIENCE)
        return done.result()


@contextlib.contextmanager
def listen() -> Iterator[Stop]:
    """Yields a `Stop` that hears the first signal; a second one ends the process at once."""
    stop, previous = Stop(), {}

    def handle(signum, frame):
        stop.signum = signum
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    # Handlers can be set in the main thread only; elsewhere signals stay as they are.
    with contextlib.suppress(ValueError):
        for signum in _SIGNALS:
            previous[signum] = signal.signal(signum, handle)
    try:
        yield stop
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def end_at_once() -> None:
    """Lets a signal end the process with one line and status 128 + its number.

    For all that is not training: what is on disk is whole at any moment, so there is nothing
    to wait for, and nothing that code in between could catch.
    """

    def handle(signum, frame):
        name = signal.Signals(signum).name
        line = f"stopped by {name}; what was saved stays, and the same command continues the run\n"
        with contextlib.suppress(OSError):
            os.write(sys.stderr.fileno(), line.encode())
        os._exit(128 + signum)

    for signum in _SIGNALS:
        signal.signal(signum, handle)
