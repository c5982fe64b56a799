"""Where a model's Python runs: the strictest sandbox that this machine gives.

    layer        takes away                                              needs
    namespaces   other processes, networks, folders, System V memory     bubblewrap (as root also a user id of its own)
    landlock     files but its folder's, Python's and those of /usr;     Linux 6.2
                 TCP (Linux 6.7); signals to others (Linux 6.12)
    seccomp      system calls that are on no list (`seccomp.py`)         Linux on x86_64 or aarch64
    limits       processes, open files, size of a file, addresses

Tier `full` has all of them, or all but Landlock where the kernel is older. Tier `confined` has no namespaces; a keeper
(`keeper.py`) ends what the code leaves behind. Below that a model's code is not run, if the caller does not ask for
tier `none`, which protects from nothing. Memory, disk space, time and output are watched from outside (`watchdog.py`).

Covered: reading and changing files but its own, other conversations and other processes; networks and sockets of this
machine; privileges; using up processes, memory, disk and time; living on after the end, or after the host's.

Not covered: faults of Linux itself; what can be measured of others' use of processors and caches; what anybody may read
of /usr and of the Python that runs this, its packages among it; what the limits allow, and what is used above them in
the 0.2 s between two looks; kernel memory that Linux books to no process; what the model says about what it has read.
In tier `confined` also: whether a file or process exists, and a file's size and times, for whoever knows its name.
There, changing modes and times of files does nothing, and locks between processes (`multiprocessing`) cannot be made.
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
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from chatglm.errors import SandboxError
from chatglm.tools.interpreter import landlock, seccomp
from chatglm.tools.interpreter.folder import remove
from chatglm.tools.interpreter.keeper import below
from chatglm.tools.interpreter.limits import Limits

__all__ = ["SCRATCH", "Confined", "Layer", "Protection", "Tier", "protection", "start"]

Layer = Literal["namespaces", "landlock", "seccomp", "limits"]
Tier = Literal["full", "confined", "none"]
T = TypeVar("T")

SCRATCH = ".tmp"
"""Where temporary files lie in a conversation's folder, if the code has no /tmp of its own."""

_HERE = Path(__file__).resolve().parent
_INSIDE = "/mnt/data"  # the conversation's folder, as the code sees it
_LANDLOCK = 3  # the version that is needed without namespaces: before it, any file could be cut to nothing
_READ_ANYTHING, _MOUNT = 2, 21  # CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN
_UIDS = range(200_000, 260_000)  # of kernels that root starts
_MIB = 1 << 20
_SHARED = 64 * _MIB  # /tmp and /dev/shm, each
_SOCKET = 208 << 10  # what Linux lets lie in one (net.core.wmem_default)
_FILES = 16  # open files of a process whose sockets are not counted
_PATIENCE = 20.0  # seconds for a sandbox to start, on a machine with much to do
_ENDING = 5.0  # and for one that was killed to be gone

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
_SETTINGS = (
    *("/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives", "/etc/fonts", "/var/cache/fontconfig"),
    f"/etc/python3.{sys.version_info.minor}",
)
_MASKED = ("cmdline", "config.gz", "kallsyms", "kcore", "key-users", "keys", "modules", "sched_debug", "timer_list")


@dataclass(frozen=True)
class Protection:
    """What this machine gives.

    Attributes:
        tier: `full`: every layer. `confined`: all but namespaces. `none`: too little to run a model's code.
        layers: "" where a layer works, else why not, and what to install.
    """

    tier: Tier
    layers: Mapping[Layer, str]


@dataclass
class Confined:
    """A program in its sandbox.

    Attributes:
        process: what was started: bubblewrap, the keeper, or the program itself.
        channel: our end of a stream socket pair.
        printed: a pipe, not blocking, with what everything inside writes to standard output and error.
    """

    process: subprocess.Popen[bytes]
    channel: socket.socket
    printed: int
    _tier: Tier = "none"
    _first: int = 0  # process of a namespace of processes
    _handle: int = -1  # of that process: when it is gone, so are all others of the namespace
    _folder: int = -1  # the conversation's, wherever it may be moved to
    _over: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def processes(self) -> list[int]:
        """Numbers of everything inside, as they are outside."""
        return [self.process.pid, *below(self.process.pid)] if self.process.poll() is None else []

    def shared(self) -> int:
        """Bytes of memory that no process has: what lies in /tmp and /dev/shm of a full sandbox, where a file counts at
        least 1 KiB, and what may lie in sockets, in any."""
        used = _SOCKET * self._sockets()
        for path in ("tmp", "dev/shm") if self._first else ():
            with contextlib.suppress(OSError):
                room = os.statvfs(f"/proc/{self._first}/root/{path}")
                used += (room.f_blocks - room.f_bfree) * room.f_frsize + (room.f_files - room.f_ffree << 10)
        return used

    def _sockets(self) -> int:
        """How many sockets there are inside, but for a few of each process."""
        found: set[str] = set()
        for process in self.processes():
            with contextlib.suppress(OSError):
                files = os.listdir(f"/proc/{process}/fd")
                for name in files if len(files) > _FILES else ():
                    with contextlib.suppress(OSError):
                        found.add(os.readlink(f"/proc/{process}/fd/{name}"))
        return sum(name.startswith("socket:") for name in found)

    def end(self) -> None:
        """Kill everything inside and take away what was made for it. May be called twice. `channel` and `printed` stay
        open, for what lies in them; they are the caller's to close."""
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


