"""Cards of other programs: every kind of file is read, and what we do not know is given back."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import json
import random
import struct
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatglm.characters import Character
from chatglm.errors import InputError

FLAT = {
    "name": "Ada",
    "description": "{{char}} counts.",
    "personality": "patient",
    "scenario": "A room with {{user}}.",
    "first_mes": "Hello, {{user}}.",
    "mes_example": "<START>\n{{user}}: One?\n{{char}}: One.\nAnd two.\n<START>\n{{char}}: Three.",
}
ENTRY = {
    "keys": ["engine"],
    "content": "The engine has wheels.",
    "extensions": {"depth": 4},
    "enabled": True,
    "insertion_order": 7,
    "id": 3,
    "comment": "wheels",
}
V2 = {
    "spec": "chara_card_v2",
    "spec_version": "2.0",
    "create_date": "today",
    "data": {
        **FLAT,
        "creator_notes": "For readers.",
        "system_prompt": "Obey.",
        "post_history_instructions": "Obey again.",
        "alternate_greetings": ["Hi."],
        "character_book": {"name": "book", "scan_depth": 2, "extensions": {"a": 1}, "entries": [ENTRY]},
        "tags": ["numbers"],
        "creator": "me",
        "character_version": "7",
        "extensions": {"other": {"x": [1, None]}},
        "unheard_of": {"y": 1.5},
    },
}
V3 = {**V2, "spec": "chara_card_v3", "spec_version": "3.0", "data": {**V2["data"], "nickname": "A.", "assets": []}}


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def picture(*texts: bytes) -> bytes:
    """One grey pixel, with text chunks."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0\x80"))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(texts) + pixels + chunk(b"IEND", b"")


def text_chunk(card: Any, keyword: bytes = b"chara", kind: bytes = b"tEXt") -> bytes:
    data = base64.b64encode(json.dumps(card).encode())
    if kind == b"zTXt":
        data = b"\0" + zlib.compress(data)
    elif kind == b"iTXt":
        data = b"\1\0en\0card\0" + zlib.compress(data)
    return chunk(kind, keyword + b"\0" + data)


