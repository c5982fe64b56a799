"""Kernels of many conversations: who gets one, who waits, and that nobody sees what is another's."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from chatglm.errors import BusyError, InputError, QueueFullError, SandboxError
from chatglm.tools.interpreter import pool as module
from chatglm.tools.interpreter.folder import Claim
from chatglm.tools.interpreter.kernel import RESTARTED
from chatglm.tools.interpreter.limits import Limits
from chatglm.tools.interpreter.pool import Kernels
from kernels import need_sandbox, pieces
from waiting import auntil


@pytest.fixture(scope="module", autouse=True)
def _sandbox() -> None:
    need_sandbox()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernels]:
    """Room for three kernels, two for each user, none spare. Every test uses an event loop of its own."""
    kernels = Kernels(tmp_path_factory.mktemp("home") / "kernels", most=3, each=2, spare=0, patience=0.4)
    yield kernels
    asyncio.run(kernels.close())


def alive(kernels: Kernels) -> set[str]:
    return {name for (_, name), of in kernels._conversations.items() if of.kernel is not None and of.kernel.alive}


@asynccontextmanager
async def with_spare(home: Path, **options: Any) -> AsyncIterator[tuple[Kernels, module.Kernel]]:
    """A pool, its spare kernel, and a conversation `a` with a file."""
    async with Kernels(home, **options) as kernels:
        await auntil(lambda: kernels._spares)
        spare = kernels._spares[0]
        await kernels.put("a", "data.csv", pieces(b"1,2"))
        yield kernels, spare


async def outcome(work: Awaitable[Any]) -> Any:
    try:
        return (await work).text
    except Exception as error:
        return type(error)


SLEEP = "import time; time.sleep(1)"


def test_each_conversation_has_its_own_variables_and_files(shared: Kernels) -> None:
    async def main() -> None:
        heard: list[str] = []
        await shared.put("a", "data.csv", pieces(b"1,2"))
        cell = await shared.run("a", "x = 1; open('out.txt', 'w').write('of a'); print('中文')", on_output=heard.append)
        assert (cell.files, "".join(heard), cell.error) == (("out.txt",), "中文\n", "")
        assert await shared.files("a") == {"data.csv": 3, "out.txt": 4}
        other = await shared.run("b", "import os; print(os.listdir('.')); x")
        assert other.text == "[]\n"
        assert "NameError" in other.error
        assert await shared.files("b") == {}
        with await shared.open("a", "out.txt") as file:
            assert file.read() == b"of a"
        with pytest.raises(InputError):
            await shared.open("b", "out.txt")
        # The same name is another conversation where it is another user's.
        assert await shared.files("a", user="mallory") == {}
        assert "NameError" in (await shared.run("a", "x", user="mallory")).error

    asyncio.run(main())
    names = os.listdir(shared._given or "")
    assert all(re.fullmatch(r"[0-9a-f]{32}|\.[0-9a-f]{32}\.lock", name) for name in names)


def test_another_event_loop_finds_the_same_kernel(shared: Kernels) -> None:
    asyncio.run(shared.run("a", "kept = 5"))
    assert asyncio.run(shared.run("a", "print(kept)")).text == "5\n"


def test_the_least_recently_used_idle_kernel_makes_room(shared: Kernels) -> None:
    async def main() -> None:
        for user, name in (("u", "old"), ("v", "young"), ("w", "new"), ("v", "young")):
            await shared.run(name, "x = 1", user=user)
        await shared.run("fourth", "x = 1", user="x")
        assert alive(shared) == {"young", "new", "fourth"}
        cell = await shared.run("old", "print('back')", user="u")
        assert cell.text == f"{RESTARTED}\nback\n"
        assert cell.ended == ""

    asyncio.run(main())


def test_a_user_has_so_many_and_no_more(shared: Kernels) -> None:
    async def main() -> None:
        for name in ("one", "two", "three"):
            await shared.run(name, "x = 1", user="greedy")
        assert sum(of.placed for (user, _), of in shared._conversations.items() if user == "greedy") == 2

    asyncio.run(main())


def test_when_all_are_busy_a_cell_waits_and_is_told(shared: Kernels) -> None:
    async def main() -> None:
        for user, name in (("u", "b1"), ("v", "b2"), ("w", "b3")):
            await shared.run(name, "", user=user)
        busy = [asyncio.create_task(shared.run(n, SLEEP, user=u)) for u, n in (("u", "b1"), ("v", "b2"), ("w", "b3"))]
        await auntil(lambda: all(of.turn.locked() for of in shared._conversations.values() if of.placed))
        with pytest.raises(QueueFullError, match="all 3 Python kernels are running code"):
            await shared.run("late", "1", user="z")
        await asyncio.gather(*busy)
        assert (await shared.run("late", "1", user="z")).text == "1\n"

    asyncio.run(main())


def test_users_with_fewer_kernels_come_first(shared: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "_patience", 60.0)

    async def main() -> None:
        code = "import os, time\nwhile not os.path.exists('go'): time.sleep(.02)"
        busy = {
            name: asyncio.create_task(shared.run(name, code, user=user))
            for user, name in (("many", "m1"), ("many", "m2"), ("w", "w1"))
        }
        await auntil(lambda: {"m1", "m2", "w1"} <= alive(shared))
        third = asyncio.create_task(shared.run("m3", "", user="many"))
        await auntil(lambda: len(shared._waiting) == 1)
        first = asyncio.create_task(shared.run("f1", "", user="few"))
        await auntil(lambda: len(shared._waiting) == 2)
        await shared.put("m1", "go", pieces(), user="many")
        await first
        assert not third.done()
        for user, name in (("many", "m2"), ("w", "w1")):
            await shared.put(name, "go", pieces(), user=user)
        await asyncio.gather(third, *busy.values())

    asyncio.run(main())


def test_a_crash_of_one_touches_no_other(shared: Kernels) -> None:
    async def main() -> None:
        await shared.run("good", "x = 7", user="g")
        crash = asyncio.create_task(shared.run("bad", "import os; os._exit(9)", user="h"))
        cell = await shared.run("good", "import time; time.sleep(.5); print(x)", user="g")
        assert cell.text == "7\n"
        assert "exit status 9" in (await crash).ended
        assert (await shared.run("bad", "1", user="h")).text == f"{RESTARTED}\n1\n"
        assert (await shared.run("good", "print(x)", user="g")).text == "7\n"

    asyncio.run(main())


def test_cells_of_one_conversation_take_turns_and_cancelling_one_interrupts_it(shared: Kernels) -> None:
    async def main() -> None:
        first = asyncio.create_task(shared.run("turns", "import time; x = 1; time.sleep(60)", user="t"))
        of = None
        await auntil(lambda: ("t", "turns") in shared._conversations)
        of = shared._conversations["t", "turns"]
        await auntil(lambda: of.kernel is not None and of.kernel.busy)
        await asyncio.sleep(0.2)
        second = asyncio.create_task(shared.run("turns", "print(x)", user="t"))
        await asyncio.sleep(0.1)
        assert not second.done()
        first.cancel()
        assert (await second).text == "1\n"
        running = asyncio.create_task(shared.run("turns", "time.sleep(60)", user="t"))
        await auntil(lambda: of.kernel is not None and of.kernel.busy)
        await asyncio.sleep(0.2)
        await shared.interrupt("turns", user="t")
        assert "KeyboardInterrupt" in (await running).error

    asyncio.run(main())


def test_whoever_leaves_while_a_kernel_starts_or_ends_takes_nobody_along(shared: Kernels) -> None:
    async def main() -> None:
        for round_ in range(3):
            await shared.run("l0", "", user="l")
            tasks = [asyncio.create_task(shared.run(f"l{n}", "print(1)", user="l")) for n in (1, 2, 1, 2)]
            ends = [asyncio.create_task(shared.end("l0", user="l")) for _ in range(2)]
            await asyncio.sleep(0.1 * round_)
            for task in tasks[:2]:
                task.cancel()
            await asyncio.wait(tasks[:2])
            assert [(await task).text.removeprefix(f"{RESTARTED}\n") for task in tasks[2:]] == ["1\n", "1\n"]
            await asyncio.gather(*ends)
        held = [of for of in shared._conversations.values() if of.placed]
        assert len(held) <= 3
        assert all(of.kernel is not None for of in held)

    asyncio.run(main())


def test_ending_a_conversation_removes_its_folder_unless_it_is_kept(shared: Kernels) -> None:
    async def main() -> None:
        await shared.run("gone", "open('f', 'w').write('1'); import os; os.mkdir('d'); os.chmod('d', 0)", user="e")
        path = shared._conversations["e", "gone"].path
        await shared.end("gone", user="e", keep=True)
        assert await shared.files("gone", user="e") == {"f": 1}
        cell = await shared.run("gone", "print(open('f').read())", user="e")
        assert cell.text == f"{RESTARTED}\n1\n"
        await shared.end("gone", user="e")
        assert not path.exists()
        assert await shared.files("gone", user="e") == {}

    asyncio.run(main())


def test_looking_makes_no_conversation(shared: Kernels) -> None:
    async def main() -> None:
        assert await shared.marks("none", user="e") is None
        assert await shared.files("none", user="e") == {}
        assert await shared.state("none", user="e") is None
        with pytest.raises(InputError, match="no such file"):
            await shared.open("none", "f", user="e")
        assert ("e", "none") not in shared._conversations
        await shared.put("none", "f", pieces(b"1"), user="e")
        assert await shared.state("none", user="e") == "idle"
        await shared.run("none", "1", user="e")
        assert await shared.state("none", user="e") == "running"
        await shared.end("none", user="e", keep=True)
        assert await shared.state("none", user="e") == "idle"
        await shared.end("none", user="e")
        assert await shared.state("none", user="e") is None

    asyncio.run(main())


def test_a_broken_upload_leaves_nothing_and_holds_up_nobody(shared: Kernels) -> None:
    async def broken() -> Any:
        yield b"x"
        raise OSError("gone")

    async def main() -> None:
        with pytest.raises(OSError, match="gone"):
            await shared.put("up", "a.txt", broken(), user="e")
        assert await shared.files("up", user="e") == {}
        assert shared._conversations["e", "up"].uploads == 0

    asyncio.run(main())


def test_a_user_keeps_so_many_folders() -> None:
    async def main() -> None:
        async with Kernels(spare=0, most=2, each=1, kept=2) as kernels:
            await kernels.put("other", "data.csv", pieces(b"1,2"), user="b")
            for name in ("one", "two", "three"):
                await kernels.put(name, "data.csv", pieces(b"1,2"), user="a")
            gone = await kernels._there(folder_of(kernels, "one"))
            await auntil(lambda: not gone.exists())
            assert await kernels.state("one", user="a") is None
            for name in ("two", "three"):
                assert await kernels.files(name, user="a") == {"data.csv": 3}
            assert await kernels.files("other", user="b") == {"data.csv": 3}
            await kernels.run("two", "1", user="a")  # used last, so it is not the next to go
            await kernels.put("four", "data.csv", pieces(b"1,2"), user="a")
            gone = await kernels._there(folder_of(kernels, "three"))
            await auntil(lambda: not gone.exists())
            assert await kernels.files("two", user="a") == {"data.csv": 3}

    async def folder_of(kernels: Kernels, name: str) -> Path:
        return kernels._path("a", name)

    asyncio.run(main())
    with pytest.raises(InputError, match="kept: 3 folders are too few for 4 kernels"):
        Kernels(kept=3)


def test_a_folder_in_which_another_process_works_is_kept(tmp_path: Path) -> None:
    """The page and the terminal of one person share a home."""

    async def main() -> None:
        async with Kernels(tmp_path, spare=0, most=2, each=1, kept=2) as kernels:
            await kernels.put("mine", "data.csv", pieces(b"1,2"), user="a")
            path = kernels._path("a", "mine")
            claim = Claim(path)
            claim.take()  # as another process does, which has its own file open
            try:
                for name in ("one", "two", "three", "four"):
                    await kernels.put(name, "data.csv", pieces(b"1,2"), user="a")
                gone = kernels._path("a", "one")
                await auntil(lambda: not gone.exists())
                assert (path / "data.csv").read_bytes() == b"1,2"
            finally:
                claim.release()
            for name in ("five", "six"):
                await kernels.put(name, "data.csv", pieces(b"1,2"), user="a")
            await auntil(lambda: not path.exists())

    asyncio.run(main())


def test_idle_kernels_are_ended_and_say_so() -> None:
    async def main() -> None:
        async with Kernels(idle=0.3, spare=0) as kernels:
            await kernels.run("a", "x = 1")
            await auntil(lambda: not alive(kernels))
            assert (await kernels.run("a", "2")).text == f"{RESTARTED}\n2\n"

    asyncio.run(main())


def test_a_spare_kernel_knows_its_folder_where_it_has_no_namespace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the folder has a path of its own, and `/mnt/data` is not there."""
    monkeypatch.setattr(module.Kernel.load, "__defaults__", (("colorsys",),))

    async def main() -> None:
        async with with_spare(tmp_path, tier="confined") as (kernels, spare):
            code = """
import os, tempfile
print(open("/mnt/data/data.csv").read())
with tempfile.TemporaryFile() as file: file.write(b"1")
os.getcwd() == os.environ["HOME"] == "/mnt/data"
"""
            cell = await kernels.run("a", code)
            assert (cell.text, cell.error, cell.files) == ("1,2\nTrue\n", "", ())
            assert kernels._conversations["", "a"].kernel is spare

    asyncio.run(main())


