"""Files that contain cards: JSON in the text chunks of a PNG picture, or `card.json` in a zip file (`.charx`).

A card may come from anybody. So sizes are limited before the work begins, checksums are checked, and pictures are never
decoded.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chatglm.chat.files import parse_json
from chatglm.errors import CheckpointError, InputError

__all__ = ["MOST_BYTES", "PNG", "ZIP", "json_object", "png_with", "split_png", "zip_card"]

MOST_BYTES = 8 << 20
"""Most bytes of a file."""

PNG, ZIP = b"\x89PNG\r\n\x1a\n", b"PK"

_MOST_JSON = 4 << 20
_MOST_IN_ZIP = 1 << 20
_MOST_DIRECTORY = 1 << 20  # bytes of a zip file's directory
_MOST_CHUNKS = 4096
_KEYWORDS = (b"ccv3", b"chara")  # of V3; of V1 and V2. If both are there, the first is read.


def json_object(data: bytes, where: str) -> dict[str, Any]:
    """Read a JSON object in UTF-8, of limited size and depth.

    Raises:
        InputError: it is not such an object; the message begins with `where`.
    """
    if len(data) > _MOST_JSON:
        raise InputError(f"{where}: its JSON is larger than {_MOST_JSON:,} bytes")
    try:
        return parse_json(data.removeprefix(b"\xef\xbb\xbf"), Path(where))
    except CheckpointError as error:
        raise InputError(str(error).partition("; download")[0]) from None


def split_png(data: bytes, where: str) -> tuple[bytes, dict[str, Any]]:
    """Split a PNG file into the picture without its card, and the card's JSON.

    Format: https://www.w3.org/TR/png-3/#5Chunk-layout; cards are base64 of JSON in `tEXt`, `iTXt` or `zTXt`.

    Raises:
        InputError: it is not a complete PNG file, or has no card.
    """
    picture, cards, unpacked = [PNG], dict[bytes, bytes](), 0
    for kind, body, raw in _chunks(data, where):
        keyword, found, _ = body[:80].partition(b"\0")
        if kind not in (b"tEXt", b"iTXt", b"zTXt") or not found or keyword.lower() not in _KEYWORDS:
            picture.append(raw)
            continue
        text = _text(kind, body[len(keyword) + 1 :], where)
        unpacked += len(text)
        if unpacked > 4 * _MOST_JSON:
            raise InputError(f"{where}: its cards have more than {4 * _MOST_JSON:,} bytes together")
        if cards.setdefault(keyword.lower(), text) != text:
            raise InputError(f"{where}: it has two different cards with the name {keyword.decode('ascii')}")
    for keyword in _KEYWORDS:
        if keyword in cards:
            try:
                decoded = base64.b64decode(b"".join(cards[keyword].split()), validate=True)
            except binascii.Error:
                raise InputError(f"{where}: the card in the picture is not base64") from None
            return b"".join(picture), json_object(decoded, where)
    raise InputError(f"{where}: a picture without a card (no text chunk ccv3 or chara)")


def png_with(picture: bytes, cards: Mapping[str, Mapping[str, Any]], where: str) -> bytes:
    """Add cards, given by keyword, at the end of a PNG file.

    Raises:
        InputError: the picture is not a complete PNG file.
    """
    parts = [raw for _, _, raw in _chunks(picture, where)]
    for keyword, card in cards.items():
        body = keyword.encode() + b"\0" + base64.b64encode(json.dumps(card, ensure_ascii=False).encode())
        parts.insert(-1, _chunk(b"tEXt", body))
    return PNG + b"".join(parts)


def zip_card(data: bytes, where: str) -> dict[str, Any]:
    """Read `card.json` of a zip file. Nothing else in the file is read.

    Raises:
        InputError: it is not such a file, or its JSON is larger than a megabyte.
    """
    end = data.rfind(b"PK\5\6", max(0, len(data) - (1 << 16) - 22))
    record = data[end : end + 22] if end >= 0 else b""
    # zipfile reads the whole directory first. In a zip64 file that can have any size.
    if len(record) < 22 or data[max(0, end - 20) : end].startswith(b"PK\6\7"):
        raise InputError(f"{where}: not a complete zip file, or a zip64 file")
    if struct.unpack_from("<I", record, 12)[0] > _MOST_DIRECTORY:
        raise InputError(f"{where}: holds too many files")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = [info for info in archive.infolist() if info.filename == "card.json"]
            if len(found) != 1:
                raise InputError(f"{where}: holds {len(found)} files of the name card.json, where one is expected")
            # zipfile does not limit the size when it unpacks other methods.
            if found[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise InputError(f"{where}: card.json has an unsupported compression; use deflate")
            with archive.open(found[0]) as stream:
                card = stream.read(_MOST_IN_ZIP + 1)
    except InputError:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        LookupError,
    ) as e:
        raise InputError(f"{where}: not a complete zip file ({type(e).__name__})") from None
    if len(card) > _MOST_IN_ZIP:
        raise InputError(f"{where}: card.json is larger than {_MOST_IN_ZIP:,} bytes")
    return json_object(card, where)


def _chunks(data: bytes, where: str) -> list[tuple[bytes, bytes, bytes]]:
    """Type, body and all bytes of each chunk, up to IEND."""
    if not data.startswith(PNG):
        raise InputError(f"{where}: not a PNG file")
    found: list[tuple[bytes, bytes, bytes]] = []
    at = len(PNG)
    while len(found) < _MOST_CHUNKS:
        if at + 12 > len(data):
            raise InputError(f"{where}: the PNG file is cut short; its last chunk is missing")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise InputError(f"{where}: the PNG file is cut short in the chunk {kind!r}")
        if zlib.crc32(data[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise InputError(f"{where}: the PNG file is damaged (the checksum of its chunk {kind!r} is wrong)")
        if not found and kind != b"IHDR":
            raise InputError(f"{where}: the PNG file does not begin with its header")
        found.append((kind, data[at + 8 : end - 4], data[at:end]))
        if kind == b"IEND":
            return found
        at = end
    raise InputError(f"{where}: the PNG file has more than {_MOST_CHUNKS:,} chunks")


def _text(kind: bytes, rest: bytes, where: str) -> bytes:
    """The text of a chunk, from the bytes after its keyword."""
    packed = kind == b"zTXt"
    if kind == b"zTXt":
        rest = rest[1:]
    elif kind == b"iTXt":
        packed = rest[:1] == b"\1"
        *_, rest = rest[2:].split(b"\0", 2)  # language and translated keyword
    if not packed:
        return rest
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(rest, 2 * _MOST_JSON)
    except zlib.error:
        raise InputError(f"{where}: the card in the picture cannot be unpacked") from None
    if inflate.unconsumed_tail or not inflate.eof:
        raise InputError(f"{where}: the card in the picture is cut short, or larger than {2 * _MOST_JSON:,} bytes")
    return text


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
