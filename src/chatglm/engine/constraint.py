"""Output that follows a JSON schema, a regular expression or a grammar, whatever the model would rather say.

`llguidance` keeps the parser; it computes which tokens may come next over the bytes of a vocabulary in tens of
microseconds, and refuses by name what it does not honour of a schema. Any way to cut the text into tokens is allowed.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from chatglm.errors import DependencyError, InputError, UnsupportedError

__all__ = ["Constraint", "Grammars"]

_BLANKS = r"[\x20\x0A\x0D\x09]{1,2}"
"""Between the parts of a JSON text. With more than two, small models write blanks until their tokens run out."""
_KEPT = 128
"""Compiled grammars that are kept."""


class Constraint(Protocol):
    """The state of one answer's grammar."""

    def allow(self, scores: Tensor) -> None:
        """Set the scores, (vocabulary,), of what may not come next to -inf, in place.

        Raises:
            UnsupportedError: the grammar needs more work or memory than it may have.
        """

    def accept(self, token: int) -> None:
        """A token has come, one that was allowed.

        Raises:
            InputError: it was not.
        """

    def finished(self) -> bool:
        """Whether the grammar has come to its end: nothing but a stop id may follow."""

    def fork(self) -> Constraint:
        """A copy that goes its own way from here."""


class Grammars:
    """Makes constraints over one vocabulary; what was compiled is kept for the next request with the same grammar.

    `lead`, wherever it stands, is a regular expression of what comes in front of the constrained text: blanks and line
    ends that belong to a generation's reply and not to its content. May be called from several threads.

    Args:
        tokens: what each id adds to the text, as UTF-8 bytes; b"" for control ids, which are never allowed. Ids beyond
            the list are not allowed either.
        stop_ids: allowed where the grammar may end, and only there.

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
            raise InputError(f"stop_ids is {sorted(stop_ids)}; a constraint needs one, and all among {len(tokens)} ids")
        self._library = llguidance
        self._tokenizer = llguidance.LLTokenizer(_wrapped(llguidance, tokens, stop_ids), eos_token=sorted(stop_ids))
        self._compiled = functools.lru_cache(_KEPT)(self._compile)

    def json_schema(self, schema: Mapping[str, Any] | bool, lead: str = "") -> Constraint:
        """JSON that a schema describes; `{"type": "object"}` is any JSON object.

        Properties come in the order of the schema.

        Raises:
            InputError: it is no JSON schema, or nothing satisfies it.
            UnsupportedError: it has keywords that cannot be honoured; names them.
        """
        if schema is True:
            schema = {}
        if not isinstance(schema, Mapping):
            raise InputError(f"JSON schema: expected an object, got {schema!r:.80}")
        # Ours alone: a caller's could switch the honouring of keywords off.
        ruled = {**schema, "x-guidance": {"whitespace_pattern": _BLANKS}}
        try:
            text = json.dumps({"json_schema": ruled}, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"JSON schema: {error}") from None
        return self._new("JSON schema", text, lead)

    def regex(self, pattern: str, lead: str = "") -> Constraint:
        """Text that a regular expression matches from end to end (Rust's syntax: no look-around, no references).

        Raises:
            InputError: it is not well-formed.
        """
        return self._new("regular expression", json.dumps({"lark_grammar": self._rule(pattern)}), lead)

    def grammar(self, text: str, lead: str = "") -> Constraint:
        """Text of a context-free grammar.

        Args:
            text: EBNF as in llama.cpp (`root ::= …`), or Lark (`start: …`) as llguidance has it, in which
                `%json {…}` stands for what a schema describes.

        Raises:
            InputError: it is not well-formed.
            UnsupportedError: it has a schema with keywords that cannot be honoured.
        """
        try:
            lark = self._library.grammar_from("grammar", text)
        except ValueError as error:
            raise InputError(f"grammar: {error}") from None
        return self._new("grammar", json.dumps({"lark_grammar": lark}), lead)

    def _rule(self, pattern: str) -> str:
        """`start: /pattern/`, with what Lark needs escaped."""
        compiled = json.loads(self._library.LLMatcher.grammar_from_regex(pattern))
        return str(compiled["grammars"][0]["lark_grammar"])

    def _new(self, kind: str, body: str, lead: str) -> Constraint:
        return _Matched(self._compiled(kind, body, lead).deep_copy())

    def _compile(self, kind: str, body: str, lead: str) -> Any:
        # Forcing would leave only one way to cut a text into tokens, and that not the model's own.
        rule = '%llguidance {"no_forcing": true}\nstart: ' + ("lead " if lead else "") + "@body\n"
        if lead:
            rule += self._rule(lead).replace("start:", "lead:", 1)
        grammar = {"grammars": [{"name": "answer", "lark_grammar": rule}, {"name": "body", **json.loads(body)}]}
        matcher = self._library.LLMatcher(self._tokenizer, json.dumps(grammar, ensure_ascii=False), log_level=0)
        if matcher.is_error():
            problem = " ".join(matcher.get_error().split())
            wrong = UnsupportedError if "nimplemented" in problem or "too " in problem else InputError
            raise wrong(f"{kind}: {problem[:400]}")
        return matcher


class _Matched:
    """A constraint that llguidance keeps the state of."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def allow(self, scores: Tensor) -> None:
        mask = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            raise UnsupportedError(f"the output's grammar: {' '.join(self._matcher.get_error().split())[:400]}")
        forbidden = np.unpackbits(mask, bitorder="little", count=min(len(mask) * 8, len(scores))) == 0
        known = scores[: len(forbidden)]
        known.masked_fill_(torch.from_numpy(forbidden).to(scores.device), -torch.inf)
        scores[len(forbidden) :] = -torch.inf

    def accept(self, token: int) -> None:
        if not self._matcher.consume_token(token):
            raise InputError(f"token {token} is not allowed by the output's grammar at this place")

    def finished(self) -> bool:
        return bool(self._matcher.is_stopped())

    def fork(self) -> Constraint:
        return _Matched(self._matcher.deep_copy())


def _wrapped(library: Any, tokens: Sequence[bytes], stop_ids: Collection[int]) -> Any:
    """A vocabulary in the form that llguidance takes."""

    class Vocabulary:
        eos_token_id = min(stop_ids)
        bos_token_id = None
        special_token_ids = sorted(stop_ids)

        def __call__(self, text: bytes) -> list[int]:  # only forcing would ask
            return []

    vocabulary: Any = Vocabulary()
    # 0xFF, which is in no UTF-8, marks control tokens there.
    vocabulary.tokens = [b"" if token.startswith(b"\xff") else token for token in tokens]
    return library.TokenizerWrapper(vocabulary)