def start(
    folder: Path,
    limits: Limits,
    *,
    tier: Tier | None = None,
    without: frozenset[Layer] = frozenset(),
    abi: int | None = None,
) -> Confined:
    """Start `inside.py`, and through it `shell.py`, with a folder that it may write.

    As root the folder is given to the kernel's own user id; what lies in it is the caller's to give.

    Args:
        tier: None: the best that this machine has. `none` starts it with the caller's own rights.
        without: layers to leave off, for tests of the others.
        abi: use no more of Landlock than this version, for tests.

    Raises:
        SandboxError: this machine cannot confine it, or the start failed; nothing of it is left.
    """
    if tier is None:
        found = protection()
        if found.tier == "none":
            missing = "; ".join(f"{layer}: {reason}" for layer, reason in found.layers.items() if reason)
            raise SandboxError(
                f"this machine cannot run a model's code safely. {missing}. (--code-runs-with-my-rights runs it "
                "all the same, and protects from nothing.)"
            )
        tier = found.tier
        if found.layers["landlock"]:
            without |= {"landlock"}
    return _start(folder, limits, tier, without, abi, trial=False)


@functools.cache
def protection() -> Protection:
    """What this machine gives, found by starting a sandbox, once in a process. Never raises."""
    layers: dict[Layer, str] = dict.fromkeys(("namespaces", "landlock", "seccomp", "limits"), "")
    if sys.platform != "linux":
        where = "WSL2" if sys.platform == "win32" else "a virtual machine or a container with Linux"
        return Protection("none", dict.fromkeys(layers, f"{platform.system()} has none that is enough: use {where}"))
    layers["landlock"] = _landlock_problem()
    without: frozenset[Layer] = frozenset({"landlock"} if layers["landlock"] else ())
    problem = _try("full", without)
    if not problem:
        return Protection("full", layers)
    layers["namespaces"] = _namespaces_problem() or problem
    for layer, name in _layers_of(_try("confined", without)):
        layers[layer] = name
    enough = not (layers["landlock"] or layers["seccomp"] or layers["limits"])
    return Protection("confined" if enough else "none", layers)


def _layers_of(problem: str) -> Iterator[tuple[Layer, str]]:
    """The layer that a start without namespaces failed by."""
    if problem:
        named, _, reason = problem.partition(": ")
        known: dict[str, Layer] = {"landlock": "landlock", "seccomp": "seccomp"}
        yield known.get(named, "limits"), reason if named in known else problem


def _try(tier: Tier, without: frozenset[Layer]) -> str:
    """Why a sandbox does not start; "" if it does."""
    try:
        with tempfile.TemporaryDirectory(prefix="chatglm-") as folder:
            made = _start(Path(folder), Limits(), tier, without, None, trial=True)
            made.end()
            made.channel.close()
            os.close(made.printed)
    except (SandboxError, OSError, subprocess.SubprocessError) as error:
        return str(error)
    return ""


def _landlock_problem() -> str:
    version = landlock.abi()
    if version >= _LANDLOCK:
        return ""
    if version:
        return f"this kernel's has version {version}, at least {_LANDLOCK} is needed: Linux 6.2 or newer"
    return "this kernel has none, or its command line leaves it out of lsm=: Linux 6.2 or newer"


def _namespaces_problem() -> str:
    """Why bubblewrap cannot make namespaces, and what helps; "" if it can."""
    program = shutil.which("bwrap")
    if program is None:
        return "bubblewrap is not installed: apt install bubblewrap (other systems call the package the same)"
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
    """What usually keeps bubblewrap from making namespaces on this machine."""
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
        return "users may make no namespaces: sysctl kernel.unprivileged_userns_clone=1"
    if _setting("user/max_user_namespaces") == "0":
        return "users may make no namespaces: sysctl user.max_user_namespaces=10000"
    return "something on this machine refuses namespaces"


