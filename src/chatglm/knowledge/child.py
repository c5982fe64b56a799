"""Documents read in a process of their own: a file that is made to harm, or only too large, takes nothing along.

The processes get a line of JSON for each file and answer with JSON. Nothing is unpickled.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from pathlib import Path
from typing import Any, BinaryIO

from chatglm.errors import ChatGLMError, InputError
from chatglm.knowledge.encodings import ByteMap
from chatglm.knowledge.reading import Limits, Reading, read

__all__ = ["Readers", "ReadingError"]

_IDLE = 2
_REPLY_BYTES = 1 << 30
_START_SECONDS = 60


class ReadingError(InputError):
    """A document could not be read.

    Attributes:
        again: whether it may go better the next time: the process ended, or was too slow.
    """

    again = False


class Readers:
    """Processes that read, kept for the next files. Threads may share them."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._idle: list[_Child] = []
        self._lock = threading.Lock()
        self._closer = weakref.finalize(self, _end, self._idle)

    def read(self, source: Path | bytes, name: str, ocr: str = "auto") -> Reading:
        """
        Args:
            ocr: "auto", "always" or "never".

        Raises:
            ReadingError: it cannot be read; the message says why.
        """
        with self._lock:
            child = self._idle.pop() if self._idle else None
        if child is None:
            child = _Child(self.limits)
        try:
            if isinstance(source, Path):
                reading = child.read(source, name, ocr)
            else:
                with tempfile.NamedTemporaryFile(prefix="chatglm-") as file:
                    file.write(source)
                    file.flush()
                    reading = child.read(Path(file.name), name, ocr)
        finally:
            with self._lock:
                keep = child.alive and len(self._idle) < _IDLE and self._closer.alive
                if keep:
                    self._idle.append(child)
            if not keep:
                child.close()
        return reading

    def close(self) -> None:
        """End the processes. It may be called again."""
        self._closer()


def _end(children: list[_Child]) -> None:
    while children:
        children.pop().close()


class _Child:
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from chatglm.knowledge.child import _serve; _serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        self._fresh = True

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def read(self, path: Path, name: str, ocr: str) -> Reading:
        seconds = self._limits.seconds
        deadline = time.monotonic() + seconds + (_START_SECONDS if self._fresh else 0)
        self._fresh = False
        question = {"path": str(path), "name": name, "ocr": ocr, "limits": vars(self._limits)}
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            size = int.from_bytes(self._bytes(8, deadline), "little")
            if size > _REPLY_BYTES:
                raise EOFError
            reply = json.loads(self._bytes(size, deadline).decode("utf-8", "surrogatepass"))
        except TimeoutError:
            self.close()
            raise _error(f"{name}: takes longer than {seconds:g} s to read; divide it", again=True) from None
        except (EOFError, OSError, ValueError):
            self.close()
            memory = f"{self._limits.memory >> 20:,} MiB"
            raise _error(
                f"{name}: the process that read it ended, perhaps because it needs more than {memory} of memory; "
                "divide the file, or save it anew with the program that it comes from",
                again=True,
            ) from None
        if "error" in reply:
            raise _error(str(reply["error"]), again=False)
        return _reading(reply)

    def _bytes(self, count: int, deadline: float) -> bytes:
        stream = self._process.stdout
        assert stream is not None
        parts = bytearray()
        with selectors.DefaultSelector() as ready:
            ready.register(stream, selectors.EVENT_READ)
            while len(parts) < count:
                left = deadline - time.monotonic()
                if left <= 0 or not ready.select(left):
                    raise TimeoutError
                got = os.read(stream.fileno(), min(count - len(parts), 1 << 20))
                if not got:
                    raise EOFError
                parts += got
        return bytes(parts)


def _error(message: str, again: bool) -> ReadingError:
    error = ReadingError(message)
    error.again = again
    return error


def _reading(reply: dict[str, Any]) -> Reading:
    map_of = reply["bytes_of"]
    return Reading(
        reply["text"],
        Reading.marks_from_json(reply["marks"]),
        reply["media"],
        reply["encoding"],
        None if map_of is None else ByteMap.from_bytes(base64.b64decode(map_of)),
        tuple(reply["warnings"]),
    )


# In the process that reads


def _serve() -> None:
    """Answer questions of the standard input, until it ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print goes nowhere
    limited = False
    for line in sys.stdin.buffer:
        question = json.loads(line)
        limits = Limits(**question["limits"])
        if not limited:
            _limit(limits.memory)
            limited = True
        _write(answers, _answer(question, limits))


def _answer(question: dict[str, Any], limits: Limits) -> dict[str, Any]:
    name = question["name"]
    ocr: Any = {"auto": "auto", "always": True, "never": False}[question["ocr"]]
    try:
        reading = read(Path(question["path"]), name=name, ocr=ocr, limit=limits)
    except ChatGLMError as error:
        return {"error": str(error)}
    except (MemoryError, RecursionError):
        return {"error": f"{name}: needs more than {limits.memory >> 20:,} MiB of memory; divide it"}
    except Exception as error:  # a library's fault with a damaged file must not stop the others
        return {"error": f"{name}: cannot be read ({type(error).__name__}: {str(error)[:200]}); is it damaged?"}
    return {
        "text": reading.text,
        "marks": reading.marks_to_json(),
        "media": reading.media,
        "encoding": reading.encoding,
        "bytes_of": None if reading.bytes_of is None else base64.b64encode(reading.bytes_of.to_bytes()).decode(),
        "warnings": list(reading.warnings),
    }


def _write(answers: BinaryIO, reply: dict[str, Any]) -> None:
    data = json.dumps(reply, ensure_ascii=False).encode("utf-8", "surrogatepass")
    answers.write(len(data).to_bytes(8, "little") + data)
    answers.flush()


def _limit(memory: int) -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (memory if hard < 0 else min(memory, hard), hard))
