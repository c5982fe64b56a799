"""Manages the kernels of a process: one for each conversation that runs code, up to a limit.

Kernels run in their own event loop, in a thread. Callers in any event loop may use them without being blocked.

The name of a conversation's folder is a hash of the user and the conversation, so their names are never used in the
file system. The folder stays after the kernel has ended. `end` removes it; `close` removes it if no home was given.
Several processes may use one home. Then only one of them at a time has a conversation's kernel and accepts its uploads,
but all may read its files.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import tempfile
import time
from collections.abc import AsyncIterable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar

from chatglm.errors import BusyError, InputError, QueueFullError, SandboxError
from chatglm.tools.interpreter.folder import Claim, Folder, Mark, moving, recover, remove
from chatglm.tools.interpreter.kernel import Kernel
from chatglm.tools.interpreter.limits import Cell, Limits
from chatglm.tools.interpreter.sandbox import Tier
from chatglm.tools.threads import LoopThread

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Kernels", "folder_of"]

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds that a cell waits for a kernel when all are busy."""
_REMEMBERED = 4096
"""Most conversations without a kernel that are remembered."""


@dataclass(eq=False)
class _Conversation:
    user: str
    path: Path
    noted: bool  # its next cell's text must say that variables are gone
    kernel: Kernel | None = None
    placed: bool = False  # whether it has one of the places: for a kernel, or one that starts
    used: float = field(default_factory=time.monotonic)
    uploads: int = 0  # number of uploads in progress
    uploaded: dict[str, Mark] = field(default_factory=dict)  # uploaded files, as they were then
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # held while a cell runs
    moving: asyncio.Lock = field(default_factory=asyncio.Lock)  # held while the folder is replaced
    starting: asyncio.Task[None] | None = None
    ending: asyncio.Task[None] | None = None
    claim: Claim = field(init=False)  # held while it has a kernel or uploads

    def __post_init__(self) -> None:
        self.claim = Claim(self.path)

    def leave(self) -> None:
        """Release the folder for other processes, if nothing in this process needs it."""
        if self.kernel is None and self.starting is None and not self.placed and not self.uploads:
            self.claim.release()

    @property
    def idle(self) -> bool:
        return not self.turn.locked() and (self.kernel is None or not self.kernel.busy)


@dataclass(eq=False)
class _Waiter:
    conversation: _Conversation
    granted: asyncio.Future[None]


