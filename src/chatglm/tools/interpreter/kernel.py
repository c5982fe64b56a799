"""The host's side of a kernel: the persistent IPython of one conversation, in a sandbox.

Nothing that comes from the kernel is trusted. Its messages are limited in size, and of five kinds (`channel.py`). Text
is cut and has no escape sequences, and pictures are PNG files (`output.py`). Files are opened only in the
conversation's folder (`folder.py`). A kernel that breaks a rule or a limit is ended (`watchdog.py`); other kernels are
not affected.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import importlib.util
import os
import time
from collections.abc import AsyncIterable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from chatglm.errors import DependencyError, SandboxError
from chatglm.tools.interpreter.channel import Frame, Frames, frame
from chatglm.tools.interpreter.folder import DEPTH, Folder, Mark, Usage
from chatglm.tools.interpreter.fonts import chinese_fonts
from chatglm.tools.interpreter.limits import Cell, Limits
from chatglm.tools.interpreter.output import Output, clean
from chatglm.tools.interpreter.sandbox import Tier
from chatglm.tools.interpreter.watchdog import Watchdog

__all__ = ["IMPORTS", "RESTARTED", "Kernel"]

RESTARTED = "内核已重启，之前的变量不再存在。"
"""The text for the model when its variables are gone."""
IMPORTS = ("numpy", "pandas", "matplotlib.pyplot")
"""Modules that most cells import, and whose import takes long."""

_CODE = 1 << 20
_START_S = 30.0
_NAMES = 100
"""Most names in `Cell.files`."""
_CHUNK = 256 << 10
_COUNTED = 100_000
"""Most files and folders of a conversation's folder that are counted."""
_FULL = "Nothing more can be {} until some are removed, for example with os.remove or shutil.rmtree."
_SURPLUS = 100
"""Most messages of one cell that come before the last one was answered. An interrupted shell may send some."""
_PAUSE = 0.002
"""Seconds between two reads of output that is not kept."""


