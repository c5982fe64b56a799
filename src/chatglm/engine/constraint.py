"""Constrained output: the text always follows a JSON schema, a regular expression or a grammar.

`llguidance` has the parser. It computes the tokens that may come next from the bytes of a vocabulary, in tens of
microseconds. A text may be divided into tokens in any way. Grammars come from callers, so their size is limited
(`schemas`, `lark`), they are tried in another process (`compiling`), and the work for each token is limited.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from chatglm.engine.compiling import Prover, limits_of, problem_of, vocabulary_of
from chatglm.engine.lark import BLANKS, check_gbnf, check_lark, is_lark
from chatglm.errors import (
    ChatGLMError,
    DependencyError,
    EngineError,
    InputError,
    QueueFullError,
    UnsupportedError,
)
from chatglm.schemas import Held, check_pattern, held

__all__ = ["Constraint", "Form", "Grammars"]

_KEPT = 256
"""Most entries in the cache: compiled grammars, and refusals of others."""
_KEPT_TEXT, _KEPT_TOKENS = 2 << 20, 1 << 13
"""Most characters of all cached grammars together, and most tokens that answers have used with them. A compiled grammar
takes up to 100 KB and 40 bytes for each character. It grows by up to 7 KB with each token (usually far less, and only
at first). So all together take at most 165 MB in the worst case."""
_PROVEN = 4096
"""Most grammars that are remembered as tried. They need no trial when they are compiled again."""
_REFUSED = 300.0
"""Seconds that a refusal is kept."""
_CREDIT, _EARNED = 0.5, 0.01
"""Seconds of CPU time that an answer's grammar has at the beginning, and that it gets for each token."""


class Constraint(Protocol):
    """The state of one answer's grammar."""

    def allow(self, scores: Tensor) -> None:
        """Set the scores of all tokens that must not come next to -inf, in place: (vocabulary,).

        Raises:
            UnsupportedError: the grammar needs more work or memory than it may have.
        """

    def accept(self, token: int) -> None:
        """Add the next token.

        Raises:
            InputError: the token is not allowed.
            UnsupportedError: the grammar needs more work or memory than it may have.
        """

    def finished(self) -> bool:
        """Whether the text is complete, so that only a stop id may follow."""

    def fork(self) -> Constraint:
        """An independent copy of this state."""

    def free(self, ahead: Sequence[int]) -> bool:
        """Whether every token is allowed now and after each of the tokens `ahead`. Takes almost no time."""


@dataclass(frozen=True)
class Form:
    """A form that a text may have; `Grammars` makes it.

    Attributes:
        kind: its name in errors.
        body: its grammar as JSON, in the form of llguidance.
        lead: a regular expression for the text in front: spaces and line ends that a model generation writes before the
            content of a reply.
    """

    kind: str
    body: str
    lead: str = ""


@dataclass(eq=False)
class _Kept:
    """An entry of the cache: a grammar that is compiled, or refused, once for all callers.

    Attributes:
        size: number of characters of its text.
        until: value of `time.monotonic()` after which it is compiled again.
        made: the compiled grammar, or the error that refuses it.
        tokens: number of tokens that answers have used with it.
    """

    size: int
    until: float = float("inf")
    made: Future[Any] = field(default_factory=Future)
    tokens: int = 0