def test_a_spare_kernel_is_taken_with_the_files_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.Kernel.load, "__defaults__", (("colorsys",),))

    async def main() -> None:
        async with with_spare(tmp_path, spare=1, most=2) as (kernels, spare):
            code = """
import sys
print(open('/mnt/data/data.csv').read(), 'colorsys' in sys.modules)
open('made', 'w').write('1')
"""
            cell = await kernels.run("a", code)
            assert kernels._conversations["", "a"].kernel is spare
            assert cell.text.startswith("1,2 True\n")
            assert cell.files == ("made",)
            assert await kernels.files("a") == {"data.csv": 3, "made": 1}
            await auntil(lambda: kernels._spares)
            # Of two places one is the conversation's: to have the other, the next takes the spare one's.
            await kernels.run("b", "1")
            assert kernels._spares == []
            assert len(alive(kernels)) == 2
        assert len(os.listdir(tmp_path)) == 2  # the conversations' folders

    asyncio.run(main())
    # What a process that was killed has left is removed, and folders that were being exchanged are whole again.
    (tmp_path / ".spare-999999999-x").mkdir()
    folder = next(path for path in tmp_path.iterdir() if (path / "data.csv").exists())
    os.rename(folder, folder.with_name(folder.name + ".moving"))
    (folder).mkdir()
    (folder / "late.txt").write_text("x")

    async def again() -> None:
        async with Kernels(tmp_path, spare=0) as kernels:
            assert await kernels.files("a") == {"data.csv": 3, "made": 1, "late.txt": 1}
            assert (await kernels.run("a", "1")).text == f"{RESTARTED}\n1\n"  # of the process before
            assert not list(tmp_path.glob(".spare*"))

    asyncio.run(again())


