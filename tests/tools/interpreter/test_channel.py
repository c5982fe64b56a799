"""Frames of a kernel, which may send anything."""

from __future__ import annotations

import contextlib
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatglm.errors import SandboxError
from chatglm.tools.interpreter.channel import BODY, HEADER, Frames, frame


def packed(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">II", len(header), len(body)) + header + body


@given(
    messages=st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=50)), max_size=6),
    cuts=st.lists(st.integers(1, 40), min_size=1),
    keep=st.integers(0, 50),
)
def test_frames_do_not_depend_on_how_the_stream_is_cut(
    messages: list[tuple[str, bytes]], cuts: list[int], keep: int
) -> None:
    stream = b"".join(packed(json.dumps({"kind": "x", "text": text}).encode(), body) for text, body in messages)
    frames, found = Frames(keep), []
    while stream:
        for cut in cuts:
            found += list(frames.feed(stream[:cut]))
            stream = stream[cut:]
    assert [(f.kind, f.fields["text"], f.size) for f in found] == [("x", text, len(body)) for text, body in messages]
    assert [f.body for f in found] == [body if len(body) <= keep else b"" for _, body in messages]


def test_what_the_host_sends_can_be_read() -> None:
    (read,) = Frames(0).feed(frame("run", code="print('中\ud800')", number=3))
    assert (read.kind, read.fields) == ("run", {"code": "print('中\ud800')", "number": 3})


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">II", 0xFFFFFFFF, 0),
        struct.pack(">II", HEADER + 1, 0),
        struct.pack(">II", 2, BODY + 1),
        packed(b"[" * 60_000),
        packed(b"\xff\xfe"),
        packed(b"[]"),
        packed(b"{}"),
        packed(b'{"kind": 3}'),
        packed(b'{"kind": "x", "n": ' + b"9" * 50_000 + b"}"),
    ],
)
def test_what_is_no_frame_is_refused_before_it_is_kept(data: bytes) -> None:
    with pytest.raises(SandboxError, match="kernel"):
        list(Frames(1 << 20).feed(data))


@given(st.binary(max_size=200))
def test_noise_is_frames_or_an_error(data: bytes) -> None:
    with contextlib.suppress(SandboxError):
        list(Frames(100).feed(data))
