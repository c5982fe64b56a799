"""The files of this machine that code can see: this Python, its packages, /usr and the conversation's folder."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from chatglm.errors import SandboxError

__all__ = ["INSIDE", "SETTINGS", "SYSTEM", "bubblewrap", "closed_to_others", "packages", "python"]

INSIDE = "/mnt/data"
"""Path of the conversation's folder inside a namespace."""

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
SETTINGS = (
    *("/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives", "/etc/fonts", "/var/cache/fontconfig"),
    f"/etc/python3.{sys.version_info.minor}",
)
_MASKED = ("cmdline", "config.gz", "kallsyms", "kcore", "key-users", "keys", "modules", "sched_debug", "timer_list")
_SHARED = 64 << 20  # size of /tmp and of /dev/shm in bytes
_HERE = Path(__file__).resolve().parent


def bubblewrap(folder: Path, environment: Mapping[str, str], uid: int | None, held: int, reads: bool) -> list[str]:
    """The command line of bubblewrap, to be put in front of the program's.

    Args:
        uid: user id of the program; None: a new user namespace.
        held: descriptor that must stay open as long as any process lives; -1: there is none.
        reads: leave the capability to read folders that are closed to others.

    Raises:
        SandboxError: bubblewrap is not installed.
    """
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
    command += ["--size", str(_SHARED), "--perms", "1777", "--tmpfs", "/tmp"]  # before paths that are bound below it
    for path in SYSTEM:
        if os.path.islink(path):
            command += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            command += [*_folders_above(path), "--ro-bind", path, path]
    for path in (*python(), *SETTINGS):
        if os.path.exists(path):
            command += [*_folders_above(path), "--ro-bind", path, path]
    for link, target in _links().items():
        command += [*_folders_above(link), "--symlink", target, link]
    command += [*_folders_above(INSIDE), "--bind", str(folder), INSIDE, "--cap-drop", "ALL"]
    if uid is None:
        command += ["--unshare-user", "--uid", "1000", "--gid", "1000"]
        command += ["--disable-userns"] if _disables_namespaces(program) else []
    else:
        kept = ("SETUID", "SETGID", *(("DAC_READ_SEARCH",) if reads else ()))
        command += [word for name in kept for word in ("--cap-add", f"CAP_{name}")]
    command += ["--sync-fd", str(held)] if held >= 0 else []  # open until all processes have ended
    return [*command, "--remount-ro", "/dev", "--remount-ro", "/"]


@functools.cache
def _disables_namespaces(program: str) -> bool:
    """Whether this bubblewrap can forbid new namespaces inside (from 0.8 on). The seccomp filter refuses them, too."""
    asked = subprocess.run([program, "--help"], capture_output=True, check=False)
    return b"--disable-userns" in asked.stdout


def _folders_above(path: str) -> list[str]:
    """Arguments that make the folders above a path with public permissions. If root starts bubblewrap, folders that it
    makes by itself are accessible only to root.
    """
    above = [str(parent) for parent in reversed(Path(path).parents)]
    made = (parent for parent in above if parent not in ("/", "/tmp", "/usr"))
    return [word for parent in made for word in ("--perms", "0755", "--dir", parent)]


@functools.cache
def python() -> tuple[str, ...]:
    """Folders of this Python and of its packages, except those in /usr. Never a whole prefix, because an environment
    may be in a project's folder, or be the home folder.
    """
    prefixes = dict.fromkeys((sys.base_prefix, sys.base_exec_prefix, sys.prefix, sys.exec_prefix))
    parts = ("bin", "lib", "lib64", "share", "pyvenv.cfg")
    found: list[str] = []
    for path in (*(f"{prefix}/{part}" for prefix in prefixes for part in parts), *packages(), str(_HERE)):
        if os.path.exists(path) and not any(f"{path}/".startswith(f"{other}/") for other in ("/usr", *found)):
            found.append(path)
    return tuple(found)


@functools.cache
def packages() -> tuple[str, ...]:
    """Folders of packages on this program's import path; `.pth` files may have added some."""
    named = (path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages"))
    return tuple(dict.fromkeys(path for path in named if os.path.isabs(path) and os.path.isdir(path)))


@functools.cache
def program() -> str:
    """Path of this Python's program, without `..`: bubblewrap cannot bind a path like `../.venv/bin/python`."""
    plain = os.path.normpath(sys.executable)
    return plain if os.path.exists(plain) and os.path.samefile(plain, sys.executable) else sys.executable


@functools.cache
def _links() -> dict[str, str]:
    """Links to this Python's program that are in folders which are not bound."""
    found: dict[str, str] = {}
    path = program()
    while os.path.islink(path) and len(found) < 8:
        target = os.readlink(path)
        if not any(path.startswith(f"{folder}/") for folder in (*SYSTEM, *python())):
            found[path] = target
        path = os.path.normpath(os.path.join(os.path.dirname(path), target))
    return found


def closed_to_others(folder: Path, namespaces: bool) -> str:
    """A path of this Python, or above it or the folder, that is closed to other users; "": there is none. With
    namespaces, the folders above are not checked, because bubblewrap makes them.
    """
    needed = [Path(path) for path in python()]
    above = {parent for path in (*needed, folder) for parent in path.parents} if not namespaces else set()
    closed = [path for path in needed if not path.stat().st_mode & 0o004]
    closed += [path for path in sorted(above) if not path.stat().st_mode & 0o001]
    return str(closed[0]) if closed else ""
