"""Reads tool calls as models write them, without executing anything.

ChatGLM3 writes Python, "tool_call(city='北京', days=3)" in a fenced block (THUDM/ChatGLM3, PROMPT.md), which the
official code passes to `eval`. Here it is parsed, and only literals are accepted. GLM-4 writes a JSON object.
"""

from __future__ import annotations

import ast
import json
import keyword
import math
import re
import unicodedata
import warnings
from collections.abc import Callable, Mapping
from typing import Any

__all__ = [
    "FENCES",
    "ArgumentStream",
    "as_json",
    "fenced",
    "is_keyword",
    "parse_json_arguments",
    "parse_python_call",
    "render_python_call",
]

FENCES = ("```", "```python", "```py")
"""Lines that may open a block of code."""

_LONGEST = 1 << 20
_LONGEST_PLAIN = 1 << 17
"""Most characters of a call, without the contents of its strings: parsing a megabyte of `[],[],…` takes seconds."""
_MOST_VALUES = 10_000
"""Most values in a call."""
_NAMES = {"true": True, "false": False, "null": None}
_CONSTANTS = {"True": "true", "False": "false", "None": "null"}


def fenced(text: str) -> str | None:
    """The inside of a text that is one fenced code block; None if it is not."""
    opening, newline, rest = text.strip().partition("\n")
    if not newline or opening.rstrip(" \t") not in FENCES or not rest.endswith("```"):
        return None
    # A regular expression for this would take quadratic time if a model repeats spaces.
    return rest[:-3].rstrip(" \t").removesuffix("\n")


def as_json(arguments: Mapping[str, Any]) -> str | None:
    """The arguments of a call as JSON text; None if JSON cannot represent them.

    JSON has no infinity, no NaN and no tuple as a key. A lone surrogate cannot be encoded as UTF-8. Python does not
    write integers of more than 4,300 digits.
    """
    try:
        text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (ValueError, TypeError, RecursionError):
        return None
    return text


def parse_python_call(text: str) -> dict[str, Any] | None:
    """Arguments of "tool_call(name=literal, …)", fenced or bare; None if the text is anything else.

    Values may be strings, numbers, True/False/None (or JSON's true/false/null), and lists, tuples and dicts of them.
    `**{"any name": literal}` stands for arguments whose names are not Python identifiers.
    """
    if len(text) > _LONGEST:
        return None
    code = fenced(text)
    code = (text if code is None else code).strip()
    if "tool_call" not in code:
        return None
    plain = _without_strings(code)
    if plain is None or len(plain) > _LONGEST_PLAIN or plain.count(",") > _MOST_VALUES or _is_chained(plain):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about invalid escapes in a model's strings
            tree = ast.parse(code, mode="eval").body
        if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name) or tree.func.id != "tool_call":
            return None
        if tree.args:
            return None
        arguments: dict[str, Any] = {}
        for given_as in tree.keywords:
            if given_as.arg is not None:
                given = {given_as.arg: _literal(given_as.value)}
            else:
                given = _literal(given_as.value)
                if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
                    return None
            if given.keys() & arguments.keys():
                return None
            arguments |= given
        return arguments
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return None


# An unterminated string ends where Python would stop reading it, so that one pass over any text is enough. Each
# alternative begins with a fixed character, so the search skips other text fast.
_STRING_OR_COMMENT = re.compile(
    r"""'''[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*(?:'''|\Z)
      | \"\"\"[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*(?:\"\"\"|\Z)
      | '[^'\\\n]*(?:\\.[^'\\\n]*)*'?
      | "[^"\\\n]*(?:\\.[^"\\\n]*)*"?
      | \#[^\n]*""",
    re.DOTALL | re.VERBOSE,
)
_PREFIXED = re.compile(r"(?<!\w)[rRuU](?='')")
_NUMBER = re.compile(r"(?<![\w.])(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?")
_WORD_OF_CODE = re.compile(rf"\b(?:{'|'.join(word for word in keyword.kwlist if word not in _CONSTANTS)})\b")
_CHAINED = re.compile(r"[^\w\s()\[\]{},:=+*.'-]|[\w'\])}]\s*[(\[+*.-]|\w'")


