"""Events of an answer for its readers: numbered, and each as JSON."""

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
    """
    Attributes:
        number: of this event in its conversation, from 1 on, ever growing while the process lives; 0: not told yet.
    """

    kind: ClassVar[str]
    number: int = field(default=0, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values. Bytes become base64."""
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
    """A new turn: a user's, or one of the assistant that grows with the events that name it.

    Attributes:
        turn, parent: ids in the store.
        place: (2, 3): it is the second of three branches.
        text: of a user's turn, and of an observation that a person gave.
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
        index: which call of the turn.
        name: comes with the first piece.
        arguments: a piece of JSON; of the interpreter, a piece of code.
    """

    kind = "calling"
    turn: int
    index: int
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, kw_only=True)
class Called(_Event):
    """A whole call.

    Attributes:
        call: its id, unique in the conversation.
        arguments: JSON text, for people; of the interpreter, the code.
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
        text: what the model reads; whole: what people read, if that is more.
        pictures: PNG files, as names in the conversation's files.
        files: names of files that it made.
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
    """A passage that the model was given.

    Attributes:
        n: its number in the answer.
        start, end: characters of the file's text.
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
    """A part of a file that a sentence of an answer rests on.

    Attributes:
        n: number of the passage.
        start, end: characters of the file's text; text: what it says there.
        sentence: where in the turn's text the sentence stands (start, end).
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
    """What the sentences of a turn that answers from documents rest on; the turn's text is whole.

    Attributes:
        answered: False: the documents do not answer the question, or the model says so.
        unsupported: sentences that rest on no passage (start, end).
        question: as the documents were searched for it.
        prompt: exactly what the model was asked as the last message; "" if none was.
        closest: where the model found no answer in the passages, their sentences that come closest to one.
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
    """The conversation has this title now."""

    kind = "title"
    title: str


@dataclass(frozen=True, kw_only=True)
class Done(_Event):
    """The answer has ended.

    Attributes:
        turn: the last one of it.
        finish: "stop", "length", "tool_calls", or "stopped" by a person.
        prompt_tokens, cached_tokens: of the last round's prompt.
        completion_tokens: that the model wrote, of all rounds.
        first_seconds, seconds: from asking to the first token, and to the end.
        writing_seconds: from each round's first token to its last, without the time of tools.
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
    """The answer has ended with an error, of this answer alone.

    Attributes:
        turn: the turn with its text so far; None: no turn was begun.
    """

    kind = "failed"
    turn: int | None
    message: str


Event = Began | Text | Calling | Called | Asked | Output | Answered | Note | Sources | Cited | Title | Done | Failed
