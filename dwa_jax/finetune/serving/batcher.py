"""Texts of many callers, predicted together.

What comes while a batch is computed waits, up to a bound, and is sorted by length into the next
ones: the busier, the fuller the batches, and nobody waits for company.

>>> batcher = Batcher(dwa_jax.load("runs/mine"))
>>> batcher.warm_up()
>>> threading.Thread(target=batcher.run).start()
>>> batcher.submit(["EUR/USD jumps after ECB"]).result()[0].score
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import NamedTuple

import jax
import numpy as np

from dwa_jax.data import Encoded, TokenRows
from dwa_jax.finetune.predictor import Prediction, Predictor
from dwa_jax.finetune.serving.warm_shapes import choose_batch, overhead_in_tokens, warm_shapes

# Tokens of a batch, by its most rows, and lengths from one power of two to the next: larger batches
# keep others waiting and have more padding. On a CPU they are no faster, since a layer's values
# leave its caches, and what is padded costs as much as what is not; an accelerator wants more to do
# at once.
_ON_CPU, _ELSEWHERE = (16, 4), (64, 2)
# Of those that wait, so many are looked at for the next batch.
_LOOKED_AT = 512
# What a text may cost before any was computed, and the weight of the latest in the mean.
_SECONDS_A_TEXT, _LATEST = 0.01, 0.05


class Busy(Exception):
    """As many texts wait as may.

    Attributes:
      seconds: until there may be room.
    """

    def __init__(self, seconds: float):
        super().__init__(f"the queue is full; in about {seconds:.1f} s there may be room")
        self.seconds = seconds


class Ended(Exception):
    """No further texts are taken."""


class Batch(NamedTuple):
    """What one batch was.

    Attributes:
      texts: in it.
      tokens: of theirs.
      seconds: that it took.
    """

    texts: int
    tokens: int
    seconds: float


class _Job:
    # What one caller asked for, and what there is of it.
    def __init__(self, texts: list[str]):
        self.texts = texts
        self.future: Future[list[Prediction | None]] = Future()
        self.found: list[Prediction | None] = [None] * len(texts)
        self.missing = len(texts)

    def settle(self, place: int, prediction: Prediction | None) -> None:
        self.found[place] = prediction
        self.missing -= 1
        if not self.missing:
            with contextlib.suppress(InvalidStateError):  # nobody waits any longer
                self.future.set_result(self.found)

    def fail(self, error: BaseException) -> None:
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(error)


class _Row(NamedTuple):
    job: _Job
    place: int
    ids: np.ndarray
    truncated: bool
    unknown: int


class Batcher:
    """Predicts texts of many callers together, in the thread that calls `run`.

    Attributes:
      predictor: the model, which nobody else may use meanwhile.
      most_waiting: texts that may wait.
      abstain: see `Predictor.abstentions`; None marks none.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        most_waiting: int = 1024,
        abstain: float | None = None,
        on_batch: Callable[[Batch], object] = lambda batch: None,
    ):
        """Takes over a model.

        Args:
          predictor: the model.
          most_waiting: texts that may wait or be computed at a time.
          abstain: a width that `Predictor.check_abstain` takes, or None.
          on_batch: told of every batch, in the thread that computes it.
        """
        self.predictor = predictor
        self.most_waiting = most_waiting
        self.abstain = abstain
        self._on_batch = on_batch
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._rows: list[_Row] = []
        # The number of texts that were taken and not answered, and whether more are taken.
        self._lock, self._waiting, self._open = threading.Lock(), 0, True
        self._seconds_a_text = _SECONDS_A_TEXT
        longest, size = predictor.run.max_tokens, predictor.batch_size
        tokens, steps = _ON_CPU if jax.default_backend() == "cpu" else _ELSEWHERE
        self._shapes = warm_shapes(longest, size, size * tokens, steps, jax.device_count())
        self._overhead = 0.0

    @property
    def waiting(self) -> int:
        """Texts that were taken and are not answered yet."""
        return self._waiting

    @property
    def open(self) -> bool:
        """Whether texts are taken."""
        return self._open

    def warm_up(self) -> int:
        """Compiles every program that will be used; returns how many there are."""
        seconds = self.predictor.warm_up(self._shapes)
        self._overhead = overhead_in_tokens(seconds)
        return len(seconds)

    def submit(self, texts: Sequence[str]) -> Future[list[Prediction | None]]:
        """Asks for predictions; may be called from any thread.

        Args:
          texts: strings that `data.cells.check_characters` takes.

        Returns:
          Their predictions in their order, when they are there; None for a text that has no
          token. Cancelled, it costs nothing that is not computed already.

        Raises:
          Busy: there is no room for as many.
          Ended: the end has begun.
        """
        job = _Job(list(texts))
        with self._lock:
            if not self._open:
                raise Ended("no further texts are taken")
            if self._waiting + len(texts) > self.most_waiting:
                raise Busy(self._waiting * self._seconds_a_text)
            self._waiting += len(texts)
            self._jobs.put(job)
        if not texts:
            job.future.set_result([])
        return job.future

    def close(self) -> None:
        """Takes no further texts, and lets `run` end when all that were taken are answered."""
        with self._lock:
            if self._open:
                self._open = False
                self._jobs.put(None)

    def run(self) -> None:
        """Computes until `close` is called and nothing waits.

        In the main thread of a program that called `host_memory.keep`, memory is kept from batch
        to batch. Whatever ends it, every caller is answered.
        """
        try:
            while self._take():
                self._rows = [row for row in self._rows if not self._forgotten(row)]
                if self._rows:
                    self._compute(self._next())
        finally:
            self._abandon()

    def _take(self):
        # What came meanwhile; waits where there is nothing to do. False at the end.
        came = []
        with contextlib.suppress(queue.Empty):
            if not self._rows and self._open:
                came.append(self._jobs.get())
            while True:
                came.append(self._jobs.get_nowait())
        jobs = [job for job in came if job is not None and job.texts]
        if jobs:
            self._encode(jobs)
        return bool(self._rows) or self._open or not self._jobs.empty()

    def _encode(self, jobs):
        texts = [text for job in jobs for text in job.texts]
        try:
            encoded = self.predictor.tokens(texts, allow_wordless=True)
        except BaseException as error:
            if not isinstance(error, Exception):
                for job in jobs:
                    job.fail(_told(error))
                raise
            if len(jobs) > 1:
                # Whose text it is, only that one can tell.
                for job in jobs:
                    self._encode([job])
            else:
                self._done(len(texts))
                jobs[0].fail(error)
            return
        places = ((job, place) for job in jobs for place in range(len(job.texts)))
        for (job, place), ids, truncated, wordless, unknown in zip(places, *encoded, strict=True):
            if wordless:
                self._done(1)
                job.settle(place, None)
            else:
                self._rows.append(_Row(job, place, ids, bool(truncated), int(unknown)))

    def _forgotten(self, row):
        # Of somebody who does not wait any longer, or whom another text of theirs failed.
        if row.job.future.done():
            self._done(1)
            return True
        return False

    def _next(self):
        lengths = [len(row.ids) for row in self._rows[:_LOOKED_AT]]
        chosen = set(choose_batch(lengths, self._shapes, self._overhead))
        batch = [self._rows[place] for place in sorted(chosen)]
        self._rows = [row for place, row in enumerate(self._rows) if place not in chosen]
        return batch

    def _compute(self, batch):
        began = time.perf_counter()
        encoded = Encoded(
            TokenRows.of([row.ids for row in batch]),
            np.array([row.truncated for row in batch]),
            np.zeros(len(batch), bool),
            np.array([row.unknown for row in batch], np.int64),
        )
        try:
            predictions = self.predictor.predict_tokens(encoded, abstain=self.abstain)
            found = self.predictor.each(predictions)
        except BaseException as error:
            self._done(len(batch))
            for row in batch:
                row.job.fail(_told(error))
            if not isinstance(error, Exception):
                raise
            return
        seconds = time.perf_counter() - began
        self._seconds_a_text += _LATEST * (seconds / len(batch) - self._seconds_a_text)
        self._done(len(batch))
        try:
            # Before the answers, so that who has one finds it counted.
            self._on_batch(Batch(len(batch), int(encoded.lengths.sum()), seconds))
        finally:
            for row, prediction in zip(batch, found, strict=True):
                row.job.settle(row.place, prediction)

    def _done(self, texts):
        with self._lock:
            self._waiting -= texts

    def _abandon(self):
        self.close()
        left: list[_Job | None] = [row.job for row in self._rows]
        with contextlib.suppress(queue.Empty):
            while True:
                left.append(self._jobs.get_nowait())
        for job in left:
            if job is not None:
                job.fail(Ended("the server ends"))
        self._rows = []


def _told(error):
    # What ends the whole program is no caller's.
    return error if isinstance(error, Exception) else Ended("the server ends")
