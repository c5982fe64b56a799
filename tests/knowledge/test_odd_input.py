"""Names, numbers and files that nobody expects: they are refused with a sentence, and harm nothing."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chatglm.cli import main
from chatglm.errors import ChatGLMError, InputError, OutputError
from chatglm.knowledge import Base, Shelf, Upload, bases, delete_base, import_base, indexing, open_base
from chatglm.knowledge.store import base_file


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Base]:
    with open_base("b", create=True, home=tmp_path) as made:
        made.add(Upload("a.txt", "灭火器在门口右侧。".encode()))
        yield made


CALLS: list[Callable[[Base, Any], object]] = [
    lambda base, odd: base.text(odd),
    lambda base, odd: base.pieces(odd),
    lambda base, odd: base.search("门口", files=[odd]),
    lambda base, odd: base.edit(base.pieces("a.txt")[0].id, odd),
    lambda base, odd: base.configure(about=odd),
    lambda base, odd: base.store.role(odd),
    lambda base, odd: base.store.files(words=odd),
    lambda base, odd: base.remove(odd),
    lambda base, odd: base.retry(odd),
]
NUMBERS: list[Callable[[Base, int], object]] = [
    lambda base, odd: base.edit(odd, "x"),
    lambda base, odd: base.store.piece_by_id(odd),
    lambda base, odd: base.store.restore(odd),
    lambda base, odd: base.store.pieces("a.txt", odd),
    lambda base, odd: base.store.files(start=odd),
]


def test_half_a_character_is_refused(base: Base) -> None:
    for call in CALLS:
        for odd in ("\ud800", "x\udcff"):
            with pytest.raises(InputError):
                call(base, odd)
    assert base.check() == []
    assert base.search("门口")[0].text == "灭火器在门口右侧。"


def test_half_a_character_in_a_file_becomes_a_replacement(base: Base) -> None:
    """Else neither the database nor a terminal nor JSON for a client could hold the text."""
    report = base.add(
        Upload("half.json", b'[{"x\\ud83d": "\\ud800 extinguisher \\ud83d\\ude00"}]'), Upload("c.txt", b"later")
    )
    assert report.failed == ()
    assert report.warnings[0][0] == "half.json"
    assert base.text("half.json") == "x\ufffd：\ufffd extinguisher 😀\n\n"
    assert base.search("extinguisher")[0].file == "half.json"
    assert base.search("later")[0].file == "c.txt"


def test_a_file_that_breaks_a_parser_does_not_hold_up_the_others(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    split = indexing.split

    def broken(reading: Any) -> Any:
        if "bad" in reading.text:
            raise ValueError("no")
        return split(reading)

    monkeypatch.setattr(indexing, "split", broken)
    report = base.add(Upload("0.txt", b"first"), Upload("bad.txt", b"bad"), Upload("z.txt", b"last"))
    assert report.failed == (("bad.txt", "bad.txt: cannot be read (ValueError: no); it may be damaged"),)
    assert [file.state for file in base.files()] == ["ready", "ready", "failed", "ready"]


def test_a_file_that_the_database_refuses_does_not_hold_up_the_others(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexed = indexing.indexed

    def broken(file: str, title: str, text: str) -> tuple[str, int, bytes]:
        folded, length, digest = indexed(file, title, text)
        return folded + "\ud800" * ("bad" in text), length, digest

    monkeypatch.setattr(indexing, "indexed", broken)
    report = base.add(*(Upload(f"{n}.txt", b"bad" if n == 2 else b"word%d" % n) for n in range(5)))
    assert [name for name, _ in report.failed] == ["2.txt"]
    assert [file.state for file in base.files()] == ["ready", "ready", "failed", "ready", "ready", "ready"]
    assert base.check() == []
    assert [base.search(f"word{n}")[0].file for n in (0, 1, 3, 4)] == ["0.txt", "1.txt", "3.txt", "4.txt"]


@pytest.mark.parametrize("blob", [b"no zlib", zlib.compress(b"a" * (1 << 22))], ids=["damaged", "too large"])
def test_texts_that_cannot_be_unpacked_are_reported(base: Base, blob: bytes) -> None:
    """As in a damaged file, or in one that somebody made to use up the memory."""
    for table, column in (("block", "text"), ("reading", "marks"), ("reading", "bytes_of")):
        with base.store.writing() as connection:
            (known,) = connection.execute(f"SELECT {column} FROM {table}").fetchone()
            connection.execute(f"UPDATE {table} SET {column} = ?", (b"\0" * 8 * (column == "bytes_of") + blob,))
        with pytest.raises(OutputError, match="add its file again"):
            base.reading("a.txt")
        with base.store.writing() as connection:
            connection.execute(f"UPDATE {table} SET {column} = ?", (known,))
        base.reading("a.txt")


def test_one_damaged_base_hides_no_other(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHATGLM_HOME", str(tmp_path))
    base_file("a", tmp_path).write_bytes(b"no database" * 1000)
    for command in ("list", "check"):
        assert main(["knowledge", command]) == 1
        shown = capsys.readouterr()
        assert "b" in shown.out
        assert "a.sqlite" in shown.err
    assert main(["knowledge", "remove", "a", "--yes"]) == 0
    assert main(["knowledge", "list"]) == 0


def test_numbers_that_are_too_large_are_refused(base: Base) -> None:
    for call in NUMBERS:
        for odd in (1 << 63, -(1 << 70)):
            with pytest.raises(ChatGLMError):
                call(base, odd)
    assert base.check() == []


@pytest.mark.parametrize("odd", ["x\0y", "\ud800", "x" * 5_000])
def test_paths_that_no_system_has_are_refused(base: Base, tmp_path: Path, odd: str) -> None:
    for call in (
        lambda: base.add(tmp_path / odd),
        lambda: base.sync(tmp_path / odd),
        lambda: base.export(tmp_path / odd),
        lambda: import_base(tmp_path / odd, "c", home=tmp_path),
    ):
        with pytest.raises(ChatGLMError):
            call()


def test_one_bad_name_does_not_keep_a_folder_out(base: Base, tmp_path: Path) -> None:
    """As names are that were made in another encoding."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "good.txt").write_text("气阀在二楼。", "utf-8")
    try:
        Path(os.fsdecode(os.fsencode(folder) + b"/\xb0\xb2.txt")).write_bytes(b"x")
    except OSError:
        pytest.skip("the file system has no such names")
    for report in (base.add(folder), base.sync(folder)):
        ((name, why),) = report.failed
        assert name.isprintable()
        assert "rename it" in why
    assert base.search("气阀")[0].file == "good.txt"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_what_is_no_file_is_no_base(base: Base, tmp_path: Path) -> None:
    folder = base.store.file.parent
    os.mkfifo(folder / "pipe.sqlite")  # who opens it waits for ever
    (folder / "folder.sqlite").mkdir()
    (folder / "dangling.sqlite").symlink_to("nowhere")
    assert bases(tmp_path) == ["b"]
    assert bases(tmp_path, who="alice") == []
    with Shelf(tmp_path) as shelf:
        assert list(shelf.listed(None)) == ["b"]
        for name in ("pipe", "folder"):
            with pytest.raises(OutputError, match="is not a file"):
                shelf.base(name, None)
    with pytest.raises(InputError, match="is not a file"):
        import_base(folder / "pipe.sqlite", "c", home=tmp_path)


