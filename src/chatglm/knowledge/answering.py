"""Answers from documents, as a stream of events: the passages, the text with its citations, and the end.

    question (a follow-up is rewritten) -> search -> is there an answer? -> passages within the budget -> model

One generator (`_steps`) makes all decisions. It yields slow work instead of doing it: `Bases.ask` does this work in the
caller's thread, `Bases.aask` in worker threads.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Protocol

from chatglm.assistant.base import BaseAssistant, Delta, Finish, Options, TextDelta, Usage, params_of
from chatglm.chat.messages import Message
from chatglm.errors import InputError, UnsupportedError
from chatglm.knowledge.citations import Citation, Citer, Sentence, Sources, sentences
from chatglm.knowledge.grams import grams, is_word, question_grams
from chatglm.knowledge.packing import Passage
from chatglm.knowledge.searching import Answerable, Hit, Hits

__all__ = [
    "CITED",
    "CITED_EN",
    "CLASSIC",
    "NOT_FOUND",
    "CitationEvent",
    "Documents",
    "Done",
    "Event",
    "Passages",
    "Request",
    "aask",
    "ask",
    "check_prompt",
    "filled",
]

CLASSIC = (
    "已知信息：\n{context} \n\n根据上述已知信息，简洁和专业的来回答用户的问题。"
    "如果无法从中得到答案，请说 “根据已知信息无法回答该问题” 或 “没有提供足够的相关信息”，"
    "不允许在答案中添加编造成分，答案请使用中文。 问题是：{question}"
)
"""The prompt of langchain-ChatGLM 0.1 (`PROMPT_TEMPLATE`), character for character."""
CITED = (
    "已知信息：\n{context}\n\n根据上述已知信息，简洁和专业的来回答用户的问题，并在每句话末尾用方括号写出它所依据的段落编号，例如[1]或[2][3]。"
    "如果无法从中得到答案，请说“根据已知信息无法回答该问题”，不允许在答案中添加编造成分，答案请使用中文。问题是：{question}"
)
CITED_EN = (
    "Known information:\n{context}\n\nFrom this information alone, answer the user's question briefly and precisely, "
    "and behind each sentence write in square brackets the number of the passage that it rests on, such as [1] or "
    '[2][3]. If the answer is not there, say "The documents do not answer this question" and add nothing of your own. '
    "The question is: {question}"
)
NOT_FOUND: Mapping[str, str] = {
    "zh": "根据已知信息无法回答该问题。",
    "en": "The documents do not answer this question.",
}
"""The answer if the documents do not answer the question, by language."""
NOT_FROM_DOCUMENTS: Mapping[str, str] = {
    "zh": "（文档中没有答案，以下是模型自己的回答。）\n",
    "en": "(The documents do not answer this; what follows is the model's own.)\n",
}
_REFUSALS = ("根据已知信息无法回答", "没有提供足够的相关信息", "The documents do not answer this question")
_REWRITE = {
    "zh": "把最后的问题改写成不依赖上文的一句话，只写出这个问题。\n\n上文：\n{context}\n\n最后的问题：{question}",
    "en": "Write the last question so that it can be understood without the dialogue before it, and nothing else.\n\n"
    "Dialogue:\n{context}\n\nLast question: {question}",
}

_QUESTION = 10_000
_SHORT = 12
"""A question with fewer characters is taken to be a follow-up."""
_POINTS_BACK = re.compile(r"[它他她那这其]|上面|上述|前面|刚才|\b(?:it|they|them|that|this|those|these|he|she)\b", re.I)
_REWRITE_TOKENS = 64
_SPARE = 64
"""Largest number of tokens that are left free in the context, in addition to the answer."""
_CHARACTERS = 3_000
"""Budget in characters for passages, and for the history, if the model's context is not known."""
_NAMES = re.compile(r"\{\{\s*(context|question)\s*\}\}|\{(context|question)\}")
_OTHER_JINJA = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.S)
_NUMBER_IN_FRONT = re.compile(r"^(\s*)\[(\d+)\]", re.M)
_EXTRACTED = 3
"""Largest number of sentences in an answer without a model."""
_NEAR_BEST = 0.6
"""In such an answer, each sentence must have at least this share of the best sentence's score."""


