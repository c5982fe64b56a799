"""Temporary bases for conversations about files. Only their id finds them. They are deleted after a day without use."""

from __future__ import annotations

import secrets
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from chatglm.errors import NotFoundError
from chatglm.knowledge import Base, Shelf

__all__ = ["Temporary"]

_SECONDS = 86_400.0
_OF_ONE, _OF_ALL = 20, 200


@dataclass
class _Entry:
    who: str | None
    used: float


class Temporary:
    """Temporary bases, for any number of threads. If there are too many, the least recently used one is deleted."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._shelf: Shelf | None = None
        self._entries: dict[str, _Entry] = {}

    def shelf(self) -> Shelf:
        """The shelf that has the temporary bases; made when first needed."""
        with self._lock:
            if self._shelf is None:
                self._folder = tempfile.TemporaryDirectory(prefix="chatglm-")
                self._shelf = Shelf(Path(self._folder.name))
            return self._shelf

    def make(self, who: str | None, before: str | None = None) -> tuple[str, Base]:
        """Make an empty base. Returns its id and the base.

        Args:
            before: id of a base that is deleted and whose id the new base gets, if it belongs to the caller.
        """
        with self._lock:
            shelf = self.shelf()
            known = self._entries.get(before or "")
            if known is not None and known.who == who:
                self._drop(before or "")
            else:
                before = None
            now = time.monotonic()
            for name in [name for name, entry in self._entries.items() if now - entry.used > _SECONDS]:
                self._drop(name)
            own = [name for name, entry in self._entries.items() if entry.who == who]
            for names, most in (([] if who is None else own, _OF_ONE), (list(self._entries), _OF_ALL)):
                if len(names) >= most:
                    self._drop(min(names, key=lambda name: self._entries[name].used))
            name = before or secrets.token_hex(16)
            base = shelf.base(name, who, "own", create=True)
            self._entries[name] = _Entry(who, now)
            return name, base

    def base(self, name: str, who: str | None) -> Base:
        """Find a base by its id.

        Raises:
            NotFoundError: there is no such base, or it belongs to another caller.
        """
        with self._lock:
            entry = self._entries.get(name)
            if entry is None or entry.who != who or self._shelf is None:
                raise NotFoundError(f"temporary base {name!r:.80}: it does not exist; upload the files again")
            entry.used = time.monotonic()
            return self._shelf.base(name, who)

    def _drop(self, name: str) -> None:
        assert self._shelf is not None
        del self._entries[name]
        self._shelf.delete(name, None)

    def close(self) -> None:
        """Close all bases. It may be called again."""
        with self._lock:
            self._entries.clear()
            if self._shelf is not None:
                self._shelf.close()
            if self._folder is not None:
                self._folder.cleanup()
            self._shelf = self._folder = None
