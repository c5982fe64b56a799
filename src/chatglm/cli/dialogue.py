"""The conversation of `chatglm chat`: it is made at the first message, kept or not, with tools and code."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatglm.cli.server_tools import KEPT
from chatglm.conversation.documents import Documents
from chatglm.conversation.session import Session, Sessions
from chatglm.conversation.settings import Settings
from chatglm.conversation.store import Conversation, Store
from chatglm.errors import InputError, SandboxError
from chatglm.home import home_folder
from chatglm.knowledge.shelf import Shelf

if TYPE_CHECKING:
    from chatglm.assistant import BaseAssistant
    from chatglm.tools.interpreter.pool import Kernels
    from chatglm.tools.toolbox import Toolbox

__all__ = ["Dialogue", "kernels_of", "open_dialogue"]

_PART = re.compile(r"[0-9a-f]{4,32}")
_LOOKED_AT = 200
"""Most conversations that are searched for the beginning of an id."""


class Dialogue:
    """
    Args:
        find: the model for a conversation's settings.
        settings: settings of a new conversation.
        rights: whether code runs unconfined.
        kept: whether the conversation is stored.
        home: of the files that code sees.
    """

    def __init__(
        self,
        store: Store,
        find: Callable[[Settings], Awaitable[BaseAssistant]],
        settings: Settings,
        *,
        rights: bool = False,
        kept: bool = True,
        home: Path,
    ) -> None:
        self.store, self.kept = store, kept
        self.user = store.users.local().id
        self.toolbox: Toolbox | None = None
        self.kernels: Kernels | None = None
        self._find, self._home = find, home
        self._boxes: list[Toolbox] = []
        self._rights = rights
        self._settings = settings
        self._shelf = Shelf()  # in the user's own home, even if nothing is kept
        self._session: Session | None = None
        self._sessions = self._make()

    def _make(self) -> Sessions:
        return Sessions(
            self._find, self.store, toolbox=self.toolbox, kernels=self.kernels, knowledge=Documents(self._shelf)
        )

    # Tools and code

    def open_tools(self, sources: Sequence[str]) -> None:
        """Open tools, besides those that are open.

        Raises:
            ToolError: a source is wrong, or a tool has the name of one that is open. None is opened then.
            DependencyError: a package is missing.
        """
        from chatglm.tools.toolbox import Toolbox

        box = Toolbox.open(sources)
        if self.toolbox is None:
            merged = box
        else:
            tools = [tool for spec in box.specs if (tool := box.tool(spec.name)) is not None]
            try:
                merged = self.toolbox.also(*tools)
            except BaseException:
                box.close()
                raise
            merged.refused = {**self.toolbox.refused, **box.refused}
        self._boxes.append(box)  # they hold connections of their tools
        self.toolbox = merged
        self._renew()

    def prepare(self, mode: str, knowledge: Sequence[str] = ()) -> None:
        """Open what a mode needs: example tools if none are open, or the interpreter.

        Args:
            knowledge: whether there are bases that a tool searches; then no example tools are needed.

        Raises:
            SandboxError, DependencyError: it is not available.
        """
        if mode == "tools" and self.toolbox is None and not knowledge:
            self.open_tools(["examples"])
        elif mode == "code":
            self.open_code()

    def open_code(self) -> None:
        """Let code run.

        Raises:
            SandboxError: this machine cannot confine it.
        """
        if self.kernels is None:
            self.kernels = kernels_of(self._rights, self._home / "interpreter")
            self._renew()

    @property
    def model(self) -> str | None:
        """The folder or id of the conversation's model, if it is on this machine; None: any model. The page has its own
        names for models, which are unknown here."""
        from chatglm.hub import cached

        named = self.settings.model
        return named if os.path.isdir(named) or ("/" in named and named in cached()) else None

    def missed(self, name: str) -> str:
        """The name of the conversation's model if it is not this one; otherwise ""."""
        from chatglm.hub import folder_name

        named = self.settings.model
        return "" if not named or name in (named, folder_name(named)) else folder_name(named)

    @property
    def rights(self) -> bool:
        """Whether code runs unconfined."""
        return self.kernels is not None and self.kernels.tier == "none"

    def _renew(self) -> None:
        """Make new sessions, which have the opened tools."""
        self._sessions = self._make()
        if self._session is not None:
            self._session = self._sessions.open(self.user, self._session.id)

    # The conversation

    @property
    def now(self) -> Session | None:
        """The conversation; None: nothing has been said yet."""
        return self._session

    @property
    def settings(self) -> Settings:
        """Settings of the conversation, or of the next one."""
        return self._settings if self._session is None else self._session.settings

    @property
    def mode(self) -> str:
        """The mode as it was set here, without reading the store for each drawn line."""
        return self._settings.mode

    async def configure(self, **changes: Any) -> None:
        """Change settings of the conversation.

        Raises:
            InputError: a setting is not possible.
        """
        settings = replace(self.settings, **changes)
        settings.check()
        if self._session is not None:
            await self._session.configure(settings)
        self._settings = settings

    async def session(self) -> Session:
        """The conversation, which is made if it is not there yet.

        Raises:
            InputError: a setting is not possible, or does not fit the model.
        """
        if self._session is None:
            self._session = await self._sessions.make(self.user, self._settings)
        return self._session

    def open(self, conversation: str) -> Session:
        """Continue a conversation.

        Raises:
            NotFoundError: there is none with this id.
        """
        self._session = self._sessions.open(self.user, conversation)
        self._settings = self._session.settings
        return self._session

    def clear(self) -> None:
        """Begin a new conversation with the same settings, but without the summary of this one."""
        self._settings = replace(self.settings, summary="", summarised=0)
        self._session = None

    def newest(self) -> Conversation | None:
        """The conversation that was changed last; None: there is none."""
        return next(iter(self.store.conversations(self.user, limit=1)), None)

    def find(self, part: str) -> Conversation:
        """A conversation by its id or the beginning of it.

        Raises:
            InputError: there is none, or several.
        """
        recent = self.store.conversations(self.user, limit=_LOOKED_AT)
        if _PART.fullmatch(part):
            if len(part) == 32:
                return self.store.conversation(self.user, part)
            found = [one for one in recent if one.id.startswith(part)]
            if len(found) > 1:
                raise InputError(f"conversation {part}: {len(found)} ids begin with it; give more of the id")
            if found:
                return found[0]
        raise InputError(f"conversation {part[:80]!r}: no such conversation")

    async def close(self) -> None:
        await self._sessions.close()
        if self.kernels is not None:
            await self.kernels.close()
        for box in self._boxes:
            box.close()
        self._shelf.close()