@dataclass(frozen=True)
class Passages:
    """The first event: the passages from which the answer is written.

    Attributes:
        passages: the passages in the prompt, numbered from 1; empty if the documents do not answer the question.
        question: the question that was searched for. A follow-up is rewritten into a complete question.
        warnings: problems of the search, such as an embedder that could not be reached.
    """

    passages: tuple[Passage, ...]
    question: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class CitationEvent:
    """A sentence of the answer is complete, and this citation is a source of it.

    Attributes:
        citation: the source.
    """

    citation: Citation


@dataclass(frozen=True)
class Done:
    """The last event.

    Attributes:
        text: the whole answer.
        answered: False if, according to the search or the model, the documents do not answer the question.
        citations: all citations, in the order of their sentences.
        unsupported: (start, end) of the sentences that no passage supports, in characters of `text`.
        finish: the model's `Finish`. Its usage includes the rewriting of a follow-up. None: no model was asked.
        prompt: the last message to the model, exactly as sent; "" if the model was not asked for an answer.
    """

    text: str
    answered: bool
    citations: tuple[Citation, ...]
    unsupported: tuple[tuple[int, int], ...] = ()
    finish: Finish | None = None
    prompt: str = ""


Event = Passages | TextDelta | CitationEvent | Done


class Documents(Sources, Protocol):
    """The methods of bases that an answer needs. `Bases` has them."""

    def search(
        self, question: str, *, k: int = 5, files: Sequence[str] = (), threshold: float | None = None, earlier: str = ""
    ) -> Hits:
        """See `searching.search`."""
        ...

    def answerable(self, question: str, *, files: Sequence[str] = ()) -> Answerable:
        """See `searching.answerable`."""
        ...

    def passages(
        self, hits: Sequence[Hit], budget: float, *, k: int = 5, cost: Callable[[str], int] = len, **options: Any
    ) -> list[Passage]:
        """See `packing.packed`."""
        ...

    def setting(self, key: str) -> str:
        """A setting of the first base that has a value for it; "" if none has."""


@dataclass(frozen=True)
class Request:
    """A question to documents, and the options of its answer.

    Attributes:
        question: the question, 1 to 10,000 characters.
        history: the messages before the question, with the system message if there is one.
        budget: largest number of tokens in the passages (of characters, if the model's server cannot count tokens).
            None: as many as fit into the model's context.
        style: "cited": the model writes passage numbers after each sentence. "classic": the prompt of
            langchain-ChatGLM. Another text is a prompt template with {context} and {question}. "": the `prompt`
            setting of the bases, or "cited" if there is none.
        strict: True: if the documents do not answer the question, the answer says so. False: the model then answers
            from its own knowledge, and the answer begins with a note about it. None: the `strict` setting of the
            bases; True if they have none.
        limit: a question is refused if its `Answerable.value` is larger. None: `searching.REFUSED`.
        k: largest number of hits, from 1 to 100.
        files: search only these files; empty: all.
        threshold: see `searching.search`.
        language: language of the prompt and of the refusal: "zh" or "en". "": the language of the question.
        options: options for the assistant. Tools, response formats, prefills, personas, logprobs and n > 1 are not
            supported.
    """

    question: str
    history: Sequence[Message] = ()
    budget: int | None = None
    style: Literal["cited", "classic", ""] | str = ""
    strict: bool | None = None
    limit: float | None = None
    k: int = 5
    files: Sequence[str] = ()
    threshold: float | None = None
    language: str = ""
    options: Options | None = None

    def check(self) -> None:
        """Check the fields.

        Raises:
            InputError: a field has a wrong value; the message names the field.
            UnsupportedError: an option of the assistant is not supported here; the message names it.
        """
        if not self.question.strip():
            raise InputError("question: is empty; ask something")
        if len(self.question) > _QUESTION:
            raise InputError(f"question: longer than {_QUESTION:,} characters")
        if self.budget is not None and self.budget < 1:
            raise InputError(f"budget={self.budget}: must be at least 1")
        if not 1 <= self.k <= 100:
            raise InputError(f"k={self.k}: must be from 1 to 100")
        if self.language not in ("", "zh", "en"):
            raise InputError(f"language {self.language!r:.40}: must be zh or en")
        if self.style not in ("", "cited", "classic"):
            check_prompt(self.style)
        for name in ("tools", "response_format", "prefill", "persona"):
            if (self.options or {}).get(name):
                raise UnsupportedError(f"{name}: not supported for answers from documents; leave it out")
        params = params_of((self.options or {}).get("params"), None)
        for name, value in (("n", params.n > 1), ("logprobs", params.logprobs is not None)):
            if value:
                raise UnsupportedError(f"{name}: not supported for answers from documents; leave it out")


