"""Each layer stops what no other does: with it off, attempts succeed. And a machine that lacks one says so."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hosts import NOBODY, Host, missing, need, prepared

from chatglm.errors import SandboxError
from chatglm.tools.interpreter import landlock, sandbox
from chatglm.tools.interpreter.limits import Limits
from chatglm.tools.interpreter.sandbox import Protection, protection, start

USER = NOBODY - 4
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sandboxes need Linux")


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    need({str(layer): reason for layer, reason in protection().layers.items()}, USER)
    with prepared() as made:
        yield made


def got(found: dict[str, Any], what: str) -> bool:
    return any(line.startswith(f"GOT {what}") for line in found["lines"])


def test_without_the_filter_sockets_and_the_kernels_calls_are_got(host: Host) -> None:
    report = host.attempt(USER, {"tier": "full", "without": ["seccomp"], "names": ["04", "22"]})
    networks, calls = report["attempts"].values()
    assert got(networks, "any family")
    assert not networks["arrived"]  # it is another network
    for name in ("add_key", "memfd_create", "setxattr", "inotify_init1", "name_to_handle_at", "openat2 at home"):
        assert got(calls, name), name


def test_without_filter_and_namespaces_the_host_hears(host: Host) -> None:
    report = host.attempt(USER, {"tier": "full", "without": ["seccomp", "namespaces"], "names": ["04", "05"]})
    networks, sockets = report["attempts"].values()
    assert networks["arrived"] == ["udp"]
    assert sorted(sockets["arrived"]) == ["datagram", "path"]


def test_without_landlock_the_first_process_is_open(host: Host) -> None:
    report = host.attempt(USER, {"tier": "full", "without": ["landlock"], "names": ["15"]})
    assert got(report["attempts"]["15 memory of other processes"], "/proc/1/environ")


def test_without_filter_and_scopes_others_are_signalled(host: Host) -> None:
    alone = NOBODY - 5  # it signals whatever this user has
    report = host.attempt(alone, {"tier": "confined", "abi": 3, "without": ["seccomp"], "names": ["16"]})
    assert {"signal 10", "signal 12"} <= set(report["attempts"]["16 signals to others"]["arrived"])
    assert report["left"] == []


def test_without_the_filter_landlock_lets_modes_be_changed(host: Host) -> None:
    report = host.attempt(USER, {"tier": "confined", "without": ["seccomp"], "names": ["29"]})
    found = report["attempts"]["29 modes and times of others' files"]
    assert got(found, "chmod")
    assert got(found, "utime")
    assert found["arrived"]


def test_without_limits_there_are_processes_enough(host: Host) -> None:
    report = host.attempt(USER, {"tier": "full", "without": ["limits"], "names": ["06"]})
    assert got(report["attempts"]["06 processes"], "300 processes")


def found_here() -> Protection:
    """What `protection` finds when it is first asked."""
    return protection.__wrapped__()


def test_a_machine_without_bubblewrap_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    if any(protection().layers[layer] for layer in ("landlock", "seccomp", "limits")):
        missing("a machine with all layers but namespaces")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = found_here()
    assert found.tier == "confined"
    assert "apt install bubblewrap" in found.layers["namespaces"]
    assert [reason for layer, reason in found.layers.items() if layer != "namespaces"] == ["", "", ""]


def test_namespaces_are_enough_where_the_kernel_has_no_landlock(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if protection().tier != "full":
        missing("a machine with all layers")
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    found = found_here()
    assert found.tier == "full"
    assert "Linux 6.2" in found.layers["landlock"]
    with pytest.raises(SandboxError, match="landlock: "):  # not without namespaces
        sandbox._start(sandbox._Plan(tmp_path, Limits(), "confined", frozenset(), 0, trial=True))


@pytest.mark.parametrize(("version", "said"), [(0, "has none"), (2, "has version 2, but 3 is needed: use Linux 6.2")])
def test_below_is_refused_with_the_layer_and_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: int, said: str
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(landlock, "abi", lambda: version)
    found = found_here()
    assert found.tier == "none"
    assert said in found.layers["landlock"]
    monkeypatch.setattr(sandbox, "protection", lambda: found)
    with pytest.raises(SandboxError) as caught:
        start(tmp_path, Limits())
    for words in (said, "apt install bubblewrap", "--code-runs-with-my-rights"):
        assert words in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"kernel/apparmor_restrict_unprivileged_userns": "1"}, "bwrap-userns-restrict"),
        ({"kernel/unprivileged_userns_clone": "0"}, "sysctl kernel.unprivileged_userns_clone=1"),
        ({"user/max_user_namespaces": "0"}, "sysctl user.max_user_namespaces"),
        ({}, "something on this machine refuses namespaces"),
    ],
)
def test_bubblewrap_that_is_refused_is_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: dict[str, str], remedy: str
) -> None:
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(program))
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    monkeypatch.setattr(sandbox, "_setting", lambda name: settings.get(name, ""))
    said = sandbox._namespaces_problem()
    assert said.startswith("bwrap: setting up uid map: Permission denied: ")
    assert remedy in said


def test_a_container_is_told_how_it_is_to_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "exists", lambda path: path == "/.dockerenv")
    assert "--security-opt seccomp=" in sandbox._remedy()


@pytest.mark.parametrize(("name", "system", "remedy"), [("darwin", "Darwin", "Linux"), ("win32", "Windows", "WSL2")])
def test_other_systems_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, system: str, remedy: str) -> None:
    monkeypatch.setattr(sys, "platform", name)
    monkeypatch.setattr(platform, "system", lambda: system)
    found = found_here()
    assert found.tier == "none"
    assert all(system in reason and remedy in reason for reason in found.layers.values())


def test_a_trial_that_fails_for_another_reason_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong is a reason, never an exception."""

    def broken(*_: object, **__: object) -> None:
        raise SandboxError("seccomp: this kernel has none")

    monkeypatch.setattr(sandbox, "_start", broken)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = found_here()
    assert found.tier == "none"
    assert found.layers["seccomp"] == "this kernel has none"


