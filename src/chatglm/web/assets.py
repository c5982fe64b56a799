"""The page's own files: styles, scripts, pictures. Their address has a hash of all of them, so that a browser can
keep them for ever, and modules that import one another by relative paths always have the same version."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response

__all__ = ["Assets"]

_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "ico": "image/x-icon",
    "webmanifest": "application/manifest+json",
}


@dataclass(frozen=True)
class _File:
    kind: str
    data: bytes
    packed: bytes


class Assets:
    """The files of `web/static`, in memory."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        total = hashlib.sha256()
        for entry in sorted(resources.files("chatglm.web").joinpath("static").iterdir(), key=lambda entry: entry.name):
            kind = _TYPES.get(entry.name.rpartition(".")[2])
            if kind is None or not entry.is_file():
                continue
            data = entry.read_bytes()
            total.update(f"{entry.name}\0{len(data)}\0".encode() + data)
            self._files[entry.name] = _File(kind, data, gzip.compress(data, 9, mtime=0))
        self.version = total.hexdigest()[:12]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._files)

    def path(self, name: str) -> str:
        """The path of the files, relative to the page's address."""
        return f"static/{self.version}/{name}"

    def respond(self, request: Request, version: str, name: str) -> Response | None:
        """The response; None: there is no such file. Browsers do not keep files of another version's address."""
        file = self._files.get(name)
        if file is None:
            return None
        same = version == self.version
        headers = {"Cache-Control": "public, max-age=31536000, immutable" if same else "no-store"}
        body = file.data
        if "gzip" in request.headers.get("accept-encoding", "") and len(file.packed) < len(file.data):
            body, headers["Content-Encoding"] = file.packed, "gzip"
        headers["Vary"] = "Accept-Encoding"
        return Response(body, headers=headers, media_type=file.kind)