def charx(card: bytes, name: str = "card.json", packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as archive:
        archive.writestr("assets/icon.png", b"x" * 100)
        archive.writestr(name, card)
    return file.getvalue()


def as_json(card: Any) -> bytes:
    return json.dumps(card).encode()


def read(data: bytes) -> Character:
    return Character.from_bytes(data, "file")


def within(whole: Any, part: Any) -> bool:
    """Whether all that `part` says stands in `whole`, too."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(k in whole and within(whole[k], v) for k, v in part.items())
    if isinstance(part, list):
        return isinstance(whole, list) and len(whole) == len(part) and all(map(within, whole, part))
    return whole == part


@pytest.mark.parametrize(
    "data",
    [
        as_json(FLAT),
        as_json(V2),
        as_json(V3),
        b"\xef\xbb\xbf\n" + as_json(V2),
        *(picture(text_chunk(V2, kind=kind)) for kind in (b"tEXt", b"zTXt", b"iTXt")),
        picture(text_chunk({**FLAT, "name": "No"}), text_chunk(V3, b"ccv3")),
        charx(as_json(V3)),
        charx(as_json(V3), packing=zipfile.ZIP_STORED),
    ],
    ids=["v1", "v2", "v3", "bom", "tEXt", "zTXt", "iTXt", "both", "deflated", "stored"],
)
def test_every_kind_is_read(data: bytes) -> None:
    character = read(data)
    assert character.name == "Ada"
    assert character.bot_info == "{{char}} counts.\npatient\nA room with {{user}}."
    assert character.greetings[0] == "Hello, {{user}}."
    assert character.examples == (("One?", "One.\nAnd two."), ("", "Three."))
    if character.card.get("spec"):
        assert character.greetings == ("Hello, {{user}}.", "Hi.")
        assert (character.system_prompt, character.post_history_instructions) == ("Obey.", "Obey again.")
        assert (character.tags, character.creator, character.notes) == (("numbers",), "me", "For readers.")
        assert character.lore[0].keys == ("engine",)


@pytest.mark.parametrize("card", [FLAT, V2, V3], ids=["v1", "v2", "v3"])
@pytest.mark.parametrize("ending", ["json", "png"])
def test_a_card_is_given_back_whole(card: dict[str, Any], ending: str, tmp_path: Path) -> None:
    given = {**card, "later": 1} if card is FLAT else card
    character = read(picture(text_chunk(given)))
    file = tmp_path / f"card.{ending}"
    character.write(file)
    assert Character.read(file) == read(file.read_bytes())
    if ending == "json":
        written = json.loads(file.read_bytes())
        assert within(written, given)
        assert all(written["data"][name] == FLAT[name] for name in FLAT)
        assert written["spec"] == given.get("spec", "chara_card_v2")
    else:
        again = Character.read(file)
        assert again.picture == picture()
        for name in ("bot_info", "greetings", "examples", "lore", "extensions", "tags"):
            assert getattr(again, name) == getattr(character, name)
        assert (b"ccv3\0" in file.read_bytes()) == (card is V3)
        assert b"chara\0" in file.read_bytes()


def test_what_was_changed_is_written(tmp_path: Path) -> None:
    character = read(as_json({**V2, "name": "Ada", "first_mes": "old"}))
    changed = dataclasses.replace(
        character, name="Bea", bot_info="new", greetings=("G",), examples=(("q", "a"),), user_name="Tom", lore=()
    )
    changed.write(tmp_path / "c.json")
    written = json.loads((tmp_path / "c.json").read_bytes())
    assert (written["name"], written["first_mes"], written["data"]["unheard_of"]) == ("Bea", "G", {"y": 1.5})
    assert (written["data"]["description"], written["data"]["personality"]) == ("new", "")
    assert written["data"]["mes_example"] == "<START>\n{{user}}: q\n{{char}}: a\n"
    assert written["data"]["character_book"]["entries"] == []
    again = Character.read(tmp_path / "c.json")
    assert (again.examples, again.user_name, again.extensions) == ((("q", "a"),), "Tom", {"other": {"x": [1, None]}})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
UNKNOWN = st.dictionaries(st.text(max_size=6).map("_{}".format), JSON, max_size=4)


@settings(max_examples=15, deadline=None)
@given(top=UNKNOWN, data=UNKNOWN, book=UNKNOWN, entry=UNKNOWN, extensions=UNKNOWN, spec=st.sampled_from((V2, V3)))
def test_unknown_fields_come_back(top, data, book, entry, extensions, spec, tmp_path_factory) -> None:
    folder = tmp_path_factory.getbasetemp()
    card = {
        **top,
        **spec,
        "data": {
            **spec["data"],
            **data,
            "extensions": extensions,
            "character_book": {**book, "entries": [{**ENTRY, **entry}]},
        },
    }
    character = read(as_json(card))
    for name, options in (("a.json", {}), ("own.json", {"own": True}), ("a.yaml", {})):
        character.write(folder / name, **options)
        back = Character.read(folder / name)
        assert back == character
        back.write(folder / "b.json")
        assert within(json.loads((folder / "b.json").read_bytes()), card)


NAMES = sorted([*V3["data"], "chatglm"])


@settings(max_examples=60, deadline=None)
@given(fields=st.dictionaries(st.sampled_from(NAMES), JSON | st.just([]) | st.just({}), max_size=3), odd=JSON)
def test_any_value_is_a_card_or_refused(fields, odd, tmp_path_factory) -> None:
    """What is read can be written and is the same again, whatever stands in the fields."""
    file = tmp_path_factory.getbasetemp() / "any.json"
    data = {**V3["data"], "extensions": {"chatglm": odd}, **fields}
    try:
        character = read(as_json({**V3, "data": data}))
    except InputError as error:
        said = str(error)
        assert any(f": {name}" in said for name in (*NAMES, "the card has no name"))
        return
    for own in (False, True):
        character.write(file, own=own)
        assert Character.read(file) == character


BOMB = zlib.compress(b"QUJD" * (8 << 20))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (as_json({"spec": "chara_card_v9", "data": {}}), "kind 'chara_card_v9'"),
        (as_json({"spec": ["chara_card_v2"], "data": {}}), "of the kind"),
        (as_json({"spec": "chara_card_v2"}), "data: expected an object"),
        (as_json({**FLAT, "name": " "}), "no name"),
        (as_json({**FLAT, "name": "x" * 201}), "name: too long"),
        (as_json({**FLAT, "first_mes": 3}), "first_mes: expected a text, got 3"),
        (as_json({**FLAT, "tags": [1]}), "tags: expected a list"),
        (as_json({**FLAT, "extensions": []}), "extensions: expected an object"),
        (as_json({**FLAT, "description": "x" * (1 << 20) + "y"}), "too long"),
        (as_json({**FLAT, "character_book": {"entries": {"0": {}}}}), "expected a list"),
        (as_json({**FLAT, "character_book": {"entries": [3]}}), "entry 1: expected an object"),
        (as_json({**FLAT, "character_book": {"entries": [{"keys": "a"}]}}), "keys: expected a list"),
        (as_json({**FLAT, "character_book": {"entries": [{}] * 1001}}), "more than 1,000 entries"),
        (as_json({**FLAT, "character_book": {"entries": [{"keys": ["k"] * 999}] * 11}}), "more than 10,000 keys"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"name":"a","name":"b","description":""}', "twice"),
        (b'{"description":NaN}', "finite"),
        (b'{"description":"' + b"x" * (5 << 20) + b'"}', "larger than"),
        (b"x" * ((8 << 20) + 1), "larger than"),
        (picture(), "without a card"),
        (picture(text_chunk(V2), text_chunk(FLAT)), "two different cards"),
        (picture(chunk(b"tEXt", b"chara\0!!!")), "not base64"),
        (picture(chunk(b"tEXt", b"chara\0" + base64.b64encode(b"\xff"))), "not valid JSON"),
        (picture(chunk(b"zTXt", b"chara\0\0" + BOMB)), "larger than"),
        (picture(*[chunk(b"zTXt", b"chara\0\0" + zlib.compress(b"x" * (8 << 20)))] * 1000), "together"),
        (picture(chunk(b"zTXt", b"chara\0\0nothing")), "cannot be unpacked"),
        (picture(chunk(b"iTXt", b"chara\0\1\0")), "cut short"),
        (picture(text_chunk(V2))[:-20], "cut short"),
        (picture(text_chunk(V2)).replace(b"tEXtchara", b"tEXtcharb"), "checksum"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"IEND", b""), "begin with its header"),
        (b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", 0xFFFFFFFF, b"IHDR"), "cut short"),
        (picture(*[chunk(b"tEXt", b"a\0b")] * 5000), "more than 4,096 chunks"),
        (charx(as_json(V3), "other.json"), "0 files of the name card.json"),
        (charx(b" " * (2 << 20) + as_json(V3)), "card.json is larger"),
        (charx(as_json(V3), packing=zipfile.ZIP_LZMA), "unsupported compression"),
        (charx(as_json(V3))[:-10], "not a complete zip"),
        (b"PK", "not a complete zip"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, words: str) -> None:
    with pytest.raises(InputError) as error:
        Character.from_bytes(data, "folder/card")
    assert str(error.value).startswith("folder/card: ")
    assert words in str(error.value)
    assert len(str(error.value)) < 400


def test_a_zip_with_a_million_names_is_not_listed() -> None:
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 65535, 65535, 40 << 20, 0, 0)
    with pytest.raises(InputError, match="too many files"):
        read(b"PK" + bytes(100) + end)


def test_long_texts_take_one_pass() -> None:
    """Each of these would take minutes if a line cost as much as the text before it."""
    for examples, pairs in (
        ("{{user}}: a\n" * 80_000 + "{{char}}: b", 1),
        ("{{char}}: b\n" + "\n" * 900_000 + "c", 1),
        ("<START>" * 140_000, 0),
        ("{{char}}: b\n" * 80_000, 80_000),
        (" " * 1_000_000, 0),
    ):
        assert len(read(as_json({**FLAT, "mes_example": examples})).examples) == pairs
    book = {"entries": [{"constant": True, "content": "@@a\n" * 250_000 + "told"}]}
    assert read(as_json({**FLAT, "character_book": book})).lore_of([], 100) == ("told",)
    filled = read(as_json({**FLAT, "description": "{{char}}{{user}}" * 60_000})).persona().bot_info
    assert filled.startswith("Adathe user")


def test_mutated_files_are_cards_or_refused() -> None:
    """products: 1,000 of them, each at once."""
    rng = random.Random(0)
    seeds = [picture(text_chunk(V3, b"ccv3"), text_chunk(V2)), picture(text_chunk(V2, kind=b"zTXt")), as_json(V2)]
    seeds += [charx(as_json(V3)), as_json(FLAT)]
    read_whole = 0
    slowest = 0.0
    for number in range(1000):
        data = bytearray(seeds[number % len(seeds)])
        for _ in range(rng.choice((1, 1, 2, 8))):
            at = rng.randrange(len(data))
            how = rng.randrange(4)
            if how == 0:
                data[at] = rng.randrange(256)
            elif how == 1:
                del data[at : at + rng.randrange(1, 40)]
            elif how == 2:
                data[at:at] = data[at : at + rng.randrange(200)]
            else:
                data[at] ^= 1 << rng.randrange(8)
            data = data or bytearray(b"x")
        if number % 3 == 0:
            data = _mended(data)
        began = time.process_time()
        with contextlib.suppress(InputError):
            read(bytes(data)).dialogue("chatglm3", [])
            read_whole += 1
        slowest = max(slowest, time.process_time() - began)
    assert 100 < read_whole < 900
    assert slowest < 5  # nothing hangs; benchmarks say how long it takes


def _mended(data: bytearray) -> bytearray:
    """A PNG with right checksums, so that mutations get behind them."""
    at = 8
    while data.startswith(b"\x89PNG") and at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            break
        data[end - 4 : end] = struct.pack(">I", zlib.crc32(data[at + 4 : end - 4]))
        at = end
    return data
