"""Runs a model's Python in the strictest sandbox that this machine supports.

    layer        blocks                                                  needs
    namespaces   other processes, networks, folders, System V memory     bubblewrap (as root also an extra user id)
    landlock     files outside of its folder, Python and /usr;           Linux 6.2
                 TCP (Linux 6.7); signals to others (Linux 6.12)
    seccomp      system calls that are not on a list (`seccomp.py`)      Linux on x86_64 or aarch64
    limits       too many processes, open files, bytes of a file, addresses

Tier `full` has all layers, or all except Landlock if Linux is older. Tier `confined` has no namespaces; a keeper
(`keeper.py`) ends the processes that the code leaves behind. With fewer layers, a model's code is not run, unless the
caller requests tier `none`, which gives no protection. Memory, disk space, time and output are checked from outside
(`watchdog.py`).

The sandbox prevents: reading and changing other files, other conversations and other processes; using networks and
sockets of this machine; getting privileges; using up processes, memory, disk and time; running on after the end of the
kernel or of the host.

It does not prevent: bugs of Linux itself; measuring how others use processors and caches; reading the public files of
/usr, and of the Python that runs this program, including its packages; using what the limits allow, and more than that
in the 0.2 s between two checks; using kernel memory that Linux counts for no process; and what the model says about
things that it has read. In tier `confined` also: finding out whether a file or process exists, and a file's size and
times, if its name is known. In this tier, changing modes and times of files has no effect, and locks between processes
(`multiprocessing`) cannot be made.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from chatglm.errors import SandboxError
from chatglm.tools.interpreter import landlock, seccomp, users
from chatglm.tools.interpreter.folder import remove
from chatglm.tools.interpreter.keeper import below
from chatglm.tools.interpreter.limits import Limits
from chatglm.tools.interpreter.view import (
    INSIDE,
    SETTINGS,
    SYSTEM,
    bubblewrap,
    closed_to_others,
    packages,
    program,
    python,
)

__all__ = ["SCRATCH", "Confined", "Layer", "Protection", "Tier", "open_files", "places", "protection", "start"]

Layer = Literal["namespaces", "landlock", "seccomp", "limits"]
Tier = Literal["full", "confined", "none"]
T = TypeVar("T")

SCRATCH = ".tmp"
"""Name of the folder for temporary files in a conversation's folder, if the code has no own /tmp."""

_HERE = Path(__file__).resolve().parent
_LANDLOCK = 3  # version needed without namespaces: with an older one, any file could be truncated
_MIB = 1 << 20
_SOCKET = 208 << 10  # most bytes that Linux keeps in a socket (net.core.wmem_default)
_FILES = 16  # sockets of a process are counted only if it has more open files
_PATIENCE = 20.0  # seconds for a sandbox to start on a busy machine
_ENDING = 5.0  # seconds until a killed sandbox must have ended


@dataclass(frozen=True)
class Protection:
    """The protection that this machine supports.

    Attributes:
        tier: `full`: every layer. `confined`: all except namespaces. `none`: too few to run a model's code.
        layers: for each layer the reason why it does not work and what to install; "" if it works.
    """

    tier: Tier
    layers: Mapping[Layer, str]


