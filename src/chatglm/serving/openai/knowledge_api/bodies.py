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
    name: str | None = Field(None, max_length=64, description="a new name, which no other base has")
    about: str | None = Field(None, max_length=1000)
    prompt: str | None = Field(
        None, max_length=QUESTION, description="a prompt with {context} and {question}; an empty text removes it"
    )
    strict: bool | None = Field(
        None,
        description="if the documents have no answer, true: the answer says so; false: the model answers by itself",
    )


class RoleChange(Strict):
    role: Role


class PieceChange(Strict):
    text: str | None = Field(None, min_length=1, max_length=10_000, description="the new text of the piece")
    disabled: bool | None = Field(
        None, description="true: searches do not find the piece; false: they find it again, with the text of the file"
    )


class Search(Strict):
    question: str = Field(min_length=1, max_length=QUESTION)
    k: int = Field(5, ge=1, le=100)
    files: _Names | None = None
    knowledge: list[str] | None = Field(
        None, max_length=FURTHER, description="other bases that are searched together with this one"
    )


class _Said(Strict):
    hints = MESSAGE

    role: Literal["system", "user", "assistant"]
    content: str


class Ask(Sampling):
    question: str = Field(min_length=1, max_length=QUESTION)
    knowledge: list[str] | None = Field(
        None, max_length=FURTHER, description="other bases that are asked together with this one"
    )
    history: list[_Said] | None = Field(None, max_length=1000, description="messages before the question")
    model: str | None = Field(None, description="default: the first model of `/v1/models`")
    extract: bool | None = Field(
        None, description="true: answer with the best sentences of the documents, without a model"
    )
    stream: bool | None = None
    k: int = Field(5, ge=1, le=100, description="maximum number of hits that are used")
    files: _Names | None = None
    threshold: float | None = Field(None, ge=0, le=1, description="hits with a lower score are left out")
    style: str | None = Field(
        None,
        max_length=QUESTION,
        description="cited, classic, or a prompt with {context} and {question}; default: the base's own, else cited",
    )
    strict: bool | None = Field(None, description="as in PATCH; default: the setting of the base")
    language: Literal["zh", "en"] | None = Field(
        None, description="language of the sentence that says that there is no answer"
    )
    budget: int | None = Field(None, ge=1, description="maximum tokens of passages; default: as many as fit")
    max_tokens: int | None = Field(None, ge=1, description=OPTIONS["max_new_tokens"].help)
    show_prompt: bool | None = Field(None, description="return the exact prompt with the answer")

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
    files: _Names | None = Field(None, description="files to summarise, in this order; default: all that are ready")
    model: str | None = Field(None, description="default: the first model of `/v1/models`")
    stream: bool | None = None
    style: Literal["map-reduce", "refine"] | None = Field(
        None, description="refine: one part after the other, which takes longer and keeps more of the connections"
    )
    focus: str | None = Field(None, max_length=500, description="what the summary should concentrate on")
    language: Literal["zh", "en"] | None = Field(None, description="default: the language of the text")
    part: int | None = Field(
        None, ge=48, description="maximum tokens of a part; default: as many as the context allows"
    )
    max_tokens: int | None = Field(None, ge=1, description="maximum tokens of the last summary")

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
        prompt: "": the default prompt.
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
        question: as it was searched; a follow-up question is completed from the dialogue.
        unsupported: places (start, end) of sentences that no passage supports.
        model: None: no model was asked.
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
        citations: `sentence` is the place of a paragraph that rests on it.
        parts: how many parts of the text were summarised.
        asked, kept: answers of the model that were made now, and answers from earlier runs.
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
