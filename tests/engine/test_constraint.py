"""Whatever scores a model gives, what it writes under a constraint satisfies it: for every tokenizer of the family."""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatglm.chat.tokenizers import ChatGLM4Tokenizer, ChatGLMTokenizer, IceTextTokenizer, SentencePieceTokenizer
from chatglm.engine.constraint import Constraint, Grammars
from chatglm.errors import InputError, UnsupportedError
from chatglm.loading import demo_folder
from garbage import no_garbage

jsonschema = pytest.importorskip("jsonschema")
pytest.importorskip("llguidance")

VOCABULARIES: dict[str, Callable[[Any], ChatGLMTokenizer]] = {
    "chatglm": lambda shared: IceTextTokenizer(str(shared / "tokenizers" / "ice_text.model")),
    "chatglm2": lambda shared: SentencePieceTokenizer(str(shared / "tokenizers" / "chatglm2-3.model"), "chatglm2"),
    "chatglm3": lambda shared: SentencePieceTokenizer(str(shared / "tokenizers" / "chatglm2-3.model")),
    "glm4": lambda shared: ChatGLM4Tokenizer(str(shared / "tokenizers" / "glm4.model")),
}


class Writer:
    """A model that knows nothing: random scores over one vocabulary, with rows beyond it as in the checkpoints."""

    def __init__(self, tokenizer: ChatGLMTokenizer, stop_ids: set[int]) -> None:
        self.tokenizer, self.stop_ids = tokenizer, stop_ids
        self.tokens = [tokenizer.token_bytes(token) for token in range(len(tokenizer))]
        self.grammars = Grammars(self.tokens, stop_ids)

    def write(self, constraint: Constraint, seed: int, most: int = 400) -> list[int]:
        """An answer without its stop id."""
        generator = torch.Generator().manual_seed(seed)
        # Once and shifted each time: drawing 150,000 numbers a token takes long.
        noise = torch.randn(len(self.tokens) + 100, generator=generator)
        ids: list[int] = []
        for _ in range(most):
            scores = noise.roll(int(torch.randint(len(noise), (), generator=generator)))
            constraint.allow(scores)
            token = int(scores.argmax())
            assert scores[token] > -torch.inf
            constraint.accept(token)
            if token in self.stop_ids:
                return ids
            assert token not in self.tokenizer.control_ids
            assert self.tokens[token]
            ids.append(token)
        raise AssertionError(f"no end after {most} tokens: {self.tokenizer.decode(ids)!r}")

    def text(self, ids: list[int]) -> str:
        return b"".join(self.tokens[token] for token in ids).decode("utf-8")


@pytest.fixture(scope="module", params=["demo", *VOCABULARIES])
def writer(request: pytest.FixtureRequest) -> Writer:
    if request.param == "demo":
        tokenizer = ChatGLMTokenizer.from_pretrained(demo_folder())
    else:
        tokenizer = VOCABULARIES[request.param](request.getfixturevalue("shared"))
    commands = tokenizer._commands()
    stops = {commands[name] for name in ("<eos>", "<eop>", "<|endoftext|>", "<|user|>") if name in commands}
    return Writer(tokenizer, stops)


@pytest.fixture(scope="module")
def demo() -> Writer:
    tokenizer = ChatGLMTokenizer.from_pretrained(demo_folder())
    return Writer(tokenizer, {tokenizer.get_command("<eos>"), tokenizer.get_command("<|user|>")})


LEAVES = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.integers(-50, 50).map(lambda low: {"type": "integer", "minimum": low, "maximum": low + 30}),
    st.integers(0, 6).map(lambda most: {"type": "string", "maxLength": most}),
    st.lists(st.sampled_from(["晴", "a b", 'q"\\', "é\n", 7, -1.5, None, True]), min_size=1, max_size=3).map(
        lambda values: {"enum": values}
    ),
    st.just({"type": "string", "pattern": "^[a-c]{2}\\d?$"}),
)
NAMES = st.sampled_from(["city", "城市", "a b", 'q"', "n\\"])


