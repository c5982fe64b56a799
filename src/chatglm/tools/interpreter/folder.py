"""A conversation's folder, which its code may fill with anything: links, pipes, folders in folders, odd names.

All access goes through descriptors below the folder's own, so no link leads out of it, even if paths are exchanged
meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import stat
import unicodedata
from collections.abc import AsyncIterable, Iterator
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
    """Contents of a folder: bytes on the disk, files and folders, and levels of folders."""

    size: int
    number: int
    depth: int


class Mark(NamedTuple):
    """Shows whether a file has changed."""

    size: int
    changed: int  # ns
    inode: int


class _Found(NamedTuple):
    parent: int  # descriptor of the folder that it is in
    name: str
    path: str  # beneath the top
    depth: int
    status: os.stat_result


def checked_name(name: str) -> str:
    """A name for an uploaded file that every system can have: one component, printable, not hidden, not reserved.

    Raises:
        InputError: it is another; the message says why.
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
    """Where a folder is while it takes the place of `path`."""
    return path.with_name(path.name + ".moving")


def recover(path: Path) -> None:
    """Finish a `Folder.replace` that was interrupted.

    Raises:
        OSError: something cannot be moved; it stays where it is.
    """
    if moving(path).is_dir():
        _merge(path, moving(path))
        os.rename(moving(path), path)


def _merge(source: Path, target: Path) -> None:
    """Move all contents of a folder into another one, and remove it; if something cannot be moved, nothing is."""
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
    """Rename a file or a folder. A folder that its owner may not change cannot get another parent, so meanwhile it is
    one that he may."""
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
    """Of the processes that have one home, the one that works in a conversation's folder. The system releases it when
    that process ends, however it ends.

    Args:
        path: of the folder, which need not be there.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.with_name(f".{path.name}.lock")
        self._fd = -1

    def take(self) -> None:
        """Be the one, if this is not the one already.

        Raises:
            BusyError: another process is; names it.
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
            with contextlib.suppress(FileNotFoundError):  # the former holder has just removed the file
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
    """A folder by its descriptor. It may be renamed meanwhile.

    Args:
        path: of a folder that exists.
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
        """Its contents. Counting ends at `most` files and folders."""
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
        """The regular files that people are shown, by their path beneath the folder: no hidden ones, no caches."""
        return {
            found.path: Mark(found.status.st_size, found.status.st_mtime_ns, found.status.st_ino)
            for found in self._walk(most, hidden=False)
            if stat.S_ISREG(found.status.st_mode)
        }

    def open(self, name: str) -> BinaryIO:
        """A regular file beneath the folder, for reading; no link is followed on the way.

        Raises:
            InputError: there is none of this name.
        """
        with self._parent(name) as (at, last):
            fd = os.open(last, _FLAGS, dir_fd=at)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise InputError(f"{name!r:.80}: not a regular file")
        return open(fd, "rb")

    def delete(self, name: str) -> None:
        """Delete a regular file beneath the folder; no link is followed on the way.

        Raises:
            InputError: there is none of this name.
        """
        with self._parent(name) as (at, last):
            if not stat.S_ISREG(os.stat(last, dir_fd=at, follow_symlinks=False).st_mode):
                raise InputError(f"{name!r:.80}: not a regular file")
            os.unlink(last, dir_fd=at)

    @contextlib.contextmanager
    def _parent(self, name: str) -> Iterator[tuple[int, str]]:
        """The descriptor of the folder that a file is in, and its name there. Errors of the system become "no such
        file".

        Raises:
            InputError: there is no such folder.
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

    async def put(self, name: str, data: AsyncIterable[bytes], limits: Limits) -> Mark:
        """Store an uploaded file. It appears under its name when it is complete, and replaces an older one.

        Raises:
            InputError: the name cannot be used, or the file is too large; nothing was changed.
            OutputError: the disk is full; nothing was changed.
        """
        checked_name(name)
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
            try:
                os.rename(temporary, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            except OSError as error:
                raise InputError(f"{name}: cannot be stored ({error.strerror})") from None
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=self._fd)
            raise
        finally:
            os.close(fd)
        return Mark(status.st_size, status.st_mtime_ns, status.st_ino)

    def give_all(self, most: int) -> None:
        """Give everything in it to the owner of the folder: a kernel may run as another user than the last.

        Args:
            most: files and folders that are read.
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
        """Replace another folder: its contents move into this one, which then gets its path.

        After an interruption, this folder is beside the other, as `moving(path)`, and `recover` completes the move.

        Raises:
            OSError: something cannot be moved; both folders stay what and where they are.
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
        """Move folders in which something lies `DEPTH` deep to the top, so that everything can be listed, counted and
        deleted. No code may run meanwhile.

        Args:
            most: files and folders that are looked at below each.

        Returns:
            Their new names.
        """
        moved: list[str] = []
        ahead = [(".", 1)]
        while ahead:
            top, depth = ahead.pop()
            for found in self._walk(most, top=top, depth=depth):
                if found.depth == DEPTH - 1 and stat.S_ISDIR(found.status.st_mode):
                    name = f"nested-{secrets.token_hex(4)}"
                    with contextlib.suppress(OSError):  # it stays there, and the folder too deep
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
        """Everything below, at most `most`; entries that vanish meanwhile are left out.

        Args:
            top, depth: the folder to begin in, and how deep its contents are.
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

        # A descriptor of its own: others that read the names through the same one would share its place among them.
        begun = _open_folder(top, self._fd)
        try:
            yield from below(begun, "", depth)
        finally:
            os.close(begun)


def remove(path: str | Path, at: int | None = None) -> None:
    """Remove a file, a link, or a folder with all its contents, whatever code has made: folders deeper than the longest
    path, folders without permissions. No link is followed. A missing path is not an error.

    Args:
        at: descriptor of the folder that the path begins in.

    Raises:
        OSError: something cannot be removed; everything else is.
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
    """Open a folder, with permission to change it."""
    fd = _open_folder(path, at)
    if os.fstat(fd).st_mode & 0o700 != 0o700:
        os.fchmod(fd, 0o700)
    return fd


def _open_folder(name: str | Path, at: int | None) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=at)
    except PermissionError:
        # Its owner, the kernel, has removed all permissions, which hides its contents. We run as the same user.
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
