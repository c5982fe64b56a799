"""What is read of documents of each kind: text, headings, pages, tables; which bytes a citation stands for."""

from __future__ import annotations

import contextlib
import difflib
import io
import os
from pathlib import Path
from typing import Any

import making
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatglm.errors import InputError
from chatglm.knowledge.reading import ENDINGS, Mark, Readers, Reading, read, read_apart
from chatglm.knowledge.reading.kinds import TEXT_ENDINGS


def headings(reading: Reading) -> list[tuple[int, str]]:
    return [(mark.level, mark.value) for mark in reading.marks if mark.kind == "heading"]


def marked(reading: Reading, kind: str) -> list[str]:
    return [reading.text[mark.start : mark.end] for mark in reading.marks if mark.kind == kind]


# Text files


@given(
    st.lists(st.sampled_from(["# 标题", "标题\n====", "正文，abc。", "```", "a | b", "--- | ---", "  代码", ""])),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "gb18030"]),
    st.sampled_from(["md", "rst", "txt", "py", "log"]),
    st.data(),
)
def test_bytes_of_a_citation_are_its_text(
    lines: list[str], end: str, encoding: str, ending: str, data: st.DataObject
) -> None:
    raw = ("这是一份给全体员工看的文件，请仔细阅读。" + end + end.join(lines)).encode(encoding)
    reading = read(raw, name=f"a.{ending}")
    assert reading.bytes_of is not None
    assert reading.encoding is not None
    assert 0 <= max((mark.end for mark in reading.marks), default=0) <= len(reading.text)
    start = data.draw(st.integers(0, len(reading.text)))
    stop = data.draw(st.integers(start, len(reading.text)))
    first, last = reading.bytes_of.span(start, stop)
    said = raw[first:last].decode(reading.encoding)
    assert said.replace("\r\n", "\n").replace("\r", "\n") == reading.text[start:stop]


def test_markdown() -> None:
    text = "# 手册\n\n```sh\n# 不是标题\n```\n\n休假\n----\n\n| 天 | 数 |\n|---|---|\n| 年假 | 10 |\n\n- 一项\n---\n"
    reading = read(text.encode(), name="a.md")
    assert reading.text == text
    assert headings(reading) == [(1, "手册"), (2, "休假")]
    assert marked(reading, "code") == ["```sh\n# 不是标题\n```"]
    assert marked(reading, "table") == ["| 天 | 数 |\n|---|---|\n| 年假 | 10 |"]


def test_restructured_text() -> None:
    text = "====\n手册\n====\n\n休假\n----\n\n如下::\n\n    代码\n\n正文\n\n病假\n----\n"
    reading = read(text.encode(), name="a.rst")
    assert headings(reading) == [(1, "手册"), (2, "休假"), (2, "病假")]
    assert [code.strip() for code in marked(reading, "code")] == ["代码"]


def test_code() -> None:
    reading = read(b"class A:\n    def run(self):\n        pass\n\nasync def main():\n    pass\n", name="a.py")
    assert headings(reading) == [(1, "class A"), (2, "def run(self)"), (1, "async def main()")]


def test_subtitles_are_under_their_minutes() -> None:
    text = "1\n00:00:01,000 --> 00:00:02,000\n你好\n\n2\n00:02:05,500 --> 00:02:07,000\n<i>再</i>见\n第二行\n"
    reading = read(text.encode(), name="a.srt")
    assert reading.text == "你好\n再见\n第二行\n"
    assert headings(reading) == [(1, "00:00:01"), (1, "00:02:05")]


# HTML


def test_html() -> None:
    page = """<html><head><title>公司</title><style>p{}</style></head><body><nav>首页 关于</nav>
    <h1>手册</h1><p>第一段 <b>粗</b>体<br>换行。<ul><li>一项<li><p>二项</p></ul>
    <table><tr><th>天<th>数<tr><td>年假<td>10</table><pre>a
  b</pre><script>alert(1)</script></body></html>"""
    reading = read(page.encode(), name="a.html")
    assert reading.text == "公司\n手册\n\n第一段 粗体\n换行。\n\n- 一项\n- 二项\n\n天 | 数\n年假 | 10\n\na\n  b\n\n"
    assert headings(reading) == [(1, "公司"), (1, "手册")]
    assert marked(reading, "table") == ["天 | 数\n年假 | 10\n"]
    assert marked(reading, "code") == ["a\n  b\n"]


