"""What is answered where."""

import asyncio
import itertools
import json
import math
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from dwa_jax.finetune.serving.answers import prediction_as_json
from dwa_jax.finetune.serving.batcher import Batcher, Busy, Ended
from dwa_jax.finetune.serving.explanation import explain_text
from dwa_jax.finetune.serving.waiting import predicted, predicted_when_there_is_room
from experiments.server import bodies, meters, openapi, page
from experiments.server.limits import Limits
from experiments.server.problems import SOON, Problem
from experiments.server.request_log import RequestLog

# Lines of an NDJSON request that are predicted at a time.
_LINES = 64


class Answers:
    """What a server answers."""

    def __init__(self, batcher: Batcher, limits: Limits, meter: meters.Meters, log: RequestLog):
        self._ending = False
        self._batcher, self._limits = batcher, limits
        self._meter, self._log = meter, log
        self._bodies = bodies.BodyReader(limits)
        self._explaining = 0
        self._page, self._page_headers = page.load()
        self._described = json.dumps(openapi.description(batcher, limits)).encode()
        self._about = json.dumps(openapi.about(batcher, limits)).encode()

    def app(self) -> "Watched":
        """Returns the ASGI application."""
        routes = [
            Route("/", self._show_page),
            Route("/predict", self._predict, methods=["POST"]),
            Route("/explain", self._explain, methods=["POST"]),
            Route("/model", self._model),
            Route("/health", self._health),
            Route("/ready", self._ready),
            Route("/metrics", self._metrics),
            Route("/openapi.json", self._openapi),
        ]
        handlers: dict[Any, Callable[[Request, Any], Awaitable[Response]]] = {
            Problem: _refused,
            HTTPException: _not_found,
            Exception: _failed,
        }
        app = Starlette(routes=routes, exception_handlers=handlers)
        # To wherever the request says that it was sent.
        app.router.redirect_slashes = False
        return Watched(app, self, self._meter, self._log, {route.path for route in routes})

    @property
    def ending(self) -> bool:
        """Whether the end has begun: connections are closed after the next answer."""
        return self._ending

    def end(self) -> None:
        """Begins the end."""
        self._ending = True

    def release(self, scope: Scope) -> None:
        """Forgets a request."""
        self._bodies.release(scope)

    async def _predict(self, request):
        kind = bodies.media_type(request)
        body = await self._bodies.read(request)
        if kind == bodies.NDJSON:
            return StreamingResponse(self._lines(body), media_type=bodies.NDJSON)
        request.state.texts = texts = bodies.many_texts(body, self._limits)
        found = await self._answered(predicted(self._batcher, texts))
        for place, prediction in enumerate(found):
            if prediction is None:
                raise bodies.wordless(f"texts[{place}]")
        return _json({"predictions": [prediction_as_json(one) for one in found]})

    async def _explain(self, request):
        if bodies.media_type(request) != bodies.JSON:
            raise Problem(415, f"one text comes as {bodies.JSON}")
        body = await self._bodies.read(request)
        text = bodies.one_text(body, self._limits)
        request.state.texts = [text]
        if self._explaining >= self._limits.explanations:
            raise Problem(429, "other texts are being explained", retry_after=SOON)
        self._explaining += 1
        try:
            explained = await self._answered(explain_text(self._batcher, text))
        finally:
            self._explaining -= 1
        if explained.prediction is None:
            raise bodies.wordless("text")
        return _json(
            {"prediction": prediction_as_json(explained.prediction), "words": explained.words}
        )

    async def _answered(self, work):
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await work
        except TimeoutError:
            raise Problem(
                504, f"no answer within {self._limits.seconds:g} s", retry_after=SOON
            ) from None
        except Busy as busy:
            raise Problem(429, str(busy), retry_after=max(SOON, math.ceil(busy.seconds))) from None
        except Ended as ended:
            raise Problem(503, str(ended), retry_after=SOON) from None

    async def _lines(self, body) -> AsyncIterator[bytes]:
        lines = bodies.text_lines(body, self._limits)
        while part := list(itertools.islice(lines, _LINES)):
            yield await self._line_answers(part)

    async def _line_answers(self, part):
        texts = [line for _, line in part if isinstance(line, str)]
        try:
            found = iter(await self._answered(predicted_when_there_is_room(self._batcher, texts)))
        except Problem as problem:
            found = iter([problem] * len(texts))
        answers = []
        for number, line in part:
            answer = next(found) if isinstance(line, str) else line
            if answer is None:
                answer = bodies.wordless("text")
            if isinstance(answer, Problem):
                answers.append(answer.as_json() | {"line": number})
            else:
                answers.append(prediction_as_json(answer))
        return b"".join(json.dumps(answer).encode() + b"\n" for answer in answers)

    async def _show_page(self, request):
        return Response(self._page, headers=self._page_headers)

    async def _model(self, request):
        return Response(self._about, media_type=bodies.JSON)

    async def _openapi(self, request):
        return Response(self._described, media_type=bodies.JSON)

    async def _health(self, request):
        return _json({"status": "alive"})

    async def _ready(self, request):
        if self._ending or not self._batcher.open:
            raise Problem(503, "the end has begun", retry_after=SOON)
        return _json({"status": "ready"})

    async def _metrics(self, request):
        return Response(self._meter.text(), media_type=meters.CONTENT_TYPE)


class Watched:
    """The application, each of whose requests is counted, logged and answered whatever happens."""

    def __init__(
        self,
        app: Starlette,
        answers: Answers,
        meter: meters.Meters,
        log: RequestLog,
        paths: set[str],
    ):
        self._app, self._answers = app, answers
        self._meter, self._log, self._paths = meter, log, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        began, status, ended = time.perf_counter(), 0, False
        number = uuid.uuid4().hex[:16]
        path = scope["path"] if scope["path"] in self._paths else "other"
        scope.setdefault("state", {})

        async def counted(message: Message) -> None:
            nonlocal status, ended
            ended = message["type"] == "http.response.body" and not message.get("more_body")
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *self._headers(number, status)]
            await send(message)

        try:
            await self._app(scope, receive, counted)
        except Exception as error:
            self._log.fault(error, id=number, path=path)
            # Starlette has answered; an answer that had begun is cut off.
            if not ended:
                raise
        finally:
            self._answers.release(scope)
            seconds = time.perf_counter() - began
            texts = scope["state"].get("texts")
            self._meter.request(path, status, seconds)
            self._log.write(
                "request",
                texts,
                id=number,
                method=scope["method"],
                path=path,
                status=status,
                ms=round(1000 * seconds, 1),
                **({} if texts is None else {"count": len(texts)}),
            )

    def _headers(self, number, status):
        headers = [
            (b"x-request-id", number.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"cache-control", b"no-store"),
        ]
        # What is left of a body that was refused would be read as the next request.
        if self._answers.ending or status in (408, 413):
            headers.append((b"connection", b"close"))
        return headers


def _json(value, status=200, headers=None):
    return Response(json.dumps(value), status, headers, bodies.JSON)


async def _refused(request, problem):
    again = problem.retry_after
    headers = {} if again is None else {"retry-after": str(again)}
    return _json(problem.as_json(), problem.status, headers)


async def _failed(request, error):
    problem = Problem(500, "a fault of the server's; its log has it under x-request-id")
    return await _refused(request, problem)


async def _not_found(request, error):
    reasons = {404: "there is nothing at this path", 405: "this path takes another method"}
    problem = Problem(error.status_code, reasons.get(error.status_code, error.detail))
    return _json(problem.as_json(), problem.status, error.headers)
