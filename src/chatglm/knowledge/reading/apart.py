"""Read documents in separate worker processes, so that a bad document cannot crash or block this process.

Parsers of complex formats may use unlimited time or memory, or crash. So a worker process reads the documents, one
after the other. Its memory is limited, and it must not write files, open connections or start programs. It receives the
bytes of a document and answers with text and numbers. If it dies or is too slow, the document is refused with an error,
and the next document gets a new worker. Plain text up to 4 MiB is read in this process, which costs less than a pipe.

This module also runs inside the worker (`work`).
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import select
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Literal

from chatglm.errors import ChatGLMError, DependencyError, InputError, QueueFullError, UnsupportedError
from chatglm.knowledge.encodings import ByteMap
from chatglm.knowledge.reading.documents import Limits, Reading
from chatglm.knowledge.reading.kinds import TEXT_ENDINGS, bytes_of, kind_of, read

__all__ = ["Ocr", "Readers", "ReadingError", "read_apart", "work"]

Ocr = bool | Literal["auto", "always", "never"]

_PATIENCE = 600.0
"""How long to wait for a free worker, in seconds."""
_START = 120.0
"""How long a new worker may take until its first message, in seconds. On a very busy machine the start is slow."""
_HERE = 4 << 20
"""Largest size of a text file that is read in this process, in bytes. A larger file would block other threads
for too long."""
_DOCUMENTS = 500
"""Number of documents after which a worker is replaced. This frees memory that libraries have leaked."""
_IDLE = 30.0
"""Seconds after which an idle worker ends."""
_SECRET = re.compile("KEY|TOKEN|SECRET|PASS|CREDENTIAL", re.IGNORECASE)
"""Environment variables that a worker does not get: a document that exploits its parser must find no keys."""
_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from chatglm.knowledge.reading.apart import work; work(int(sys.argv[2]))"
)
_MODES: dict[Ocr, bool | Literal["auto"]] = {True: True, False: False, "auto": "auto", "always": True, "never": False}
_ERRORS: dict[str, type[ChatGLMError]] = {
    each.__name__: each for each in (InputError, UnsupportedError, DependencyError)
}


class ReadingError(InputError):
    """The worker process died or was stopped while it read a document. Another try may succeed."""


class Readers:
    """A pool of worker processes that read documents. Any number of threads may use it. Workers start when needed.

    Args:
        limits: limits for each document; None: the default limits.
        workers: largest number of workers at a time.
    """

    def __init__(self, limits: Limits | None = None, workers: int = 2) -> None:
        self.limits = limits or Limits()
        self._free: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        self._started: set[_Worker] = set()
        for _ in range(workers):
            self._free.put(None)
        self._end = weakref.finalize(self, _end_all, self._started, os.getpid())

    def read(self, source: Path | BinaryIO | bytes, name: str, ocr: Ocr = "auto") -> Reading:
        """Read a document like `kinds.read`, but within the limits of time and memory.

        With OCR, each page may take `limits.seconds`.

        Args:
            source: the file, or its bytes.
            name: the name of the file.
            ocr: see `kinds.read`; "always" means True, "never" means False.

        Raises:
            InputError: the document cannot be read.
            ReadingError: it took too long, or the worker crashed or could not be started.
            UnsupportedError, DependencyError: as `kinds.read`.
            QueueFullError: no worker became free for ten minutes.
        """
        limit, mode = self.limits, _MODES[ocr]
        data = bytes_of(source, name, limit)
        if len(data) <= _HERE and kind_of(name, data) in TEXT_ENDINGS:
            return read(data, name=name, ocr=mode, limit=limit)
        return _reading(*self._asked(data, {"name": name, "ocr": mode}, _PATIENCE))

    def picture(self, source: Path | BinaryIO | bytes, name: str, page: int, quote: str = "") -> bytes:
        """A page of a PDF as a PNG file: see `pictures.picture_of`.

        Args:
            source: the PDF, or its bytes.
            name: the name of the file.
            page: number of the page, from 1.
            quote: text to highlight on the page.

        Raises:
            QueueFullError: no worker became free for `limits.seconds`.
            ChatGLMError: the other errors of `read`.
        """
        data = bytes_of(source, name, self.limits)
        _, (picture,) = self._asked(data, {"name": name, "page": page, "quote": quote}, self.limits.seconds)
        return picture

    def _asked(self, data: bytes, head: dict[str, Any], patience: float) -> tuple[dict[str, Any], list[bytes]]:
        """Send a request to a free worker and return its answer."""
        try:
            worker = self._free.get(timeout=patience)
        except queue.Empty:
            raise QueueFullError("many documents are being read; try again later") from None
        kept: _Worker | None = None
        try:
            if worker is None or not worker.fresh:
                self._let_go(worker)
                worker = self._start()
            answer = worker.ask(data, head, self.limits)
            kept = worker if worker.lives else None
            return answer
        except _Worker.Refused as refused:
            kept = worker
            raise refused.error from None
        finally:
            if kept is None or not self._end.alive:  # `_end` is not alive if `close` was called meanwhile
                self._let_go(worker)
                kept = None
            self._free.put(kept)

    def _start(self) -> _Worker:
        try:
            worker = _Worker(self.limits.memory)
        except OSError as error:
            raise ReadingError(f"no process can be started for reading it ({error}); close other programs") from None
        self._started.add(worker)
        return worker

    def _let_go(self, worker: _Worker | None) -> None:
        if worker is not None:
            self._started.discard(worker)
            worker.end()

    def close(self) -> None:
        """Stop all workers, even while they read. Their documents then fail with `ReadingError`."""
        self._end()

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_apart(
    source: Path | BinaryIO | bytes, *, name: str, ocr: Ocr = "auto", limit: Limits | None = None
) -> Reading:
    """Read one document in a worker process that ends afterwards. For several documents use `Readers`.

    Args:
        source, name, ocr: see `Readers.read`.
        limit: limits for the document; None: the default limits.

    Raises:
        ChatGLMError: as `Readers.read`.
    """
    with Readers(limit) as readers:
        return readers.read(source, name, ocr)


def _end_all(workers: set[_Worker], pid: int) -> None:
    for worker in list(workers):
        if pid == os.getpid():
            worker.end()
        else:
            worker.forget()  # in a forked child: the workers belong to the parent


class _Worker:
    """One worker process."""

    class Refused(Exception):  # noqa: N818 - no failure of the worker
        """The worker is fine, but the document cannot be read. `error` is the error for the caller."""

        def __init__(self, error: ChatGLMError) -> None:
            super().__init__(str(error))
            self.error = error

    def __init__(self, memory: int) -> None:
        if not sys.executable:
            raise OSError("the path of the Python program is unknown (sys.executable is empty)")
        self._begun = 0
        self._used = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-B", "-c", _CODE, json.dumps([part for part in sys.path if part]), str(memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal must reach only the parent
            env={name: value for name, value in os.environ.items() if not _SECRET.search(name)}
            | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
        )

    @property
    def lives(self) -> bool:
        """Whether the process runs and may read another document."""
        return self._begun < _DOCUMENTS and self._process.poll() is None

    @property
    def fresh(self) -> bool:
        """Whether the process runs, and is not about to end because it was idle."""
        return time.monotonic() - self._used < _IDLE / 2 and self.lives

    def ask(self, data: bytes, head: dict[str, Any], limit: Limits) -> tuple[dict[str, Any], list[bytes]]:
        """Send a request and wait for the answer: a header (JSON object) and byte strings.

        Args:
            data: the bytes of the document.
            head: the `name` of the document and the options of the request.
            limit: limits for the document.

        Raises:
            Refused: the document cannot be read.
            ReadingError: the process died, or was killed because it took too long.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._begun += 1
        watch = _Watch(limit.seconds, self._process.kill, _START if self._begun == 1 else limit.seconds)
        try:
            _write(self._process.stdin, {**head, "limit": asdict(limit)}, data)
            while True:
                got = _read(self._process.stdout, limit)
                if got is None:
                    break
                answer, parts = got
                if answer.get("alive"):
                    watch.feed()
                    continue
                self._used = time.monotonic()
                if "error" in answer:
                    raise _Worker.Refused(_ERRORS.get(str(answer["error"]), InputError)(str(answer["message"])))
                return answer, parts
        except OSError:
            pass
        finally:
            watch.end()
        name = head["name"]
        if watch.barked:
            raise ReadingError(f"{name}: took longer than {limit.seconds:g} seconds to read; split or convert it")
        code = self._process.wait()
        raise ReadingError(
            f"{name}: its reader ended without an answer (code {code}); is the file damaged or very large?"
        )

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._close()
        self._process.wait()

    def forget(self) -> None:
        """Close the pipes, but do not kill the process: it belongs to the process from which this one was forked."""
        self._process.returncode = 0  # otherwise Popen would wait for it
        self._close()

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class _Watch:
    """A watchdog: kills a process that sends no message for some time.

    Args:
        seconds: time between two messages.
        bark: kills the process.
        first: time until the first message.

    Attributes:
        barked: whether the process was killed.
    """

    def __init__(self, seconds: float, bark: Callable[[], None], first: float) -> None:
        self._seconds = seconds
        self._first = first
        self._bark = bark
        self._fed = threading.Event()
        self._done = False
        self.barked = False
        self._thread = threading.Thread(target=self._guard, daemon=True)
        self._thread.start()

    def _guard(self) -> None:
        seconds = self._first
        while self._fed.wait(seconds):
            self._fed.clear()
            if self._done:
                return
            seconds = self._seconds
        self.barked = True
        self._bark()

    def feed(self) -> None:
        """Restart the timer, because the process has sent a message."""
        self._fed.set()

    def end(self) -> None:
        """Stop watching."""
        self._done = True
        self._fed.set()
        self._thread.join()


