"""Bytes as text: which encoding, where every character came from, and what looks like garbage."""

from __future__ import annotations

import codecs
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatglm.errors import InputError
from chatglm.knowledge.encodings import ByteMap, decode, garbage_in
from chatglm.knowledge.variants import SIMPLIFIED

NOVELS = ("三国演义", "水浒传", "红楼梦", "西游记")
ENCODINGS = ("utf-8", "gb18030", "big5", "utf-16-le", "utf-16-be")
SENTENCE = "孔明曰：“亮夜观天象，刘表不久人世；刘璋非立业之主，久后必归将军。”"


@pytest.fixture(scope="module")
def texts(shared: Path) -> list[str]:
    folder = shared / "data" / "knowledge"
    articles = json.loads((folder / "cmrc_dev.json").read_text("utf-8"))["data"]
    return [
        *(paragraph["context"] for article in articles for paragraph in article["paragraphs"]),
        *((folder / f"{name}.txt").read_text("utf-8") for name in NOVELS),
    ]


def _traditional() -> dict[int, str]:
    found: dict[int, str] = {}
    for code, simple in SIMPLIFIED.items():
        if not _in_big5(simple) and _in_big5(chr(code)):
            found.setdefault(ord(simple), chr(code))
    return found


def _in_big5(character: str) -> bool:
    try:
        character.encode("big5")
    except UnicodeEncodeError:
        return False
    return True


def test_every_text_of_twenty_characters_is_read_in_its_encoding(texts: list[str]) -> None:
    chance = random.Random(22)
    traditional = _traditional()
    wrong, tried = [], 0
    while tried < 1600:
        text = chance.choice(texts)
        begin = chance.randrange(max(len(text) - 20, 1))
        part = text[begin : begin + chance.choice((20, 20, 50, 500))]
        encoding = ENCODINGS[tried % len(ENCODINGS)]
        if encoding == "big5":
            part = part.translate(traditional).encode("big5", "ignore").decode("big5")
        if len(part) < 20:
            continue
        tried += 1
        data = part.encode(encoding)
        found = decode(data)
        if found.text != part or found.bytes_of.span(0, len(part)) != (0, len(data)):
            wrong.append((encoding, found.encoding, part))
    assert wrong == []


@pytest.mark.parametrize(
    ("bom", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
def test_a_mark_at_the_start_says_it(bom: bytes, encoding: str) -> None:
    found = decode(bom + "字x".encode(encoding))
    assert (found.text, found.encoding) == ("字x", encoding)
    assert found.bytes_of.at(0) == len(bom)


def _same(text: str, raw: bytes, encoding: str) -> bool:
    return raw.decode(encoding).replace("\r\n", "\n").replace("\r", "\n") == text


_written = st.text(st.one_of(st.sampled_from("天地玄黄，。\r\nab1"), st.characters(exclude_categories=["Cs", "Cc"])))


@given(_written, st.sampled_from(["utf-8", "gb18030", "big5", "utf-16-le", "utf-16-be", "cp1252"]), st.data())
def test_bytes_of_a_span_are_its_text(text: str, encoding: str, data: st.DataObject) -> None:
    text = SENTENCE + text
    raw = text.encode(encoding, "ignore")
    found = decode(raw, encoding)
    assert len(found.bytes_of) == len(found.text)
    start = data.draw(st.integers(0, len(found.text)))
    end = data.draw(st.integers(start, len(found.text)))
    first, last = found.bytes_of.span(start, end)
    assert _same(found.text[start:end], raw[first:last], found.encoding)
    assert ByteMap.from_bytes(found.bytes_of.to_bytes(), len(found.text)) == found.bytes_of


@given(st.binary(max_size=300), st.sampled_from(ENCODINGS), st.data())
def test_damage_is_confined_to_its_bytes(noise: bytes, encoding: str, data: st.DataObject) -> None:
    good = (SENTENCE * 20).encode(encoding, "ignore")
    place = data.draw(st.integers(0, len(good)))
    try:
        found = decode(good[:place] + noise + good[place:])
    except InputError:
        return
    assert len(found.bytes_of) == len(found.text)
    assert found.bytes_of.at(len(found.text)) == len(good) + len(noise)


def test_one_damaged_byte_leaves_the_rest() -> None:
    raw = SENTENCE.encode() + b"\xff" + SENTENCE.encode()
    found = decode(raw)
    assert (found.text, found.encoding, found.damaged) == (f"{SENTENCE}\ufffd{SENTENCE}", "utf-8", 1)
    assert found.bytes_of.span(len(SENTENCE), len(SENTENCE) + 1) == (len(SENTENCE.encode()), len(SENTENCE.encode()) + 1)


@pytest.mark.parametrize("data", [bytes(range(32)) * 20, b"\x7fELF" + bytes(500), random.Random(1).randbytes(200_000)])
def test_what_is_no_text(data: bytes) -> None:
    with pytest.raises(InputError, match="not text"):
        decode(data)


def test_what_a_file_says_of_itself_is_believed_if_it_is_possible() -> None:
    raw = "тест".encode("koi8-r")
    assert decode(raw, "KOI8-R").text == "тест"
    assert decode(SENTENCE.encode(), "ascii").text == SENTENCE
    assert decode(SENTENCE.encode(), "zip").text == SENTENCE


def test_empty() -> None:
    assert decode(b"").text == ""
    assert decode(codecs.BOM_UTF8).bytes_of.span(0, 0) == (3, 3)


@pytest.mark.parametrize(
    ("written", "read"),
    [("utf-8", "gb18030"), ("gb18030", "latin-1"), ("utf-8", "cp1252"), ("gb18030", "big5"), ("utf-16-le", "gb18030")],
)
def test_text_in_a_wrong_encoding_is_found(written: str, read: str) -> None:
    good = SENTENCE * 30
    bad = (SENTENCE * 10).encode(written).decode(read, "replace")
    (span,) = garbage_in(good + bad + good)
    assert span == pytest.approx((len(good), len(good) + len(bad)), abs=60)


@pytest.mark.parametrize(
    "text",
    [
        SENTENCE,
        "Быстрая лиса прыгает через собаку. ",
        "안녕하세요 반갑습니다 ",
        "Où est la bibliothèque? Ça va déjà très bien. ",
        "これは日本語の文章です。カタカナも使います。",
        "| ---- | --- |\n",
        "0x1f, 0x2b, ",
    ],
)
def test_text_in_other_scripts_is_no_garbage(text: str) -> None:
    assert garbage_in(text * 50) == []


def test_garbage_in_the_novels(texts: list[str]) -> None:
    """One of them has two kilobytes of it."""
    found = {name: garbage_in(text) for name, text in zip(NOVELS, texts[-4:], strict=True)}
    assert [len(spans) for spans in found.values()] == [3, 0, 1, 0]
    assert all(end - start <= 300 for spans in found.values() for start, end in spans)
    assert garbage_in("".join(texts[:-4])) == []


@pytest.mark.parametrize(
    "text", ["知识库在二楼\0，气阀在门口。", "Figure 1\0 shows the café’s plan.", "a\0" + "b" * 30]
)
def test_text_with_a_nul_is_utf_8(text: str) -> None:
    """As texts that were taken out of PDF files often are."""
    found = decode(text.encode())
    assert (found.encoding, found.damaged) == ("utf-8", 0)
    assert found.text.replace("\0", "") == text.replace("\0", "")