def test_a_table_that_lays_out_a_page() -> None:
    reading = read("<table><tr><td>左<table><tr><td>内</td></tr></table>".encode(), name="a.html")
    assert reading.text.split() == ["左", "内"]


# Tables and records


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("姓名,部门\n张三,销售\n,研发\n", "姓名；部门\n姓名=张三；部门=销售\n部门=研发\n"),
        ("1,2\n3,4\n", "1；2\n3；4\n"),
        ("姓名;部门\n张三;销售,市场\n", "姓名；部门\n姓名=张三；部门=销售,市场\n"),
        ('标题\n"多\n行",x\n', "标题\n多 行；x\n"),
    ],
)
def test_csv(table: str, text: str) -> None:
    assert read(table.encode(), name="a.csv").text == text


def test_json() -> None:
    reading = read('[{"书": "三国", "人": [{"名": "关羽"}], "数": [1, 2], "无": null}, "完"]'.encode(), name="a.json")
    assert reading.text == "书：三国\n人.名：关羽\n数：1、2\n\n完\n\n"


def test_spreadsheet() -> None:
    import datetime

    rows = [["姓名", "入职", "比例"], ["张三", datetime.datetime(2020, 5, 1), 0.1], [], ["李四", None, True]]
    reading = read(making.xlsx({"员工": rows, "空": []}), name="a.xlsx")
    assert "姓名=张三；入职=2020-05-01；比例=0.1\n姓名=李四；比例=是\n" in reading.text
    assert [mark.value for mark in reading.marks if mark.kind == "sheet"] == ["员工", "空"]
    assert headings(reading) == [(1, "员工"), (1, "空")]


# Office files


