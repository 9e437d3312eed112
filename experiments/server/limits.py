"""How much a server takes: of a request, of all of them at a time, and how long."""

from typing import NamedTuple


class Limits(NamedTuple):
    """What bounds memory and time.

    Attributes:
      body: bytes of a request's body.
      bodies: bytes of all bodies that are being read or answered.
      texts: of a request that is no NDJSON.
      characters: of a text.
      waiting: texts that wait or are computed, of all requests together.
      explanations: of words, at a time.
      seconds: in which a request must have come, be answered, and its answer be taken.
      connections: open at a time.
    """

    body: int = 2**20
    bodies: int = 2**26
    texts: int = 256
    characters: int = 20_000
    waiting: int = 1024
    explanations: int = 8
    seconds: float = 30.0
    connections: int = 512
