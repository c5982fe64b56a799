"""Access to a conversation's folder. The code may put anything into it: links, pipes, deep folders, odd names.

All access uses descriptors relative to the folder's own descriptor. So no link leads out of it, even if paths are
replaced meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import stat
import unicodedata
from collections.abc import AsyncIterable, Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from chatglm.errors import BusyError, InputError, OutputError
from chatglm.tools.interpreter.limits import Limits

try:
    import fcntl
except ImportError:  # Windows, where no code is run
    fcntl = None  # type: ignore[assignment]

__all__ = ["Claim", "Folder", "Mark", "Usage", "checked_name", "recover", "remove"]

DEPTH = 32
"""Most levels of folders that are read."""
_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_FOLDER = _FLAGS | getattr(os, "O_DIRECTORY", 0)
_RESERVED = {"con", "prn", "aux", "nul", "conin$", "conout$"} | {f"{n}{d}" for n in ("com", "lpt") for d in "123456789"}


class Usage(NamedTuple):
    """Size of a folder: bytes on the disk, number of files and folders, and levels of folders."""

    size: int
    number: int
    depth: int


class Mark(NamedTuple):
    """A file's size, time of change and inode, to see whether it has changed."""

    size: int
    changed: int  # nanoseconds
    inode: int


class _Found(NamedTuple):
    parent: int  # descriptor of the folder that it is in
    name: str
    path: str  # relative to the top folder
    depth: int
    status: os.stat_result


def checked_name(name: str) -> str:
    """Check the name of an uploaded file. It must be possible on every system: one component, printable, not hidden,
    not reserved.

    Raises:
        InputError: the name is not allowed; the message says why.
    """
    problem = ""
    if not name or len(name.encode("utf-8", "replace")) > 200:
        problem = "it must have 1 to 200 bytes"
    elif any(unicodedata.category(character)[0] == "C" for character in name):
        problem = "it has control characters"
    elif any(character in '/\\:*?"<>|' for character in name):
        problem = 'it has one of / \\ : * ? " < > |'
    elif name[0] == "." or name[-1] == "." or name != name.strip():
        problem = "it begins or ends with a dot or a space"
    elif name.split(".")[0].rstrip().lower() in _RESERVED:
        problem = "Windows has reserved it"
    elif name == "__pycache__":
        problem = "it is reserved for Python's caches"
    if problem:
        raise InputError(f"{name!r:.80} cannot be the name of an uploaded file: {problem}")
    return name


def moving(path: Path) -> Path:
    """Path of a folder while it replaces `path`."""
    return path.with_name(path.name + ".moving")


def recover(path: Path) -> None:
    """Finish a `Folder.replace` that was interrupted.

    Raises:
        OSError: something cannot be moved; it stays at its place.
    """
    if moving(path).is_dir():
        _merge(path, moving(path))
        os.rename(moving(path), path)


def _merge(source: Path, target: Path) -> None:
    """Move all contents of a folder into another one, and remove it. If something cannot be moved, nothing is."""
    if not source.is_dir():
        return
    os.close(_own_folder(source, None))
    moved: list[str] = []
    try:
        for name in os.listdir(source):
            _move(source / name, target / name)
            moved.append(name)
        source.rmdir()
    except OSError:
        for name in moved:
            with contextlib.suppress(OSError):
                _move(target / name, source / name)
        raise


def _move(source: Path, target: Path) -> None:
    """Rename a file or a folder. A folder without write permission cannot be moved to another parent, so it gets this
    permission meanwhile.
    """
    try:
        os.rename(source, target)
    except PermissionError:
        before = os.lstat(source).st_mode
        if not stat.S_ISDIR(before) or before & 0o200:
            raise
        folder = _own_folder(source, None)
        try:
            os.rename(source, target)
        finally:
            os.fchmod(folder, stat.S_IMODE(before))
            os.close(folder)


