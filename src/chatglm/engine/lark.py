"""Checks callers' grammars before they are compiled: their size, and the keywords that they use.

There are two notations: llama.cpp's EBNF (GBNF, `root ::= …`) and Lark as llguidance reads it (`start: …`;
docs/syntax.md of guidance-ai/llguidance). Nothing here is recursive, and every pass takes linear time.
"""

from __future__ import annotations

import json
import re

from chatglm.errors import InputError, UnsupportedError
from chatglm.schemas import check_pattern, depth_of, held

__all__ = ["BLANKS", "check_gbnf", "check_lark", "is_lark"]

BLANKS = r"[\x20\x0A\x0D\x09]{1,2}"
"""Whitespace between the parts of a JSON text. If more than two characters are allowed, small models write whitespace
until they reach the limit of tokens."""
MAX_BYTES = 128 << 10
MAX_RULES = 2000
MAX_GBNF_RULES = 1000
MAX_CHAIN = 200
"""Most rules in a chain of references; llguidance follows them by recursion."""
MAX_ALTERNATIVES = 20_000
MAX_NESTING = 25
"""Most levels of nested parentheses; llguidance accepts 30."""
MAX_COUNT = 10_000
"""Largest number in `{m,n}` and `~ m..n`."""

_TOKEN = re.compile(
    r"""(?P<skip>[ \t]+|(?:\#|//)[^\n]*)
      | (?P<line>[\r\n]+)
      | (?P<string>"(?:\\.|[^"\\\n])*"i?)
      | (?P<regex>/(?:\\.|[^/\\])+/[imslux]*)
      | (?P<special><[^<>\s]+>)
      | (?P<grammar>@[\w-]+)
      | (?P<word>%[a-z_]+)
      | (?P<name>[!?_]*[A-Za-z][\w-]*)
      | (?P<number>[+-]?\d+)
      | (?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)
_WORDS = ("%ignore", "%import", "%override", "%json", "%regex", "%llguidance")


def is_lark(text: str) -> bool:
    """Whether a grammar is Lark and not GBNF, by the same rule as in llguidance."""
    return re.search(r"(?m)^\s*(?:%llguidance\b|start\s*:)", text) is not None


def check_gbnf(text: str) -> None:
    """Check a grammar in GBNF.

    Raises:
        InputError: it has text that is not Unicode.
        UnsupportedError: it is too large.
    """
    _check_bytes(text)
    if (rules := text.count("::=")) > MAX_GBNF_RULES:
        raise _too_large("rules", rules, MAX_GBNF_RULES)


def check_lark(text: str) -> str:
    """Check a grammar in Lark's notation, and return it with its schemas prepared.

    Raises:
        InputError: it has text that is not Unicode, or a schema in it is not valid.
        UnsupportedError: it is too large, or has something that callers must not use.
    """
    _check_bytes(text)
    pieces: list[str] = []
    refers: dict[str, set[str]] = {"": {"start"}}
    rule, begins, nesting, alternatives, place = "", True, 0, 0, 0
    before = ""
    while place < len(text):
        found = _TOKEN.match(text, place)
        assert found is not None  # `sign` takes anything
        kind, token = str(found.lastgroup), found[0]
        place = found.end()
        match kind:
            case "special" | "grammar":
                what = "special tokens" if kind == "special" else "other grammars"
                raise UnsupportedError(f"grammar: {token:.40}: {what} are not supported in a grammar")
            case "word":
                if token not in _WORDS:
                    raise UnsupportedError(f"grammar: {token:.40} is not supported; supported: {', '.join(_WORDS)}")
                if token in ("%json", "%regex", "%llguidance"):
                    made, place = _value(text, place, token)
                    pieces.append(made)
                    begins, before = False, token
                    continue
                rule = rule if token == "%override" else ""
            case "name":
                name = token.lstrip("!?")
                if begins:
                    rule = name
                    refers.setdefault(rule, set())
                else:
                    refers.setdefault(rule, set()).add(name)
            case "regex":
                inner = token[1 : token.rindex("/")]
                if why := check_pattern(inner):
                    raise UnsupportedError(f"grammar: {token:.40}: {why}")
            case "number":
                if before in ("{", ",", "~", ".") and abs(_number(token)) > MAX_COUNT:
                    raise _too_large("a repetition", abs(_number(token)), MAX_COUNT)
            case "sign":
                alternatives += token == "|"
                nesting += (token in "([{") - (token in ")]}")
                if nesting > MAX_NESTING:
                    raise UnsupportedError(f"grammar: nested too deeply; at most {MAX_NESTING} levels are supported")
        pieces.append(token)
        if kind != "skip":
            begins = kind == "line" or (begins and token == "%override")
            before = token
    if len(refers) - 1 > MAX_RULES:
        raise _too_large("rules", len(refers) - 1, MAX_RULES)
    if alternatives > MAX_ALTERNATIVES:
        raise _too_large("alternatives", alternatives, MAX_ALTERNATIVES)
    if (depth := depth_of(refers)) > MAX_CHAIN:
        raise _too_large("rules in a chain of references", depth, MAX_CHAIN)
    return "".join(pieces)


def _check_bytes(text: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InputError("grammar: has text that is not Unicode (half of a surrogate pair)") from None
    if size > MAX_BYTES:
        raise _too_large("bytes", size, MAX_BYTES)


def _number(token: str) -> int:
    return int(token) if len(token) < 20 else 10**20


def _value(text: str, place: int, word: str) -> tuple[str, int]:
    """A keyword of Lark with the JSON value after it, prepared; and the position of its end."""
    start = len(text) - len(text[place:].lstrip())
    try:
        value, end = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        raise InputError(f"grammar: {word} must be followed by a JSON value ({error!s:.80})") from None
    if word == "%llguidance" and value:
        raise UnsupportedError("grammar: options in %llguidance are not supported; write %llguidance {}")
    if word == "%json":
        schema = held(value, strict=True, where="grammar: %json").schema
        value = {**schema, "x-guidance": {"whitespace_pattern": BLANKS}}
    return f"{word} {json.dumps(value, ensure_ascii=False)}", end


def _too_large(what: str, count: int, most: int) -> UnsupportedError:
    return UnsupportedError(f"grammar: {what}: {count:,}; at most {most:,} are supported")
