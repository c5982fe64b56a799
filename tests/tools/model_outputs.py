"""What models write where a tool call should be: right, nearly right, and hostile. Seeded: the same every time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from chatglm.chat.calls import render_python_call

NAMES = (
    "echo",
    "echo",
    "add",
    "Echo ",
    "functions.echo",
    "interpreter",
    "python",
    "__import__",
    "os.system",
    "",
    " ",
    "\0",
    "get_weather\r",
    "e" * 10_000,
    "回声",
    "\u202eecho",
    "echo()",
    "tool_call",
    "\ud800",
    "../echo",
    "eval",
)
CALL, JSON = "```python\ntool_call({})\n```", "{{{}}}"
NESTS = (
    ("[", "]"), ("(", ")"), ("{", "}"), ('{"a":', "}"), ("{'a':[", "]}"), ("-", ""), ("+", ""), ("~", ""), ("not ", ""),
    ("lambda:", ""), ("[[]", ""), ("f(", ")"), ("'{", ""), ("[(", ")]"), ("((", ""),
)  # fmt: skip


def outputs(count: int, mark: str, seed: int = 0) -> Iterator[str]:
    """
    Args:
        mark: a file that the hostile ones would make, if anything ran them.
    """
    random = Random(seed)
    kinds: list[tuple[int, Callable[[Random, str], str]]] = [
        (30, _right),
        (30, _broken),
        (8, _nested),
        (16, _expression),
        (8, _number),
        (6, _text),
        (4, _noise),
    ]
    weights = [weight for weight, _ in kinds]
    for number in range(count):
        if number % 500 == 0:
            yield f"{random.choice(NAMES)}\n{_large(random, number // 500)}"
            continue
        ((_, make),) = random.choices(kinds, weights)
        yield f"{random.choice(NAMES)}\n{make(random, mark)}"


def _value(random: Random, depth: int = 0) -> Any:
    kind = random.randrange(9 if depth < 4 else 6)
    if kind == 0:
        return random.choice([None, True, False])
    if kind == 1:
        return random.choice([0, -1, 1, 2**63, -(2**64), 10**30, 1.5, -0.0, 1e300, 5e-324])
    if kind < 6:
        return "".join(random.choices("ab北京'\"\\\n\t{}[]()=,#`𠮷\u2028\x7f", k=random.randrange(12)))
    if kind == 6:
        return [_value(random, depth + 1) for _ in range(random.randrange(4))]
    return {_name(random): _value(random, depth + 1) for _ in range(random.randrange(4))}


def _name(random: Random) -> str:
    return random.choice(
        ["x", "text", "a", "b", "城市", "class", "a b", "__class__", "", "ª", "__debug__", "'", "x" * 300]
    )


def _right(random: Random, mark: str) -> str:
    arguments = random.choice(
        [{"x": _value(random)}, {"a": random.choice([1, "2", 3.0]), "b": 2}, {_name(random): _value(random)}]
    )
    return (
        render_python_call(arguments)
        if random.random() < 0.6
        else json.dumps(arguments, ensure_ascii=random.random() < 0.5)
    )


def _broken(random: Random, mark: str) -> str:
    text = list(_right(random, mark))
    for _ in range(random.randint(1, 4)):
        place = random.randrange(len(text) + 1)
        match random.randrange(4):
            case 0:
                text[place : place + random.randint(1, 9)] = []
            case 1:
                text[place:place] = random.choice("()[]{}'\"`,:=*\\#\0\ud800\n;.@!$%&|~<>-+/ ")
            case 2:
                text[place:place] = text[place : place + random.randint(1, 30)]
            case _:
                text[place:] = []
    return "".join(text)


def _nested(random: Random, mark: str) -> str:
    depth = random.choice([10, 60, 90, 150, 250, 1000, 3000, 10_000])
    opening, closing = random.choice(NESTS)
    inner = opening * depth + random.choice(["1", "", "'x'"]) + closing * random.choice([depth, depth, depth - 1, 0])
    return CALL.format(f"x={inner}") if random.random() < 0.5 else JSON.format(f'"x": {inner}')


def _expression(random: Random, mark: str) -> str:
    wrote = f"open({mark!r}, 'w')"
    told = random.choice(
        [
            wrote,
            f"__import__('os').system('touch {mark}')",
            f"[{wrote} for _ in [1]]",
            f"(lambda: {wrote})()",
            f"{{'a': {wrote}}}",
            f"f'{{{wrote}}}'",
            f"f\"{{__import__('os').system('touch {mark}')!r:>{{10}}}}\"",
            f"eval({wrote!r})",
            f"exec({wrote!r})",
            f"(x := {wrote})",
            f"x if {wrote} else y",
            f"{wrote} or 1",
            f"*[{wrote}]",
            f"**{{'y': {wrote}}}",
            f"().__class__.__base__.__subclasses__()[0]({wrote})",
            f"yield {wrote}",
            f"await {wrote}",
            f"[*{wrote}]",
            f"{{**{wrote}}}",
            f"-{wrote}",
            f"{wrote}.name",
            f"{wrote}[0]",
            "'x' * 10**9",
            "9**9**9**9",
            "1 << 10**9",
            "x" + ".a" * 5000,
            "1" + "+1" * 5000,
            "a" + "[0]" * 5000,
            "f" + "()" * 5000,
            "'a' " * 5000,
            "b'x'",
            "1j",
            "...",
            "print",
            "tool_call(x=1)",
        ]
    )
    return random.choice(
        [
            CALL.format(f"x={told}"),
            CALL.format(told),
            CALL.format(f"x=1, **{{'text': {told}}}"),
            JSON.format(f'"x": {told}'),
            f"```python\n{told}\ntool_call(x=1)\n```",
            f"```python\ntool_call(x=1)\n{told}\n```",
            f"```python\n{told}.tool_call(x=1)\n```",
            CALL.format(f"x=1); {told}; print("),
            f"tool_call(x={told})",
            CALL.format(f"x=1) if {told} else tool_call(x=2"),
        ]
    )


def _number(random: Random, mark: str) -> str:
    told = random.choice(
        [
            "NaN",
            "nan",
            "Infinity",
            "-Infinity",
            "1e999",
            "-1e999",
            "0x" + "f" * 20_000,
            "9" * 5000,
            "1_000",
            "0b1",
            "07",
            "1e-999",
            "1" * 4301,
            "-" * 50 + "1",
            "+1",
            "1.",
            ".5",
            "0.1" + "0" * 5000,
            "inf",
            "float('nan')",
            "1e5",
            "-0",
            "00",
            "1__0",
        ]
    )
    return random.choice(
        [
            CALL.format(f"x={told}"),
            CALL.format(f"a={told}, b=1"),
            JSON.format(f'"x": {told}'),
            JSON.format(f'"a": [{told}]'),
        ]
    )


def _text(random: Random, mark: str) -> str:
    told = random.choice(
        [
            r"'\ud800'",
            r"'\ud83d\ude00'",
            r'"\ud800"',
            r'"\udc00\ud800"',
            r"'\x00'",
            r"'\N{DIGIT ONE}'",
            r"'\N{NO SUCH NAME}'",
            r"'\u12'",
            r"'\U00110000'",
            r"'\xg'",
            "'\ud800'",
            "'''a'''",
            '"""a\n"""',
            "r'\\'",
            "'a' 'b'",
            "'a\nb'",
            "u'x'",
            "rb'x'",
            "'\\\n'",
            r'"\u0000"',
            '"\t"',
            "'''",
            '"',
            "'" * 7,
            r"'\8'",
            "“x”",
            "{1, 2}",
            "{'a': 1, 'a': 2}",
            "{None: 1}",
            "{(1,): 2}",
            "{1: 2, 'a': 3}",
            "{[]: 1}",
            "(1, 2)",
            "()",
            "(1,)",
            "{}",
            "set()",
        ]
    )
    return random.choice(
        [
            CALL.format(f"x={told}"),
            CALL.format(f"x={told}, x={told}"),
            JSON.format(f'"x": {told}'),
            CALL.format(f"**{{'x': {told}}}"),
            CALL.format(f"**{{{told}: 1}}"),
        ]
    )


def _noise(random: Random, mark: str) -> str:
    return "".join(
        chr(random.choice([random.randrange(128), random.randrange(0x3000), random.randrange(0x110000)]))
        for _ in range(random.randrange(300))
    )


def _large(random: Random, number: int) -> str:
    size = 1_000_000
    return [
        CALL.format("x='" + "a" * size + "'"),
        JSON.format('"x": "' + "北" * (size // 3) + '"'),
        CALL.format("x='" + "\\n" * (size // 2) + "'"),
        JSON.format('"x": [' + "1," * (size // 2) + "1]"),
        CALL.format("x=[" + "1," * (size // 2) + "]"),
        CALL.format("x=" + "'a' " * (size // 4)),
        CALL.format("x=" + "[" * size),
        JSON.format('"x": ' + "[" * size),
        "`" * size,
        "```python\n" * (size // 10),
        CALL.format(" " * size),
        "'" * size,
        CALL.format(",".join(f"k{n}=1" for n in range(size // 10))),
        JSON.format(",".join(f'"k{n}":1' for n in range(size // 10))),
        CALL.format("x='" + "\\'" * (size // 2)),
        CALL.format("#" * size),
        "tool_call(" * (size // 10),
        CALL.format("x=1" + "+1" * (size // 2)),
        CALL.format("x=[" + "[]," * (size // 3) + "]"),
        JSON.format('"x": {' + '"a":{},' * (size // 8) + '"b":1}'),
    ][number % 20]
