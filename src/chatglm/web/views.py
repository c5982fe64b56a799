"""Plain values for templates: turns, answers, calls with their results, files, lists. All HTML among them is safe."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote

from markupsafe import Markup

from chatglm.characters import Character
from chatglm.chat.messages import INTERPRETER, ToolCall
from chatglm.conversation.events import Cited, Source
from chatglm.conversation.store import Conversation, File, Found
from chatglm.conversation.tree import Tree, Turn
from chatglm.errors import InputError
from chatglm.web.render import highlighted, render
from chatglm.web.sources import cited_html, cited_of, sources_of
from chatglm.web.words import Words

__all__ = [
    "Answer",
    "Branch",
    "Call",
    "Face",
    "Listed",
    "Shown",
    "ShownFile",
    "branch_of",
    "call_html",
    "file_of",
    "found_list",
    "items_of",
    "listed",
]

_SHOWN = 64 << 10
"""Most characters of a result or of arguments that are shown."""
_HUES = 6

State = Literal["running", "permission", "observation", "done", "failed", "stopped"]


@dataclass(frozen=True)
class ShownFile:
    """
    Attributes:
        size: in bytes; None: unknown.
        picture: whether it is shown as one.
    """

    name: str
    url: str
    size: int | None = None
    picture: bool = False


@dataclass(frozen=True)
class Branch:
    """Version `at` of `of`, and the turns of the neighbour versions; None: there is none on that side."""

    at: int
    of: int
    previous: int | None = None
    next: int | None = None


@dataclass(frozen=True)
class Call:
    """
    Attributes:
        code: whether it is Python for the interpreter.
        html: arguments or code, coloured.
        output: its result, as it is shown.
    """

    id: str
    name: str
    code: bool
    html: Markup
    state: State
    output: str = ""
    pictures: tuple[ShownFile, ...] = ()
    files: tuple[ShownFile, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Shown:
    """A turn.

    Attributes:
        text: as it was written.
        html: of its Markdown.
        open: whether it is being written.
        cited: citations of an answer from documents; basis: the address of the page about them.
    """

    id: int
    role: str
    text: str = ""
    html: Markup = field(default_factory=Markup)
    open: bool = False
    branch: Branch = Branch(1, 1)
    rating: int = 0
    edited: bool = False
    finish: str | None = None
    files: tuple[ShownFile, ...] = ()
    calls: tuple[Call, ...] = ()
    sources: tuple[Source, ...] = ()
    cited: Cited | None = None
    basis: str = ""


@dataclass(frozen=True)
class Face:
    """The author of a turn.

    Attributes:
        hue: 0 to 5, of the picture with the initials.
    """

    name: str
    initials: str
    hue: int

    @classmethod
    def of(cls, name: str) -> Face:
        words = name.split()
        initials = name[:1] if not name.isascii() else "".join(word[0] for word in words[:2]).upper()
        return cls(name, initials or "?", sum(name.encode("utf-8", "replace")) % _HUES)

    @classmethod
    def of_character(cls, written: str) -> Face | None:
        """
        Args:
            written: `Settings.character`; without a readable character, None is returned.
        """
        if not written:
            return None
        try:
            return cls.of(Character.from_bytes(written.encode(), "character").name[:80] or "?")
        except InputError:
            return None


@dataclass(frozen=True)
class Answer:
    """The assistant's turns after one question.

    Attributes:
        question: the user's turn; None: a character speaks first.
        seconds: from the question to its end; tokens: of its last turn; 0: not known.
    """

    question: int | None
    turns: tuple[Shown, ...]
    face: Face
    open: bool = False
    branch: Branch = Branch(1, 1)
    rating: int = 0
    finish: str | None = None
    seconds: float = 0.0
    tokens: int = 0

    @property
    def name(self) -> str:
        return self.face.name

    @property
    def initials(self) -> str:
        return self.face.initials

    @property
    def hue(self) -> int:
        return self.face.hue


# Turns


def items_of(
    tree: Tree, path: Sequence[Turn], files: Sequence[File], base: str, face: Face, root: str, t: Words
) -> list[tuple[str, Shown | Answer]]:
    """A path, or its end, as users' turns and answers.

    Args:
        files: of the conversation.
        base: address of the conversation's files, with a slash at its end.
        face: the author of the answers.
        root: address of the page.
    """
    of: dict[int | None, list[ShownFile]] = {}
    for file in files:
        of.setdefault(file.turn, []).append(file_of(file.name, base, file.size, file.kind == "picture"))
    found: list[tuple[str, Shown | Answer]] = []
    gathered: list[Turn] = []

    def close() -> None:
        if gathered:
            found.append(("answer", _answer(tree, gathered, of, base, face, root, t)))
            gathered.clear()

    for turn in path:
        role = turn.message.role
        if role == "user":
            close()
            branch, own = branch_of(tree, turn.id), tuple(of.get(turn.id, ()))
            found.append(
                ("user", Shown(turn.id, "user", turn.message.content, branch=branch, edited=turn.edited, files=own))
            )
        elif role in ("assistant", "observation"):
            gathered.append(turn)
    close()
    return found


def branch_of(tree: Tree, turn: int) -> Branch:
    siblings = [one.id for one in tree.siblings(turn)]
    at = siblings.index(turn)
    return Branch(
        at + 1,
        len(siblings),
        siblings[at - 1] if at else None,
        siblings[at + 1] if at + 1 < len(siblings) else None,
    )


def _answer(
    tree: Tree,
    turns: Sequence[Turn],
    files: Mapping[int | None, list[ShownFile]],
    base: str,
    face: Face,
    root: str,
    t: Words,
) -> Answer:
    shown = []
    for index, turn in enumerate(turns):
        if turn.message.role != "assistant":
            continue
        results = []
        for follower in turns[index + 1 :]:
            if follower.message.role != "observation":
                break
            results.append(follower)
        shown.append(_shown(turn, results, files, base, root, t))
    first, last = turns[0], turns[-1]
    parent = first.parent
    question = parent if parent is not None and tree.turn(parent).message.role == "user" else None
    said = last if last.message.role == "assistant" else None
    return Answer(
        question,
        tuple(shown),
        face,
        last.finish is None,
        branch_of(tree, first.id),
        last.rating,
        last.finish,
        _number(said, "seconds"),
        int(_number(said, "tokens")),
    )


def _shown(
    turn: Turn,
    results: Sequence[Turn],
    files: Mapping[int | None, list[ShownFile]],
    base: str,
    root: str,
    t: Words,
) -> Shown:
    message = turn.message
    rendered = render(message.content, base)
    sources, cited = sources_of(turn.details.get("sources")), cited_of(turn.details.get("cited"))
    if cited is not None and turn.finish is not None:
        rendered = cited_html(rendered, message.content, cited, sources, root, t)
    calls = []
    for number, call in enumerate(message.tool_calls):
        result = _result_of(call, number, results)
        own = files.get(result.id, []) if result else []
        calls.append(
            Call(
                call.id,
                call.name,
                _is_code(call),
                call_html(*_written(call)),
                _state(result),
                _cut(str(result.details.get("whole") or result.message.content)) if result else "",
                tuple(file for file in own if file.picture),
                tuple(file for file in own if not file.picture),
                _number(result, "seconds"),
            )
        )
    return Shown(
        turn.id,
        "assistant",
        message.content,
        Markup(rendered),
        turn.finish is None,
        rating=turn.rating,
        edited=turn.edited,
        finish=turn.finish,
        files=tuple(files.get(turn.id, ())),
        calls=tuple(calls),
        sources=sources,
        cited=cited,
        basis=f"{base.removesuffix('files/')}basis/{turn.id}",
    )


def _state(result: Turn | None) -> State:
    if result is None or result.finish == "stopped":
        return "stopped"
    return "failed" if result.details.get("failed") else "done"


def _number(turn: Turn | None, name: str) -> float:
    """A number in the details of a turn; 0: it has none."""
    given = turn.details.get(name) if turn is not None else None
    return float(given) if isinstance(given, int | float) else 0.0


def _result_of(call: ToolCall, number: int, results: Sequence[Turn]) -> Turn | None:
    for result in results:
        if call.id and result.message.tool_call_id == call.id:
            return result
    return results[number] if number < len(results) and not results[number].message.tool_call_id else None


def _is_code(call: ToolCall) -> bool:
    return call.name == INTERPRETER and isinstance(call.arguments.get("code"), str)


def _written(call: ToolCall) -> tuple[str, bool]:
    if _is_code(call):
        return str(call.arguments["code"]), True
    return call.text if call.text is not None else json.dumps(call.arguments, ensure_ascii=False), False


def call_html(arguments: str, code: bool) -> Markup:
    """Arguments (JSON, if valid) or code in readable form: the inside of a `<code>` element."""
    if not code:
        with contextlib.suppress(ValueError, RecursionError):
            arguments = json.dumps(json.loads(arguments), ensure_ascii=False, indent=2)
    return Markup(highlighted(_cut(arguments), "python" if code else "json"))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + " …"


def file_of(name: str, base: str, size: int | None = None, picture: bool = False) -> ShownFile:
    return ShownFile(name, base + quote(name, safe=""), size, picture)


# Lists


@dataclass(frozen=True)
class Listed:
    """A conversation in a list.

    Attributes:
        when: "today", "yesterday", "week" or "older"; order: the same as a number.
        turn, snippet: what a search found: its turn, and its text in pieces, each with whether it is a hit.
    """

    id: str
    title: str
    mode: str
    when: str = "today"
    order: int = 0
    turn: int | None = None
    snippet: tuple[tuple[str, bool], ...] = field(default=())


def listed(conversations: Sequence[Conversation], now: float | None = None) -> list[Listed]:
    midnight = datetime.datetime.fromtimestamp(time.time() if now is None else now).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    limits = [(midnight - datetime.timedelta(days=days)).timestamp() for days in (0, 1, 6)]
    found = []
    for one in conversations:
        order = next((place for place, limit in enumerate(limits) if one.changed >= limit), 3)
        found.append(Listed(one.id, one.title, one.mode, ("today", "yesterday", "week", "older")[order], order))
    return found


def found_list(found: Sequence[Found]) -> list[Listed]:
    """Results of a search, at most one turn of each conversation."""
    seen: dict[str, Listed] = {}
    for one in found:
        if one.conversation not in seen:
            seen[one.conversation] = Listed(
                one.conversation,
                one.title,
                one.mode,
                turn=one.turn,
                snippet=_pieces(one.snippet),
            )
    return list(seen.values())


_MARKS = re.compile(r"\*\*|`+|(?:(?<=\s)|^)(?:#{1,6}|>) ")
"""Marks of Markdown, which are removed from snippets."""


def _pieces(snippet: Any) -> tuple[tuple[str, bool], ...]:
    pieces, place = [], 0
    for start, end in snippet.marks:
        if start > place:
            pieces.append((snippet.text[place:start], False))
        pieces.append((snippet.text[start:end], True))
        place = end
    if place < len(snippet.text):
        pieces.append((snippet.text[place:], False))
    return tuple((_MARKS.sub("", text), hit) for text, hit in pieces)
