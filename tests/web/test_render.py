"""Markdown as HTML: what comes out, that nothing dangerous does, and that pieces are the same as the whole."""

from __future__ import annotations

import html.parser
import itertools
import re
import threading
from urllib.parse import urlsplit

import pytest
from attacks import ATTACKS
from hypothesis import given
from hypothesis import strategies as st

from chatglm.web.render import Blocks, highlighted, render

_BASE = "/ui/c/1/files/"
_TAGS = set(
    "a blockquote br code del div em h3 h4 h5 h6 hr img li ol p pre s span strong table tbody td th thead tr ul".split()  # noqa: SIM905
)


class _Checker(html.parser.HTMLParser):
    """Finds what must never be in what is shown."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.wrong: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _TAGS and not re.fullmatch(r"m[a-z]+|none", tag):
            self.wrong.append(f"<{tag}>")
        for name, value in attrs:
            if name.startswith("on") or name in ("style", "srcdoc", "action", "formaction", "xlink:href"):
                self.wrong.append(f"{tag} {name}")
            if name == "src" and not str(value).startswith(_BASE):
                self.wrong.append(f"{tag} src={value}")
            own = str(value).startswith(_BASE) and "/" not in str(value).removeprefix(_BASE)
            if name == "href" and not own and urlsplit(str(value)).scheme not in ("http", "https", "mailto"):
                self.wrong.append(f"{tag} href={value}")

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.wrong.append(f"comment {data}")

    def handle_decl(self, decl: str) -> None:
        self.wrong.append(f"declaration {decl}")

    def handle_pi(self, data: str) -> None:
        self.wrong.append(f"instruction {data}")


def wrong_in(shown: str) -> list[str]:
    checker = _Checker()
    checker.feed(shown)
    checker.close()
    return checker.wrong


def test_the_checker_sees_what_it_is_for() -> None:
    for bad in ("<script>", "<img src=x>", "<p onclick=a>", "<a href=javascript:x>", "<a href=//evil>", "<!--x-->"):
        assert wrong_in(bad), bad


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a **b** *c* ~~d~~ `e`", "<p>a <strong>b</strong> <em>c</em> <s>d</s> <code>e</code></p>\n"),
        ("# a", "<h3>a</h3>\n"),
        ("a\nb", "<p>a\nb</p>\n"),
        ("1. a\n2. b", "<ol>\n<li>a</li>\n<li>b</li>\n</ol>\n"),
        ("3. a", '<ol start="3">\n<li>a</li>\n</ol>\n'),
        ("<b>a</b> &amp; &lt;", "<p>&lt;b&gt;a&lt;/b&gt; &amp; &lt;</p>\n"),
        (
            "[a](https://b.example/?c=d&e=f)",
            '<a href="https://b.example/?c=d&amp;e=f" rel="noopener nofollow noreferrer" target="_blank">a</a>',
        ),
        ("![图](图.png)", f'<p><img src="{_BASE}%E5%9B%BE.png" alt="图" loading="lazy"></p>\n'),
        ("![a](/mnt/data/b.png)", f'<p><img src="{_BASE}b.png" alt="a" loading="lazy"></p>\n'),
        ("[a](sandbox:/mnt/data/b%20c.csv)", f'<p><a href="{_BASE}b%20c.csv" download="">a</a></p>\n'),
        ("[a](/ui/login)", "<p>[a](/ui/login)</p>\n"),
        ("5$ and 6$, $7 or $8", "<p>5$ and 6$, $7 or $8</p>\n"),
        ("$$\na", '<p class="plain">$$\na</p>\n'),
        ("```python\nx", '<span class="n">x</span>'),
        ("```nonsense\nx<y\n```", "<pre><code>x&lt;y\n</code></pre>"),
        ("|a|b|\n|:-:|-:|\n|1|2|", '<th class="center">a</th>\n<th class="right">b</th>'),
        (r"\(x^2\)", "<msup><mi>x</mi><mn>2</mn></msup>"),
        ("$$\\frac{a}{b}$$", '<math display="block">'),
        ("\\[\nx\n\\]", '<div class="formula" tabindex="0"><math display="block"><mrow><mi>x</mi></mrow></math></div>'),
        ("价格 $a<b$。", "<mo>&lt;</mo>"),
        ("$\\nonsense{$", "$\\nonsense{$"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert shown in render(text, _BASE)


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_stay_text(attack: str) -> None:
    for text in (
        attack,
        f"a\n\n{attack}\n\nb",
        f"- a\n  - {attack}",
        f"```python\n{attack}\n```",
        f"`{attack}`",
        f"[a]({attack})",
        f"![{attack}](a.png)",
        f"[{attack}](http://a.example)",
        f"${attack}$",
        f"$$\n\\text{{{attack}}}\n$$",
    ):
        assert wrong_in(render(text, _BASE)) == []
    for language in ("python", "json", "html", attack):
        shown = highlighted(attack, language)
        assert wrong_in(shown) == []
        assert "".join(re.split(r"</?span[^>]*>", shown)).count("<") == 0


def test_there_are_sixty_attacks() -> None:
    assert len(set(ATTACKS)) >= 60


# Pieces and the whole

_PIECES = st.sampled_from(
    [
        "a", "b c", "\n", "\n\n", "    ", "  ", "\t", "- ", "* ", "1. ", "2) ", "> ", "# ", "## ", "---\n",
        "===\n", "```", "```python\n", "~~~\n", "````\n", "`", "**", "_", "~~", "[x](http://a.example)", "[x]: http://b.example\n",
        "[x]", "![p](p.png)", "|a|b|\n", "|-|-|\n", "| 1 | 2 |\n", "$", "$$", "$$\n", "\\(", "\\)", "\\[\n", "\\]",
        "x^2",
        "\\frac{1}{2}", "<b>", "<!--", "&amp;", "\\", "\r\n", "\r", "\0", "中文。", "😀", "***", "+ ", "10. ", "  \n",
    ]
)  # fmt: skip
_TEXTS = st.lists(_PIECES, max_size=30).map("".join)


def grown(text: str, cuts: list[int]) -> list[str]:
    """The blocks of a text that comes in pieces."""
    blocks, found = Blocks(_BASE), []
    places = [0, *sorted({cut % (len(text) + 1) for cut in cuts}), len(text)]
    for start, end in itertools.pairwise(places):
        if blocks.feed(text[start:end]):
            found += blocks.take()
    found += blocks.close()
    assert [index for index, _ in found] == list(range(len(found)))
    return [html for _, html in found]


@given(_TEXTS, st.lists(st.integers(0, 200), max_size=20))
def test_a_text_in_pieces_is_the_text_as_a_whole(text: str, cuts: list[int]) -> None:
    whole = render(text, _BASE)
    assert "".join(grown(text, cuts)) == whole
    assert wrong_in(whole) == []


@given(_TEXTS)
def test_a_block_is_what_the_parser_makes_of_it_in_its_place(text: str) -> None:
    from chatglm.conversation.markdown import _lines
    from chatglm.web.render import _clean, _markdown

    source = _lines(text)
    assert render(text, _BASE) == _clean(_markdown().render(source, {"base": _BASE}))


@given(_TEXTS, _TEXTS)
def test_what_follows_changes_no_closed_block(text: str, more: str) -> None:
    blocks = Blocks(_BASE)
    blocks.feed(text)
    closed = [html for _, html in blocks.take()]
    whole = grown(text + more, [])
    assert whole[: len(closed)] == closed


@given(st.text(max_size=300))
def test_any_text_is_shown_safely(text: str) -> None:
    assert wrong_in(render(text, _BASE)) == []


def test_blocks_come_as_soon_as_the_next_one_begins() -> None:
    blocks = Blocks()
    assert not blocks.feed("First para")
    assert blocks.feed("graph.\n")
    assert blocks.take() == []
    assert blocks.feed("\n")
    assert blocks.take() == [(0, "<p>First paragraph.</p>\n")]
    assert blocks.text == ""
    assert blocks.feed("Second.\n```\ncode\n\nmore\n")
    assert blocks.take() == [(1, "<p>Second.</p>\n")]
    assert blocks.text == "```\ncode\n\nmore\n"
    assert blocks.feed("```\n")
    assert blocks.take() == [(2, '<div class="code" data-language=""><pre><code>code\n\nmore\n</code></pre></div>\n')]
    assert blocks.feed("# Head\n- item\n\n")
    assert blocks.take() == [(3, "<h3>Head</h3>\n")]
    assert blocks.feed("  more of it\n")
    assert blocks.take() == []
    assert blocks.close() == [(4, "<ul>\n<li>\n<p>item</p>\n<p>more of it</p>\n</li>\n</ul>\n")]


# Size and depth

_LARGE = {
    "a paragraph": "word " * 200_000,
    "lines": "line\n" * 200_000,
    "empty lines": "\n" * 1_000_000,
    "paragraphs": "line\n\n" * 150_000,
    "quotes": "> " * 10_000 + "a",
    "quotes on lines": "\n".join("> " * n + "a" for n in range(300)),
    "lists in lists": "\n".join("  " * n + "- a" for n in range(1000)),
    "brackets": "[" * 100_000,
    "links": "[a](" * 30_000,
    "images": "![" * 50_000,
    "stars": "*a " * 100_000,
    "stars and lines": "**a _b " * 40_000,
    "strikes": "~~a" * 100_000,
    "backticks": "".join("`" * n + "a" for n in range(1, 700)),
    "dollars": "$a" * 200_000,
    "dollar blocks": "$$\n" * 100_000,
    "formulas": "$x_1$ " * 20_000,
    "a formula": "$$" + "{" * 50_000 + "$$",
    "deep formula": "$$" + "\\frac{1}{" * 200 + "x" + "}" * 200 + "$$",
    "deep root": "$" + "\\sqrt{" * 90 + "x" + "}" * 90 + "$",
    "scripts": "$" + "x^" * 250 + "x$",
    "code": "```python\n" + "x = [1, 2, 'a']\n" * 60_000 + "```",
    "code of one line": "```json\n" + "[" * 1_000_000 + "\n```",
    "many codes": "```python\nx = 1\n```\n" * 20_000,
    "open code": "```\n" * 1 + "x\n" * 400_000,
    "a short table": "|a|b|\n|-|-|\n" + "|1|2|\n" * 3_000,
    "a short list": "1. a\n" * 3_900,
    "emphasis": "*a* **b** " * 1_900,
    "short formulas": "$x_1$ " * 3_000,
    "table": "|a|b|\n|-|-|\n" + "|1|2|\n" * 100_000,
    "wide table": "|" + "a|" * 20_000 + "\n|" + "-|" * 20_000 + "\n" + "|1" * 20_000,
    "entities": "&amp;" * 200_000,
    "escapes": "\\*" * 400_000,
    "angles": "<a" * 300_000,
    "autolinks": "<http://a.example/" * 50_000,
    "numbers": "1. a\n" * 100_000,
    "rules": "---\n" * 200_000,
    "underlines": "a\n===\n" * 100_000,
    "spaces": " " * 1_000_000,
    "tabs": "\t" * 500_000 + "a",
}


@pytest.mark.parametrize("name", _LARGE)
def test_a_large_text_ends_and_lets_others_work(name: str) -> None:
    """Rendered in a thread, as the page does, it lets this thread go on. What is measured is in benchmarks/; here it is
    only seen that no case takes minutes, and none fails."""
    text = _LARGE[name]
    done: list[str] = []
    thread = threading.Thread(target=lambda: done.append(render(text, _BASE)), daemon=True)
    thread.start()
    thread.join(60)
    assert done, f"{name}: more than a minute"
    assert wrong_in(done[0][:200_000].rpartition("<")[0]) == []
    assert done[0] or not text.strip()


def test_what_is_too_deep_is_shown_as_it_was_written() -> None:
    text = "> " * 10_000 + "a"
    assert "&gt; &gt;" in render(text)
    assert render(text).count("<blockquote>") == 0


def test_a_text_that_grows_is_not_parsed_from_its_beginning_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from chatglm.conversation import markdown as module

    parsed = 0
    real = module._starts

    def counted(text: str) -> tuple[list[int], bool]:
        nonlocal parsed
        parsed += len(text)
        return real(text)

    monkeypatch.setattr(module, "_starts", counted)
    blocks = Blocks()
    text = "- an item of a list\n" * 2_000
    for start in range(0, len(text), 20):
        if blocks.feed(text[start : start + 20]):
            blocks.take()
    assert parsed < 20 * len(text)
