"""Users of the web page: names, passwords, and logins of browsers."""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import sqlite3
import threading
import time
import unicodedata
from collections import OrderedDict
from dataclasses import dataclass

from chatglm.database import Database
from chatglm.errors import InputError

__all__ = ["LOCAL", "SignInError", "TooManyTriesError", "User", "Users"]

LOCAL = "local"
"""Name of the user of this machine, who need not sign in."""

_LOGIN_SECONDS = 30 * 86400.0
_LOGINS = 20
_PASSWORD = range(8, 1025)
_NAME_CHARACTERS = 64
_GUEST = "browser-"
_GUEST_SECONDS = 400 * 86400.0  # the longest time for which browsers keep a cookie
_LARGEST = (1 << 63) - 1  # the largest integer of SQLite
_COST = (14, 8, 5)  # of scrypt: log2 of N, r, p: 16 MiB and a few tenths of a second
_TRIES, _TRIES_SECONDS = 5, 60.0
"""The most wrong passwords for one name within this number of seconds, from all clients together."""
_NAMES = 10_000
"""Number of names whose tries are remembered."""
_together = threading.BoundedSemaphore(2)  # passwords that are hashed at the same time


class SignInError(InputError):
    """The name or the password is wrong. The message does not tell which."""


class TooManyTriesError(SignInError):
    """Too many passwords were tried for one name. Nobody can sign in with it for a while.

    Attributes:
        retry_after: seconds until the next try is allowed.
    """

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"too many tries with this name; try again in {math.ceil(retry_after)} s")
        self.retry_after = retry_after


@dataclass(frozen=True)
class User:
    """One user.

    Attributes:
        id: never used again for another user.
        admin: whether this user may add and delete others.
        made: Unix seconds.
        guest: whether this is a browser where nobody had to sign in, and not a person's account.
    """

    id: int
    name: str
    admin: bool
    made: float
    guest: bool = False


class Users:
    """The users and logins in a store's database.

    Args:
        database: of a `Store`.
        login_seconds: a login ends this long after it began.
    """

    def __init__(self, database: Database, login_seconds: float = _LOGIN_SECONDS) -> None:
        self._database, self._login_seconds = database, login_seconds
        self._tries = _Tries()

    def local(self) -> User:
        """The user of this machine, who need not sign in and has no password. Made at the first call."""
        self._database.write(
            "INSERT INTO users (name, made, admin) VALUES (?, ?, 1) ON CONFLICT (name) DO NOTHING",
            (LOCAL, time.time()),
        )
        return self._named(LOCAL)

    def add(self, name: str, password: str, *, admin: bool = False) -> User:
        """Add a user.

        Raises:
            InputError: the name is taken, empty or too long, or the password is too short or too long.
        """
        name = _name(name)
        if name == LOCAL:
            raise InputError(f"user {name!r}: this name is reserved for the user who does not sign in; choose another")
        hashed = _hashed(_checked(password))
        try:
            self._database.write(
                "INSERT INTO users (name, password, made, admin) VALUES (?, ?, ?, ?)",
                (name, hashed, time.time(), int(admin)),
            )
        except sqlite3.IntegrityError:
            raise InputError(f"user {name!r}: the name is taken; choose another") from None
        return self._named(name)

    def guest(self) -> tuple[User, str]:
        """Add a user for a browser where nobody has to sign in; returns the user, and a token for `of_token`. Nobody
        can sign in as this user: if the browser loses the token, its conversations cannot be reached any more.
        """
        name, token, now = f"{_GUEST}{secrets.token_hex(8)}", secrets.token_urlsafe(32), time.time()
        with self._database.transaction() as connection:
            number = connection.execute("INSERT INTO users (name, made, admin) VALUES (?, ?, 0)", (name, now)).lastrowid
            connection.execute(
                "INSERT INTO logins (token_hash, user, until) VALUES (?, ?, ?)",
                (_token_hash(token), number, now + _GUEST_SECONDS),
            )
        return self._named(name), token

    def all(self, *, guests: bool = True) -> tuple[User, ...]:
        """All users, sorted by name.

        Args:
            guests: whether to include guests.
        """
        found = map(_user, self._database.read("SELECT * FROM users ORDER BY name"))
        return tuple(user for user in found if guests or not user.guest)

    def lost(self, most: int = 100) -> tuple[int, ...]:
        """At most `most` guests whose logins have all ended, so that no browser can come back to them."""
        rows = self._database.read(
            "SELECT id FROM users WHERE password IS NULL AND name LIKE ? AND NOT EXISTS "
            "(SELECT 1 FROM logins WHERE logins.user = users.id AND logins.until > ?) LIMIT ?",
            (f"{_GUEST}%", time.time(), most),
        )
        return tuple(row["id"] for row in rows)

    def name(self, user: int) -> str:
        """The name of a user.

        Raises:
            InputError: there is no such user.
        """
        found = self._database.read("SELECT name FROM users WHERE id = ?", (user,))
        if not found:
            raise InputError(f"user {user}: no such user")
        return str(found[0]["name"])

    def named(self, name: str) -> User:
        """The user with a name.

        Raises:
            InputError: there is no such user.
        """
        found = self._database.read("SELECT * FROM users WHERE name = ?", (_name(name),))
        if not found:
            raise InputError(f"user {name!r:.80}: no such user")
        return _user(found[0])

    def set_password(self, user: int, password: str) -> None:
        """Change a user's password, and end all logins of the user.

        Raises:
            InputError: there is no such user, or the password is too short or too long.
        """
        hashed = _hashed(_checked(password))
        with self._database.transaction() as connection:
            changed = connection.execute(
                "UPDATE users SET password = ? WHERE id = ?", (hashed, min(user, _LARGEST))
            ).rowcount
            if not changed:
                raise InputError(f"user {user}: no such user")
            connection.execute("DELETE FROM logins WHERE user = ?", (user,))

    def sign_in(self, name: str, password: str) -> str:
        """Begin a login; returns a token for `of_token`. Only the token's hash is stored. The newest 20 logins of a
        user stay valid.

        Raises:
            SignInError: the name or the password is wrong. Both take the same time.
            TooManyTriesError: five passwords for this name were wrong within a minute. The password is not checked
                then.
        """
        try:
            name = _name(name)
            rows = self._database.read("SELECT * FROM users WHERE name = ?", (name,))
        except InputError:
            name, rows = "", []
        tried = self._tries.begin(name)
        stored = rows[0]["password"] if rows else None
        password = password if len(password) < _PASSWORD.stop else ""
        right = hmac.compare_digest(_hashed(password, stored or _NOBODY), stored or _NOBODY)
        if not (right and stored):
            raise SignInError("the name or the password is wrong")
        user, token, now = rows[0]["id"], secrets.token_urlsafe(32), time.time()
        with self._database.transaction() as connection:
            # Since the password was checked, the user may have been deleted, or have got another password.
            if not connection.execute("SELECT 1 FROM users WHERE id = ? AND password = ?", (user, stored)).fetchone():
                raise SignInError("the name or the password is wrong")
            connection.execute(
                "INSERT INTO logins (token_hash, user, until) VALUES (?, ?, ?)",
                (_token_hash(token), user, now + self._login_seconds),
            )
            connection.execute("DELETE FROM logins WHERE until < ?", (now,))
            connection.execute(
                "DELETE FROM logins WHERE user = ? AND token_hash NOT IN "
                "(SELECT token_hash FROM logins WHERE user = ? ORDER BY until DESC LIMIT ?)",
                (user, user, _LOGINS),
            )
        self._tries.forgive(name, tried)
        return token

    def sign_in_local(self) -> str:
        """Begin a login for the user of this machine (`local`); returns a token for `of_token`."""
        user, token, now = self.local().id, secrets.token_urlsafe(32), time.time()
        self._database.write(
            "INSERT INTO logins (token_hash, user, until) VALUES (?, ?, ?)",
            (_token_hash(token), user, now + _GUEST_SECONDS),
        )
        return token

    def of_token(self, token: str) -> User | None:
        """The user of a login; None: the token is unknown, or its login has ended."""
        rows = self._database.read(
            "SELECT users.* FROM users JOIN logins ON logins.user = users.id "
            "WHERE logins.token_hash = ? AND logins.until > ?",
            (_token_hash(token), time.time()),
        )
        return _user(rows[0]) if rows else None

    def sign_out(self, token: str) -> None:
        """End a login, if there is one."""
        self._database.write("DELETE FROM logins WHERE token_hash = ?", (_token_hash(token),))

    def _named(self, name: str) -> User:
        return _user(self._database.read("SELECT * FROM users WHERE name = ?", (name,))[0])