class Kernel:
    """The Python of one conversation. It belongs to the event loop in which it was started.

    Attributes:
        folder: path of the conversation's folder.
    """

    def __init__(self, folder: Path, limits: Limits, tier: Tier | None) -> None:
        """Use `start` instead."""
        self.folder = folder
        self.noted = False  # whether the next cell's text must say that variables are gone
        self._limits = limits
        self._tier = tier
        self._files = Folder(folder)
        self._marks: dict[str, Mark] = {}
        self._process: _Process | None = None
        self._turn = asyncio.Lock()
        self._cell: asyncio.Task[Cell] | None = None
        self._asked_to_stop = False
        self._closed = False

    @classmethod
    async def start(cls, folder: Path, limits: Limits = Limits(), *, tier: Tier | None = None) -> Kernel:  # noqa: B008
        """Start a kernel.

        Args:
            folder: the conversation's folder; made if it is missing. The code may change everything in it.
            tier: tier of the sandbox (see `sandbox.start`).

        Raises:
            SandboxError: this machine cannot run code safely, or the kernel does not start.
            DependencyError: IPython is not installed.
        """
        if importlib.util.find_spec("IPython") is None:
            raise DependencyError("the interpreter needs IPython: pip install 'chatglm[interpreter]'")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        kernel = cls(folder.absolute(), limits, tier)
        try:
            await kernel._begin()
        except BaseException:
            await kernel.close()
            raise
        return kernel

    @property
    def alive(self) -> bool:
        return self._process is not None and not self._process.ended

    @property
    def used(self) -> bool:
        """Whether there may be variables, which would be lost with the process."""
        return self.noted or (self._process is not None and self._process.cells > 0)

    @property
    def busy(self) -> bool:
        """Whether a cell runs or waits."""
        return self._turn.locked()

    async def run(self, code: str, on_output: Callable[[str], None] | None = None) -> Cell:
        """Run a cell. Cells run one after the other. Cancelling this call interrupts the cell, and keeps the variables.

        If the kernel was ended, it is started again, and the cell's text begins with `RESTARTED`.

        Args:
            on_output: called with each piece of text as it arrives, in this event loop. Its errors are raised here, at
                the end of the cell.

        Raises:
            SandboxError: the kernel cannot be started again, or is closed. Errors of the code are in `Cell.error`.
        """
        await self._turn.acquire()
        self._cell = asyncio.create_task(self._run(code, on_output))
        self._cell.add_done_callback(self._over)
        try:
            return await asyncio.shield(self._cell)
        except asyncio.CancelledError:
            await self.interrupt()
            raise

    async def load(self, modules: Sequence[str] = IMPORTS) -> None:
        """Import modules in advance, so that cells need not wait. Missing modules are left out."""
        async with self._turn:
            if self._process is not None:
                await self._process.ask("import", names=list(modules))

    async def interrupt(self) -> None:
        """Interrupt the running cell, like Ctrl-C. If it has not stopped after two seconds, the kernel is ended."""
        if self._process is not None and self.busy:
            self._asked_to_stop = True
            self._process.watchdog.interrupt("it was asked to stop")

    async def move(self, path: Path) -> None:
        """Let the kernel's folder replace another one: the contents of that one move into it, and it gets that path.

        Args:
            path: path of a folder that no kernel uses, on the same disk. It need not exist.

        Raises:
            OSError: the contents cannot be moved; both folders are unchanged.
        """
        async with self._turn:
            await asyncio.to_thread(self._files.replace, path)
            old, self.folder = self.folder, path
            self._marks = await asyncio.to_thread(self._files.marks, self._limits.files)
            if self._process is not None:
                await self._process.ask("folder", old=str(old), path=str(path))

    async def settled(self) -> None:
        """Wait until no cell runs or waits."""
        async with self._turn:
            pass

    async def put(self, name: str, data: AsyncIterable[bytes]) -> None:
        """Store an uploaded file in the folder; it appears when it is complete.

        Raises:
            InputError: the name cannot be used, or the file is too large.
        """
        self.uploaded(name, await self._files.put(name, data, self._limits))

    def uploaded(self, name: str, mark: Mark) -> None:
        """Note that a file was stored in the folder, so that `Cell.files` of the next cell does not name it."""
        self._marks[name] = mark

    def files(self) -> dict[str, int]:
        """The files of the folder and their sizes in bytes, at most `Limits.files`; hidden ones are left out."""
        return {name: mark.size for name, mark in self._files.marks(self._limits.files).items()}

    def open(self, name: str) -> BinaryIO:
        """Open a regular file of the folder. Links are not followed.

        Raises:
            InputError: there is no such file.
        """
        return self._files.open(name)

    async def end(self, reason: str) -> None:
        """End the process. The next cell starts another one, and its text says so."""
        if self._process is not None:
            self.noted = self.used
            await self._process.end(reason)

    async def close(self) -> None:
        """End the kernel for good. The contents of the folder stay."""
        self._closed = True
        if self._process is not None:
            await self._process.end("it was closed")
        if self._cell is not None:
            await asyncio.wait([self._cell])
        self._files.close()

    async def _begin(self, limits: Limits | None = None) -> None:
        self._process = process = _Process(self._files, limits or self._limits, self._tier)
        await process.begin()
        await asyncio.to_thread(self._files.give_all, _COUNTED)
        self._marks = await asyncio.to_thread(self._files.marks, self._limits.files)

    async def _run(self, code: str, on_output: Callable[[str], None] | None) -> Cell:
        began = time.monotonic()
        self._asked_to_stop = False
        if self._closed:
            raise SandboxError("this kernel is closed")
        output = Output(self._limits, on_output)
        if len(code) > _CODE:
            return Cell(error=f"the code is longer than {_CODE} characters, the limit of one cell")
        if self._process is not None and self._process.ended:
            self.noted = self.used
            await self._process.end("")
        before, notes = await self._look()
        limits = self._within(before)
        if self._process is not None and self._process.limits != limits:
            await self.end("what may be written or made in its folder has changed")
        if not self.alive:
            await self._begin(limits)
            before = await asyncio.to_thread(self._files.usage, _COUNTED)  # with a folder for temporary files
        if self.noted:
            self.noted = False
            output.note(RESTARTED)
        for note in notes:
            output.note(note)
        process = self._process
        assert process is not None
        if self._asked_to_stop:
            return Cell(output.close(), error="KeyboardInterrupt: it was asked to stop before it began")
        await process.run(code, output, before)
        if stopped := process.watchdog.stopped:
            output.note(f"[the cell was interrupted: {stopped}]")
        text = output.close()
        files = await asyncio.to_thread(self._changed)
        if output.failure is not None:
            raise output.failure
        seconds = time.monotonic() - began
        return Cell(text, tuple(output.pictures), files, output.error, process.ended, seconds)

    async def _look(self) -> tuple[Usage, list[str]]:
        """Size of the folder before a cell, and notes about it for the cell's text."""
        notes = []
        usage = await asyncio.to_thread(self._files.usage, _COUNTED)
        if usage.depth >= DEPTH:
            await self.end(f"folders lie {DEPTH} deep in its folder")
            moved = await asyncio.to_thread(self._files.flatten, _COUNTED)
            usage = await asyncio.to_thread(self._files.usage, _COUNTED)
            named = ", ".join(moved[:3]) + " …" * (len(moved) > 3)
            notes.append(f"[folders that lay {DEPTH} deep were moved to the top of the folder: {named}]")
        if usage.size > self._limits.folder:
            size, most = usage.size >> 20, self._limits.folder >> 20
            notes.append(f"[the folder has {size} MiB; the limit is {most} MiB. {_FULL.format('written')}]")
        if usage.number > self._limits.files:
            most = self._limits.files
            notes.append(
                f"[the folder has {usage.number} files and folders; the limit is {most}. {_FULL.format('made')}]"
            )
        return usage, notes

    def _within(self, usage: Usage) -> Limits:
        """The limits of a process. If the folder is over one of its limits, code can remove files, but not add any."""
        limits = self._limits
        deep = usage.depth >= DEPTH  # deeper contents are not counted
        if usage.size > limits.folder or deep:
            limits = replace(limits, file=0)
        if usage.number > limits.files or deep:
            limits = replace(limits, files=0)
        return limits

    def _over(self, cell: asyncio.Task[Cell]) -> None:
        self._turn.release()
        if not cell.cancelled():
            cell.exception()  # marks its error as read, because perhaps nobody waits for it

    def _changed(self) -> tuple[str, ...]:
        before, self._marks = self._marks, self._files.marks(self._limits.files)
        changed = [name for name, mark in self._marks.items() if before.get(name) != mark and clean(name) == name]
        return tuple(sorted(changed)[:_NAMES])


