"""The bases of a home folder, as a server lists them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from small_bases import cut_off

from chatglm.errors import InputError, NotFoundError, OutputError, QueueFullError, RoomError
from chatglm.knowledge import Shelf, Upload, bounds, delete_base, open_base, shelf, store
from chatglm.knowledge.indexing import Item
from chatglm.knowledge.store import base_file, withdraw


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name, who in (("甲", "alice"), ("乙", "bob"), ("丙", None)):
        with open_base(name, home=tmp_path, create=True, who=who) as base:
            base.add(Upload(f"{name}.txt", "灭火器在门口右侧。".encode()))
    return tmp_path


def test_names_are_those_that_one_may_read_now(home: Path) -> None:
    with Shelf(home) as shelf:
        for _ in range(2):  # read, and known from before
            assert shelf.names("alice") == ["甲"]
            assert shelf.names("carol") == []
            assert shelf.names(None) == sorted("甲乙丙")
            time.sleep(0.15)
        with open_base("乙", home=home) as base:  # by another program
            base.store.share("alice", "read")
            base.configure(about="规定")
        assert sorted(shelf.names("alice")) == sorted("甲乙")
        listed = shelf.listed("alice")
        assert (listed["乙"].about, listed["乙"].files, listed["乙"].pieces) == ("规定", 1, 1)
        assert listed["乙"].role("alice") == "read"
        with open_base("乙", home=home) as base:
            base.store.share("alice", None)
            base.store.share("*", "write")
        assert shelf.listed("alice")["乙"].role("alice") == "write"
        with open_base("乙", home=home) as base:
            base.store.share("*", None)
        assert shelf.names("alice") == ["甲"]


def test_who_comes_later_under_the_same_name_gets_nothing(home: Path) -> None:
    with open_base("乙", home=home) as base:  # of bob, and read by alice
        base.store.share("alice", "read")
    with open_base("丙", home=home) as base:  # of both
        base.store.share("alice", "own")
        base.store.share("bob", "own")
    with Shelf(home) as shelf:
        assert sorted(shelf.names("alice")) == sorted("甲乙丙")
        shelf.forget("alice")
        assert shelf.names("alice") == []
        assert sorted(shelf.names(None)) == sorted("乙丙")
        assert sorted(shelf.names("bob")) == sorted("乙丙")
    assert not base_file("甲", home).exists()


def test_bases_that_are_damaged_or_stuck_keep_no_other_from_being_forgotten(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "last", "stuck"):
        open_base(name, home=home, create=True, who="alice").close()
    for name in "甲乙":
        cut_off(base_file(name, home))
    base_file("lost", home).write_bytes(b"no database" * 1000)

    def stuck(file: Path) -> None:
        if file.stem == "stuck":
            raise OutputError("no right to delete it")
        withdraw(file)

    monkeypatch.setattr("chatglm.knowledge.base.withdraw", stuck)
    with Shelf(home) as shelf:
        with pytest.raises(OutputError):
            shelf.base("甲", None)
        lost, held = shelf.forget("alice")
        assert shelf.names(None) == sorted(["lost", "stuck", "乙", "丙"])
    assert "'lost': is damaged" in lost
    assert "'stuck': 'alice' may still have rights in it (no right to delete it)" in held


def test_a_damaged_base_is_deleted_by_the_owner_of_the_machine(home: Path) -> None:
    for name in "甲乙":
        base_file(name, home).write_bytes(b"no database" * 1000)
        with pytest.raises(NotFoundError):  # nobody knows whether it is hers
            delete_base(name, home=home, who="alice")
    (said,) = delete_base("甲", home=home)
    assert "its file was damaged" in said
    with Shelf(home) as shelf:
        shelf.delete("乙", None)
        assert shelf.names(None) == ["丙"]


def test_a_base_that_is_locked_or_newer_is_not_taken_for_a_damaged_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_PEEK_SECONDS", 0.1)
    with contextlib.closing(sqlite3.connect(base_file("甲", home))) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(OutputError, match="newer chatglm"):
        delete_base("甲", home=home)
    with contextlib.closing(sqlite3.connect(base_file("乙", home), isolation_level=None)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("UPDATE meta SET value = value")
        with Shelf(home) as shelf, pytest.raises(OutputError, match="locked"):
            shelf.delete("乙", None)
    assert all(base_file(name, home).exists() for name in "甲乙")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The bases that shelves read, in their order."""
    names: list[str] = []
    glance = shelf.glance

    def counted(file: Path) -> object:
        names.append(file.stem)
        return glance(file)

    monkeypatch.setattr(shelf, "glance", counted)
    return names


def test_a_list_opens_no_base_and_reads_those_that_changed(
    home: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "open_base", None)
    with Shelf(home) as bases:
        for _ in range(3):
            bases.names("alice")
            time.sleep(0.15)
        read.clear()
        bases.names("bob")
        assert read == []
        with open_base("甲", home=home) as base:
            base.store.share("bob", "read")
        assert sorted(bases.names("bob")) == sorted("甲乙")
        assert read == ["甲"]


