"""Interleaved timing: every contender once a round, so that a noisy machine is noisy for all."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from experiments.benchmarks.accounts import Neighbours


class Contender(NamedTuple):
    """Something to time.

    Attributes:
      run: does its work and waits for the end of it.
      compile_seconds: what its first call took beyond a usual one.
    """

    run: Callable[[], object]
    compile_seconds: float = 0.0


# Threads of a pool wait for more work in a busy loop for some milliseconds; the next
# contender, of another pool, would pay for it.
_PAUSE = 0.03


def prepare_contender(run: Callable[[], object]) -> Contender:
    """Calls what is to be timed until it is compiled; the first call is timed as compilation."""
    started = time.perf_counter()
    run()
    first = time.perf_counter() - started
    # Some programs compile again on the second call, once they have seen their own output.
    run()
    started = time.perf_counter()
    run()
    return Contender(run, max(first - (time.perf_counter() - started), 0.0))


def interleave(
    contenders: Mapping[str, Contender],
    rounds: int,
    base: str | None = None,
    neighbours: Neighbours | None = None,
) -> dict[str, dict]:
    """Times every contender once a round.

    Args:
      contenders: name -> what to time.
      rounds: at least 1; each begins with another contender.
      base: whose time the others are divided by; the first by default.
      neighbours: says which rounds count; without it all do.

    Returns:
      {name: {"ms", "low_ms", "high_ms", "ratio", "compile_seconds"}}: a step's median time,
      the quartiles around it, and the median over rounds of its time over the base's.
    """
    names = list(contenders)
    base = base or names[0]
    times: dict[str, list[float]] = {name: [] for name in names}
    index = 0
    while len(times[base]) < rounds:
        turn = index % len(names)
        index += 1
        taken = {}
        if neighbours:
            neighbours.begin()
        for name in names[turn:] + names[:turn]:
            contender = contenders[name]
            time.sleep(_PAUSE)
            started = time.perf_counter()
            contender.run()
            taken[name] = 1000 * (time.perf_counter() - started)
        if neighbours is None or neighbours.end():
            for name, value in taken.items():
                times[name].append(value)
    result = {}
    for name, values in times.items():
        ordered = sorted(values)
        result[name] = {
            "ms": statistics.median(values),
            "low_ms": ordered[len(ordered) // 4],
            "high_ms": ordered[-1 - len(ordered) // 4],
            "ratio": statistics.median(
                value / one for value, one in zip(values, times[base], strict=True)
            ),
            "compile_seconds": contenders[name].compile_seconds,
        }
    return result