class Grammars:
    """Makes constraints for one vocabulary, and caches compiled grammars for requests with the same grammar.

    May be called from several threads. For the argument `lead` of all methods, see `Form`.

    Args:
        tokens: the UTF-8 bytes that each id adds to the text; b"" for control ids, which are never allowed. Ids beyond
            the list are not allowed either.
        stop_ids: ids that are allowed only where the text may end.

    Raises:
        DependencyError: llguidance is not installed.
        InputError: there is no stop id, or one is not in the vocabulary.
    """

    def __init__(self, tokens: Sequence[bytes], stop_ids: Collection[int]) -> None:
        try:
            import llguidance
        except ImportError:
            raise DependencyError("constrained output needs llguidance: pip install 'chatglm[engine]'") from None
        if not stop_ids or not all(0 <= stop < len(tokens) for stop in stop_ids):
            raise InputError(
                f"stop_ids is {sorted(stop_ids)}; a constraint needs at least one, and each must be an id from 0 to "
                f"{len(tokens) - 1}"
            )
        self._library = llguidance
        self._tokens, self._stop_ids = tokens, sorted(stop_ids)
        self._tokenizer = vocabulary_of(llguidance, tokens, stop_ids)
        self._prover = Prover(tokens, stop_ids)
        self._lock = threading.Lock()
        self._compiled: OrderedDict[bytes, _Kept] = OrderedDict()  # the last used one last
        self._proven: OrderedDict[bytes, None] = OrderedDict()

    def json_schema(self, schema: Mapping[str, Any] | bool | Held, lead: str = "") -> Constraint:
        """A constraint for JSON that is valid for a schema; `{"type": "object"}` is any JSON object.

        Properties come in the order of the schema.

        Args:
            schema: a JSON schema, or one that `held` has prepared.

        Raises:
            InputError: it is not a JSON schema, or no value satisfies it.
            UnsupportedError: it is too large, or has keywords that cannot be enforced; names them.
            QueueFullError: too many grammars are being compiled.
        """
        return self.constraint(self.json_form(schema, lead))

    def regex(self, pattern: str, lead: str = "") -> Constraint:
        """A constraint for text that a regular expression matches as a whole (Rust's syntax: no look-around, no
        references).

        Raises:
            InputError: it is not well-formed.
            UnsupportedError: it is too large, or uses a feature that is not supported.
            QueueFullError: too many grammars are being compiled.
        """
        return self.constraint(self.regex_form(pattern, lead))

    def grammar(self, text: str, lead: str = "") -> Constraint:
        """A constraint for text of a context-free grammar.

        Args:
            text: EBNF as in llama.cpp (`root ::= …`), or Lark as in llguidance (`start: …`), where `%json {…}` stands
                for JSON that is valid for a schema.

        Raises:
            InputError: it is not well-formed.
            UnsupportedError: it is too large, names special tokens, or has a schema with keywords that cannot be
                enforced.
            QueueFullError: too many grammars are being compiled.
        """
        return self.constraint(self.grammar_form(text, lead))

    def json_form(self, schema: Mapping[str, Any] | bool | Held, lead: str = "") -> Form:
        """The form of `json_schema`, not compiled yet; it raises the same errors, except those of compiling."""
        ready = schema.schema if isinstance(schema, Held) else held(schema, strict=True).schema
        # This replaces a caller's `x-guidance`, which could switch off the enforcement of keywords.
        ruled = {**ready, "x-guidance": {"whitespace_pattern": BLANKS}}
        return Form("JSON schema", json.dumps({"json_schema": ruled}, ensure_ascii=False), lead)

    def regex_form(self, pattern: str, lead: str = "") -> Form:
        """The form of `regex`, not compiled yet; it raises the same errors, except those of compiling."""
        if why := check_pattern(pattern):
            raise UnsupportedError(f"regular expression: {why}")
        return Form("regular expression", json.dumps({"lark_grammar": self._rule(pattern)}), lead)

    def grammar_form(self, text: str, lead: str = "") -> Form:
        """The form of `grammar`, not compiled yet; it raises the same errors, except those of compiling."""
        if not is_lark(text):
            check_gbnf(text)
            try:
                text = self._prover.to_lark(text)
            except ChatGLMError as error:
                raise type(error)(f"grammar: {error}") from None
        return Form("grammar", json.dumps({"lark_grammar": check_lark(text)}, ensure_ascii=False), lead)

    def call_form(self, lark: str, lead: str = "") -> Form:
        """The form of a grammar for tool calls, in Lark's notation, which this package wrote."""
        return Form("tools", json.dumps({"lark_grammar": lark}, ensure_ascii=False), lead)

    def constraint(self, *forms: Form) -> Constraint:
        """A constraint for text of one of several forms. Errors are those of `json_schema`, `regex` and `grammar`."""
        # Forcing would allow only one way to divide a text into tokens, and not the model's own.
        rules = ['%llguidance {"no_forcing": true}', f"start: {' | '.join(f'form{n}' for n in range(len(forms)))}"]
        grammars = [{"name": "answer", "lark_grammar": ""}]
        for number, form in enumerate(forms):
            rules.append(f"form{number}: {f'lead{number} ' if form.lead else ''}@body{number}")
            if form.lead:
                rules.append(self._rule(form.lead).replace("start:", f"lead{number}:", 1))
            grammars.append({"name": f"body{number}", **json.loads(form.body)})
        grammars[0]["lark_grammar"] = "\n".join(rules)
        whole = json.dumps({"grammars": grammars}, ensure_ascii=False)
        kept = self._matcher(whole, forms[0].kind)
        return _Matched(kept.made.result().deep_copy(), kept)

    def begun_calls(self, form: Form, names: Collection[str], header: int | None) -> Constraint:
        """A constraint that allows any text, except that a message whose first line is a tool's name must have a form.

        Errors are those of `json_schema`.

        Args:
            form: the form of messages whose first line is one of the names.
            header: the id that begins another message. It may follow a complete message. None: there is no such id.
        """
        lines = frozenset(name.encode() for name in names)
        return _Begun(self.constraint(form), lines, header, self._tokens, self._stop_ids)

    def _rule(self, pattern: str) -> str:
        """The rule `start: /pattern/`, escaped for Lark."""
        try:
            compiled = json.loads(self._library.LLMatcher.grammar_from_regex(pattern))
        except UnicodeEncodeError:
            raise InputError("regular expression: has text that is not Unicode (half of a surrogate pair)") from None
        return str(compiled["grammars"][0]["lark_grammar"])

    def _matcher(self, grammar: str, kind: str) -> _Kept:
        """The cached entry of a grammar. It is compiled, or refused, once for all callers.

        Raises:
            InputError, UnsupportedError, QueueFullError: see `grammar`.
        """
        digest = hashlib.sha256(grammar.encode()).digest()
        with self._lock:
            kept = self._compiled.get(digest)
            mine = kept is None or time.monotonic() >= kept.until
            if kept is None or mine:
                kept = self._compiled[digest] = _Kept(len(grammar))
            self._compiled.move_to_end(digest)
            self._forget()
        if mine:
            try:
                kept.made.set_result(self._compile(grammar, kind, digest))
            except BaseException as error:
                kept.size = 0
                # Never store this error itself: its traceback would keep the whole request in memory.
                if isinstance(error, InputError | UnsupportedError | QueueFullError):
                    kept.until = time.monotonic() + (0.0 if isinstance(error, QueueFullError) else _REFUSED)
                    kept.made.set_exception(type(error)(str(error)))
                else:
                    kept.until = time.monotonic()
                    kept.made.set_exception(EngineError(f"the grammar could not be compiled: {error!r:.200}"))
                raise
        if (refusal := kept.made.exception()) is not None:
            assert isinstance(refusal, ChatGLMError)
            raise type(refusal)(str(refusal))  # a new error for each caller
        return kept

    def _forget(self) -> None:
        """Remove entries until the cache is within its limits."""
        text = sum(kept.size for kept in self._compiled.values())
        while self._compiled and (len(self._compiled) > _KEPT or text > _KEPT_TEXT):
            _, kept = self._compiled.popitem(last=False)
            text -= kept.size
        tokens = sum(kept.tokens for kept in self._compiled.values())
        while tokens > _KEPT_TOKENS:
            digest, kept = max(self._compiled.items(), key=lambda item: item[1].tokens)
            tokens -= kept.tokens
            del self._compiled[digest]

    def _compile(self, grammar: str, kind: str, digest: bytes) -> Any:
        with self._lock:
            proven = digest in self._proven
        if not proven:
            try:
                self._prover.prove(grammar)
            except ChatGLMError as error:
                raise type(error)(f"{kind}: {error}") from None
            with self._lock:
                self._proven[digest] = None
                while len(self._proven) > _PROVEN:
                    self._proven.popitem(last=False)
        matcher = _guarded(
            lambda: self._library.LLMatcher(self._tokenizer, grammar, log_level=0, limits=limits_of(self._library))
        )
        if problem := problem_of(matcher):
            raise InputError(f"{kind}: {problem}")
        return matcher


