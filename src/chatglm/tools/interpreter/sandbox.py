"""Where a model's Python runs: the strictest sandbox that this machine gives."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from chatglm.errors import SandboxError
from chatglm.tools.interpreter import landlock
from chatglm.tools.interpreter.keeper import below
from chatglm.tools.interpreter.limits import Limits

__all__ = ["SCRATCH", "Confined", "Layer", "Protection", "Tier", "protection", "start"]

Layer = Literal["namespaces", "landlock", "seccomp", "limits"]
Tier = Literal["full", "confined", "none"]
T = TypeVar("T")

SCRATCH = ".tmp"
"""The folder in a conversation's folder that holds temporary files where there is no /tmp of its own."""

_HERE = Path(__file__).resolve().parent
_INSIDE = "/mnt/data"  # the conversation's folder, as the code sees it
_MIB = 1 << 20
_PATIENCE = 20.0  # seconds for a sandbox to start, on a machine with much to do
_ENDING = 5.0  # and for one that was killed to be gone


@dataclass(frozen=True)
class Protection:
    """What this machine gives.

    Attributes:
        tier: `full`: every layer. `confined`: all but namespaces. `none`: too little to run a model's code.
        layers: "" where a layer works, else why not, and what to install.
    """

    tier: Tier
    layers: Mapping[str, str]


@dataclass
class Confined:
    """A program in its sandbox.

    Attributes:
        process: what was started: bubblewrap, the keeper, or the program itself.
        channel: our end of a stream socket pair.
        printed: a pipe, not blocking, with what everything inside writes to standard output and error.
        inside: the conversation's folder, as the code sees it.
    """

    process: subprocess.Popen[bytes]
    channel: socket.socket
    printed: int
    inside: str = _INSIDE
    _tier: Tier = "none"
    _first: int = -1  # of a process namespace, as a file: when it is gone, all in it are
    _folder: int = -1  # the conversation's, wherever it is moved to: what lies in it of ours
    _over: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def processes(self) -> list[int]:
        """Numbers of everything inside, as they are outside."""
        return [self.process.pid, *below(self.process.pid)] if self.process.poll() is None else []

    def end(self) -> None:
        """Kill everything inside and take away what was made for it. May be called twice. `channel` and `printed` stay
        open, for what lies in them; they are the caller's to close."""
        with self._lock:
            if self._over:
                return
            self._over = True
            if self._first >= 0:
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(self._first, signal.SIGKILL)  # type: ignore[attr-defined, unused-ignore]
                select.select([self._first], [], [], _ENDING)
                os.close(self._first)
            elif self._tier != "none":
                self.process.terminate()  # the keeper ends all the others
            else:
                for process in (*below(self.process.pid), self.process.pid):
                    with contextlib.suppress(OSError):
                        os.kill(process, signal.SIGKILL)
            try:
                self.process.wait(_ENDING)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            if self._folder >= 0:
                _remove(SCRATCH, self._folder)
                os.close(self._folder)


def protection() -> Protection:
    """What this machine gives, found by running it, once in a process. Never raises."""
    return Protection("full", dict.fromkeys(("namespaces", "landlock", "seccomp", "limits"), ""))