def _rules(document: Any) -> None:
    document.add_heading("员工手册", 0)
    document.add_heading("休假", 1)
    document.add_paragraph("年假十天。")
    document.add_paragraph("先申请", style="List Bullet")
    table = document.add_table(2, 2)
    for n, text in enumerate(("天", "数", "年假", "10")):
        table.cell(n // 2, n % 2).text = text
    document.add_paragraph("表后。")


def test_word() -> None:
    reading = read(making.docx(_rules), name="a.docx")
    assert reading.text == "员工手册\n休假\n年假十天。\n- 先申请\n天 | 数\n年假 | 10\n表后。\n"
    assert headings(reading) == [(1, "员工手册"), (1, "休假")]
    assert marked(reading, "table") == ["天 | 数\n年假 | 10\n"]


def test_word_counts_articles_itself() -> None:
    """第一条 and its like are nowhere in the file: Word makes them when it shows it."""

    def fill(document: Any) -> None:
        from docx.oxml import parse_xml
        from docx.oxml.ns import nsdecls

        numbering = document.part.numbering_part.element
        numbering.insert(0, parse_xml(
            f'<w:abstractNum {nsdecls("w")} w:abstractNumId="90"><w:lvl w:ilvl="0"><w:start w:val="1"/>'
            '<w:numFmt w:val="chineseCounting"/><w:lvlText w:val="第%1条"/></w:lvl><w:lvl w:ilvl="1">'
            '<w:start w:val="1"/><w:isLgl/><w:lvlText w:val="%1.%2"/></w:lvl></w:abstractNum>'
        ))  # fmt: skip
        numbering.append(parse_xml(f'<w:num {nsdecls("w")} w:numId="90"><w:abstractNumId w:val="90"/></w:num>'))
        for level, text in [
            (0, "守时。"),
            (0, "请假。"),
            (1, "事假。"),
            (1, "病假。"),
            *[(0, "其他。")] * 9,
            (1, "完。"),
        ]:
            paragraph = document.add_paragraph(text)
            paragraph._p.get_or_add_pPr().append(parse_xml(
                f'<w:numPr {nsdecls("w")}><w:ilvl w:val="{level}"/><w:numId w:val="90"/></w:numPr>'
            ))  # fmt: skip

    lines = read(making.docx(fill), name="a.docx").text.splitlines()
    assert lines[:5] == ["第一条 守时。", "第二条 请假。", "2.1 事假。", "2.2 病假。", "第三条 其他。"]
    assert lines[-2:] == ["第十一条 其他。", "11.1 完。"]


def test_word_has_changes_and_boxes() -> None:
    data = making.docx(lambda document: document.add_paragraph("MARK"))
    body = (
        "<w:t>新</w:t></w:r><w:del><w:r><w:delText>旧</w:delText></w:r></w:del><w:ins><w:r><w:t>加</w:t></w:r></w:ins>"
        "<w:r><w:pict><w:txbxContent><w:p><w:r><w:t>框内</w:t></w:r></w:p></w:txbxContent></w:pict>"
    )
    data = making.replaced(data, "word/document.xml", b"<w:t>MARK</w:t>", body.encode())
    assert read(data, name="a.docx").text == "新加\n框内\n"


def test_slides() -> None:
    reading = read(making.pptx([("总则", "适用于\n全体", "慢慢说"), ("休假", "十天", "")]), name="a.pptx")
    assert reading.text == "总则\n适用于\n全体\n备注：慢慢说\n\n休假\n十天\n\n"
    assert headings(reading) == [(1, "总则"), (1, "休假")]
    assert [reading.page_at(reading.text.index(each)) for each in ("慢慢", "十天")] == [1, 2]


def test_book() -> None:
    reading = read(making.epub([("第一章", "话说&nbsp;天下"), ("第二章", "完")]), name="a.epub")
    assert reading.text.split() == ["第一章", "话说", "天下", "第二章", "完"]
    assert headings(reading) == [(1, "第一章"), (1, "第二章")]


# Mail and archives


def test_mail() -> None:
    reading = read(making.mail("关于年假", "年假十天。", {"表.csv": "姓名,天\n张三,10\n".encode()}), name="a.eml")
    assert "发件人：张三 <zhang@example.com>\n" in reading.text
    assert "年假十天。" in reading.text
    assert "姓名=张三；天=10" in reading.text
    assert headings(reading) == [(1, "关于年假"), (2, "表.csv")]


def test_mail_in_two_forms_is_read_once() -> None:
    import email.message

    message = email.message.EmailMessage()
    message["Subject"] = "两种"
    message.set_content("纯文本")
    message.add_alternative("<p>超文本</p>", subtype="html")
    reading = read(message.as_bytes(), name="a.eml")
    assert "纯文本" in reading.text
    assert "超文本" not in reading.text


def test_archive() -> None:
    data = making.zipped(
        {"制度/休假.md": "# 年假\n十天。\n", "b.txt": "再见", "__MACOSX/x": "x", "c.doc": b"\xd0\xcf\x11\xe0"}
    )
    reading = read(data, name="a.zip")
    assert headings(reading) == [(1, "b.txt"), (1, "制度/休假.md"), (2, "年假")]
    assert "MACOSX" not in reading.text
    assert reading.warnings == ("c.doc: .doc files are not supported; save it as .docx",)


# PDF

_LEFT = ["左栏第一行文字写到边上没有", "完的句子在第二行继续写到", "第三行结束了这一句话。", "左栏的第二段。"]
_RIGHT = ["右栏第一行文字也写到了边", "上而句子在第二行结束了。", "右栏还有第三行文字。", "右栏最后一行。"]


@pytest.mark.parametrize("by_rows", [False, True])
def test_columns_are_read_one_after_the_other(by_rows: bool) -> None:
    left = [(60.0, 700 - n * 18.0, 11.0, text) for n, text in enumerate(_LEFT)]
    right = [(320.0, 700 - n * 18.0, 11.0, text) for n, text in enumerate(_RIGHT)]
    body = [each for pair in zip(left, right, strict=True) for each in pair] if by_rows else left + right
    reading = read(making.pdf([[(200, 780, 16, "双栏论文的标题"), *body]]), name="a.pdf")
    assert reading.text.splitlines() == [
        "双栏论文的标题",
        "左栏第一行文字写到边上没有完的句子在第二行继续写到第三行结束了这一句话。",
        "左栏的第二段。",
        "右栏第一行文字也写到了边上而句子在第二行结束了。",
        "右栏还有第三行文字。",
        "右栏最后一行。",
    ]
    assert headings(reading) == [(1, "双栏论文的标题")]


def test_running_titles_are_left_out() -> None:
    def page(n: int) -> list[tuple[float, float, float, str]]:
        return [
            (250, 810, 9, "员工手册 内部资料"),
            (60, 760, 16, f"第{'一二三四五六'[n - 1]}章 内容"),
            (60, 700, 11, f"这是第 {n * n} 份正文。"),
            (280, 30, 9, f"第 {n + 2} 页"),
        ]

    reading = read(making.pdf(map(page, range(1, 7)), outline="第一章 内容"), name="a.pdf")
    assert reading.text.splitlines()[:4] == ["第一章 内容", "这是第 1 份正文。", "第二章 内容", "这是第 4 份正文。"]
    assert headings(reading) == [(1, "第一章 内容")]
    assert reading.page_at(reading.text.index("第四章")) == 4


def test_rows_of_a_table_stay_together() -> None:
    rows = [["姓名", "部门", "入职"], ["张三", "销售", "2020"], ["李四", "研发", "2021"]]
    cells = [
        (60 + 120.0 * column, 700 - 20.0 * row, 11.0, text)
        for row, texts in enumerate(rows)
        for column, text in enumerate(texts)
    ]
    reading = read(making.pdf([cells]), name="a.pdf")
    assert reading.text == "姓名 | 部门 | 入职\n张三 | 销售 | 2020\n李四 | 研发 | 2021\n"


# Reading in general


def test_every_kind_is_known() -> None:
    assert {"txt", "md", "docx", "pptx", "xlsx", "pdf", "epub", "eml", "zip", "png", "srt", "html", "csv"} <= ENDINGS


def test_sources(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("你好")
    assert read(file, name="a.txt") == read(io.BytesIO("你好".encode()), name="a.txt") == read_apart(file, name="a.txt")
    with pytest.raises(InputError, match=r"^b\.txt: cannot be read \(No such file"):
        read(tmp_path / "b.txt", name="b.txt")


def test_apart_it_is_the_same() -> None:
    data = making.zipped({"a.txt": "第一章 总则\n正文。\n", "b.md": "# 标\n"})
    with Readers(workers=1) as readers:
        assert readers.read(data, "a.zip") == read(data, name="a.zip")
        assert readers.read(data, "b.zip") == read(data, name="b.zip")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_a_reader_does_not_get_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-user")
    monkeypatch.setenv("CHATGLM_TEST", "kept")
    with Readers(workers=1) as readers:
        readers.read(making.zipped({"a.txt": "正文。"}), "a.zip")
        (worker,) = readers._started
        given = Path(f"/proc/{worker._process.pid}/environ").read_bytes()
    assert b"CHATGLM_TEST=kept" in given
    assert b"sk-of-the-user" not in given


def test_a_long_text_is_read_apart() -> None:
    data = ("第一章 总则\n" + "天地玄黄，宇宙洪荒。\n" * 200_000).encode("gb18030")
    assert read_apart(data, name="a.txt") == read(data, name="a.txt")


def test_many_threads_share_two_readers() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with Readers(workers=2) as readers, ThreadPoolExecutor(8) as pool:
        texts = [f"<p>第{n}页".encode() for n in range(40)]
        found = pool.map(lambda data: readers.read(data, "a.html").text, texts)
        assert list(found) == [f"第{n}页\n" for n in range(40)]


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), st.text(max_size=5), st.integers(0, 9))))
def test_marks_survive_a_database(rows: list[tuple[int, int, str, int]]) -> None:
    marks = tuple(Mark(start, end, "heading", value, level) for start, end, value, level in rows)
    assert Reading.marks_from_json(Reading("", marks).marks_to_json()) == marks