class _Matched:
    """A constraint whose state is in llguidance."""

    def __init__(self, matcher: Any, kept: _Kept, credit: float = _CREDIT) -> None:
        self._matcher, self._kept = matcher, kept
        self._credit = credit

    def allow(self, scores: Tensor) -> None:
        begin = time.thread_time()
        mask = np.frombuffer(_guarded(self._matcher.compute_bitmask), dtype=np.uint8)
        if self._matcher.is_error():
            raise self._given_up()
        forbidden = np.unpackbits(mask, bitorder="little", count=min(len(mask) * 8, len(scores))) == 0
        known = scores[: len(forbidden)]
        known.masked_fill_(torch.from_numpy(forbidden).to(scores.device), -torch.inf)
        scores[len(forbidden) :] = -torch.inf
        self._credit = min(_CREDIT, self._credit + _EARNED)
        self._pay(begin)

    def accept(self, token: int) -> None:
        begin = time.thread_time()
        if not _guarded(lambda: self._matcher.consume_token(token)):
            if "satisfy the grammar" in self._matcher.get_error():
                raise InputError(f"token {token} is not allowed by the output's grammar at this place")
            raise self._given_up()
        self._kept.tokens += 1
        self._pay(begin)

    def _pay(self, begin: float) -> None:
        self._credit -= time.thread_time() - begin
        if self._credit < 0:
            raise UnsupportedError("the output's grammar takes too much time to follow; make it less ambiguous")

    def _given_up(self) -> UnsupportedError:
        return UnsupportedError(f"the output's grammar: {problem_of(self._matcher)}")

    def finished(self) -> bool:
        return bool(self._matcher.is_stopped())

    def fork(self) -> Constraint:
        return _Matched(self._matcher.deep_copy(), self._kept, self._credit)

    def free(self, ahead: Sequence[int]) -> bool:
        return False


