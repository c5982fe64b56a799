"""Sources of API keys: the environment, a file that somebody wrote, and the keys that `chatglm keys add` made.

A made key's secret is not stored. It follows from a master secret and the key's id (HMAC), and the database has its
SHA-256. So nobody can read a secret from the database; and because the server can compute the secret again, it can
verify tokens that clients sign with it, for which a hash is not enough. The master secret is in a separate file, which
only this user may read: a backup of the database does not contain it.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from chatglm.database import Database
from chatglm.errors import InputError, OutputError
from chatglm.home import home_folder
from chatglm.serving.access.keys import ACTIONS, Credential, Key, digest_of, id_of

__all__ = ["KeyFile", "KeyStore", "Texts", "key_fields", "written"]

log = logging.getLogger("chatglm.serving")

_LENGTHS = range(8, 513)  # characters of a key that somebody wrote
_FILE_BYTES = 1 << 20
_MOST = 10_000  # keys of a file
_NAME = r"[^\W_][\w.@-]{0,63}"
_LIMIT = 10**9


# Fields


def _is_name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(_NAME, value):
        raise ValueError("a name of up to 64 letters, digits and . _ @ -, beginning with a letter or digit")
    return value


def _are_models(value: Any) -> frozenset[str]:
    if not isinstance(value, list) or not value or not all(isinstance(one, str) and one for one in value):
        raise ValueError("a list of model names")
    return frozenset(value)


def _are_actions(value: Any) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) and one in ACTIONS for one in value):
        raise ValueError(f"a list of {', '.join(ACTIONS)}")
    return frozenset(value)


def _is_limit(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _LIMIT:
        raise ValueError(f"a whole number from 1 to {_LIMIT:,}")
    return value


def _is_time(value: Any) -> float:
    """Unix seconds of a date. A date without a time is its beginning in UTC."""
    if isinstance(value, str):
        try:
            value = datetime.datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", value))
        except ValueError:
            value = None
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day)
    if not isinstance(value, datetime.datetime):
        raise ValueError("a date such as 2030-12-31 or 2030-12-31T12:00Z")
    return (value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)).timestamp()


_FIELDS: dict[str, Callable[[Any], Any]] = {
    "name": _is_name,
    "models": _are_models,
    "expires": _is_time,
    "requests_per_minute": _is_limit,
    "tokens_per_minute": _is_limit,
    "concurrency": _is_limit,
    "may": _are_actions,
}


def key_fields(given: Mapping[str, Any], place: str, shown: Callable[[str], str] = str) -> dict[str, Any]:
    """What `Key` takes, from what somebody wrote. None stands for what is left out.

    Args:
        given: by the names of `Key`'s attributes. Times are dates: `2030-12-31` or `2030-12-31T12:00Z`.
        place: where it was written, for errors; "": the field names the place.
        shown: a field's name as its writer knows it.

    Raises:
        InputError: a field is unknown, or its value wrong.
    """
    found = {}
    for name, value in given.items():
        where = f"{place}: {shown(name)}" if place else shown(name)
        if name not in _FIELDS:
            raise InputError(f"{where}: unknown field; fields are key, {', '.join(_FIELDS)}")
        if value is not None:
            try:
                found[name] = _FIELDS[name](value)
            except ValueError as error:
                raise InputError(f"{where}: expected {error}") from None
    return found


# Keys that somebody wrote


def written(entries: Iterable[tuple[Mapping[str, Any], str]], where: str) -> list[Credential]:
    """Keys whose text a person has chosen.

    Args:
        entries: the fields of each key (`key_fields`, and its text as `key`) and its place for errors.
        where: names the source; keys without a `name` are named after it and their number.

    Raises:
        InputError: a text cannot be a key, or two keys have the same id or name. The message does not repeat the key.
    """
    found: dict[str, Credential] = {}
    names: set[str] = set()
    for number, (fields, place) in enumerate(entries, 1):
        text = fields.get("key")
        if not isinstance(text, str) or not re.fullmatch(r"[!-~]+", text) or "," in text:
            raise InputError(f"{place}: a key is a text of ASCII letters, digits and signs, without blanks and commas")
        if len(text) not in _LENGTHS:
            raise InputError(f"{place}: has {len(text)} characters; keys have {_LENGTHS[0]} to {_LENGTHS[-1]}")
        parted = re.fullmatch(r"([A-Za-z0-9_-]{1,64})\.([^.]+)", text)
        made = parted[1] if parted else id_of(text)
        if made in found:
            raise InputError(f"{place}: another key has the same id (the part before the dot); remove one")
        rest = {name: value for name, value in fields.items() if name != "key"}
        key = Key(made, **{"name": f"{where}-{number}", **key_fields(rest, place)})
        if key.name in names:
            raise InputError(f"{place}: another key has the name {key.name!r}, too; change one")
        names.add(key.name)
        found[made] = Credential(key, digest_of(text), parted[2].encode() if parted else None)
    return list(found.values())


class Texts:
    """Keys that are given as texts, for example in the environment.

    Args:
        texts: the keys.
        where: names the source in errors; the keys' names begin with it.

    Raises:
        InputError: as `written`.
    """

    def __init__(self, texts: Iterable[str], where: str) -> None:
        entries = [({"key": text}, f"{where}: key {number}") for number, text in enumerate(texts, 1)]
        self._credentials = written(entries, where)

    def changed(self) -> bool:
        return False

    def credentials(self) -> Sequence[Credential]:
        return self._credentials


class KeyFile:
    """Keys in a file, which is read again when it changes.

    A file whose name ends in `.yaml` or `.yml` has a list `keys` of mappings with `key` and the fields of `key_fields`.
    Any other has one key a line, which a name may follow; lines that begin with `#` are comments.

    Args:
        file: at most 1 MiB.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seen: Any = None

    def changed(self) -> bool:
        return self._stamp() != self._seen

    def _stamp(self) -> Any:
        try:
            found = self._file.stat()
        except OSError as error:
            raise self._unreadable(error) from None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _unreadable(self, error: OSError) -> InputError:
        return InputError(f"{self._file}: cannot be read ({error.strerror}); --keys takes a file with API keys")

    def credentials(self) -> Sequence[Credential]:
        """
        Raises:
            InputError: the file cannot be read, or something in it is wrong; the message names the line or the key.
        """
        self._seen = self._stamp()
        try:
            with self._file.open("rb") as file:
                data = file.read(_FILE_BYTES + 1)
        except OSError as error:
            self._seen = None  # read it again at the next look
            raise self._unreadable(error) from None
        if len(data) > _FILE_BYTES:
            raise InputError(f"{self._file}: has more than {_FILE_BYTES:,} bytes, the limit for a file of keys")
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise InputError(f"{self._file}: is not UTF-8 text") from None
        is_yaml = self._file.suffix.lower() in (".yaml", ".yml")
        entries = list(self._of_yaml(text) if is_yaml else self._of_lines(text))
        if len(entries) > _MOST:
            raise InputError(f"{self._file}: has {len(entries):,} keys; at most {_MOST:,} are supported")
        return written(entries, "file")

    def _of_lines(self, text: str) -> Iterable[tuple[Mapping[str, Any], str]]:
        for number, line in enumerate(text.split("\n"), 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            place = f"{self._file}, line {number}"
            if len(words) > 2:
                raise InputError(f"{place}: expected a key, which a name may follow")
            yield dict(zip(("key", "name"), words, strict=False)), place

    def _of_yaml(self, text: str) -> Iterable[tuple[Mapping[str, Any], str]]:
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            place = f", line {mark.line + 1}" if mark else ""
            raise InputError(
                f"{self._file}{place}: is not YAML: {getattr(error, 'problem', None) or 'a wrong value'}"
            ) from None
        entries = value.get("keys") if isinstance(value, dict) and len(value) == 1 else None
        if not isinstance(entries, list):
            raise InputError(f"{self._file}: expected one list, `keys:`, with a `key:` in each entry")
        for number, entry in enumerate(entries, 1):
            place = f"{self._file}: key {number}"
            if not isinstance(entry, dict) or not all(isinstance(name, str) for name in entry):
                raise InputError(f"{place}: expected fields: key, {', '.join(_FIELDS)}")
            yield entry, place


# Keys that were made here

_MIGRATIONS = (
    """
    CREATE TABLE keys (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        digest BLOB NOT NULL,
        models TEXT,
        expires REAL,
        requests_per_minute INTEGER,
        tokens_per_minute INTEGER,
        concurrency INTEGER,
        may TEXT NOT NULL,
        created REAL NOT NULL
    ) STRICT
    """,
)
_COLUMNS = "id, name, digest, models, expires, requests_per_minute, tokens_per_minute, concurrency, may, created"


class KeyStore:
    """The keys of a home folder: `keys.db`, and the master secret in `keys.secret`.

    Args:
        folder: made when the first key is added; until then there are none.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._file = folder, folder / "keys.db"
        self._database: Database | None = None
        self._inode: int | None = None
        self._seen: Any = None

    def _open(self) -> Database | None:
        """The database; None if there is none (any more)."""
        try:
            inode = self._file.stat().st_ino
        except FileNotFoundError:
            inode = None
        except OSError as error:
            raise OutputError(f"{self._file}: cannot be read ({error.strerror}); correct its permissions") from None
        if inode != self._inode:
            self.close()
            if inode is not None:
                self._database = Database(self._file, _MIGRATIONS)
            self._inode = inode
        return self._database

    def close(self) -> None:
        """Close the file. It may be called again."""
        if self._database is not None:
            self._database.close()
        self._database = self._inode = None

    def changed(self) -> bool:
        return self._stamp() != self._seen

    def _stamp(self) -> Any:
        database = self._open()
        return database and (self._inode, database.read("PRAGMA data_version")[0][0])

    def credentials(self) -> Sequence[Credential]:
        """
        Raises:
            OutputError: the database or the master secret cannot be read.
        """
        # Only after all is read: if something fails, it is read again at the next look.
        seen, self._seen = self._stamp(), None
        database = self._open()
        if database is None:
            return []
        master = self._master()
        found = []
        for row in database.read(f"SELECT {_COLUMNS} FROM keys ORDER BY created, name"):
            key = Key(
                row["id"],
                row["name"],
                None if row["models"] is None else frozenset(json.loads(row["models"])),
                row["expires"],
                row["requests_per_minute"],
                row["tokens_per_minute"],
                row["concurrency"],
                frozenset(json.loads(row["may"])),
                row["created"],
            )
            secret = None if master is None else _secret(master, key.id)
            if secret is None or digest_of(f"{key.id}.{secret}") != row["digest"]:
                log.warning(
                    "%s is not the one that the API key %r was made with: tokens that are signed with this key cannot "
                    "be verified",
                    self._folder / "keys.secret",
                    key.name,
                )
                secret = None
            found.append(Credential(key, row["digest"], secret.encode() if secret else None))
        self._seen = seen
        return found

    def keys(self) -> list[Key]:
        """
        Raises:
            OutputError: as `credentials`.
        """
        return [found.key for found in self.credentials()]

    def add(self, name: str, **fields: Any) -> tuple[Key, str]:
        """Make a key.

        Args:
            name: must not be the name of another key.
            fields: other attributes of `Key`.

        Returns:
            The key and its text, `id.secret`, which cannot be shown again.

        Raises:
            InputError: a key has this name.
            OutputError: it cannot be stored.
        """
        home_folder(self._folder)
        database = self._open()
        if database is None:
            database = self._database = Database(self._file, _MIGRATIONS)
            self._inode = self._file.stat().st_ino
        key = Key(secrets.token_hex(8), name, **{**fields, "created": time.time()})
        with database.transaction() as connection:  # only one of several processes makes the master secret
            if connection.execute("SELECT 1 FROM keys WHERE name = ?", (name,)).fetchone():
                raise InputError(f"--name {name}: a key has this name; choose another, or remove that key first")
            text = f"{key.id}.{_secret(self._master() or self._make_master(), key.id)}"
            values = (
                key.id,
                key.name,
                digest_of(text),
                None if key.models is None else json.dumps(sorted(key.models)),
                key.expires,
                key.requests_per_minute,
                key.tokens_per_minute,
                key.concurrency,
                json.dumps(sorted(key.may)),
                key.created,
            )
            marks = ", ".join("?" * len(values))
            connection.execute(f"INSERT INTO keys ({_COLUMNS}) VALUES ({marks})", values)
        return key, text

    def remove(self, named: str) -> Key:
        """Remove a key, by its name or id. Running servers refuse it from then on.

        Raises:
            InputError: there is none.
        """
        keys = self.keys()
        found = [key for key in keys if key.name == named] or [key for key in keys if key.id == named]
        database = self._open()
        if not found or database is None or not database.write("DELETE FROM keys WHERE id = ?", (found[0].id,)):
            known = ", ".join(key.name for key in keys[:20])
            raise InputError(
                f"{named}: no key has this name or id; " + (f"known: {known}" if known else "there are no keys")
            )
        return found[0]

    def _master(self) -> bytes | None:
        """The master secret; None if there is none."""
        file = self._folder / "keys.secret"
        try:
            text = file.read_bytes().strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OutputError(f"{file}: cannot be read ({error.strerror}); correct its permissions") from None
        if not re.fullmatch(rb"[0-9a-f]{64}", text):
            raise OutputError(
                f"{file}: is not the secret that the keys were made with; restore that file, or delete this one"
            )
        return bytes.fromhex(text.decode())

    def _make_master(self) -> bytes:
        made = secrets.token_bytes(32)
        file, partial = self._folder / "keys.secret", self._folder / "keys.secret.partial"
        try:
            partial.unlink(missing_ok=True)
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(made.hex().encode() + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(file)
        except OSError as error:
            raise OutputError(
                f"{file}: cannot be written ({error.strerror}); free disk space, or correct its permissions"
            ) from None
        return made


def _secret(master: bytes, key_id: str) -> str:
    """192 bits of HMAC-SHA-256 in hexadecimal, which needs no escaping in a header, a shell or a signature."""
    return hmac.new(master, b"chatglm api key " + key_id.encode(), hashlib.sha256).hexdigest()[:48]
