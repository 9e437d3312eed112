"""Choices written as calls: "dwa" or "constant(weights=(0.75, 0.25))" -> name and options."""

import ast
import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

# Characters of a choice, and the largest whole number in one: some size an array, and what is
# read back may be a stranger's.
_LONGEST, _MOST = 2000, 100_000


def parse(text: str, key: str) -> tuple[str, dict]:
    """Parses a choice.

    Args:
      text: a name, or a call of one with literal keyword arguments.
      key: the configuration's key, for messages.

    Returns:
      (name, options).

    Raises:
      ValueError: the text is neither.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"{key}={text[:60]!r}... has more than {_LONGEST} characters")
    wrong = f"{key}={text!r:.100} is not of the form name or name(option=value, ...)"
    node = _attempt(wrong, lambda: ast.parse(text.strip(), mode="eval").body)
    if isinstance(node, ast.Name):
        return node.id, {}
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
        raise ValueError(wrong)
    options = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ValueError(wrong)
        value = _attempt(
            f"{key}={text!r:.100}: the value of {keyword.arg} is not a literal",
            lambda value=keyword.value: ast.literal_eval(value),
        )
        if not _fits(value):
            raise ValueError(
                f"{key}={text!r:.100}: {keyword.arg} must be True, False, None, a text, a finite "
                f"number, a whole one of at most {_MOST}, or several of them"
            )
        options[keyword.arg] = value
    return node.func.id, options


def _attempt(wrong, action):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a syntax that is refused anyway
            return action()
    # ast raises each of them: an unhashable key, a NUL, what is nested too deeply.
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise ValueError(wrong) from None


def _fits(value):
    if isinstance(value, list | tuple):
        return all(map(_fits, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= _MOST
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, bool | str)


def make_choice(registry: dict, name: str, options: dict, key: str) -> Any:
    """Calls the factory that a choice names with its options.

    Args:
      registry: name -> factory.
      name: of the factory.
      options: its keyword arguments.
      key: the configuration's key, for messages.

    Returns:
      What the factory returns.

    Raises:
      ValueError: the name is not in the registry, or an option is unknown.
    """
    if name not in registry:
        raise ValueError(f"{key}: unknown name {name!r}; there are: {', '.join(registry)}")
    try:
        made = registry[name](**options)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"{key}={name}: {error}") from None
    return first_alike(registry[name], options, made)


def first_alike(factory: Callable, options: dict, made: Any) -> Any:
    """Returns what a factory made of the same options before, so that programs of it are found.

    Args:
      factory: makes the same of the same options.
      options: its keyword arguments; where one is no literal, nothing is remembered.
      made: what it made of them now.
    """
    if not all(map(_fits, options.values())):
        return made
    # 1 and 1.0 are equal, and may be two dtypes.
    place = _place(factory, repr(sorted(options.items())))
    if not place:
        place.append(made)
    return place[0]


@functools.lru_cache(maxsize=64)
def _place(factory, options):
    del factory, options
    return []
