"""A model's Markdown as HTML that is safe to show, a block at a time.

Text of a model, a user or a tool is foreign: its HTML is shown as text, only few kinds of addresses become links,
pictures must be files of the conversation, and a second, independent program (nh3) cleans the result once more. Text
that is too large or too deep to render is shown as it was written.

A block is rendered once, by itself, when it is closed (`chatglm.conversation.markdown`), and rendering a text whole
gives the same.
"""

from __future__ import annotations

import functools
import html
import re
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token

from chatglm.conversation.markdown import CLOSING, FORMULA, NESTED, RENDERED, Splitter, begins_code, parser

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["Blocks", "highlighted", "plain", "render"]

_BLOCK = 20_000
"""Characters of one block that is not code."""
_CODE, _CODE_LINE = 20_000, 2_000
"""Characters of code, and of its longest line, that are coloured."""
_FORMULA_BLOCK = 3_000
"""Characters of a formula in a block of its own."""
_FORMULAS = 100
"""Formulas of one block."""


def render(text: str, base: str = "") -> str:
    """A whole text.

    Args:
        base: address of the conversation's files, with a slash at its end; "": there are none.
    """
    blocks = Blocks(base)
    blocks.feed(text)
    return "".join(shown for _, shown in blocks.close())


class Blocks:
    """A text that grows, as HTML of its closed blocks; see `Splitter`.

    Args:
        base: address of the conversation's files, with a slash at its end.
    """

    def __init__(self, base: str = "") -> None:
        self._base = base
        self._splitter = Splitter()
        self._count = 0  # of closed blocks

    @property
    def text(self) -> str:
        """The text of the open block."""
        return self._splitter.text

    def feed(self, text: str) -> bool:
        """Add text; returns whether `take` may find a closed block."""
        return self._splitter.feed(text)

    def take(self) -> list[tuple[int, str]]:
        """Blocks that have been closed since the last time: which block it is, and its HTML. It may take long, and may
        be called in another thread."""
        return self._numbered([_block(one, self._base) for one in self._splitter.take()])

    def close(self) -> list[tuple[int, str]]:
        """All blocks that are left."""
        found, rest = self._splitter.close()
        made = [_block(one, self._base) for one in found]
        return self._numbered([*made, plain(rest.strip("\n"))] if rest else made)

    def _numbered(self, made: list[str]) -> list[tuple[int, str]]:
        numbered = list(enumerate(made, self._count))
        self._count += len(made)
        return numbered


def plain(text: str) -> str:
    """A text as it was written."""
    return f'<p class="plain">{html.escape(text)}</p>\n'


def highlighted(code: str, language: str = "") -> str:
    """Code as the inside of a `<code>` element, coloured by classes."""
    if len(code) <= _CODE and max(map(len, code.split("\n"))) <= _CODE_LINE and (lexer := _lexer(language)):
        from pygments import highlight

        return highlight(code, lexer, _formatter())
    return html.escape(code)


# Blocks


@functools.lru_cache(2048)
def _kept(source: str, base: str) -> str:
    return _made(source, base)


def _block(source: str, base: str) -> str:
    # Several readers of one answer, and pages that are loaded again, need the same.
    return _kept(source, base) if len(source) < 4096 else _made(source, base)


def _made(source: str, base: str) -> str:
    code = begins_code(source, ended=True)
    if len(source) > (RENDERED if code else _BLOCK):
        return plain(source)
    env: dict[str, Any] = {"base": base}
    try:
        tokens = _markdown().parse(source, env)
        if max((token.level for token in tokens), default=0) >= NESTED:
            return plain(source)
        return _clean(_markdown().renderer.render(tokens, _markdown().options, env))
    except (RecursionError, ValueError, IndexError):
        return plain(source)


# The parser

_lock = threading.Lock()


@functools.cache
def _markdown() -> MarkdownIt:
    made = parser()
    made.validateLink = _allowed  # type: ignore[method-assign, assignment]
    for name, rule in (
        ("fence", _code),
        ("code_block", _code),
        ("image", _image),
        ("link_open", _link),
        ("heading_open", _heading),
        ("heading_close", _heading),
        ("th_open", _cell),
        ("td_open", _cell),
        ("table_open", _table),
        ("table_close", _table),
        ("formula", _show_formula),
        ("formula_block", _show_formula),
    ):
        made.add_render_rule(name, rule)
    return made