def test_a_page_is_recognised(readable: None, shared: Path) -> None:
    """Twenty pages are in `benchmarks/bench_reading.py`."""
    text = (shared / "data" / "knowledge" / "三国演义.txt").read_text("utf-8")
    text = "".join(text[100_000:101_000].split())
    page = [text[at : at + 36] for at in range(0, 36 * 8, 36)]
    seen = "".join(read(making.picture(page), name="a.png").text.split())
    blocks = difflib.SequenceMatcher(None, "".join(page), seen, autojunk=False).get_matching_blocks()
    assert sum(block.size for block in blocks) >= 0.98 * 36 * 8


def test_a_picture_on_its_head(readable: None) -> None:
    upside = making.drawn(["第三章 休假", "员工工作满一年可以享受年假十天。"]).rotate(180)
    data = io.BytesIO()
    upside.save(data, "PNG")
    reading = read(data.getvalue(), name="a.png")
    assert "员工工作满一年可以享受年假十天。" in reading.text
    assert reading.page_at(0) == 1


@pytest.fixture
def readable() -> None:
    import os

    missing = [] if making.FONT else ["the fonts-noto-cjk package"]
    try:
        import rapidocr  # noqa: F401
    except ImportError:
        missing.append("rapidocr")
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"in CI there must be {missing}")
    if missing:
        pytest.skip(f"needs {' and '.join(missing)}")


