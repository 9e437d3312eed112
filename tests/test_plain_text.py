"""The same nasty names through every way out: parsed as a page, rendered as Markdown, read back."""

import html.parser
import io
import re
import types

import pytest

from dwa_jax import messages, plain_text
from dwa_jax.finetune import card
from dwa_jax.finetune.listener import ProgressBar
from experiments.pages import document
from experiments.pages.document import Box, Bullets, Cell, Code, Heading, Paragraph, Table
from experiments.terminal import command, console

markdown_it = pytest.importorskip("markdown_it")

NASTY = {
    "tag": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "quotes": "\"'><b onmouseover=alert(1)>",
    "entity": "&lt;b&gt; &#60;i&#62; &amp",
    "lines": "one\n\n# heading\n\n* item\r\nthree\x0bfour\x85five\u2028six\u2029seven",
    "fence": "```\n</code></pre>\n~~~",
    "ticks": "`a``b```c",
    "table": "a | b || c \\| d |",
    "emphasis": "*a* **b** _c_ ~~d~~ [e](javascript:alert(1)) ![f](x) <http://x.y> \\",
    "list": "- a",
    "number": "1. a",
    "rule": "---",
    "underline": "===",
    "escape": "\x1b[31mred\x1b[0m\x1b]0;title\x07\x9b31m\x1bP",
    "link": "\x1b]8;;http://evil\x07click\x1b]8;;\x07",
    "bell": "\x00\x07\x08\x7f",
    "turned": "abc\u202edcba\u2066x\u2069",
    "half": "a\ud800b\udc80c",
    "markup": "[bold red]x[/bold red] [link=http://evil]y[/link] \\[",
    "wide": "名前 é ü ı İ",
}
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Tags(html.parser.HTMLParser):
    """Tags with their attributes, and the texts between."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.texts = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data):
        self.texts.append(data)


def blocks(name):
    return [
        Heading(1, name),
        Paragraph(name),
        Bullets([name, name]),
        Code(name),
        Table([name, "b"], [[Cell(name), Cell(name, "better", name)]], name),
        Box(name, [Paragraph(name)], folded=True),
    ]


def rendered(text):
    """(HTML, tokens) of a renderer that lets raw HTML through."""
    renderer = markdown_it.MarkdownIt("commonmark", {"html": True}).enable(
        ["table", "strikethrough"]
    )
    return renderer.render(text), renderer.parse(text)


def kinds(tokens):
    return [token.type for token in tokens]


@pytest.mark.parametrize("name", NASTY.values(), ids=NASTY)
def test_a_page_holds_the_text_and_none_of_its_tags(name):
    page = document.page(name, blocks(name), "experiments.report")
    plain = document.page("x", blocks("x"), "experiments.report")
    assert Tags(page).tags == Tags(plain).tags
    page.encode("utf-8")
    assert not CONTROL.search(page.replace("\r", "").replace("\t", "").replace("\x0b", ""))


@pytest.mark.parametrize("name", NASTY.values(), ids=NASTY)
def test_markdown_renders_to_the_text_with_the_same_structure(name):
    text, tokens = rendered(document.markdown(blocks(name), "pictures"))
    _, plain = rendered(document.markdown(blocks("x"), "pictures"))
    # Of a block of code, which may have many lines, one token.
    assert kinds(tokens) == kinds(plain)
    inner = [child for token in tokens for child in token.children or ()]
    assert {child.type for child in inner} <= {
        "text",
        "strong_open",
        "strong_close",
        "text_special",
    }
    assert len(re.findall("<t[hd][ >]", text)) == 4 and not re.search("<(script|img|b |a )", text)
    shown = "".join(Tags(rendered(plain_text.for_markdown(name))[0]).texts).strip()
    expected = CONTROL.sub("\ufffd", " ".join(name.split()))
    assert re.sub("[\u2028\u2029\ufffd]", "?", shown) == re.sub(
        "[\u2028\u2029\ufffd]", "?", expected
    )


@pytest.mark.parametrize("name", NASTY.values(), ids=NASTY)
def test_a_span_of_code_is_one_span(name):
    _, tokens = rendered(f"before {plain_text.markdown_span(name)} after")
    inner = [child for token in tokens for child in token.children or ()]
    assert [child.type for child in inner] == ["text", "code_inline", "text"]
    assert kinds(tokens) == ["paragraph_open", "inline", "paragraph_close"]


@pytest.mark.parametrize("name", NASTY.values(), ids=NASTY)
def test_a_card_s_table_keeps_its_columns(name):
    lines = card._table(["", name, "scores"], [[0, name, "[-1, 1]"], [1, name, name]])
    text, tokens = rendered("\n".join(lines))
    assert kinds(tokens)[0] == "table_open" and kinds(tokens)[-1] == "table_close"
    assert len(re.findall("<t[hd][ >]", text)) == 9
    assert "html_inline" not in {c.type for t in tokens for c in t.children or ()}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("name", NASTY.values(), ids=NASTY)
def test_no_control_byte_reaches_a_terminal(name, encoding, monkeypatch):
    for stream in ("stdout", "stderr"):
        raw = io.BytesIO()
        file = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
        monkeypatch.setattr(f"sys.{stream}", file)
        if stream == "stdout":
            terminal = console.Terminal()
            terminal.note(f"note: {name}")
            terminal.table(name, {name: name, "numbers": [1, 0.5]})
            terminal.columns(name, [name, "b"], {name: [0.5, None]})
            terminal.epoch({"epoch": 1, "best": True, name: 0.5})
            with terminal.progress(3, 0) as bar:
                bar.advance()
            command.say(name)
        else:
            command.complain(f"{name} is wrong")
            assert raw.getvalue().count(b"\n") == 1
        written = raw.getvalue().decode(encoding)
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", written), written
        assert not CONTROL.search(written.replace("\n", ""))


class Broken(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")


def test_what_cannot_be_printed_ends_nothing(monkeypatch):
    for file in (Broken(), types.SimpleNamespace(write=Broken().write, flush=lambda: None)):
        monkeypatch.setattr("sys.stdout", file)
        ProgressBar().note("é")
    closed = io.StringIO()
    monkeypatch.setattr("sys.stdout", closed)
    bar = ProgressBar()
    closed.close()
    bar.note("nobody reads this")


@pytest.mark.parametrize(
    "message",
    [
        "The repository x contains custom code. Please pass the argument `trust_remote_code=True`.",
        "Weights only load failed. You can set `weights_only=False` if you trust it.",
        "Object arrays cannot be loaded when allow_pickle=False",
    ],
)
def test_advice_to_switch_a_protection_off_is_not_repeated(message, capsys):
    for said in (messages.one_line(ValueError(message)), plain_text.without_advice(message)):
        assert "trust_remote" not in said and "weights_only" not in said and "pickle" not in said
        assert said
    command.complain(message)
    assert "=True" not in capsys.readouterr().err
    assert plain_text.without_advice("no such file: a.b; nothing") == "no such file: a.b; nothing"
