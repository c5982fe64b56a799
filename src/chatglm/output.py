"""Output folders of long runs: only one run at a time may write to a folder, and a full disk is reported as one clear
error. Also replaces single files atomically.

Locks are made with `flock`, so the system releases them when the process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chatglm.errors import InputError, OutputError

try:
    import fcntl
except ImportError:  # Windows: two runs in one folder are not noticed
    fcntl = None  # type: ignore[assignment]

__all__ = ["LOCK", "locked", "replace_file", "reporting_disk_errors", "working_in"]

LOCK = ".lock"
"""Name of the lock file in a folder that is written in place."""

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
_BUSY = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}


@contextmanager
def locked(file: Path, result: Path) -> Iterator[None]:
    """Hold the lock `file` during the block. The file is made, and removed at the end.

    Args:
        result: what the lock protects, for the message.

    Raises:
        InputError: another process holds the lock (the message names it), or the file cannot be made.
    """
    try:
        lock = _acquire(file, result)
    except OSError as error:
        raise InputError(f"{result}: cannot be written ({error.strerror}); choose another folder") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink()
        os.close(lock)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file completely, or leave the old one unchanged. Its mode stays, and a link to it stays a link.

    If the path is not a regular file, such as `/dev/stdout`, it is written to directly.

    Raises:
        OutputError: it cannot be written.
    """
    made: Path | None = None
    try:
        target = Path(os.path.realpath(path))
        mode = target.stat().st_mode if target.exists() else None
        if mode is not None and not stat.S_ISREG(mode):
            target.write_bytes(data)
            return
        made = target.with_name(f".{target.name[:40]}.{secrets.token_hex(4)}")
        with open(made, "xb") as stream:
            if mode is not None:
                os.chmod(made, stat.S_IMODE(mode))
            stream.write(data)
        os.replace(made, target)
    except (OSError, ValueError) as error:
        if made is not None:
            with contextlib.suppress(OSError):
                made.unlink()
        raise OutputError(f"{path!s:.300}: cannot be written ({getattr(error, 'strerror', None) or error})") from None


@contextmanager
def working_in(folder: Path, hint: str = "") -> Iterator[None]:
    """Make a folder, hold its lock (`.lock` in it), and report disk errors clearly, during the block.

    If the folder is new and nothing was written into it, it is removed at the end.

    Raises:
        InputError: the folder cannot be made, or another process is writing there.
        OutputError: see `reporting_disk_errors`.
    """
    fresh = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from None
    try:
        with reporting_disk_errors(folder, hint), locked(folder / LOCK, folder):
            yield
    finally:
        if fresh:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _acquire(file: Path, result: Path) -> int:
    while True:
        lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_ino == file.stat().st_ino:  # otherwise the previous holder has just removed the file
                os.ftruncate(lock, 0)
                about = f"process {os.getpid()} on {os.uname().nodename}" if hasattr(os, "uname") else "another process"
                os.write(lock, f"{about}, since {time.strftime('%Y-%m-%d %H:%M:%S')}".encode())
                return lock
        except FileNotFoundError:
            pass
        except OSError as error:
            held = os.pread(lock, 200, 0).decode("utf-8", "replace") if hasattr(os, "pread") else ""
            os.close(lock)
            if error.errno not in _BUSY:
                raise
            raise InputError(
                f"{result}: another process is writing there ({held or 'just begun'}); wait for it, or choose another "
                "folder"
            ) from None
        os.close(lock)


@contextmanager
def reporting_disk_errors(result: Path, hint: str = "") -> Iterator[None]:
    """Convert errors of a full or broken disk to one that names file, reason and free space.

    Args:
        result: the folder that is being written.
        hint: added to the message, such as where the unfinished work is.

    Raises:
        OutputError: the disk is full, a quota or a limit of file sizes is reached, or the disk cannot be written.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OutputError) or (reason := _disk_error(error)) is None:
            raise
        place = getattr(error, "filename", None) or result
        raise OutputError(
            f"{place}: cannot be written: {reason}{_free(result)}; free disk space, or choose another folder{hint}"
        ) from error


def _disk_error(error: Exception) -> str | None:
    """The reason, if writing to the disk failed; None for any other error."""
    if isinstance(error, OSError) and error.errno in _DISK:
        return error.strerror or os.strerror(error.errno or 0)
    text = str(error)
    # safetensors and torch have their own errors, which contain the system's error number, or no reason at all.
    if (number := re.search(r"\(os error (\d+)\)", text)) and int(number[1]) in _DISK:
        return os.strerror(int(number[1]))
    if isinstance(error, RuntimeError) and ("failed writing file" in text or "unexpected pos" in text):
        return "the disk is full, or a limit of file sizes is reached"
    return None


def _free(folder: Path) -> str:
    """The free disk space of a folder, as text for a message; "" if unknown."""
    with contextlib.suppress(OSError):
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        return f" ({shutil.disk_usage(there).free / 1e6:,.0f} MB are free)"
    return ""
