"""A model's code gets nothing that is not its own, whatever the tier; and nothing of it is left after the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hosts import CONTAINER, NOBODY, Host, need, prepared

from chatglm.errors import SandboxError
from chatglm.tools.interpreter.limits import Limits
from chatglm.tools.interpreter.sandbox import protection, start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sandboxes need Linux")

TIERS: dict[str, tuple[int, dict[str, Any]]] = {
    "full": (os.getuid(), {"tier": "full"}),
    "full-nobody": (NOBODY, {"tier": "full"}),
    "confined": (os.getuid(), {"tier": "confined"}),
    "confined-nobody": (NOBODY - 1, {"tier": "confined"}),
    "confined-abi4": (NOBODY - 2, {"tier": "confined", "abi": 4}),
    "confined-abi3": (NOBODY - 3, {"tier": "confined", "abi": 3}),
}


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with prepared() as made:
        yield made


def needed(name: str) -> tuple[int, dict[str, Any]]:
    user, options = TIERS[name]
    layers = dict(protection().layers)
    if options["tier"] == "confined":
        del layers["namespaces"]
    need({str(layer): reason for layer, reason in layers.items()}, user)
    return user, options


@pytest.mark.parametrize("tier", TIERS)
def test_nothing_is_got_and_nothing_is_left(host: Host, tier: str) -> None:
    user, options = needed(tier)
    report = host.attempt(user, options)  # all but what takes a watchdog: test_kernel_attempts.py
    assert len(report["attempts"]) == 29
    for name, found in report["attempts"].items():
        assert all(line.startswith("no:") for line in found["lines"]), (name, found["lines"])
        assert found["lines"], name
        assert not found["arrived"], name
        assert found["after"] == "42", (name, found["after"])
    assert report["left"] == []
    assert report["next"] == "None None\n"


@pytest.mark.parametrize("tier", ["full", "confined"])
def test_root_that_may_not_mount_has_a_sandbox_too(host: Host, tier: str) -> None:
    needed(tier)
    need({}, CONTAINER)
    report = host.attempt(CONTAINER, {"tier": tier, "names": ["00", "02", "06", "15", "16", "20", "21", "31"]})
    for name, found in report["attempts"].items():
        assert all(line.startswith("no:") for line in found["lines"]), (name, found["lines"])
        assert not found["arrived"], name
        assert found["after"] == "42", (name, found["after"])
    assert report["left"] == []


@pytest.mark.parametrize("tier", ["full", "full-nobody", "confined", "confined-abi3"])
def test_all_dies_with_a_host_that_is_killed(host: Host, tier: str) -> None:
    user, options = needed(tier)
    with host.living(user, options) as (process, inside):
        assert len(inside) >= 3  # what holds the sandbox, the shell, the daemon
        assert all(map(is_alive, inside))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert gone(inside)


@pytest.mark.parametrize("tier", ["full", "confined"])
def test_a_kernel_lives_on_when_the_thread_that_started_it_ends(tmp_path: Path, host: Host, tier: str) -> None:
    """Linux tells a process of its parent's death when the thread ends that started it."""
    user, options = needed(tier)
    code = """
import sys, threading
from attempted import LIMITS, ask
from pathlib import Path
from chatglm.tools.interpreter.sandbox import start
made = []
thread = threading.Thread(target=lambda: made.append(start(Path(sys.argv[1]), LIMITS, tier=sys.argv[2])))
thread.start()
thread.join()
print(ask(made[0], "print(40 + 2)").strip())
made[0].end()
made[0].end()
"""
    assert host.python(user, ["-c", code, str(tmp_path), options["tier"]]) == "42\n"


def test_kernels_of_root_have_users_of_their_own(tmp_path: Path, host: Host) -> None:
    """One user's limit of processes counts all that run as that user."""
    if os.getuid():
        pytest.skip("for root")
    needed("full")
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    code = """
import os, sys
from attempted import LIMITS, ask
from pathlib import Path
from chatglm.tools.interpreter.sandbox import start
made = start(Path(sys.argv[1]), LIMITS, tier="full")
print(ask(made, "import os; print(os.getuid())").strip(), flush=True)
sys.stdin.readline()
made.end()
"""
    import subprocess

    users, hosts = [], []
    for folder in folders:
        command = host.command(0, ["-c", code, str(folder)])
        pipe = subprocess.PIPE
        hosts.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=host.environment()))
        assert hosts[-1].stdout is not None
        users.append(int(hosts[-1].stdout.readline()))
    for each in hosts:
        each.communicate("\n")
    assert len(set(users)) == 2
    assert min(users) >= 200_000
    assert [folder.stat().st_uid for folder in folders] == users


def test_a_start_that_fails_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    needed("full")
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(SandboxError, match="nowhere"):
        start(tmp_path / "nowhere", Limits(), tier="full")
    with pytest.raises(SandboxError, match="nowhere"):
        start(tmp_path / "nowhere", Limits(), tier="confined")
    assert set(os.listdir("/proc/self/fd")) == before
    assert os.listdir(tmp_path) == []


