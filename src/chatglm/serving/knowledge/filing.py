"""Uploads of files into bases, and downloads. Forms are written to disk as they arrive; names and sizes are checked."""

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
"""Largest number of files in one form."""


async def form_of(
    request: Request, service: Service, folder: Path, file_field: str, fields: Collection[str] = ()
) -> Form:
    """Receive a form with files. The files are written into a folder.

    Args:
        request: the request with the form.
        service: has the limits and the allowed origins.
        folder: the folder for the files. The caller deletes it.
        file_field: the name of the form field that has the files.
        fields: names of other fields that the form may have.

    Raises:
        ForbiddenError: the request comes from a web page that may not use the server. This is checked here because
            browsers send forms to other servers without asking first (no CORS preflight).
        BodyError: it is not a form, has no file, or is too large or too slow.
        InputError: the form has a field that is not in `fields`.
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
    """The contents of the files of a form, by their names in a base.

    Raises:
        InputError: a name is not valid (`bounds.file_name`), or two files have the same name.
    """
    found: dict[str, bytes] = {}
    for part in form.files:
        name = bounds.file_name(part.name)
        if name in found:
            raise InputError(f"file: two files of the form have the name {name!r:.80}; rename one")
        found[name] = part.path.read_bytes()
    return found


def add_files(shelf: Shelf, base: Base, contents: Mapping[str, bytes], *, wait: bool = False) -> list[File]:
    """Add uploaded files to a base. They are indexed in the background. Unchanged files stay as they are.

    Args:
        shelf: checks the limits.
        base: the base.
        contents: the contents of the files, by name.
        wait: wait until the files are indexed.

    Returns:
        the files with their states in the base.

    Raises:
        RoomError: the base, or all bases of its owner together, would become too large.
        QueueFullError: too many files of the base wait to be read.
    """
    shelf.check_room(base, {name: len(content) for name, content in contents.items()})
    base.add(*(Upload(name, content) for name, content in contents.items()), wait=wait)
    return [base.store.find(name) for name in contents]


def attachment(name: str, content: bytes, *, inline: bool = False) -> Response:
    """A response with a file of a base. Its headers keep a browser from running the file as a web page.

    Args:
        name: the name of the file in the base. Only the part after the last `/` is sent.
        content: the content of the file.
        inline: let the client show the file instead of saving it.
    """
    how = "inline" if inline else "attachment"
    headers = {
        "Content-Disposition": f"{how}; filename*=UTF-8''{quote(PurePosixPath(name).name, safe='')}",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    return Response(content, headers=headers, media_type="application/octet-stream")
