"""`Shelf`: all bases of a home folder, kept open for a program that answers many requests, such as a server."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatglm.errors import ChatGLMError, InputError, NotFoundError, OutputError, QueueFullError, RoomError
from chatglm.knowledge import bounds
from chatglm.knowledge.base import Base, Bases, delete_file, open_base, permit, rename_base
from chatglm.knowledge.deleted import check_deleted, noted
from chatglm.knowledge.reading import Readers
from chatglm.knowledge.store import Glance, Role, base_file, base_names, glance, remains

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Shelf"]

_log = logging.getLogger("chatglm.knowledge")

_MOST = 16
"""Largest number of bases in one search."""
_AWAKE = 32
"""Number of bases whose files may be open at once. More are open only while they are in use."""
_READ_SECONDS = 5.0
_SETTLE_SECONDS = 5.0
_SETTLED = 100_000_000
"""If the last change of a file is longer ago than this (nanoseconds), a new change gets another modification time."""


class Shelf:
    """All bases of a home folder. Any number of threads may use it.

    All bases share the worker processes that read documents. So only a few files are read at a time, even if many bases
    get files at once. If many bases are open, the files of those that were not used for the longest time are closed.
    Their next use opens them again.

    If external stores still have documents of deleted bases, a background thread deletes them (`deleted.py`).

    Args:
        home: the home folder; None: that of `CHATGLM_HOME`.
        options: options of `open_base`.
    """

    def __init__(self, home: Path | None = None, **options: Any) -> None:
        self._home = home
        self._readers = Readers(options.get("limits"))
        self._options = {"readers": self._readers, **options}
        self._lock = threading.Lock()
        self._open: OrderedDict[str, Base] = OrderedDict()
        """The open bases; the most recently used one is the last."""
        self._glances: dict[str, tuple[_Stamp, Glance]] = {}
        self._settling: threading.Thread | None = None
        if noted(home):
            self._settling = threading.Thread(target=self._settle, name="chatglm knowledge deleted", daemon=True)
            self._settling.start()

    def _settle(self) -> None:
        """Delete documents of deleted bases from external stores. This may take long if a store cannot be reached."""
        for why in check_deleted(self._home, repair=True):
            _log.warning("%s", why)

    def names(self, who: str | None) -> list[str]:
        """The names of the bases that a user may read, sorted.

        Args:
            who: the name of a user, or the digest of an API key. None: the owner of this machine, who may read all.
        """
        return base_names(self._home) if who is None else list(self.listed(who))

    def listed(self, who: str | None) -> dict[str, Glance]:
        """The bases of `names`, each with the data that a list shows. No base is opened for it: a base that may have
        changed since the last call is read through a short read-only connection.
        """
        known, kept = self._glances, dict[str, tuple[_Stamp, Glance]]()
        found = {}
        for name in base_names(self._home):
            file = base_file(name, self._home)
            stamp = _stamp(file)
            entry = known.get(name)
            if entry is None or entry[0] != stamp:
                try:
                    entry = stamp, glance(file)
                except OutputError:  # it was just deleted, or is not a base
                    continue
            if time.time_ns() - stamp[-1] > _SETTLED:
                kept[name] = entry
            if entry[1].role(who) is not None:
                found[name] = entry[1]
        self._glances = kept
        return found

    def base(self, name: str, who: str | None, role: Role = "read", *, create: bool = False) -> Base:
        """A base by its name. The shelf keeps it open; do not close it.

        Args:
            who, role, create: see `open_base`.

        Raises:
            ChatGLMError: as `open_base`.
        """
        gone: list[Base] = []
        try:
            with self._lock:
                base = self._open.get(name)
                if base is None or not base.store.is_there():
                    gone = self._taken_out(one for one, known in self._open.items() if not known.store.is_there())
                    base = open_base(name, home=self._home, who=who, create=create, **self._options)
                    self._open[name] = base
                    if base.unfinished:  # an earlier process ended before its work was done
                        base.resume()
                self._open.move_to_end(name)
                self._let_rest(base)
        finally:
            for one in gone:
                one.close()
        permit(base, who, role)
        return base

    def _taken_out(self, names: Iterable[str]) -> list[Base]:
        """Remove bases that were renamed or deleted, and close their files. The caller then closes the bases without
        holding the lock.

        A renamed base must not be open under both of its names, or SQLite would close it under the wrong one.
        """
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
        """Whether there is a base of this name, whoever owns it.

        Raises:
            InputError: the name is not valid.
        """
        return base_file(name, self._home).exists()

    def check_free(self, name: str) -> None:
        """Check that a new base may have this name.

        Raises:
            InputError: the name is not valid or is taken. The message does not name the owner.
        """
        if self.taken(name):
            raise InputError(f"name: {name!r} is taken; choose another")

    def make(self, name: str, who: str | None) -> Base:
        """Create a base. The user owns it.

        Raises:
            InputError: the name is not valid or is taken. The message does not name the owner.
            RoomError: the user already owns `bounds.BASES` bases. For the owner of the machine, all bases count.
        """
        self.check_free(name)
        if sum(who is None or seen.owner == who for seen in self.listed(who).values()) >= bounds.BASES:
            raise RoomError(f"name: you own {bounds.BASES} bases already, which is the limit; delete one")
        return self.base(name, who, "own", create=True)

    def check_room(self, base: Base, sizes: Mapping[str, int]) -> None:
        """Check that uploaded files are within the limits of `bounds`.

        Args:
            base: the base that gets the files.
            sizes: size of each file in bytes, by name. A file that the base already has is replaced.

        Raises:
            RoomError: the base, or all bases of its owner together, would become too large.
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
        """Several bases that are searched as one, with the access rights of a user.

        Raises:
            InputError: no name, the same name twice, or too many names.
            NotFoundError: a base does not exist, or the user may not read it.
        """
        if not names or len(set(names)) != len(names) or len(names) > _MOST:
            raise InputError(f"name the bases, each once, at most {_MOST}")
        return Bases([self.base(name, who) for name in names], who=who)

    def delete(self, name: str, who: str | None) -> None:
        """Delete a base: see `delete_base`. If documents stay in external stores, a warning is logged.

        Raises:
            ChatGLMError: as `delete_base`.
        """
        with self._lock:
            rest = delete_file(name, home=self._home, who=who, neighbours=self._options.get("neighbours"))
            gone = self._taken_out([name])
        for base in gone:
            base.close()
        for warning in rest():
            _log.warning("%s was deleted, but %s", name, warning)

    def rename(self, name: str, new: str, who: str | None) -> None:
        """Rename a base: see `rename_base`. Answers that are being generated from it end with `NotFoundError`.

        Raises:
            ChatGLMError: as `rename_base`.
        """
        with self._lock:
            rename_base(name, new, home=self._home, who=who)
            gone = self._taken_out([name])
        for base in gone:
            base.close()

    def forget(self, who: str) -> list[str]:
        """Delete the bases of which a user is the only owner, and remove the user's rights in all other bases. If this
        fails for a base, for example because it is damaged, the others are still processed.

        Call it before a user is deleted. Otherwise a later user with the same name would get these bases.

        Returns:
            one sentence for each base that the user may still own or have rights in.
        """
        left = []
        for name in self.names(None):
            try:
                roles = remains(base_file(name, self._home)).roles
                if roles is None:
                    left.append(
                        f"base {name!r}: is damaged, so that nobody knows whether it was of {who!r:.80}; if it was, "
                        f"delete it: chatglm knowledge remove {name!r}"
                    )
                elif roles.get(who) == "own" and not any(role == "own" for one, role in roles.items() if one != who):
                    self.delete(name, None)
                elif who in roles:
                    self.base(name, None).store.share(who, None)
            except NotFoundError:  # it was just deleted
                continue
            except ChatGLMError as error:
                left.append(f"base {name!r}: {who!r:.80} may still have rights in it ({error})")
        return left

    def close(self) -> None:
        """Close all open bases and the worker processes. A base that is used later is opened again."""
        with self._lock:
            opened, self._open = list(self._open.values()), OrderedDict()
        for base in opened:
            base.close()
        self._readers.close()
        if self._settling is not None:  # the next `Shelf` does the rest
            self._settling.join(_SETTLE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


_Stamp = tuple[int, ...]


def _stamp(file: Path) -> _Stamp:
    """A value that differs after every change of a base: device, inode, size and modification time of the file and of
    its write-ahead log. The last number is the later one of the two times, in nanoseconds.

    Reading a base may create an empty log, so an empty log counts as a missing one.
    """
    found: list[int] = []
    latest = 0
    for each in (file, file.with_name(file.name + "-wal")):
        try:
            seen = os.stat(each)
        except OSError:
            seen = None
        if seen is None or not seen.st_size:
            found += (0, 0, 0, 0)
            continue
        found += (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns)
        latest = max(latest, seen.st_mtime_ns)
    return *found, latest