def check_prompt(template: str) -> None:
    """Check a prompt template. `{context}` and `{question}` may be written with one or two braces.

    Raises:
        InputError: the template is longer than 10,000 characters, lacks {context} or {question}, or has other Jinja
            expressions. Jinja is not supported: templates are never evaluated.
    """
    if len(template) > _QUESTION:
        raise InputError(f"prompt: longer than {_QUESTION:,} characters")
    found = {name for match in _NAMES.finditer(template) for name in match.groups() if name}
    if missing := {"context", "question"} - found:
        raise InputError(
            f"prompt: has no {{{min(missing)}}}; a style is cited, classic, or a prompt with {{context}} and "
            "{question}"
        )
    for match in _OTHER_JINJA.finditer(template):
        if not _NAMES.fullmatch(match[0]):
            raise InputError(
                f"prompt: {match[0]:.60} cannot be filled in; only context and question can, without filters"
            )


def filled(template: str, context: str, question: str) -> str:
    """Fill a prompt template in one pass. For example, a `{question}` inside `context` is left as it is."""
    return _NAMES.sub(lambda found: context if "context" in (found[1], found[2]) else question, template)


def numbered(passages: Sequence[Passage]) -> str:
    """The passages with their numbers, as the cited prompts have them. If a line of a passage itself begins with a
    number in brackets, such as [3], it gets full-width brackets: it must not look like a passage number."""
    texts = [_NUMBER_IN_FRONT.sub(r"\1［\2］", each.text.strip()) for each in passages]
    return "\n\n".join(f"[{each.n}] {each.header}\n{text}" for each, text in zip(passages, texts, strict=True))


def plain(passages: Sequence[Passage]) -> str:
    """The texts of the passages, joined by line breaks, as langchain-ChatGLM does it."""
    return "\n".join(each.text.strip() for each in passages)


# What `_steps` yields to `ask` and `aask` besides events


@dataclass(frozen=True)
class _Work:
    """A request to call a function. Its result is sent back into the generator."""

    call: Callable[[], Any]


@dataclass(frozen=True)
class _Generation:
    """A request to start a stream of the assistant. After it, each None that the generator yields is answered with the
    next delta, or with None at the end of the stream."""

    messages: Sequence[Message]
    options: Options


_Steps = Generator[Event | _Work | _Generation | None, Any, None]
"""The generator yields None to ask for the next delta of the stream."""