def test_landlock_behaves_as_on_older_kernels() -> None:
    if protection().layers["landlock"]:
        missing(protection().layers["landlock"])
    code = """
import os, sys
from chatglm.tools.interpreter import landlock
assert landlock.restrict({"/usr": landlock.READ, "/dev/null": landlock.WORK, "/no": landlock.READ}, VERSION) == VERSION
os.listdir("/usr")
for path in ("/etc/passwd", "/usr/../etc/passwd"):
    try:
        open(path)
    except PermissionError:
        continue
    sys.exit(path)
try:
    open("/usr/x", "w")
except PermissionError:
    sys.exit(0)
sys.exit("written")
"""
    for version in range(1, min(landlock.abi(), 7) + 1):
        subprocess.run([sys.executable, "-c", code.replace("VERSION", str(version))], check=True)


def test_python_is_seen_but_not_the_project_that_it_lies_in(tmp_path: Path, host: Host) -> None:
    """An environment made in a project's own folder, with packages of another one by a .pth file."""
    if os.getuid():
        pytest.skip("for root, whose full sandbox sees folders of any mode")
    project, elsewhere = tmp_path / "project", tmp_path / "site-packages"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(project)], check=True)
    (project / ".env").write_text("SECRET")
    (project / "src").mkdir()
    (project / "src" / "secret.py").touch()
    elsewhere.mkdir()
    (elsewhere / "useful.py").write_text("answer = 42")
    (elsewhere.parent / "beside.txt").touch()
    packages = next(project.glob("lib/python*/site-packages"))
    (packages / "main.pth").write_text(f"{elsewhere}\n{project}/src\n")
    (packages / "own.py").write_text("answer = 1")
    work = tmp_path / "work"
    work.mkdir()
    code = f"""
import sys
from attempted import LIMITS, ask
from pathlib import Path
from chatglm.tools.interpreter.sandbox import start
made = start(Path({str(work)!r}), LIMITS, tier="full")
print(ask(made, '''
import os, subprocess, sys
import own, useful
print(own.answer, useful.answer, sys.prefix)
for path in ({str(project / ".env")!r}, {str(project / "src" / "secret.py")!r}, {str(tmp_path / "beside.txt")!r}):
    print(os.path.exists(path))
program = "import own, useful; print(useful.answer)"
print(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True))
'''))
made.end()
"""
    done = subprocess.run(
        [str(project / "bin" / "python"), "-B", "-c", code],
        capture_output=True,
        text=True,
        env=host.environment(),
        check=False,
    )
    assert not done.returncode, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:4] == [f"1 42 {project}", "False", "False", "False"], done.stdout
    assert "stdout='42" in lines[4], done.stdout