def _without_strings(code: str) -> str | None:
    """Code without comments, and with empty strings; None if it has more of them than a call may have."""
    most = 2 * _MOST_VALUES  # keys of objects are strings, too
    plain, count = _STRING_OR_COMMENT.subn(lambda found: "" if found[0][0] == "#" else "''", code, most)
    return None if count == most else _PREFIXED.sub("", plain)


def _is_chained(plain: str) -> bool:
    """Whether code has operators, attributes, calls or indices after an operand, or keywords such as `lambda` and
    `not`. A call with literals has none of these.

    The tree of `a.a.a…` or `1+1+1…` is as deep as the text is long. On such a text, `ast.parse` of Python 3.10
    overflows the stack and ends the process. The same happens with the inside of an f-string.

    Args:
        plain: the result of `_without_strings`.
    """
    plain = re.sub(r"tool_call\s*\(", "(", plain, count=1)
    return (_CHAINED.search(_NUMBER.sub("0", plain)) or _WORD_OF_CODE.search(plain)) is not None


def _literal(node: ast.expr) -> Any:
    """The value of a literal.

    Raises:
        ValueError: the expression is not a literal.
    """
    match node:
        case ast.Constant(value=str() | int() | float() | bool() | None):
            return node.value
        case ast.Name(id=name) if name in _NAMES:
            return _NAMES[name]
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=ast.Constant(value=int() | float() as number)):
            if not isinstance(number, bool):
                return -number if isinstance(sign, ast.USub) else number
        case ast.List(elts=items):
            return [_literal(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_literal(item) for item in items)
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {_literal(key): _literal(value) for key, value in zip(keys, values, strict=True) if key is not None}
    raise ValueError("not a literal")


def render_python_call(arguments: Mapping[str, Any]) -> str:
    """The inverse of `parse_python_call`, with the fence that ChatGLM3 was trained on.

    Values are JSON values. Numbers that JSON does not have (NaN, infinity) are written as large literals or None.
    """
    words = [f"{name}={_source(value)}" for name, value in arguments.items() if is_keyword(name)]
    rest = {name: value for name, value in arguments.items() if not is_keyword(name)}
    if rest:
        words.append(f"**{_source(rest)}")
    return f"```python\ntool_call({', '.join(words)})\n```"


class ArgumentStream:
    """Converts the arguments of a call to JSON text while the call is being written.

    The results of `feed` together are a beginning of the JSON text of the whole call (`as_json`), so each can be sent
    on at once. The text of a string is returned as it arrives, a number when it is complete. If the call uses other
    syntax than that of `render_python_call` and `json.dumps`, nothing more is returned; the rest is known when the
    whole call is read.

    If an object has a key twice, this text has both, unlike `as_json`.

    Args:
        python: the call is ChatGLM3's `tool_call(name=value, …)`, fenced or bare; else it is a JSON object.
    """

    def __init__(self, python: bool) -> None:
        self._python = python
        self._rest = ""  # text that is not read yet
        self._stack: list[str] = []  # what is open: "(" of the call, "*" for `**{`, "{", "["
        self._filled: list[bool] = []  # whether each of them has a member
        self._due = "start"  # what comes next: a member, a colon, a value, or what follows a value
        self._quote = ""  # quote of the open string
        self._closing = False  # a string has ended; in Python, another one may be joined to it
        self._lost = False

    @property
    def done(self) -> bool:
        """Whether the arguments are complete."""
        return self._due == "end"

    def feed(self, text: str) -> str:
        """Add text of the call; returns more of the JSON text."""
        self._rest += text
        made: list[str] = []
        while self._rest and not self._lost and not self.done:
            piece = self._in_string() if self._quote else self._outside()
            if piece is None:  # more text is needed to decide
                break
            made.append(piece)
        return "".join(made)

    def _lose(self) -> str:
        self._lost = True
        return ""

    def _take(self, length: int) -> str:
        taken, self._rest = self._rest[:length], self._rest[length:]
        return taken

    def _in_string(self) -> str | None:
        if plain := _PLAIN.match(self._rest):
            return _escaped(self._take(plain.end()))
        sign = self._rest[0]
        if sign == self._quote:
            self._take(1)
            self._quote, self._closing = "", True
            return "" if self._python else self._close_string()
        if sign in "'\"":
            return _escaped(self._take(1))
        if sign != "\\":
            is_allowed = self._python and sign.isascii() and sign not in "\n\r\0"
            return _escaped(self._take(1)) if is_allowed else self._lose()
        escape = (_PYTHON_ESCAPE if self._python else _JSON_ESCAPE).match(self._rest)
        if escape is None:
            return None if _BEGUN_ESCAPE.fullmatch(self._rest) else self._lose()
        value = escape[0][1:]
        if len(value) == 1:
            meant = {**_ESCAPED, "/": "/"}[value]
        elif 0xD800 <= (code := int(value[1:], 16)) < 0xE000:  # JSON writes characters above U+FFFF as surrogate pairs
            if self._python or not (pair := _PAIR.match(self._rest)):
                return None if not self._python and _BEGUN_PAIR.fullmatch(self._rest) else self._lose()
            meant, escape = str(json.loads(f'"{pair[0]}"')), pair
        elif code > 0x10FFFF:
            return self._lose()
        else:
            meant = chr(code)
        self._take(escape.end())
        return _escaped(meant)

    def _close_string(self) -> str:
        self._closing = False
        self._due = "colon" if self._due == "member" else "follow"
        return '"'

    def _outside(self) -> str | None:
        self._rest = self._rest.lstrip(" \t\r\n")
        if not self._rest:
            return None
        if self._closing:
            return self._close_string() if self._rest[0] in ",:)]}" else self._lose()
        return {
            "start": self._start,
            "member": self._member,
            "colon": self._colon,
            "value": self._value,
            "follow": self._follow,
        }[self._due]()

    def _start(self) -> str | None:
        if begun := (_CALL if self._python else _BRACE).match(self._rest):
            self._take(begun.end())
            return self._open("(" if self._python else "{")
        return None if self._python and len(self._rest) < 32 else self._lose()

    def _open(self, sign: str) -> str:
        if len(self._stack) == _DEEPEST:
            return self._lose()
        self._stack.append(sign)
        # The members of `**{…}` are arguments of the call, too.
        self._filled.append(self._filled[-1] if sign == "*" else False)
        self._due = "value" if sign == "[" else "member"
        return {"(": "{", "*": ""}.get(sign, sign)

    def _close(self) -> str:
        sign, filled = self._stack.pop(), self._filled.pop()
        if sign == "*":
            self._filled[-1] = filled
        self._due = "follow" if self._stack else "end"
        return {"*": "", "[": "]"}.get(sign, "}")

    def _begin(self) -> str:
        """The text before a member: a comma, except for the first member."""
        comma, self._filled[-1] = ", " if self._filled[-1] else "", True
        return comma

    def _ends(self) -> bool:
        """Whether the innermost open bracket is closed here."""
        return self._rest[0] == _CLOSING[self._stack[-1]]

    def _member(self) -> str | None:
        if self._ends():
            if self._filled[-1] and not self._python:  # JSON has no comma at the end
                return self._lose()
            self._take(1)
            return self._close()
        if self._stack[-1] != "(":
            return self._string(self._begin)
        if splat := _SPLAT.match(self._rest):
            self._take(splat.end())
            return self._open("*")
        named = _NAMED.match(self._rest)
        if named is None:
            return None if _BEGUN_NAME.fullmatch(self._rest) else self._lose()
        if not is_keyword(named[1]):
            return self._lose()
        self._take(named.end())
        self._due = "value"
        return f"{self._begin()}{json.dumps(named[1], ensure_ascii=False)}: "

    def _string(self, begin: Callable[[], str]) -> str | None:
        quote = self._rest[0]
        if quote not in ("'\"" if self._python else '"'):
            return self._lose()
        if self._python:
            if self._rest in (quote, quote * 2):  # three quotes would be another kind of string
                return None
            if self._rest.startswith(quote * 3):
                return self._lose()
        self._take(1)
        self._quote = quote
        return begin() + '"'

    def _colon(self) -> str:
        if self._take(1) != ":":
            return self._lose()
        self._due = "value"
        return ": "

    def _value(self) -> str | None:
        listed = self._stack[-1] == "["
        if listed and self._ends() and (self._python or not self._filled[-1]):
            self._take(1)
            return self._close()
        begin = self._begin if listed else str
        sign = self._rest[0]
        if sign in "'\"":
            return self._string(begin)
        if sign in "{[":
            self._take(1)
            return begin() + self._open(sign)
        word = _WORD.match(self._rest)
        if word is not None and word.end() == len(self._rest):
            return None
        value = None if word is None else self._plain_value(word[0])
        if word is None or value is None:
            return self._lose()
        self._take(word.end())
        self._due = "follow"
        return begin() + value

    def _plain_value(self, word: str) -> str | None:
        if self._python and word in _CONSTANTS:
            word = _CONSTANTS[word]
        if word in _NAMES:
            return word
        if len(word) > _LONGEST_NUMBER or not _DECIMAL.fullmatch(word):
            return None
        if word.removeprefix("-").isdecimal():
            return json.dumps(int(word))
        number = float(word)
        return json.dumps(number) if math.isfinite(number) else None

    def _follow(self) -> str:
        ends, sign = self._ends(), self._take(1)
        if ends:
            return self._close()
        if sign != ",":
            return self._lose()
        self._due = "value" if self._stack[-1] == "[" else "member"
        return ""


_DEEPEST = 64
_LONGEST_NUMBER = 400
_CLOSING = {"(": ")", "*": "}", "{": "}", "[": "]"}
_CALL = re.compile(r"(?:```(?:python|py)?[ \t]*\n\s*)?tool_call\(")
_BRACE = re.compile(r"\{")
_SPLAT = re.compile(r"\*\*\s*\{")
_NAMED = re.compile(r"([^\W\d]\w*)\s*=(?=[^=])")
_BEGUN_NAME = re.compile(r"[^\W\d]\w*\s*=?|\*\*?\s*")
_WORD = re.compile(r"[-+.\w]+")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_PLAIN = re.compile(r"""[^\\'"\x00-\x1f\ud800-\udfff]+""")
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "\\": "\\", '"': '"', "'": "'", "a": "\a", "v": "\v"}
_JSON_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_PYTHON_ESCAPE = re.compile(r"""\\(?:["'\\abfnrtv]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})""")
_BEGUN_ESCAPE = re.compile(r"\\(?:[xuU][0-9a-fA-F]{0,7})?")
_PAIR = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_BEGUN_PAIR = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]?)?)?)?)?")


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def is_keyword(name: str) -> bool:
    """Whether an argument of that name can be written as `name=value`."""
    # Python normalises identifiers to NFKC, which could change the name. A few have characters that `_CHAINED` refuses.
    plain = re.fullmatch(r"\w+", name) is not None and unicodedata.is_normalized("NFKC", name)
    return plain and name.isidentifier() and name not in _RESERVED


_RESERVED = frozenset([*keyword.kwlist, "__debug__"])


def _source(value: Any) -> str:
    if isinstance(value, float) and value != value:
        return "None"
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return "1e999" if value > 0 else "-1e999"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_source(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_source, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_source, value)) + ("," if len(value) == 1 else "") + ")"
    return repr(value)


_JSON_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)


def parse_json_arguments(text: str) -> dict[str, Any] | None:
    """Arguments of a GLM-4 call: the text is one JSON object; None if it is anything else."""
    if len(text) > _LONGEST:
        return None
    if text.count(",") > _MOST_VALUES and _JSON_STRING.sub("", text).count(",") > _MOST_VALUES:
        return None
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return arguments if isinstance(arguments, dict) else None