def kernels_of(rights: bool, home: Path) -> Kernels:
    """Where code runs.

    Args:
        rights: run code unconfined, as the person wants it.

    Raises:
        SandboxError: this machine cannot confine it; says why and what can be done.
    """
    from chatglm.tools.interpreter.pool import Kernels
    from chatglm.tools.interpreter.sandbox import protection

    if rights:
        return Kernels(home, tier="none", spare=0, kept=None)
    found = protection()
    if found.tier == "none":
        missing = "; ".join(f"{layer}: {reason}" for layer, reason in found.layers.items() if reason)
        raise SandboxError(
            f"--interpreter: the model's code cannot be confined on this machine ({missing}); `chatglm info` says what "
            "helps, and --code-runs-with-my-rights runs it unconfined"
        )
    return Kernels(home, kept=KEPT)


@contextlib.asynccontextmanager
async def open_dialogue(
    arguments: argparse.Namespace,
    find: Callable[[Settings], Awaitable[BaseAssistant]],
    settings: Callable[[Settings], Settings],
    *,
    kept: bool,
) -> AsyncGenerator[Dialogue]:
    """The dialogue that a command line asks for.

    Args:
        settings: applies the command line to settings: to the defaults, or to those of a conversation that continues.
        kept: in the home folder; else in a temporary one.

    Raises:
        InputError: there is no such conversation, or an option does not fit.
        ToolError, SandboxError, DependencyError: a source of tools is wrong, code cannot be confined.
    """
    with contextlib.ExitStack() as stack:
        home = home_folder() if kept else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chatglm-")))
        store = Store(home / "conversations.sqlite")
        stack.callback(store.close)
        dialogue = Dialogue(
            store,
            find,
            settings(Settings()),
            rights=arguments.code_runs_with_my_rights,
            kept=kept,
            home=home,
        )
        try:
            if arguments.tools:
                dialogue.open_tools(arguments.tools)
            if arguments.interpreter or arguments.code_runs_with_my_rights:
                dialogue.open_code()
            found = dialogue.find(arguments.resume) if arguments.resume else None
            if arguments.resume == "":
                found = dialogue.newest()
            if found is not None:
                before = dialogue.open(found.id).settings
                changed = settings(before)
                dialogue.prepare(changed.mode, changed.knowledge)
                if changed != before:
                    await dialogue.configure(**{one.name: getattr(changed, one.name) for one in fields(changed)})
            else:
                dialogue.prepare(dialogue.settings.mode, dialogue.settings.knowledge)
            yield dialogue
        finally:
            await dialogue.close()
