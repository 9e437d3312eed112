"""A page as a list of blocks, written once as Markdown and once as a self-contained HTML page."""

import hashlib
import re
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dwa_jax import plain_text, regular_files

DASH = "–"  # where there is no number
_LONG = 60  # characters from which on a cell is given more room


class Cell(NamedTuple):
    """A table's cell.

    Attributes:
      text: of the cell.
      mark: "better", "worse" or "": what a comparison settled; marked text is bold.
      detail: what stands after the text, on the page below it.
    """

    text: str
    mark: str = ""
    detail: str = ""


class Heading(NamedTuple):
    level: int
    text: str


class Paragraph(NamedTuple):
    text: str


class Bullets(NamedTuple):
    items: list[str]


class Code(NamedTuple):
    text: str


class Table(NamedTuple):
    """Columns after the first `text_columns` hold numbers and are set flush right."""

    head: list[str]
    rows: list[list[Cell]]
    caption: str = ""
    text_columns: int = 1


class Figure(NamedTuple):
    """`name` is the file's without suffix; `svg` the drawing itself, for the page.

    Without a drawing the page shows the file, see `page`.
    """

    name: str
    svg: str
    alt: str
    caption: str


class Gallery(NamedTuple):
    """Small figures side by side, as many in a row as there is room for."""

    figures: list[Figure]


class Box(NamedTuple):
    """Blocks set apart under a title; `folded` ones are opened by the reader."""

    title: str
    blocks: list
    folded: bool = False


Block = Heading | Paragraph | Bullets | Code | Table | Gallery | Box


def markdown(blocks: list, pictures: str) -> str:
    """Writes the blocks as Markdown.

    Args:
      blocks: of the page.
      pictures: folder of the figures' PNG files, relative to the page.

    Returns:
      The page.
    """
    return "\n\n".join(_markdown(block, pictures) for block in blocks) + "\n"


def page(title: str, blocks: list, made_by: str, pictures: str = "") -> str:
    """Writes the blocks as one HTML page that runs nothing and loads pictures beside it at most.

    Args:
      title: of the window.
      blocks: of the page.
      made_by: the program, which the page's head names; see `is_page`.
      pictures: folder of the PNG files of figures without a drawing, relative to the page.

    Returns:
      The page, also well-formed as XML.
    """
    text = _PAGE.format(
        title=_escape(title),
        generator=_GENERATOR.format(made_by, ""),
        style=_STYLE,
        policy=_POLICY + ("; img-src 'self' file:" if pictures else ""),
        body="\n".join(_html(block, pictures) for block in blocks),
    )
    return text.replace(
        _GENERATOR.format(made_by, ""), _GENERATOR.format(made_by, _digest(text.encode())), 1
    )


def is_page(path: Path, made_by: str) -> bool:
    """Says whether a file is a page that this program made, and nobody changed since."""
    if regular_files.kind_of(path) != "a file":
        return False
    with regular_files.open_to_read(path) as file:
        found = re.search(_GENERATOR.format(re.escape(made_by), "([0-9a-f]{64})"), _head(file))
        if not found:
            return False
        file.seek(0)
        text = file.read(_LARGEST)
    blank = _GENERATOR.format(made_by, "").encode()
    return _digest(text.replace(found[0].encode(), blank, 1)) == found[1]


def _head(file: BinaryIO) -> str:
    """Returns the beginning of a page, with all of its head but the style's end."""
    return file.read(len(_PAGE)).decode("utf-8", "replace")


def _digest(page):
    return hashlib.sha256(page).hexdigest()


def _markdown(block, pictures):
    match block:
        case Heading(level, text):
            return f"{'#' * level} {_plain(text)}"
        case Paragraph(text):
            return _plain(text)
        case Bullets(items):
            return "\n".join(f"* {_plain(item)}" for item in items)
        case Code(text):
            return plain_text.markdown_code(text)
        case Table():
            return _markdown_table(block)
        case Figure(name, _, alt, caption):
            return f"![{_plain(alt)}]({pictures}/{name}.png)\n\n{_plain(caption)}"
        case Gallery(figures):
            return "\n\n".join(_markdown(one, pictures) for one in figures)
        case Box(title, inner):
            body = "\n\n".join(_markdown(one, pictures) for one in inner)
            return f"**{_plain(title)}**\n\n{body}"
    raise TypeError(f"no block: {block!r}")


def _markdown_table(table):
    def line(cells):
        return "| " + " | ".join(cells) + " |"

    rule = [("---" if i < table.text_columns else "---:") for i in range(len(table.head))]
    lines = [line(_cell(text) for text in table.head), line(rule)]
    for row in table.rows:
        texts = [_cell(f"{cell.text} {cell.detail}".rstrip()) for cell in row]
        pairs = zip(texts, row, strict=True)
        lines.append(line(f"**{text}**" if cell.mark else text for text, cell in pairs))
    return "\n".join(lines) + (f"\n\n{_plain(table.caption)}" if table.caption else "")


def _plain(text):
    return plain_text.for_markdown(text)


def _cell(text):
    return _plain(text) or " "


def _escape(text):
    return plain_text.for_page(text)


