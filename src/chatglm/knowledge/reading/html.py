"""HTML as text: headings, tables and code are marked; scripts, styles and navigation are left out."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from chatglm.errors import InputError
from chatglm.knowledge.reading.documents import Draft, Limits, Reading
from chatglm.knowledge.reading.texts import decoded, warnings_of

__all__ = ["add_html", "read_html"]

_DECLARED = re.compile(rb"""(?:charset|encoding)[ \t]*=[ \t]*["']?([A-Za-z0-9_.:-]{2,40})""", re.IGNORECASE)
_UNSEEN = {"script", "style", "template", "noscript", "nav", "svg", "math", "iframe", "object", "select", "button"}
_BLOCK = re.compile(
    "address|article|aside|blockquote|body|center|d[dlt]|details|div|fieldset|fig(?:caption|ure)|footer|form|header|h[rt]"
    "|html|li|main|ol|p|pre|section|summary|table|tbody|tfoot|thead|tr|ul|caption"
)
_APART = {"p", "table", "ul", "ol", "dl", "pre", "blockquote", "figure"}
"""Elements with an empty line before and after them."""
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_VOID = {"br", "hr", "img", "input", "meta", "link", "wbr", "area", "base", "col", "embed", "source", "track"}
_DEEPEST = 1000


def read_html(data: bytes, name: str, limits: Limits) -> Reading:
    """Read a web page. The encoding that the page declares is used if all bytes are valid in it.

    Raises:
        InputError: the file is not text, is too long, or cannot be parsed.
    """
    declared = _DECLARED.search(data[:4096])
    found = decoded(data, limits, declared[1].decode("ascii") if declared else None)
    draft = Draft(limits)
    add_html(draft, found.text)
    draft.warnings += warnings_of(found.text, found.damaged)
    return draft.reading("text/html")


def add_html(draft: Draft, text: str, *, title: bool = True) -> None:
    """Add the visible text of a web page to a draft.

    Args:
        text: the HTML.
        title: add the page's `<title>` as a heading of level 1.

    Raises:
        InputError: the page cannot be parsed, or is nested too deeply.
    """
    page = _Page(draft, title)
    try:
        page.feed(text)
        page.close()
    except (AssertionError, RecursionError) as error:
        raise InputError(f"its HTML cannot be read ({error})") from None
    page.finish()


class _Page(HTMLParser):
    """The parser. It collects text until a block element begins or ends, and then adds it to the draft as a line."""

    def __init__(self, draft: Draft, titled: bool) -> None:
        super().__init__(convert_charrefs=True)
        self._draft = draft
        self._titled = titled
        self._line: list[str] = []
        self._open: list[str] = []
        self._unseen = 0
        self._pre = 0
        self._title: list[str] | None = None
        self._heading = 0
        self._cells: list[str] | None = None
        self._rows: list[str] = []
        self._bullet = ""
        self._apart = True
        self._started = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID:
            self._open.append(tag)
            if len(self._open) > _DEEPEST:
                raise InputError("its HTML is nested too deeply")
        if tag in _UNSEEN:
            self._unseen += 1
        if self._unseen:
            return
        if tag == "title" and not self._started:
            self._title = []
        elif tag == "br":
            self._line.append("\n")
        elif tag == "img":
            self._line.append(dict(attrs).get("alt") or "")
        elif tag in _HEADINGS:
            self._end_line()
            self._heading = _HEADINGS[tag]
        elif tag in ("td", "th") and self._cells is not None:
            self._end_cell()
        elif tag == "table" and self._cells is not None:  # the outer table only serves the page's layout
            self._end_cell()
            self._line += ["\n".join(self._cells)]
            self._cells = None
            self._end_line()
        elif tag == "tr":
            self._end_row()
            self._end_line()
            self._cells = []
        elif _BLOCK.fullmatch(tag) and self._cells is None:
            self._end_line()
            self._space(tag)
            if tag == "pre":
                self._pre += 1
            elif tag == "li":
                self._bullet = "- "

    def handle_endtag(self, tag: str) -> None:
        if tag not in self._open:
            return
        while self._open:
            last = self._open.pop()
            self._ended(last)
            if last == tag:
                break

    def _ended(self, tag: str) -> None:
        if tag in _UNSEEN:
            self._unseen -= 1
            return
        if self._unseen:
            return
        if tag == "title" and self._title is not None:
            if self._titled:
                self._draft.heading("".join(self._title), 1)
            self._title = None
        elif tag in _HEADINGS:
            self._end_line()
            self._heading = 0
        elif tag == "tr":
            self._end_row()
        elif tag == "table":
            self._end_table()
        elif _BLOCK.fullmatch(tag) and self._cells is None:
            self._end_line()
            self._space(tag)
            if tag == "pre":
                self._pre -= 1

    def handle_data(self, data: str) -> None:
        if self._unseen:
            return
        if self._title is not None:
            self._title.append(data)
        else:
            self._line.append(data if self._pre else re.sub(r"[ \t\r\n\f]+", " ", data))

    def finish(self) -> None:
        """Add the text that is still collected."""
        self._end_row()
        self._end_line()
        self._end_table()

    def _said(self) -> str:
        said = "".join(self._line)
        self._line.clear()
        return said

    def _end_cell(self) -> None:
        said = " ".join(self._said().split())
        if self._cells is not None and (said or self._cells):
            self._cells.append(said)

    def _end_row(self) -> None:
        if self._cells is None:
            return
        self._end_cell()
        row = " | ".join(self._cells)
        self._cells = None
        if row.strip(" |"):
            self._rows.append(row)

    def _end_line(self) -> None:
        if self._cells is not None:
            return
        said = self._said()
        said = said.strip("\n") if self._pre else "\n".join(part.strip() for part in said.split("\n")).strip()
        if not said.strip():
            return
        self._end_table()
        said, self._bullet = self._bullet + said, ""
        self._apart, self._started = False, True
        if self._heading:
            self._draft.heading(said, self._heading)
        elif self._pre:
            with self._draft.part("code", ""):
                self._draft.line(said)
        else:
            self._draft.line(said)

    def _end_table(self) -> None:
        if self._rows:
            with self._draft.part("table", ""):
                for row in self._rows:
                    self._draft.line(row)
            self._rows.clear()
            self._apart, self._started = False, True

    def _space(self, tag: str) -> None:
        if tag in _APART and not self._apart and not self._rows and not self._bullet:
            self._draft.add("\n")
            self._apart = True
