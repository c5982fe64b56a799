"""Landlock: a process gives up access to files, TCP and signals, for itself and for all its child processes. This needs
three system calls. It has no dependency and uses nothing of this package, because it runs inside the sandbox.

Source of the numbers and structures: `include/uapi/linux/landlock.h` and `Documentation/userspace-api/landlock.rst` of
Linux. Additions of each version of the interface (ABI): 2 (Linux 5.19) links and renames between folders, 3 (6.2)
truncation, 4 (6.7) TCP, 5 (6.10) ioctl of devices, 6 (6.12) scopes: signals and abstract sockets, 7 (6.15) logging.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from collections.abc import Mapping

__all__ = ["READ", "READ_EXECUTE", "READ_WRITE", "WORK", "abi", "restrict"]

(
    _EXECUTE,
    _WRITE_FILE,
    _READ_FILE,
    _READ_FOLDER,
    _REMOVE_FOLDER,
    _REMOVE_FILE,
    _MAKE_CHARACTER_DEVICE,
    _MAKE_FOLDER,
    _MAKE_FILE,
    _MAKE_SOCKET,
    _MAKE_FIFO,
    _MAKE_BLOCK_DEVICE,
    _MAKE_LINK,
    _REFER,
    _TRUNCATE,
    _IOCTL_DEVICE,
) = (1 << bit for bit in range(16))

READ = _READ_FILE | _READ_FOLDER
READ_EXECUTE = READ | _EXECUTE
READ_WRITE = _READ_FILE | _WRITE_FILE
# Files, folders and symbolic links, but no devices, no sockets, and no FIFO, which would block whoever opens it.
WORK = (
    READ_EXECUTE
    | _WRITE_FILE
    | _TRUNCATE
    | _REMOVE_FOLDER
    | _REMOVE_FILE
    | _MAKE_FOLDER
    | _MAKE_FILE
    | _MAKE_LINK
    | _REFER
)

_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEVICE  # Linux refuses other rights for a file
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # number of the rights above that each version knows
_TCP = 0b11  # bind, connect
_SCOPES = 0b11  # abstract unix sockets, signals
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_ASK_VERSION, _PATH_BENEATH = 1, 1
_NO_NEW_PRIVILEGES = 38


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def abi() -> int:
    """The version of the interface in this Linux; 0: it has none, or it is switched off."""
    if sys.platform != "linux":
        return 0  # there, the number is that of another call
    try:
        return _call(_CREATE_RULESET, None, 0, _ASK_VERSION)
    except OSError:
        return 0


def restrict(rules: Mapping[str, int], at_most: int | None = None) -> int:
    """Deny this process all files outside of some paths, TCP, and signals to others (ABI 6).

    Args:
        rules: the rights for each path and everything below it. A path that does not exist is left out.
        at_most: highest version to use, for tests.

    Returns:
        the version that is used.

    Raises:
        OSError: this Linux has no Landlock.
    """
    version = abi() if at_most is None else min(abi(), at_most)
    if version < 1:
        raise OSError("this kernel has no Landlock, or it is switched off")
    known = (1 << _RIGHTS[min(version, 5)]) - 1
    ruleset = _Ruleset(known, _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    handle = _call(_CREATE_RULESET, ctypes.byref(ruleset), size, 0)
    try:
        for path, rights in rules.items():
            try:
                opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                allowed = rights & known
                if not stat.S_ISDIR(os.fstat(opened).st_mode):
                    allowed &= _OF_FILES
                _call(_ADD_RULE, handle, _PATH_BENEATH, ctypes.byref(_Beneath(allowed, opened)), 0)
            finally:
                os.close(opened)
        _libc().prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        _call(_RESTRICT_SELF, handle, 0)
    finally:
        os.close(handle)
    return version


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: object) -> int:
    found = _libc().syscall(
        ctypes.c_long(number), *(ctypes.c_long(value) if isinstance(value, int) else value for value in arguments)
    )
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(found)