@dataclass
class Confined:
    """A program in its sandbox.

    Attributes:
        process: the started process: bubblewrap, the keeper, or the program itself.
        channel: the host's end of a stream socket pair.
        printed: a non-blocking pipe with the standard output and error of all processes inside.
    """

    process: subprocess.Popen[bytes]
    channel: socket.socket
    printed: int
    _tier: Tier = "none"
    _first: int = 0  # first process of the process namespace; 0: there is none
    _handle: int = -1  # pidfd of that process; all others of the namespace end with it
    _folder: int = -1  # descriptor of the conversation's folder, which may be moved
    _over: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def processes(self) -> list[int]:
        """Process ids of everything inside, as seen from outside."""
        return [self.process.pid, *below(self.process.pid)] if self.process.poll() is None else []

    def shared(self) -> int:
        """Bytes of memory that belong to no process: files in /tmp and /dev/shm of a full sandbox, at least 1 KiB each;
        and, in any sandbox, the most that can be in sockets.
        """
        used = _SOCKET * self._sockets()
        for path in ("tmp", "dev/shm") if self._first else ():
            with contextlib.suppress(OSError):
                room = os.statvfs(f"/proc/{self._first}/root/{path}")
                used += (room.f_blocks - room.f_bfree) * room.f_frsize + (room.f_files - room.f_ffree << 10)
        return used

    def _sockets(self) -> int:
        """Number of sockets inside. Processes with few open files are left out."""
        found: set[str] = set()
        for process in self.processes():
            files = open_files(process)
            for path in files if len(files) > _FILES else ():
                with contextlib.suppress(OSError):
                    found.add(os.readlink(path))
        return sum(name.startswith("socket:") for name in found)

    def end(self) -> None:
        """Kill everything inside, and remove what was made for it. May be called twice. `channel` and `printed` stay
        open, so that the rest can be read; the caller closes them.
        """
        with self._lock:
            if self._over:
                return
            self._over = True
            if self._handle >= 0:
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(self._handle, signal.SIGKILL)
                select.select([self._handle], [], [], _ENDING)
                os.close(self._handle)
            elif self._tier != "none":
                self.process.terminate()  # the keeper ends all others
            else:
                with contextlib.suppress(OSError):
                    os.killpg(self.process.pid, signal.SIGKILL)
                for process in below(self.process.pid):
                    with contextlib.suppress(OSError):
                        os.kill(process, signal.SIGKILL)
            try:
                self.process.wait(_ENDING)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            if self._folder >= 0:
                with contextlib.suppress(OSError):
                    remove(SCRATCH, self._folder)
                os.close(self._folder)


def places(process: int) -> Iterator[str]:
    """Folders where proc(5) shows the memory and the open files of a process: that of its first thread, and, because
    this thread may have ended before the others, those of all threads.
    """
    yield f"/proc/{process}"
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{process}/task"):
            yield f"/proc/{process}/task/{thread}"


def open_files(process: int) -> list[str]:
    """Links to the open files of a process."""
    for place in places(process):
        with contextlib.suppress(OSError):
            if names := os.listdir(f"{place}/fd"):
                return [f"{place}/fd/{name}" for name in names]
    return []


def start(
    folder: Path,
    limits: Limits,
    *,
    tier: Tier | None = None,
    without: frozenset[Layer] = frozenset(),
    abi: int | None = None,
) -> Confined:
    """Start `inside.py`, which starts `shell.py`, with a folder that it may write to.

    If root calls it, the folder is given to the kernel's own user id. The caller must give the contents.

    Args:
        tier: None: the best that this machine has. `none`: with the caller's own rights.
        without: layers to leave out, to test the others.
        abi: highest version of Landlock to use, for tests.

    Raises:
        SandboxError: this machine cannot run code safely, or the start failed. Nothing is left running.
    """
    if tier is None:
        found = protection()
        if found.tier == "none":
            missing = "; ".join(f"{layer}: {reason}" for layer, reason in found.layers.items() if reason)
            raise SandboxError(
                f"this machine cannot run a model's code safely. {missing}. (--code-runs-with-my-rights runs it "
                "without any protection.)"
            )
        tier = found.tier
    return _start(_Plan(Path(os.path.abspath(folder)), limits, tier, without, abi, trial=False))


@functools.cache
def protection() -> Protection:
    """The protection that this machine supports. To find it, a sandbox is started, once in a process. Never raises."""
    layers: dict[Layer, str] = dict.fromkeys(("namespaces", "landlock", "seccomp", "limits"), "")
    if sys.platform != "linux":
        where = "WSL2" if sys.platform == "win32" else "a virtual machine or a container with Linux"
        return Protection(
            "none", dict.fromkeys(layers, f"{platform.system()} has no sufficient protection: use {where}")
        )
    layers["landlock"] = _landlock_problem()
    problem = _try("full")
    if not problem:
        return Protection("full", layers)
    layers["namespaces"] = _namespaces_problem() or problem
    without: frozenset[Layer] = frozenset({"landlock"} if layers["landlock"] else ())
    for layer, reason in _layers_of(_try("confined", without)):
        layers[layer] = reason
    enough = not (layers["landlock"] or layers["seccomp"] or layers["limits"])
    return Protection("confined" if enough else "none", layers)


