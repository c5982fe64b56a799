"""All users' conversations in one database.

Every method needs a user, and none touches what belongs to another user: the id of another user's conversation is
treated as if it did not exist. When a method returns, its changes survive the end of the process, however it ends.
Threads and processes may use one file at the same time.
"""

from __future__ import annotations

import json
import re
import secrets
import sqlite3
import threading
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast

from chatglm.chat.calls import as_json
from chatglm.chat.messages import Message
from chatglm.conversation.tree import Tree, Turn
from chatglm.conversation.users import Users
from chatglm.conversation.words import TOKENS, Snippet, query_of, snippet_of, tokens_of
from chatglm.database import Database, Instance
from chatglm.errors import BusyError, InputError, NotFoundError, OutputError, QueueFullError
from chatglm.home import home_folder

__all__ = ["BEGINNING", "Conversation", "Draft", "File", "Found", "Question", "Store", "StoreLimits", "uploads_with"]

FileKind = Literal["upload", "picture", "produced"]

BEGINNING = 0
"""Stands for the beginning of a conversation, before all turns, if a method asks for a turn."""

_ID = re.compile(r"[0-9a-f]{32}")
_FINISHES = ("stop", "length", "tool_calls", "stopped")

_MIGRATIONS = (
    """
    CREATE TABLE users (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        password BLOB,
        made REAL NOT NULL,
        admin INTEGER NOT NULL
    );
    CREATE TABLE logins (
        token_hash BLOB NOT NULL PRIMARY KEY,
        user INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        until REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX logins_of ON logins (user, until);
    CREATE TABLE conversations (
        id TEXT NOT NULL PRIMARY KEY,
        user INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        title TEXT NOT NULL,
        mode TEXT NOT NULL,
        settings TEXT NOT NULL,
        leaf INTEGER,
        turns INTEGER NOT NULL DEFAULT 0,
        bytes INTEGER NOT NULL DEFAULT 0,
        made REAL NOT NULL,
        changed REAL NOT NULL
    );
    CREATE INDEX conversations_of ON conversations (user, changed, bytes);
    CREATE TABLE turns (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        conversation TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
        parent INTEGER,
        message TEXT NOT NULL,
        finish TEXT,
        rating INTEGER NOT NULL DEFAULT 0,
        edited INTEGER NOT NULL DEFAULT 0,
        made REAL NOT NULL
    );
    CREATE INDEX turns_of ON turns (conversation);
    CREATE TABLE files (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        conversation TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
        turn INTEGER,
        name TEXT NOT NULL,
        kind TEXT NOT NULL,
        size INTEGER NOT NULL,
        sha256 TEXT NOT NULL,
        made REAL NOT NULL
    );
    CREATE INDEX files_of ON files (conversation);
    CREATE VIRTUAL TABLE words USING fts5 (
        owner, tokens, content = '', tokenize = "ascii tokenchars '_'", prefix = '1'
    );
    CREATE TABLE indexed (tokens INTEGER NOT NULL)
    """,
    """
    ALTER TABLE turns ADD COLUMN details TEXT;
    ALTER TABLE conversations ADD COLUMN writer TEXT
    """,
)
# `writer` is the process that makes an answer, see `Instance`.
# `words` has the tokens of every finished turn under the turn's id, and none of open turns. It does not store texts: to
# remove a turn, FTS5 must be given exactly the tokens that were added. `indexed` tells their version.
_TODAYS = "SELECT 1 FROM indexed WHERE tokens = ?"


@dataclass(frozen=True)
class StoreLimits:
    """Limits of a store.

    Attributes:
        conversations: of one user.
        bytes: of all of a user's messages, settings and files.
        turns: of one conversation, on all branches.
        message: bytes of one message as JSON.
        settings: bytes of a conversation's settings as JSON.
        files: of one conversation.
    """

    conversations: int = 10_000
    bytes: int = 1 << 30
    turns: int = 10_000
    message: int = 4 << 20
    settings: int = 256 << 10
    files: int = 1_000


@dataclass(frozen=True)
class Conversation:
    """A conversation without its turns.

    Attributes:
        settings: JSON values: model, adapter, sampling parameters, system prompt, tools, character, summary.
        leaf: the turn that it is at; None: its beginning.
        made, changed: Unix seconds.
    """

    id: str
    title: str
    mode: str
    settings: Mapping[str, Any]
    leaf: int | None
    made: float
    changed: float


