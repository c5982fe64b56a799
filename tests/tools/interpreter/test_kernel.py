"""One conversation's Python, as its host sees it: what cells show, what they may use, and what becomes of those that
use more. Each attempt is followed by a cell that must work."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from chatglm.errors import DependencyError, InputError, SandboxError
from chatglm.tools.interpreter.folder import Folder, remove
from chatglm.tools.interpreter.kernel import RESTARTED, Kernel
from chatglm.tools.interpreter.limits import Cell, Limits
from chatglm.tools.threads import LoopThread
from kernels import need_sandbox, pieces
from waiting import until

T = TypeVar("T")
MIB = 1 << 20
SMALL = Limits(
    memory=256 * MIB, file=24 * MIB, folder=48 * MIB, files=300, processes=40, seconds=1.5, output=4 * MIB, shown=20_000
)


class Held:
    """A kernel in an event loop of its own, for tests that have none."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.loop = LoopThread()
        self.folder = folder
        self.kernel = self.wait(Kernel.start(folder, limits))

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(work)

    def run(self, code: str, on_output: Callable[[str], None] | None = None) -> Cell:
        return self.wait(self.kernel.run(code, on_output))

    def close(self) -> None:
        self.wait(self.kernel.close())
        self.loop.close()


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    """For cells that keep within the usual limits."""
    need_sandbox()
    held = Held(tmp_path_factory.mktemp("roomy"), Limits())
    yield held
    held.close()


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    """For cells that do not."""
    need_sandbox()
    held = Held(tmp_path_factory.mktemp("tight"), SMALL)
    yield held
    held.close()


def test_variables_stay_and_the_last_value_is_shown(roomy: Held) -> None:
    assert roomy.run("x = 20").text == ""
    cell = roomy.run("y = x + 1\ny * 2")
    assert (cell.text, cell.error, cell.ended, cell.pictures) == ("42\n", "", "", ())
    assert 0 < cell.seconds < 30


def test_output_comes_in_its_order_and_as_it_is_written(roomy: Held) -> None:
    heard: list[str] = []
    code = """
import os, subprocess, sys
print("one"); display("two"); sys.stderr.write("three\\n")
subprocess.run(["echo", "four"])
!echo five; echo six >&2
print("seven", end=""); os.write(1, b"eight\\n")
"nine"
"""
    cell = roomy.run(code, heard.append)
    assert cell.text == "one\n'two'\nthree\nfour\nfive\nsix\nseveneight\n'nine'\n"
    assert "".join(heard) == cell.text
    assert len(heard) > 3
    began: list[float] = []
    roomy.run("import time\nprint(1)\ntime.sleep(.3)\nprint(2)", lambda _: began.append(time.monotonic()))
    assert began[-1] - began[0] > 0.2


def test_an_error_keeps_the_kernel(roomy: Held) -> None:
    roomy.run("kept = 5")
    cell = roomy.run("def f():\n    return 1 / 0\nprint('before')\nf()")
    assert cell.text == "before\n"
    assert "Cell In[" in cell.error
    assert cell.error.endswith("ZeroDivisionError: division by zero\n")
    assert "\x1b" not in cell.error
    assert "SyntaxError" in roomy.run("def f(:").error
    assert roomy.run("kept").text == "5\n"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("exit()", ""),
        ("quit()", ""),
        ("import sys; sys.exit()", ""),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("input('name? ')", "EOFError: input() cannot be used here"),
        ("import getpass; getpass.getpass()", "EOFError"),
        ("await __import__('asyncio').sleep(0)", ""),
        ("import sys; sys.stdout.close()", ""),
        ("import os; os.close(1); os.close(2)", ""),
        ("import os\nif os.fork() == 0: print('child')", ""),
        ("%%bash\nexit 3", "CalledProcessError"),
        ("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)", ""),
        ("raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})", "Odd"),
        ("class R:\n    def __repr__(self): raise ValueError('no repr')\nR()", "no repr"),
        ("class R:\n    def _repr_png_(self): return 'no base64 !'\nR()", ""),
        ("print('\\ud800\\x00\\x1b[2J')", ""),
        ("'\\ud800'", ""),
    ],
)
def test_odd_ends_of_cells_leave_a_kernel_that_goes_on(roomy: Held, code: str, error: str) -> None:
    roomy.run("alive = 42")
    cell = roomy.run(code)
    assert cell.ended == ""
    assert error in cell.error
    assert bool(error) == bool(cell.error)
    assert not set(cell.text) & set("\x00\x1b\ud800")
    after = roomy.run("print(alive)")
    # What a child writes comes when it comes, in pieces.
    assert (after.text.replace("child", "").strip(), after.error) == ("42", "")