_ADDRESS = re.compile(r"(?:https?://|mailto:)[^\s]", re.IGNORECASE)
_FILE = re.compile(r"(?:sandbox:)?(?:/mnt/data/|\./)?([^/\\:?#]{1,200})")


def _allowed(address: str) -> bool:
    return _ADDRESS.match(address) is not None or _file(address) is not None


def _file(address: str) -> str | None:
    """The name of the conversation's file that an address refers to; None: it refers to something else."""
    found = _FILE.fullmatch(unquote(address))
    return found[1] if found and found[1] not in (".", "..") else None


def _address(address: str, env: Mapping[str, Any]) -> str:
    """An address as it is written into HTML; "": it is not allowed."""
    if _ADDRESS.match(address):
        return html.escape(address)
    name = _file(address)
    return html.escape(env["base"] + quote(name, safe="")) if name and env["base"] else ""


def _link(self: Any, tokens: Sequence[Token], index: int, options: Any, env: Mapping[str, Any]) -> str:
    address = str(tokens[index].attrGet("href") or "")
    shown = _address(address, env)
    if not shown:
        return "<a>"
    if not _ADDRESS.match(address):
        return f'<a href="{shown}" download>'
    return f'<a href="{shown}" rel="noopener nofollow noreferrer" target="_blank">'


def _image(self: Any, tokens: Sequence[Token], index: int, options: Any, env: Mapping[str, Any]) -> str:
    token = tokens[index]
    address = str(token.attrGet("src") or "")
    words = html.escape(self.renderInlineAsText(token.children or [], options, env))
    shown = _address(address, env)
    if _ADDRESS.match(address):  # of another server, which would see who reads the page
        return f'<a href="{shown}" rel="noopener nofollow noreferrer" target="_blank">{words or shown}</a>'
    return f'<img src="{shown}" alt="{words}" loading="lazy">' if shown else words


def _heading(self: Any, tokens: Sequence[Token], index: int, options: Any, env: Mapping[str, Any]) -> str:
    """The page has headings above those of an answer."""
    token = tokens[index]
    level = min(6, int(token.tag[1]) + 2)
    return f"<h{level}>" if token.nesting == 1 else f"</h{level}>\n"


def _table(self: Any, tokens: Sequence[Token], index: int, options: Any, env: Mapping[str, Any]) -> str:
    return '<div class="table" tabindex="0"><table>\n' if tokens[index].nesting == 1 else "</table></div>\n"


def _cell(self: Any, tokens: Sequence[Token], index: int, options: Any, env: Mapping[str, Any]) -> str:
    tag = tokens[index].tag
    found = re.search(r"center|right", str(tokens[index].attrGet("style") or ""))
    return f'<{tag} class="{found[0]}">' if found else f"<{tag}>"


def _code(self: Any, tokens: Sequence[Token], index: int, options: Any, env: Mapping[str, Any]) -> str:
    token = tokens[index]
    language = re.sub(r"[^\w+#.-]", "", token.info.split(maxsplit=1)[0][:30]) if token.info.strip() else ""
    shown = highlighted(token.content, language)
    return f'<div class="code" data-language="{html.escape(language)}"><pre><code>{shown}</code></pre></div>\n'


# Code

_LANGUAGES = frozenset({
    "bash", "sh", "shell", "zsh", "console", "c", "cpp", "c++", "csharp", "c#", "css", "diff", "dockerfile",
    "docker", "go", "golang", "haskell", "html", "xml", "ini", "toml", "java", "javascript", "js", "typescript",
    "ts", "jsx", "tsx", "json", "kotlin", "latex", "tex", "lua", "make", "makefile", "markdown", "md", "matlab",
    "objective-c", "perl", "php", "powershell", "ps1", "python", "py", "python3", "pycon", "r", "ruby", "rb",
    "rust", "rs", "scala", "sql", "swift", "vue", "yaml", "yml",
})  # fmt: skip


