"""Deleted bases whose documents may still be in external stores.

Before the file of a base is deleted, a note beside it names the external stores that have documents of the base. The
note is deleted when these stores have no such documents any more. If a store cannot be reached, or the process is
killed, the note stays, and `check_deleted` tries again.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from chatglm.errors import InputError, OutputError
from chatglm.knowledge.places import emptied, place_of
from chatglm.knowledge.store import base_file, base_names, folder_of, glance, part_of

__all__ = ["Note", "check_deleted", "note_of", "noted"]

_SUFFIX = ".deleted"
_BYTES = 1 << 20


@dataclass(frozen=True)
class Note:
    """The note of a base that is being deleted, or was deleted.

    Attributes:
        file: the file of the note. It contains the other attributes as a JSON object.
        name: the name of the base.
        id: the id of the base.
        places: the addresses of the external stores, in the form of `places.place_of`.
    """

    file: Path
    name: str
    id: str
    places: tuple[str, ...]

    def settle(self) -> list[str]:
        """Delete the documents of the base from the external stores, then the note. Call it when the base is deleted.

        Returns:
            one sentence for each store that may still have documents.
        """
        again = "`chatglm knowledge check --repair` tries again"
        found = [f"{why}; {again}" for why in emptied(self.places, self.id).values() if why]
        if not found:
            self.drop()
        return found

    def drop(self) -> None:
        """Delete the note. It may be deleted already."""
        with contextlib.suppress(OSError):
            self.file.unlink(missing_ok=True)


def note_of(base: Path, known: str, places: Sequence[str]) -> Note:
    """Write the note of a base that is about to be deleted.

    Args:
        base: the file of the base.
        known: the id of the base.
        places: the addresses of the external stores.

    Raises:
        OutputError: the note cannot be written.
    """
    note = Note(base.with_name(f".{secrets.token_hex(8)}{_SUFFIX}"), base.stem, known, tuple(places))
    part = part_of(base)
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump({"name": note.name, "id": note.id, "places": note.places}, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(note.file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"{note.file}: cannot be written ({error.strerror}); the base was not deleted") from None
    return note


def noted(home: Path | None = None) -> bool:
    """Whether there is a note: see `check_deleted`."""
    return any(_files(home))


def check_deleted(home: Path | None = None, *, repair: bool = False) -> list[str]:
    """Check whether external stores may still have documents of deleted bases.

    Args:
        home: the home folder; None: that of `CHATGLM_HOME`.
        repair: delete these documents.

    Returns:
        sentences about stores that may still have documents, and about notes that cannot be read.
    """
    found: list[str] = []
    notes: list[Note] = []
    for file in sorted(_files(home)):
        try:
            notes.append(_read(file))
        except FileNotFoundError:  # another process has just settled it
            continue
        except (OSError, ValueError, KeyError, TypeError, RecursionError, InputError):
            found.append(f"{file}: cannot be read; it names external stores that may have texts of a deleted base")
    if not notes:
        return found
    try:
        there = {glance(base_file(name, home)).id for name in base_names(home)}
    except OutputError as error:  # the unreadable base may be one that has a note, but was not deleted
        return [*found, f"external stores may still have texts of deleted bases; they are kept, because {error}"]
    for note in notes:
        if note.id in there:  # the process was killed before it deleted the base
            continue
        if repair:
            found += [f"{note.name} was deleted, but {why}" for why in note.settle()]
        else:
            where = "; ".join(place_of(place).where for place in note.places)
            found.append(f"{note.name} was deleted, but texts of the base may still be in {where}")
    return found


def _files(home: Path | None) -> Iterator[Path]:
    return folder_of(home).glob(f".*{_SUFFIX}")


def _read(file: Path) -> Note:
    with file.open("rb") as opened:
        told = json.loads(opened.read(_BYTES))
    name, known, places = told["name"], told["id"], told["places"]
    if not (isinstance(name, str) and isinstance(known, str) and isinstance(places, list)):
        raise TypeError
    return Note(file, name, known, tuple(str(place_of(place)) for place in places))
