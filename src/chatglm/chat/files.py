"""Reads small files of foreign folders: only regular files of limited size, and JSON of limited depth.

A model folder is foreign input. A pipe in the place of config.json would make its reader wait for ever, a device would
fill the memory, and deeply nested JSON would cause a RecursionError somewhere else. Here, each of these raises a
`CheckpointError` that names the file.
"""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

from chatglm.errors import CheckpointError

__all__ = ["MAX_JSON", "parse_json", "read_file", "read_json", "read_list", "size_of"]

MAX_JSON = 8 << 20
"""Most bytes of a JSON file. The largest one of an official checkpoint has 40 KB."""

_MAX_DEPTH = 64

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def size_of(path: Path) -> int:
    """The size of a regular file in bytes; links are followed.

    Raises:
        CheckpointError: there is no such file, it is not a regular file, or it cannot be reached.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise _unreadable(path, error) from None
    except ValueError:  # a NUL character
        raise CheckpointError(f"{path!r:.200}: not the name of a file") from None
    _check_kind(path, found)
    return found.st_size


def read_file(path: Path, limit: int) -> bytes:
    """All bytes of a regular file.

    Raises:
        CheckpointError: as `size_of`; or the file cannot be read, or has more than `limit` bytes.
    """
    # Without O_NONBLOCK, opening a pipe would wait for its writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        number = os.open(path, flags)
    except OSError as error:
        size_of(path)  # raises a clearer error, for example for a socket
        raise _unreadable(path, error) from None
    except ValueError:
        raise CheckpointError(f"{path!r:.200}: not the name of a file") from None
    try:
        _check_kind(path, os.fstat(number))
        with open(number, "rb", closefd=False) as stream:
            data = stream.read(limit + 1)
    except CheckpointError:
        raise
    except OSError as error:
        raise _unreadable(path, error) from None
    finally:
        os.close(number)
    if len(data) > limit:
        raise CheckpointError(f"{path}: larger than {limit:,} bytes, the limit for such a file of a checkpoint")
    return data


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointError: the file is missing, cannot be read, is not JSON (numbers must be finite), or holds no object.
    """
    return parse_json(read_file(path, MAX_JSON), path)


def read_list(path: Path) -> list[Any]:
    """A JSON list from a file.

    Raises:
        CheckpointError: as `read_json`; or the file holds no list.
    """
    found = parse_json(b'{"list":' + read_file(path, MAX_JSON) + b"}", path)
    if found.keys() != {"list"} or not isinstance(found["list"], list):
        raise CheckpointError(f"{path}: does not hold a list, which is expected; download it again")
    return found["list"]


def parse_json(data: bytes, path: Path) -> dict[str, Any]:
    """A JSON object from bytes that were read from `path`.

    Raises:
        CheckpointError: they are not JSON, or hold no object; the message names the path.
    """
    try:
        found = json.loads(
            data.decode("utf-8"), parse_float=_finite, parse_constant=_finite, object_pairs_hook=_without_doubles
        )
    except RecursionError:
        raise CheckpointError(f"{path}: JSON nested too deeply; download the file again") from None
    except ValueError as error:  # not UTF-8, not JSON, an integer of thousands of digits
        reason = str(error) if len(str(error)) < 200 else type(error).__name__
        raise CheckpointError(f"{path}: not valid JSON ({reason}); download the file again") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: holds {type(found).__name__} where an object is expected; download it again")
    _check_depth(found, path)
    try:
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise CheckpointError(f"{path}: a string holds half a character (a lone surrogate)") from None
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.20} is not a finite number")
    return value


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):  # programs differ in which of the two they use
        for name, value in pairs:
            if found[name] != value:
                raise ValueError(f"the name {name!r:.60} is given twice, with different values")
    return found


def _check_depth(found: Any, path: Path) -> None:
    level = [found]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise CheckpointError(f"{path}: JSON nested more than {_MAX_DEPTH} levels deep; download the file again")


def _check_kind(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for test, name in _KINDS if test(found.st_mode)), "not a regular file")
        raise CheckpointError(f"{path}: is {kind}, where a file is expected")


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    if isinstance(error, FileNotFoundError):
        return CheckpointError(f"{path}: no such file; is {path.parent} a complete ChatGLM checkpoint folder?")
    return CheckpointError(f"{path!s:.300}: cannot be read ({error.strerror or error})")