class _Tries:
    """Counts wrong passwords by name, within the last minute."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: OrderedDict[str, list[float]] = OrderedDict()

    def begin(self, name: str) -> float:
        """Count a try before its result is known, so that many tries at the same time are all counted.

        Raises:
            TooManyTriesError: there were too many.
        """
        now = time.monotonic()
        with self._lock:
            tries = [each for each in self._of.get(name, ()) if each > now - _TRIES_SECONDS]
            self._of[name] = tries
            self._of.move_to_end(name)
            if len(self._of) > _NAMES:
                self._of.popitem(last=False)
            if len(tries) >= _TRIES:
                raise TooManyTriesError(tries[-_TRIES] + _TRIES_SECONDS - now)
            tries.append(now)
            return now

    def forgive(self, name: str, tried: float) -> None:
        """Uncount a try, because its password was right."""
        with self._lock:
            if tried in self._of.get(name, ()):
                self._of[name].remove(tried)


def _user(row: sqlite3.Row) -> User:
    guest = row["password"] is None and row["name"] != LOCAL
    return User(row["id"], row["name"], bool(row["admin"]), row["made"], guest)


def _name(name: str) -> str:
    """The form of a name for comparison: normalised letters, without regard to case."""
    plain = unicodedata.normalize("NFKC", name[: 4 * _NAME_CHARACTERS]).casefold().strip()
    if not plain or len(plain) > _NAME_CHARACTERS or not plain.isprintable():
        raise InputError(f"name {name[:80]!r}: must have 1 to {_NAME_CHARACTERS} printable characters")
    return plain


def _checked(password: str) -> str:
    if len(password) not in _PASSWORD:
        raise InputError(f"password: must have {_PASSWORD.start} to {_PASSWORD.stop - 1:,} characters")
    return password


def _token_hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _hashed(password: str, like: bytes | None = None) -> bytes:
    """Hash a password: three bytes of cost, 16 bytes of salt, 32 bytes of scrypt's result.

    Args:
        like: a stored hash, whose cost and salt are used.
    """
    cost = tuple(like[:3]) if like else _COST
    salt = like[3:19] if like else secrets.token_bytes(16)
    text = unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")
    with _together:
        result = hashlib.scrypt(text, salt=salt, n=1 << cost[0], r=cost[1], p=cost[2], maxmem=256 << 20, dklen=32)
    return bytes(cost) + salt + result


_NOBODY = bytes(_COST) + bytes(48)  # compared with the password if the name is unknown
