"""A model's code gets nothing that is not its own, whatever the tier; and nothing of it is left after the end."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hosts import NOBODY, Host, need, prepared

from chatglm.errors import SandboxError
from chatglm.tools.interpreter.limits import Limits
from chatglm.tools.interpreter.sandbox import protection, start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sandboxes need Linux")

TIERS: dict[str, tuple[int, dict[str, Any]]] = {
    "full": (os.getuid(), {"tier": "full"}),
    "full-nobody": (NOBODY, {"tier": "full"}),
    "confined": (os.getuid(), {"tier": "confined"}),
    "confined-nobody": (NOBODY, {"tier": "confined"}),
    "confined-abi4": (NOBODY, {"tier": "confined", "abi": 4}),
    "confined-abi3": (NOBODY, {"tier": "confined", "abi": 3}),
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
    assert len(report["attempts"]) == 27
    for name, found in report["attempts"].items():
        assert all(line.startswith("no:") for line in found["lines"]), (name, found["lines"])
        assert found["lines"], name
        assert not found["arrived"], name
        assert found["after"] == "42", (name, found["after"])
    assert report["left"] == []
    assert report["next"] == "None None\n"


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


def is_alive(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(processes: list[int]) -> bool:
    give_up = time.monotonic() + 10
    while any(map(is_alive, processes)) and time.monotonic() < give_up:
        time.sleep(0.01)
    return not any(map(is_alive, processes))