def test_tables_are_text_and_wide_enough(roomy: Held) -> None:
    cell = roomy.run("import pandas as pd\npd.DataFrame({f'column number {i}': [i * 1000] for i in range(8)})")
    assert len(cell.text.splitlines()) == 2
    assert cell.text.startswith("   column number 0  column number 1")


def test_plots_are_pictures_and_have_chinese(roomy: Held) -> None:
    if not roomy.run("!fc-list :lang=zh").text.strip():
        pytest.skip("no font with Chinese characters; apt install fonts-noto-cjk")
    named = "plt.rcParams['font.sans-serif'] = ['SimHei']; plt.rcParams['font.family'] = 'SimHei'\n"
    code = "plt.figure(figsize=(3, 2)); plt.plot([1, -2, 3]); plt.title('中文标题'); plt.show()\nprint('after')"
    for before in ("import matplotlib.pyplot as plt\n", named):
        cell = roomy.run(before + code)
        assert (cell.text, cell.error) == ("after\n", "")
        (picture,) = cell.pictures
        assert picture.startswith(b"\x89PNG")
    missing = roomy.run("plt.title('\\u3400\\U0002A6D6 中'); plt.rcParams['font.family'] = 'DejaVu Sans'\n" + code)
    assert missing.text.count("请用英文标注图表") == 1


def test_made_and_changed_files_are_named(roomy: Held) -> None:
    code = "import os\nos.makedirs('plots', exist_ok=True)\nfor n in ('a.txt', 'plots/图.csv', '.hidden'): "
    assert roomy.run(code + "open(n, 'w').write('1')").files == ("a.txt", "plots/图.csv")
    assert roomy.run("open('a.txt')").files == ()
    assert roomy.run("open('a.txt', 'a').write('2')").files == ("a.txt",)
    assert roomy.run("for i in range(200): open(f'many{i:03}', 'w')").files == tuple(f"many{i:03}" for i in range(100))
    assert roomy.run("os.symlink('/etc/passwd', 'link.png'); os.mkfifo('fifo'); open('x\\ny', 'w')").files == ()
    with roomy.kernel.open("plots/图.csv") as file:
        assert file.read() == b"1"
    for name in (
        "link.png",
        "fifo",
        "plots",
        "../a.txt",
        "plots/../a.txt",
        "/etc/passwd",
        "",
        ".",
        "none",
        "a.txt/b",
        "a\0",
    ):
        with pytest.raises(InputError, match="file"):
            roomy.kernel.open(name)
    roomy.run("os.remove('plots/图.csv'); os.rmdir('plots'); os.symlink('/etc', 'plots')")
    with pytest.raises(InputError, match="no such file"):
        roomy.kernel.open("plots/passwd")


def test_uploads_are_whole_bounded_and_under_safe_names(roomy: Held) -> None:
    roomy.wait(roomy.kernel.put("数据.csv", pieces(b"a,b\n", b"1,2\n")))
    cell = roomy.run("print(open('/mnt/data/数据.csv').read()); open('数据.csv', 'a').write('3,4')")
    assert cell.text.startswith("a,b\n1,2\n")
    assert cell.files == ("数据.csv",)
    names = (
        "../x",
        "a/b",
        "",
        ".",
        ".bashrc",
        "x\n",
        "a\u202eb",
        "CON",
        "nul.txt",
        "a:b",
        "x.",
        " x",
        "x" * 201,
        "a\\b",
        "\ud800",
    )
    for name in [*names, "\ud800"]:
        with pytest.raises(InputError, match="cannot be the name"):
            roomy.wait(roomy.kernel.put(name, pieces(b"x")))
    before = roomy.kernel.files()

    async def endless() -> Any:
        while True:
            yield bytes(MIB)

    async def broken() -> Any:
        yield b"begun"
        raise OSError("the client is gone")

    (roomy.folder / "results").mkdir()
    with pytest.raises(InputError, match="there is a folder of this name"):
        roomy.wait(roomy.kernel.put("results", pieces(b"x")))
    (roomy.folder / "results").rmdir()
    small = Limits(file=3 * MIB)
    kernel = roomy.kernel
    usual, kernel._limits = kernel._limits, small
    with pytest.raises(InputError, match="larger than 3145728 bytes"):
        roomy.wait(kernel.put("large.bin", endless()))
    kernel._limits = usual
    with pytest.raises(OSError, match="the client is gone"):
        roomy.wait(kernel.put("数据.csv", broken()))
    assert roomy.kernel.files() == before
    assert not [name for name in os.listdir(roomy.folder) if name.startswith(".upload")]


