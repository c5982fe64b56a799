"""A server of the hub's HTTP protocol, as far as a download needs it, with faults on demand.

The protocol: `GET /api/models/ID/revision/REVISION?blobs=True` lists files, and `/tree/` does; `HEAD` and
`GET /ID/resolve/REVISION/FILE` answer with ETag and X-Repo-Commit, for large files with X-Linked-Size, X-Linked-Etag
and a redirect to a store, which obeys Range. An id that was renamed answers 307.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

LARGE = 1000
"""From so many bytes on a file is kept in the store, as with Git LFS."""


def commit_of(files: dict[str, bytes]) -> str:
    return hashlib.sha1(repr(sorted((n, hashlib.sha1(b).hexdigest()) for n, b in files.items())).encode()).hexdigest()


def digest_of(content: bytes) -> str:
    if len(content) >= LARGE:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class FakeHub:
    """What the server has, what it was asked, and what goes wrong."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    """Those whose files, but not their names, are for clients with a token."""
    branches: dict[str, dict[str, bytes]] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    cut: dict[str, int] = field(default_factory=dict)
    """File: after so many bytes of one answer the connection is cut."""
    cuts: int = 0
    """How many more times."""
    held: dict[str, threading.Event] = field(default_factory=dict)
    """File: its second half waits for this."""
    longer: set[str] = field(default_factory=set)
    """Files that do not end where they should."""
    damaged: dict[str, int] = field(default_factory=dict)
    """File: how many more times its bytes arrive wrong."""
    ranges: bool = True
    down: bool = False
    address: str = ""
    store: str = ""
    """Where large files are: another origin, as at the hub."""

    def add(self, name: str, folder: Path, *without: str, **more: bytes) -> None:
        files = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
        self.repositories[name] = {**{n: b for n, b in files.items() if n not in without}, **more}

    def asked(self, word: str) -> list[tuple[str, str, dict[str, str]]]:
        return [entry for entry in self.requests if word in entry[1]]

    def bytes_of(self, name: str) -> int:
        """Bytes that were asked for of a file of the store, by the ranges."""
        total = 0
        for content in (files[name] for files in self.repositories.values() if name in files):
            for _, _, headers in self.asked(f"/store/{digest_of(content)}"):
                total += len(content) - int(re.findall(r"\d+", headers.get("range", "bytes=0-"))[0])
        return total


@contextlib.contextmanager
def fake_hub() -> Iterator[FakeHub]:
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            headers = {key.lower(): value for key, value in self.headers.items()}
            hub.requests.append((self.command, path, headers))
            if hub.down:
                return self.answer(503, b"down")
            if path.startswith("/store/"):
                return self.store(path.rsplit("/", 1)[1], headers)
            for old, new in hub.renamed.items():
                if f"{path}/".startswith((f"/api/models/{old}/", f"/{old}/")):
                    return self.answer(307, b"", Location=path.replace(old, new, 1))
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path):
                return self.listing(match[1], match[3] or "main", tree=match[2] == "tree")
            if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                return self.file(*match.groups())
            return self.answer(404, b"not found")

        def files(self, name: str, revision: str, gate: bool = False) -> dict[str, bytes] | None:
            if name not in hub.repositories:
                self.answer(401, b"", **{"X-Error-Code": "RepoNotFound"})
                return None
            if gate and name in hub.gated and "authorization" not in map(str.lower, self.headers):
                self.answer(401, b"", **{"X-Error-Code": "GatedRepo"})
                return None
            files = hub.repositories[name]
            if revision not in ("main", commit_of(files)):
                files = hub.branches.get(revision) or next(
                    (held for held in hub.branches.values() if commit_of(held) == revision), {}
                )
            if not files:
                self.answer(404, b"", **{"X-Error-Code": "RevisionNotFound"})
                return None
            return files

        def listing(self, name: str, revision: str, tree: bool) -> None:
            if (files := self.files(name, revision)) is None:
                return None
            if tree:
                entries: list[dict[str, Any]] = []
                for file, content in files.items():
                    entries.append({"type": "file", "path": file, "size": len(content), "oid": "0" * 40})
                    if len(content) >= LARGE:
                        entries[-1]["lfs"] = {"oid": digest_of(content), "size": len(content), "pointerSize": 130}
                return self.answer(200, json.dumps(entries).encode(), **{"Content-Type": "application/json"})
            siblings = []
            for file, content in files.items():
                entry: dict[str, Any] = {"rfilename": file, "size": len(content)}
                entry["blobId"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
                if len(content) >= LARGE:
                    entry["blobId"] = "0" * 40  # of the pointer
                    entry["lfs"] = {"sha256": digest_of(content), "size": len(content), "pointerSize": 130}
                siblings.append(entry)
            about = {"id": name, "modelId": name, "sha": commit_of(files), "siblings": siblings, "private": False}
            return self.answer(200, json.dumps(about).encode(), **{"Content-Type": "application/json"})

        def file(self, name: str, revision: str, file: str) -> None:
            if (files := self.files(name, revision, gate=True)) is None:
                return None
            if file not in files:
                return self.answer(404, b"", **{"X-Error-Code": "EntryNotFound"})
            content = files[file]
            about = {"ETag": f'"{digest_of(content)}"', "X-Repo-Commit": commit_of(files)}
            if len(content) < LARGE:
                return self.part(content, about, file)
            about |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": about["ETag"]}
            return self.answer(302, b"", Location=f"{hub.store}/store/{digest_of(content)}", **about)

        def store(self, digest: str, headers: dict[str, str]) -> None:
            found = [
                (file, content)
                for files in (*hub.repositories.values(), *hub.branches.values())
                for file, content in files.items()
                if digest_of(content) == digest
            ]
            file, content = found[0]
            if hub.damaged.get(file, 0):
                hub.damaged[file] -= 1
                content = content[:-3] + b"xxx"
            self.part(content + b"more" * (file in hub.longer), {}, file)

        def part(self, content: bytes, about: dict[str, str], file: str) -> None:
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if asked is None or not hub.ranges:
                return self.answer(200, content, file, **about)
            start = int(asked[1])
            about["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            return self.answer(206, content[start:], file, **about)

        def answer(self, status: int, content: bytes, file: str = "", **headers: str) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if file in hub.cut and hub.cuts > 0 and len(content) > hub.cut[file]:
                hub.cuts -= 1
                self.wfile.write(content[: hub.cut[file]])
                self.wfile.flush()
                self.close_connection = True
                return
            if file in hub.held:
                half = len(content) // 2
                self.wfile.write(content[:half])
                self.wfile.flush()
                hub.held[file].wait(120)
                content = content[half:]
            with contextlib.suppress(ConnectionError):  # a client that was killed
                self.wfile.write(content)

    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
    hub.address, hub.store = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True) for server in servers]
    for server, thread in zip(servers, threads, strict=True):
        server.daemon_threads = True
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join(10)
