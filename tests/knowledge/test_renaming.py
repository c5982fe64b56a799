"""Bases that get another name, while others have them open, and while processes are killed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chatglm.errors import InputError, NotFoundError
from chatglm.knowledge import Base, Shelf, Upload, bases, delete_base, import_base, open_base, rename_base
from chatglm.knowledge.store import base_file

TEXT = "灭火器在门口右侧。"


def filled(home: Path, name: str = "旧", who: str | None = None) -> Base:
    """A base, left open, with what it holds still in SQLite's log."""
    base = open_base(name, home=home, create=True, who=who)
    base.add(Upload("安全.txt", TEXT.encode()))
    return base


def beside(home: Path, name: str) -> list[str]:
    """Files of a base, and what lies beside it."""
    return sorted(file.name for file in (home / "knowledge").iterdir() if file.name.startswith(f"{name}."))


def test_a_base_with_all_that_is_in_it_gets_another_name(tmp_path: Path) -> None:
    with filled(tmp_path, who="alice") as base:
        base.store.share("bob", "read")
        base.configure(about="规定")
        number, roles = base.store.meta("id"), base.store.roles()
    index = base_file("旧", tmp_path).with_suffix(".tantivy")
    index.mkdir()
    (index / "segment").write_text("of the index")
    rename_base("旧", "新.名", home=tmp_path, who="alice")
    assert bases(tmp_path) == bases(tmp_path, who="bob") == ["新.名"]
    assert beside(tmp_path, "旧") == []
    assert (base_file("新.名", tmp_path).with_suffix(".tantivy") / "segment").read_text() == "of the index"
    with pytest.raises(NotFoundError):
        open_base("旧", home=tmp_path)
    with open_base("新.名", home=tmp_path, who="bob") as base:
        assert base.name == "新.名"
        assert (base.store.meta("id"), base.store.roles(), base.setting("about")) == (number, roles, "规定")
        (hit,) = base.search("灭火器")
        assert (hit.base, hit.file) == ("新.名", "安全.txt")
        assert base.check() == []


def test_a_base_is_made_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On exFAT, for example."""

    def link(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with filled(tmp_path) as base:
        base.export(tmp_path / "out.sqlite")
    assert beside(tmp_path, "旧") == ["旧.lock", "旧.sqlite"]
    import_base(tmp_path / "out.sqlite", "新", home=tmp_path)
    with pytest.raises(InputError, match="exists"):
        import_base(tmp_path / "out.sqlite", "新", home=tmp_path)
    with open_base("新", home=tmp_path, create=True) as base:
        assert [hit.file for hit in base.search("灭火器")] == ["安全.txt"]


def test_names_that_are_taken_or_bad_are_refused(tmp_path: Path) -> None:
    filled(tmp_path, who="alice").close()
    filled(tmp_path, "乙", "bob").close()
    for name, why in (
        ("乙", "taken"),
        ("旧", "taken"),
        ("../x", "a name has"),
        ("", "a name has"),
        (" 新", "a name has"),
    ):
        with pytest.raises(InputError, match=why):
            rename_base("旧", name, home=tmp_path, who="alice")
    assert bases(tmp_path) == ["乙", "旧"]


def test_who_may_not_sees_what_he_sees_for_a_name_that_nobody_has(tmp_path: Path) -> None:
    with filled(tmp_path, who="alice") as base:
        said = []
        for new in ("新", "旧", "../x"):
            for name in ("旧", "无"):
                with pytest.raises(NotFoundError) as refused:
                    rename_base(name, new, home=tmp_path, who="bob")
                said.append(str(refused.value).replace(name, "…", 1))
        assert len(set(said)) == 1
        base.store.share("bob", "write")
        with pytest.raises(InputError, match="right to own"):
            rename_base("旧", "新", home=tmp_path, who="bob")
    assert bases(tmp_path) == ["旧"]


@pytest.mark.parametrize("end", ["rename", "delete"])
def test_whoever_has_it_open_is_told(tmp_path: Path, end: str) -> None:
    """What somebody wrote before is there; nothing comes into another base that later gets the name."""
    with filled(tmp_path) as held:
        if end == "rename":
            rename_base("旧", "新", home=tmp_path)
        else:
            delete_base("旧", home=tmp_path)
        for _ in range(2):  # there is no base of that name, and another one
            for use in (
                lambda: held.search("灭火器"),
                lambda: held.add(Upload("b.txt", b"text")),
                held.files,
                held.check,
                lambda: held.configure(about="x"),
                lambda: held.export(tmp_path / "copy"),
            ):
                with pytest.raises(NotFoundError, match="renamed, deleted or replaced"):
                    use()
            assert "旧" not in bases(tmp_path) or beside(tmp_path, "旧")
            open_base("旧", home=tmp_path, create=True).close()
        with open_base("旧", home=tmp_path) as other:
            assert (other.files(), other.setting("about"), other.check()) == ([], "", [])
    if end == "rename":
        with open_base("新", home=tmp_path) as base:
            assert base.search("灭火器")[0].text == TEXT
            assert base.check() == []


def test_another_process_has_it_open(tmp_path: Path) -> None:
    """It holds the log, whose contents are nowhere else yet; it may end before or after the new name is used."""
    script = (
        "import sys; from pathlib import Path; from chatglm.errors import NotFoundError\n"
        "from chatglm.knowledge import Upload, open_base\n"
        "base = open_base('旧', home=Path(sys.argv[1]))\n"
        "base.add(Upload('b.txt', '气阀在二楼。'.encode())); print('added', flush=True); input()\n"
        "try: base.add(Upload('c.txt', b'text'))\n"
        "except NotFoundError as error: print(error, flush=True)\n"
        "input(); base.close()\n"
    )
    filled(tmp_path).close()
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "added\n"
        rename_base("旧", "新", home=tmp_path)
        with open_base("新", home=tmp_path) as base:
            base.add(Upload("d.txt", "电闸在一楼。".encode()))
            print(file=child.stdin, flush=True)
            assert "renamed" in child.stdout.readline()
            with open_base("旧", home=tmp_path, create=True) as other:
                print(file=child.stdin, flush=True)
                assert child.wait() == 0
                assert other.files() == []
                assert other.check() == []
            assert [file.name for file in base.files()] == ["b.txt", "d.txt", "安全.txt"]
        with open_base("新", home=tmp_path) as base:
            assert base.search("气阀")[0].file == "b.txt"
            assert base.check() == []


KILLED = """
import os, sys
from pathlib import Path
import chatglm.knowledge.store as store
from chatglm.knowledge import rename_base