class _Begun:
    """Allows free text until the first line of a message is one of some names; see `Grammars.begun_calls`."""

    def __init__(
        self,
        whole: Constraint,
        names: frozenset[bytes],
        header: int | None,
        tokens: Sequence[bytes],
        stop_ids: Sequence[int],
    ) -> None:
        self._whole, self._names, self._header = whole, names, header
        self._tokens, self._stop_ids = tokens, stop_ids
        self._line: tuple[int, ...] | None = ()  # ids of an incomplete first line; None: it is complete
        self._call: Constraint | None = None  # state of the message that is a call

    def allow(self, scores: Tensor) -> None:
        if self._call is None:
            return
        further = None if self._header is None else scores[self._header].clone()
        self._call.allow(scores)
        if further is not None and any(scores[stop] > -torch.inf for stop in self._stop_ids):
            scores[self._header] = further

    def accept(self, token: int) -> None:
        if token == self._header:
            self._line, self._call = (), None
        elif self._call is not None:
            self._call.accept(token)
        elif self._line is not None:
            self._line = (*self._line, token)
            self._decide()

    def _decide(self) -> None:
        """Check whether the first line is a name now, or cannot become one any more."""
        assert self._line is not None
        told = b"".join(self._tokens[token] if token < len(self._tokens) else b"" for token in self._line)
        name, end, _ = told.partition(b"\n")
        name = name.strip()
        if end and name in self._names:
            call = self._whole.fork()
            try:
                for token in self._line:
                    call.accept(token)
            except InputError:  # it is not a valid beginning of a call
                pass
            else:
                self._call = call
        if end or not any(known.startswith(name) for known in self._names):
            self._line = None

    def finished(self) -> bool:
        return False

    def fork(self) -> Constraint:
        made = _Begun(self._whole, self._names, self._header, self._tokens, self._stop_ids)
        made._line, made._call = self._line, None if self._call is None else self._call.fork()
        return made

    def free(self, ahead: Sequence[int]) -> bool:
        return self._line is None and self._call is None and self._header not in ahead


def _guarded(work: Callable[[], Any]) -> Any:
    """Call the library and return the result. Its panics do not derive from `Exception`, so they would end a thread
    that catches only these.

    Raises:
        UnsupportedError: the library panicked.
    """
    try:
        return work()
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            raise UnsupportedError("the output's grammar: the grammar library failed on it") from None
        raise
