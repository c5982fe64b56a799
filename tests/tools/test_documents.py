from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from chatglm.errors import ToolError
from chatglm.tools.documents import from_environment, parse_document, read_document

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x85\u2028\u2029\ufeff"), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(TEXT, VALUES, max_size=4))
def test_json_and_yaml_give_back_what_was_written(found: dict[str, Any]) -> None:
    assert parse_document(json.dumps(found).encode(), "x") == found
    quoted = yaml.safe_dump(found, default_style='"', allow_unicode=True).encode()
    plain = {name: value for name, value in found.items() if isinstance(value, str)}
    assert parse_document(quoted, "x").items() >= plain.items()


def test_yaml_is_that_of_openapi() -> None:
    text = """
    on: off
    day: 2026-11-29
    version: 3.0
    200: {n: 010, hex: 0x10, big: 123456789012345678901234567890, none: ~, "yes": 'true'}
    base: &base {a: 1, b: 2}
    more: {<<: *base, b: 3}
    both: {<<: [*base, {c: 4}]}
    block: |
      true
    """
    assert parse_document(text.encode(), "x") == {
        "on": "off",
        "day": "2026-11-29",
        "version": 3.0,
        "200": {"n": 10, "hex": "0x10", "big": 123456789012345678901234567890, "none": None, "yes": "true"},
        "base": {"a": 1, "b": 2},
        "more": {"a": 1, "b": 3},
        "both": {"a": 1, "b": 2, "c": 4},
        "block": "true\n",
    }


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(40))
DEEP = "\n".join(f"a{n}: &a{n} {'[' * 30}{f'*a{n - 1}' if n else 1}{']' * 30}" for n in range(9))
MERGES = "a0: &a0 {x0: 1}\n" + "".join(f"a{n + 1}: &a{n + 1} {{<<: [*a{n}, *a{n}], x{n + 1}: 1}}\n" for n in range(40))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"[1]", "holds list"),
        (b"", "holds NoneType"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested more than 64"),
        (b"a: " + b"[" * 5_000 + b"]" * 5_000, "nested more than 64"),
        (b"{" * 100_000, "nested more than 64"),
        (b'{"a": ["\\ud83d\\ude00", "\\ud83d"]}', "half of a surrogate pair"),
        (b'{"\\udc00": 1}', "half of a surrogate pair"),
        (LAUGHS.encode(), "aliases written out"),
        (MERGES.encode(), "aliases written out"),
        (DEEP.encode(), "with its aliases written out, nested more than 64 levels deep"),
        (b"a: &a [*a]", "has no anchor above it"),
        (b"a: *b", "neither JSON nor YAML|has no anchor"),
        (b"a: 1\na: 2", "line 2: 'a' is given twice"),
        (b"? [a]\n: 1", "a name must be a word"),
        (b"a: 1\n---\nb: 1", "a second document"),
        (b"a: 'x", "neither JSON nor YAML"),
        (b"{" + b",".join(b'"%d": 1' % n for n in range(500_000)) + b"}", "more than 400,000 values"),
        (b" " * (9 << 20), "larger than"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_wrong_with_a_document_is_said(data: bytes, said: str) -> None:
    with pytest.raises(ToolError, match=said):
        print(parse_document(data, "x"))


def test_pairs_of_surrogates_are_characters() -> None:
    assert parse_document(rb'{"a": "\ud83d\ude00", "b": "\\ud83d"}', "x") == {"a": "😀", "b": r"\ud83d"}


def test_many_objects_are_merged_in_one_pass() -> None:
    """Of one name, the first of the list holds; to copy what is there for each of them would take hours."""
    parts = "".join(f"m{n}: &m{n} {{k{n}a: {n}, k{n}b: {n}, same: {n}}}\n" for n in range(25_000))
    text = f"{parts}all: {{<<: [{', '.join(f'*m{n}' for n in range(25_000))}], own: x}}\n"
    merged = parse_document(text.encode(), "x")["all"]
    assert len(merged) == 50_002
    assert (merged["same"], merged["k24999b"], merged["own"]) == (0, 24_999, "x")


def test_tags_are_not_obeyed() -> None:
    found = parse_document(b"a: !!python/object/apply:os.system [echo]\nb: !!int '3'", "x")
    assert found == {"a": ["echo"], "b": "3"}


def test_files_are_regular_and_bounded(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, said in (
        (pipe, "not a regular file"),
        (tmp_path / "none", "No such file"),
        (tmp_path, "directory|regular"),
    ):
        with pytest.raises(ToolError, match=said):
            read_document(path)
    with pytest.raises(ToolError, match="not the name of a file"):
        read_document(Path("a\0b"))
    (tmp_path / "a.yaml").write_text("名称: 天气", "utf-8")
    assert read_document(tmp_path / "a.yaml") == {"名称": "天气"}


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEATHER_TOKEN", "s3cret")
    used: set[str] = set()
    assert from_environment("Bearer ${WEATHER_TOKEN} $HOME", "x", used) == "Bearer s3cret $HOME"
    assert used == {"s3cret"}
    monkeypatch.delenv("WEATHER_TOKEN")
    with pytest.raises(ToolError, match="no WEATHER_TOKEN"):
        from_environment("${WEATHER_TOKEN}", "x", used)