def test_a_folder_that_cannot_move_to_a_spare_kernel_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.Kernel.load, "__defaults__", (("colorsys",),))

    async def main() -> None:
        async with with_spare(tmp_path, tier="confined") as (kernels, spare):
            for folder in (spare.folder, module.folder_of(tmp_path, "a")):
                (folder / ".tmp").mkdir(exist_ok=True)
                (folder / ".tmp" / "kept").touch()
            cell = await kernels.run("a", "open('data.csv').read()")
            assert (cell.text, cell.error) == ("'1,2'\n", "")
            assert kernels._conversations["", "a"].kernel is not spare
            assert not spare.alive
            assert not spare.folder.exists()

    asyncio.run(main())


def test_closing_ends_a_spare_kernel_that_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[module.Kernel] = []

    async def load(self: module.Kernel) -> None:
        started.append(self)
        await asyncio.sleep(3600)

    monkeypatch.setattr(module.Kernel, "load", load)

    async def main() -> None:
        kernels = Kernels(tmp_path, spare=1)
        await kernels.files("a")
        await auntil(lambda: started)
        await kernels.close()
        assert not started[0].alive
        assert started[0]._files._fd == -1
        assert list(tmp_path.iterdir()) == []

    asyncio.run(main())


def test_closing_ends_everything() -> None:
    async def main() -> None:
        kernels = Kernels(spare=0)
        running = asyncio.create_task(outcome(kernels.run("a", SLEEP * 30)))
        await auntil(lambda: alive(kernels))
        home = kernels._home
        await asyncio.gather(kernels.close(), kernels.close())
        assert await running in ("", SandboxError)
        assert home is not None
        assert not home.exists()
        for work in (kernels.run("a", "1"), kernels.files("a"), kernels.put("a", "x", pieces())):
            with pytest.raises(SandboxError, match="closed"):
                await work

    asyncio.run(main())