ORDINARY = """
import asyncio, getpass, glob, json, locale, mmap, multiprocessing, os, platform, shutil, signal, sqlite3
import subprocess, sys, tarfile, tempfile, threading, time, uuid, zipfile
from concurrent.futures import ThreadPoolExecutor

def works(what, f):
    try:
        f()
    except BaseException as e:
        print(f"{what}: {type(e).__name__} {e}")

def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert not done.returncode and not done.stderr, done
    return done.stdout

with open("a.txt", "w") as f:
    f.write("hello")
os.makedirs("d/e")
works("copy", lambda: shutil.copy("a.txt", "b.txt"))
works("copy2", lambda: shutil.copy2("a.txt", "c.txt"))
works("copytree", lambda: shutil.copytree("d", "g"))
works("move", lambda: shutil.move("c.txt", "d/c.txt"))
works("rmtree", lambda: shutil.rmtree("g"))
works("absolute path", lambda: open(os.path.abspath("a.txt")).read())
def packed():
    with tarfile.open("t.tar.gz", "w:gz") as t:
        t.add("d")
    with tarfile.open("t.tar.gz") as t:
        t.extractall("out")
    with zipfile.ZipFile("z.zip", "w") as t:
        t.write("a.txt")
    with zipfile.ZipFile("z.zip") as t:
        t.extractall("out2")
works("archives", packed)
works("sqlite", lambda: sqlite3.connect("x.db").execute("create table t(a)"))
works("temporary file", lambda: tempfile.NamedTemporaryFile().write(b"x"))
works("temporary folder", lambda: tempfile.TemporaryDirectory().cleanup())
works("pipeline", lambda: run("sh", "-c", "ls | sort | sed s/a/b/ | awk '{print $1}' | xargs echo"))
works("python", lambda: run(sys.executable, "-c", "print(1)"))
works("tools", lambda: (run("ls", "-la"), run("cp", "-r", "d", "h"), run("date"), run("tar", "tzf", "t.tar.gz")))
def child():
    made = subprocess.Popen(["sleep", "9"])
    made.kill()
    made.wait()
works("kill a child", child)
async def spoken():
    made = await asyncio.create_subprocess_exec("echo", "x", stdout=asyncio.subprocess.PIPE)
    assert (await made.communicate())[0] == b"x\\n"
works("asyncio", lambda: asyncio.run(spoken()))
works("threads", lambda: list(ThreadPoolExecutor(4).map(len, ["a", "bb"])))
def pool():
    with multiprocessing.get_context("fork").Pool(2) as workers:
        assert workers.map(len, ["a", "bb"]) == [1, 2]
works("processes", pool)
works("signals", lambda: (signal.alarm(0), os.kill(os.getpid(), 0)))
works("user", lambda: (getpass.getuser(), os.path.expanduser("~"), locale.setlocale(locale.LC_ALL, "")))
works("machine", lambda: (os.cpu_count(), platform.platform(), time.strftime("%Z"), shutil.disk_usage(".")))
works("others", lambda: (uuid.uuid1(), mmap.mmap(-1, 9), glob.glob("*")))
"""


@pytest.mark.parametrize(
    ("tier", "but"),
    [
        ("full", set()),
        ("full-nobody", set()),
        ("confined", {"processes"}),
        ("confined-abi3", {"processes", "kill a child"}),
    ],
)
def test_ordinary_code_works(host: Host, tmp_path: Path, tier: str, but: set[str]) -> None:
    user, options = needed(tier)
    code = """
import json, sys
from attempted import LIMITS, ask
from attempts import Surroundings
from chatglm.tools.interpreter.sandbox import start
options = json.loads(sys.argv[1])
with Surroundings() as around:
    made = start(around.mine, LIMITS, tier=options["tier"], abi=options.get("abi"))
    print(ask(made, sys.argv[2]))
    made.end()
"""
    printed = host.python(user, ["-c", code, json.dumps(options), ORDINARY]).strip()
    assert {line.partition(":")[0] for line in printed.splitlines()} == but, printed


def is_alive(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(processes: list[int]) -> bool:
    give_up = time.monotonic() + 120
    while any(map(is_alive, processes)) and time.monotonic() < give_up:
        time.sleep(0.01)
    return not any(map(is_alive, processes))


def test_a_python_that_was_called_by_a_path_with_dots(tmp_path: Path) -> None:
    """`../.venv/bin/python` gets the sandbox that `python` gets."""
    python = Path(sys.executable)
    called = f"{python.parent}/../{python.parent.name}/{python.name}"
    code = "from chatglm.tools.interpreter.sandbox import protection; print(protection().tier)"
    done = subprocess.run([called, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == protection().tier
