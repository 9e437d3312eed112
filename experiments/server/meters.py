"""What a server counts, as Prometheus reads it."""

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from dwa_jax.finetune.serving.batcher import Batch, Batcher

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128)


class Meters:
    """Counters of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "dwa_requests", "Requests answered", ["path", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "dwa_request_seconds",
            "From a request's head to its answer's end",
            ["path"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._texts = Counter("dwa_texts", "Texts predicted", registry=self.registry)
        self._tokens = Counter("dwa_tokens", "Tokens of those texts", registry=self.registry)
        self._batches = Histogram(
            "dwa_batch_texts", "Texts of a batch", buckets=_TEXTS, registry=self.registry
        )
        self._computing = Counter(
            "dwa_computing_seconds", "Time spent in the model", registry=self.registry
        )

    def watch(self, batcher: Batcher) -> None:
        """Shows how many texts wait."""
        waiting = Gauge("dwa_texts_waiting", "Texts not answered yet", registry=self.registry)
        waiting.set_function(lambda: batcher.waiting)

    def batch(self, batch: Batch) -> None:
        """Counts a batch."""
        self._texts.inc(batch.texts)
        self._tokens.inc(batch.tokens)
        self._batches.observe(batch.texts)
        self._computing.inc(batch.seconds)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Counts a request.

        Args:
          path: one of those that there are, or "other".
          status: of the answer.
          seconds: that it took.
        """
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        """Returns them all in Prometheus' text format."""
        return prometheus_client.generate_latest(self.registry)
