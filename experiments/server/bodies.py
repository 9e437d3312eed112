"""From the bytes of a request to texts, and what is wrong with them to the field at fault."""

import collections
import json
from collections.abc import Iterator
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.types import Scope

from dwa_jax.data import cells
from dwa_jax.messages import one_line, quoted
from experiments.server.limits import Limits
from experiments.server.problems import SOON, Problem

# What was read of a request, in its scope.
_HELD = "dwa_jax.bytes"
JSON, NDJSON = "application/json", "application/x-ndjson"


class BodyReader:
    """Reads bodies, no larger than they may be, one by one and all together.

    Attributes:
      held: bytes of the bodies that are in memory.
    """

    def __init__(self, limits: Limits):
        self.held = 0
        self._limits = limits

    async def read(self, request: Request) -> bytes:
        """Returns the body, which counts until `release` is called with the request's scope.

        Raises:
          Problem: it is too large, or the caller left.
        """
        most = self._limits.body
        too_large = Problem(413, f"the body has more than {most:,} bytes")
        # A length that is no number never comes this far.
        if int(request.headers.get("content-length", 0)) > most:
            raise too_large
        parts, size = [], 0
        try:
            async for part in request.stream():
                if size + len(part) > most:
                    raise too_large
                if self.held + len(part) > self._limits.bodies:
                    raise Problem(429, "other requests' bodies fill the memory", retry_after=SOON)
                self.held += len(part)
                size += len(part)
                request.scope[_HELD] = size
                parts.append(part)
        except ClientDisconnect:
            raise Problem(400, "the request ended before its body") from None
        return b"".join(parts)

    def release(self, scope: Scope) -> None:
        """Forgets what was read of a request."""
        self.held -= scope.pop(_HELD, 0)


def media_type(request: Request) -> str:
    """Returns JSON or NDJSON, as the request says.

    A page of somebody else's can have a browser send what is neither without asking first.

    Raises:
      Problem: the request says nothing, or something else.
    """
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in (JSON, NDJSON):
        raise Problem(415, f"content-type is {quoted(given)}, neither {JSON} nor {NDJSON}")
    return given


def many_texts(body: bytes, limits: Limits) -> list[str]:
    """Returns the texts of {"texts": [...]}.

    Raises:
      Problem: the body holds something else; names the field.
    """
    texts = _only_key(_parsed(body), "texts")
    if not isinstance(texts, list):
        raise Problem(422, "texts must be a list of strings", "texts")
    if not texts:
        raise Problem(422, "texts is empty", "texts")
    if len(texts) > limits.texts:
        raise Problem(413, f"{len(texts):,} texts, and {limits.texts:,} may come at once", "texts")
    return [_checked(text, limits, f"texts[{place}]") for place, text in enumerate(texts)]


def one_text(body: bytes, limits: Limits) -> str:
    """Returns the text of {"text": "..."}.

    Raises:
      Problem: the body holds something else; names the field.
    """
    return _checked(_only_key(_parsed(body), "text"), limits, "text")


def text_lines(body: bytes, limits: Limits) -> Iterator[tuple[int, str | Problem]]:
    """Yields (number, text) of each line {"text": "..."}, or what is wrong with that line.

    Empty lines are left out, and counted.
    """
    start, number = 0, -1
    while start < len(body):
        end = body.find(b"\n", start)
        end = len(body) if end < 0 else end
        line, start, number = body[start:end].strip(), end + 1, number + 1
        if line:
            try:
                yield number, one_text(line, limits)
            except Problem as problem:
                yield number, problem


def wordless(field: str) -> Problem:
    """Says of a text that the model's tokenizer knows nothing in it."""
    return Problem(422, "the text has no token that this model's tokenizer knows", field)


def _parsed(body) -> Any:
    try:
        return json.loads(body, object_pairs_hook=_each_once)
    except RecursionError:
        raise Problem(400, "the JSON is nested too deeply") from None
    except ValueError as error:  # not UTF-8, too, and numbers of too many digits
        raise Problem(400, f"the body is no JSON: {one_line(error)}") from None


def _each_once(pairs):
    # Of two with one name the second would count, and the first one's texts be lost.
    found = dict(pairs)
    if len(found) != len(pairs):
        ((twice, _),) = collections.Counter(key for key, _ in pairs).most_common(1)
        raise Problem(422, f"the key {quoted(twice)} is there twice", quoted(twice)[1:-1])
    return found


def _only_key(value, key):
    if not isinstance(value, dict):
        raise Problem(422, f'the body must be an object with the key "{key}"')
    for other in value:
        if other != key:
            raise Problem(
                422, f'{quoted(other)} is no key of it; there is "{key}" alone', quoted(other)[1:-1]
            )
    if key not in value:
        raise Problem(422, f'the key "{key}" is missing', key)
    return value[key]


def _checked(text, limits, field):
    if not isinstance(text, str):
        raise Problem(422, f"{field} is {quoted(text)}, not a string", field)
    if len(text) > limits.characters:
        raise Problem(
            413, f"{field} has {len(text):,} characters, more than {limits.characters:,}", field
        )
    try:
        return cells.text(text)
    except cells.BadCell as problem:
        raise Problem(422, str(problem), field) from None