def _setting(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return ""


def _start(
    folder: Path, limits: Limits, tier: Tier, without: frozenset[Layer], abi: int | None, *, trial: bool
) -> Confined:
    """`start`, or a trial of the same, which ends before a shell is loaded."""
    if sys.platform == "win32":
        raise SandboxError("Windows cannot start the interpreter: use WSL2")
    folder = Path(os.path.abspath(folder))
    namespaces = tier == "full" and "namespaces" not in without
    with contextlib.ExitStack() as stack:
        try:
            opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SandboxError(
                f"{folder}: the folder for the code's files cannot be opened: {error.strerror}"
            ) from None
        stack.callback(os.close, opened)
        uid, held = _take_uid() if tier != "none" else (None, -1)
        if held >= 0:
            stack.callback(os.close, held)
        ours, theirs = socket.socketpair()
        status, status_inside = os.pipe()
        printed, printed_inside = os.pipe()
        os.set_blocking(printed, False)
        stack.callback(os.close, status)
        theirs_all = stack.enter_context(contextlib.ExitStack())  # the ends that we do not keep
        theirs_all.callback(os.close, status_inside)
        theirs_all.callback(os.close, printed_inside)
        theirs_all.callback(theirs.close)
        failed = stack.enter_context(contextlib.ExitStack())  # what happens if it does not start
        failed.callback(os.close, printed)
        failed.callback(ours.close)

        # Root of a container often may not mount. Then bubblewrap is another user from the start, as any user is.
        user = uid if namespaces and not _is_capable(_MOUNT) else None
        policy = _policy(tier, folder, limits, namespaces, without, abi, uid if user is None else None)
        closed = _closed(folder, namespaces and user is None) if uid is not None else ""
        policy["reads"] = bool(closed)
        if closed and (user is not None or not _is_capable(_READ_ANYTHING)):
            raise SandboxError(
                f"root's kernels run as another user, who cannot pass {closed}: keep Python and conversations "
                "(CHATGLM_HOME) in folders that others may read, or start this as an ordinary user"
            )
        policy |= {"channel": theirs.fileno(), "status": status_inside, "trial": trial}
        environment = _environment(policy)
        command = [sys.executable, "-I", "-B", str(_HERE / "inside.py")]
        if namespaces:
            command = [*_bubblewrap(folder, environment, policy["uid"], held, policy["reads"]), "--", *command]
        elif tier != "none":
            command = [sys.executable, "-I", "-S", "-B", str(_HERE / "keeper.py"), *command]
        if not namespaces:
            remove(SCRATCH, opened)
        if uid is not None:
            os.chown(opened, uid, uid)
        passed = [theirs.fileno(), status_inside, *([held] if held >= 0 else [])]
        try:
            process = _in_starter(
                lambda: subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=printed_inside,
                    stderr=printed_inside,
                    pass_fds=passed,
                    env={} if namespaces else environment,
                    cwd="/",
                    start_new_session=True,
                    user=user,
                    group=user,
                    extra_groups=None if user is None else [],
                )
            )
        except OSError as error:
            raise SandboxError(f"{command[0]} cannot be started: {error.strerror}") from error
        theirs_all.close()
        made = Confined(process, ours, printed, tier, _folder=-1 if namespaces else os.dup(opened))
        failed.callback(made.end)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(json.dumps(policy).encode())
        answer = _answer(status)
        if answer:
            raise SandboxError(_failure(answer, _read(printed)))
        if namespaces and not trial:
            made._first = below(process.pid)[0]
            made._handle = os.pidfd_open(made._first)
        failed.pop_all()
    return made


def _failure(answer: str, printed: str) -> str:
    return f"{answer}{': ' if printed else ''}{printed}".replace("\n", " ")


