"""Files of requests into bases: forms to disk as they come, names that lead nowhere else, room that is bounded."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from fastapi import Request, Response

from chatglm.errors import InputError
from chatglm.knowledge import Base, Shelf, Upload, bounds
from chatglm.knowledge.store import File
from chatglm.serving import bodies
from chatglm.serving.access.callers import check_origin
from chatglm.serving.service import Service
from chatglm.serving.stored.uploads import FORM_BYTES, Form, receive_all

__all__ = ["add_files", "attachment", "contents_of", "form_of"]

AT_ONCE = 100
"""Files of a form."""


async def form_of(
    request: Request, service: Service, folder: Path, file_field: str, fields: Collection[str] = ()
) -> Form:
    """A form with files, which go to a folder.

    Args:
        fields: that it may have besides.

    Raises:
        ForbiddenError: a page sends it that may not use the server; browsers send forms without asking first.
        BodyError: it is not a form, has no file, or is too large or too slow.
        InputError: it has other fields.
    """
    check_origin(request.headers, service.origins)
    slow = service.files.limits
    limits = replace(service.limits, body=bounds.UPLOAD_BYTES + FORM_BYTES, seconds=slow.seconds, rate=slow.rate)
    paths = [folder / str(number) for number in range(AT_ONCE)]
    form = await receive_all(request, bodies.parts(request, limits), paths, file_field)
    for field in form.fields:
        if field not in fields:
            known = ", ".join((file_field, *fields))
            raise InputError(f"{field[:80]}: unknown field of the form; it has {known}")
    return form


def contents_of(form: Form) -> dict[str, bytes]:
    """The files of a form by name.

    Raises:
        InputError: a name is none, or two files have one.
    """
    found: dict[str, bytes] = {}
    for part in form.files:
        name = bounds.file_name(part.name)
        if name in found:
            raise InputError(f"file: two files of the form have the name {name!r:.80}; rename one")
        found[name] = part.path.read_bytes()
    return found


def add_files(shelf: Shelf, base: Base, contents: Mapping[str, bytes], *, wait: bool = False) -> list[File]:
    """Queue files to be read in the background; what is there unchanged is left alone.

    Args:
        wait: until they are read and can be found.

    Raises:
        RoomError: the base has no room for them.
        QueueFullError: too many of its files wait to be read.
    """
    shelf.check_room(base, {name: len(content) for name, content in contents.items()})
    base.add(*(Upload(name, content) for name, content in contents.items()), wait=wait)
    return [base.store.find(name) for name in contents]


def attachment(name: str, content: bytes, *, inline: bool = False) -> Response:
    """A file of a base for a client to store, or with `inline` to show as text. No browser takes it for a page.

    Args:
        name: of the file; folders of it are left out.
    """
    how = "inline" if inline else "attachment"
    headers = {
        "Content-Disposition": f"{how}; filename*=UTF-8''{quote(PurePosixPath(name).name, safe='')}",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    return Response(content, headers=headers, media_type="application/octet-stream")
