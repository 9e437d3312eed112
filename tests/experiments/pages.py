"""Pages as a test sees them."""

import html.parser


class Page(html.parser.HTMLParser):
    """Collects what a page loads, its words and its tables' cells; holds it to balanced tags."""

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.tags, self.ids, self.rows = [], [], set(), [], []
        self.strong, self.labels, self.words, self.tables = [], [], "", []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.rows.append([])
            self.tables[-1].append(self.rows[-1])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data", "srcset", "action"):
                self.loads.append(value)
            if name == "aria-label":
                self.labels.append(value)
            if name == "id":
                self.ids.append(value)
            if tag == "strong":
                self.strong.append([value, ""])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"svg", "style"} & set(self.open):
            self.words += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data
        if "strong" in self.open:
            self.strong[-1][1] += data

    def table(self, *head: str) -> list[list[str]]:
        """Returns the rows of the first table whose head begins so."""
        return next(rows[1:] for rows in self.tables if rows[0][: len(head)] == list(head))


def read(source: str) -> Page:
    """Reads a whole page."""
    page = Page()
    page.feed(source)
    page.close()
    return page