def _html(block, pictures):
    match block:
        case Heading(level, text):
            return f"<h{level}>{_escape(text)}</h{level}>"
        case Paragraph(text):
            return f"<p>{_escape(text)}</p>"
        case Bullets(items):
            return "<ul>" + "".join(f"<li>{_escape(item)}</li>" for item in items) + "</ul>"
        case Code(text):
            return f"<pre><code>{_escape(text)}</code></pre>"
        case Table():
            return _html_table(block)
        case Figure(_, svg, alt, caption):
            label = _escape(alt)
            drawing = f'<div class="scroll" role="img" aria-label="{label}">{svg}</div>'
            if not svg:
                source = _escape(f"{pictures}/{block.name}.png")
                drawing = f'<img src="{source}" alt="{label}" loading="lazy"/>'
            return f"<figure>{drawing}<figcaption>{_escape(caption)}</figcaption></figure>"
        case Gallery(figures):
            return f'<div class="gallery">{"".join(_html(one, pictures) for one in figures)}</div>'
        case Box(title, inner, folded):
            body = "\n".join(_html(one, pictures) for one in inner)
            if folded:
                return f"<details><summary>{_escape(title)}</summary>\n{body}\n</details>"
            return f"<aside><h3>{_escape(title)}</h3>\n{body}\n</aside>"
    raise TypeError(f"no block: {block!r}")


def _html_table(table):
    def kind(i, length=0):
        if i >= table.text_columns:
            return ""
        return ' class="text long"' if length > _LONG else ' class="text"'

    head = "".join(
        f'<th scope="col"{kind(i)}>{_escape(text)}</th>' for i, text in enumerate(table.head)
    )
    rows = []
    for row in table.rows:
        cells = []
        for i, cell in enumerate(row):
            text, mark, detail = cell
            text = _escape(text)
            if detail:
                text += f" <small>{_escape(detail)}</small>"
            if mark:
                text = f'<strong class="{mark}">{text}</strong>'
            tag, scope = ("th", ' scope="row"') if i == 0 else ("td", "")
            cells.append(f"<{tag}{scope}{kind(i, len(cell.text))}>{text}</{tag}>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    caption = f'<p class="note">{_escape(table.caption)}</p>' if table.caption else ""
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{chr(10).join(rows)}</tbody></table></div>{caption}"
    )


_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5f6670; --line: #dfe2e6;
  --paper: #ffffff; --panel: #f5f6f8; --better: #0b6b3a; --worse: #a12622; --accent: #2b5fa8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e6e9; --soft: #9aa2ad; --line: #343a42;
  --paper: #15181c; --panel: #1e2228; --better: #5fcf95; --worse: #f0837d; --accent: #86b4f2; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 78rem; margin: 0 auto; padding: 1.5rem 1.1rem 4rem; overflow-wrap: anywhere; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: .6rem 0 .4rem; letter-spacing: -.01em; }
h2 { font-size: 1.3rem; line-height: 1.25; margin: 2.8rem 0 .6rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.8rem 0 .4rem; }
p, li { max-width: 46rem; }
p { margin: .5rem 0; }
ul { padding-left: 1.2rem; }
h1 + p { font-size: 1.08rem; color: var(--soft); }
.note, figcaption { color: var(--soft); font-size: .85rem; line-height: 1.45; max-width: 46rem; }
.scroll { overflow-x: auto; margin: .7rem 0 .4rem; max-width: 100%; }
table { border-collapse: collapse; font-size: .86rem; line-height: 1.35; overflow-wrap: normal;
  font-variant-numeric: tabular-nums; }
th, td { padding: .36rem .6rem; text-align: right; white-space: nowrap; font-weight: 400;
  border-bottom: 1px solid var(--line); }
th.text, td.text { text-align: left; }
td.text { white-space: normal; min-width: 9rem; overflow-wrap: anywhere; }
td.long { min-width: 17rem; }
thead th { color: var(--soft); font-size: .78rem; vertical-align: bottom; white-space: normal;
  border-bottom: 1px solid var(--soft); }
tbody th { font-weight: 500; }
tbody th:first-child, thead th:first-child { padding-left: .2rem; }
@media (min-width: 40rem) { tbody th:first-child, thead th:first-child { position: sticky; left: 0;
  background: var(--paper); } }
td small { display: block; font-size: .92em; opacity: .8; font-weight: 400; }
strong.better { color: var(--better); }
strong.worse { color: var(--worse); }
figure { margin: 1rem 0 1.6rem; }
svg { display: block; max-width: none; height: auto; }
img { display: block; max-width: 100%; height: auto; }
svg text { font-family: inherit !important; }
@media (min-width: 40rem) { svg { max-width: 100%; } }
.gallery { display: grid; gap: .4rem 1rem; margin: .7rem 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); }
.gallery figure { margin: 0 0 .6rem; min-width: 0; }
.gallery svg { max-width: 100%; }
pre { overflow-x: auto; background: var(--panel); padding: .7rem .9rem; border-radius: 6px;
  font-size: .82rem; }
aside { background: var(--panel); border-left: 3px solid var(--accent); border-radius: 0 6px 6px 0;
  padding: .2rem 1.1rem .7rem; margin: 1.6rem 0; }
aside h3 { margin: .7rem 0 .3rem; }
aside tbody th:first-child, aside thead th:first-child { background: var(--panel); }
aside tbody th { white-space: normal; min-width: 12rem; }
details { margin: .9rem 0; }
summary { cursor: pointer; color: var(--accent); font-size: .92rem; }
"""

# With a digest of the page without it: an earlier page that nobody changed may be replaced.
_GENERATOR = '<meta name="generator" content="dwa_jax {}" data-digest="{}"/>'
_LARGEST = 2**30
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
# Nothing is loaded and no script runs, whatever a text may hold.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
{generator}
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta http-equiv="Content-Security-Policy" content="{policy}"/>
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
