from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from chatglm.database import Database
from chatglm.errors import OutputError

ONE = ("CREATE TABLE notes (number INTEGER PRIMARY KEY, text TEXT UNIQUE)",)
TWO = (*ONE, "ALTER TABLE notes ADD COLUMN color TEXT; UPDATE notes SET color = 'red'")


def texts(database: Database) -> list[str]:
    return [row["text"] for row in database.read("SELECT text FROM notes ORDER BY number")]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.sqlite", ONE)
    assert database.write("INSERT INTO notes (text) VALUES (?)", ("一",)) == 1
    assert asyncio.run(database.run(texts)) == ["一"]
    database.close()
    database.close()
    again = Database(tmp_path / "a.sqlite", ONE)
    assert texts(again) == ["一"]
    assert stat.S_IMODE((tmp_path / "a.sqlite").stat().st_mode) == 0o600
    again.close()


def test_a_transaction_is_whole_or_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.sqlite", ONE)
    with pytest.raises(sqlite3.IntegrityError), database.transaction() as connection:
        connection.executemany("INSERT INTO notes (text) VALUES (?)", [("lost",), ("lost",)])
    assert texts(database) == []
    database.write("INSERT INTO notes (text) VALUES ('one')")
    with pytest.raises(sqlite3.IntegrityError):  # a fault of the caller's, which is not the disk's
        database.write("INSERT INTO notes (text) VALUES ('one')")
    assert texts(database) == ["one"]
    database.close()


def test_it_migrates_what_is_there(tmp_path: Path) -> None:
    old = Database(tmp_path / "a.sqlite", ONE)
    old.write("INSERT INTO notes (text) VALUES ('old')")
    old.close()
    new = Database(tmp_path / "a.sqlite", TWO)
    assert [tuple(row) for row in new.read("SELECT text, color FROM notes")] == [("old", "red")]
    new.close()
    with pytest.raises(OutputError, match=r"a\.sqlite: was written by a newer chatglm"):
        Database(tmp_path / "a.sqlite", ONE)


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    Database(tmp_path / "a.sqlite", ONE).close()
    with pytest.raises(OutputError, match="no such table"):
        Database(tmp_path / "a.sqlite", (*ONE, "ALTER TABLE notes ADD COLUMN color TEXT; DROP TABLE missing"))
    database = Database(tmp_path / "a.sqlite", TWO)
    assert database.read("PRAGMA user_version")[0][0] == 2
    database.close()


def test_several_processes_open_and_write_it_at_once(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from typing import Any
from chatglm.database import Database
sys.stdin.readline()  # all begin together
database = Database(Path({str(tmp_path / "a.sqlite")!r}), {TWO!r})
for number in range(20):
    database.write("INSERT INTO notes (text, color) VALUES (?, 'blue')", (f"{{sys.argv[1]}} {{number}}",))
"""
    command = [sys.executable, "-c", script]
    running = [subprocess.Popen([*command, str(number)], stdin=subprocess.PIPE, text=True) for number in range(4)]
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.close()
    assert [process.wait(60) for process in running] == [0] * 4
    database = Database(tmp_path / "a.sqlite", TWO)
    assert sorted(texts(database)) == sorted(f"{who} {number}" for who in range(4) for number in range(20))
    database.close()


def test_who_is_told_at_once_that_others_make_the_file_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = iter([True, True, False])

    class Refused(sqlite3.Connection):
        def execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
            if "journal_mode" in statement and next(refusals, False):
                raise sqlite3.OperationalError("database is locked")
            return super().execute(statement, *arguments)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **named: connect(*given, **named, factory=Refused))
    database = Database(tmp_path / "a.sqlite", TWO)
    assert next(refusals, None) is None
    database.close()


def test_several_threads_use_one(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.sqlite", ONE)

    def work(who: int) -> None:
        for number in range(20):
            database.write("INSERT INTO notes (text) VALUES (?)", (f"{who} {number}",))

    threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(texts(database)) == 80
    database.close()


def test_killed_in_the_middle_of_a_transaction(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from typing import Any
from chatglm.database import Database
database = Database(Path({str(tmp_path / "a.sqlite")!r}), {ONE!r})
database.write("INSERT INTO notes (text) VALUES ('kept')")
with database.transaction() as connection:
    connection.execute("INSERT INTO notes (text) VALUES ('cut')")
    print("ready", flush=True)
    input()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == b"ready\n"
        os.kill(process.pid, signal.SIGKILL)
    database = Database(tmp_path / "a.sqlite", ONE)
    assert texts(database) == ["kept"]
    database.write("INSERT INTO notes (text) VALUES ('more')")
    assert texts(database) == ["kept", "more"]
    database.close()


@pytest.mark.parametrize(
    "content", [b"this is no database, whatever its name says\n" * 100, b"SQLite format 3\0" * 300]
)
def test_another_file_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.sqlite"
    file.write_bytes(content)
    with pytest.raises(OutputError, match=r"a\.sqlite: file is not a database; .*move it away"):
        Database(file, ONE)
    assert file.read_bytes() == content


def test_a_damaged_file_is_an_error_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "a.sqlite"
    database = Database(file, ONE)
    with database.transaction() as connection:
        for number in range(2000):
            connection.execute("INSERT INTO notes (text) VALUES (?)", (f"text {number}" * 10,))
    database.close()
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    file.write_bytes(content)
    with pytest.raises(OutputError, match=r"a\.sqlite: .*malformed"):
        texts(Database(file, ONE))


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="folder"):
        Database(tmp_path / "folder", ONE)
    with pytest.raises(OutputError, match="missing"):
        Database(tmp_path / "missing" / "a.sqlite", ONE)
    if os.getuid():  # root may write everywhere
        (tmp_path / "folder").chmod(0o500)
        with pytest.raises(OutputError, match=r"a\.sqlite: .*correct the file's permissions"):
            Database(tmp_path / "folder" / "a.sqlite", ONE)


def test_a_full_disk(tmp_path: Path) -> None:
    """What does not fit is not written; what was there stays, and there is room again later."""
    database = Database(tmp_path / "a.sqlite", ONE)
    database.write("INSERT INTO notes (text) VALUES ('kept')")
    pages = database.read("PRAGMA page_count")[0][0]
    database.read(f"PRAGMA max_page_count = {pages + 2}")  # SQLite's own word for a disk without room
    with pytest.raises(OutputError, match="full; free disk space"):
        database.write("INSERT INTO notes (text) VALUES (?)", ("x" * 100_000,))
    assert texts(database) == ["kept"]
    database.read(f"PRAGMA max_page_count = {pages + 1000}")
    database.write("INSERT INTO notes (text) VALUES (?)", ("x" * 100_000,))
    assert len(texts(database)) == 2
    database.close()
