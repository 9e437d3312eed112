"""What a message may repeat of a stranger's file: one line, printable, bounded.

A tensor's name or a configuration's value may hold line ends, a terminal's control
characters, or megabytes.

No arrays, so no axis letters.
"""


def shown(value: object, limit: int = 200) -> str:
    """Writes a name as it is, and any other value as Python would.

    Args:
      value: a name or a JSON value.
      limit: most characters of a value; more are cut.

    Returns:
      One line of printable characters.
    """
    if isinstance(value, str):
        return _printable(value, limit)
    try:
        return _printable(repr(value), limit)
    except (RecursionError, ValueError):  # nested too deeply; an integer of too many digits
        return f"<{type(value).__name__}>"


def one_line(error: BaseException) -> str:
    """Returns what an error says, or its type where it says nothing.

    Args:
      error: raised by a library that read the file.

    Returns:
      One line of at most about 200 printable characters.
    """
    return _printable(" ".join(str(error).split()) or type(error).__name__, 200)


def _printable(text, limit):
    if len(text) > limit:
        text = text[: limit - 3] + "..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
