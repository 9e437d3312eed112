"""Batches that are computed while the next ones are made."""

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import jax

# Results that are not fetched yet.
_MOST = 2

Rows = TypeVar("Rows")


def fetched(
    begun: Iterable[tuple[Rows, Any]], fetch: Callable[[Any], Any] = jax.device_get
) -> Iterator[tuple[Rows, Any]]:
    """Yields results in their order, each when two further ones have begun, or none is left.

    Args:
      begun: yields (what a result is of, arrays that are being computed).
      fetch: waits for the arrays, and returns them.
    """
    pending: collections.deque[tuple[Rows, Any]] = collections.deque()
    for one in begun:
        pending.append(one)
        if len(pending) > _MOST:
            rows, result = pending.popleft()
            yield rows, fetch(result)
    for rows, result in pending:
        yield rows, fetch(result)
