"""The interface of conversations for programs that show them: questions, answers as events, branches, settings.

Terminal and page are thin layers over it. Neither has its own loop of tools, modes or store.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar
from weakref import WeakValueDictionary

from chatglm.chat.messages import Message
from chatglm.conversation.answering import Answering, Knowledge, Models, Parts
from chatglm.conversation.events import Began, Done, Event, Text, Title
from chatglm.conversation.export import saved_row, training_row
from chatglm.conversation.files import Digest, Files, folder_beside
from chatglm.conversation.log import EventLog
from chatglm.conversation.prompts import character_of, first_turn
from chatglm.conversation.settings import Settings
from chatglm.conversation.store import BEGINNING, Conversation, File, Question, Store
from chatglm.conversation.tree import Tree, Turn
from chatglm.errors import BusyError, InputError, NotFoundError
from chatglm.tools.interpreter.pool import Kernels
from chatglm.tools.toolbox import Toolbox

__all__ = ["Knowledge", "Session", "Sessions"]

T = TypeVar("T")

_OPEN = 1024
"""Most idle conversations that are kept in memory."""
_TITLE = 40
"""Most characters of a title that is made from a question."""
_SENTENCE = "。！？.!?"
_PART = re.compile(r"[。！？；，、：]|[.!?;,:](?=\s)")
_JOINED = "\u200d\ufe0e\ufe0f"
"""Characters that join others into one sign: the zero-width joiner, and variation selectors."""
_CLOSING = 5.0
"""Seconds that answers get to end when everything is closed."""


class Sessions:
    """All conversations of a process.

    Args:
        models: models by name, of which the first is the default; or an object that finds the model for a
            conversation's settings.
        store: the caller closes it, as well as toolbox and kernels.
        toolbox: for the mode `tools`.
        kernels: for the mode `code`.
        folder: for pictures of conversations, and for uploads if there are no kernels; None: `conversations` beside the
            store's file.
        knowledge: for the mode `documents`, and for searches in the mode `tools`.
    """

    def __init__(
        self,
        models: Models,
        store: Store,
        *,
        toolbox: Toolbox | None = None,
        kernels: Kernels | None = None,
        folder: Path | None = None,
        knowledge: Knowledge | None = None,
    ) -> None:
        self.store = store
        self._no_tools = Toolbox()
        files = Files(folder or folder_beside(store.file), kernels)
        tools = self._no_tools if toolbox is None else toolbox
        self._parts = Parts(models, store, tools, kernels, files, knowledge)
        self._sessions: WeakValueDictionary[tuple[int, str], Session] = WeakValueDictionary()
        self._recent: OrderedDict[tuple[int, str], Session] = OrderedDict()  # these stay in memory, whoever uses them
        self._lock = threading.RLock()
        self._last = 0  # number of the newest event of conversations that were dropped from memory

    def open(self, user: int, conversation: str) -> Session:
        """Open a conversation. It is the same object as long as anybody uses it. This reads the store, so call it in a
        thread.

        Turns that a dead process left open are closed as "stopped". If a character has a greeting, that is the first
        turn.

        Raises:
            NotFoundError: the user has no such conversation.
        """
        key = user, conversation
        try:
            found = self.store.conversation(user, conversation)
        except InputError:
            self._drop(key)
            raise
        with self._lock:
            session = self._sessions.get(key)
            if session is None:
                self.store.recover(user, conversation)
                session = self._sessions[key] = Session(self._parts, user, conversation, self._last, self._use)
                if found.leaf is None and found.mode == "character":
                    with contextlib.suppress(InputError):  # the character is checked when it must answer
                        session._greet(session.settings)
            self._use(session)
        return session

    def _use(self, session: Session) -> None:
        """Keep a conversation in memory. If there are too many, drop others, but none with a running answer."""
        with self._lock:
            key = session.user, session.id
            if self._sessions.get(key) is not session:
                return  # it has been deleted
            self._recent[key] = session
            self._recent.move_to_end(key)
            if len(self._recent) <= _OPEN:
                return
            for old, idle in list(self._recent.items())[: _OPEN // 8]:
                if not idle.running:
                    self._last = max(self._last, idle.last)
                    del self._recent[old]

    def _drop(self, key: tuple[int, str]) -> Session | None:
        """Drop a deleted conversation from memory; returns it if it was there."""
        with self._lock:
            self._recent.pop(key, None)
            session = self._sessions.pop(key, None)
            self._last = max(self._last, session.last if session is not None else 0)
            return session

    async def make(self, user: int, settings: Settings | None = None, *, title: str = "") -> Session:
        """Make a conversation. With a character and without a title, it is named after the character.

        Raises:
            NotFoundError: there is no such user.
            InputError: a setting is not possible; the message names the field.
            QueueFullError: the user has too many conversations.
        """
        settings = settings or Settings()
        await self._parts.checked(settings)

        def made() -> Session:
            character = character_of(settings)
            named = title or (character.name if character is not None else "")
            name = self.store.make(user, title=named, mode=settings.mode, settings=settings.to_dict())
            return self.open(user, name)

        return await asyncio.to_thread(made)

    async def delete(self, user: int, conversation: str) -> None:
        """Delete a conversation with its files and its kernel. A running answer is stopped.

        Raises:
            NotFoundError: the user has no such conversation.
        """

        await asyncio.to_thread(self.store.delete, user, conversation)
        await self._clear(user, conversation)

    async def delete_user(self, user: int) -> None:
        """Delete a user with all conversations, files and kernels. Running answers are stopped.

        Raises:
            NotFoundError: there is no such user.
        """
        for conversation in await asyncio.to_thread(self.store.delete_user, user):
            await self._clear(user, conversation)

    async def _clear(self, user: int, conversation: str) -> None:
        """Stop the answer of a deleted conversation, and remove its files."""
        if (session := self._drop((user, conversation))) is not None:
            await session.stop()
        await self._parts.files.remove(user, conversation)

    async def close(self) -> None:
        """Stop all answers; their text so far is kept."""
        with self._lock:
            running = [session for session in self._recent.values() if session.running]
        if running:
            stops = [asyncio.ensure_future(session.stop()) for session in running]
            await asyncio.wait(stops, timeout=_CLOSING)
        self._no_tools.close()


class Session:
    """One conversation of a user. `Sessions.open` makes it.

    Attributes:
        attached: uploads that came with the last question.
    """

    def __init__(self, parts: Parts, user: int, conversation: str, last: int, use: Callable[[Session], None]) -> None:
        self.user, self.id, self._use = user, conversation, use
        self._parts, self._store = parts, parts.store
        self._log = EventLog(last)
        self._log.ended = True
        self._answer: Answering | None = None
        self._task: asyncio.Task[None] | None = None
        self._reserved = False
        self._granted: set[str] = set()
        self.attached: tuple[File, ...] = ()

    @property
    def conversation(self) -> Conversation:
        """The conversation as it is stored now.

        Raises:
            NotFoundError: it has been deleted.
        """
        return self._store.conversation(self.user, self.id)

    @property
    def settings(self) -> Settings:
        """The settings as they are stored now."""
        found = self.conversation
        return Settings.from_dict(found.settings, found.mode)

    @property
    def running(self) -> bool:
        """Whether an answer is being made."""
        return self._reserved or (self._task is not None and not self._task.done())

    @property
    def last(self) -> int:
        """Number of the newest event; 0: there was none yet."""
        return self._log.last

    async def tree(self) -> Tree:
        """All turns."""
        return await self._stored(self._store.tree)

    async def send(self, text: str, files: Sequence[str] = ()) -> int:
        """Ask a question. The answer is made in the background, see `events`.

        Args:
            files: names of uploads that belong to the question. Uploads that belong to no question yet are added.

        Returns:
            The number of the last event before the answer.

        Raises:
            BusyError: an answer is being made.
            InputError: the text is empty or too long, or there is no such file.
            QueueFullError: the user has too much stored.
        """
        if not text.strip():
            raise InputError("text: is empty; say something")
        message, title = Message("user", text), _title_of(text)
        return await self._begin(lambda: self._store.ask(self.user, self.id, message, files=files, title=title))

    async def again(self, turn: int, text: str | None = None) -> int:
        """Make another answer to the question that a turn answers. For a character's greeting: add the next greeting.

        Args:
            text: ask the question in these words, as a sibling of the old one; or use this text as the greeting.

        Returns:
            The number of the last event before the answer.

        Raises:
            BusyError: an answer is being made.
            InputError: there is no such turn, no question before it, or the text is empty or too long.
            QueueFullError: the user has too much stored.
        """

        if text is not None and not text.strip():
            raise InputError("text: is empty; say something")
        tree = await self.tree()
        old = tree.turn(turn)
        if old.parent is None and old.message.role == "assistant":
            return await self._greet_again(old, text)
        asked = tree.question(turn)
        return await self._begin(
            lambda: self._store.ask_again(self.user, self.id, asked.id, text), told=text is not None
        )

    async def events(self, after: int = 0) -> AsyncGenerator[Event]:
        """Yield the events of the running answer, or of the last one; ends after `Done` or `Failed`.

        Any number of readers may come, leave, and come back with the number of the last event that they had. If a
        reader gets a `Began` of a turn that it has already, the turn is sent again from its beginning. This happens if
        the reader was away, or slow, for thousands of events.

        Args:
            after: only events with a higher number.
        """
        async with aclosing(self._log.read(after)) as told:
            async for events in told:
                for event in events:
                    yield event

    def has_news(self, after: int) -> bool:
        """Whether there are, or will be, events after this number. They are deleted ten minutes after an answer."""
        return self.running or not (self._log.empty or after >= self.last)

    def news(self, after: int = 0) -> AsyncGenerator[tuple[Event, ...]]:
        """The same as `events`, but each step yields all events that are there."""
        return self._log.read(after)

    async def stop(self) -> None:
        """Stop the answer with its tools and cells. The text so far is kept as "stopped"."""
        if self._answer is not None and self._task is not None:
            self._answer.stop()
            await asyncio.wait({self._task})

    async def permit(self, call: str, yes: bool, always: bool = False) -> None:
        """Say whether a call may run, see `Asked`.

        Args:
            always: in this conversation, the tool need not ask again as long as this program runs.

        Raises:
            InputError: this call waits for no permission.
        """
        self._asking(call).permit(call, yes, always)

    async def observe(self, call: str, text: str) -> None:
        """Say what a call returned, see `Asked`.

        Raises:
            InputError: this call waits for no observation, or the text is too long.
        """
        self._asking(call).observe(call, text)

    async def choose(self, turn: int) -> None:
        """Go to a branch, at its newest end.

        Args:
            turn: of the branch; 0: the beginning of the conversation, where another first question can be asked.

        Raises:
            BusyError: an answer is being made.
            InputError: there is no such turn.
        """
        self._check_idle()
        place = BEGINNING if turn == BEGINNING else (await self.tree()).tip(turn)
        await self._stored(self._store.choose, place)

    async def rate(self, turn: int, rating: Literal[-1, 0, 1]) -> None:
        """Rate an assistant's turn: 1 for good, -1 for bad, 0 for no rating.

        Raises:
            InputError: there is no such turn, or it is not an assistant's.
        """
        await self._stored(self._store.rate, turn, rating)

    async def undo(self) -> str:
        """Go back to before the last question. Nothing is lost: the question and its answer stay as a branch.

        Returns:
            The text of the question.

        Raises:
            BusyError: an answer is being made.
            InputError: there is no question.
        """
        self._check_idle()
        tree = await self.tree()
        if tree.leaf is None:
            raise InputError("undo: the conversation is at its beginning")
        question = tree.question(tree.leaf)
        await self._stored(self._store.choose, question.parent or BEGINNING)
        return question.message.content

    async def configure(self, settings: Settings) -> None:
        """Replace the settings, from the next answer on.

        Raises:
            InputError: a setting is not possible; the message names the field.
            QueueFullError: the user has too much stored.
        """
        await self._parts.checked(settings, await asyncio.to_thread(lambda: self.settings))

        def configured() -> None:
            self._store.configure(self.user, self.id, settings.to_dict(), settings.mode)
            self._greet(settings)

        await asyncio.to_thread(configured)

    def _greet(self, settings: Settings) -> None:
        """Add the character's greeting, if nobody has asked anything yet."""
        tree = self._store.tree(self.user, self.id)
        greeting = first_turn(settings)
        if greeting is None or any(turn.message.role == "user" for turn in tree.turns.values()):
            return
        if greeting not in [turn.message for turn in tree.children(None)]:
            self._store.add(self.user, self.id, greeting, parent=BEGINNING)

    async def files(self) -> tuple[File, ...]:
        """The files of the conversation: uploads, pictures, and what code has made."""
        return await self._stored(self._store.files)

    async def file(self, name: str) -> BinaryIO:
        """Open one of the files for reading. The caller closes it.

        Raises:
            NotFoundError: there is no file of this name.
            InputError: its content cannot be opened.
        """
        found = next((file for file in await self.files() if file.name == name), None)
        if found is None:
            raise NotFoundError(f"file {name!r:.80}: no such file in this conversation")
        return await self._parts.files.open(self.user, self.id, name, kept=found.kind == "picture")

    async def training_row(
        self,
        *,
        form: Literal["chatglm3", "messages"] = "messages",
        only_rated_up: bool = False,
        without_names: bool = False,
    ) -> dict[str, Any] | None:
        """The chosen path, with everything that its model was told, as a row for `chatglm finetune`; None if there is
        nothing to learn in it. See `export.training_row`.

        Raises:
            InputError: the tools or the character in the settings cannot be read.
        """

        def made() -> dict[str, Any] | None:
            settings, told = self._told()
            return training_row(
                self._store.tree(self.user, self.id),
                form=form,
                files=self._store.files(self.user, self.id) if settings.mode == "code" else (),
                only_rated_up=only_rated_up,
                without_names=without_names,
                **told,
            )

        return await asyncio.to_thread(made)

    async def saved_row(self) -> dict[str, Any]:
        """The chosen path with all its turns, as a row that is read to go on with it elsewhere. See `export.saved_row`.

        Raises:
            InputError: the tools or the character in the settings cannot be read.
        """
        return await asyncio.to_thread(lambda: saved_row(self._store.tree(self.user, self.id), **self._told()[1]))

    def _told(self) -> tuple[Settings, dict[str, Any]]:
        """The settings, and what a row says beside the turns."""
        found = self.conversation
        settings = Settings.from_dict(found.settings, found.mode)
        character = character_of(settings)
        return settings, {
            "system": settings.system,
            "tools": self._parts.tools(settings),
            "persona": None if character is None else character.persona(),
            "title": found.title,
        }

    async def upload(self, name: str, data: AsyncIterable[bytes]) -> File:
        """Store a file, in the interpreter's folder if there is one. It will belong to the next question.

        Args:
            data: its content, in pieces.

        Raises:
            InputError: the name cannot be used, or the file is too large.
            QueueFullError: the conversation has too many files, or the user has too much stored.
            OutputError: the disk is full.
        """
        await asyncio.to_thread(lambda: self.conversation)  # raises if the conversation has been deleted
        added: list[File] = []

        def accept(digest: Digest) -> None:
            """Before the file replaces an older one, which must stay if there is no room for the new one."""
            added.append(self._store.add_file(self.user, self.id, name, "upload", *digest))

        await self._parts.files.upload(self.user, self.id, name, data, accept)
        return added[0]

    # Answers

    async def _begin(self, ask: Callable[[], Question], told: bool = True) -> int:
        """Begin an answer; returns the number of the last event before it.

        Args:
            ask: stores the question; it runs in a thread.
            told: whether the question is new, so that readers get an event of it.
        """
        self._check_idle()
        self._reserved = True
        self._use(self)
        asking = asyncio.ensure_future(asyncio.to_thread(ask))
        try:
            question = await asyncio.shield(asking)
            found, before = question.conversation, self.last
            settings = Settings.from_dict(found.settings, found.mode)
            log = EventLog(before)
            answer = Answering(self._parts, self.user, settings, question, log, self._granted)
            if told:
                log.add(_began(question.tree, question.turn))
            if question.title:
                log.add(Title(title=question.title))
            self.attached = tuple(file for file in question.files if file.turn == question.turn.id)
            self._log, self._answer = log, answer
            self._task = asyncio.ensure_future(answer.run())
            self._task.add_done_callback(self._forget)
        except BaseException:
            await asyncio.shield(self._give_up(asking))
            raise
        finally:
            self._reserved = False
        return before

    def _forget(self, task: asyncio.Task[None]) -> None:
        """After the end of an answer, drop the turns of the conversation from memory."""
        if self._task is task:
            self._answer = None

    async def _give_up(self, asking: asyncio.Future[Question]) -> None:
        """Give up a question: if it was stored, it gets no answer."""
        await asyncio.wait({asking})
        if not asking.cancelled() and asking.exception() is None:
            await self._stored(self._store.end)

    async def _greet_again(self, old: Turn, text: str | None) -> int:
        """Add a greeting beside another one, with the same events as an answer."""
        self._check_idle()
        self._reserved = True
        self._use(self)
        try:

            def greeted() -> Turn:
                if text is not None:
                    return self._store.edit(self.user, self.id, old.id, text)
                siblings = self._store.tree(self.user, self.id).siblings(old.id)
                greeting = first_turn(self.settings, len(siblings))
                known = [turn for turn in siblings if turn.message == greeting]
                if greeting is not None and not known:
                    return self._store.add(self.user, self.id, greeting, parent=BEGINNING)
                following = siblings[[turn.id for turn in siblings].index(old.id) + 1 - len(siblings)]
                self._store.choose(self.user, self.id, following.id)
                return following

            turn = await asyncio.to_thread(greeted)
            before = self.last
            self._log = log = EventLog(before)
            log.add(replace(_began(await self.tree(), turn), text=""))
            log.add(Text(turn=turn.id, text=turn.message.content))
            log.add(Done(turn=turn.id, finish=turn.finish or "stop"))
        finally:
            self._reserved = False
        return before

    def _check_idle(self) -> None:
        if self.running:
            raise BusyError("this conversation is being answered; wait for the end, or stop it")

    def _asking(self, call: str) -> Answering:
        if self._answer is None or not self.running:
            raise InputError(f"call {call!r:.80}: no answer is waiting for it")
        return self._answer

    async def _stored(self, method: Callable[..., T], *arguments: Any) -> T:
        """Call a method of the store about this conversation, in a thread."""
        return await asyncio.to_thread(method, self.user, self.id, *arguments)


