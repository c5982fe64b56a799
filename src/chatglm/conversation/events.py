"""Events of an answer for its readers. They are numbered, and can be written as JSON."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

__all__ = [
    "Answered",
    "Asked",
    "Began",
    "Called",
    "Calling",
    "Cited",
    "Done",
    "Event",
    "Failed",
    "Note",
    "Output",
    "Quote",
    "Source",
    "Sources",
    "Text",
    "Title",
]


@dataclass(frozen=True, kw_only=True)
class _Event:
    """Base of all events.

    Attributes:
        number: of this event in its conversation, from 1; it grows as long as the process lives. 0: not sent yet.
    """

    kind: ClassVar[str]
    number: int = field(default=0, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The event as JSON values. Bytes are written as base64."""
        found: dict[str, Any] = {"event": self.kind}
        for each in fields(self):
            found[each.name] = _plain(getattr(self, each.name))
        return found


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, _Event):
        return value.to_dict()
    return value


@dataclass(frozen=True, kw_only=True)
class Began(_Event):
    """A new turn: of the user, or one of the assistant, which grows by the following events with its id.

    Attributes:
        turn, parent: ids in the store.
        place: place among its siblings: (2, 3) is the second of three branches.
        text: of a user's turn, or of an observation that a person gave.
    """

    kind = "began"
    turn: int
    parent: int | None
    role: Literal["user", "assistant", "observation"]
    place: tuple[int, int] = (1, 1)
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Text(_Event):
    """More text of an assistant's turn."""

    kind = "text"
    turn: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Calling(_Event):
    """More of a call that the model is writing.

    Attributes:
        index: number of the call in the turn.
        name: comes with the first piece.
        arguments: a piece of JSON; for the interpreter, a piece of code.
    """

    kind = "calling"
    turn: int
    index: int
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, kw_only=True)
class Called(_Event):
    """A complete call.

    Attributes:
        call: its id, unique in the conversation.
        arguments: JSON text, for people; for the interpreter, the code.
        code: whether it is Python for the interpreter.
    """

    kind = "called"
    turn: int
    call: str
    name: str
    arguments: str
    code: bool = False


@dataclass(frozen=True, kw_only=True)
class Asked(_Event):
    """A person must answer: whether a call may run (`Session.permit`), or what it returned (`observe`)."""

    kind = "asked"
    call: str
    wants: Literal["permission", "observation"]


@dataclass(frozen=True, kw_only=True)
class Output(_Event):
    """Output of a running cell."""

    kind = "output"
    call: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Answered(_Event):
    """The result of a call.

    Attributes:
        turn: of the observation.
        text: the text for the model.
        whole: the text for people, if it is longer.
        pictures: PNG files, by their names among the conversation's files.
        files: names of files that the call made.
    """

    kind = "answered"
    turn: int
    call: str
    text: str
    whole: str = ""
    pictures: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    failed: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Note(_Event):
    """Something that a person should know, such as turns that were left out of the context.

    Attributes:
        code: what it is about, for programs and translations: "left_out", "summary", "restarted", ...
        text: in English.
    """

    kind = "note"
    code: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Source(_Event):
    """A passage that the model got.

    Attributes:
        n: its number in the answer.
        start, end: its place in the file's text, in characters.
    """

    kind = "source"
    n: int
    base: str
    file: str
    start: int
    end: int
    title: str
    text: str
    page: int | None = None


@dataclass(frozen=True, kw_only=True)
class Sources(_Event):
    """The passages of a turn that answers from documents."""

    kind = "sources"
    turn: int
    sources: tuple[Source, ...]


@dataclass(frozen=True, kw_only=True)
class Quote(_Event):
    """The part of a file that supports a sentence of an answer.

    Attributes:
        n: number of the passage.
        start, end: its place in the file's text, in characters.
        text: the text at that place.
        sentence: place of the sentence in the turn's text (start, end).
    """

    kind = "quote"
    n: int
    base: str
    file: str
    start: int
    end: int
    text: str
    page: int | None = None
    sentence: tuple[int, int] = (0, 0)


@dataclass(frozen=True, kw_only=True)
class Cited(_Event):
    """The sources of the sentences of a turn that answers from documents; sent when the turn's text is complete.

    Attributes:
        answered: False: the documents do not answer the question, or the model says so.
        unsupported: places of sentences that no passage supports (start, end).
        question: the question with which the documents were searched.
        prompt: the exact last message that the model got; "" if no model was asked.
        closest: if the model found no answer in the passages, the sentences in them that come closest to one.
    """

    kind = "cited"
    turn: int = 0
    answered: bool
    quotes: tuple[Quote, ...] = ()
    unsupported: tuple[tuple[int, int], ...] = ()
    question: str = ""
    prompt: str = ""
    closest: tuple[Quote, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Title(_Event):
    """The conversation has got this title."""

    kind = "title"
    title: str


@dataclass(frozen=True, kw_only=True)
class Done(_Event):
    """The answer has ended.

    Attributes:
        turn: its last turn.
        finish: "stop", "length", "tool_calls", or "stopped" by a person.
        prompt_tokens, cached_tokens: of the last round's prompt.
        completion_tokens: number of tokens that the model wrote in all rounds.
        first_seconds, seconds: time from the question to the first token, and to the end.
        writing_seconds: sum over the rounds of the time from first to last token, without the time of tools.
    """

    kind = "done"
    turn: int
    finish: str
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    first_seconds: float = 0.0
    seconds: float = 0.0
    writing_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Failed(_Event):
    """The answer has ended with an error, which affects only this answer.

    Attributes:
        turn: the turn with its text so far; None: no turn was begun.
    """

    kind = "failed"
    turn: int | None
    message: str


Event = Began | Text | Calling | Called | Asked | Output | Answered | Note | Sources | Cited | Title | Done | Failed
