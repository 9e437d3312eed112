"""Choices written as calls: "dwa" or "constant(weights=(0.75, 0.25))" -> name and options."""

import ast
from typing import Any


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
    wrong = f"{key}={text!r} is not of the form name or name(option=value, ...)"
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        raise ValueError(wrong) from None
    if isinstance(node, ast.Name):
        return node.id, {}
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
        raise ValueError(wrong)
    options = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ValueError(wrong)
        try:
            options[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError:
            raise ValueError(
                f"{key}={text!r}: the value of {keyword.arg} is not a literal"
            ) from None
    return node.func.id, options


def choose(registry: dict, name: str, options: dict, key: str) -> Any:
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
        return registry[name](**options)
    except TypeError as error:
        raise ValueError(f"{key}={name}: {error}") from None
