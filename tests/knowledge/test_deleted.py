"""Deleted bases take their texts out of external stores, even if a process is killed or a store is down meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from small_bases import HANDBOOK, cut_off

from chatglm.cli import main
from chatglm.knowledge import Shelf, Upload, base, delete_base, deleted, open_base, places, rename_base
from chatglm.knowledge.base import delete_file
from chatglm.knowledge.store import base_file

pytest.importorskip("langchain_core")

from langchain_core.vectorstores import InMemoryVectorStore
from test_external import Pairs

PLACE = "qdrant:http://store#c"


class Servers:
    """Servers that are dictionaries, in the place of Qdrant's.

    Attributes:
        down: whether nobody can reach them.
        emptied: how often they were asked to delete the documents of a base.
    """

    def __init__(self) -> None:
        self._stores: dict[str, InMemoryVectorStore] = {}
        self.down = False
        self.emptied = 0

    def _store(self, place: places.Place) -> InMemoryVectorStore:
        if self.down:
            raise ConnectionError("no server")
        return self._stores.setdefault(str(place), InMemoryVectorStore(Pairs()))

    def opened(self, place: places.Place, secret: str, embeddings: Any) -> Any:
        def only(of: str) -> Mapping[str, Any]:
            return {"filter": lambda document: document.metadata["base"] == of}

        return self._store(place), only, lambda: None

    def empty(self, place: places.Place, secret: str, of: str) -> None:
        store = self._store(place)
        store.delete([key for key, each in store.store.items() if each["metadata"]["base"] == of])
        self.emptied += 1

    def held(self) -> set[str]:
        """The ids of the bases whose texts the servers have."""
        return {each["metadata"]["base"] for store in self._stores.values() for each in store.store.values()}


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Servers:
    found = Servers()
    kind = places._Kind("langchain-qdrant", found.opened, found.empty)
    monkeypatch.setitem(places._KINDS, "qdrant", kind)  # type: ignore[misc]
    return found


def filled(home: Path, name: str) -> str:
    """Make a base with its vectors at `PLACE`; returns its id."""
    with open_base(name, create=True, home=home, embedder=Pairs(), vectors_at=PLACE) as one:
        one.add(*(Upload(file, text.encode()) for file, text in HANDBOOK.items()))
        assert not one.trouble
        return one.store.meta("id")


def settled(home: Path) -> None:
    """Open the shelf and wait until it has tried everything."""
    with Shelf(home) as shelf:
        if shelf._settling is not None:
            shelf._settling.join()


def notes(home: Path) -> list[str]:
    return sorted(file.name for file in (home / "knowledge").glob(".*") if file.name != ".names")


def test_a_process_that_is_killed_after_deleting_the_file(servers: Servers, tmp_path: Path) -> None:
    filled(tmp_path, "b")
    other = filled(tmp_path, "other")
    delete_file("b", home=tmp_path)  # killed here: nobody calls the rest
    assert len(servers.held()) == 2
    settled(tmp_path)
    assert servers.held() == {other}
    assert notes(tmp_path) == []
    settled(tmp_path)
    assert servers.emptied == 1


def test_a_process_that_is_killed_before_deleting_the_file(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = filled(tmp_path, "b")

    def killed(file: Path) -> None:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(base, "withdraw", killed)
        patched.setattr(Path, "unlink", lambda *_, **__: None)  # what is killed does not clean up
        with pytest.raises(SystemExit):
            delete_base("b", home=tmp_path)
    assert notes(tmp_path) != []
    rename_base("b", "c", home=tmp_path)
    settled(tmp_path)
    assert servers.held() == {known}  # the base is still there
    assert deleted.check_deleted(tmp_path) == []
    assert delete_base("c", home=tmp_path) == []
    settled(tmp_path)
    assert (servers.held(), notes(tmp_path)) == (set(), [])


def test_a_base_that_cannot_be_deleted_leaves_no_note(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = filled(tmp_path, "b")

    def full(file: Path) -> None:
        raise OSError("no")

    monkeypatch.setattr(base, "withdraw", full)
    with pytest.raises(OSError, match="no"):
        delete_base("b", home=tmp_path)
    assert (servers.held(), notes(tmp_path)) == ({known}, [])


def test_a_store_that_is_down_is_emptied_later(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHATGLM_HOME", str(tmp_path))
    filled(tmp_path, "b")
    servers.down = True
    assert main(["knowledge", "remove", "b", "--yes"]) == 0
    assert "b: texts of the base may still be in qdrant at http://store, collection c" in (
        said := capsys.readouterr().err
    )
    assert "chatglm knowledge check --repair" in said
    settled(tmp_path)
    assert servers.held() != set()
    assert main(["knowledge", "check"]) == 1
    assert "b was deleted, but texts of the base may still be in qdrant at http://store" in capsys.readouterr().out
    assert main(["knowledge", "check", "--repair"]) == 0
    assert "no server" in capsys.readouterr().out
    servers.down = False
    assert main(["knowledge", "check", "--repair"]) == 0
    assert servers.held() == set()
    assert main(["knowledge", "check"]) == 0


def test_while_a_base_cannot_be_read_nothing_is_emptied(servers: Servers, tmp_path: Path) -> None:
    """It may be the one that a note names."""
    known = filled(tmp_path, "b")
    delete_file("b", home=tmp_path)
    damaged = base_file("damaged", tmp_path)
    damaged.write_bytes(b"no base" * 1000)
    settled(tmp_path)
    assert servers.held() == {known}
    (said,) = deleted.check_deleted(tmp_path, repair=True)
    assert "damaged.sqlite" in said
    damaged.unlink()
    settled(tmp_path)
    assert servers.held() == set()


@pytest.mark.parametrize(
    "written", [b"", b"{", b"[]", b'{"name": 1, "id": "x", "places": []}', b"\xff", b"[" * 100_000]
)
def test_a_note_that_cannot_be_read_is_said_and_harms_nothing(servers: Servers, tmp_path: Path, written: bytes) -> None:
    filled(tmp_path, "b")
    (tmp_path / "knowledge" / ".0123456789abcdef.deleted").write_bytes(written)
    settled(tmp_path)
    (said,) = deleted.check_deleted(tmp_path, repair=True)
    assert "0123456789abcdef.deleted" in said


def test_a_damaged_base_tells_where_its_texts_are(servers: Servers, tmp_path: Path) -> None:
    filled(tmp_path, "b")
    file = base_file("b", tmp_path)
    cut_off(file)
    assert delete_base("b", home=tmp_path) == []
    assert (servers.held(), file.exists()) == (set(), False)


def test_a_deleted_base_of_a_shelf(servers: Servers, tmp_path: Path) -> None:
    filled(tmp_path, "b")
    servers.down = True
    with Shelf(tmp_path) as shelf:
        shelf.delete("b", None)
    assert servers.held() != set()
    servers.down = False
    settled(tmp_path)
    assert servers.held() == set()
