"""The bases of a home folder, as a server lists them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from chatglm.knowledge import Shelf, Upload, open_base, shelf
from chatglm.knowledge.indexing import Item
from chatglm.knowledge.store import base_file


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


def test_a_list_opens_no_base_and_reads_those_that_changed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    glance = shelf.glance

    def counted(file: Path) -> object:
        read.append(file.stem)
        return glance(file)

    monkeypatch.setattr(shelf, "glance", counted)
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