def ask(documents: Documents, assistant: BaseAssistant | None, request: Request) -> Generator[Event]:
    """Answer a question from documents: see `Bases.ask`."""
    request.check()
    steps = _steps(documents, assistant, request)
    stream: Generator[Delta] | None = None
    try:
        step = next(steps, _OVER)
        while step is not _OVER:
            reply: Any = None
            if isinstance(step, _Work):
                reply = step.call()
            elif isinstance(step, _Generation):
                assert assistant is not None
                if stream is not None:
                    stream.close()
                stream = assistant.stream(step.messages, **step.options)
            elif step is None:
                assert stream is not None
                reply = next(stream, None)
            else:
                yield step
            step = _sent(steps, reply)
    finally:
        steps.close()
        if stream is not None:
            stream.close()


async def aask(documents: Documents, assistant: BaseAssistant | None, request: Request) -> AsyncGenerator[Event]:
    """`ask` for coroutines."""
    request.check()
    steps = _steps(documents, assistant, request)
    stream: AsyncGenerator[Delta] | None = None
    try:
        step = next(steps, _OVER)
        while step is not _OVER:
            reply: Any = None
            if isinstance(step, _Work):
                reply = await asyncio.to_thread(step.call)
            elif isinstance(step, _Generation):
                assert assistant is not None
                if stream is not None:
                    await stream.aclose()
                stream = assistant.astream(step.messages, **step.options)
            elif step is None:
                assert stream is not None
                reply = await anext(stream, None)
            else:
                yield step
            step = _sent(steps, reply)
    finally:
        steps.close()
        if stream is not None:
            await stream.aclose()


class _Over:
    pass


_OVER: Any = _Over()


def _sent(steps: _Steps, reply: Any) -> Any:
    try:
        return steps.send(reply)
    except StopIteration:
        return _OVER


def _steps(documents: Documents, assistant: BaseAssistant | None, request: Request) -> _Steps:
    question, earlier = request.question, ""
    asked_before: Finish | None = None
    language = request.language or ("zh" if any(not is_word(gram) for gram in grams(request.question)) else "en")
    if assistant is not None and (before := _goes_on(request)):
        question, earlier, asked_before = yield from _rewritten(assistant, request, before, language)
    hits = yield _Work(
        partial(
            documents.search,
            question,
            k=request.k,
            files=request.files,
            threshold=request.threshold,
            earlier=earlier,
        )
    )
    asked = f"{earlier} {question}" if earlier else question
    told = yield _Work(partial(documents.answerable, asked, files=request.files))
    refused = not hits or told.refused(request.limit)
    if assistant is None:
        yield from _extracted(documents, request, question, [] if refused else hits, hits.warnings, language)
        return
    strict = documents.setting("strict") not in ("no", "mixed", "0") if request.strict is None else request.strict
    if refused and strict:
        yield Passages((), question, hits.warnings)
        yield TextDelta(NOT_FOUND[language])
        yield Done(NOT_FOUND[language], False, (), finish=asked_before)
        return
    options: Options = {**(request.options or {})}
    style = request.style or documents.setting("prompt") or "cited"
    template = {"cited": CITED if language == "zh" else CITED_EN, "classic": CLASSIC}.get(style, style)
    show = plain if style == "classic" else numbered
    history = yield _Work(partial(_kept, assistant, request.history, options))
    passages: list[Passage] = []
    if not refused:
        budget, cost = yield _Work(partial(_budget, assistant, request, history, template, options))
        passages = yield _Work(partial(documents.passages, hits, budget, k=request.k, cost=cost, show=show))
    yield Passages(tuple(passages), question, hits.warnings)
    said = ""
    if passages:
        prompt = filled(template, show(passages), request.question)
    else:
        prompt = request.question
        if strict:
            yield TextDelta(NOT_FOUND[language])
            yield Done(NOT_FOUND[language], False, (), finish=asked_before)
            return
        said = NOT_FROM_DOCUMENTS[language]
        yield TextDelta(said)
    citer = yield _Work(partial(Citer, passages, documents, numbered=style != "classic"))
    yield _Generation([*history, Message("user", prompt)], options)
    whole: list[Sentence] = []
    finish: Finish | None = None
    while (delta := (yield None)) is not None:
        if isinstance(delta, Finish):
            finish = delta
        elif isinstance(delta, TextDelta) and delta.text and passages:
            more, found = yield _Work(partial(citer.feed, delta.text))
            said, whole = said + more, [*whole, *found]
            yield from _told(more, found)
        elif isinstance(delta, TextDelta) and delta.text:
            said += delta.text
            yield delta
    if passages:
        more, found = yield _Work(citer.end)
        said, whole = said + more, [*whole, *found]
        yield from _told(more, found)
    answered = bool(passages) and not any(refusal in said for refusal in _REFUSALS)
    yield Done(
        said,
        answered,
        tuple(citation for sentence in whole for citation in sentence.citations),
        tuple((sentence.start, sentence.end) for sentence in whole if sentence.supported is False),
        _together(asked_before, finish),
        prompt,
    )