for at, home in enumerate(sys.argv[1:]):
    name, count = home.rpartition("/")[2].split("-")
    if os.fork():
        os.wait()
        continue
    kind = Path if name == "unlink" else os
    work, calls = getattr(kind, name), [0]
    def counted(*arguments, **named):
        calls[0] += 1
        if calls[0] == int(count):
            os.kill(os.getpid(), 9)
        return work(*arguments, **named)
    setattr(kind, name, counted)
    rename_base("旧", "新", home=Path(home))
    os._exit(0)
"""


def test_a_process_that_is_killed_leaves_one_name(tmp_path: Path) -> None:
    """Before each of the steps; unlink 8 is the first after the new name counts."""
    steps = ("link-1", "link-2", "rename-1", "rename-2", "unlink-8", "unlink-9", "unlink-10", "unlink-99")
    homes = [tmp_path / step for step in steps]
    held = [filled(home) for home in homes]  # so there is a log and shared memory
    subprocess.run([sys.executable, "-c", KILLED, *map(str, homes)], check=True)
    names = []
    for home, base in zip(homes, held, strict=True):
        (name,) = bases(home)
        names.append(name)
        if name == "旧":
            base.add(Upload("b.txt", b"text"))
        other = "新" if name == "旧" else "旧"
        with open_base(other, home=home, create=True) as new, open_base(name, home=home) as same:
            assert (new.files(), new.check()) == ([], [])
            assert same.search("灭火器")[0].text == TEXT
            assert len(same.files()) == (2 if name == "旧" else 1)
            new.add(Upload("a.txt", b"other"))
            assert same.check() == []
        base.close()
        with open_base(name, home=home) as same, open_base(other, home=home) as new:
            assert same.search("灭火器")[0].text == TEXT
            assert [file.name for file in new.files()] == ["a.txt"]
            assert (same.check(), new.check()) == ([], [])
    assert names == ["旧"] * 3 + ["新"] * 5


def test_a_shelf_follows_names(tmp_path: Path) -> None:
    with Shelf(tmp_path) as shelf, Shelf(tmp_path) as another:
        made = shelf.make("旧", "alice")
        made.add(Upload("安全.txt", TEXT.encode()))
        assert another.base("旧", "alice").files()
        with pytest.raises(NotFoundError):
            shelf.rename("旧", "新", "bob")
        shelf.rename("旧", "新", "alice")
        with pytest.raises(NotFoundError):
            made.files()
        for one in (shelf, another):
            assert one.names("alice") == ["新"]
            with pytest.raises(NotFoundError):
                one.base("旧", "alice")
            assert one.bases(["新"], "alice").search("灭火器")[0].base == "新"
        assert shelf.make("旧", "bob").files() == []
        with pytest.raises(NotFoundError):
            another.base("旧", "alice")
        another.rename("新", "更新", "alice")
        assert shelf.names("alice") == ["更新"]