@dataclass(frozen=True)
class Draft:
    """A conversation to be made; see `Store.make`."""

    title: str = ""
    mode: str = "chat"
    settings: Mapping[str, Any] = field(default_factory=dict)
    messages: Sequence[Message] = ()


@dataclass(frozen=True)
class Found:
    """A turn that a search found.

    Attributes:
        title, mode: of its conversation.
    """

    conversation: str
    title: str
    mode: str
    turn: int
    role: str
    snippet: Snippet


@dataclass(frozen=True)
class File:
    """Facts about a file. Its content is in the conversation's folder.

    Attributes:
        turn: the turn that it came with; None: it belongs to the whole conversation.
        size: in bytes.
    """

    id: int
    turn: int | None
    name: str
    kind: FileKind
    size: int
    sha256: str


@dataclass(frozen=True)
class Question:
    """A question that must be answered.

    Attributes:
        conversation: as it was before the question.
        turn: the user's turn.
        tree, files: of the conversation, including the question.
        title: the title that the conversation got from the question; "": it had one.
    """

    conversation: Conversation
    turn: Turn
    tree: Tree
    files: tuple[File, ...]
    title: str = ""


def uploads_with(tree: Tree, turn: Turn, files: Sequence[File]) -> tuple[File, ...]:
    """The uploads that came with a user's turn. For an edited turn, also those of its siblings."""
    places = {sibling.id for sibling in tree.siblings(turn.id)} if turn.edited else {turn.id}
    return tuple(file for file in files if file.kind == "upload" and file.turn in places)


