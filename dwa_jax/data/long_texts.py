"""Pieces of a text of megabytes, so that what is made of it is never there for all of it."""

import re
from collections.abc import Iterator

_PIECE = 2**18  # characters
_BETWEEN_WORDS = re.compile(r"(?<=\S)\s")


def pieces(text: str) -> Iterator[str]:
    """Yields a text in parts that end behind a word, where there is an end within reach.

    Args:
      text: of any length; one of up to 262,144 characters is a single piece, and none has more
        than twice as many.
    """
    start = 0
    while len(text) - start > _PIECE:
        place = _BETWEEN_WORDS.search(text, start + _PIECE, start + 2 * _PIECE)
        if place is None and len(text) - start <= 2 * _PIECE:
            break
        end = place.start() if place else start + _PIECE
        yield text[start:end]
        start = end
    yield text[start:]
