"""Servers within a test's process, of a model that costs nothing mostly."""

import contextlib
import io
import threading
from types import SimpleNamespace

from dwa_jax.finetune.serving.batcher import Batcher
from experiments.server import sockets
from experiments.server.app import Answers
from experiments.server.connections import BoundedConfig, DrainingServer
from experiments.server.limits import Limits
from experiments.server.meters import Meters
from experiments.server.request_log import RequestLog
from tests.costless import Costless

LIMITS = Limits(body=20_000, texts=8, characters=500, waiting=64, seconds=1.0, connections=64)


@contextlib.contextmanager
def serving(model, limits=LIMITS, *, port=0, beside=False, log_texts=False, abstain=None):
    """Serves a model; yields where, and what belongs to it."""
    meter, log = Meters(), io.StringIO()
    batcher = Batcher(model, most_waiting=limits.waiting, abstain=abstain, on_batch=meter.batch)
    meter.watch(batcher)
    batcher.warm_up()
    answers = Answers(batcher, limits, meter, RequestLog(log, log_texts))
    taken = sockets.bind("127.0.0.1", port, beside=beside)
    begun = threading.Event()
    server = DrainingServer(BoundedConfig(answers.app(), limits), taken, begun.set, answers.end)
    threads = [
        threading.Thread(target=batcher.run),
        threading.Thread(target=lambda: (server.run(sockets=[taken]), batcher.close())),
    ]
    for thread in threads:
        thread.start()
    assert begun.wait(10)
    try:
        yield SimpleNamespace(
            port=taken.getsockname()[1], server=server, batcher=batcher, log=log, limits=limits
        )
    finally:
        if isinstance(model, Costless):
            model.go_on.set()
        server.end()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