class Claim:
    """A lock on a conversation's folder, for the processes that use one home: only its holder may work in the folder.
    The system releases it when the process ends, however it ends.

    Args:
        path: path of the folder, which need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.with_name(f".{path.name}.lock")
        self._fd = -1

    def take(self) -> None:
        """Take the lock, unless this object has it already.

        Raises:
            BusyError: another process has it; the message names the process.
        """
        while fcntl is not None and self._fd < 0:
            fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(fd, 32).decode("ascii", "replace").strip()
                os.close(fd)
                raise BusyError(
                    f"the conversation's Python and its files are in use by another program (process {holder or '?'}); "
                    "end that one, or wait until its Python has been idle for some minutes"
                ) from None
            except BaseException:
                os.close(fd)
                raise
            with contextlib.suppress(FileNotFoundError):  # the previous holder has just removed the file
                if os.fstat(fd).st_ino == os.stat(self._file, follow_symlinks=False).st_ino:
                    os.ftruncate(fd, 0)
                    os.write(fd, f"{os.getpid()}\n".encode())
                    self._fd = fd
            if self._fd < 0:
                os.close(fd)

    def release(self) -> None:
        """Release the folder for other processes."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                self._file.unlink()
            os.close(self._fd)
            self._fd = -1


class Folder:
    """A folder, accessed by its descriptor. It may be renamed meanwhile.

    Args:
        path: path of an existing folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, _FOLDER)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def device(self) -> int:
        return os.fstat(self._fd).st_dev

    def usage(self, most: int) -> Usage:
        """The size of the folder. Counting stops after `most` files and folders."""
        size = count = depth = 0
        seen: set[int] = set()
        for found in self._walk(most + 1):
            count += 1
            depth = max(depth, found.depth)
            if found.status.st_nlink < 2 or found.status.st_ino not in seen:
                seen.add(found.status.st_ino)
                size += found.status.st_blocks * 512
        return Usage(size, count, depth)

    def marks(self, most: int) -> dict[str, Mark]:
        """The regular files by their paths in the folder, without hidden files and Python's caches."""
        return {
            found.path: Mark(found.status.st_size, found.status.st_mtime_ns, found.status.st_ino)
            for found in self._walk(most, hidden=False)
            if stat.S_ISREG(found.status.st_mode)
        }

    def open(self, name: str) -> BinaryIO:
        """Open a regular file of the folder for reading. Links are not followed.

        Raises:
            InputError: there is no such file.
        """
        with self._parent(name) as (at, last):
            fd = os.open(last, _FLAGS, dir_fd=at)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise InputError(f"{name!r:.80}: not a regular file")
        return open(fd, "rb")

    def delete(self, name: str) -> None:
        """Delete a regular file of the folder. Links are not followed.

        Raises:
            InputError: there is no such file.
        """
        with self._parent(name) as (at, last):
            if not stat.S_ISREG(os.stat(last, dir_fd=at, follow_symlinks=False).st_mode):
                raise InputError(f"{name!r:.80}: not a regular file")
            os.unlink(last, dir_fd=at)

    @contextlib.contextmanager
    def _parent(self, name: str) -> Iterator[tuple[int, str]]:
        """Yield the descriptor of the folder that has a file, and the file's name there. System errors in the block
        become "no such file".

        Raises:
            InputError: the name is not valid, or there is no such file or folder.
        """
        *folders, last = name.split("/")
        if len(folders) > DEPTH or "\0" in name or any(part in ("", ".", "..") for part in (*folders, last)):
            raise InputError(f"{name!r:.80}: not the name of a file in the conversation's folder")
        at = os.dup(self._fd)
        try:
            for part in folders:
                inner = os.open(part, _FOLDER, dir_fd=at)
                os.close(at)
                at = inner
            yield at, last
        except (OSError, UnicodeEncodeError):
            raise InputError(f"{name!r:.80}: no such file in the conversation's folder") from None
        finally:
            os.close(at)

    async def put(
        self, name: str, data: AsyncIterable[bytes], limits: Limits, accept: Callable[[], object] | None = None
    ) -> Mark:
        """Store an uploaded file. It appears under its name when it is complete, and replaces an older one.

        Args:
            accept: called in a thread when the data is complete, before the file gets its name. If it raises, nothing
                is changed.

        Raises:
            InputError: the name cannot be used, the file is too large, or the folder is full; nothing was changed.
            OutputError: the file cannot be written, for example because the disk is full; nothing was changed.
        """
        checked_name(name)
        self._check_no_folder(name)
        before = await asyncio.to_thread(self.usage, limits.files)
        if before.number >= limits.files:
            raise InputError(f"{name}: the conversation's folder is full ({limits.files} files); remove some first")
        most = min(limits.file, limits.folder - before.size)
        temporary = f".upload-{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        fd = os.open(temporary, flags, 0o600, dir_fd=self._fd)
        try:
            size = 0
            async for chunk in data:
                size += len(chunk)
                if size > most:
                    limit = "one file" if most == limits.file else "what is left of the folder"
                    raise InputError(f"{name}: larger than {most} bytes, the limit of {limit}")
                try:
                    await asyncio.to_thread(_write, fd, chunk)
                except OSError as error:
                    raise OutputError(f"{name}: cannot be stored ({error.strerror})") from None
            self._give(fd)
            status = os.fstat(fd)

            def finish() -> None:
                self._check_no_folder(name)
                if accept is not None:
                    accept()
                try:
                    os.rename(temporary, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
                except OSError as error:
                    raise InputError(f"{name}: cannot be stored ({error.strerror})") from None

            finishing = asyncio.ensure_future(asyncio.to_thread(finish))
            try:
                await asyncio.shield(finishing)
            except asyncio.CancelledError:  # what was accepted must get its name
                await asyncio.wait({finishing})
                finishing.exception()
                raise
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=self._fd)
            raise
        finally:
            os.close(fd)
        return Mark(status.st_size, status.st_mtime_ns, status.st_ino)

    def _check_no_folder(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_mode):
                raise InputError(f"{name}: there is a folder of this name; upload it with another name")

    def give_all(self, most: int) -> None:
        """Give all contents to the owner of the folder, because a kernel may run as another user than the last one. It
        does nothing if the caller is not root.

        Args:
            most: most files and folders that are read.
        """
        if os.geteuid() != 0:
            return
        top = os.fstat(self._fd)
        for found in self._walk(most):
            status = found.status
            if (status.st_uid, status.st_gid) != (top.st_uid, top.st_gid) and (
                status.st_nlink == 1 or stat.S_ISDIR(status.st_mode)
            ):
                with contextlib.suppress(OSError):
                    os.chown(found.name, top.st_uid, top.st_gid, dir_fd=found.parent, follow_symlinks=False)

    def replace(self, path: Path) -> None:
        """Let this folder replace another one: the contents of that one are moved into it, and it gets that path.

        After an interruption, this folder is at `moving(path)`, and `recover` completes the move.

        Raises:
            OSError: something cannot be moved; both folders are unchanged.
        """
        before = self.path
        os.rename(before, moving(path))
        self.path = moving(path)
        try:
            _merge(path, self.path)
        except OSError:
            os.rename(self.path, before)
            self.path = before
            raise
        os.rename(self.path, path)
        self.path = path
        self.give_all(1 << 20)

    def flatten(self, most: int) -> list[str]:
        """Move folders at level `DEPTH` - 1 to the top, so that all contents can be listed, counted and deleted. No
        code may run meanwhile.

        Args:
            most: most files and folders that are read below each.

        Returns:
            the new names of these folders.
        """
        moved: list[str] = []
        ahead = [(".", 1)]
        while ahead:
            top, depth = ahead.pop()
            for found in self._walk(most, top=top, depth=depth):
                if found.depth == DEPTH - 1 and stat.S_ISDIR(found.status.st_mode):
                    name = f"nested-{secrets.token_hex(4)}"
                    with contextlib.suppress(OSError):  # then it stays, and the folder is still too deep
                        os.close(_own_folder(found.name, found.parent))
                        os.rename(found.name, name, src_dir_fd=found.parent, dst_dir_fd=self._fd)
                        moved.append(name)
                        ahead.append((name, 2))
        return moved

    def _give(self, fd: int) -> None:
        top = os.fstat(self._fd)
        if os.geteuid() == 0 and top.st_uid != 0:
            os.fchown(fd, top.st_uid, top.st_gid)

    def _walk(self, most: int, hidden: bool = True, top: str = ".", depth: int = 1) -> Iterator[_Found]:
        """Yield all contents, at most `most` entries. Entries that disappear meanwhile are left out.

        Args:
            top, depth: the folder to begin with, and the level of its contents.
        """
        left = most

        def below(at: int, prefix: str, depth: int) -> Iterator[_Found]:
            nonlocal left
            inner = []
            with os.scandir(at) as entries:
                for entry in entries:
                    if left <= 0:
                        return
                    if not hidden and (entry.name.startswith(".") or entry.name == "__pycache__"):
                        continue
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue
                    left -= 1
                    if stat.S_ISDIR(status.st_mode) and depth < DEPTH:
                        inner.append(entry.name)
                    yield _Found(at, entry.name, prefix + entry.name, depth, status)
            for name in inner:
                try:
                    fd = _open_folder(name, at)
                except OSError:
                    continue
                try:
                    yield from below(fd, f"{prefix}{name}/", depth + 1)
                finally:
                    os.close(fd)

        # This needs its own descriptor: two readers of one descriptor would share the position in the list of names.
        begun = _open_folder(top, self._fd)
        try:
            yield from below(begun, "", depth)
        finally:
            os.close(begun)