def _policy(
    tier: Tier,
    folder: Path,
    limits: Limits,
    namespaces: bool,
    without: frozenset[Layer],
    abi: int | None,
    uid: int | None,
) -> dict[str, Any]:
    """What `inside.py` is told."""
    inside = _INSIDE if namespaces else str(folder)
    rlimits = {"CORE": 1}  # with 0 a crash still starts the host's program for dumps, as root
    if "limits" not in without:
        rlimits |= {
            "AS": 2 * limits.memory,
            "FSIZE": limits.file,
            "NOFILE": limits.open_files,
            "NPROC": limits.processes + (0 if namespaces or uid is not None else _tasks()),
            "MEMLOCK": 64 << 10,
            "MSGQUEUE": 0,
            "RTPRIO": 0,
            "SIGPENDING": 256,
            "STACK": 8 * _MIB,
        }
    rules: dict[str, int] | None = None
    if "landlock" not in without:
        rules = dict.fromkeys((*_SYSTEM, *_python()), landlock.READ_EXECUTE)
        rules |= dict.fromkeys(_SETTINGS, landlock.READ)
        rules |= dict.fromkeys(("/dev/zero", "/dev/random", "/dev/urandom"), landlock.READ)
        rules |= dict.fromkeys(("/proc/cpuinfo", "/proc/meminfo"), landlock.READ)
        rules |= {"/dev/null": landlock.READ_WRITE, inside: landlock.WORK}
        if namespaces:
            rules |= {"/proc": landlock.READ, "/tmp": landlock.WORK, "/dev/shm": landlock.WORK}
    version = 0 if rules is None else landlock.abi() if abi is None else min(abi, landlock.abi())
    signals: seccomp.Signals = "tree" if namespaces or version >= 6 else "self"
    return {
        "tier": tier,
        "folder": inside,
        "scratch": "/tmp" if namespaces else f"{inside}/{SCRATCH}",
        "limits": asdict(limits),
        "rlimits": rlimits,
        "nice": 10,
        "uid": uid,
        # Who is not dumpable cannot be measured by a host of the same user: it would not see whose pages are shared.
        "dumpable": not namespaces and uid is None,
        "landlock": rules,
        "abi": abi,
        "attributes": namespaces,
        "signals": None if "seccomp" in without else signals,
        "packages": _packages(),
    }


def _environment(policy: Mapping[str, Any]) -> dict[str, str]:
    """All of it: nothing of ours is handed on but the time zone."""
    zone = os.environ.get("TZ", "")
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": policy["folder"],
        "USER": "user",
        "LANG": "C.UTF-8",
        "TMPDIR": policy["scratch"],
        "IPYTHONDIR": policy["scratch"],
        "MPLCONFIGDIR": policy["scratch"],
        "XDG_CACHE_HOME": policy["scratch"],
        "XDG_CONFIG_HOME": policy["scratch"],
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
    } | ({"TZ": zone} if zone else {})


def _bubblewrap(folder: Path, environment: Mapping[str, str], uid: int | None, held: int, reads: bool) -> list[str]:
    """The command before the program's own."""
    program = shutil.which("bwrap")
    if program is None:
        raise SandboxError("bubblewrap is not installed: apt install bubblewrap")
    spaces = ("pid", "net", "ipc", "uts", "cgroup-try")
    command = [program, *(f"--unshare-{space}" for space in spaces), "--die-with-parent", "--new-session"]
    command += ["--hostname", "sandbox", "--clearenv"]
    for name, value in environment.items():
        command += ["--setenv", name, value]
    command += ["--proc", "/proc", "--dev", "/dev"]
    for masked in _MASKED:
        if os.path.exists(f"/proc/{masked}"):
            command += ["--ro-bind", "/dev/null", f"/proc/{masked}"]
    command += ["--size", str(_SHARED), "--perms", "1777", "--tmpfs", "/dev/shm"]
    command += ["--size", str(_SHARED), "--perms", "1777", "--tmpfs", "/tmp"]  # before what is bound beneath it
    for path in _SYSTEM:
        if os.path.islink(path):
            command += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            command += [*_folders_above(path), "--ro-bind", path, path]
    for path in (*_python(), *_SETTINGS):
        if os.path.exists(path):
            command += [*_folders_above(path), "--ro-bind", path, path]
    for link, target in _links().items():
        command += [*_folders_above(link), "--symlink", target, link]
    command += [*_folders_above(_INSIDE), "--bind", str(folder), _INSIDE, "--cap-drop", "ALL"]
    if uid is None:
        command += ["--unshare-user", "--uid", "1000", "--gid", "1000"]
        command += ["--disable-userns"] if _disables_namespaces(program) else []
    else:
        kept = ("SETUID", "SETGID", *(("DAC_READ_SEARCH",) if reads else ()))
        command += [word for name in kept for word in ("--cap-add", f"CAP_{name}")]
    command += ["--sync-fd", str(held)] if held >= 0 else []  # open until all are gone
    return [*command, "--remount-ro", "/dev", "--remount-ro", "/"]


@functools.cache
def _disables_namespaces(program: str) -> bool:
    """Whether this bubblewrap can keep those inside from making namespaces (0.8 can); the filter refuses them too."""
    asked = subprocess.run([program, "--help"], capture_output=True, timeout=_PATIENCE, check=False)
    return b"--disable-userns" in asked.stdout


