"""SIGINT and SIGTERM while a run trains: a checkpoint, then the end.

Only a program that asks for it (`listen`) has its signals handled; a notebook, a thread or a test
keeps its own. Python runs a handler only between two of its own instructions, and a compilation
can take longer than anyone waits: so there what compiles does so on a thread, and the main one
listens.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import TypeVar

from jax.experimental import multihost_utils

from dwa_jax import processes

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
    """Whether the run should stop; of this class it never should."""

    def check(self) -> None:
        """Returns if nothing asked the run to stop.

        Raises:
          Interrupted: something did.
        """

    def wait_for(self, work: Callable[[], T]) -> T:
        """Runs something long, and returns what it returns.

        Args:
          work: what may be left unfinished.

        Raises:
          Interrupted: something asked the run to stop.
          Exception: whatever `work` raises.
        """
        return work()


class SignalStop(Stop):
    """Stops at the first signal.

    Attributes:
      signum: the first one, or None.
    """

    signum: int | None = None

    def check(self) -> None:
        """See `Stop.check`."""
        if self.signum is not None:
            raise Interrupted(self.signum)

    def wait_for(self, work: Callable[[], T]) -> T:
        """See `Stop.wait_for`; the work has a thread of its own, left behind at a signal."""
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


class SharedStop(Stop):
    """Stops every process of a run at the same look, after SIGTERM to any of them."""

    def __init__(self) -> None:
        self._looks = 0

    def check(self) -> None:
        """See `Stop.check`; to be called by all processes, in the same order."""
        self._looks += 1
        if multihost_utils.reached_preemption_sync_point(self._looks):
            raise Interrupted(signal.SIGTERM)


@contextlib.contextmanager
def ignore() -> Iterator[Stop]:
    """Yields a `Stop` that never stops: signals stay the caller's."""
    yield Stop()


@contextlib.contextmanager
def listen() -> Iterator[Stop]:
    """Yields a `SignalStop` that hears the first signal; a second one ends the process at once.

    Of several processes it is a `SharedStop`: JAX's runtime has heard SIGTERM from the start.
    """
    if processes.how_many() > 1:
        with _shared() as shared:
            yield shared
        return
    stop, previous = SignalStop(), {}

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


@contextlib.contextmanager
def _shared():
    # Ctrl-C reaches one process or all of them; as SIGTERM it reaches all.
    previous = {}
    with contextlib.suppress(ValueError):
        previous[signal.SIGINT] = signal.signal(
            signal.SIGINT, lambda *_: os.kill(os.getpid(), signal.SIGTERM)
        )
        # Behind the runtime's own, which it puts aside once it is set again.
        previous[signal.SIGTERM] = signal.getsignal(signal.SIGTERM)
    try:
        yield SharedStop()
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