class _Process:
    """One process of the shell, with its messages, its output and its watchdog.

    Output and messages are read only during an exchange. Output between cells waits, and a process that writes too much
    is blocked.
    """

    def __init__(self, folder: Folder, limits: Limits, tier: Tier | None) -> None:
        self.cells = 0
        self.limits = limits
        self.watchdog = Watchdog(folder, limits, tier, self._on_end)
        self._loop = asyncio.get_running_loop()
        self._frames = Frames(limits.picture)
        self._outgoing = bytearray()
        self._number = 0  # number of the exchange
        self._inside = 0  # the shell's process id inside the sandbox
        self._until = ""
        self._output: Output | None = None
        self._parts = self._surplus = self._received = 0  # messages and bytes of the exchange
        self._over: asyncio.Future[None] | None = None
        self._gone = self._loop.create_future()

    @property
    def ended(self) -> str:
        return self.watchdog.ended or self.watchdog.ending

    async def begin(self) -> None:
        """Start the process.

        Raises:
            SandboxError: it does not start; the message has its output.
        """
        output = Output(self.limits)
        self.watchdog.start()
        try:
            confined = await asyncio.shield(asyncio.wrap_future(self.watchdog.started))
            confined.channel.setblocking(False)
            fonts = await asyncio.to_thread(chinese_fonts)
            self._post(frame("settings", fonts=fonts))
            await asyncio.wait_for(self._exchange(output, "ready"), _START_S)
        except asyncio.TimeoutError:
            await self.end(f"it was not ready after {_START_S:g} s")
        except BaseException:
            self.watchdog.end("its start was given up")
            raise
        if self.ended:
            printed = output.close().strip()[-2000:]
            raise SandboxError(
                f"the interpreter's process did not start: {self.ended}" + (f"; it printed: {printed}" * bool(printed))
            )
        self.watchdog.found(self._inside)
        self.watchdog.rest()

    async def run(self, code: str, output: Output, before: Usage) -> None:
        """Run a cell until it ends, or the process does.

        Args:
            before: size of the folder before the cell.
        """
        self.cells += 1
        self.watchdog.cell(before)
        try:
            await self.ask("run", output, code=code)
            await asyncio.to_thread(self.watchdog.check)
        finally:
            self.watchdog.rest()

    async def ask(self, kind: str, output: Output | None = None, **fields: object) -> None:
        """Send a message, and wait until the shell has carried it out, or has ended."""
        self._number += 1
        self._post(frame(kind, number=self._number, **fields))
        await self._exchange(output or Output(self.limits), "done")

    async def end(self, reason: str) -> None:
        """End the process, and wait until all its child processes are gone."""
        self.watchdog.end(reason)
        await asyncio.shield(self._gone)

    async def _exchange(self, output: Output, until: str) -> None:
        if self._gone.done():
            return
        confined = self.watchdog.started.result()
        self._output, self._until, self._over = output, until, self._loop.create_future()
        self._parts = self._surplus = self._received = 0
        self._loop.add_reader(confined.channel, self._readable)
        self._loop.add_reader(confined.printed, self._printed)
        try:
            await self._over
        except asyncio.CancelledError:  # the event loop is being closed
            self.watchdog.end("its cell was given up")
            raise
        finally:
            self._over = None
            if not self._gone.done():
                self._loop.remove_reader(confined.channel)
                self._loop.remove_reader(confined.printed)

    def _post(self, data: bytes) -> None:
        self._outgoing += data
        if len(self._outgoing) > 8 * _CODE:
            self.watchdog.end("it does not read its messages")
        self._writable()

    def _writable(self) -> None:
        channel = self.watchdog.started.result().channel
        if self._gone.done():
            return
        try:
            while self._outgoing:
                del self._outgoing[: channel.send(self._outgoing[:_CHUNK])]
            self._loop.remove_writer(channel)
        except BlockingIOError:
            self._loop.add_writer(channel, self._writable)
        except OSError:
            self._loop.remove_writer(channel)
            self.watchdog.lost()

    def _readable(self) -> None:
        channel = self.watchdog.started.result().channel
        try:
            data = channel.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(channel)
            self.watchdog.lost()
            return
        self._received += len(data)
        try:
            for message in self._frames.feed(data):
                self._heard(message)
        except SandboxError as error:
            self._loop.remove_reader(channel)
            self.watchdog.end(str(error))

    def _heard(self, message: Frame) -> None:
        """Process one message.

        Raises:
            SandboxError: the message is unknown, or not allowed now.
        """
        over, output, fields = self._over, self._output, message.fields
        kinds = ("result", "error", "picture", "done") if self._until == "done" else ("ready",)
        number, text = fields.get("pid" if message.kind == "ready" else "number"), fields.get("text")
        if over is None or over.done() or output is None or message.kind not in kinds or type(number) is not int:
            raise SandboxError(f"the kernel sent an unexpected message ({message.kind!r:.40})")
        self._read_printed()
        if message.kind == "ready":
            self._inside = number
            over.set_result(None)
        elif message.kind == "done":
            if number != self._number:
                raise SandboxError("the kernel answered a request that was not sent")
            over.set_result(None)
        else:
            if message.kind == "picture":
                output.picture(message.body, message.size)
            elif not isinstance(text, str):
                raise SandboxError("the kernel sent a message without its text")
            elif message.kind == "result":
                output.result(text)
            else:
                output.fail(text)
            self._count()
            self._bound(output)
            self._post(frame("read", number=number))

    def _count(self) -> None:
        """Count a message, because each one takes time of the host.

        Raises:
            SandboxError: there were too many messages or bytes.
        """
        self._parts += 1
        self._surplus += self._frames.waiting > 0
        if self._surplus > _SURPLUS:
            raise SandboxError("the kernel sent messages without waiting for an answer")
        if self._parts > self.limits.parts:
            raise SandboxError(f"more than {self.limits.parts} results, tracebacks and pictures in one cell")
        if self._received > self.limits.output:
            raise SandboxError(f"more than {self.limits.output >> 20} MiB of messages in one cell")

    def _printed(self) -> None:
        """Read one piece of output; other tasks of the loop can run in between."""
        printed = self.watchdog.started.result().printed
        try:
            data = os.read(printed, _CHUNK)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(printed)
        elif self._output is not None:
            self._output.printed(data)
            self._bound(self._output)
            if self._output.total > self.limits.shown:  # then read it in a few large pieces
                self._loop.remove_reader(printed)
                self._loop.call_later(_PAUSE, self._read_on, self._over)

    def _read_on(self, over: asyncio.Future[None] | None) -> None:
        """Read output again, if its exchange has not ended."""
        if over is not None and over is self._over and not over.done():
            self._loop.add_reader(self.watchdog.started.result().printed, self._printed)

    def _read_printed(self) -> None:
        """Read the output up to now. Not more, because a process may print for ever."""
        if self._output is not None and (size := _waiting(self.watchdog.started.result().printed)):
            with contextlib.suppress(OSError):
                self._output.printed(os.read(self.watchdog.started.result().printed, size))

    def _bound(self, output: Output) -> None:
        if output.total > self.limits.output:
            self.watchdog.end(f"more than {self.limits.output >> 20} MiB of output in one cell")

    def _on_end(self) -> None:
        """Called by the watchdog's thread when everything has ended."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._after_end)

    def _after_end(self) -> None:
        if self.watchdog.started.exception() is not None:
            self._gone.set_result(None)
            return
        confined = self.watchdog.started.result()
        if self._over is not None:
            self._read_printed()
        self._loop.remove_reader(confined.channel)
        self._loop.remove_writer(confined.channel)
        self._loop.remove_reader(confined.printed)
        confined.channel.close()
        os.close(confined.printed)
        self._gone.set_result(None)
        if self._over is not None and not self._over.done():
            self._over.set_result(None)


def _waiting(pipe: int) -> int:
    """Number of bytes that can be read from a pipe."""
    import fcntl
    import termios

    size = array.array("i", [0])
    try:
        fcntl.ioctl(pipe, termios.FIONREAD, size)
    except OSError:
        return 0
    return size[0]