def objects(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(NAMES, parts, min_size=1, max_size=3).map(
        lambda properties: {
            "type": "object",
            "properties": properties,
            "required": sorted(properties)[:2],
            "additionalProperties": False,
        }
    )


SCHEMAS = st.recursive(
    LEAVES,
    lambda parts: st.one_of(
        objects(parts),
        st.tuples(parts, st.integers(0, 2)).map(
            lambda two: {"type": "array", "items": two[0], "minItems": two[1], "maxItems": 2}
        ),
        st.lists(parts, min_size=1, max_size=2).map(lambda several: {"anyOf": several}),
    ),
    max_leaves=3,
)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=SCHEMAS, seed=st.integers(0, 2**31))
def test_json_of_a_schema(writer: Writer, schema: dict[str, Any], seed: int) -> None:
    ids = writer.write(writer.grammars.json_schema(schema), seed)
    value = json.loads(writer.text(ids))
    jsonschema.validate(value, schema)
    # What a user gets, by the tokenizer's own decoder, is the same.
    assert json.loads(writer.tokenizer.decode(ids)) == value


def test_lead(writer: Writer) -> None:
    for seed in range(3):
        ids = writer.write(writer.grammars.json_schema({"enum": ["晴"]}, lead=" ?\n ?"), seed)
        assert re.fullmatch(' ?\n ?"晴"', writer.text(ids))
        ids = writer.write(writer.grammars.regex("[a-c]/{1,3}晴", lead="/?"), seed)
        assert re.fullmatch("/?[a-c]/{1,3}晴", writer.text(ids))


def test_any_way_to_cut_the_text_is_allowed(writer: Writer) -> None:
    constraint = writer.grammars.regex("hello world")
    scores = torch.zeros(len(writer.tokens))
    constraint.allow(scores)
    allowed = {writer.tokens[token] for token in (scores == 0).nonzero()[:, 0].tolist()}
    assert allowed == {token for token in writer.tokens if token and b"hello world".startswith(token)}


@pytest.mark.parametrize(
    "grammar",
    ['root ::= ("hello " | "bye ") name\nname ::= [A-Z] [a-z]{1,3}', 'start: ("hello " | "bye ") /[A-Z][a-z]{1,3}/'],
)
def test_grammars(demo: Writer, grammar: str) -> None:
    for seed in range(5):
        text = demo.text(demo.write(demo.grammars.grammar(grammar), seed))
        assert re.fullmatch("(hello |bye )[A-Z][a-z]{1,3}", text)


def test_a_grammar_around_a_schema(demo: Writer) -> None:
    grammar = 'start: "get(" %json {"type": "integer", "minimum": 0, "maximum": 99} ")"'
    text = demo.text(demo.write(demo.grammars.grammar(grammar), 1))
    assert re.fullmatch(r"get\(\d{1,2}\)", text)


def test_states(demo: Writer) -> None:
    first = demo.grammars.regex("ab?")
    start = first.fork()
    other = demo.grammars.regex("ab?")
    a, b = demo.tokens.index(b"a"), demo.tokens.index(b"b")
    first.accept(a)
    assert not first.finished()
    fork = first.fork()
    fork.accept(b)
    assert fork.finished()
    assert not first.finished()
    for untouched in (start, other):
        with pytest.raises(InputError, match="not allowed"):
            untouched.accept(b)
    # A stop id may come where the text may end, and closes it.
    scores = torch.zeros(len(demo.tokens))
    first.allow(scores)
    assert {t for t in (scores == 0).nonzero()[:, 0].tolist() if not demo.tokens[t]} == demo.stop_ids
    first.accept(min(demo.stop_ids))
    assert first.finished()


def test_blanks_have_an_end(demo: Writer) -> None:
    constraint = demo.grammars.json_schema({"type": "array", "items": {"type": "boolean"}, "maxItems": 1})
    blanks = 0
    for _ in range(200):
        scores = torch.tensor([float(t.isspace()) * 2 - float(t == b"") for t in demo.tokens])
        constraint.allow(scores)
        token = int(scores.argmax())
        if token in demo.stop_ids:
            break
        blanks += len(demo.tokens[token]) if demo.tokens[token].isspace() else 0
        constraint.accept(token)
    assert constraint.finished()
    assert 0 < blanks <= 160