def _layers_of(problem: str) -> Iterator[tuple[Layer, str]]:
    """The layer at which a start without namespaces failed, with the reason."""
    if problem:
        named, _, reason = problem.partition(": ")
        known: dict[str, Layer] = {"landlock": "landlock", "seccomp": "seccomp"}
        yield known.get(named, "limits"), reason if named in known else problem


def _try(tier: Tier, without: frozenset[Layer] = frozenset()) -> str:
    """The reason why a sandbox does not start; "" if it does."""
    try:
        with tempfile.TemporaryDirectory(prefix="chatglm-") as folder:
            made = _start(_Plan(Path(folder), Limits(), tier, without, None, trial=True))
            made.end()
            made.channel.close()
            os.close(made.printed)
    except Exception as error:
        return str(error) or type(error).__name__
    return ""


def _landlock_problem() -> str:
    version = landlock.abi()
    if version >= _LANDLOCK:
        return ""
    if version:
        return f"this kernel's Landlock has version {version}, but {_LANDLOCK} is needed: use Linux 6.2 or newer"
    return "this kernel has none, or its command line leaves it out of lsm=: use Linux 6.2 or newer"


def _namespaces_problem() -> str:
    """The reason why bubblewrap cannot make namespaces, and what to do; "" if it can."""
    program = shutil.which("bwrap")
    if program is None:
        return "bubblewrap is not installed: apt install bubblewrap (the package has this name on other systems, too)"
    spaces = ("user", "pid", "net", "ipc", "uts")
    command = [program, *(f"--unshare-{space}" for space in spaces), "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_PATIENCE, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{program} does not run: {error}"
    if not done.returncode:
        return ""
    said = done.stderr.strip().splitlines()[-1:] or [f"{program} ended with {done.returncode}"]
    return f"{said[0]}: {_remedy()}"


def _remedy() -> str:
    """The most likely reason why bubblewrap cannot make namespaces on this machine, and what to do."""
    if os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"):
        return (
            "the container's own seccomp profile refuses namespaces: start it with --security-opt seccomp=… that "
            "allows clone, unshare, mount and pivot_root, and --security-opt systempaths=unconfined"
        )
    if _setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor refuses namespaces (Ubuntu 24.04 and newer): give bwrap a profile with `userns,`, for example "
            "bwrap-userns-restrict of the package apparmor-profiles"
        )
    if _setting("kernel/unprivileged_userns_clone") == "0":
        return "users may not create namespaces: sysctl kernel.unprivileged_userns_clone=1"
    if _setting("user/max_user_namespaces") == "0":
        return "users may not create namespaces: sysctl user.max_user_namespaces=10000"
    return "something on this machine refuses namespaces"


