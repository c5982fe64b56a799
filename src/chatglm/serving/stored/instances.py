"""Which of the servers that use one home folder are alive: each holds a lock, which the system releases when the
process ends, however it ends."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from chatglm.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows: a server that did not end by itself is taken to be alive until its file is deleted
    fcntl = None  # type: ignore[assignment]

__all__ = ["Instance"]


class Instance:
    """This server among the others.

    Args:
        folder: with a lock file for each server; it is made.

    Raises:
        OutputError: the file cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            self.id, self._lock = self._begin()
        except OSError as error:
            raise OutputError(f"{folder}: cannot be written ({error.strerror}); correct its rights") from None

    def _begin(self) -> tuple[str, int]:
        while True:
            name = secrets.token_hex(8)
            file = self._file(name)
            lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            if _locked(lock):
                with contextlib.suppress(FileNotFoundError):
                    if os.fstat(lock).st_ino == file.stat().st_ino:
                        return name, lock
            os.close(lock)  # somebody has just taken it for that of a dead server

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.lock"

    def alive(self, other: str) -> bool:
        """Whether that server still runs. The lock file of a dead one is removed."""
        if other == self.id:
            return True
        try:
            lock = os.open(self._file(other), os.O_RDWR)
        except FileNotFoundError:
            return False
        except OSError:
            return True  # it cannot be told
        try:
            if fcntl is None or not _locked(lock):
                return True
            with contextlib.suppress(FileNotFoundError):
                self._file(other).unlink()
            return False
        finally:
            os.close(lock)

    def close(self) -> None:
        """From now on, others take over what this one has left."""
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                self._file(self.id).unlink()
            os.close(self._lock)
            self._lock = -1


def _locked(lock: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
