"""Grammars of callers harm nobody: each is compiled, or refused with a typed error, and the process goes on."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from chatglm.engine import compiling
from chatglm.engine.constraint import Constraint, Grammars
from chatglm.errors import InputError, UnsupportedError
from random_schemas import random_schema

jsonschema = pytest.importorskip("jsonschema")
pytest.importorskip("llguidance")

# One token a byte, and some longer ones; the last is the stop id.
TOKENS = [bytes([value]) for value in range(255)] + [
    b'": "',
    b'", "',
    b'{"',
    b"true",
    b"  ",
    b"123",
    "北京".encode(),
    b"",
]
STOP = len(TOKENS) - 1


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(TOKENS, {STOP})


def test_an_interrupted_trial_leaves_no_answer_for_the_next(
    grammars: Grammars, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = compiling._read

    def interrupted(pipe: Any) -> Any:
        monkeypatch.setattr(compiling, "_read", read)
        raise KeyboardInterrupt

    for _ in range(3):  # each worker there may be
        monkeypatch.setattr(compiling, "_read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            grammars.regex("a+")
        with pytest.raises(InputError):
            grammars.grammar("start: nothing_here")
        grammars.regex("b+")


def write(constraint: Constraint, chance: random.Random, most: int = 1500) -> bytes:
    """A text by chance, with a liking for its end."""
    text = bytearray()
    for _ in range(most):
        scores = torch.zeros(len(TOKENS))
        constraint.allow(scores)
        allowed = (scores == 0).nonzero()[:, 0].tolist()
        closing = [token for token in allowed if TOKENS[token] in (b'"', b"]", b"}")]
        token = STOP if STOP in allowed else closing[0] if closing and chance.random() < 0.3 else chance.choice(allowed)
        constraint.accept(token)
        if token == STOP:
            return bytes(text)
        text += TOKENS[token]
    raise AssertionError(f"no end: {text[-200:]!r}")


def made_or_refused(make: Callable[[], Constraint]) -> Constraint | str:
    """A constraint, or the error's message if it is one that a caller can use."""
    try:
        return make()
    except (InputError, UnsupportedError) as error:
        said = str(error)
    assert len(said) < 700
    assert "panic" not in said
    assert "backtrace" not in said
    return said


@pytest.mark.parametrize("start", range(0, int(os.environ.get("CHATGLM_RANDOM_SCHEMAS", "120")), 40))
def test_random_schemas_are_followed_or_refused(grammars: Grammars, start: int) -> None:
    """400 of them: CHATGLM_RANDOM_SCHEMAS=400."""
    followed = 0
    for seed in range(start, start + 40):
        schema = random_schema(seed)
        constraint = made_or_refused(lambda schema=schema: grammars.json_schema(schema))
        if isinstance(constraint, str):
            continue
        for number in range(2):
            value = json.loads(write(constraint.fork(), random.Random(number)))
            jsonschema.validate(value, schema)
        followed += 1
    assert followed >= 15


def chain(length: int, sign: str = ":", start: str = "start") -> str:
    rules = [f'r{n} {sign} r{n + 1} "a"' for n in range(length)]
    return "\n".join([f"{start} {sign} r0", *rules, f'r{length} {sign} "b"'])


HURTFUL: dict[str, Any] = {
    "smallest integer": {"type": "integer", "const": -(2**63)},
    "smallest integers": {"enum": [-(2**63)]},
    "empty range": {"type": "integer", "minimum": -(2**64), "maximum": -(2**64) - 1},
    "wide range": {"type": "integer", "minimum": 2**62, "maximum": 2**63},
    "many optional properties": {"properties": {f"p{n}": {"type": "string"} for n in range(500)}},
    "product of choices": {
        "allOf": [{"anyOf": [{"properties": {f"{n}{m}": {}}} for n in range(20)]} for m in range(20)]
    },
    "itself": {"$ref": "#"},
    "wide": {"properties": {f"p{n}": {"enum": [f"{n} {m}" for m in range(40)]} for n in range(250)}},
    "chain of rules": chain(6000),
    "chain that fits": chain(190),
    "GBNF": chain(4000, "::=", "root"),
    "many rules in GBNF": chain(900, "::=", "root"),
    "circle of rules": "start: a\na: b\nb: a",
    "parentheses": "start: " + "(" * 5000 + '"a"' + ")" * 5000,
    "GBNF parentheses": "root ::= " + "(" * 5000 + '"a"' + ")" * 5000,
    "count": 'start: "a"{1,2000000000}',
    "counts": 'start: (("a"{1,9999}){1,9999}){1,9999}',
    "token": 'start: <[255]> "hello"',
    "tokens": "start: <[0-255]>",
    "named token": "start: <|user|>",
    "other grammar": "start: @answer",
    "switch": 'start: %json {"x-guidance": {"lenient": true}, "type": "array", "uniqueItems": true}',
    "integer in Lark": 'start: %json {"const": -9223372036854775808}',
    "options": '%llguidance {"allow_invalid_utf8": true}\nstart: "a"',
    "surrogate": 'start: "\ud800"',
    "large": 'start: "' + "a" * 200_000 + '"',
    "no JSON": "start: %json {nope}",
    "deep JSON": "start: %json " + "[" * 100_000,
}


