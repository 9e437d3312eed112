"""Regular expressions over parameter paths: one helper for freezing, LoRA targets, decay.

A path is a leaf's keys joined by "/", for example "layers/attention/query/kernel".
"""

import re
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import regex
from flax import traverse_util

# Characters of a pattern, and seconds that looking for one in all paths may take.
_LONGEST, _PATIENCE = 1000, 2
# What all counts of a pattern come to, {10}{3} to 30.
_MOST_REPEATED = 1000


def flatten(tree: Mapping) -> dict[str, Any]:
    """Turns a nested dict into a flat one from path to leaf."""
    return traverse_util.flatten_dict(tree, sep="/")


def unflatten(flat: Mapping[str, Any]) -> dict:
    """Turns a flat dict from path to leaf back into a nested one."""
    return traverse_util.unflatten_dict(dict(flat), sep="/")


def assign(tree: Mapping, rules: Sequence[tuple[str, Any]], default: Any = None) -> dict:
    """Gives each leaf of a nested dict the value of the first rule that matches its path.

    Args:
      tree: nested dict of leaves.
      rules: (regular expression, value) pairs, searched for anywhere in the path.
      default: the value of a leaf that no rule matches.

    Returns:
      A nested dict of values with the structure of `tree`.

    Raises:
      ValueError: a rule matches no path at all, as a misspelt one would, or is no
        regular expression.
    """
    flat = flatten(tree)
    compiled = []
    for pattern, value in rules:
        try:
            compiled.append((_compile(pattern), value))
        except (re.error, regex.error, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{pattern!r:.80} is not a regular expression: {error}") from None
    found = [(_matched(one, flat), value) for one, value in compiled]
    return unflatten(
        {
            path: next((value for matched, value in found if path in matched), default)
            for path in flat
        }
    )


def _compile(pattern):
    if len(pattern) > _LONGEST:
        raise ValueError(f"it has more than {_LONGEST} characters")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what other dialects would make of it
        re.compile(pattern)  # the dialect that it is written in
        # Counts are written out when the other is compiled, and braces have more uses there.
        counts = 1
        for inside in re.findall(r"\{([^}]*)", re.sub(r"\\.", "", pattern)):
            if not re.fullmatch(r"\d{1,4}(,\d{0,4})?|,\d{1,4}", inside):
                raise ValueError("braces hold a count, {2} or {1,3}; write others as \\{")
            counts *= max(int(number) for number in inside.split(",") if number) or 1
        if counts > _MOST_REPEATED:
            raise ValueError(f"its counts come to more than {_MOST_REPEATED} repetitions")
        return regex.compile(pattern, regex.VERSION0)


def _matched(compiled, flat):
    # All paths where the pattern is found. Some patterns need longer than the universe is old,
    # for a path of a few dozen characters; the standard library's `re` cannot be stopped.
    ends = time.monotonic() + _PATIENCE
    found = set()
    for path in flat:
        try:
            left = max(ends - time.monotonic(), 1e-3)
            if compiled.search(path, timeout=left):
                found.add(path)
        except TimeoutError:
            raise ValueError(
                f"the pattern {compiled.pattern!r:.80} takes more than {_PATIENCE} s to look for; "
                "write it without repetitions inside of repetitions"
            ) from None
    if not found:
        known = ", ".join(sorted(flat)[:8])
        raise ValueError(
            f"the pattern {compiled.pattern!r} matches no parameter; paths look like: {known}"
        )
    return found


def partition(tree: Mapping, selected: Mapping) -> tuple[dict, dict]:
    """Splits a nested dict in two by a nested dict of booleans of the same structure.

    Returns:
      (leaves where `selected` is true, the others), as nested dicts; `combine` undoes it.
    """
    flat, chosen = flatten(tree), flatten(selected)
    return (
        unflatten({path: leaf for path, leaf in flat.items() if chosen[path]}),
        unflatten({path: leaf for path, leaf in flat.items() if not chosen[path]}),
    )


def combine(*trees: Mapping) -> dict:
    """Merges nested dicts whose leaves lie at different paths into one.

    Raises:
      ValueError: two of them hold a leaf at the same path.
    """
    result: dict[str, Any] = {}
    for tree in trees:
        for path, leaf in flatten(tree).items():
            if path in result:
                raise ValueError(f"two of the trees hold a leaf at {path!r}")
            result[path] = leaf
    return unflatten(result)