def test_a_link_in_an_uploads_place_is_replaced_and_not_followed(roomy: Held, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    (roomy.folder / "here.txt").symlink_to(outside)
    roomy.wait(roomy.kernel.put("here.txt", pieces(b"new")))
    assert outside.read_text() == "untouched"
    assert (roomy.folder / "here.txt").read_text() == "new"


def test_cancelling_interrupts_and_keeps_variables(roomy: Held) -> None:
    roomy.run("kept = 7")

    async def cancelled() -> float:
        task = asyncio.create_task(roomy.kernel.run("import time\ntry:\n    time.sleep(60)\nfinally:\n    said = 1"))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        cell = await roomy.kernel.run("print(kept, said)")
        assert cell.text == "7 1\n"

    roomy.wait(cancelled())


def test_interrupt_reaches_children_and_says_so(roomy: Held) -> None:
    async def interrupted() -> Cell:
        task = asyncio.create_task(roomy.kernel.run("!sleep 60\nprint('next')"))
        await asyncio.sleep(0.3)
        await roomy.kernel.interrupt()
        return await task

    cell = roomy.wait(interrupted())
    assert "[the cell was interrupted: it was asked to stop]" in cell.text
    assert cell.ended == ""


def test_cells_of_one_kernel_run_in_turn(roomy: Held) -> None:
    async def together() -> list[Cell]:
        codes = [f"import time\nprint('a{i}'); time.sleep(.05); print('b{i}')" for i in range(5)]
        return list(await asyncio.gather(*map(roomy.kernel.run, codes)))

    assert [cell.text for cell in roomy.wait(together())] == [f"a{i}\nb{i}\n" for i in range(5)]


def test_the_event_loop_is_not_held_up(roomy: Held) -> None:
    async def measured() -> float:
        gaps, stop = [0.0], asyncio.Event()

        async def tick() -> None:
            while not stop.is_set():
                at = time.monotonic()
                await asyncio.sleep(0.005)
                gaps.append(time.monotonic() - at)

        ticking = asyncio.create_task(tick())
        await roomy.kernel.run("for _ in range(300): print('x' * 100_000)")
        stop.set()
        await ticking
        return sum(gaps) / len(gaps)

    assert roomy.wait(measured()) < 0.2


CLEAR = """
import os, shutil
for name in os.listdir("."):
    if os.path.isdir(name):
        os.chmod(name, 0o700)
        shutil.rmtree(name, ignore_errors=True)
    else:
        os.remove(name)
"""


def check(held: Held, cell: Cell, ended: str) -> None:
    """A cell was stopped as it should be, and the next one works."""
    assert ended in cell.ended
    assert bool(ended) == bool(cell.ended)
    held.run(CLEAR)
    after = held.run("print(40 + 2)")
    assert after.text.removeprefix(RESTARTED + "\n") == "42\n"


# Of the usual attempts those that only a host's watchdog ends are in test_kernel_attempts.py. These are more of them.
ATTEMPTS = {
    "disk": (
        """
import time
for i in range(9): open(f'f{i}', 'wb').write(bytes(2**23))
time.sleep(1)
""",
        "48 MiB in its folder",
    ),
    "disk without names": (
        """
import os, time
for i in range(9):
    f = os.open('f', os.O_RDWR | os.O_CREAT); os.unlink('f'); os.write(f, bytes(2**23))
time.sleep(1)
""",
        "48 MiB in its folder",
    ),
    "mapped disk without names": (
        """
import mmap, os, time
kept = []
for i in range(9):
    f = os.open('f', os.O_RDWR | os.O_CREAT); os.unlink('f'); os.ftruncate(f, 2**23)
    kept.append(mmap.mmap(f, 2**23))
    for fd in range(3, 100):  # Python keeps one of its own for each mapping
        try:
            if os.fstat(fd).st_nlink == 0: os.close(fd)
        except OSError: pass
    kept[-1][:] = bytes(2**23); kept[-1].flush(); kept[-1].madvise(mmap.MADV_DONTNEED)
time.sleep(1)
""",
        "48 MiB in its folder",
    ),
    "depth": (
        """
import os, time
for i in range(100): os.mkdir('d'); os.chdir('d')
open('x', 'w').write('1'); time.sleep(1)
""",
        "folders nested 32 deep",
    ),
    "hidden from view": (
        """
import os, time
os.mkdir('d')
for i in range(9): open(f'd/f{i}', 'wb').write(bytes(2**23))
os.chmod('d', 0); time.sleep(1)
""",
        "48 MiB in its folder",
    ),
    "exit": ("import os; os._exit(3)", "ended itself (exit status 3)"),
    "kills itself": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
    "crash": ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
}


@pytest.mark.parametrize("name", ATTEMPTS)
def test_attempt(tight: Held, name: str) -> None:
    code, ended = ATTEMPTS[name]
    cell = tight.run(code)
    assert len(cell.text.encode()) < SMALL.shown + 200
    check(tight, cell, ended)


@pytest.mark.parametrize("code", ["while True: display('x' * 8000)", "import os; os.closerange(3, 256)"])
def test_attempt_that_may_end_in_several_ways(tight: Held, code: str) -> None:
    cell = tight.run(code)
    assert cell.ended or "interrupted" in cell.text
    check(tight, cell, cell.ended)


def test_a_full_folder_can_be_emptied(tight: Held) -> None:
    tight.run(ATTEMPTS["disk"][0])
    text = tight.run("import os; print(len(os.listdir('.')) > 3)").text
    assert text.startswith(RESTARTED + "\n[the folder has ")
    assert "MiB; the limit is 48 MiB. Nothing more can be written" in text
    assert text.endswith("]\nTrue\n")
    cell = tight.run("open('more', 'wb').write(bytes(2**24))")
    assert "File too large" in cell.error
    assert not cell.ended
    cell = tight.run("for name in os.listdir('.'): os.remove(name)")
    assert not cell.error
    cell = tight.run("open('more', 'wb').write(bytes(2**24))")
    assert cell.text == RESTARTED + "\n16777216\n"
    check(tight, cell, "")


@pytest.mark.parametrize(
    "fill",
    [
        "import os; os.posix_fallocate(f.fileno(), 0, 2**24)",
        "f.write(bytes(2**24))",
    ],
)
def test_short_cells_do_not_fill_the_disk(tight: Held, fill: str) -> None:
    """Each ends before the watchdog looks at the folder by itself."""
    for number in range(5):
        tight.run(f"for n in range(4):\n    with open(f'{number}-{{n}}', 'wb') as f: {fill}")
    size = sum(file.stat().st_blocks * 512 for file in tight.folder.rglob("*"))
    assert size <= 2 * SMALL.folder
    check(tight, tight.run("for name in os.listdir('.'): os.remove(name)"), "")


MAKING = """
import os
if not os.path.exists("first"): open("first", "w").close()
refused = 0
for number in range(400):
    try:
        MAKE
    except OSError as error:
        refused, why = refused + 1, error.strerror
if refused: print(refused, why)
"""


@pytest.mark.parametrize(
    "make",
    [
        "open(f'{number}-{os.urandom(4).hex()}', 'w').close()",
        "os.mkdir(os.urandom(4).hex())",
        "os.link('first', os.urandom(4).hex())",
        "os.symlink('first', os.urandom(4).hex())",
    ],
)
def test_short_cells_do_not_fill_the_folder_with_empty_files(tight: Held, make: str) -> None:
    """Each usually ends before the watchdog looks at the folder by itself."""
    code = MAKING.replace("MAKE", make)
    assert "more than 300 files and folders" in tight.run(code).ended
    count = len(os.listdir(tight.folder))
    for _ in range(2):
        cell = tight.run(code)
        assert f"the folder has {count} files and folders; the limit is 300" in cell.text
        assert "400 Disk quota exceeded" in cell.text
        assert not cell.ended
    assert len(os.listdir(tight.folder)) == count
    assert tight.run("open('first', 'r+').write('1')").error == ""
    check(tight, tight.run("import shutil\n" + CLEAR), "")
    assert tight.run("open('again', 'w').write('1')").text == "1\n"


def test_a_temporary_folder_beside_the_files_ends_no_kernel_of_a_full_folder(tmp_path: Path) -> None:
    """The tier without namespaces has one."""
    need_sandbox()
    for number in range(40):
        (tmp_path / str(number)).touch()
    tmp_path.chmod(0o755)

    async def cells() -> list[Cell]:
        kernel = await Kernel.start(tmp_path, replace(SMALL, files=30), tier="confined")
        try:
            codes = ["import os\nopen('new', 'w')", "import os\nfor number in range(20): os.remove(str(number))"]
            return [await kernel.run(code) for code in [*codes, "open('new', 'w').write('1')"]]
        finally:
            await kernel.close()

    refused, removed, made = asyncio.run(cells())
    assert "Disk quota exceeded" in refused.error
    assert "Nothing more can be made" in removed.text
    assert (removed.error, removed.ended) == ("", "")
    assert (made.error, made.ended) == ("", "")


def test_folders_nested_too_deep_are_brought_up_so_that_what_they_hold_counts(tight: Held) -> None:
    deep = "import os\nopen('deepest', 'w').write('1')\nfor _ in range(1500):\n  os.mkdir(b'd\\xff')\n"
    deep += "  os.rename(b'deepest', b'd\\xff/deepest')\n  os.chdir(b'd\\xff')"
    assert "folders nested 32 deep" in tight.run(deep).ended
    cell = tight.run(
        "import os; print(len([name for _, _, names in os.walk('.') for name in names if name == 'deepest']))"
    )
    assert "moved to the top of the folder: nested-" in cell.text
    assert cell.text.endswith("1\n")
    with contextlib.closing(Folder(tight.folder)) as folder:
        assert folder.usage(10_000).number > 31
        assert folder.usage(10_000).depth < 32
    # A cell would have to delete a thousand folders within its second and a half.
    [kept] = [path for path in tight.folder.iterdir() if any("deepest" in names for _, _, names in os.walk(path))]
    for path in set(tight.folder.iterdir()) - {kept}:
        remove(path)
    fill = "[where] = [at for at, _, names in os.walk('.') if 'deepest' in names]\nos.chdir(where)\n"
    fill = "import os\n" + fill + "for i in range(9): open(f'f{i}', 'wb').write(bytes(2**23))"
    assert "48 MiB in its folder" in tight.run(fill).ended
    check(tight, tight.run(CLEAR), "")
    assert os.listdir(tight.folder) == []


def test_one_file_is_bounded(tight: Held) -> None:
    cell = tight.run("open('big', 'wb').write(bytes(2**25))")
    assert "OSError" in cell.error or "SIGXFSZ" in cell.ended
    check(tight, cell, cell.ended)


def test_an_endless_loop_is_interrupted_and_variables_stay(tight: Held) -> None:
    tight.run("kept = 3")
    cell = tight.run("while True: pass")
    assert cell.ended == ""
    assert cell.error.rstrip().endswith("KeyboardInterrupt")
    assert "[the cell was interrupted: the time limit of 1.5 s]" in cell.text
    assert tight.run("kept").text == "3\n"


def test_an_enormous_result_ends_no_host(tight: Held) -> None:
    cell = tight.run("'x' * (20 << 20)")
    assert len(cell.text) < 9_000
    check(tight, cell, cell.ended)
    cell = tight.run("class P:\n  def _repr_png_(self): return bytes(5 << 20)\nP()\nfor i in range(30): display(P())")
    assert cell.pictures == ()
    check(tight, cell, cell.ended)


FORGE = """
import json, os, stat, struct
def is_socket(f):
    try: return stat.S_ISSOCK(os.fstat(f).st_mode)
    except OSError: return False
fd = [f for f in range(3, 256) if is_socket(f)][0]
def send(header, body=b"", size=None):
    os.write(fd, struct.pack(">II", len(header), len(body) if size is None else size) + header + body)
def say(**fields): send(json.dumps(fields).encode())
"""


@pytest.mark.parametrize(
    "forged",
    [
        "say(kind='display', data={'text/html': '<script>alert(1)</script>'})",
        "os.write(fd, struct.pack('>II', 0xFFFFFFFF, 0) + b'A' * 100)",
        "send(b'{}', size=0xFFFFFFFF)",
        "send(b'[' * 100_000)",
        "send(b'not json')",
        "say(kind='result', text=3, number=1)",
        "say(kind='result', text='x')",
        "say(kind='done', number=10**9)",
        "say(kind='done', number=True)",
        "say(kind='ready', pid=1)",
        "say(kind='picture', number='x')",
        "say(kind=['result'])",
        "send(json.dumps({'kind': 'x' * 1000, 'a': {'b': [1] * 1000}}).encode())",
    ],
)
def test_forged_messages_end_that_kernel_only(tight: Held, forged: str) -> None:
    cell = tight.run(FORGE + forged + "\nimport time; time.sleep(1)")
    assert cell.ended.startswith("the kernel ")
    assert tight.run("1").text == RESTARTED + "\n1\n"


def test_forged_results_and_endings_fool_nobody(tight: Held) -> None:
    """A cell may print what it likes, and so it may forge a result; and it may say that it is over, once."""
    cell = tight.run(FORGE + "say(kind='result', text='<b>\\x1b[31mforged', number=77)\nprint('y')")
    assert "<b>forged" in cell.text
    check(tight, cell, cell.ended)
    cell = tight.run(
        FORGE + "say(kind='picture', number=5)\nsend(json.dumps({'kind': 'picture', 'number': 6}).encode(), b'GIF89a')"
    )
    assert cell.pictures == ()
    check(tight, cell, cell.ended)


ANSWERED = "\ndef answered(*a, **k):\n    say(*a, **k); os.read(fd, 1000)\n"


@pytest.mark.parametrize(
    ("flood", "ended"),
    [
        ("while True: say(kind='result', text='', number=1)", "without waiting for an answer"),
        ("while True: answered(kind='result', text='', number=1)", "more than 500 results"),
        ("while True: display('')", "more than 500 results"),
        ("while True: answered(kind='result', text='', number=1, more='x' * 100_000)", "4 MiB of messages"),
    ],
)
def test_floods_of_messages_end_that_kernel_before_its_time(tight: Held, flood: str, ended: str) -> None:
    kernel = tight.kernel
    usual, kernel._limits = kernel._limits, replace(SMALL, parts=500, seconds=60.0)
    cell = tight.run(FORGE + ANSWERED + flood)
    kernel._limits = usual
    assert ended in cell.ended
    assert len(cell.text.encode()) < SMALL.shown + 200
    assert tight.run("1").text == RESTARTED + "\n1\n"


def test_background_work_is_ended(tight: Held) -> None:
    limits = Limits(idle_cpu=0.5)
    kernel = tight.kernel
    usual, kernel._limits = kernel._limits, limits
    tight.wait(kernel.end("test"))
    tight.run("1")
    cell = tight.run(
        "import threading\ndef burn():\n  while True: pass\nthreading.Thread(target=burn, daemon=True).start()"
    )
    assert cell.ended == ""
    until(lambda: not kernel.alive)
    kernel._limits = usual
    assert tight.run("2").text == RESTARTED + "\n2\n"


def test_nothing_is_left(tmp_path: Path) -> None:
    """Neither processes nor descriptors nor threads nor tasks, over five kernels, half of which are killed."""
    need_sandbox()
    pids: list[int] = []

    async def one(number: int) -> None:
        kernel = await Kernel.start(tmp_path / "folder", SMALL)
        assert kernel._process is not None
        await kernel.run(
            "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0: time.sleep(600)\n  os._exit(0)"
        )
        pids.extend(kernel._process.watchdog.started.result().processes())
        if number % 2:
            await kernel.run("import os; os._exit(1)")
        await kernel.close()
        with pytest.raises(SandboxError, match="closed"):
            await kernel.run("1")

    async def all_of_them() -> set[Any]:
        for number in range(4):
            await one(number)
        return asyncio.all_tasks() - {asyncio.current_task()}

    asyncio.run(one(0))
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    assert not asyncio.run(all_of_them())
    assert threading.active_count() <= threads
    assert len(os.listdir("/proc/self/fd")) == files
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))
    assert os.listdir(tmp_path / "folder") == []


def test_a_missing_ipython_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"chatglm\[interpreter\]"):
        asyncio.run(Kernel.start(tmp_path))


def test_code_that_is_too_long_is_refused(roomy: Held) -> None:
    assert "longer than" in roomy.run("#" * (2 << 20)).error


def test_header_of_forged_messages_is_what_the_shell_sends() -> None:
    """The forgeries above would test nothing if their form were wrong."""
    from chatglm.tools.interpreter.channel import Frames

    header = json.dumps({"kind": "result", "text": "x", "number": 1}).encode()
    (frame,) = Frames(10).feed(struct.pack(">II", len(header), 0) + header)
    assert frame.fields == {"text": "x", "number": 1}
