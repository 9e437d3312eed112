"""Regular expressions over parameter paths: one helper for freezing, LoRA targets, decay.

A path is a leaf's keys joined by "/", for example "layers/attention/query/kernel".
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from flax import traverse_util


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
            compiled.append((re.compile(pattern), value))
        except (re.error, TypeError) as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    for regex, _ in compiled:
        if not any(regex.search(path) for path in flat):
            known = ", ".join(sorted(flat)[:8])
            raise ValueError(
                f"the pattern {regex.pattern!r} matches no parameter; paths look like: {known}"
            )
    return unflatten(
        {
            path: next((value for regex, value in compiled if regex.search(path)), default)
            for path in flat
        }
    )


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