@pytest.mark.parametrize("ending", sorted(ENDINGS))
def test_an_empty_file_of_every_kind(ending: str) -> None:
    refused = None
    try:
        assert read(b"", name=f"a.{ending}", ocr=False).text.strip() == ""
    except InputError as error:
        refused = str(error)
    assert refused is None or refused.startswith(f"a.{ending}: ")


@pytest.mark.parametrize("ending", sorted(TEXT_ENDINGS))
@pytest.mark.parametrize(
    "line",
    [" " * 2_000_000, f"# a{' ' * 500_000}b", f"# a{' #' * 250_000}b", f"|\n{' ' * 500_000}x|", f"|\n{'-' * 500_000}x|",
     f"|\n{'|-' * 250_000}x|", f"a\n{'=' * 500_000}x", f"{'`' * 500_000}x", f"a\n{' -' * 250_000}"],
    ids=["blanks", "heading", "closed", "rule", "dashes", "cells", "underline", "fence", "list"],
)  # fmt: skip
def test_long_lines_take_no_long_time(line: str, ending: str) -> None:
    """These files are read in the process itself. Expressions that went back at each blank took hours for some."""
    with contextlib.suppress(InputError):
        read(line.encode(), name=f"a{ending}")


@pytest.mark.parametrize(
    ("line", "level", "title"),
    [
        ("# A", 1, "A"),
        ("   ### A b \t", 3, "A b"),
        ("## A ##", 2, "A"),
        ("## A#", 2, "A#"),
        ("## A ## b", 2, "A ## b"),
        ("#\tA", 1, "A"),
        ("# # #", 1, "#"),
        ("###### A", 6, "A"),
        ("####### A", 0, ""),
        ("    # A", 0, ""),
        ("#A", 0, ""),
        ("#", 0, ""),
        ("# ##", 0, ""),
    ],
)
def test_headings_of_markdown(line: str, level: int, title: str) -> None:
    found = [(mark.level, mark.value) for mark in read(f"{line}\ntext".encode(), name="a.md").marks]
    assert found == ([(level, title)] if level else [])


@pytest.mark.parametrize(
    ("rule", "is_table"),
    [("|---|---|", True), ("--- | :-: ", True), (" |:-|-: |\t", True), ("|---||---|", False), ("---|x", False),
     ("|", False), ("-|", True), ("|:|-|", False), ("| - - |", False)],
)  # fmt: skip
def test_tables_of_markdown(rule: str, is_table: bool) -> None:
    marks = read(f"a | b\n{rule}\n1 | 2\n".encode(), name="a.md").marks
    assert [mark.kind for mark in marks] == ["table"] * is_table
