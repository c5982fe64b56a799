"""A conversation's folder and its files go away, whatever its code has made of it, and nothing else does."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hosts import NOBODY, need, prepared

from chatglm.errors import InputError
from chatglm.tools.interpreter.folder import Folder, remove


def test_folders_deeper_than_a_path_is_long_are_removed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    at = os.open(top, os.O_RDONLY)
    for depth in range(1500):
        os.mkdir("folder", dir_fd=at)
        if not depth % 500:
            os.close(os.open(f"file{depth}", os.O_CREAT, dir_fd=at))
        below = os.open("folder", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    remove(top)
    assert os.listdir(tmp_path) == []


def test_who_looks_at_the_same_time_sees_everything(tmp_path: Path) -> None:
    """The watchdog and a cell's end do. Descriptors that are copies of each other share a place in a list of names."""
    for number in range(300):
        (tmp_path / f"file{number}").touch()
    folder = Folder(tmp_path)
    begun = folder._walk(1000)
    next(begun)
    assert folder.usage(1000).number == 300
    assert len(folder.marks(1000)) == 300
    assert len(list(begun)) == 299
    folder.close()


def test_folders_nested_too_deep_are_moved_up_with_all_that_they_hold(tmp_path: Path) -> None:
    """Also with names that are no text, and without permissions on the way."""
    top = tmp_path / "top"
    top.mkdir()
    at = os.open(top, os.O_RDONLY)
    for depth in range(1500):
        for name in (b"a", b"f\xff"):
            os.mkdir(name, dir_fd=at)
        os.close(os.open(f"file{depth}", os.O_CREAT, dir_fd=at))
        below = os.open(b"f\xff", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    folder = Folder(top)
    assert folder.usage(100_000).depth == 32
    moved = folder.flatten(100_000)
    assert len(moved) == len(set(moved)) >= 1500 // 31
    assert set(moved) < set(os.listdir(top))
    assert folder.usage(100_000)[1:] == (4500, 31)
    found = {name for _, _, names in os.walk(top) for name in names}
    assert found == {f"file{depth}" for depth in range(1500)}
    assert folder.flatten(100_000) == []
    folder.close()


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    kept, top = tmp_path / "kept", tmp_path / "top"
    kept.mkdir()
    (kept / "file").touch()
    (top / "inner").mkdir(parents=True)
    (top / "link").symlink_to(kept)
    (top / "inner" / "link").symlink_to(kept)
    remove(top)
    (tmp_path / "link").symlink_to(kept)
    remove(tmp_path / "link")
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["kept", "file"]


def test_only_regular_files_beneath_are_deleted(tmp_path: Path) -> None:
    kept, top = tmp_path / "kept", tmp_path / "top"
    kept.mkdir()
    (kept / "file").touch()
    (top / "inner").mkdir(parents=True)
    (top / "inner" / "file").touch()
    (top / "link").symlink_to(kept)
    (top / "file link").symlink_to(kept / "file")
    os.mkfifo(top / "pipe")
    before = sorted(tmp_path.rglob("*"))
    folder = Folder(top)
    for name in ("", ".", "..", "../kept/file", "/etc/passwd", "link/file", "file link", "inner", "pipe", "no", "a\0"):
        with pytest.raises(InputError):
            folder.delete(name)
    assert sorted(tmp_path.rglob("*")) == before
    folder.delete("inner/file")
    folder.close()
    assert sorted(tmp_path.rglob("*")) == [path for path in before if path != top / "inner" / "file"]


@pytest.mark.parametrize("name", ["file", "nothing"])
def test_a_file_or_nothing_may_be_in_its_place(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    descriptor = os.open(tmp_path, os.O_RDONLY)
    remove(name, descriptor)
    os.close(descriptor)
    assert not (tmp_path / name).exists()


def test_rights_that_were_taken_away_hold_nothing_up() -> None:
    user = os.getuid() or NOBODY - 7  # root needs no rights
    need({}, user)
    code = """
import os, sys, tempfile
from pathlib import Path
from chatglm.tools.interpreter.folder import Folder, remove
base = Path(tempfile.mkdtemp())
for mode in (0, 0o100, 0o200, 0o400, 0o500):
    (base / "top" / str(mode) / "inner").mkdir(parents=True)
    (base / "top" / str(mode) / "file").touch()
    (base / "top" / str(mode) / "inner" / "file").touch()
    (base / "top" / str(mode) / "inner").chmod(mode)
    (base / "top" / str(mode)).chmod(mode)
remove(base / "top")
print(os.listdir(base))
os.rmdir(base)
"""
    with prepared() as host:
        assert host.python(user, ["-c", code]) == "[]\n"


def test_contents_move_whatever_rights_were_taken_away() -> None:
    user = os.getuid() or NOBODY - 8
    need({}, user)
    code = """
import os, tempfile
from pathlib import Path
from chatglm.tools.interpreter.folder import Folder, remove
base = Path(tempfile.mkdtemp())
(base / "new").mkdir()
for mode in (0, 0o100, 0o500, 0o555, 0o700):
    (base / "top" / str(mode)).mkdir(parents=True)
    (base / "top" / str(mode)).chmod(mode)
(base / "top" / "file").touch()
(base / "top" / "link").symlink_to("/")
(base / "top").chmod(0o500)
folder = Folder(base / "new")
folder.replace(base / "top")
folder.close()
print(os.listdir(base), *sorted(f"{path.name} {path.lstat().st_mode:o}" for path in (base / "top").iterdir()))
remove(base)
"""
    kept = "0 40000 320 40500 365 40555 448 40700 64 40100 file 100644 link 120777"
    with prepared() as host:
        assert host.python(user, ["-c", f"import os; os.umask(0o022)\n{code}"]) == f"['top'] {kept}\n"


def test_what_cannot_be_moved_leaves_both_folders_as_they_are(tmp_path: Path) -> None:
    for name in ("old/a", "old/both/mine", "old/z", "new/both/other"):
        (tmp_path / name).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    folder = Folder(tmp_path / "new")
    with pytest.raises(OSError, match="not empty"):
        folder.replace(tmp_path / "old")
    assert sorted(tmp_path.rglob("*")) == before
    assert folder.path == tmp_path / "new"
    folder.close()


def test_what_cannot_be_removed_is_said_and_all_else_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / "top" / name).mkdir(parents=True)
    unlink = os.rmdir

    def refuse(path: str, **options: int) -> None:
        if path == "b":
            raise PermissionError("it is to stay")
        unlink(path, **options)

    monkeypatch.setattr(os, "rmdir", refuse)
    with pytest.raises(OSError, match="not empty"):
        remove(tmp_path / "top")
    assert os.listdir(tmp_path / "top") == ["b"]
    assert stat.S_ISDIR((tmp_path / "top" / "b").stat().st_mode)
