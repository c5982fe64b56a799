"""One conversation's Python: a persistent IPython in a sandbox, from the host's side.

Nothing that comes out of it is trusted. Its messages are bounded and of five kinds (`channel.py`); text is cut and has
no escape sequences, pictures are PNG files (`output.py`); files are opened only below the conversation's folder
(`folder.py`). A kernel that breaks a rule or a limit is ended (`watchdog.py`), and no other kernel is affected.
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
"""Modules that most cells import, and whose import takes longest."""

_CODE = 1 << 20
_START_S = 30.0
_NAMES = 100
"""Most files that one cell names."""
_CHUNK = 256 << 10
_COUNTED = 100_000
"""Most files of a folder that are counted, if there are too many."""
_FULL = "Nothing more can be {} until some are removed, for example with os.remove or shutil.rmtree."
_SURPLUS = 100
"""Messages that came before the last one was answered: an interrupted shell may send some."""
_PAUSE = 0.002
"""Seconds between two looks at output that nobody will see."""


class Kernel:
    """One conversation's Python. Belongs to the event loop that it was started in.

    Attributes:
        folder: its path.
    """

    def __init__(self, folder: Path, limits: Limits, tier: Tier | None) -> None:
        """Use `start`."""
        self.folder = folder
        self.noted = False  # whether the next cell is told that variables are gone
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
        """Start one.

        Args:
            folder: of the conversation; made if it is missing. The code may change everything in it.
            tier: of the sandbox (`sandbox.start`).

        Raises:
            SandboxError: this machine cannot confine it, or it does not start.
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
        """Whether there may be variables, which are lost with its process."""
        return self.noted or (self._process is not None and self._process.cells > 0)

    @property
    def busy(self) -> bool:
        """Whether a cell runs or waits."""
        return self._turn.locked()

    async def run(self, code: str, on_output: Callable[[str], None] | None = None) -> Cell:
        """Run a cell; cells run one after the other. Cancelling this interrupts the cell, and keeps the variables.

        A kernel that was ended is started again, and the cell's text begins with `RESTARTED`.

        Args:
            on_output: gets the text as it comes, in this event loop.

        Raises:
            SandboxError: it cannot be started again, or is closed. Never for what the code did.
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
        """Interrupt the cell that runs, as Ctrl-C does; after two seconds the kernel is ended."""
        if self._process is not None and self.busy:
            self._asked_to_stop = True
            self._process.watchdog.interrupt("it was asked to stop")

    async def move(self, path: Path) -> None:
        """Replace another folder: its contents move into this one, which then gets its path.

        Args:
            path: of a folder that no kernel uses, on the same disk; it need not exist.

        Raises:
            OSError: its contents cannot be moved; both folders stay where they are.
        """
        async with self._turn:
            await asyncio.to_thread(self._files.replace, path)
            old, self.folder = self.folder, path
            self._marks = await asyncio.to_thread(self._files.marks, self._limits.files)
            if self._process is not None:
                await self._process.ask("folder", old=str(old), path=str(path))

    async def settled(self) -> None:
        """Return when no cell runs or waits."""
        async with self._turn:
            pass

    async def put(self, name: str, data: AsyncIterable[bytes]) -> None:
        """Store an uploaded file in the folder; it appears when it is complete.

        Raises:
            InputError: the name cannot be used, or the file is too large.
        """
        self.uploaded(name, await self._files.put(name, data, self._limits))

    def uploaded(self, name: str, mark: Mark) -> None:
        """Note that a file was stored in the folder, so that it does not count as made by the next cell."""
        self._marks[name] = mark

    def files(self) -> dict[str, int]:
        """The files of the folder and their sizes in bytes, at most `Limits.files`; hidden ones are left out."""
        return {name: mark.size for name, mark in self._files.marks(self._limits.files).items()}

    def open(self, name: str) -> BinaryIO:
        """A file of the folder; regular files only, and no links on the way.

        Raises:
            InputError: there is none of this name.
        """
        return self._files.open(name)

    async def end(self, reason: str) -> None:
        """End its process; the next cell starts another one, and is told so."""
        if self._process is not None:
            self.noted = self.used
            await self._process.end(reason)

    async def close(self) -> None:
        """End it for good. The contents of the folder stay."""
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
            before = await asyncio.to_thread(self._files.usage, _COUNTED)  # it may have a folder for temporary files
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
        """Contents of the folder before a cell, and what the cell is told of them."""
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
        """The limits of a process: where the folder is over one, code can remove files, and not add to them."""
        limits = self._limits
        deep = usage.depth >= DEPTH  # what lies deeper is not counted
        if usage.size > limits.folder or deep:
            limits = replace(limits, file=0)
        if usage.number > limits.files or deep:
            limits = replace(limits, files=0)
        return limits

    def _over(self, cell: asyncio.Task[Cell]) -> None:
        self._turn.release()
        if not cell.cancelled():
            cell.exception()  # its error may have no reader

    def _changed(self) -> tuple[str, ...]:
        before, self._marks = self._marks, self._files.marks(self._limits.files)
        changed = [name for name, mark in self._marks.items() if before.get(name) != mark and clean(name) == name]
        return tuple(sorted(changed)[:_NAMES])


class _Process:
    """One process of the shell, from its start to its end: its messages, its output, its watchdog.

    Outside of an exchange nothing is read: output between cells waits, and a process that writes too much is blocked.
    """

    def __init__(self, folder: Folder, limits: Limits, tier: Tier | None) -> None:
        self.cells = 0
        self.limits = limits
        self.watchdog = Watchdog(folder, limits, tier, self._on_end)
        self._loop = asyncio.get_running_loop()
        self._frames = Frames(limits.picture)
        self._outgoing = bytearray()
        self._number = 0  # of the exchange
        self._inside = 0  # the shell's process number, as it knows it
        self._until = ""
        self._output: Output | None = None
        self._parts = self._surplus = self._received = 0  # messages, and bytes, of the exchange
        self._over: asyncio.Future[None] | None = None
        self._gone = self._loop.create_future()

    @property
    def ended(self) -> str:
        return self.watchdog.ended or self.watchdog.ending

    async def begin(self) -> None:
        """Start it.

        Raises:
            SandboxError: it does not start; the message has what it printed.
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
        """Run a cell to its end, or the process's.

        Args:
            before: contents of the folder.
        """
        self.cells += 1
        self.watchdog.cell(before)
        try:
            await self.ask("run", output, code=code)
            await asyncio.to_thread(self.watchdog.check)
        finally:
            self.watchdog.rest()

    async def ask(self, kind: str, output: Output | None = None, **fields: object) -> None:
        """Send a message; return when the shell has carried it out, or is gone."""
        self._number += 1
        self._post(frame(kind, number=self._number, **fields))
        await self._exchange(output or Output(self.limits), "done")

    async def end(self, reason: str) -> None:
        """End it; return when nothing of it is left."""
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
        except asyncio.CancelledError:  # the event loop closes
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
        """Take one message.

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
        """Count a message: reading it costs the host time, whatever it says.

        Raises:
            SandboxError: there were too many.
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
            if self._output.total > self.limits.shown:  # read it in few, large pieces
                self._loop.remove_reader(printed)
                self._loop.call_later(_PAUSE, self._read_on, self._over)

    def _read_on(self, over: asyncio.Future[None] | None) -> None:
        """Read output again, if its exchange goes on."""
        if over is not None and over is self._over and not over.done():
            self._loop.add_reader(self.watchdog.started.result().printed, self._printed)

    def _read_printed(self) -> None:
        """Read the output up to now, and no more: a process may go on printing for ever."""
        if self._output is not None and (size := _waiting(self.watchdog.started.result().printed)):
            with contextlib.suppress(OSError):
                self._output.printed(os.read(self.watchdog.started.result().printed, size))

    def _bound(self, output: Output) -> None:
        if output.total > self.limits.output:
            self.watchdog.end(f"more than {self.limits.output >> 20} MiB of output in one cell")

    def _on_end(self) -> None:
        """Called by the watchdog's thread."""
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
    """Bytes that wait in a pipe."""
    import fcntl
    import termios

    size = array.array("i", [0])
    try:
        fcntl.ioctl(pipe, termios.FIONREAD, size)
    except OSError:
        return 0
    return size[0]