def _began(tree: Tree, turn: Turn) -> Began:
    role: Any = turn.message.role
    place = tree.place(turn.id)
    return Began(turn=turn.id, parent=turn.parent, role=role, place=place, text=turn.message.content)


_CHINESE = re.compile(r"[\u2e80-\u9fff\uf900-\uffef\U00020000-\U0003ffff]")
"""Characters of Chinese and Japanese, which are written without spaces between words."""


def _title_of(text: str) -> str:
    """A title from the beginning of a question. If it must be cut, it ends after a part of a sentence, else between two
    words. Chinese does not mark words, so it is cut between two characters.
    """
    text = " ".join(text[: 8 * _TITLE].split())
    if len(text) <= _TITLE:
        return text
    ends = [found.end() for found in _PART.finditer(text, _TITLE // 2, _TITLE)]
    if ends and text[ends[-1] - 1] in _SENTENCE:
        return text[: ends[-1]]
    end = ends[-1] - 1 if ends else _TITLE - 1
    while not ends and end and not _between_words(text, end):
        end -= 1
    return f"{text[: end or _TITLE - 1].rstrip()}…"


def _between_words(text: str, place: int) -> bool:
    before, after = text[place - 1], text[place]
    if unicodedata.combining(after) or after in _JOINED or before == _JOINED[0]:
        return False
    return not (_in_word(before) and _in_word(after))


def _in_word(character: str) -> bool:
    """Whether a character belongs to a word of letters. Characters of Chinese and Japanese do not."""
    return (
        (character.isalnum() or character in "'’-_.") and not "\u2e80" <= character <= "\u9fff" and character < "\uf900"
    )
