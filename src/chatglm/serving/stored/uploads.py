"""Forms with files (`multipart/form-data`): files are written to disk as they arrive; other fields are small."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from chatglm.errors import OutputError
from chatglm.serving.bodies import BodyError

__all__ = ["FORM_BYTES", "Form", "Upload", "receive", "receive_all"]

FORM_BYTES = 64 << 10
"""Most bytes of a form without its files."""

_FIELDS = 16
_FIELD_BYTES = 4096
_WRITE_BYTES = 1 << 20


@dataclass
class Upload:
    """A form with one file.

    Attributes:
        fields: the other fields of the form.
        name: of the file, as the client gave it; None: the form has no file.
        size: bytes of the file.
    """

    fields: dict[str, str] = field(default_factory=dict)
    name: str | None = None
    size: int = 0


@dataclass
class Part:
    """A file of a form.

    Attributes:
        name: as the client gave it.
        size: bytes.
        path: where it is now.
        how: mode in which it is opened for the next bytes; the first bytes create it, and never overwrite a file.
    """

    name: str
    path: Path
    size: int = 0
    how: int = os.O_CREAT | os.O_EXCL


@dataclass
class Form:
    """
    Attributes:
        fields: the fields that are not files.
        files: in the order of the form.
    """

    fields: dict[str, str] = field(default_factory=dict)
    files: list[Part] = field(default_factory=list)


class _Reader:
    """Callbacks of the parser of a form.

    Args:
        paths: where files go, one after the other; there may be as many files.
        file_field: name of the field that files come in.
        check: called with the name of each file, before its content is read.
    """

    def __init__(self, paths: Sequence[Path], file_field: str, check: Callable[[str], object] | None) -> None:
        self._paths, self._file_field, self._check = paths, file_field, check
        self.form = Form()
        self.pending: list[tuple[Part, bytearray]] = []  # of files
        self._header, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._field: str | None = None
        self._text = bytearray()
        self._fields = 0
        self.whole = False

    def on_part_begin(self) -> None:
        self._headers = {}

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
        if b"filename" in options or name == self._file_field:
            if name != self._file_field:
                wanted = (
                    f"send one, in the field {self._file_field!r}"
                    if len(self._paths) == 1
                    else (f"send files in the field {self._file_field!r}")
                )
                raise BodyError(f"the form has a file in the field {name[:80]!r}; {wanted}")
            if len(self.form.files) == len(self._paths):
                most = "more than one file; send each by itself"
                if len(self._paths) > 1:
                    most = f"more than {len(self._paths)} files; send them in several requests"
                raise BodyError(f"the form has {most}", param=self._file_field)
            part = Part(options.get(b"filename", b"").decode("utf-8", "replace"), self._paths[len(self.form.files)])
            if self._check is not None:
                self._check(part.name)
            self.form.files.append(part)
            self.pending.append((part, bytearray()))
            self._field = None
        else:
            self._fields += 1
            if self._fields > _FIELDS:
                raise BodyError(f"the form has more than {_FIELDS} fields", "too_many_items")
            if name in self.form.fields:
                raise BodyError(f"the form has the field {name[:80]!r} twice; remove one")
            self._field = name
            self._text = bytearray()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self.pending[-1][1].extend(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > _FIELD_BYTES:
            raise BodyError(f"{self._field[:80]}: too long; at most {_FIELD_BYTES:,} bytes", "too_large")

    def on_part_end(self) -> None:
        if self._field is not None:
            try:
                self.form.fields[self._field] = self._text.decode()
            except UnicodeDecodeError:
                raise BodyError(f"{self._field[:80]}: not UTF-8", "bad_encoding") from None

    def on_end(self) -> None:
        self.whole = True


async def receive(
    request: Request, parts: AsyncIterator[bytes], file: Path, *, check: Callable[[str], object] | None = None
) -> Upload:
    """Write the form's one file, which is its field `file`; the path is free before. If anything goes wrong, there is
    no file.

    Args:
        parts: the body.
        check: called with the file's name, before its content is read; raises an error if the name cannot be used.

    Raises:
        BodyError: it is not a form, has no file, or is too large or too slow.
        ClientDisconnect: the client left.
        OutputError: the disk is full.
    """
    form = await receive_all(request, parts, [file], sync=True, check=check)
    return Upload(form.fields, form.files[0].name, form.files[0].size)


async def receive_all(
    request: Request,
    parts: AsyncIterator[bytes],
    paths: Sequence[Path],
    file_field: str = "file",
    *,
    sync: bool = False,
    check: Callable[[str], object] | None = None,
) -> Form:
    """`receive` for forms with several files.

    Args:
        paths: where the files go; there may be as many as there are paths.
        file_field: the field that they come in.
        sync: return when all is on the disk.
        check: as for `receive`.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise BodyError("the body must be a form with a file (Content-Type: multipart/form-data)")
    reader = _Reader(paths, file_field, check)
    try:
        parser = MultipartParser(
            boundary,
            {  # type: ignore[arg-type,misc]
                name: getattr(reader, name) for name in dir(_Reader) if name.startswith("on_")
            },
        )
    except FormParserError as error:
        raise _no_form(error) from None
    try:
        async for data in parts:
            try:
                parser.write(data)
            except FormParserError as error:
                raise _no_form(error) from None
            if sum(len(content) for _, content in reader.pending) >= _WRITE_BYTES:
                await _write(reader)
        if not reader.whole:
            raise BodyError("the form is cut off: its last boundary is missing")
        if not reader.form.files:
            raise BodyError(f"{file_field}: required; the form has no file", "missing", param=file_field)
        await _write(reader, sync)
    except BaseException:
        for part in reader.form.files:
            if not part.how:
                with contextlib.suppress(OSError):
                    part.path.unlink()
        raise
    return reader.form


def _no_form(error: FormParserError) -> BodyError:
    return BodyError(f"the body is not a form (multipart/form-data): {str(error)[:200]}")


async def _write(reader: _Reader, sync: bool = False) -> None:
    """Append the received bytes to the files.

    Args:
        sync: and wait until it is on the disk.
    """
    waiting = reader.pending
    reader.pending = [(waiting[-1][0], bytearray())] if waiting else []

    def write() -> None:
        for part, content in waiting:
            descriptor = os.open(part.path, os.O_WRONLY | os.O_APPEND | part.how, 0o600)
            part.how = 0
            try:
                left = memoryview(content)
                while left:
                    written = os.write(descriptor, left)
                    part.size += written
                    left = left[written:]
                if sync:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)

    try:
        await asyncio.to_thread(write)
    except OSError as error:
        raise OutputError(f"{waiting[0][0].path}: cannot be written ({error.strerror}); free disk space") from None
