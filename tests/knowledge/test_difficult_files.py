"""Files that are large, damaged, locked, hostile or strange: each gives its text, or one sentence that says why not."""

from __future__ import annotations

import io
import os
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import making
import pytest

from chatglm.errors import ChatGLMError, DependencyError, InputError, UnsupportedError
from chatglm.knowledge.reading import Limits, Readers

TEXT = "第一章 总则\n本制度适用于全体员工，自二〇二六年一月一日起施行。\n"
SMALL = Limits(
    bytes=4 << 20, characters=1_000_000, unpacked=8 << 20, members=1000, pages=50, columns=200, pixels=4_000_000
)


@dataclass
class Case:
    """A file, and what comes of it.

    Attributes:
        data: its bytes, made when it is its turn.
        text: stands in the text; None: it is refused.
        refused: stands in the message.
        warned: stands in the warnings.
    """

    name: str
    data: Callable[[], bytes]
    text: str | None = None
    refused: str = ""
    error: type[ChatGLMError] = InputError
    warned: str = ""
    ocr: Any = False


def _gbk_zip() -> bytes:
    """As Windows in Chinese makes it: names in GBK, without the flag for UTF-8."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("????????.txt", TEXT)  # as many bytes as the name has in GBK
    return data.getvalue().replace(b"????????", "员工手册".encode("gbk"))


def _bomb() -> bytes:
    return making.zipped({"a.txt": b"0" * (64 << 20)})


def _many_bombs() -> bytes:
    return making.zipped({f"{n}.txt": os.urandom(4096) + b"\n" * (1 << 20) for n in range(20)})


def _nested_zip() -> bytes:
    data = making.zipped({"a.txt": TEXT})
    for _ in range(10):
        data = making.zipped({"a.zip": data})
    return data


def _locked_zip() -> bytes:
    data = bytearray(making.zipped({"a.txt": TEXT}))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.index(magic) + offset
        data[place] |= 1
    return bytes(data)


def _word(document: Any) -> None:
    document.add_heading("第一章 总则", 1)
    document.add_paragraph("本制度适用于全体员工，自二〇二六年一月一日起施行。")


def _with_entities(data: bytes, name: str) -> bytes:
    """A document whose first part wants a file of this machine."""
    declared = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY leak SYSTEM "file:///etc/passwd">]>'
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    body = members[name].partition(b"?>")[2] or members[name]
    return making.zipped({**members, name: declared + body})


def _huge_png() -> bytes:
    """A picture of 60,000 × 60,000 pixels by its header."""
    data = bytearray(making.picture(["一"]))
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    import zlib

    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


def _tiff() -> bytes:
    data = io.BytesIO()
    pages = [making.drawn([f"第{n}页"]) for n in "一二"]
    pages[0].save(data, "TIFF", save_all=True, append_images=pages[1:], compression="tiff_deflate")
    return data.getvalue()


def _scan_and_text() -> bytes:
    return making.picture(["第一章 总则"], form="PDF")


_SRT = "1\n00:00:01,000 --> 00:00:03,000\n本制度适用于全体员工\n\n2\n00:01:04,000 --> 00:01:05,000\n<i>再见</i>\n"
_PAGE = [(72.0, 760.0, 18.0, "第一章 总则"), (72.0, 720.0, 11.0, "本制度适用于全体员工，自二〇二六年一月一日起施行。")]
_ROW = "适用于全体员工"

CASES = [
    # text, in every encoding
    Case("utf8.txt", lambda: TEXT.encode(), _ROW),
    Case("bom.txt", lambda: TEXT.encode("utf-8-sig"), _ROW),
    Case("gbk.txt", lambda: TEXT.encode("gb18030"), _ROW),
    Case("big5.txt", lambda: "本制度適用於全體員工，自一月一日起施行。\n".encode("big5"), "適用於全體員工"),
    Case("utf16.txt", lambda: TEXT.encode("utf-16"), _ROW),
    Case("utf16be-no-bom.txt", lambda: TEXT.encode("utf-16-be"), _ROW),
    Case("utf32.txt", lambda: TEXT.encode("utf-32"), _ROW),
    Case("empty.txt", lambda: b"", ""),
    Case("blank.txt", lambda: b"\n \r\n" * 1000, "\n"),
    Case("one-bad-byte.txt", lambda: TEXT.encode() * 9 + b"\xff" + TEXT.encode(), _ROW, warned="read as \ufffd: 1"),
    Case("mojibake.txt", lambda: (TEXT * 9).encode().decode("gb18030", "replace").encode(), warned="wrong encoding",
         text=""),
    Case("program.txt", lambda: b"\x7fELF" + os.urandom(1000) + bytes(3000), refused="not text"),
    Case("100MB.txt", lambda: bytes(5 << 20), refused="larger than 4 MiB"),
    Case("many-characters.txt", lambda: b"ab " * 400_000, refused="at most 1,000,000 are read"),
    Case("one-line.txt", lambda: "字".encode() * 900_000, "字字"),
    Case("no-ending", lambda: TEXT.encode(), _ROW),
    Case("unknown.zzz", lambda: TEXT.encode(), _ROW),
    # marked-up text
    Case("a.md", lambda: f"# 制度\n\n{TEXT}".encode(), _ROW),
    Case("a.rst", lambda: f"制度\n====\n\n{TEXT}".encode(), _ROW),
    Case("gbk.html", lambda: f'<meta charset="gb2312"><h1>制度</h1><p>{TEXT}'.encode("gb18030"), _ROW),
    Case("wrong-charset.html", lambda: f'<meta charset="big5"><p>{TEXT}'.encode(), _ROW),
    Case("unclosed.html", lambda: f"<table><tr><td>{TEXT}<td>&#xffffffff;&nope;<".encode(), _ROW),
    Case("deep.html", lambda: b"<div>" * 100_000 + TEXT.encode(), refused="nested too deeply"),
    Case("a.py", lambda: f"def rule():\n    '''{TEXT}'''\n".encode(), _ROW),
    Case("a.srt", lambda: _SRT.encode("gb18030"), _ROW),
    Case("a.vtt", lambda: f"WEBVTT\n\n{_SRT.replace(',', '.')}".encode(), _ROW),
    Case("no-times.srt", lambda: TEXT.encode(), refused="has no times"),
    # tables and records
    Case("gbk.csv", lambda: "姓名,部门\n张三,销售部\n".encode("gb18030"), "姓名=张三；部门=销售部"),
    Case("a.tsv", lambda: "姓名\t部门\n张三\t销售部\n".encode("utf-16"), "姓名=张三；部门=销售部"),
    Case("wide.csv", lambda: (",".join(f"c{n}" for n in range(10_000)) + "\n" + "1," * 9_999 + "1").encode(), "c199=1",
         warned="10,000 columns"),
    Case("unclosed.csv", lambda: b'a,b\n"' + b"x" * 200_000, refused="quotation mark"),
    Case("a.json", lambda: '{"制度": {"适用": ["全体员工", 3]}}'.encode(), "制度.适用：全体员工、3"),
    Case("a.jsonl", lambda: '{"问": "一"}\n{"问": "\\u4e8c"}\n'.encode(), "问：二"),
    Case("deep.json", lambda: b"[" * 100_000, refused="nested too deeply"),
    Case("deeper.json", lambda: b'{"a":' * 500 + b"1" + b"}" * 500, refused="nested too deeply"),
    Case("broken.json", lambda: b'{"a": ', refused="is not JSON"),
    # containers
    Case("a.eml", lambda: making.mail("关于年假", TEXT, {"附件.txt": "附件在此".encode()}), "附件在此"),
    Case("strange.eml", lambda: b"From: \xff\xfe <\nSubject: =?nope?b?!!?=\nContent-Type: text/plain; charset=zzz\n\n"
         + TEXT.encode(), _ROW),
    Case("no.eml", lambda: b"\n\nhello", refused="no header lines"),
    Case("a.zip", lambda: making.zipped({"说明/a.txt": TEXT, "b.bin": os.urandom(3000)}), "说明/a.txt", warned="b.bin"),
    Case("gbk-names.zip", _gbk_zip, "员工手册.txt"),
    Case("leaves.zip", lambda: making.zipped({"../../etc/a.txt": TEXT, "/b.txt": "b", "C:\\c.txt": "c"}), "\nc.txt"),
    Case("bomb.zip", _bomb, refused="unpacks to more"),
    Case("bombs.zip", _many_bombs, refused="unpacks to more"),
    Case("nested.zip", _nested_zip, refused="nested files", error=UnsupportedError),
    Case("locked.zip", _locked_zip, refused="protected by a password"),
    Case("cut.zip", lambda: making.zipped({"a.txt": os.urandom(5000)})[:3000], refused="damaged zip file"),
    Case("many.zip", lambda: making.zipped({f"{n}.txt": "" for n in range(1001)}), refused="1,001 files in it"),
    Case("empty.zip", lambda: making.zipped({}), ""),
    # office files
    Case("a.docx", lambda: making.docx(_word), _ROW),
    Case("really-docx.txt", lambda: making.docx(_word), _ROW),
    Case("entities.docx", lambda: _with_entities(making.docx(_word), "word/document.xml"), refused="document type"),
    Case("cut.docx", lambda: making.docx(_word)[:9000], refused="damaged"),
    Case("locked.docx", lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(4096), refused="password"),
    Case("not.docx", lambda: making.zipped({"a": "b"}), refused="is not a Word document"),
    Case("a.pptx", lambda: making.pptx([("总则", TEXT, "记得微笑")]), "记得微笑"),
    Case("a.xlsx", lambda: making.xlsx({"员工": [["姓名", "入职"], ["张三", 2020]]}), "姓名=张三；入职=2020"),
    Case("wide.xlsx", lambda: making.xlsx({"a": [[f"c{n}" for n in range(10_000)], [*range(10_000)]]}), "c199=199",
         warned="10,000 columns"),
    Case("entities.xlsx", lambda: _with_entities(making.xlsx({"a": [["b"]]}), "xl/workbook.xml"),
         refused="document type"),
    Case("damaged.xlsx", lambda: making.replaced(making.xlsx({"a": [["b", 1]]}), "xl/worksheets/sheet1.xml", b"<row",
         b"<r&w"), refused="damaged"),
    Case("old.doc", lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", refused="save it as .docx", error=UnsupportedError),
    Case("old.ppt", lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", refused="save it as .pptx", error=UnsupportedError),
    Case("old.xls", lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", refused="save it as .xlsx", error=UnsupportedError),
    # PDF and books
    Case("a.pdf", lambda: making.pdf([_PAGE]), _ROW),
    Case("no-pages.pdf", lambda: making.pdf([]), ""),
    Case("empty-page.pdf", lambda: making.pdf([[]]), ""),
    Case("many-pages.pdf", lambda: making.pdf([_PAGE] * 51), refused="has 51 pages"),
    Case("locked.pdf", lambda: making.pdf([_PAGE], b"/ID[<00><00>]/Encrypt<</Filter/Standard/V 1/R 2/P -4/O<"
         + b"11" * 32 + b">/U<" + b"22" * 32 + b">>>"), refused="protected by a password"),
    Case("cut.pdf", lambda: making.pdf([_PAGE])[:700], refused="damaged PDF"),
    Case("empty.pdf", lambda: b"", refused="damaged PDF"),
    Case("no.pdf", lambda: os.urandom(5000), refused="damaged PDF"),
    Case("scan.pdf", _scan_and_text, "", warned="no text on page 1: a picture, and text recognition"),
    Case("a.epub", lambda: making.epub([("第一章", TEXT), ("第二章", "再见")]), "再见"),
    Case("locked.epub", lambda: making.epub([("a", TEXT)], {"META-INF/encryption.xml":
         '<e><EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/></e>'}), refused="DRM"),
    Case("entities.epub", lambda: _with_entities(making.epub([("a", TEXT)]), "OEBPS/p.opf"), refused="document type"),
    # pictures
    Case("off.png", lambda: making.picture(["字"]), refused="switched off"),
    Case("huge.png", _huge_png, refused="too many pixels", ocr="auto"),
    Case("cut.jpg", lambda: making.picture(["字"], form="JPEG")[:1500], refused="damaged picture", ocr="auto"),
    Case("no.png", lambda: b"\x89PNG\r\n\x1a\n" + bytes(99), refused="picture", ocr="auto"),
    Case("blank.png", lambda: making.picture([]), "", warned="no text", ocr="auto"),
    Case("pages.tiff", _tiff, "第二页", ocr="auto"),
    Case("scan-seen.pdf", _scan_and_text, "总则", ocr="auto"),
]  # fmt: skip


@pytest.fixture(scope="module")
def readers() -> Iterator[Readers]:
    with Readers(SMALL, workers=1) as readers:
        yield readers


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_text_or_a_sentence(case: Case, readers: Readers) -> None:
    if case.name.endswith((".png", ".jpg", ".tiff")) or "scan" in case.name:
        pytest.importorskip("rapidocr")
    if "scan" in case.name or case.name.endswith(".tiff"):
        _need_font()
    data = case.data()
    if case.text is None:
        with pytest.raises(ChatGLMError, match=case.refused) as caught:
            readers.read(data, case.name, case.ocr)
        assert type(caught.value) is case.error
        assert str(caught.value).startswith(f"{case.name}: ")
        assert "/etc" not in str(caught.value)
    else:
        reading = readers.read(data, case.name, case.ocr)
        assert case.text in reading.text
        assert case.warned in "; ".join(reading.warnings)
        assert "root:" not in reading.text
        assert ".." not in reading.text


def _need_font() -> None:
    if making.FONT is None:
        if os.environ.get("CI") == "true":
            pytest.fail("a Chinese font must be installed in CI (tests/packages.sh)")
        pytest.skip("no Chinese font: install fonts-noto-cjk")


def test_there_are_enough_of_them() -> None:
    assert len({case.name for case in CASES}) == len(CASES) > 40


# Limits of the process


MISBEHAVING = """
import chatglm.knowledge.reading.kinds as kinds
from chatglm.knowledge.reading.apart import work
def misbehave(data, name, limits):
    exec(name.removesuffix(".epub"))
