"""Answers texts with a finished run's predictions, over HTTP, and shows a page to try it.

python -m experiments.serve --workdir=DIR [--port=8000]
curl -H 'content-type: application/json' -d '{"texts": ["EUR/USD jumps after ECB"]}' \\
  http://127.0.0.1:8000/predict

It answers this machine alone, unless --host says otherwise, and begins when every program is
compiled. SIGTERM ends it: what was taken is answered first. With --beside a second server, of
another run perhaps, takes the same port before the first one is ended, so that nobody meets a
closed one. A line of JSON a request goes to standard error. GET /openapi.json describes the rest.
"""

import argparse
import importlib.util
import signal
import sys
import threading

from experiments.server.limits import Limits
from experiments.terminal import command, how_sure

_DEFAULT = Limits()


def parse(argv: list[str] | None = None):
    """Parses the command line; a mistake ends the program with one line and status 2."""
    parser = command.Parser(prog="experiments.serve", description=__doc__)
    add = parser.add_argument
    add("--workdir", required=True, help="folder of the finished run")
    add("--backbone", default="", help=command.BACKBONE)
    add("--host", default="127.0.0.1", help="address to listen at")
    add("--port", type=_whole(0, 65535), default=8000, help="0 takes a free one")
    add(
        "--beside",
        action="store_true",
        help="takes the port although another server of yours has it: a restart without a gap",
    )
    add("--batch_size", type=_whole(1), default=None, help="texts at once; by default the run's")
    add(
        "--clip_scores",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="scores beyond the range of the run's are given as its ends; by default the run's",
    )
    how_sure.add_options(parser)
    add("--max_body", type=_whole(1), default=_DEFAULT.body, help="bytes of a request's body")
    add("--max_texts", type=_whole(1), default=_DEFAULT.texts, help="texts of a request")
    add(
        "--max_characters", type=_whole(1), default=_DEFAULT.characters, help="characters of a text"
    )
    add(
        "--max_waiting",
        type=_whole(1),
        default=_DEFAULT.waiting,
        help="texts that wait, of all requests; further ones are told to come later",
    )
    add(
        "--timeout",
        type=_whole(1),
        default=int(_DEFAULT.seconds),
        help="seconds for a request to come, to be answered, and to be read",
    )
    add("--log_texts", action="store_true", help="texts go into the log, too")
    parser.add_compilation_cache()
    args = parser.parse_args(argv)
    how_sure.check_options(args)
    if args.max_waiting < args.max_texts:
        parser.error("--max_waiting is at least --max_texts, or a whole request would never fit")
    return args


def _whole(least, most=2**31 - 1):
    def number(word):
        if not word.isdecimal() or not least <= int(word) <= most:
            raise argparse.ArgumentTypeError(f"{word!r} is no whole number from {least} to {most}")
        return int(word)

    return number


def _check():
    command.check_run(parse().workdir)
    for name in ("starlette", "uvicorn", "httptools", "prometheus_client"):
        if importlib.util.find_spec(name) is None:
            raise ValueError(f'{name} is not installed: pip install -e ".[serve]"')


if __name__ == "__main__":
    command.check_first(_check)

from absl import logging

from dwa_jax import compilation_cache, host_memory
from dwa_jax.finetune.predictor import Predictor
from dwa_jax.finetune.serving.batcher import Batcher
from experiments.server import sockets
from experiments.server.app import Answers
from experiments.server.connections import BoundedConfig, DrainingServer
from experiments.server.meters import Meters
from experiments.server.request_log import RequestLog


def serve(args) -> None:
    """Runs the program.

    Raises:
      ValueError: a mistake of the user's; one line says which.
      OSError: something cannot be read.
    """
    logging.set_verbosity(logging.ERROR)
    compilation_cache.enable(args.compilation_cache)
    # Before the model is read.
    with sockets.bind(args.host, args.port, beside=args.beside) as taken:
        _serve_at(taken, args)


def _serve_at(taken, args):
    predictor = Predictor.load(args.workdir, args.batch_size, args.backbone)
    if args.clip_scores is not None:
        predictor.clip_scores = args.clip_scores
    how_sure.apply_options(args, predictor)
    host_memory.keep()
    limits = _limits(args)
    meters, log = Meters(), RequestLog(sys.stderr, args.log_texts)
    batcher = Batcher(
        predictor, most_waiting=limits.waiting, abstain=args.abstain, on_batch=meters.batch
    )
    meters.watch(batcher)
    # Nothing is promised yet and nothing is to be cleared away: an exception from within a
    # compilation could end worse than the signal itself.
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, signal.SIG_DFL)
    programs = batcher.warm_up()
    log.write("warm", programs=programs)
    answers = Answers(batcher, limits, meters, log)

    def begun():
        if not sockets.is_loopback(taken):
            command.say(
                f"note: {args.host} can be reached by other machines, and nobody is asked for a "
                "password; see docs/serving.md",
                sys.stderr,
            )
        command.say(f"serving {args.workdir} at {sockets.url(taken)}")
        sys.stdout.flush()
        sockets.tell_starter("READY=1")

    server = DrainingServer(BoundedConfig(answers.app(), limits), taken, begun, answers.end)
    _answer(server, batcher, taken)
    log.write("ended")


def _limits(args):
    return _DEFAULT._replace(
        body=args.max_body,
        bodies=max(_DEFAULT.bodies, args.max_body),
        texts=args.max_texts,
        characters=args.max_characters,
        waiting=args.max_waiting,
        seconds=args.timeout,
    )


def _answer(server, batcher, taken):
    # The model has the main thread, whose memory alone is kept from batch to batch.
    failed = []

    def connections():
        try:
            server.run(sockets=[taken])
        except BaseException as error:
            failed.append(error)
        finally:
            batcher.close()

    thread = threading.Thread(target=connections, name="connections")

    def stop(signum, frame):
        sockets.tell_starter("STOPPING=1")
        server.end()

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, stop)
    thread.start()
    try:
        batcher.run()
    finally:
        server.end()
        thread.join()
    if failed:
        raise failed[0]


if __name__ == "__main__":
    host_memory.begin()
    command.run(lambda: serve(parse()))