class Store:
    """The database of conversations.

    Args:
        file: made if it is missing, readable only by this user of the machine; None: `conversations.sqlite` in the home
            folder.

    Raises:
        OutputError: the file cannot be made or read, is not a database, or was written by a newer chatglm. It is not
            changed then.
    """

    def __init__(self, file: Path | None = None, limits: StoreLimits | None = None) -> None:
        self.limits = limits or StoreLimits()
        self.file = file or home_folder() / "conversations.sqlite"
        # An answer takes six transactions. With fifty users, most of the waiting would be for the disk.
        self._database = Database(self.file, _MIGRATIONS, at_once=False)
        self._instance: Instance | None = None
        self._lock = threading.Lock()
        self.users = Users(self._database)
        try:
            self._database.read("PRAGMA secure_delete = ON")  # deleted data are overwritten
            if not self._database.read(_TODAYS, (TOKENS,)):
                self._index_anew()
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        """Close the file. It may be called again."""
        with self._lock:
            if self._instance is not None:
                self._instance.close()
                self._instance = None
        self._database.close()

    # Conversations

    def make(
        self,
        user: int,
        *,
        title: str = "",
        mode: str = "chat",
        settings: Mapping[str, Any] | None = None,
        messages: Sequence[Message] = (),
    ) -> str:
        """Make a conversation; returns its id.

        Args:
            messages: its first turns, one after the other, as from an import.

        Raises:
            NotFoundError: there is no such user.
            InputError: the settings are not JSON, or something is too large.
            QueueFullError: the user has too many conversations, or too much stored.
        """
        (name,) = self.make_all(user, [Draft(title, mode, settings or {}, messages)])
        return name

    def make_all(self, user: int, drafts: Sequence[Draft]) -> list[str]:
        """Make several conversations, all or none; returns their ids.

        Raises:
            NotFoundError, InputError, QueueFullError: as `make`; none was made.
        """
        packed = []
        for draft in drafts:
            if len(draft.messages) > self.limits.turns:
                raise InputError(f"{len(draft.messages):,} messages: a conversation has at most {self.limits.turns:,}")
            packed.append((draft, self._settings(draft.settings), [self._json(message) for message in draft.messages]))
        names = []
        with self._database.transaction() as connection:
            if not connection.execute("SELECT 1 FROM users WHERE id = ?", (_number(user),)).fetchone():
                raise NotFoundError(f"user {user}: no such user")
            for draft, settings, texts in packed:
                names.append(self._make(connection, user, draft, settings, texts))
        return names

    def _make(
        self, connection: sqlite3.Connection, user: int, draft: Draft, settings: str, texts: Sequence[str]
    ) -> str:
        name, now = secrets.token_hex(16), time.time()
        (have,) = connection.execute("SELECT count(*) FROM conversations WHERE user = ?", (user,)).fetchone()
        if have >= self.limits.conversations:
            raise QueueFullError(f"there are {have:,} conversations, which is the limit; delete some")
        connection.execute(
            "INSERT INTO conversations (id, user, title, mode, settings, made, changed) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (name, user, _title(draft.title), _line(draft.mode, 40), settings, now, now),
        )
        self._take(connection, user, name, sum(map(_size, (settings, *texts))))
        leaf = None
        for message, text in zip(draft.messages, texts, strict=True):
            leaf = self._insert(connection, user, name, leaf, message, text, "stop", False, now).id
        return name

    def conversation(self, user: int, conversation: str) -> Conversation:
        """A conversation, by its id.

        Raises:
            NotFoundError: the user has no conversation with this id.
        """
        rows = self._database.read(
            "SELECT * FROM conversations WHERE id = ? AND user = ?", (_id(conversation), _number(user))
        )
        if not rows:
            raise _no_conversation(conversation)
        return self._conversation(rows[0])

    def conversations(self, user: int, *, limit: int = 50, offset: int = 0) -> tuple[Conversation, ...]:
        """The user's conversations, the last changed one first.

        Args:
            limit: number of conversations, at most 200.
            offset: number of conversations to skip.
        """
        rows = self._database.read(
            "SELECT * FROM conversations WHERE user = ? ORDER BY changed DESC, rowid DESC LIMIT ? OFFSET ?",
            (_number(user), max(0, min(limit, 200)), _number(max(0, offset))),
        )
        return tuple(map(self._conversation, rows))

    def rename(self, user: int, conversation: str, title: str) -> None:
        """Set the title: one line, of which 200 characters are kept.

        Raises:
            NotFoundError: the user has no such conversation.
        """
        with self._own(user, conversation) as (connection, _):
            connection.execute("UPDATE conversations SET title = ? WHERE id = ?", (_title(title), conversation))

    def configure(self, user: int, conversation: str, settings: Mapping[str, Any], mode: str | None = None) -> None:
        """Replace the settings, and the mode if it is given.

        Raises:
            NotFoundError: the user has no such conversation.
            InputError: they are not JSON, or too large.
            QueueFullError: the user has too much stored.
        """
        written = self._settings(settings)
        with self._own(user, conversation) as (connection, row):
            self._take(connection, user, conversation, _size(written) - _size(row["settings"]))
            connection.execute(
                "UPDATE conversations SET settings = ?, mode = ? WHERE id = ?",
                (written, row["mode"] if mode is None else _line(mode, 40), conversation),
            )

    def delete(self, user: int, conversation: str) -> None:
        """Delete a conversation with all turns. The caller deletes the contents of its files. Single words, without
        order, may stay in the index for a while, but no search finds them.

        Raises:
            NotFoundError: the user has no such conversation.
        """
        with self._own(user, conversation) as (connection, _):
            self._delete(connection, user, conversation)

    def delete_user(self, user: int) -> tuple[str, ...]:
        """Delete a user with all conversations and logins. Nothing of them stays in the database.

        Returns:
            Ids of the deleted conversations. The caller deletes the contents of their files.

        Raises:
            NotFoundError: there is no such user.
        """
        user = _number(user)
        with self._database.transaction() as connection:
            rows = connection.execute("SELECT id FROM conversations WHERE user = ?", (user,)).fetchall()
            for row in rows:
                self._delete(connection, user, row["id"])
            if not connection.execute("DELETE FROM users WHERE id = ?", (user,)).rowcount:
                raise NotFoundError(f"user {user}: no such user")
            # The index keeps the words of removed turns until it is optimised.
            connection.execute("INSERT INTO words (words) VALUES ('optimize')")
        return tuple(row["id"] for row in rows)

    def used(self, user: int) -> int:
        """Bytes of all of the user's messages, settings and files."""
        ((used,),) = self._database.read(
            "SELECT coalesce(sum(bytes), 0) FROM conversations WHERE user = ?", (_number(user),)
        )
        return int(used)

    # Turns

    def tree(self, user: int, conversation: str) -> Tree:
        """All turns of a conversation.

        Raises:
            NotFoundError: the user has no such conversation.
            OutputError: the file is damaged.
        """
        rows = self._database.read(
            "SELECT conversations.leaf, turns.* FROM conversations "
            "LEFT JOIN turns ON turns.conversation = conversations.id "
            "WHERE conversations.id = ? AND conversations.user = ? ORDER BY turns.id",
            (_id(conversation), _number(user)),
        )
        if not rows:
            raise _no_conversation(conversation)
        try:
            return Tree.of((self._turn(row) for row in rows if row["id"] is not None), rows[0]["leaf"])
        except InputError as error:
            raise self._damaged(f"conversation {conversation}", error) from None

    def add(
        self,
        user: int,
        conversation: str,
        message: Message,
        *,
        parent: int | None = None,
        finish: str | None = "stop",
    ) -> Turn:
        """Add a turn. The conversation is then at this turn.

        Args:
            parent: the turn before it; 0: it begins the conversation; None: the turn that the conversation is at.
            finish: None: the turn is open; `keep` and `finish` write it later.

        Raises:
            NotFoundError: the user has no such conversation, or it has no such turn.
            InputError: the message is too large, or there are too many turns.
            QueueFullError: the user has too much stored.
        """
        if finish is not None:
            _check_finish(finish)
        text = self._json(message)
        with self._own(user, conversation) as (connection, row):
            if parent is None:
                parent = row["leaf"]
            elif parent == BEGINNING:
                parent = None
            else:
                self._row(connection, conversation, parent)
            self._take(connection, user, conversation, _size(text))
            return self._insert(connection, user, conversation, parent, message, text, finish, False, time.time())

    def ask(
        self, user: int, conversation: str, message: Message, *, files: Sequence[str] = (), title: str = ""
    ) -> Question:
        """Add a question. From now on this process answers it, until `end`. Turns that a dead process left open are
        closed. This is one transaction: it happens completely or not at all.

        Args:
            files: names of uploads that belong to the question. Uploads that belong to no question yet are added.
            title: title for the conversation, if it has none.

        Raises:
            NotFoundError: the user has no such conversation.
            BusyError: another process answers in it.
            InputError: the message is too large, there are too many turns, or there is no such upload.
            QueueFullError: the user has too much stored.
        """
        text, instance = self._json(message), self._living()
        with self._own(user, conversation) as (connection, row):
            self._answer(connection, row, instance)
            self._take(connection, user, conversation, _size(text))
            turn = self._insert(connection, user, conversation, row["leaf"], message, text, "stop", False, time.time())
            self._attach(connection, conversation, turn.id, files)
            title = "" if row["title"] else _title(title)
            if title:
                connection.execute("UPDATE conversations SET title = ? WHERE id = ?", (title, conversation))
            return Question(
                self._conversation(row), turn, self.tree(user, conversation), self.files(user, conversation), title
            )

    def ask_again(self, user: int, conversation: str, turn: int, text: str | None = None) -> Question:
        """Ask an existing question again; otherwise the same as `ask`.

        Args:
            turn: the question, a user's turn.
            text: another text: a sibling of the question is made with it, and asked instead.

        Raises:
            NotFoundError: the user has no such conversation, or it has no such turn.
            BusyError, InputError, QueueFullError: as `ask`.
        """
        instance = self._living()
        with self._own(user, conversation) as (connection, row):
            asked = self._turn(self._row(connection, conversation, turn))
            self._answer(connection, row, instance)
            if text is not None:
                asked = self._edit(connection, user, conversation, turn, text)
            return Question(
                self._conversation(row), asked, self.tree(user, conversation), self.files(user, conversation)
            )

    def end(self, user: int, conversation: str) -> None:
        """Note that the answer has ended. Turns that are still open are closed as "stopped".

        Raises:
            NotFoundError: the user has no such conversation.
        """
        with self._own(user, conversation) as (connection, _):
            self._end(connection, user, conversation)

    def recover(self, user: int, conversation: str) -> bool:
        """Close turns that a dead process left open; returns whether there were any. If another process makes an answer
        in the conversation, nothing is changed.

        Raises:
            NotFoundError: the user has no such conversation.
        """
        rows = self._database.read(
            "SELECT EXISTS (SELECT 1 FROM turns WHERE conversation = conversations.id AND finish IS NULL) "
            "FROM conversations WHERE id = ? AND user = ?",
            (_id(conversation), _number(user)),
        )
        if not rows:
            raise _no_conversation(conversation)
        if not rows[0][0]:
            return False
        with self._own(user, conversation) as (connection, row):
            if self._written_elsewhere(row):
                return False
            self._close_turns(connection, user, conversation)
        return True

    def keep(self, user: int, conversation: str, turn: int, message: Message) -> None:
        """Store the present content of an open turn. This waits for the disk: do not call it more than once a second.

        Raises:
            NotFoundError: the user has no such conversation, or it has no such turn.
            InputError: the turn is not open, or the message is too large.
            QueueFullError: the user has too much stored.
        """
        self._write(user, conversation, turn, message, None)

    def finish(
        self,
        user: int,
        conversation: str,
        turn: int,
        message: Message,
        finish: str = "stop",
        details: Mapping[str, Any] | None = None,
        *,
        ends: bool = False,
    ) -> Turn:
        """Store the final content of an open turn, and close it. From now on searches find it.

        Args:
            details: see `Turn`.
            ends: whether the answer ends with this turn; then `end` need not be called.

        Raises:
            NotFoundError: the user has no such conversation, or it has no such turn.
            InputError: the turn is not open, the message is too large, or the details are not JSON.
            QueueFullError: the user has too much stored.
        """
        return self._write(user, conversation, turn, message, _check_finish(finish), details or {}, ends)

    def rate(self, user: int, conversation: str, turn: int, rating: Literal[-1, 0, 1]) -> None:
        """Rate an assistant's turn: 1 for good, -1 for bad, 0 for no rating.

        Raises:
            NotFoundError: the user has no such conversation, or it has no such turn.
            InputError: the turn is not an assistant's, or the rating is another number.
        """
        if rating not in (-1, 0, 1):
            raise InputError(f"rating {rating!r:.40}: must be 1, 0 or -1")
        with self._own(user, conversation) as (connection, _):
            if self._turn(self._row(connection, conversation, turn)).message.role != "assistant":
                raise InputError(f"turn {turn}: only an assistant's turn can be rated")
            connection.execute("UPDATE turns SET rating = ? WHERE id = ?", (rating, turn))

    def edit(self, user: int, conversation: str, turn: int, text: str) -> Turn:
        """Add a sibling of a turn, with another text. The conversation is then at the sibling.

        Raises:
            NotFoundError: the user has no such conversation, or it has no such turn.
            InputError: the turn is open, the text is too large, or there are too many turns.
            QueueFullError: the user has too much stored.
        """
        with self._own(user, conversation) as (connection, _):
            return self._edit(connection, user, conversation, turn, text)

    def choose(self, user: int, conversation: str, turn: int) -> None:
        """Set the turn that the conversation is at. The branch is not followed to its end (see `Tree.tip`). 0: the
        beginning, before any turn.

        Raises:
            NotFoundError: the user has no such conversation, or it has no such turn.
        """
        with self._own(user, conversation) as (connection, _):
            if turn != BEGINNING:
                self._row(connection, conversation, turn)
            connection.execute("UPDATE conversations SET leaf = ? WHERE id = ?", (turn or None, conversation))

    def search(self, user: int, words: str, *, limit: int = 20) -> tuple[Found, ...]:
        """Search the user's conversations for turns that contain all of the words; the newest turn comes first.

        Args:
            words: any text; see `words.py` for what is found.
            limit: number of turns, at most 100.
        """
        query = query_of(words)
        if not query:
            return ()
        rows = self._database.read(
            "SELECT turns.*, conversations.title, conversations.mode FROM words JOIN turns ON turns.id = words.rowid "
            "JOIN conversations ON conversations.id = turns.conversation "
            "WHERE words MATCH ? AND conversations.user = ? ORDER BY words.rowid DESC LIMIT ?",
            (f'owner : "{_owner(user)}" AND tokens : ({query})', _number(user), max(0, min(limit, 100))),
        )
        found = []
        for row in rows:
            message = self._turn(row).message
            snippet = snippet_of(_searched(message), words)
            found.append(Found(row["conversation"], row["title"], row["mode"], row["id"], message.role, snippet))
        return tuple(found)

    # Files

    def add_file(
        self,
        user: int,
        conversation: str,
        name: str,
        kind: FileKind,
        size: int,
        sha256: str,
        *,
        turn: int | None = None,
    ) -> File:
        """Store facts about a file of a conversation. They replace those of an earlier file with the same name.

        Args:
            name: without a folder; for a file that code has made, its path in the conversation's folder.

        Raises:
            NotFoundError: the user has no such conversation, or it has no such turn.
            InputError: the name is invalid or too long, or another argument has an invalid value.
            QueueFullError: the conversation has too many files, or the user has too much stored.
        """
        parts = name.split("/") if kind == "produced" else [name]
        if not _is_name(name) or any(part in ("", ".", "..") or "/" in part for part in parts):
            raise InputError(f"file {name[:80]!r}: must be a name of 1 to 255 bytes, without a folder")
        if kind not in ("upload", "picture", "produced"):
            raise InputError(f"kind {kind!r:.40}: must be upload, picture or produced")
        if size < 0 or not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise InputError(f"file {name[:80]!r}: needs a size in bytes and a SHA-256 in hexadecimal digits")
        with self._own(user, conversation) as (connection, _):
            if turn is not None:
                self._row(connection, conversation, turn)
            for old in connection.execute(
                "SELECT id, size FROM files WHERE conversation = ? AND name = ?", (conversation, name)
            ).fetchall():
                connection.execute("DELETE FROM files WHERE id = ?", (old["id"],))
                self._take(connection, user, conversation, -old["size"])
            counted = connection.execute("SELECT count(*) FROM files WHERE conversation = ?", (conversation,))
            if counted.fetchone()[0] >= self.limits.files:
                raise QueueFullError(
                    f"the conversation has {self.limits.files:,} files, which is the limit; remove some"
                )
            self._take(connection, user, conversation, size)
            number = connection.execute(
                "INSERT INTO files (conversation, turn, name, kind, size, sha256, made) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (conversation, turn, name, kind, size, sha256, time.time()),
            ).lastrowid
        return File(cast("int", number), turn, name, kind, size, sha256)

    def files(self, user: int, conversation: str) -> tuple[File, ...]:
        """The files of a conversation, in the order in which they were added.

        Raises:
            NotFoundError: the user has no such conversation.
        """
        rows = self._database.read(
            "SELECT files.* FROM conversations LEFT JOIN files ON files.conversation = conversations.id "
            "WHERE conversations.id = ? AND conversations.user = ? ORDER BY files.id",
            (_id(conversation), _number(user)),
        )
        if not rows:
            raise _no_conversation(conversation)
        return tuple(
            File(row["id"], row["turn"], row["name"], row["kind"], row["size"], row["sha256"])
            for row in rows
            if row["id"] is not None
        )

    def remove_file(self, user: int, conversation: str, file: int) -> None:
        """Remove a file from the database.

        Raises:
            NotFoundError: the user has no such conversation, or it has no such file.
        """
        with self._own(user, conversation) as (connection, _):
            row = connection.execute(
                "SELECT size FROM files WHERE id = ? AND conversation = ?", (_number(file), conversation)
            ).fetchone()
            if row is None:
                raise NotFoundError(f"file {file}: no such file in this conversation")
            connection.execute("DELETE FROM files WHERE id = ?", (file,))
            self._take(connection, user, conversation, -row["size"])

    # Rows

    def _index_anew(self) -> None:
        """Index all turns again with the current version of the tokens, unless another process has just done it."""
        with self._database.transaction() as connection:
            if connection.execute(_TODAYS, (TOKENS,)).fetchone():
                return
            connection.execute("INSERT INTO words (words) VALUES ('delete-all')")
            for row in connection.execute(
                "SELECT turns.*, conversations.user FROM turns "
                "JOIN conversations ON conversations.id = turns.conversation WHERE turns.finish IS NOT NULL"
            ):
                _index(connection, row["user"], self._turn(row))
            connection.execute("DELETE FROM indexed")
            connection.execute("INSERT INTO indexed VALUES (?)", (TOKENS,))

    @contextmanager
    def _own(self, user: int, conversation: str) -> Iterator[tuple[sqlite3.Connection, sqlite3.Row]]:
        """A transaction on one of the user's conversations, and its row."""
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT * FROM conversations WHERE id = ? AND user = ?", (_id(conversation), _number(user))
            ).fetchone()
            if row is None:
                raise _no_conversation(conversation)
            yield connection, row

    def _row(self, connection: sqlite3.Connection, conversation: str, turn: int) -> sqlite3.Row:
        row: sqlite3.Row | None = connection.execute(
            "SELECT * FROM turns WHERE id = ? AND conversation = ?", (_number(turn), conversation)
        ).fetchone()
        if row is None:
            raise NotFoundError(f"turn {turn}: no such turn in this conversation")
        return row

    def _insert(
        self,
        connection: sqlite3.Connection,
        user: int,
        conversation: str,
        parent: int | None,
        message: Message,
        text: str,
        finish: str | None,
        edited: bool,
        now: float,
    ) -> Turn:
        changed = connection.execute(
            "UPDATE conversations SET turns = turns + 1 WHERE id = ? AND turns < ?", (conversation, self.limits.turns)
        ).rowcount
        if not changed:
            raise InputError(f"the conversation has {self.limits.turns:,} turns, which is the limit; begin another")
        number = connection.execute(
            "INSERT INTO turns (conversation, parent, message, finish, edited, made) VALUES (?, ?, ?, ?, ?, ?)",
            (conversation, parent, text, finish, int(edited), now),
        ).lastrowid
        connection.execute("UPDATE conversations SET leaf = ?, changed = ? WHERE id = ?", (number, now, conversation))
        turn = Turn(cast("int", number), parent, message, finish, edited=edited, made=now)
        if finish is not None:
            _index(connection, user, turn)
        return turn

    def _edit(self, connection: sqlite3.Connection, user: int, conversation: str, turn: int, text: str) -> Turn:
        old = self._turn(self._row(connection, conversation, turn))
        if old.finish is None:
            raise InputError(f"turn {turn}: it is still being written; stop it first")
        new, now = old.rewritten(text, 0, time.time()).message, time.time()
        written = self._json(new)
        self._take(connection, user, conversation, _size(written))
        return self._insert(connection, user, conversation, old.parent, new, written, "stop", True, now)

    def _write(
        self,
        user: int,
        conversation: str,
        turn: int,
        message: Message,
        finish: str | None,
        details: Mapping[str, Any] = MappingProxyType({}),
        ends: bool = False,
    ) -> Turn:
        text, now = self._json(message), time.time()
        told = as_json(dict(details)) if details else None
        if details and (told is None or _size(told) > self.limits.message):
            raise InputError(f"details: must be JSON values, with at most {self.limits.message:,} bytes")
        with self._own(user, conversation) as (connection, _):
            row = self._row(connection, conversation, turn)
            if row["finish"] is not None:
                raise InputError(f"turn {turn}: it is finished, and cannot be changed; `edit` adds another version")
            self._take(connection, user, conversation, _size(text) + _size(told or "") - _size(row["message"]))
            connection.execute(
                "UPDATE turns SET message = ?, finish = ?, details = ? WHERE id = ?", (text, finish, told, turn)
            )
            written = replace(self._turn(row), message=message, finish=finish, details=details)
            if finish is not None:
                connection.execute("UPDATE conversations SET changed = ? WHERE id = ?", (now, conversation))
                _index(connection, user, written)
            if ends:
                self._end(connection, user, conversation)
        return written

    def _answer(self, connection: sqlite3.Connection, row: sqlite3.Row, instance: Instance) -> None:
        """Note that this process makes an answer from now on.

        Raises:
            BusyError: another process makes one.
        """
        if self._written_elsewhere(row):
            raise BusyError("another program is answering in this conversation; wait for the end, or stop it there")
        self._close_turns(connection, row["user"], row["id"])
        connection.execute("UPDATE conversations SET writer = ? WHERE id = ?", (instance.id, row["id"]))

    def _attach(self, connection: sqlite3.Connection, conversation: str, turn: int, names: Sequence[str]) -> None:
        """Assign uploads to a turn: those with these names, and all that belong to no turn yet."""
        for name in names:
            if not connection.execute(
                "UPDATE files SET turn = ? WHERE conversation = ? AND name = ? AND kind = 'upload'",
                (turn, conversation, name if _is_name(name) else ""),
            ).rowcount:
                raise InputError(f"files: no {name!r:.80} was uploaded to this conversation")
        connection.execute(
            "UPDATE files SET turn = ? WHERE conversation = ? AND kind = 'upload' AND turn IS NULL",
            (turn, conversation),
        )

    def _delete(self, connection: sqlite3.Connection, user: int, conversation: str) -> None:
        for row in connection.execute("SELECT * FROM turns WHERE conversation = ?", (conversation,)).fetchall():
            if row["finish"] is not None:
                _index(connection, user, self._turn(row), out=True)
        connection.execute("DELETE FROM conversations WHERE id = ?", (conversation,))

    def _take(self, connection: sqlite3.Connection, user: int, conversation: str, size: int) -> None:
        """Change the stored size of a conversation by a number of bytes, which may be negative.

        Raises:
            QueueFullError: the user has too much stored.
        """
        if size > 0:
            (used,) = connection.execute("SELECT sum(bytes) FROM conversations WHERE user = ?", (user,)).fetchone()
            if used + size > self.limits.bytes:
                raise QueueFullError(
                    f"the conversations and files have {used:,} bytes; at most {self.limits.bytes:,} are kept. "
                    "Delete some"
                )
        connection.execute("UPDATE conversations SET bytes = bytes + ? WHERE id = ?", (size, conversation))

    def _json(self, message: Message) -> str:
        data = message.to_dict()
        text = json.dumps(data, ensure_ascii=False)
        if not _is_text(text):  # half a surrogate pair
            text = json.dumps(data)
        if _size(text) > self.limits.message:
            raise InputError(f"the message is larger than {self.limits.message:,} bytes; shorten it, or send a file")
        return text

    def _settings(self, settings: Mapping[str, Any]) -> str:
        text = as_json(dict(settings))
        if text is None:
            raise InputError("the settings must be JSON values")
        if _size(text) > self.limits.settings:
            raise InputError(f"the settings are larger than {self.limits.settings:,} bytes")
        return text

    def _living(self) -> Instance:
        """This process among those that have the file open."""
        with self._lock:
            if self._instance is None:
                self._instance = Instance(self.file.with_name(f"{self.file.name}.writers"))
            return self._instance

    def _written_elsewhere(self, row: sqlite3.Row) -> bool:
        """Whether another living process makes an answer in a conversation."""
        instance = self._living()
        return row["writer"] not in (None, instance.id) and instance.alive(row["writer"])

    def _end(self, connection: sqlite3.Connection, user: int, conversation: str) -> None:
        self._close_turns(connection, user, conversation)
        connection.execute("UPDATE conversations SET writer = NULL WHERE id = ?", (conversation,))

    def _close_turns(self, connection: sqlite3.Connection, user: int, conversation: str) -> None:
        """Close open turns, which nobody writes any more."""
        rows = connection.execute(
            "SELECT * FROM turns WHERE conversation = ? AND finish IS NULL", (conversation,)
        ).fetchall()
        for row in rows:
            connection.execute("UPDATE turns SET finish = 'stopped' WHERE id = ?", (row["id"],))
            _index(connection, user, self._turn(row))

    def _turn(self, row: sqlite3.Row) -> Turn:
        try:
            message = Message.from_dict(json.loads(row["message"]))
            details = json.loads(row["details"]) if row["details"] else {}
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"turn {row['id']}", error) from None
        return Turn(
            row["id"],
            row["parent"],
            message,
            row["finish"],
            row["rating"],
            bool(row["edited"]),
            row["made"],
            details,
        )

    def _conversation(self, row: sqlite3.Row) -> Conversation:
        try:
            settings = json.loads(row["settings"])
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"conversation {row['id']}", error) from None
        return Conversation(row["id"], row["title"], row["mode"], settings, row["leaf"], row["made"], row["changed"])

    def _damaged(self, what: str, error: Exception) -> OutputError:
        return OutputError(f"{self._database.file}: {what} is damaged ({error}); take the file from a backup")


