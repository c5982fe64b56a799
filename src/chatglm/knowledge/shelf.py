"""The bases of a home folder, held open for a program that is asked again and again."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatglm.errors import InputError, NotFoundError, OutputError
from chatglm.knowledge.base import Base, Bases, delete_base, open_base, permit
from chatglm.knowledge.reading import Readers
from chatglm.knowledge.store import Glance, Role, base_file, base_names, glance

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Shelf"]

_MOST = 16
"""Bases that are asked at once."""
_SETTLED = 100_000_000
"""Nanoseconds after which another change of a file gets another time."""


class Shelf:
    """For any number of threads.

    Args:
        home: instead of `CHATGLM_HOME`.
        options: options of `open_base`.

    All bases share the processes that read documents: even if many bases get files at once, only a few files are read
    at a time.
    """

    def __init__(self, home: Path | None = None, **options: Any) -> None:
        self._home = home
        self._readers = Readers(options.get("limits"))
        self._options = {"readers": self._readers, **options}
        self._lock = threading.Lock()
        self._open: dict[str, tuple[tuple[int, int], Base]] = {}
        self._glances: dict[str, tuple[_Stamp, Glance]] = {}

    def names(self, who: str | None) -> list[str]:
        """The names of the bases that a user may read, sorted."""
        return base_names(self._home) if who is None else list(self.listed(who))

    def listed(self, who: str | None) -> dict[str, Glance]:
        """The same bases, each with its data for a list. No base is opened, and unchanged bases are not read."""
        known, kept = self._glances, dict[str, tuple[_Stamp, Glance]]()
        found = {}
        for name in base_names(self._home):
            file = base_file(name, self._home)
            stamp = _stamp(file)
            entry = known.get(name)
            if entry is None or entry[0] != stamp:
                try:
                    entry = stamp, glance(file)
                except OutputError:  # gone since, or no base
                    continue
            if time.time_ns() - stamp[-1] > _SETTLED:
                kept[name] = entry
            if entry[1].role(who) is not None:
                found[name] = entry[1]
        self._glances = kept
        return found

    def base(self, name: str, who: str | None, role: Role = "read", *, create: bool = False) -> Base:
        """A base, which stays open; do not close it.

        Raises:
            ChatGLMError: what `open_base` raises.
        """
        with self._lock:
            known = self._open.get(name)
            if known is not None and known[0] != _identity(base_file(name, self._home)):
                del self._open[name]  # deleted, or another one
                known[1].close()
                known = None
            if known is None:
                base = open_base(name, home=self._home, who=who, create=create, **self._options)
                known = self._open[name] = (_identity(base.store.file), base)
                if base.store.waiting():  # a process ended before it had read them
                    base.resume()
        permit(known[1], who, role)
        return known[1]

    def taken(self, name: str) -> bool:
        """Whether somebody has a base of this name.

        Raises:
            InputError: the name is invalid.
        """
        return base_file(name, self._home).exists()

    def make(self, name: str, who: str | None) -> Base:
        """Make a base that a user owns.

        Raises:
            InputError: the name is invalid or taken; the message does not say by whom.
        """
        if self.taken(name):
            raise InputError(f"name: {name!r} is taken; choose another")
        return self.base(name, who, "own", create=True)

    def bases(self, names: Sequence[str], who: str | None) -> Bases:
        """Several bases to search as one, with the rights of a user.

        Raises:
            InputError: no name, the same name twice, or too many names.
            NotFoundError: a base does not exist, or the user may not read it.
        """
        if not names or len(set(names)) != len(names) or len(names) > _MOST:
            raise InputError(f"name the bases, each once, {_MOST} at most")
        return Bases([self.base(name, who) for name in names], who=who)

    def delete(self, name: str, who: str | None) -> None:
        """Delete a base: see `delete_base`."""
        delete_base(name, home=self._home, who=who)
        with self._lock:
            known = self._open.pop(name, None)
        if known is not None:
            known[1].close()

    def forget(self, who: str) -> None:
        """Delete the bases that somebody alone owns, and end the access to all others, before that person is deleted:
        somebody of the same name, who comes later, gets nothing of it.
        """
        for name in self.names(None):
            try:
                base = self.base(name, None)
            except NotFoundError:  # deleted just now
                continue
            roles = base.store.roles()
            if roles.get(who) == "own" and not any(role == "own" for one, role in roles.items() if one != who):
                self.delete(name, None)
            elif who in roles:
                base.store.share(who, None)

    def close(self) -> None:
        """Close every base that is open; one that is asked for later is opened again."""
        with self._lock:
            opened, self._open = list(self._open.values()), {}
        for _, base in opened:
            base.close()
        self._readers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


_Stamp = tuple[int, ...]


def _stamp(file: Path) -> _Stamp:
    """Another one after every change of a base: which file it is, sizes and times of it and of its log, and at last
    the latest of these times (nanoseconds)."""
    found: list[int] = []
    latest = 0
    for each in (file, file.with_name(file.name + "-wal")):
        try:
            seen = os.stat(each)
        except OSError:
            found += (0, 0, 0, 0)
            continue
        found += (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns)
        latest = max(latest, seen.st_mtime_ns)
    return *found, latest


def _identity(file: Path) -> tuple[int, int]:
    try:
        found = os.stat(file)
    except OSError:
        return (0, 0)
    return found.st_dev, found.st_ino