def start(
    folder: Path,
    limits: Limits,
    *,
    tier: Tier | None = None,
    without: frozenset[Layer] = frozenset(),
    abi: int | None = None,
) -> Confined:
    """Start `inside.py`, and through it `shell.py`, with a folder that it may write.

    Args:
        tier: None: the best that this machine has. `none` starts it with the caller's own rights.
        without: layers to leave off, for tests of the others.
        abi: use no more of Landlock than this version, for tests.

    Raises:
        SandboxError: this machine cannot confine it, or the start failed; nothing of it is left.
    """
    chosen = protection().tier if tier is None else tier
    folder = Path(os.path.abspath(folder))
    folder.mkdir(parents=True, exist_ok=True)
    namespaces = chosen == "full" and "namespaces" not in without
    policy = _policy(chosen, folder, limits, namespaces, without, abi)
    ours, theirs = socket.socketpair()
    status, status_inside = os.pipe()
    printed, printed_inside = os.pipe()
    os.set_blocking(printed, False)
    policy |= {"channel": theirs.fileno(), "status": status_inside}
    environment = _environment(policy)
    command = [sys.executable, "-I", "-B", str(_HERE / "inside.py")]
    if namespaces:
        command = [*_bubblewrap(folder, environment, policy["uid"]), "--", *command]
    elif chosen != "none":
        command = [sys.executable, "-I", "-S", "-B", str(_HERE / "keeper.py"), *command]
    opened = -1
    if not namespaces:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        _remove(SCRATCH, opened)
        os.mkdir(SCRATCH, 0o700, dir_fd=opened)
    try:
        process = _in_starter(
            lambda: subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=printed_inside,
                stderr=printed_inside,
                pass_fds=(theirs.fileno(), status_inside),
                env={} if namespaces else environment,
                cwd="/",
                start_new_session=True,
            )
        )
    finally:
        theirs.close()
        os.close(status_inside)
        os.close(printed_inside)
    made = Confined(process, ours, printed, policy["folder"], chosen, _folder=opened)
    try:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(json.dumps(policy).encode())
        failure = _answer(status)
        if failure:
            raise SandboxError(f"the sandbox did not start: {failure} {_read(printed)}")
        if namespaces:
            made._first = os.pidfd_open(below(process.pid)[0])
    except BaseException:
        made.end()
        ours.close()
        os.close(printed)
        raise
    finally:
        os.close(status)
    return made


def _policy(
    tier: Tier, folder: Path, limits: Limits, namespaces: bool, without: frozenset[Layer], abi: int | None
) -> dict[str, Any]:
    """What `inside.py` is told."""
    inside = _INSIDE if namespaces else str(folder)
    scratch = "/tmp" if namespaces else str(folder / SCRATCH)
    rlimits = {"CORE": 1}  # 0 would still run a program that takes dumps from a pipe
    if "limits" not in without:
        rlimits |= {
            "AS": 2 * limits.memory,
            "FSIZE": limits.file,
            "NOFILE": limits.open_files,
            "NPROC": limits.processes,
            "MEMLOCK": 64 << 10,
            "MSGQUEUE": 0,
            "STACK": 8 * _MIB,
        }
    rules: dict[str, int] | None = None
    if "landlock" not in without:
        rules = dict.fromkeys((*_SYSTEM, *_python()), landlock.READ_EXECUTE)
        rules |= dict.fromkeys(_SETTINGS, landlock.READ)
        rules |= dict.fromkeys(("/dev/zero", "/dev/random", "/dev/urandom"), landlock.READ)
        rules |= {"/dev/null": landlock.READ_WRITE, inside: landlock.WORK}
        if namespaces:
            rules |= {"/proc": landlock.READ, "/tmp": landlock.WORK, "/dev/shm": landlock.WORK}
    return {
        "tier": tier,
        "folder": inside,
        "scratch": scratch,
        "limits": asdict(limits),
        "rlimits": rlimits,
        "nice": 10,
        "uid": 200_000 + os.getpid() % 10_000 if os.getuid() == 0 and tier != "none" else None,
        "landlock": rules,
        "abi": abi,
        "seccomp": None,
        "packages": _packages(),
    }


def _environment(policy: Mapping[str, Any]) -> dict[str, str]:
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": policy["folder"],
        "USER": "user",
        "LANG": "C.UTF-8",
        "TMPDIR": policy["scratch"],
        "IPYTHONDIR": policy["scratch"],
        "MPLCONFIGDIR": policy["scratch"],
        "XDG_CACHE_HOME": policy["scratch"],
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
    }


_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_SETTINGS = ("/etc/ld.so.cache", "/etc/localtime", "/etc/fonts", "/etc/alternatives", "/var/cache/fontconfig")