def remove(path: str | Path, at: int | None = None) -> None:
    """Remove a file, a link, or a folder with all its contents, even folders that are deeper than the longest path or
    have no permissions. Links are not followed. A missing path is not an error.

    Args:
        at: descriptor of the folder that a relative path begins in.

    Raises:
        OSError: something cannot be removed; everything else was removed.
    """
    try:
        os.unlink(path, dir_fd=at)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):  # a folder
        pass
    top = _own_folder(path, at)
    stays: set[str] = set()
    try:
        while names := set(os.listdir(top)) - stays:
            for name in names:
                try:
                    _remove_within(name, top)
                except OSError:
                    stays.add(name)
    finally:
        os.close(top)
    os.rmdir(path, dir_fd=at)


def _remove_within(name: str, top: int) -> None:
    """Remove a file or folder; inner folders are moved to the top, so that their depth does not matter."""
    if not _is_folder(name, top):
        os.unlink(name, dir_fd=top)
        return
    folder = _own_folder(name, top)
    try:
        for within in os.listdir(folder):
            if _is_folder(within, folder):
                os.close(_own_folder(within, folder))
                os.rename(within, secrets.token_hex(16), src_dir_fd=folder, dst_dir_fd=top)
            else:
                os.unlink(within, dir_fd=folder)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=top)


def _is_folder(name: str, at: int) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode)


def _own_folder(path: str | Path, at: int | None) -> int:
    """Open a folder, and give its owner all permissions."""
    fd = _open_folder(path, at)
    if os.fstat(fd).st_mode & 0o700 != 0o700:
        os.fchmod(fd, 0o700)
    return fd


def _open_folder(name: str | Path, at: int | None) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=at)
    except PermissionError:
        # The code has removed the permissions to hide the contents. This process has the same user, and restores them.
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=at)
        try:
            os.chmod(f"/proc/self/fd/{fd}", 0o700)
        finally:
            os.close(fd)
        return os.open(name, _FOLDER, dir_fd=at)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
