"""Forms with a file (`multipart/form-data`): the file goes to disk as it arrives, and nothing else is large."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from chatglm.errors import OutputError
from chatglm.serving.bodies import BodyError

__all__ = ["FORM_BYTES", "Upload", "receive"]

FORM_BYTES = 64 << 10
"""Of a form, besides its file."""

_FIELDS = 16
_FIELD_BYTES = 4096
_WRITE_BYTES = 1 << 20


@dataclass
class Upload:
    """
    Attributes:
        fields: the other fields of the form.
        name: of the file, as the client gave it; None: the form has no file.
        size: bytes of the file.
    """

    fields: dict[str, str] = field(default_factory=dict)
    name: str | None = None
    size: int = 0


class _Form:
    """What the parser of a form calls."""

    def __init__(self) -> None:
        self.upload = Upload()
        self.pending = bytearray()  # of the file
        self._header, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._field: str | None = None
        self._text = bytearray()
        self._parts = 0
        self.whole = False

    def on_part_begin(self) -> None:
        self._headers = {}
        self._parts += 1
        if self._parts > _FIELDS:
            raise BodyError(f"the form has more than {_FIELDS} fields", "too_many_items")

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header, self._value = b"", b""

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" in options or name == "file":
            if name != "file":
                raise BodyError(f"the form has a file in the field {name[:80]!r}; send one, in the field 'file'")
            if self.upload.name is not None:
                raise BodyError("the form has more than one file; send each by itself", param="file")
            self.upload.name = options.get(b"filename", b"").decode("utf-8", "replace")
            self._field = None
        else:
            if name in self.upload.fields:
                raise BodyError(f"the form has the field {name[:80]!r} twice; remove one")
            self._field = name
            self._text = bytearray()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self.pending += data[start:end]
            return
        self._text += data[start:end]
        if len(self._text) > _FIELD_BYTES:
            raise BodyError(f"{self._field[:80]}: too long; at most {_FIELD_BYTES:,} bytes", "too_large")

    def on_part_end(self) -> None:
        if self._field is not None:
            try:
                self.upload.fields[self._field] = self._text.decode()
            except UnicodeDecodeError:
                raise BodyError(f"{self._field[:80]}: not UTF-8", "bad_encoding") from None

    def on_end(self) -> None:
        self.whole = True


async def receive(request: Request, parts: AsyncIterator[bytes], file: Path) -> Upload:
    """Write the form's file; the path is free before. If anything goes wrong, there is no file.

    Args:
        parts: the body.

    Raises:
        BodyError: it is no form, has no file, or is too large or too slow.
        ClientDisconnect: the client left.
        OutputError: the disk is full.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise BodyError("the body must be a form with a file (Content-Type: multipart/form-data)")
    form = _Form()
    try:
        parser = MultipartParser(
            boundary,
            {  # type: ignore[arg-type,misc]
                name: getattr(form, name) for name in dir(_Form) if name.startswith("on_")
            },
        )
    except FormParserError as error:
        raise _no_form(error) from None
    descriptor = _opened(file)
    try:
        async for part in parts:
            try:
                parser.write(part)
            except FormParserError as error:
                raise _no_form(error) from None
            if len(form.pending) >= _WRITE_BYTES:
                await _write(descriptor, form, file)
        if not form.whole:
            raise BodyError("the form is cut off: its last boundary is missing")
        if form.upload.name is None:
            raise BodyError("file: required; the form has no file", "missing", param="file")
        await _write(descriptor, form, file, sync=True)
    except BaseException:
        with contextlib.suppress(OSError):
            file.unlink()
        raise
    finally:
        os.close(descriptor)
    return form.upload


def _no_form(error: FormParserError) -> BodyError:
    return BodyError(f"the body is not a form (multipart/form-data): {str(error)[:200]}")


def _opened(file: Path) -> int:
    try:
        return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise OutputError(f"{file}: cannot be written ({error.strerror})") from None


async def _write(descriptor: int, form: _Form, file: Path, sync: bool = False) -> None:
    content, form.pending = form.pending, bytearray()

    def write() -> None:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
        if sync:
            os.fsync(descriptor)

    try:
        await asyncio.to_thread(write)
    except OSError as error:
        raise OutputError(f"{file}: cannot be written ({error.strerror}); make room") from None
    form.upload.size += len(content)