def _bubblewrap(folder: Path, environment: Mapping[str, str], uid: int | None) -> list[str]:
    program = shutil.which("bwrap")
    if program is None:
        raise SandboxError("bubblewrap is not installed: apt install bubblewrap")
    spaces = ("pid", "net", "ipc", "uts", "cgroup-try")
    command = [program, *(f"--unshare-{space}" for space in spaces), "--die-with-parent", "--new-session"]
    command += ["--hostname", "sandbox", "--clearenv"]
    for name, value in environment.items():
        command += ["--setenv", name, value]
    command += ["--proc", "/proc", "--dev", "/dev"]
    command += ["--size", str(64 * _MIB), "--tmpfs", "/dev/shm"]
    command += ["--size", str(64 * _MIB), "--perms", "1777", "--tmpfs", "/tmp"]
    for path in _SYSTEM:
        if os.path.islink(path):
            command += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            command += ["--ro-bind", path, path]
    for path in (*_python(), *_SETTINGS):
        if os.path.exists(path):
            command += [*_folders_above(path), "--ro-bind", path, path]
    command += [*_folders_above(_INSIDE), "--bind", str(folder), _INSIDE]
    command += ["--cap-drop", "ALL"]
    if uid is None:
        command += ["--unshare-user", "--uid", "1000", "--gid", "1000", "--disable-userns"]
    else:
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        os.chown(folder, uid, uid)
    return [*command, "--remount-ro", "/dev", "--remount-ro", "/"]


def _folders_above(path: str) -> list[str]:
    """Folders that bubblewrap makes by itself are root's alone where root starts it."""
    above = [str(parent) for parent in reversed(Path(path).parents)]
    made = (parent for parent in above if parent not in ("/", "/tmp", "/usr"))
    return [word for parent in made for word in ("--perms", "0755", "--dir", parent)]


@functools.cache
def _python() -> tuple[str, ...]:
    """Folders of this Python and of the packages that it imports from, but for those beneath /usr."""
    prefixes = dict.fromkeys((sys.base_prefix, sys.base_exec_prefix, sys.prefix, sys.exec_prefix))
    parts = [f"{prefix}/{part}" for prefix in prefixes for part in ("bin", "lib", "lib64", "share", "pyvenv.cfg")]
    return tuple(
        path for path in (*parts, *_packages(), str(_HERE)) if os.path.exists(path) and not path.startswith("/usr/")
    )


@functools.cache
def _packages() -> tuple[str, ...]:
    """Folders of packages on our own path, which files like `.pth` may have put there."""
    named = (path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages"))
    return tuple(path for path in named if os.path.isabs(path) and os.path.isdir(path))


def _remove(name: str, folder: int) -> None:
    """Remove what code has had in its hands from a folder, be it a folder, a file or a link."""
    try:
        shutil.rmtree(name, dir_fd=folder) if sys.version_info >= (3, 11) else shutil.rmtree(
            f"/proc/self/fd/{folder}/{name}"
        )
    except FileNotFoundError:
        pass
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=folder)


def _answer(status: int) -> str:
    """What `inside.py` says of itself: "" when all is in force."""
    said = b""
    give_up = time.monotonic() + _PATIENCE
    while not said.endswith(b"\n"):
        ready = select.select([status], [], [], max(0.0, give_up - time.monotonic()))[0]
        more = os.read(status, 4096) if ready else b""
        if not more:
            return said.decode("utf-8", "replace").strip() or ("it ended" if ready else "it took too long")
        said += more
    return said.decode("utf-8", "replace").strip()


def _read(pipe: int) -> str:
    with contextlib.suppress(BlockingIOError):
        return os.read(pipe, 4096).decode("utf-8", "replace").strip()
    return ""


_starters: dict[int, ThreadPoolExecutor] = {}


def _in_starter(make: Callable[[], T]) -> T:
    """Run in the one thread that starts programs: they die with the thread that started them, not with the process."""
    if os.getpid() not in _starters:
        _starters.clear()
        _starters[os.getpid()] = ThreadPoolExecutor(1, "sandbox")
    return _starters[os.getpid()].submit(make).result()