def _folders_above(path: str) -> list[str]:
    """Folders that bubblewrap makes by itself are root's alone where root starts it."""
    above = [str(parent) for parent in reversed(Path(path).parents)]
    made = (parent for parent in above if parent not in ("/", "/tmp", "/usr"))
    return [word for parent in made for word in ("--perms", "0755", "--dir", parent)]


@functools.cache
def _python() -> tuple[str, ...]:
    """Folders of this Python and of the packages that it imports, but for those beneath /usr. Never a whole prefix: an
    environment may have been made in a project's folder, or at home."""
    prefixes = dict.fromkeys((sys.base_prefix, sys.base_exec_prefix, sys.prefix, sys.exec_prefix))
    parts = ("bin", "lib", "lib64", "share", "pyvenv.cfg")
    found: list[str] = []
    for path in (*(f"{prefix}/{part}" for prefix in prefixes for part in parts), *_packages(), str(_HERE)):
        if os.path.exists(path) and not any(f"{path}/".startswith(f"{other}/") for other in ("/usr", *found)):
            found.append(path)
    return tuple(found)


@functools.cache
def _packages() -> tuple[str, ...]:
    """Folders of packages on our own path, which files like `.pth` may have put there."""
    named = (path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages"))
    return tuple(dict.fromkeys(path for path in named if os.path.isabs(path) and os.path.isdir(path)))


@functools.cache
def _links() -> dict[str, str]:
    """Links that lead to this Python's program from folders that are not bound."""
    found: dict[str, str] = {}
    path = sys.executable
    while os.path.islink(path) and len(found) < 8:
        target = os.readlink(path)
        if not any(path.startswith(f"{folder}/") for folder in (*_SYSTEM, *_python())):
            found[path] = target
        path = os.path.normpath(os.path.join(os.path.dirname(path), target))
    return found


def _closed(folder: Path, namespaces: bool) -> str:
    """What of this Python, or on the way to it and the folder, others may not read; "": nothing. With namespaces there
    is no way, only its end."""
    needed = [Path(path) for path in _python()]
    above = {parent for path in (*needed, folder) for parent in path.parents} if not namespaces else set()
    closed = [path for path in needed if not path.stat().st_mode & 0o004]
    closed += [path for path in sorted(above) if not path.stat().st_mode & 0o001]
    return str(closed[0]) if closed else ""


def _is_capable(capability: int) -> bool:
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    return bool(effective >> capability & 1)


def _take_uid() -> tuple[int | None, int]:
    """As root: a user id that no other kernel of this machine has, and a file that holds it while it is open."""
    if os.getuid() != 0:
        return None, -1
    import fcntl

    ids = [uid for uid in _UIDS if _is_mapped(uid)] or [uid for uid in range(60_000, 65_000) if _is_mapped(uid)]
    if not ids:
        return None, -1  # a namespace with root alone
    held = os.open(_locks(), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    for uid in ids:
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, uid, 1, 0)  # struct flock: byte `uid` of the file
        with contextlib.suppress(BlockingIOError, PermissionError):
            fcntl.fcntl(held, fcntl.F_OFD_SETLK, lock)
            return uid, held
    os.close(held)
    raise SandboxError(f"{len(ids)} kernels run on this machine already")


def _is_mapped(uid: int) -> bool:
    return any(first <= uid < first + count for first, count in _mapped())


@functools.cache
def _mapped() -> tuple[tuple[int, int], ...]:
    lines = Path("/proc/self/uid_map").read_text().splitlines()
    return tuple((int(first), int(count)) for first, _, count in map(str.split, lines))


def _locks() -> str:
    """A file in a folder that root alone may write."""
    for folder in ("/run", "/var/lib", "/root"):
        if os.access(folder, os.W_OK) and not os.stat(folder).st_mode & 0o022:
            return f"{folder}/chatglm-kernels.lock"
    raise SandboxError("limits: no folder for locks: /run cannot be written")


def _tasks() -> int:
    """Processes and threads of this user, all of which his limit counts."""
    count = 0
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == os.getuid():
                count += len(os.listdir(f"/proc/{name}/task"))
    return count


def _answer(status: int) -> str:
    """What `inside.py` says of itself: "" when all is in force."""
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
    """Run in the one thread that starts programs: they die with the thread that started them, not with its process."""
    if os.getpid() not in _starters:
        _starters.clear()
        _starters[os.getpid()] = ThreadPoolExecutor(1, "sandbox")
    return _starters[os.getpid()].submit(make).result()