def _together(first: Finish | None, last: Finish | None) -> Finish | None:
    """The `Finish` of the second answer, with the token usage of both."""
    if first is None or last is None:
        return last or first
    usage = Usage(
        first.usage.prompt_tokens + last.usage.prompt_tokens,
        first.usage.completion_tokens + last.usage.completion_tokens,
        first.usage.cached_tokens + last.usage.cached_tokens,
    )
    return replace(last, usage=usage)


def _told(text: str, found: Sequence[Sentence]) -> Generator[Event]:
    """The events for new text and for completed sentences."""
    if text:
        yield TextDelta(text)
    for sentence in found:
        for citation in sentence.citations:
            yield CitationEvent(citation)


# Follow-ups


def _goes_on(request: Request) -> str:
    """The previous question, if this one seems to refer to it (it is short or has a pronoun); else ""."""
    before = [message.content for message in request.history if message.role == "user"]
    question = request.question.strip()
    return before[-1] if before and (len(question) < _SHORT or _POINTS_BACK.search(question)) else ""


def _rewritten(
    assistant: BaseAssistant, request: Request, before: str, language: str
) -> Generator[_Work | _Generation | None, Any, tuple[str, str, Finish | None]]:
    """Let the model rewrite a follow-up into a complete question.

    Returns:
        the question, the previous question, and the `Finish` of the model. If the model rewrote the question well, it
            is the rewritten one, and the previous question is "". If the model added or lost too many words, both are
            as the user wrote them.
    """
    talk = [message for message in request.history if message.role in ("user", "assistant")][-4:]
    words = {"user": "问：", "assistant": "答："} if language == "zh" else {"user": "Q: ", "assistant": "A: "}
    context = "\n".join(f"{words[message.role]}{message.content[:300]}" for message in talk)
    options: Options = {**(request.options or {})}
    params = params_of(options.get("params"), assistant.defaults)
    options["params"] = replace(params, temperature=0.0, max_new_tokens=_REWRITE_TOKENS, max_length=None)
    yield _Generation([Message("user", filled(_REWRITE[language], context, request.question))], options)
    text, finish = "", None
    while (delta := (yield None)) is not None:
        if isinstance(delta, TextDelta):
            text += delta.text
        elif isinstance(delta, Finish):
            finish = delta
    lines = [line for line in text.strip().splitlines() if line.strip()]
    made = lines[0].strip().strip("“”\"'") if lines else ""
    known = set(grams(context)) | set(grams(request.question))
    own, new = set(question_grams(request.question)), grams(made)
    invented = sum(gram not in known for gram in new)
    if made and len(made) <= 200 and invented <= len(new) * 0.3 and len(own - set(new)) <= len(own) / 2:
        return made, "", finish
    return request.question, before, finish


# Budget