def _index(connection: sqlite3.Connection, user: int, turn: Turn, out: bool = False) -> None:
    """Add a turn's words to the index, or remove them."""
    values = (turn.id, _owner(user), tokens_of(_searched(turn.message)))
    if out:
        connection.execute("INSERT INTO words (words, rowid, owner, tokens) VALUES ('delete', ?, ?, ?)", values)
    else:
        connection.execute("INSERT INTO words (rowid, owner, tokens) VALUES (?, ?, ?)", values)


def _owner(user: int) -> str:
    """The user as a token, so that a search reads nothing of other users."""
    return f"u{_number(user)}"


def _searched(message: Message) -> str:
    """The searchable text of a message: its text, and the names and arguments of its calls. It must be the same before
    the message is stored and after, so the spelling of the JSON does not matter.
    """
    calls = (
        f"{call.name} " + (str(call.text) if call.cut else "\n".join(map(str, call.arguments.values())))
        for call in message.tool_calls
    )
    return "\n".join((message.content, *calls))


def _no_conversation(conversation: str) -> NotFoundError:
    return NotFoundError(f"conversation {conversation!r:.80}: no such conversation; it may have been deleted")


def _id(conversation: str) -> str:
    if not _ID.fullmatch(conversation):
        raise _no_conversation(conversation)
    return conversation


def _number(number: int) -> int:
    """A number that SQLite can store. Larger ones become an id that does not exist."""
    return number if 0 <= number < 1 << 63 else 0


def _check_finish(finish: str) -> str:
    if finish not in _FINISHES:
        raise InputError(f"finish {finish!r:.40}: must be one of {', '.join(_FINISHES)}")
    return finish


def _size(text: str) -> int:
    return len(text.encode())


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_name(name: str) -> bool:
    """Whether a file can have this name. It may have any kind of space in a line, as screenshots of macOS have."""
    visible = all(unicodedata.category(one)[0] != "C" and one not in "\u2028\u2029" for one in name)
    return visible and _is_text(name) and _size(name) <= 255


def _line(text: str, characters: int) -> str:
    return " ".join(text[: 4 * characters].encode("utf-8", "replace").decode().split())[:characters]


def _title(title: str) -> str:
    return _line(title, 200)