def test_an_upload_reads_no_base_that_did_not_change(home: Path, read: list[str]) -> None:
    with Shelf(home) as bases:
        base = bases.base("甲", "alice")
        time.sleep(0.15)
        bases.check_room(base, {"a.txt": 1})
        read.clear()
        for number in range(3):
            bases.check_room(base, {"a.txt": 1})
            base.add(Upload("a.txt", f"气阀在{number}楼。".encode()))
        assert set(read) <= {"甲"}


def test_what_a_process_left_in_the_queue_is_read(home: Path) -> None:
    with open_base("甲", home=home) as base:
        base._indexer.enqueue([Item("乙.txt", body="气阀在二楼。".encode())])  # and it ends
    with Shelf(home) as shelf:
        base = shelf.base("甲", "alice")
        base.wait()
        assert [file.state for file in base.files()] == ["ready", "ready"]


def test_what_is_no_base_is_left_out(home: Path) -> None:
    base_file("丁", home).write_bytes(b"no database")
    with Shelf(home) as shelf:
        assert "丁" not in shelf.listed(None)
        assert shelf.names("alice") == ["甲"]


def opened(home: Path) -> set[str]:
    """Bases that this process has files of."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            file = Path(os.readlink(link))
            if file.parent == home / "knowledge" and ".sqlite" in file.name:
                found.add(file.name.partition(".")[0])
    return found


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_files_of_few_bases_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "_AWAKE", 3)
    names = [f"b{number}" for number in range(8)]
    with Shelf(tmp_path) as bases:
        held = {}
        for name in names:
            held[name] = bases.make(name, "alice")
            held[name].add(Upload("a.txt", f"{name}在门口右侧。".encode()))
            assert len(opened(tmp_path)) <= 3
        assert opened(tmp_path) == {"b5", "b6", "b7"}
        bases.base("b5", "alice")  # so b6 was not asked for the longest time
        bases.base("b0", "alice")
        assert opened(tmp_path) == {"b0", "b5", "b7"}
        with held["b5"].store.reading():  # in use
            for name in ("b1", "b2", "b3"):
                bases.base(name, "alice")
            assert opened(tmp_path) == {"b5", "b2", "b3"}
        for name in names:  # who still has one goes on with it
            assert held[name].search("门口")[0].text == f"{name}在门口右侧。"
            assert bases.base(name, "alice") is held[name]
        assert len(bases.bases(names, "alice").search("门口", k=20)) == len(names)
        bases.base("b4", "alice")
        bases.delete("b1", "alice")
        bases.base("b6", "alice")
        assert len(opened(tmp_path)) <= 3
    assert opened(tmp_path) == set()


def test_two_who_make_a_base_at_once_do_not_own_it_both(tmp_path: Path) -> None:
    people = [f"p{number}" for number in range(6)]
    with contextlib.ExitStack() as stack:
        shelves = [stack.enter_context(Shelf(tmp_path)) for _ in people]
        start = threading.Barrier(len(people))

        def make(number: int) -> bool:
            start.wait()
            with contextlib.suppress(InputError):
                shelves[number].make("甲", people[number])
                return True
            return False

        with ThreadPoolExecutor(len(people)) as pool:
            made = list(pool.map(make, range(len(people))))
        (owner,) = shelves[0].base("甲", None).store.roles()
        assert made == [who == owner for who in people]


def test_room_is_bounded_for_all_who_send_files(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Shelf(home) as bases:
        base = bases.base("甲", "alice")  # of 27 bytes
        bases.make("己", "alice").store.share("bob", "own")  # the room is alice's
        monkeypatch.setattr(bounds, "BASE_BYTES", 100)
        bases.check_room(base, {"a.txt": 73})
        bases.check_room(base, {"甲.txt": 100})  # in the place of the one that is there
        with pytest.raises(RoomError):
            bases.check_room(base, {"a.txt": 74})
        monkeypatch.setattr(bounds, "OWNED_BYTES", 60)
        bases.base("己", None).add(Upload("b.txt", b"x" * 30))
        time.sleep(0.15)  # a list may be that old
        bases.check_room(base, {"a.txt": 3})
        for each in ("甲", "己"):
            with pytest.raises(RoomError, match="one user"):
                bases.check_room(bases.base(each, None), {"a.txt": 4})
        bases.check_room(bases.base("丙", None), {"a.txt": 50})  # nobody's
        monkeypatch.setattr(bounds, "FILES", 2)
        with pytest.raises(RoomError):
            bases.check_room(base, {"a.txt": 1, "b.txt": 1})
        monkeypatch.setattr(bounds, "BASES", 2)
        with pytest.raises(RoomError):
            bases.make("庚", "alice")
        bases.base("甲", None).store.share("bob", "read")
        bases.make("庚", "bob")  # what others share with him does not count
        monkeypatch.setattr(bounds, "WAITING", 0)
        with pytest.raises(QueueFullError):
            bases.check_room(base, {"a.txt": 1})
        with pytest.raises(InputError, match="about: longer than"):
            base.configure(about="x" * 1001)