def _reserve(assistant: BaseAssistant, options: Options) -> int:
    """How many tokens of the context are reserved for the answer."""
    assert assistant.context is not None
    wanted = params_of(options.get("params"), assistant.defaults).max_new_tokens
    most = assistant.context // 4
    return (most if wanted is None else min(wanted, most)) + min(_SPARE, most // 4)


def _kept(assistant: BaseAssistant, history: Sequence[Message], options: Options) -> list[Message]:
    """The newest messages of the history. They get at most a quarter of the context, so that passages have room."""
    system = [message for message in history if message.role == "system"]
    talk = [message for message in history if message.role in ("user", "assistant") and message.content]
    kept: list[Message] = []
    for message in reversed(talk):
        taken = [message, *kept]
        if assistant.context is not None:
            if _tokens(assistant, taken, options) > assistant.context // 4:
                break
        elif sum(len(each.content) for each in taken) > _CHARACTERS:
            break
        kept = taken
    while kept and kept[0].role != "user":
        kept.pop(0)
    return [*system, *kept]


def _tokens(assistant: BaseAssistant, messages: Sequence[Message], options: Options) -> int:
    """Tokens of a prompt. If the model's server cannot count them, each character counts as one."""
    try:
        return assistant.count(messages, **options)
    except (UnsupportedError, InputError):  # InputError: from a server that forwards to one that cannot count
        return sum(len(message.content) for message in messages)


def _budget(
    assistant: BaseAssistant, request: Request, history: Sequence[Message], template: str, options: Options
) -> tuple[int, Callable[[str], int]]:
    """The budget for passages, and the function that computes their cost, both in tokens."""

    def prompt(context: str) -> int:
        return _tokens(assistant, [*history, Message("user", filled(template, context, request.question))], options)

    empty = prompt("")

    def cost(context: str) -> int:
        return prompt(context) - empty

    room = _CHARACTERS if assistant.context is None else assistant.context - _reserve(assistant, options) - empty
    return max(0, room if request.budget is None else min(request.budget, room)), cost


# Without a model


def _extracted(
    documents: Documents,
    request: Request,
    question: str,
    hits: Sequence[Hit],
    warnings: tuple[str, ...],
    language: str,
) -> _Steps:
    """Answer without a model: the sentences that match the question best, each with its citation."""
    passages = yield _Work(partial(documents.passages, hits, float("inf"), k=request.k, steps=0))
    yield Passages(tuple(passages), question, warnings)
    chosen = yield _Work(partial(_best_sentences, documents, question, passages))
    if not chosen:
        yield TextDelta(NOT_FOUND[language])
        yield Done(NOT_FOUND[language], False, ())
        return
    citer = yield _Work(partial(Citer, passages, documents))
    said = ""
    citations = []
    for passage, start, end in chosen:
        more = ("\n" if said else "") + passage.text[start:end]
        first = len(said) + (1 if said else 0)
        said += f"{more}[{passage.n}]"
        citation = yield _Work(partial(citer.cite, passage.n, start, end, (first, len(said))))
        citations.append(citation)
        yield TextDelta(f"{more}[{passage.n}]")
        yield CitationEvent(citation)
    yield Done(said, True, tuple(citations))


def _best_sentences(documents: Documents, question: str, passages: Sequence[Passage]) -> list[tuple[Passage, int, int]]:
    own = question_grams(question)
    weights = documents.rarity(own)
    total = sum(weights.values()) or 1.0
    best = max((passage.score for passage in passages), default=1.0) or 1.0
    found = []
    for passage in passages:
        for start, end in sentences(passage.text):
            text = passage.text[start:end]
            has = set(grams(text))
            covered = sum(weight for gram, weight in weights.items() if gram in has) / total
            if covered and has - set(own):  # a sentence that only repeats the question is no answer
                found.append((covered * (1 + passage.score / best), -passage.n, -start, end, passage))
    found.sort(key=lambda each: each[:3], reverse=True)
    taken = [each for each in found if each[0] >= _NEAR_BEST * found[0][0]][:_EXTRACTED]
    return [(passage, -start, end) for _, _, start, end, passage in taken]
