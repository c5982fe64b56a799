"""User ids for kernels that root starts. The limit of processes counts all processes of a user, and root has no limit.
So each kernel on this machine gets its own user id.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import struct
from pathlib import Path

from chatglm.errors import SandboxError

__all__ = ["MOUNT", "READ_ANYTHING", "is_capable", "take", "tasks"]

READ_ANYTHING, MOUNT = 2, 21
"""CAP_DAC_READ_SEARCH and CAP_SYS_ADMIN of linux/capability.h."""
_IDS = range(200_000, 260_000)
_IN_CONTAINERS = range(60_000, 65_000)  # containers may have only 65,536 user ids


def is_capable(capability: int) -> bool:
    """Whether this process has a capability."""
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    return bool(effective >> capability & 1)


def take() -> tuple[int | None, int]:
    """For root: a user id that no other kernel on this machine has, and the descriptor of a file that reserves the id
    while it is open. Otherwise (None, -1).

    Raises:
        SandboxError: all user ids are in use, or there is no folder for the lock file.
    """
    if os.getuid() != 0:
        return None, -1
    import fcntl

    ids = (uid for uid in itertools.chain(_IDS, _IN_CONTAINERS) if _is_mapped(uid))
    if not any(map(_is_mapped, (_IDS[0], _IN_CONTAINERS[0]))):
        return None, -1  # a namespace that has only root
    held = os.open(_locks(), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    for uid in ids:
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, uid, 1, 0)  # struct flock: byte `uid` of the file
        with contextlib.suppress(BlockingIOError, PermissionError):
            fcntl.fcntl(held, fcntl.F_OFD_SETLK, lock)
            return uid, held
    os.close(held)
    raise SandboxError("limits: all user ids for kernels are in use on this machine; end some kernels")


def _is_mapped(uid: int) -> bool:
    return any(first <= uid < first + count for first, count in _mapped())


@functools.cache
def _mapped() -> tuple[tuple[int, int], ...]:
    lines = Path("/proc/self/uid_map").read_text().splitlines()
    return tuple((int(first), int(count)) for first, _, count in map(str.split, lines))


def _locks() -> str:
    """Path of a lock file in a folder that only root may write to."""
    for folder in ("/run", "/var/lib", "/root"):
        if os.access(folder, os.W_OK) and not os.stat(folder).st_mode & 0o022:
            return f"{folder}/chatglm-kernels.lock"
    raise SandboxError("limits: no folder for locks: /run cannot be written")


def tasks() -> int:
    """Number of processes and threads of this user, which all count for the limit."""
    count = 0
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == os.getuid():
                count += len(os.listdir(f"/proc/{name}/task"))
    return count