@pytest.mark.parametrize(
    ("schema", "error", "message"),
    [
        ({"type": "array", "uniqueItems": True}, UnsupportedError, "uniqueItems"),
        ({"not": {"type": "string"}}, UnsupportedError, "`not`"),
        ({"type": "array", "uniqueItems": True, "x-guidance": {"lenient": True}}, UnsupportedError, "uniqueItems"),
        (
            {"properties": {"a": {"type": "array", "uniqueItems": True, "x-guidance": {"lenient": True}}}},
            UnsupportedError,
            "uniqueItems",
        ),
        ({"type": "nope"}, InputError, "nope"),
        ({"allOf": [{"type": "string"}, {"type": "null"}]}, InputError, "Unsatisfiable"),
        ([1], InputError, "expected an object"),
        (False, InputError, "expected an object"),
        ({"enum": [object()]}, InputError, "JSON schema: "),
    ],
)
def test_schemas_that_are_refused(demo: Writer, schema: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        demo.grammars.json_schema(schema)


def test_text_that_is_no_grammar(demo: Writer) -> None:
    with pytest.raises(InputError, match="regular expression: "):
        demo.grammars.regex("(a")
    for pattern, what in (("a(?=b)", "look-ahead"), (r"(a)\1", "references"), (r"\bword", "word boundaries")):
        with pytest.raises(UnsupportedError, match=f"regular expression: .*{what}"):
            demo.grammars.regex(pattern)
    for text in ("root ::= nope", "start: nope", "!!", ""):
        with pytest.raises(InputError, match="grammar: "):
            demo.grammars.grammar(text)
    with pytest.raises(InputError, match="regular expression: "):
        demo.grammars.regex("a", lead="(")


def test_stop_ids_must_be_there(demo: Writer) -> None:
    for stops in (set(), {len(demo.tokens)}):
        with pytest.raises(InputError, match="stop_ids"):
            Grammars(demo.tokens, stops)


def test_what_is_kept_is_bounded(demo: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled grammars grow with the tokens that are taken by them: those that have grown most are compiled again."""
    grammars = Grammars(demo.tokens, demo.stop_ids)
    monkeypatch.setattr("chatglm.engine.constraint._KEPT_TOKENS", 300)
    compiled: list[str] = []
    compile_one = grammars._compile
    monkeypatch.setattr(grammars, "_compile", lambda text, *rest: (compiled.append(text), compile_one(text, *rest))[1])
    proven: list[str] = []
    prove = grammars._prover.prove
    monkeypatch.setattr(grammars._prover, "prove", lambda text: (proven.append(text), prove(text)))
    token = demo.tokens.index(b"a")

    def take(length: int, tokens: int) -> None:
        constraint = grammars.regex(f"a{{{length}}}")
        for _ in range(tokens):
            constraint.accept(token)

    for _ in range(5):
        take(200, 200)
        take(100, 10)
    assert len(compiled) == 4  # the first is forgotten after 400 tokens, twice
    assert len(proven) == 2
    monkeypatch.setattr("chatglm.engine.constraint._KEPT_TEXT", 1000)
    for length in range(1, 20):
        take(length, 0)
    assert sum(kept.size for kept in grammars._compiled.values()) <= 1000
    assert grammars._compiled


def test_a_refusal_does_not_keep_what_was_asked(demo: Writer) -> None:
    """It is remembered for minutes; a request may be large."""
    asked: list[weakref.ref[Any]] = []

    def ask() -> str:
        request = torch.zeros(1)
        asked.append(weakref.ref(request))
        try:
            demo.grammars.json_schema({"allOf": [{"type": "integer"}, {"const": "nobody else asks for this"}]})
        except InputError as error:
            return str(error)
        raise AssertionError("it is not refused")

    with no_garbage():
        assert ask() == ask()
        assert [one() for one in asked] == [None, None]