def test_an_export_is_private_and_never_replaces(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "copy.sqlite"
    seen: list[int] = []
    connected = base.store._connected

    def noted() -> Any:
        seen.append(stat.S_IMODE(copy.stat().st_mode))  # before anything is written into it
        return connected()

    monkeypatch.setattr(base.store, "_connected", noted)
    base.export(copy)
    assert seen == [0o600]
    before = copy.read_bytes()
    monkeypatch.setattr(Path, "exists", lambda self: False)  # as if another process had just made it
    with pytest.raises(InputError, match="exists"):
        base.export(copy)
    assert copy.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of the system")
def test_an_export_to_a_full_disk_names_its_file(tmp_path: Path) -> None:
    with open_base("b", create=True, home=tmp_path) as base:
        base.add(Upload("a.txt", "灭火器在门口右侧。".encode()))
    script = """
import resource, signal, sys
from pathlib import Path
from chatglm.errors import OutputError
from chatglm.knowledge import open_base
with open_base("b", home=Path(sys.argv[1])) as base:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    try:
        base.export(Path(sys.argv[1], "copy"))
    except OutputError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{tmp_path / 'copy'}: cannot be written")
    assert not (tmp_path / "copy").exists()


def test_what_killed_processes_left_is_deleted(base: Base, tmp_path: Path) -> None:
    folder = base.store.file.parent
    placed, dead, alive = (folder / f".{name}.0123abcd.part" for name in ("placed", "dead", "alive"))
    other = base_file("other", tmp_path)
    open_base("other", create=True, home=tmp_path).close()
    os.link(other, placed)  # killed between its two names
    for part in (dead, alive, dead.with_name(f"{dead.name}-wal")):
        part.write_bytes(b"texts")
    old = time.time() - 100_000
    for part in (dead, dead.with_name(f"{dead.name}-wal")):
        os.utime(part, (old, old))
    for name in ("other.ivf-12", "other.ivf-12.lock"):  # the second is of another base
        (folder / name).touch()
    assert delete_base("other", home=tmp_path) == []
    assert {each.name for each in folder.glob("other*")} == {"other.ivf-12.lock"}
    assert not placed.exists()
    assert sorted(folder.glob(".*part*")) == [alive]  # somebody may be writing it
