"""The bases of a home folder, held open for a program that is asked again and again."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatglm.errors import InputError, NotFoundError, OutputError, QueueFullError, RoomError
from chatglm.knowledge import bounds
from chatglm.knowledge.base import Base, Bases, delete_base, open_base, permit, rename_base
from chatglm.knowledge.reading import Readers
from chatglm.knowledge.store import Glance, Role, base_file, base_names, glance

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Shelf"]

_MOST = 16
"""Bases that are asked at once."""
_AWAKE = 32
"""Bases whose files are open at once, if no more are in use."""
_READ_SECONDS = 5.0
_SETTLED = 100_000_000
"""Nanoseconds after which another change of a file gets another time."""


class Shelf:
    """For any number of threads.

    Args:
        home: instead of `CHATGLM_HOME`.
        options: options of `open_base`.

    All bases share the processes that read documents: even if many bases get files at once, only a few files are read
    at a time. Of many bases those that were not asked for the longest time, and are not in use, have their files
    closed; they are opened again when something is asked of them.
    """

    def __init__(self, home: Path | None = None, **options: Any) -> None:
        self._home = home
        self._readers = Readers(options.get("limits"))
        self._options = {"readers": self._readers, **options}
        self._lock = threading.Lock()
        self._open: OrderedDict[str, Base] = OrderedDict()
        """The one that was asked for last is last."""
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
        gone: list[Base] = []
        try:
            with self._lock:
                base = self._open.get(name)
                if base is None or not base.store.is_there():
                    gone = self._taken_out(one for one, known in self._open.items() if not known.store.is_there())
                    base = open_base(name, home=self._home, who=who, create=create, **self._options)
                    self._open[name] = base
                    if base.store.waiting():  # a process ended before it had read them
                        base.resume()
                self._open.move_to_end(name)
                self._let_rest(base)
        finally:
            for one in gone:
                one.close()
        permit(base, who, role)
        return base

    def _taken_out(self, names: Iterable[str]) -> list[Base]:
        """Bases that have been renamed or deleted, to be closed without the lock; their files are closed already. A
        renamed base must not be open under both of its names, or SQLite would close it under the wrong one."""
        found = [self._open.pop(name) for name in list(names) if name in self._open]
        for base in found:
            base.store.close()
            base.store.wait_for_readers(_READ_SECONDS)
        return found

    def _let_rest(self, asked: Base) -> None:
        awake = [base for base in self._open.values() if base is not asked and base.store.awake]
        spare = len(awake) + 1 - _AWAKE
        for base in awake:
            if spare <= 0:
                break
            spare -= base.rest()

    def taken(self, name: str) -> bool:
        """Whether somebody has a base of this name.

        Raises:
            InputError: the name is invalid.
        """
        return base_file(name, self._home).exists()

    def check_free(self, name: str) -> None:
        """
        Raises:
            InputError: the name is invalid or taken; the message does not say by whom.
        """
        if self.taken(name):
            raise InputError(f"name: {name!r} is taken; choose another")

    def make(self, name: str, who: str | None) -> Base:
        """Make a base that a user owns.

        Raises:
            InputError: the name is invalid or taken; the message does not say by whom.
            RoomError: the user has as many bases as anybody may have.
        """
        self.check_free(name)
        if sum(who is None or seen.owner == who for seen in self.listed(who).values()) >= bounds.BASES:
            raise RoomError(f"name: you own {bounds.BASES} bases already, which is the limit; delete one")
        return self.base(name, who, "own", create=True)

    def check_room(self, base: Base, sizes: Mapping[str, int]) -> None:
        """Whether a base has room for files that somebody sends.

        Args:
            sizes: bytes of each file, by its name; one that is there is replaced.

        Raises:
            RoomError: the base, or all that its owner has, would become too large.
            QueueFullError: too many files of the base wait to be read.
        """
        holds = base.store.summary()
        if holds.waiting >= bounds.WAITING:
            raise QueueFullError(f"{bounds.WAITING:,} files of the base wait to be read; send this one later")
        replaced = [file.size for file in base.store.named(sizes)]
        more = sum(sizes.values()) - sum(replaced)
        if holds.files + len(sizes) - len(replaced) > bounds.FILES or holds.bytes + more > bounds.BASE_BYTES:
            raise RoomError(
                f"file: a base can have at most {bounds.FILES:,} files and {bounds.BASE_BYTES >> 30} GiB; remove some"
            )
        every = self.listed(None)
        owner = every[base.name].owner if base.name in every else None
        owned = sum(seen.bytes for seen in every.values() if seen.owner == owner)
        if owner is not None and owned + more > bounds.OWNED_BYTES:
            raise RoomError(
                f"file: all bases of one user can have at most {bounds.OWNED_BYTES >> 30} GiB; remove some files"
            )

    def bases(self, names: Sequence[str], who: str | None) -> Bases:
        """Several bases to search as one, with the rights of a user.

        Raises:
            InputError: no name, the same name twice, or too many names.
            NotFoundError: a base does not exist, or the user may not read it.
        """
        if not names or len(set(names)) != len(names) or len(names) > _MOST:
            raise InputError(f"name the bases, each once, at most {_MOST}")
        return Bases([self.base(name, who) for name in names], who=who)

    def delete(self, name: str, who: str | None) -> None:
        """Delete a base: see `delete_base`."""
        with self._lock:
            delete_base(name, home=self._home, who=who)
            gone = self._taken_out([name])
        for base in gone:
            base.close()

    def rename(self, name: str, new: str, who: str | None) -> None:
        """Give a base another name: see `rename_base`. Answers that are being made from it end with `NotFoundError`."""
        with self._lock:
            rename_base(name, new, home=self._home, who=who)
            gone = self._taken_out([name])
        for base in gone:
            base.close()

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
            opened, self._open = list(self._open.values()), OrderedDict()
        for base in opened:
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
