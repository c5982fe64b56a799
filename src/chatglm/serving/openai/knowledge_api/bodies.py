"""What requests to `/v1/knowledge` may contain, and what comes back."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from chatglm.knowledge.store import File, Glance, Role, StoredPiece
from chatglm.serving.dialect import Strict
from chatglm.serving.fields import OPTIONS
from chatglm.serving.hints import MESSAGE
from chatglm.serving.openai.requests import Sampling

__all__ = [
    "Access",
    "AllKnowledge",
    "Answer",
    "Ask",
    "Change",
    "DeletedFile",
    "DeletedKnowledge",
    "Files",
    "Hits",
    "Knowledge",
    "NewBase",
    "Piece",
    "PieceChange",
    "Pieces",
    "RoleChange",
    "Search",
    "Settings",
    "Summarise",
    "SummaryAnswer",
    "Text",
    "file_shown",
    "knowledge_shown",
    "piece_shown",
]

QUESTION = 10_000
FILTER = 1000
FURTHER = 15
_Names = Annotated[list[str], Field(max_length=FILTER)]


class NewBase(Strict):
    name: str = Field(max_length=64)
    about: str | None = Field(None, max_length=1000)


class Change(Strict):
    name: str | None = Field(None, max_length=64, description="another name, which nobody's base has")
    about: str | None = Field(None, max_length=1000)
    prompt: str | None = Field(
        None, max_length=QUESTION, description="with {context} and {question}; an empty one takes it away"
    )
    strict: bool | None = Field(
        None, description="whether to say that the documents do not have it, where they do not; else the model answers"
    )


class RoleChange(Strict):
    role: Role


class PieceChange(Strict):
    text: str | None = Field(None, min_length=1, max_length=10_000, description="what it says from now on")
    disabled: bool | None = Field(
        None, description="true: no search finds it; false: it is found again, and says what the file says"
    )


class Search(Strict):
    question: str = Field(min_length=1, max_length=QUESTION)
    k: int = Field(5, ge=1, le=100)
    files: _Names | None = None
    knowledge: list[str] | None = Field(
        None, max_length=FURTHER, description="further bases, searched as one with this"
    )


class _Said(Strict):
    hints = MESSAGE

    role: Literal["system", "user", "assistant"]
    content: str


class Ask(Sampling):
    question: str = Field(min_length=1, max_length=QUESTION)
    knowledge: list[str] | None = Field(None, max_length=FURTHER, description="further bases, asked as one with this")
    history: list[_Said] | None = Field(None, max_length=1000, description="messages before the question")
    model: str | None = Field(None, description="default: the first model of `/v1/models`")
    extract: bool | None = Field(None, description="true: the best sentences of the documents, and no model is asked")
    stream: bool | None = None
    k: int = Field(5, ge=1, le=100, description="hits that are taken at most")
    files: _Names | None = None
    threshold: float | None = Field(None, ge=0, le=1, description="scores below it are no hits")
    style: str | None = Field(
        None,
        max_length=QUESTION,
        description="cited, classic, or a prompt with {context} and {question}; default: the base's own, else cited",
    )
    strict: bool | None = Field(None, description="see PATCH; default: as the base is set")
    language: Literal["zh", "en"] | None = Field(None, description="of the sentence that says that there is no answer")
    budget: int | None = Field(None, ge=1, description="tokens of passages; default: as many as there is room for")
    max_tokens: int | None = Field(None, ge=1, description=OPTIONS["max_new_tokens"].help)
    show_prompt: bool | None = Field(None, description="the answer says exactly what the model was asked")

    def how(self) -> dict[str, Any]:
        """Fields of `answering.Request` that are set."""
        given = {
            "k": self.k,
            "files": self.files,
            "threshold": self.threshold,
            "style": self.style,
            "strict": self.strict,
            "language": self.language,
            "budget": self.budget,
        }
        return {name: value for name, value in given.items() if value is not None}

    def params(self) -> dict[str, Any]:
        """The sampling options."""
        return {**self.sampling(), **({} if self.max_tokens is None else {"max_new_tokens": self.max_tokens})}


class Summarise(Sampling):
    files: _Names | None = Field(None, description="in this order; default: all that are ready")
    model: str | None = Field(None, description="default: the first model of `/v1/models`")
    stream: bool | None = None
    style: Literal["map-reduce", "refine"] | None = Field(
        None, description="refine: part after part, which takes longer and loses less of what belongs together"
    )
    focus: str | None = Field(None, max_length=500, description="what it is to be about above all")
    language: Literal["zh", "en"] | None = Field(None, description="default: the text's")
    part: int | None = Field(None, ge=48, description="tokens of a part; default: as many as the context allows")
    max_tokens: int | None = Field(None, ge=1, description="of the last summary")

    def how(self) -> dict[str, Any]:
        """Fields of `SummaryRequest` that are set."""
        given = {"style": self.style, "focus": self.focus, "language": self.language, "part": self.part}
        return {name: value for name, value in given.items() if value is not None}

    def params(self) -> dict[str, Any]:
        """The sampling options."""
        return {**self.sampling(), **({} if self.max_tokens is None else {"max_new_tokens": self.max_tokens})}


class Settings(BaseModel):
    """
    Attributes:
        prompt: "": the usual one.
    """

    prompt: str
    strict: bool
    embedder: str
    reranker: str


class Knowledge(BaseModel):
    object: Literal["knowledge"]
    name: str
    about: str
    role: Role
    files: int
    pieces: int


class OneKnowledge(Knowledge):
    settings: Settings
    trouble: str


class AllKnowledge(BaseModel):
    object: Literal["list"]
    data: list[Knowledge]


class DeletedKnowledge(BaseModel):
    name: str
    object: Literal["knowledge"]
    deleted: Literal[True]


class KnowledgeFile(BaseModel):
    name: str
    size: int
    media: str
    encoding: str | None
    state: Literal["queued", "reading", "indexing", "ready", "failed"]
    error: str
    pieces: int
    done: int
    total: int
    added: float
    warnings: list[str]


class Files(BaseModel):
    object: Literal["list"]
    data: list[KnowledgeFile]


class DeletedFile(BaseModel):
    file: str
    deleted: Literal[True]


class Text(BaseModel):
    file: str
    start: int
    end: int
    text: str


class Piece(BaseModel):
    id: int
    file: str
    n: int
    start: int
    end: int
    title: str
    page: int | None
    text: str
    edited: bool
    disabled: bool


class Pieces(BaseModel):
    object: Literal["list"]
    data: list[Piece]
    has_more: bool


class _Hit(BaseModel):
    base: str
    file: str
    piece: int
    start: int
    end: int
    score: float
    parts: dict[str, float]
    title: str
    page: int | None
    text: str
    edited: bool


class Hits(BaseModel):
    hits: list[_Hit]
    warnings: list[str]


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]


class Answer(BaseModel):
    """
    Attributes:
        question: as it was searched: a follow-up in the words that it needs alone.
        unsupported: places (start, end) of sentences that rest on no passage.
        model: None: none was asked.
    """

    answer: str
    answered: bool
    citations: list[dict[str, Any]]
    passages: list[dict[str, Any]]
    unsupported: list[tuple[int, int]]
    question: str
    warnings: list[str]
    model: str | None
    finish_reason: str
    usage: _Usage
    prompt: str | None = None


class SummaryAnswer(BaseModel):
    """
    Attributes:
        citations: `sentence` is where a paragraph stands that rests on it.
        parts: of the text, each of which was summarised.
        asked, kept: answers of the model that were made now, and that were known from before.
    """

    summary: str
    citations: list[dict[str, Any]]
    unsupported: list[tuple[int, int]]
    parts: int
    asked: int
    kept: int
    model: str
    finish_reason: str
    usage: _Usage


class _Entry(BaseModel):
    who: str
    role: Role


class Access(BaseModel):
    object: Literal["list"]
    data: list[_Entry]


def knowledge_shown(name: str, seen: Glance, who: str | None) -> dict[str, Any]:
    """`Knowledge` of a base that somebody may read."""
    shown = {"name": name, "about": seen.about, "role": seen.role(who)}
    return {"object": "knowledge", **shown, "files": seen.files, "pieces": seen.pieces}


def file_shown(file: File) -> dict[str, Any]:
    """`KnowledgeFile`."""
    fields = ("name", "size", "media", "encoding", "state", "error", "pieces", "done", "total", "added")
    return {**{name: getattr(file, name) for name in fields}, "warnings": list(file.warnings)}


def piece_shown(piece: StoredPiece) -> dict[str, Any]:
    """`Piece`."""
    return dict(vars(piece))
