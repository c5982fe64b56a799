"""Computes arithmetic expressions as people and models write them, without executing code. Values are limited."""

from __future__ import annotations

import ast
import math
import re
import unicodedata
from collections.abc import Callable
from typing import Any

__all__ = ["calculate"]

_LONGEST = 200
_MOST_BITS = 8_192
"""Most bits of an integer: about 2,400 digits."""
_MOST_PLACES = 2_500
"""Most digits before or after the decimal point to which a number is rounded; no value has more."""
_CONSTANTS = {"pi": math.pi, "π": math.pi, "e": math.e}


def _rounded(value: float, places: int | None = None) -> float:
    """`round` with a limited number of places: for an integer, Python would first compute 10 to the power of it."""
    if places is None:
        return round(value)
    return round(value, max(-_MOST_PLACES, min(places, _MOST_PLACES)))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs, "round": _rounded, "min": min, "max": max, "sqrt": math.sqrt, "exp": math.exp, "ln": math.log,
    "log": math.log, "log2": math.log2, "log10": math.log10, "lg": math.log10, "sin": math.sin, "cos": math.cos,
    "tan": math.tan, "asin": math.asin, "acos": math.acos, "atan": math.atan, "floor": math.floor, "ceil": math.ceil,
}  # fmt: skip
_TIMES = re.compile(r"(?<![\w.])0[xX][0-9a-fA-F]+|(?<=[\d)])\s*[xX]\s*(?=[\d(.-])")  # 0x10 is a number; 3x4 is not
_SIGNS = str.maketrans(
    {"×": "*", "·": "*", "∙": "*", "÷": "/", "−": "-", "–": "-", "—": "-", "。": ".", "加": "+", "减": "-"}
)


def calculate(expression: str) -> int | float:
    """The value of an arithmetic expression. It is parsed, not executed.

    It may have numbers, brackets, `+ - * / // % **`, a few functions (`sqrt`, `sin`, `round` …), `pi` and `e`.
    Full-width signs, `×`, `÷`, `x` and `^`, commas between thousands, and `=` or `=?` at the end are accepted, too.

    Raises:
        ValueError: it is not such an expression, has no value, or its value is too large.
    """
    if len(expression) > _LONGEST:
        raise ValueError(f"an expression has at most {_LONGEST} characters")
    plain = unicodedata.normalize("NFKC", expression).translate(_SIGNS).replace("^", "**")
    plain = re.sub("乘以|乘", "*", re.sub("除以", "/", plain))
    plain = re.sub(r"\s*=\s*\??\s*$", "", plain).strip()
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", plain)
    plain = _TIMES.sub(lambda found: found[0] if found[0].startswith("0") else "*", plain)
    plain = re.sub(r"(?<=[\d)])\s*%(?=\s*(?:$|[)*/+]))", "/100", plain)
    try:
        value = _value(ast.parse(plain, mode="eval").body)
    except (SyntaxError, UnicodeError, RecursionError, MemoryError, TypeError):
        raise ValueError(f"not an arithmetic expression: {expression[:80]}") from None
    except ZeroDivisionError:
        raise ValueError("division by zero") from None
    except OverflowError:
        raise ValueError("the value is too large") from None
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("the value is too large")
        value = float(f"{value:.12g}")  # 0.1 + 0.2 is 0.3
        return int(value) if value.is_integer() and abs(value) < 1e15 else value
    return value


def _value(node: ast.expr) -> int | float:
    match node:
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=int() | float() as number):
            return _bounded(number)
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_value(inner)
        case ast.UnaryOp(op=ast.UAdd(), operand=inner):
            return _value(inner)
        case ast.BinOp(left=left, op=operator, right=right):
            return _bounded(_operation(operator, _value(left), _value(right)))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            value = _applied(name, [_value(argument) for argument in arguments])
            if isinstance(value, int | float):
                return _bounded(value)
    raise SyntaxError


def _applied(name: str, values: list[int | float]) -> Any:
    try:
        return _FUNCTIONS[name](*values)
    except ValueError:
        raise ValueError(f"{name} has no value there") from None


def _operation(operator: ast.operator, left: Any, right: Any) -> Any:
    match operator:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.Div():
            whole = isinstance(left, int) and isinstance(right, int) and right and left % right == 0
            return left // right if whole else left / right
        case ast.FloorDiv():
            return left // right
        case ast.Mod():
            return left % right
        case ast.Pow():
            if isinstance(left, int) and isinstance(right, int) and abs(right) * left.bit_length() > _MOST_BITS:
                if abs(left) > 1:
                    raise OverflowError
                right = right % 2 if right >= 0 else -(right % 2)  # the base is 0, 1 or -1
                if right == 0 and left == 0:
                    return 0
            return left**right
    raise SyntaxError


def _bounded(value: Any) -> Any:
    if isinstance(value, complex):
        raise ValueError("the value is no real number")
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise OverflowError
    return value