@pytest.mark.parametrize("name", HURTFUL)
def test_hurtful_grammars(grammars: Grammars, name: str) -> None:
    given = HURTFUL[name]
    made = made_or_refused(lambda: grammars.grammar(given) if isinstance(given, str) else grammars.json_schema(given))
    assert isinstance(made, str) != (name in ("wide", "counts", "chain that fits"))
    if not isinstance(made, str):
        made.allow(torch.zeros(len(TOKENS)))
    assert grammars.regex("a+")


@pytest.mark.parametrize(
    ("pattern", "refused"),
    [
        ("(" * 500 + "a" + ")" * 500, True),
        ("a{1,1000000}", True),
        ("((a{1,99}){1,99}){1,99}", True),
        ("x" * 5000, True),
        ("[", True),
        ("a(?=b)", True),
        ("\ud800", True),
        ("(.*a){30}b", False),
        (r"\p{L}{1,1000}", False),
    ],
)
def test_hurtful_expressions(grammars: Grammars, pattern: str, refused: bool) -> None:
    made = made_or_refused(lambda: grammars.regex(pattern))
    assert isinstance(made, str) == refused
    if isinstance(made, str):
        assert made.startswith("regular expression: ")
    else:
        made.allow(torch.zeros(len(TOKENS)))


@pytest.mark.parametrize("grammar", ["start: s\ns: s s s | s s | /[a-z]/", 'start: e\ne: e e | e e e e | "a" | "aa"'])
def test_an_ambiguous_grammar_ends_with_its_answer(grammars: Grammars, grammar: str) -> None:
    constraint = grammars.grammar(grammar)
    other = constraint.fork()

    def follow() -> None:
        for _ in range(2000):
            constraint.allow(torch.zeros(len(TOKENS)))
            constraint.accept(ord("a"))

    with pytest.raises(UnsupportedError, match="the output's grammar"):
        follow()
    other.accept(ord("a"))


def test_stop_ids_come_only_where_the_text_may_end(grammars: Grammars) -> None:
    constraint = grammars.grammar('start: "ab" "c"?')
    for token, ends in ((ord("a"), False), (ord("b"), False), (ord("c"), True)):
        scores = torch.zeros(len(TOKENS))
        constraint.allow(scores)
        assert (scores[STOP] == 0) == ends
        constraint.accept(token)
    assert constraint.finished()


def test_a_worker_that_dies_costs_one_grammar(grammars: Grammars, monkeypatch: pytest.MonkeyPatch) -> None:
    prover = grammars._prover
    grammars.regex("first")
    for worker in list(prover._started):
        os.kill(worker._process.pid, signal.SIGKILL)
    failed = 0
    for text in ("second", "third", "fourth", "fifth"):
        made = made_or_refused(lambda text=text: grammars.regex(text))
        if isinstance(made, str):
            assert "regular expression: it takes too much time, memory or depth" in made
            failed += 1
    assert failed <= compiling.WORKERS
    assert grammars.regex("sixth")


def test_one_grammar_is_tried_once_for_all_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Grammars(TOKENS, {STOP})
    tried: list[str] = []
    prove = mine._prover.prove
    monkeypatch.setattr(mine._prover, "prove", lambda grammar: (tried.append(grammar), prove(grammar)))
    threads = [threading.Thread(target=mine.regex, args=("[a-z]{3}",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tried) == 1
    for _ in range(3):  # refusals are kept, too
        with pytest.raises(InputError):
            mine.regex("(")
    assert len(tried) == 2


def test_without_a_worker_only_small_grammars_are_compiled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    mine = Grammars(TOKENS, {STOP})
    with caplog.at_level(logging.WARNING, "chatglm"):
        assert write(mine.grammar('root ::= "a"'), random.Random(0)) == b"a"
    assert "no process can be started" in caplog.text
    with pytest.raises(UnsupportedError, match="at most 16,384"):
        mine.json_schema({"enum": [f"{n:09}" for n in range(3000)]})


def test_workers_end_with_their_parent() -> None:
    code = """
import json, os, sys
from chatglm.engine.compiling import Prover

prover = Prover([bytes([n]) for n in range(255)] + [b""], {255})

def use():
    lark = '%llguidance {"no_forcing": true}' + chr(10) + "start: /a/"
    prover.prove(json.dumps({"grammars": [{"lark_grammar": lark}]}))
    print(*(worker._process.pid for worker in prover._started), flush=True)

use()
if sys.argv[1] == "fork" and os.fork() == 0:
    use()
elif sys.argv[1] == "kill":
    os.kill(os.getpid(), 9)
"""
    for how in ("end", "kill", "fork"):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, how], capture_output=True, text=True, timeout=120
        )
        pids = [int(pid) for pid in done.stdout.split()]
        assert len(pids) == (2 if how == "fork" else 1), done.stderr
        deadline = threading.Event()
        for pid in pids:
            for _ in range(200):
                if not _runs(pid):
                    break
                deadline.wait(0.1)
            assert not _runs(pid), how


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(") ", 1)[1][0] != "Z"
    except OSError:
        return False


def test_a_worker_imports_nothing_heavy() -> None:
    heavy = "[name for name in ('torch', 'numpy', 'transformers') if name in sys.modules]"
    code = f"import sys; import chatglm.engine.compiling; print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout == "[]\n"
