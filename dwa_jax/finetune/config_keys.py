"""One key of a configuration: what is said of it, and whether a value can be its.

Imports no JAX, so that help is there at once.
"""

import dataclasses
import difflib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Far more than makes sense; a run that is read back may be a stranger's.
MANY = 10**9
# Values of a key with several, characters of one of them, and of a text.
_MOST_VALUES, _LONGEST_VALUE, _LONGEST = 1000, 1000, 100_000


@dataclasses.dataclass(frozen=True)
class Key:
    """What is said of one key beside its default.

    Attributes:
      meaning: for the reader.
      least: smallest number.
      most: largest number.
      below: what the number must stay under.
      choices: makes the values that there are; asked late, since what knows them imports JAX.
      later: what it may be when a run goes on: "same"; "any"; "same rows" and "same weights",
        whatever gives those that the run began with; "more", a larger number; "extending", any
        where the run is made longer.
      of: what each of several values is, a text or a number.
      as_text: whether lists and mappings are taken, too, in the words of a command line.
    """

    meaning: str
    least: float | None = None
    most: float | None = None
    below: float | None = None
    choices: Callable[[], tuple[str, ...]] | None = None
    later: str = "same"
    of: type = str
    as_text: bool = False


def setting(default: Any, meaning: str, **more: Any) -> Any:
    """Declares a field of a dataclass as a key; see `Key` for what more there is to say."""
    return dataclasses.field(default=default, metadata={"key": Key(meaning, **more)})


def nearest(name: str, known: Sequence[str]) -> str:
    """Returns words on what a key that there is not may have meant."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; the nearest is {near[0]!r}" if near else f"; there are: {', '.join(known)}"


_WORDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}


def typed(name: str, value: Any, kind: Any, told: Key) -> Any:
    """Returns a value in the type that a key has.

    Args:
      name: of the key.
      value: as a file, a command line or a program gave it.
      kind: int, float, bool, str or tuple.
      told: of the key.

    Raises:
      ValueError: it is of another type, or far too long.
    """
    if told.as_text:
        value = _as_text(value)
    if kind is tuple:
        # JSON and people write lists.
        if isinstance(value, str) or not isinstance(value, tuple | list):
            raise ValueError(f"{name}={value!r:.80} must be several values, as in (1, 2)")
        if len(value) > _MOST_VALUES:
            raise ValueError(f"{name} has {len(value)} values, more than {_MOST_VALUES}")
        for one in value:
            _check_element(name, one, told.of)
        return tuple(value)
    # numpy's numbers are numbers too.
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value, fits = float(value) if abs(value) < 2**1000 else math.inf, True
    if not fits:
        raise ValueError(f"{name}={value!r:.80} must be {_WORDS[kind]}")
    if kind is str and len(value) > _LONGEST:
        raise ValueError(f"{name}={value[:60]!r}... has more than {_LONGEST} characters")
    return value


def _check_element(name, value, kind):
    fits = isinstance(value, str) if kind is str else isinstance(value, int | float)
    if not fits or isinstance(value, bool):
        raise ValueError(f"{name}: {value!r:.80} must be {_WORDS[kind]}")
    if kind is str and len(value) > _LONGEST_VALUE:
        raise ValueError(f"{name}: {value[:60]!r}... has more than {_LONGEST_VALUE} characters")
    if kind is float and not -(2**1000) < value < 2**1000:
        raise ValueError(f"{name}: {value!r:.80} must be a finite number")


def _as_text(value):
    # Several files, or a mapping, in the words of a command line.
    if isinstance(value, os.PathLike):
        return str(value)
    if isinstance(value, Mapping):
        return json.dumps(dict(value)) if value else ""
    if isinstance(value, list | tuple):
        return json.dumps([str(name) for name in value]) if value else ""
    return value


def check_limits(name: str, value: Any, told: Key) -> None:
    """Checks a value of the right type.

    Raises:
      ValueError: it lies beyond the key's limits, or is none of its choices.
    """
    # Written so that nan fails as well.
    if told.below is not None and not told.least <= value < told.below:
        raise ValueError(f"{name}={value} must be in [{told.least}, {told.below})")
    if told.least is not None and not (value >= told.least and value != math.inf):
        raise ValueError(f"{name}={value} must be a number of at least {told.least}")
    if told.most is not None and value > told.most:
        raise ValueError(f"{name}={value} must be a number of at most {told.most}")
    if told.choices is not None and value not in (choices := told.choices()):
        known = ", ".join(choice or "''" for choice in choices)
        raise ValueError(f"{name}={value!r:.80} is not one of {known}")