class Kernels:
    """The Python interpreters (kernels) of all conversations.

    Args:
        home: folder for the conversations' folders; None: a temporary folder, which `close` removes.
        limits: limits of each kernel.
        most: most kernels at once, including spare ones.
        each: most kernels of one user.
        idle: seconds without a cell after which a kernel is ended.
        spare: number of spare kernels, which have imported the usual packages, so that a conversation's first cell
            starts quickly.
        tier: tier of the sandbox; None: the best that this machine has.
        patience: seconds that a cell waits for a kernel when all are busy.
        kept: most folders of one user; another one replaces the least recently used. None: no limit.

    Raises:
        InputError: `kept` is less than `each`.
    """

    def __init__(
        self,
        home: Path | None = None,
        *,
        limits: Limits = Limits(),  # noqa: B008
        most: int = 8,
        each: int = 4,
        idle: float = 900.0,
        spare: int = 1,
        tier: Tier | None = None,
        patience: float = PATIENCE,
        kept: int | None = None,
    ) -> None:
        if kept is not None and kept < each:
            raise InputError(f"kept: {kept} folders are too few for {each} kernels of one user")
        self.limits = limits
        self.tier = tier
        self._most, self._each, self._idle, self._patience = most, each, idle, patience
        self._spare, self._kept = min(spare, most - 1), kept
        self._given = home
        self._home: Path | None = None
        self._thread = LoopThread("chatglm kernels")
        self._conversations: dict[tuple[str, str], _Conversation] = {}
        self._spares: list[Kernel] = []
        self._starting = 0  # spare kernels
        self._waiting: list[_Waiter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = self._closed = False

    @property
    def running(self) -> int:
        """Number of kernels of conversations, without spare ones."""
        return sum(one.kernel is not None for one in tuple(self._conversations.values()))

    async def __aenter__(self) -> Self:
        await self._there(self._open_home())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def run(
        self, conversation: str, code: str, *, user: str = "", on_output: Callable[[str], None] | None = None
    ) -> Cell:
        """Run a cell in the conversation's kernel, which is started if there is none. Cells of one conversation run one
        after the other. Cancelling this call interrupts the cell.

        Args:
            user: the owner of the conversation: users share kernels fairly, and each has separate conversations.
            on_output: called with each piece of text, in the caller's event loop.

        Raises:
            QueueFullError: all kernels were busy for as long as a cell may wait.
            BusyError: another process has a kernel for this conversation; names it.
            SandboxError: code cannot be run safely on this machine.
        """
        loop = asyncio.get_running_loop()

        def tell(text: str) -> None:
            with contextlib.suppress(RuntimeError):  # the caller's event loop is closed
                loop.call_soon_threadsafe(on_output, text)  # type: ignore[arg-type]

        return await self._there(self._run(user, conversation, code, on_output and tell))

    async def put(
        self,
        conversation: str,
        name: str,
        data: AsyncIterable[bytes],
        *,
        user: str = "",
        accept: Callable[[], object] | None = None,
    ) -> None:
        """Store an uploaded file in the conversation's folder; it appears there when it is complete.

        Args:
            accept: called in a thread when the data is complete, before the file gets its name. If it raises, nothing
                is changed.

        Raises:
            InputError: the name cannot be used, or the file is too large.
            BusyError: another process has a kernel for this conversation; names it.
        """
        of, folder = await self._there(self._begin_upload(user, conversation))
        mark: Mark | None = None
        try:
            mark = await folder.put(name, data, self.limits, accept)
        finally:
            folder.close()
            await self._there(self._end_upload(of, name, mark))

    async def state(self, conversation: str, *, user: str = "") -> Literal["running", "idle"] | None:
        """Whether the conversation has a kernel ("running"), or only a folder ("idle"); None: neither."""
        return await self._there(self._state(user, conversation))

    async def marks(self, conversation: str, *, user: str = "") -> dict[str, Mark] | None:
        """The files of the conversation's folder; hidden ones are left out. None: there is no folder."""
        return await self._there(self._look(user, conversation, lambda folder: folder.marks(self.limits.files)))

    async def files(self, conversation: str, *, user: str = "") -> dict[str, int]:
        """The files of the conversation's folder and their sizes in bytes; hidden ones are left out."""
        marks = await self.marks(conversation, user=user)
        return {name: mark.size for name, mark in (marks or {}).items()}

    async def open(self, conversation: str, name: str, *, user: str = "") -> BinaryIO:
        """Open a regular file of the conversation's folder. Links are not followed.

        Raises:
            InputError: there is no such file.
        """
        file = await self._there(self._look(user, conversation, lambda folder: folder.open(name)))
        if file is None:
            raise InputError(f"{name!r:.80}: no such file; the conversation has none")
        return file

    async def uploaded(self, conversation: str, *, user: str = "") -> dict[str, Mark]:
        """The files that `put` has stored in this process, as they were then."""
        return await self._there(self._uploaded(user, conversation))

    async def delete(self, conversation: str, name: str, *, user: str = "") -> None:
        """Delete a regular file of the conversation's folder.

        Raises:
            InputError: there is no such file.
        """

        def work(folder: Folder) -> bool:
            folder.delete(name)
            return True

        if not await self._there(self._look(user, conversation, work)):
            raise InputError(f"{name!r:.80}: no such file; the conversation has none")

    async def interrupt(self, conversation: str, *, user: str = "") -> None:
        """Interrupt the conversation's cell, if one runs."""
        await self._there(self._interrupt(user, conversation))

    async def end(self, conversation: str, *, user: str = "", keep: bool = False) -> None:
        """End the conversation's kernel, and remove its folder.

        Args:
            keep: keep the folder; another cell may follow.
        """
        await self._there(self._end(user, conversation, keep))

    async def close(self) -> None:
        """End all kernels. If a home was given, the folders in it stay. A second call does nothing."""
        if self._closing:
            return
        self._closing = True
        await self._thread.awaited(self._close())
        await asyncio.to_thread(self._thread.close)

    # The methods below run in the kernels' own event loop.

    async def _there(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the kernels' event loop."""
        if self._closing:
            work.close()
            raise SandboxError("the interpreter has been closed")
        return await self._thread.awaited(work)

    async def _run(self, user: str, name: str, code: str, on_output: Callable[[str], None] | None) -> Cell:
        await self._open_home()
        while True:
            of = await self._conversation(user, name)
            async with of.turn:
                if self._conversations.get((user, name)) is not of:
                    continue  # it was ended meanwhile; this cell is the first one of a new conversation
                kernel = await self._kernel(of)
                try:
                    return await kernel.run(code, on_output)
                finally:
                    of.used = time.monotonic()
                    self._soon(self._freed(kernel))

    async def _freed(self, kernel: Kernel) -> None:
        """Called after a cell. When the kernel is idle, a waiting conversation may get its place."""
        await kernel.settled()
        self._grant()

    async def _kernel(self, of: _Conversation) -> Kernel:
        """The conversation's kernel, with a place. If the caller is cancelled, the start of a kernel continues."""
        if of.ending is not None:
            await asyncio.shield(of.ending)
        if of.kernel is not None and (of.kernel.alive or not self._spares):
            return of.kernel  # a dead kernel starts again by itself
        if of.starting is None:
            of.claim.take()
            if not of.placed:
                try:
                    await self._place(of)
                except BaseException:
                    of.placed = False
                    of.leave()
                    self._grant()
                    raise
            of.starting = self._soon(self._begin(of))
        await asyncio.shield(of.starting)
        assert of.kernel is not None
        return of.kernel

    async def _begin(self, of: _Conversation) -> None:
        try:
            if of.kernel is not None:  # it has died; a spare kernel is ready at once
                dead, of.kernel = of.kernel, None
                of.noted = of.noted or dead.used
                await dead.close()
            of.kernel = await self._start(of)
            of.used = time.monotonic()
        except BaseException:
            of.placed = False
            raise
        finally:
            of.starting = None
            of.leave()
            self._refill()
            self._grant()

    async def _start(self, of: _Conversation) -> Kernel:
        while self._spares and not of.uploads:
            kernel = self._spares.pop()
            async with of.moving:
                try:
                    if kernel.alive:
                        await kernel.move(of.path)
                        kernel.noted, of.noted = of.noted, False
                        return kernel
                except OSError:  # then another one is started instead
                    pass
                except BaseException:
                    await kernel.close()
                    raise
            await self._drop(kernel)
        placed = sum(other.placed for other in self._conversations.values())
        if self._spares and placed + len(self._spares) > self._most:
            await self._drop(self._spares.pop())  # it cannot be used, because files are being uploaded into the folder
        kernel = await Kernel.start(of.path, self.limits, tier=self.tier)
        kernel.noted, of.noted = of.noted, False
        return kernel

    # Places

    async def _place(self, of: _Conversation) -> None:
        """Wait for a place.

        Raises:
            QueueFullError: no place was free within `patience` seconds.
        """
        waiter = _Waiter(of, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._grant()
        try:
            await asyncio.wait_for(asyncio.shield(waiter.granted), self._patience)
        except asyncio.TimeoutError:
            mine = self._count(of.user)
            which = f"your {self._each}" if mine >= self._each else f"all {self._most}"
            raise QueueFullError(f"{which} Python kernels are running code; try again when a cell has ended") from None
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
        if of.ending is not None:
            await asyncio.shield(of.ending)

    def _grant(self) -> None:
        """Give places to waiting conversations: first to users with the fewest kernels, then to the longest waiting."""
        while True:
            for waiter in sorted(self._waiting, key=lambda waiter: self._count(waiter.conversation.user)):
                if self._make_room(waiter.conversation):
                    break
            else:
                return
            waiter.conversation.placed = True
            waiter.granted.set_result(None)
            self._waiting.remove(waiter)

    def _make_room(self, of: _Conversation) -> bool:
        """Whether there is a place for a conversation. An idle kernel may be ended for it."""
        placed = [other for other in self._conversations.values() if other.placed]
        own = [other for other in placed if other.user == of.user]
        if len(own) >= self._each:
            placed = own
        elif len(placed) + self._starting < self._most:  # a spare kernel can become this one's
            return True
        idle = [other for other in placed if other.idle and other.kernel is not None]
        if not idle:
            return False
        victim = min(idle, key=lambda other: other.used)
        of.ending = self._retire(victim, "another conversation needed its place")
        return True

    def _count(self, user: str) -> int:
        return sum(other.placed and other.user == user for other in self._conversations.values())

    def _retire(self, of: _Conversation, reason: str) -> asyncio.Task[None]:
        """End the kernel of an idle conversation. The text of its next cell says so."""
        kernel, of.kernel, of.placed = of.kernel, None, False
        assert kernel is not None
        of.noted = kernel.used

        async def retire() -> None:
            try:
                await kernel.end(reason)
                await kernel.close()
            finally:
                of.leave()

        of.ending = self._soon(retire())
        return of.ending

    # Spare and idle kernels

    def _refill(self) -> None:
        placed = sum(of.placed for of in self._conversations.values())
        have = len(self._spares) + self._starting
        if not self._closed and have < self._spare and placed + have < self._most:
            self._starting += 1
            self._soon(self._add_spare())

    async def _add_spare(self) -> None:
        assert self._home is not None
        path = self._home / f".spare-{os.getpid()}-{secrets.token_hex(8)}"
        kernel: Kernel | None = None
        try:
            kernel = await Kernel.start(path, self.limits, tier=self.tier)
            await kernel.load()
        except BaseException as error:
            if kernel is not None:
                await kernel.close()
            await asyncio.to_thread(_remove, path)
            if not isinstance(error, Exception):  # the pool is being closed
                raise
            return  # the next caller's start shows the reason
        finally:
            self._starting -= 1
        if self._closed:
            await self._drop(kernel)
        else:
            self._spares.append(kernel)
            self._grant()

    async def _drop(self, kernel: Kernel) -> None:
        await kernel.close()
        await asyncio.to_thread(_remove, kernel.folder)

    async def _tend(self) -> None:
        """End kernels that have been idle for too long."""
        while True:
            await asyncio.sleep(min(self._idle / 4, 15.0))
            now = time.monotonic()
            for of in list(self._conversations.values()):
                if of.placed and of.idle and of.kernel is not None and now - of.used > self._idle:
                    self._retire(of, f"it was idle for {self._idle:g} s")
            self._grant()
            self._refill()

    # Conversations and their folders

    async def _open_home(self) -> None:
        if self._home is not None:
            return
        try:
            if self._given is None:
                self._home = Path(tempfile.mkdtemp(prefix="chatglm-"))
                self._home.chmod(0o711)  # kernels started by root run as other users, who must enter it
            else:
                self._given.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._home = self._given.absolute()
        except OSError as error:
            where = self._given or tempfile.gettempdir()
            raise SandboxError(f"{where}: no folder for the interpreter can be made ({error.strerror})") from None
        if self._given is not None:
            for left in self._home.glob(".spare-*"):  # left by a process that was killed
                if not _lives(left.name.split("-")[1]):
                    await asyncio.to_thread(_remove, left)
        self._soon(self._tend())
        self._refill()

    async def _conversation(self, user: str, name: str) -> _Conversation:
        of = self._conversations.get((user, name))
        if of is None:
            await self._open_home()
            path = self._path(user, name)
            claim = Claim(path)
            with contextlib.suppress(BusyError):  # else another process uses the folder, and does this
                claim.take()
                try:
                    recover(path)
                finally:
                    claim.release()
            # If there is a folder already, an earlier process had a kernel for it.
            of = self._conversations.setdefault((user, name), _Conversation(user, path, path.is_dir()))
            self._forget()
            self._limit(user)
        return of

    def _limit(self, user: str) -> None:
        """Remove a user's oldest folders, if there are too many."""
        if self._kept is None:
            return
        own = [(name, of) for (owner, name), of in self._conversations.items() if owner == user]
        unused = [(name, of) for name, of in own if not of.placed and of.idle and not of.uploads]
        unused.sort(key=lambda one: one[1].used)
        for name, _ in unused[: max(0, len(own) - self._kept)]:
            self._soon(self._end(user, name, False, unused=True))

    def _path(self, user: str, name: str) -> Path:
        assert self._home is not None
        return folder_of(self._home, name, user)

    def _forget(self) -> None:
        if len(self._conversations) > _REMEMBERED:
            for key, of in list(self._conversations.items())[: _REMEMBERED // 8]:
                if not of.placed and of.idle and not of.uploads and of.path.is_dir():
                    if self._kept is None:
                        del self._conversations[key]
                    else:  # a folder that is not remembered would never be removed
                        self._soon(self._end(*key, False, unused=True))

    async def _begin_upload(self, user: str, name: str) -> tuple[_Conversation, Folder]:
        of = await self._conversation(user, name)
        async with of.moving:
            of.claim.take()
            try:
                of.path.mkdir(mode=0o700, exist_ok=True)
                folder = Folder(of.path)
            except BaseException:
                of.leave()
                raise
            of.uploads += 1
            return of, folder

    async def _end_upload(self, of: _Conversation, name: str, mark: Mark | None) -> None:
        of.uploads -= 1
        of.leave()
        if mark is None:
            return
        if of.kernel is not None:
            of.kernel.uploaded(name, mark)
        of.uploaded.pop(name, None)
        of.uploaded[name] = mark
        if len(of.uploaded) > self.limits.files:  # files may be deleted, but names stay here
            del of.uploaded[next(iter(of.uploaded))]

    async def _uploaded(self, user: str, name: str) -> dict[str, Mark]:
        of = self._conversations.get((user, name))
        return {} if of is None else dict(of.uploaded)

    async def _look(self, user: str, name: str, look: Callable[[Folder], T]) -> T | None:
        """Read the conversation's folder. None: it has none; none is made."""
        if (user, name) not in self._conversations:
            await self._open_home()
            path = self._path(user, name)
            if not path.is_dir() and not moving(path).is_dir():
                return None
        of = await self._conversation(user, name)
        async with of.moving:
            try:
                folder = Folder(of.path)
            except FileNotFoundError:
                return None
        try:
            return await asyncio.to_thread(look, folder)
        finally:
            folder.close()

    async def _state(self, user: str, name: str) -> Literal["running", "idle"] | None:
        there = await self._look(user, name, lambda _: True)
        of = self._conversations.get((user, name))
        if there is None or of is None:
            return None
        return "idle" if of.kernel is None else "running"

    async def _interrupt(self, user: str, name: str) -> None:
        of = self._conversations.get((user, name))
        if of is not None and of.kernel is not None:
            await of.kernel.interrupt()

    async def _end(self, user: str, name: str, keep: bool, *, unused: bool = False) -> None:
        """End a conversation's kernel.

        Args:
            keep: keep its folder.
            unused: remove the folder only if no other process works in it.
        """
        of = await self._conversation(user, name)
        if of.kernel is not None:
            await of.kernel.end("its conversation was ended")
        async with of.turn:
            if of.starting is not None:
                with contextlib.suppress(Exception):
                    await asyncio.shield(of.starting)
            if of.kernel is not None:
                await asyncio.shield(self._retire(of, "its conversation was ended"))
            if not keep:
                async with of.moving:
                    if unused:
                        try:
                            of.claim.take()
                        except BusyError:
                            return
                    await asyncio.to_thread(_remove, of.path)
                    of.leave()
                if self._conversations.get((user, name)) is of:
                    del self._conversations[user, name]
        self._grant()

    async def _close(self) -> None:
        self._closed = True
        for waiter in self._waiting:
            if not waiter.granted.done():
                waiter.granted.set_exception(SandboxError("the interpreter has been closed"))
        tasks = [task for task in self._tasks if not task.done()]
        for again in (True, False):  # the second time, to end kernels that were starting
            kernels = [*self._spares, *(of.kernel for of in self._conversations.values() if of.kernel is not None)]
            await asyncio.gather(*(kernel.close() for kernel in kernels), return_exceptions=True)
            for task in tasks if again else ():
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for of in self._conversations.values():
            of.claim.release()
        for kernel in self._spares:
            await asyncio.to_thread(_remove, kernel.folder)
        if self._given is None and self._home is not None:
            await asyncio.to_thread(_remove, self._home)

    def _soon(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # marks its error as read, because perhaps nobody waits for it


def folder_of(home: Path, conversation: str, user: str = "") -> Path:
    """The path of a conversation's folder in the home of `Kernels`."""
    return home / hashlib.sha256(f"{user}\0{conversation}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _remove(path: Path) -> None:
    """Remove a folder. Contents that cannot be removed stay."""
    with contextlib.suppress(OSError):
        remove(path)


def _lives(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError, OverflowError):
        return True
    return True