@functools.cache
def _lexer(language: str) -> Any:
    if language.lower() not in _LANGUAGES:
        return None
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        return get_lexer_by_name(language.lower(), stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None


@functools.cache
def _formatter() -> Any:
    from pygments.formatters import HtmlFormatter

    return HtmlFormatter(nowrap=True)


# Formulas


def _show_formula(self: Any, tokens: Sequence[Token], index: int, options: Any, env: dict[str, Any]) -> str:
    token = tokens[index]
    block = token.type == "formula_block"
    if block and not token.meta["closed"]:
        return plain(token.content)
    env["formulas"] = env.get("formulas", 0) + 1
    display = block or token.markup in ("$$", r"\[")
    most = _FORMULA_BLOCK if block else FORMULA
    shown = _mathml(token.content, display) if len(token.content) <= most and env["formulas"] <= _FORMULAS else None
    if shown is None:
        source = token.markup + token.content + CLOSING[token.markup]
        shown = f'<code class="formula">{html.escape(source)}</code>'
    return f'<div class="formula" tabindex="0">{shown}</div>\n' if block else shown


_MATH = frozenset({
    "math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "msup", "msub", "msubsup", "mfrac", "msqrt", "mroot",
    "mover", "munder", "munderover", "mtable", "mtr", "mtd", "mpadded", "mphantom", "menclose", "mstyle",
    "mmultiscripts", "mprescripts", "none",
})  # fmt: skip
_MATH_ATTRIBUTES = frozenset({
    "display", "stretchy", "fence", "form", "accent", "accentunder", "mathvariant", "linethickness",
    "columnalign", "rowalign", "columnspacing", "rowspacing", "columnlines", "rowlines", "width", "height",
    "depth", "voffset", "lspace", "rspace", "minsize", "maxsize", "notation", "displaystyle", "scriptlevel",
    "movablelimits", "separator", "largeop", "symmetric", "mathcolor", "mathbackground",
})  # fmt: skip
_MATH_VALUE = re.compile(r"[\w\s.,%#+-]{0,60}", re.ASCII)


@functools.lru_cache(1024)
def _mathml(latex: str, display: bool) -> str | None:
    """MathML of a formula; None: it cannot be read."""
    from latex2mathml.converter import convert_to_element

    if re.search(r"[{(\[^_]{40}|(?:\\(?:sqrt|frac|left|begin)\W*){30}", latex):  # deeper than any formula is
        return None
    try:
        with _lock:  # it has its own tables, and is quick
            made = convert_to_element(latex, display="block" if display else "inline")
        return _element(made, 0)
    except Exception:  # it may raise any exception
        return None


def _element(element: Element, depth: int) -> str:
    if depth > 60:
        raise ValueError("nested too deep")
    inner = html.escape(html.unescape(element.text or ""), quote=False) + "".join(
        _element(child, depth + 1) + html.escape(html.unescape(child.tail or ""), quote=False) for child in element
    )
    tag = element.tag.rpartition("}")[2]
    if tag not in _MATH:
        return inner
    attributes = "".join(
        f' {name}="{html.escape(value)}"'
        for name, value in element.attrib.items()
        if name in _MATH_ATTRIBUTES and _MATH_VALUE.fullmatch(value)
    )
    return f"<{tag}{attributes}>{inner}</{tag}>"


# The second line of defence

_TAGS = {
    "a", "blockquote", "br", "code", "del", "div", "em", "h3", "h4", "h5", "h6", "hr", "img", "li", "ol", "p", "pre",
    "s", "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul", *_MATH,
}  # fmt: skip
_ATTRIBUTES: dict[str, set[str]] = {
    "a": {"href", "rel", "target", "download"},
    "code": {"class"},
    "div": {"class", "data-language", "tabindex"},
    "img": {"src", "alt", "loading"},
    "ol": {"start"},
    "p": {"class"},
    "span": {"class"},
    "td": {"class"},
    "th": {"class"},
    **{tag: set(_MATH_ATTRIBUTES) for tag in _MATH},
}


def _clean(shown: str) -> str:
    return nh3.clean(shown, tags=_TAGS, attributes=_ATTRIBUTES, url_schemes={"http", "https", "mailto"}, link_rel=None)