kinds._FORMATS["epub"] = misbehave
"""


@pytest.fixture
def misbehaving(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Callable[..., ChatGLMError]:
    """Runs code in a worker in place of a parser; gives the error that comes of it."""
    (tmp_path / "misbehaving.py").write_text(MISBEHAVING)
    monkeypatch.syspath_prepend(str(tmp_path))
    import chatglm.knowledge.reading.apart as apart

    monkeypatch.setattr(apart, "_CODE", apart._CODE.replace("from chatglm", "import misbehaving; from chatglm", 1))

    def run(code: str, limit: Limits = SMALL) -> ChatGLMError:
        with Readers(limit) as readers:
            with pytest.raises(ChatGLMError) as caught:
                readers.read(b"PK\x03\x04", f"{code}.epub")
            assert readers.read(making.docx(_word), "a.docx").text  # the next one is read
        return caught.value

    return run


def test_a_parser_that_hangs_is_ended(misbehaving: Callable[..., ChatGLMError]) -> None:
    assert "longer than 1 seconds" in str(misbehaving("while True: pass", replace(SMALL, seconds=1.0)))


def test_a_parser_that_crashes_is_told(misbehaving: Callable[..., ChatGLMError]) -> None:
    assert "ended without an answer" in str(misbehaving("import os; os.abort()"))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_a_parser_that_wants_all_memory(misbehaving: Callable[..., ChatGLMError]) -> None:
    said = str(misbehaving("a = [bytes(1 << 24) for _ in range(1000)]", replace(SMALL, memory=256 << 20)))
    assert "too much memory" in said


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.create_connection(('127.0.0.1', 80))",
        "import subprocess; subprocess.run(['true'])",
        "open('leaked', 'w')",
        "import os; os.system('true')",
        "import os; os.remove('x')",
    ],
)
def test_a_parser_has_no_business_elsewhere(code: str, misbehaving: Callable[..., ChatGLMError]) -> None:
    assert "is refused while a document is read" in str(misbehaving(code))


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from chatglm.knowledge.reading import read

    for package, name, data in (
        ("pypdfium2", "a.pdf", making.pdf([_PAGE])),
        ("openpyxl", "a.xlsx", making.xlsx({"a": [["b"]]})),
    ):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(DependencyError, match=r"pip install 'chatglm\[knowledge\]'"):
            read(data, name=name)
