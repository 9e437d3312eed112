"""What a message may repeat of what is not ours: one line, printable, bounded.

A file's name, a cell, a tensor's name, a configuration's value or another library's error may hold
line ends, a terminal's control characters, or megabytes.
"""

from dwa_jax.plain_text import without_advice


def shown(value: object, limit: int = 200) -> str:
    """Writes a name as it is, and any other value as Python would.

    Args:
      value: a name or a JSON value.
      limit: most characters of it; more are cut.

    Returns:
      One line of printable characters.
    """
    return printable(bounded(value if isinstance(value, str) else _repr(value), limit))


def quoted(value: object, limit: int = 60) -> str:
    """Writes any value as Python would, strings in quotes.

    Args:
      value: for instance a cell of a table.
      limit: most characters; more are cut.

    Returns:
      One line of printable characters.
    """
    # A huge string is cut before repr, so that a message about it stays cheap.
    short = value[: limit + 1] if isinstance(value, str | bytes) else value
    return printable(bounded(_repr(short), limit))


def one_line(error: BaseException, limit: int = 200) -> str:
    """Returns what an error says, or its type where it says nothing.

    Args:
      error: of another library, mostly.
      limit: most characters; more are cut.

    Returns:
      One line of printable characters.
    """
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    text = " ".join(without_advice(str(error)).split())
    return printable(bounded(text or type(error).__name__, limit))


def bounded(text: str, limit: int) -> str:
    """Returns the text, cut to at most `limit` characters with "..." at its end."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def printable(text: str) -> str:
    """Returns the text with what cannot be printed written as Python escapes it."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _repr(value):
    try:
        return repr(value)
    except (RecursionError, ValueError):  # nested too deeply; an integer of too many digits
        return f"<{type(value).__name__}>"