# Messages over the pipe: a line of JSON, with the sizes of the byte strings that follow it


def _write(pipe: BinaryIO | Any, head: dict[str, Any], *parts: bytes) -> None:
    pipe.write(json.dumps({**head, "sizes": [len(part) for part in parts]}).encode() + b"\n")
    for part in parts:
        pipe.write(part)
    pipe.flush()


def _read(pipe: BinaryIO | Any, limit: Limits | None = None) -> tuple[dict[str, Any], list[bytes]] | None:
    """Read a message. None: the other side has ended, or its message is too long or not valid."""
    line = pipe.readline(1 << 26)
    try:
        head = json.loads(line)
        sizes = [int(size) for size in head["sizes"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if limit is not None and sum(sizes) > 5 * limit.characters + (64 << 20):
        return None
    parts = [pipe.read(size) for size in sizes]
    return (head, parts) if [len(part) for part in parts] == sizes else None


def _reading(answer: dict[str, Any], parts: Sequence[bytes]) -> Reading:
    body, marks, bytes_map = parts
    text = body.decode("utf-8", "surrogatepass")
    return Reading(
        text,
        Reading.marks_from_json(marks.decode("utf-8", "surrogatepass")),
        str(answer["media"]),
        answer["encoding"],
        ByteMap.from_bytes(bytes_map, len(text)) if bytes_map else None,
        tuple(map(str, answer["warnings"])),
    )


# Inside the worker process


def work(memory: int) -> None:
    """The main function of a worker: answer requests from standard input until the input or the parent process ends.

    Args:
        memory: additional memory that the process may use, in bytes.
    """
    orders, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of libraries goes to stderr, which is discarded, and not into the answers
    _leave_with_parent()
    _limit_memory(memory)
    sys.addaudithook(_refuse)
    _write(answers, {"alive": True})
    while _comes(orders) and (order := _read(orders)) is not None:
        head, (data,) = order
        _answer(answers, data, head)


def _comes(orders: Any) -> bool:
    """Wait for a request. False: none came for `_IDLE` seconds."""
    try:
        return bool(select.select([orders], [], [], _IDLE)[0])
    except OSError:  # on Windows, select does not work with pipes
        return True


def _answer(pipe: Any, data: bytes, head: dict[str, Any]) -> None:
    name = head["name"]
    try:
        limit = Limits(**head["limit"])
        if "page" in head:
            from chatglm.knowledge.reading.pictures import picture_of

            _write(pipe, {}, picture_of(data, head["page"], head["quote"], limit))
            return
        reading = read(data, name=name, ocr=head["ocr"], limit=limit, alive=lambda: _write(pipe, {"alive": True}))
    except (InputError, UnsupportedError, DependencyError) as error:
        _write(pipe, {"error": type(error).__name__, "message": str(error)})
    except MemoryError:
        _write(pipe, {"error": "InputError", "message": f"{name}: needs too much memory to read; split it"})
    except RecursionError:
        _write(pipe, {"error": "InputError", "message": f"{name}: is nested too deeply"})
    except Exception as error:  # libraries raise all kinds of errors for damaged documents
        said = f"{name}: cannot be read ({type(error).__name__}: {error!s:.200}); it may be damaged"
        _write(pipe, {"error": "InputError", "message": said})
    else:
        about = {"media": reading.media, "encoding": reading.encoding, "warnings": reading.warnings}
        _write(
            pipe,
            about,
            reading.text.encode("utf-8", "surrogatepass"),
            reading.marks_to_json().encode("utf-8", "surrogatepass"),
            reading.bytes_of.to_bytes() if reading.bytes_of else b"",
        )


_REFUSED = ("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec",
            "os.posix_spawn", "os.fork", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink",
            "os.chmod", "os.chown", "os.truncate", "shutil.rmtree")  # fmt: skip


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook that refuses operations that reading never needs. It stops Python code, but not an attacker who
    already runs native code in the process."""
    if event in _REFUSED or (event == "open" and _writes(*arguments)):
        raise PermissionError(f"{event} is refused while a document is read")


def _writes(path: object, mode: object, flags: int) -> bool:
    if path in ("/dev/null", os.devnull):
        return False
    return isinstance(path, str | bytes) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))


def _leave_with_parent() -> None:
    """End this process when its parent ends. Standard input may stay open if another child of the parent has inherited
    it, so the parent's id is checked every two seconds."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(2)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def _limit_memory(memory: int) -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        with open("/proc/self/statm", encoding="ascii") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, resource.getrlimit(resource.RLIMIT_AS)[1]))
