"""Texts and names of anybody's on their way out: one way to a page, to Markdown, to a terminal.

What they hold, be it a tag, a line end, a bar of a table or a sequence that sets a window's
title, comes out as characters that are read and do nothing.
"""

import html
import re
import unicodedata

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Turn the order of what stands around them.
_TURNING = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
# No XML holds them: control characters, halves of a character, and two that are none.
_UNFIT = re.compile(f"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff{_TURNING}]")
_CONTROL = re.compile(f"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff{_TURNING}]")
# What opens, closes or separates something in one of Markdown's dialects, wherever it stands.
_MARKS = re.compile(r"(?<!\w)_|_(?!\w)|[\\`*{}\[\]<>|~$^#@]|&(?=#|\w+;)|!(?=\[)|:(?=//)")
# And what does at the beginning of a line: a list, a rule, a heading's underline.
_BEGINNING = re.compile(r"^(\d*)([-+=:.)])")


def for_page(text: str) -> str:
    """Writes a text for an HTML page that is XML as well, in an element or in quotes."""
    return html.escape(_UNFIT.sub(_REPLACEMENT, text))


def for_markdown(text: str) -> str:
    """Writes a text for one line of Markdown: of a paragraph, a heading, a list or a table."""
    text = _CONTROL.sub(_REPLACEMENT, " ".join(text.split()))
    marked = _MARKS.sub(lambda match: f"\\{match[0]}", text)
    return _BEGINNING.sub(r"\1\\\2", marked) if re.match(_LISTS, text) else marked


# "-0.5" is a number, "- 0.5" an item of a list, "1. " one as well.
_LISTS = re.compile(r"([-+]|\d+[.)])(\s|$)|[-=:]{2,}|[-=:]$")


def markdown_span(text: str) -> str:
    """Writes a text as a span of code in a paragraph of Markdown."""
    text = _CONTROL.sub(_REPLACEMENT, " ".join(text.split()))
    if not text:
        return ""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if "`" in (text[0], text[-1]) else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def markdown_code(text: str) -> str:
    """Writes a text as a fenced block of code in Markdown, line by line."""
    # Not an indented one, which behind a list would be the list's.
    lines = re.split(r"\r\n|[\r\n\x0b\x0c\x1c-\x1e\x85\u2028\u2029]", text)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return "\n".join(
        [fence, *(_CONTROL.sub(_REPLACEMENT, line.expandtabs()) for line in lines), fence]
    )


def for_terminal(text: str) -> str:
    """Writes a text for a terminal: line ends stay, and what would act is shown as its code."""
    return "".join(c if c == "\n" else _shown(c) for c in text)


def for_line(text: str) -> str:
    """Writes a text for one line of a terminal."""
    return "".join(map(_shown, " ".join(text.split())))


def _shown(character):
    if character.isprintable() and not _CONTROL.match(character):
        return character
    # Spaces of other widths do nothing; neither does what joins letters of some scripts.
    if unicodedata.category(character) == "Zs" or character in "\u200c\u200d":
        return character
    return ascii(character)[1:-1]


def encodable(text: str, encoding: str | None) -> str:
    """Writes what an encoding cannot as its code, `\\xfc` for instance."""
    name = encoding or "ascii"
    try:
        return text.encode(name, "backslashreplace").decode(name)
    except LookupError:
        return text.encode("ascii", "backslashreplace").decode("ascii")


# What another library's message may advise: to switch off what protects the reader.
_ADVICE = re.compile(
    r"trust_remote_code|weights_only|allow_pickle|allow_dangerous|unsafe|verify\s*=\s*False"
    r"|ssl_verify|insecure|ignore_mismatched|disable_(?:ssl|checks?)|TORCH_FORCE|set_int_max",
    re.IGNORECASE,
)


def without_advice(text: str) -> str:
    """Returns a library's message without the sentences that advise to switch a protection off."""
    sentences = re.split(r"(?<=[.!?;])\s+|\n", text)
    kept = [sentence for sentence in sentences if not _ADVICE.search(sentence)]
    if len(kept) == len(sentences):
        return text
    return " ".join(kept).strip() or "it asks for what is never done here"
