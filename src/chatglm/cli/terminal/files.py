"""Commands about conversations and files."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncGenerator
from pathlib import Path

from rich.text import Text

from chatglm.chat.files import read_file
from chatglm.cli.shown import plain
from chatglm.cli.terminal.part import Face, Part
from chatglm.cli.terminal.screen import size
from chatglm.conversation.export import json_line, markdown
from chatglm.conversation.importing import Imported, read_conversations
from chatglm.errors import InputError
from chatglm.output import replace_file

__all__ = ["Files"]

_LISTED = 20
"""Most conversations, files and search results in a list."""
_CHUNK = 1 << 16
_IMPORTED = 16 << 20
"""Most bytes of a file that is read."""


class Files(Part):
    def __init__(self, app: Face) -> None:
        super().__init__(app)
        self._listed: list[str] = []  # conversations, by the numbers that /load takes

    async def search(self, argument: str) -> None:
        if not argument:
            raise self.usage("search")
        dialogue = self.app.dialogue
        found = await asyncio.to_thread(dialogue.store.search, dialogue.user, argument, limit=_LISTED)
        if not found:
            return self.screen.note(self.words("nothing_found"))
        self._listed = list(dict.fromkeys(one.conversation for one in found))
        rows = []
        for one in found:
            line = Text(plain(one.snippet.text), no_wrap=True, overflow="ellipsis")
            for start, end in one.snippet.marks:
                line.stylize("bold reverse", start, end)
            number = str(self._listed.index(one.conversation) + 1)
            rows.append((Text(number, "cyan"), Text(plain(one.title[:20])), line))
        return self.grid(rows)

    async def load(self, argument: str) -> None:
        dialogue = self.app.dialogue
        if not argument:
            recent = await asyncio.to_thread(dialogue.store.conversations, dialogue.user, limit=_LISTED)
            if not recent:
                return self.screen.note(self.words("nothing_found"))
            self._listed = [one.id for one in recent]
            return self.grid(
                (Text(str(n), "cyan"), one.id[:8], one.mode, Text(plain(one.title), no_wrap=True, overflow="ellipsis"))
                for n, one in enumerate(recent, 1)
            )
        path = _path(argument)
        if argument.isdecimal() and 1 <= int(argument) <= len(self._listed):
            dialogue.open(self._listed[int(argument) - 1])
        elif path.is_file():
            await self._read(path)
        elif path.suffix or os.sep in argument:
            raise InputError(f"{path}: no such file")
        else:
            dialogue.open(dialogue.find(argument).id)
        await asyncio.to_thread(dialogue.prepare, dialogue.settings.mode)
        return await self.app.begin()

    async def _read(self, path: Path) -> None:
        dialogue = self.app.dialogue
        data = await asyncio.to_thread(read_file, path, _IMPORTED)
        try:
            found = await asyncio.to_thread(read_conversations, data)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        if any(one.tools for one in found):
            await asyncio.to_thread(dialogue.prepare, "tools")
        left_out: list[str] = []

        def store(one: Imported) -> str:
            settings = one.settings(dialogue.toolbox, code=True, left_out=left_out)
            return dialogue.store.make(
                dialogue.user, title=one.title, mode=settings.mode, settings=settings.to_dict(), messages=one.messages
            )

        made = [await asyncio.to_thread(store, one) for one in found]
        if not made:
            raise InputError(self.words("now", what=path, value=self.words("nothing_found")))
        self._listed = made
        self.screen.note(self.words("read", count=len(made), file=path.name))
        for reason in left_out[:_LISTED]:
            self.screen.note(plain(reason))
        dialogue.open(made[0])

    async def save(self, argument: str) -> None:
        if not argument:
            raise self.usage("save")
        tree = await self.tree()
        if Path(argument).suffix.lower() in (".md", ".markdown"):
            return await self.export(f"md {argument}")
        if not any(turn.message.role == "assistant" for turn in tree.path()):
            raise InputError(self.words("nothing_answered"))  # /load reads no such file
        return await self._write(argument, json_line(await self.begun().saved_row()))

    async def export(self, argument: str) -> None:
        form, _, name = argument.partition(" ")
        if form not in ("md", "jsonl") or not name:
            raise self.usage("export")

        tree, session, dialogue = await self.tree(), self.begun(), self.app.dialogue
        title = session.conversation.title
        if form == "md":
            files = await asyncio.to_thread(dialogue.store.files, dialogue.user, session.id)
            return await self._write(name, markdown(tree, title=title, files=files).encode("utf-8", "replace"))
        row = await session.training_row()
        if row is None:
            raise InputError(self.words("nothing_to_learn"))
        return await self._write(name, json_line(row))

    async def _write(self, name: str, data: bytes) -> None:
        path = _path(name)
        if path.exists():
            keys = [("y", self.words("yes")), ("n", self.words("no"))]
            self.screen.say(self.words("exists", file=path))
            if await self.app.line.choose(self.words("overwrite"), keys) != "y":
                return
        await asyncio.to_thread(replace_file, path, data)
        self.screen.note(self.words("written", file=path))

    async def upload(self, argument: str) -> None:
        if not argument:
            raise self.usage("upload")
        path = _path(argument.strip().strip("'\""))
        descriptor = await asyncio.to_thread(os.open, path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InputError(f"{path}: is not a regular file")

            async def chunks() -> AsyncGenerator[bytes]:
                while data := await asyncio.to_thread(stream.read, _CHUNK):
                    yield data

            session = await self.app.dialogue.session()
            file = await session.upload(path.name, chunks())
        self.screen.note(self.words("uploaded", name=plain(file.name), size=size(file.size)))

    async def files(self, argument: str) -> None:
        dialogue, session = self.app.dialogue, self.app.dialogue.now
        found = await asyncio.to_thread(dialogue.store.files, dialogue.user, session.id) if session else ()
        if not found:
            return self.screen.note(self.words("no_files"))
        if not argument:
            return self.grid(
                (Text(plain(one.name), "cyan"), self.words(f"kind_{one.kind}"), size(one.size)) for one in found
            )
        assert session is not None
        # A name may have spaces in it.
        named = [one.name for one in found if f"{argument} ".startswith(f"{one.name} ")]
        name = max(named, key=len, default=argument.partition(" ")[0])
        with await session.file(name) as file:
            return await self._write(argument.removeprefix(name).strip() or name, await asyncio.to_thread(file.read))


def _path(typed: str) -> Path:
    """The path that was typed. `~` is a home folder, unless no user has the name behind it."""
    return Path(os.path.expanduser(typed.strip()))