def test_what_cannot_start_is_told_and_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with Kernels(spare=0, limits=Limits(memory=1 << 20)) as kernels:
            for _ in range(3):
                with pytest.raises(SandboxError):
                    await kernels.run("a", "1")
            assert not any(of.placed for of in kernels._conversations.values())

    asyncio.run(main())


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    async def main() -> None:
        kernels = Kernels(tmp_path / "file" / "home", spare=0)
        with pytest.raises(SandboxError, match="no folder for the interpreter can be made"):
            await kernels.run("a", "1")
        await kernels.close()

    asyncio.run(main())


def test_one_process_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    """Of two programs with one home, the second is told who has the conversation's Python. It may read the files."""
    holder = f"""
import asyncio, sys
from pathlib import Path
from chatglm.tools.interpreter.pool import Kernels

async def main():
    async with Kernels(Path({str(tmp_path)!r}), spare=0) as kernels:
        await kernels.run("a", "x = 1; open('mine', 'w').write('1')")
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await kernels.end("a", keep=True)
        print("ended", flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""
    with subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        try:
            assert other.stdout.readline() == "ready\n"

            async def main() -> None:
                assert other.stdin is not None
                assert other.stdout is not None
                async with Kernels(tmp_path, spare=0) as kernels:
                    for work in (kernels.run("a", "1"), kernels.put("a", "data.csv", pieces(b"1"))):
                        with pytest.raises(BusyError, match=f"process {other.pid}"):
                            await work
                    assert await kernels.files("a") == {"mine": 1}
                    assert not (await kernels.run("b", "1")).error
                    other.stdin.write("\n")
                    other.stdin.flush()
                    assert await asyncio.to_thread(other.stdout.readline) == "ended\n"
                    await kernels.put("a", "data.csv", pieces(b"1"))
                    assert "data.csv mine" in (await kernels.run("a", "import os; print(*sorted(os.listdir()))")).text
                    await kernels.end("a")
                    await kernels.end("b")
                assert list(tmp_path.iterdir()) == []

            asyncio.run(main())
        finally:
            other.kill()


def test_a_claim_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    code = f"""
import os
from pathlib import Path
from chatglm.tools.interpreter.folder import Claim
Claim(Path({str(path)!r})).take()
print("taken", flush=True)
os.kill(os.getpid(), 9)
"""
    dead = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert dead.stdout == "taken\n"
    first, second = Claim(path), Claim(path)
    first.take()
    first.take()
    with pytest.raises(BusyError, match="in use"):
        second.take()
    first.release()
    second.take()
    second.release()
    assert list(tmp_path.iterdir()) == []