def _setting(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return ""


@dataclass(frozen=True)
class _Plan:
    """How to start a sandbox.

    Attributes:
        user: the user id of the program, if root starts it; None: that of the user who starts it.
        early: whether it has this user id from the start, and not only after everything is mounted.
        closed: a path that this user could not read; then the program keeps a capability of root. "": there is none.
        trial: whether it ends as soon as all layers are active.
    """

    folder: Path
    limits: Limits
    tier: Tier
    without: frozenset[Layer]
    abi: int | None
    trial: bool
    user: int | None = None
    early: bool = False
    closed: str = ""

    @property
    def namespaces(self) -> bool:
        return self.tier == "full" and "namespaces" not in self.without

    @property
    def landlock(self) -> bool:
        """Whether to use Landlock. With namespaces, any version will do, or none; without them, it is required."""
        return "landlock" not in self.without and (not self.namespaces or landlock.abi() > 0)

    @property
    def inside(self) -> str:
        """Path of the folder inside the sandbox."""
        return INSIDE if self.namespaces else str(self.folder)

    @property
    def scratch(self) -> str:
        """The folder for temporary files of the code."""
        return "/tmp" if self.namespaces else f"{self.inside}/{SCRATCH}"

    @property
    def becomes(self) -> int | None:
        """The user id that `inside.py` must change to; None: it does not change."""
        return None if self.early else self.user

    def for_user(self, user: int | None) -> _Plan:
        """The same plan with a user id for a kernel that root starts.

        Raises:
            SandboxError: the user could not read files that it needs.
        """
        if user is None:
            return self
        # Root in a container often cannot mount. Then bubblewrap runs as another user from the start, like any user's.
        early = self.namespaces and not users.is_capable(users.MOUNT)
        closed = closed_to_others(self.folder, self.namespaces and not early)
        if closed and (early or not users.is_capable(users.READ_ANYTHING)):
            raise SandboxError(
                f"root's kernels run as another user, who cannot enter {closed}: keep Python and conversations "
                "(CHATGLM_HOME) in folders that others can read, or start this program as an ordinary user"
            )
        return replace(self, user=user, early=early, closed=closed)


def _start(plan: _Plan) -> Confined:
    """Start a planned sandbox; see `start`."""
    if sys.platform == "win32":
        raise SandboxError("Windows cannot start the interpreter: use WSL2")
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs, contextlib.ExitStack() as failed:
        try:
            folder = os.open(plan.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SandboxError(f"{plan.folder}: the folder cannot be opened: {error.strerror}") from None
        ours.callback(os.close, folder)
        user, held = users.take() if plan.tier != "none" else (None, -1)
        if held >= 0:
            ours.callback(os.close, held)
        plan = plan.for_user(user)
        channel, channel_inside = socket.socketpair()
        failed.callback(channel.close)
        theirs.callback(channel_inside.close)
        printed, printed_inside = os.pipe()
        failed.callback(os.close, printed)
        theirs.callback(os.close, printed_inside)
        os.set_blocking(printed, False)
        status, status_inside = os.pipe()
        ours.callback(os.close, status)
        theirs.callback(os.close, status_inside)

        if not plan.namespaces:
            remove(SCRATCH, folder)
        if user is not None:
            os.chown(folder, user, user)
        passed = [channel_inside.fileno(), status_inside, *([held] if held >= 0 else [])]
        process = _run(plan, held, passed, printed_inside)
        theirs.close()
        made = Confined(process, channel, printed, plan.tier, _folder=-1 if plan.namespaces else os.dup(folder))
        failed.callback(made.end)
        policy = {**_policy(plan), "channel": passed[0], "status": passed[1]}
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(json.dumps(policy).encode())
        if answer := _answer(status):
            said = _read(printed)
            raise SandboxError(f"{answer}{': ' if said else ''}{said}".replace("\n", " "))
        if plan.namespaces and not plan.trial:
            made._first = below(process.pid)[0]
            made._handle = os.pidfd_open(made._first)
        failed.pop_all()
    return made


def _run(plan: _Plan, held: int, passed: list[int], printed: int) -> subprocess.Popen[bytes]:
    """Start the program in its sandbox.

    Args:
        held: the file that reserves its user id. It must be open as long as any process lives.
        passed: descriptors that it inherits.
        printed: descriptor for its output.
    """
    command = [program(), "-I", "-B", str(_HERE / "inside.py")]
    environment = _environment(plan)
    if plan.namespaces:
        command = [*bubblewrap(plan.folder, environment, plan.becomes, held, bool(plan.closed)), "--", *command]
    elif plan.tier != "none":
        command = [program(), "-I", "-S", "-B", str(_HERE / "keeper.py"), *command]
    user = plan.user if plan.early else None
    try:
        return _in_starter(
            lambda: subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=printed,
                stderr=printed,
                pass_fds=passed,
                env={} if plan.namespaces else environment,
                cwd="/",
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )
        )
    except OSError as error:
        raise SandboxError(f"{command[0]} cannot be started: {error.strerror}") from error


def _policy(plan: _Plan) -> dict[str, Any]:
    """The policy for `inside.py`."""
    limits, inside, namespaces = plan.limits, plan.inside, plan.namespaces
    rlimits = {"CORE": 1}  # with 0, a crash would still start the host's program for dumps, as root
    if "limits" not in plan.without:
        rlimits |= {
            "AS": 2 * limits.memory,
            "FSIZE": limits.file,
            "NOFILE": limits.open_files,
            "NPROC": limits.processes + (0 if namespaces or plan.user is not None else users.tasks()),
            "MEMLOCK": 64 << 10,
            "MSGQUEUE": 0,
            "RTPRIO": 0,
            "SIGPENDING": 256,
            "STACK": 8 * _MIB,
        }
    rules: dict[str, int] | None = None
    if plan.landlock:
        rules = dict.fromkeys((*SYSTEM, *python()), landlock.READ_EXECUTE)
        rules |= dict.fromkeys(SETTINGS, landlock.READ)
        rules |= dict.fromkeys(("/dev/zero", "/dev/random", "/dev/urandom"), landlock.READ)
        rules |= dict.fromkeys(("/proc/cpuinfo", "/proc/meminfo"), landlock.READ)
        rules |= {"/dev/null": landlock.READ_WRITE, inside: landlock.WORK}
        if namespaces:
            rules |= {"/proc": landlock.READ, "/tmp": landlock.WORK, "/dev/shm": landlock.WORK}
    version = 0 if rules is None else landlock.abi() if plan.abi is None else min(plan.abi, landlock.abi())
    signals: seccomp.Signals = "tree" if namespaces or version >= 6 else "self"
    return {
        "tier": plan.tier,
        "trial": plan.trial,
        "folder": inside,
        "scratch": plan.scratch,
        "limits": asdict(limits),
        "rlimits": rlimits,
        "nice": 10,
        "uid": plan.becomes,
        "reads": bool(plan.closed),
        # If the process is not dumpable, a host of the same user cannot see its memory and open files, so it must be
        # dumpable then. Nobody inside can use this, and no dump is written (RLIMIT_CORE).
        "dumpable": plan.user is None,
        "landlock": rules,
        "abi": plan.abi,
        "attributes": namespaces,
        "creates": limits.files > 0,
        "signals": None if "seccomp" in plan.without else signals,
        "packages": packages(),
    }


def _environment(plan: _Plan) -> dict[str, str]:
    """All environment variables of the sandbox. Of the host's variables, only the time zone is passed on."""
    zone = os.environ.get("TZ", "")
    return {
        "PATH": f"{Path(program()).parent}:/usr/bin:/bin",
        "HOME": plan.inside,
        "USER": "user",
        "LANG": "C.UTF-8",
        "TMPDIR": plan.scratch,
        "IPYTHONDIR": plan.scratch,
        "MPLCONFIGDIR": plan.scratch,
        "XDG_CACHE_HOME": plan.scratch,
        "XDG_CONFIG_HOME": plan.scratch,
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
    } | ({"TZ": zone} if zone else {})


def _answer(status: int) -> str:
    """The answer of `inside.py`: an error message; "" if all layers are active."""
    said = b""
    give_up = time.monotonic() + _PATIENCE
    while not said.endswith(b"\n"):
        ready = select.select([status], [], [], max(0.0, give_up - time.monotonic()))[0]
        more = os.read(status, 4096) if ready else b""
        if not more:
            return said.decode("utf-8", "replace").strip() or ("it ended" if ready else "it took too long to start")
        said += more
    return said.decode("utf-8", "replace").strip()


def _read(pipe: int) -> str:
    with contextlib.suppress(BlockingIOError):
        return os.read(pipe, 4096).decode("utf-8", "replace").strip()
    return ""


_starters: dict[int, ThreadPoolExecutor] = {}


def _in_starter(make: Callable[[], T]) -> T:
    """Run in the thread that starts all programs. They die with the thread that started them, so it must not end."""
    if os.getpid() not in _starters:
        _starters.clear()
        _starters[os.getpid()] = ThreadPoolExecutor(1, "sandbox")
    return _starters[os.getpid()].submit(make).result()
