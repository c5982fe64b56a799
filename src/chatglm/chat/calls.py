"""Tool calls as models write them, read without executing anything.

ChatGLM3 writes Python, "tool_call(city='北京', days=3)" in a fenced block (THUDM/ChatGLM3, PROMPT.md), which the
official code passes to `eval`. Here it is parsed, and only literals are taken from it. GLM-4 writes a JSON object.
"""

from __future__ import annotations

import ast
import json
import keyword
import re
import unicodedata
import warnings
from collections.abc import Mapping
from typing import Any

__all__ = [
    "FENCES",
    "as_json",
    "begun_arguments",
    "fenced",
    "is_keyword",
    "parse_json_arguments",
    "parse_python_call",
    "render_python_call",
]

FENCES = ("```", "```python", "```py")
"""What may open a block of code."""

_LONGEST = 1 << 20
_NAMES = {"true": True, "false": False, "null": None}


def fenced(text: str) -> str | None:
    """The inside of a text that is one fenced code block; None if it is not."""
    opening, newline, rest = text.strip().partition("\n")
    if not newline or opening.rstrip(" \t") not in FENCES or not rest.endswith("```"):
        return None
    # Not a regular expression: those that say this take quadratic time on a model that repeats blanks.
    return rest[:-3].rstrip(" \t").removesuffix("\n")


def as_json(arguments: Mapping[str, Any]) -> str | None:
    """The arguments of a call as JSON text; None if JSON cannot say them.

    JSON has no infinity, no NaN and no tuple as a key. Half a surrogate pair is no text. Python writes no integer of
    more than 4,300 digits.
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
    `**{"any name": literal}` stands for arguments whose names are no Python identifiers.
    """
    if len(text) > _LONGEST:
        return None
    code = fenced(text)
    code = (text if code is None else code).strip()
    if _is_chained(code):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's opinion of a model's string escapes
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


# An unterminated string runs to where Python would give up, so that one pass over any text is enough.
_STRING_OR_COMMENT = re.compile(
    r"""(?<!\w)[rRuU]?(?:
        '''[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*(?:'''|\Z)
      | \"\"\"[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*(?:\"\"\"|\Z)
      | '[^'\\\n]*(?:\\.[^'\\\n]*)*'?
      | "[^"\\\n]*(?:\\.[^"\\\n]*)*"?
    ) | \#[^\n]*""",
    re.DOTALL | re.VERBOSE,
)
_NUMBER = re.compile(r"(?<![\w.])(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?")
_CHAINED = re.compile(r"[^\w\s()\[\]{},:=+*.'-]|[\w'\])}]\s*[(\[+*.-]|\w'")


def _is_chained(code: str) -> bool:
    """Whether operators, attributes, calls or indices follow an operand, as nowhere in a call with literals.

    `a.a.a…` and `1+1+1…` make a tree as deep as the text is long, on which `ast.parse` of Python 3.10 overflows the
    stack and ends the process. So does the inside of an f-string.
    """
    plain = _STRING_OR_COMMENT.sub(lambda found: "" if found[0][0] == "#" else "''", code)
    plain = re.sub(r"tool_call\s*\(", "(", plain, count=1)
    return _CHAINED.search(_NUMBER.sub("0", plain)) is not None


def _literal(node: ast.expr) -> Any:
    """The value of a literal.

    Raises:
        ValueError: it is not one.
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
    """The inverse of `parse_python_call`, fenced as ChatGLM3 is trained on it.

    Values are JSON values. Numbers that JSON does not have (NaN, infinity) are written as large literals or None.
    """
    words = [f"{name}={_source(value)}" for name, value in arguments.items() if is_keyword(name)]
    rest = {name: value for name, value in arguments.items() if not is_keyword(name)}
    if rest:
        words.append(f"**{_source(rest)}")
    return f"```python\ntool_call({', '.join(words)})\n```"


_BEGUN = re.compile(
    r"""(?P<blank>\s+)
      | (?P<text>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")
      | (?P<open>['"].*)
      | (?P<name>[^\W\d]\w*)\s*=
      | (?P<word>[^\W\d]\w*)
      | (?P<number>[-+.\w]+)
      | (?P<splat>\*\*\s*\{)
      | (?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)
_CONSTANTS = {"True": True, "False": False, "None": None, **_NAMES}
_SIGNS = {",": ", ", ":": ": ", "(": "[", ")": "]"}


def begun_arguments(text: str) -> str:
    """The arguments of a Python call that was cut short, as the beginning of their JSON text; "" if there are none."""
    _, found, rest = text.partition("tool_call(")
    if not found:
        return ""
    made, depth, place, splat = ["{"], 0, 0, False
    while place < len(rest):
        piece = _BEGUN.match(rest, place)
        assert piece is not None  # `sign` takes anything
        kind, token = piece.lastgroup, piece[0]
        place = piece.end()
        match kind:
            case "text":
                made.append(json.dumps(_text_of(token), ensure_ascii=False))
            case "open":
                # Half an escape at its end says nothing yet.
                body = re.sub(r"(?<!\\)((?:\\\\)*)\\(?:u[0-9a-fA-F]{0,3}|x[0-9a-fA-F]?)?\Z", r"\1", token[1:])
                made.append(json.dumps(_text_of(token[0] + body + token[0]), ensure_ascii=False)[:-1])
            case "name":
                made.append(json.dumps(piece["name"], ensure_ascii=False) + ": ")
            case "word":
                known = {"True": "true", "False": "false", "None": "null"}.get(
                    token, token if token in _NAMES else None
                )
                made += [] if known is None else [known]
            case "number":
                made.append(token)
            case "splat":
                splat = True
            case "sign":
                if (token == ")" and depth == 0) or (token == "}" and depth == 0 and splat):
                    return "".join([*made, "}"])
                depth += (token in "([{") - (token in ")]}")
                made.append(_SIGNS.get(token, token if token in "[]{}" else ""))
    return "".join(made)


def _text_of(literal: str) -> str:
    try:
        return str(ast.literal_eval(literal))
    except (ValueError, SyntaxError):
        return literal[1:-1]


def is_keyword(name: str) -> bool:
    """Whether an argument of that name can be written as `name=value`."""
    # Python folds identifiers to NFKC, which could change the name; and a few have signs that `_CHAINED` refuses.
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


def parse_json_arguments(text: str) -> dict[str, Any] | None:
    """Arguments of a GLM-4 call: the text is one JSON object; None if it is anything else."""
    if len(text) > _LONGEST:
        return None
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return arguments if isinstance(arguments, dict) else None
