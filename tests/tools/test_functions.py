"""A Python function as a tool: what a model is shown of it, and what of a call's arguments it gets."""

from __future__ import annotations

import asyncio
import collections
import datetime
import decimal
import enum
import functools
import inspect
import io
import json
import subprocess
import sys
import typing
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import jsonschema
import numpy
import pydantic
import pytest
import typing_extensions
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from typing_extensions import NotRequired, TypedDict

from chatglm.chat.grammars import parameters_of
from chatglm.chat.messages import ToolSpec
from chatglm.errors import DependencyError, InputError, ToolError
from chatglm.tools import Function, Outcome
from chatglm.tools.docstrings import read_docstring
from chatglm.tools.pictures import png_problem
from chatglm.tools.results import as_text, cut, failure, outcome_of, shown


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Point:
    x: int
    y: float = 0.5


class Place(BaseModel):
    """Somewhere."""

    title: str = Field(description="what it is called")
    at: Point
    tags: list[str] = []


class Options(TypedDict):
    deep: bool
    depth: NotRequired[int]


class Tree(BaseModel):
    children: list[Tree] = []


class Ends(BaseModel):
    maybe: Optional[Point] = None  # noqa: UP045


def properties(function: Callable[..., Any]) -> dict[str, Any]:
    found: dict[str, Any] = Function.of(function).spec.flat()["parameters"]["properties"]
    return found


def takes(hint: Any) -> Function:
    """A function of one parameter of that type, which it returns."""

    def take(x: Any) -> Any:
        """Takes."""
        return x

    take.__annotations__["x"] = hint
    return Function.of(take)


# Schemas and values


@pytest.mark.parametrize(
    ("hint", "schema", "given", "value"),
    [
        (str, {"type": "string"}, "a", "a"),
        (int, {"type": "integer"}, "3", 3),
        (int, {"type": "integer"}, 3.0, 3),
        (float, {"type": "number"}, "2.5", 2.5),
        (float, {"type": "number"}, 2, 2.0),
        (bool, {"type": "boolean"}, "true", True),
        (list[int], {"type": "array", "items": {"type": "integer"}}, ("1", 2), [1, 2]),
        (list, {"type": "array"}, [1, "a"], [1, "a"]),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}, {"a": "1"}, {"a": 1}),
        (Literal["C", "F"], {"type": "string", "enum": ["C", "F"]}, "F", "F"),
        (Colour, {"type": "string", "enum": ["red", "blue"]}, "red", Colour.RED),
        (Level, {"type": "integer", "enum": [1, 2]}, 2, Level.HIGH),
        (datetime.date, {"type": "string", "format": "date"}, "2026-11-29", datetime.date(2026, 11, 29)),
        (uuid.UUID, {"type": "string", "format": "uuid"}, "0" * 32, uuid.UUID(int=0)),
        (Path, {"type": "string", "format": "path"}, "a/b", Path("a/b")),
        (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}, "x", "x"),
        (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}, None, None),  # noqa: UP045
        (Annotated[int, Field(ge=1, le=7)], {"type": "integer", "minimum": 1, "maximum": 7}, "7", 7),
        (Any, {}, {"a": [1]}, {"a": [1]}),
    ],
)  # fmt: skip
def test_types(hint: Any, schema: Any, given: Any, value: Any) -> None:
    function = takes(hint)
    assert function.spec.flat()["parameters"]["properties"]["x"] == schema
    (found,) = function.bind({"x": given}).values()
    assert found == value
    assert type(found) is type(value)


def test_decimals_and_tuples() -> None:
    assert takes(decimal.Decimal).bind({"x": "0.1"}) == {"x": decimal.Decimal("0.1")}
    assert takes(tuple[int, str]).bind({"x": [1, "a"]}) == {"x": (1, "a")}
    with pytest.raises(InputError, match="x"):
        takes(tuple[int, str]).bind({"x": [1]})


def test_structures_stand_in_the_schema_itself() -> None:
    def visit(place: Place, options: Options, also: list[Point], title: str = "") -> None:
        """Visits."""

    shown = json.dumps(Function.of(visit).spec.given)
    assert "$" not in shown
    found = properties(visit)
    point = {
        "type": "object",
        "properties": {"x": {"type": "integer"}, "y": {"type": "number", "default": 0.5}},
        "required": ["x"],
    }
    assert found["also"] == {"type": "array", "items": point}
    assert found["title"] == {"type": "string"}  # a parameter's name, not the keyword
    assert found["place"]["properties"]["title"] == {"type": "string", "description": "what it is called"}
    assert found["place"]["properties"]["at"] == point
    assert found["options"]["required"] == ["deep"]
    bound = Function.of(visit).bind(
        {"place": {"title": "a", "at": {"x": "1"}}, "options": {"deep": "false"}, "also": [{"x": 2, "y": 3}]}
    )
    assert bound["place"] == Place(title="a", at=Point(1))
    assert bound["options"] == {"deep": False}
    assert bound["also"] == [Point(2, 3.0)]


class Deep(typing.TypedDict):
    place: Options
    more: typing_extensions.NotRequired[list[str]]


class Standard(typing.TypedDict, total=False):
    deep: Deep
    also: str


@pytest.mark.parametrize(
    "hint", [Standard, list[Standard], Standard | None, dict[str, list[Standard]], tuple[Standard, ...]], ids=str
)
def test_typed_dicts_of_the_standard_library(hint: Any) -> None:
    function = takes(hint)
    shown = json.dumps(function.spec.given)
    assert shown.count('"required": ["place"]') == 1
    assert '"also"' in shown
    value: Any = {"deep": {"place": {"deep": "yes"}}}
    value = {"list": [value], "dict": {"a": [value]}, "tuple": [value]}.get(str(hint).partition("[")[0], value)
    assert "True" in str(function.bind({"x": value}))
    with pytest.raises(InputError, match="x"):
        function.bind({"x": {"deep": 3}})


def test_types_without_end_and_types_too_large() -> None:
    with pytest.raises(ToolError, match=r"take: Tree contains itself"):
        takes(Tree)
    assert "maybe" in json.dumps(takes(Ends).spec.given)
    hint: Any = Point
    for number in range(14):  # two of the last in each
        hint = pydantic.create_model(f"M{number}", a=(hint, ...), b=(hint, ...))
    with pytest.raises(ToolError, match="over 5000 parts"):
        takes(hint)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["model_config", "schema", "json", "_private", "copy", "class_", "self_", "城市", "x"]),
        st.sampled_from([int, str, Point, list[str], Literal["a"], Colour]),
        min_size=1,
    )
)
def test_parameters_of_any_name_and_the_schema_is_one(hints: dict[str, Any]) -> None:
    def any_of(**arguments: Any) -> Any:
        return arguments

    kind = inspect.Parameter.KEYWORD_ONLY
    any_of.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in hints])  # type: ignore[attr-defined]
    any_of.__annotations__ = hints
    function = Function.of(any_of)
    schema = function.spec.flat()["parameters"]
    assert list(schema["properties"]) == list(hints)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert parameters_of(function.spec) == schema


# What people write


def official(
    city: Annotated[str, "its name", True],
    days: Annotated[int, "how many", False],
    unit: Annotated[str, "of degrees", True] = "C",
) -> dict[str, Any]:
    """The weather."""
    return {"city": city, "days": days, "unit": unit}


def test_the_third_item_of_an_annotation_is_obeyed() -> None:
    function = Function.of(official)
    schema = function.spec.flat()["parameters"]
    assert schema["required"] == ["city", "unit"]
    assert schema["properties"]["days"] == {"type": "integer", "description": "how many"}
    assert function.bind({"city": "x", "unit": "F"}) == {"city": "x", "days": None, "unit": "F"}
    with pytest.raises(InputError, match="missing: unit"):
        function.bind({"city": "x"})
    assert function.official() == {
        "name": "official",
        "description": "The weather.",
        "params": [
            {"name": "city", "description": "its name", "type": "str", "required": True},
            {"name": "days", "description": "how many", "type": "int", "required": False},
            {"name": "unit", "description": "of degrees", "type": "str", "required": True},
        ],
    }
    assert ToolSpec.from_dict(function.official()).name == "official"


def test_defaults_of_pydantic() -> None:
    def page(number: int = Field(1, ge=1, description="which page"), size: int = Field(ge=1)) -> Any:
        """Pages."""
        return number, size

    function = Function.of(page)
    assert properties(page)["number"].items() >= {"type": "integer", "description": "which page", "minimum": 1}.items()
    assert function.bind({"size": 5}) == {"number": 1, "size": 5}
    with pytest.raises(InputError, match="missing: size"):
        function.bind({})
    with pytest.raises(InputError, match="number must be greater than or equal to 1, got 0"):
        function.bind({"number": 0, "size": 1})


def test_a_default_is_made_anew_for_each_call() -> None:
    def gather(into: list[int] = Field(default_factory=list)) -> Any:  # noqa: B008
        """Gathers."""
        into.append(1)
        return into

    function = Function.of(gather)
    assert [asyncio.run(function.run({})).text for _ in range(2)] == ["[1]", "[1]"]


class Meter:
    """Measures things."""

    def read(self, scale: int = 1) -> int:
        """Reads it."""
        return 7 * scale

    def __call__(self, what: str) -> str:
        return f"measured {what}"

    @staticmethod
    def static(x: int) -> int:
        """Static."""
        return x


def keyed(secret: str, text: str, times: int = 1) -> str:
    """Uses a key."""
    return f"{secret}:{text * times}"


class AsyncCall:
    """Is awaited."""

    async def __call__(self, x: int) -> int:
        return x + 1


def traced(function: Any) -> Any:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


@pytest.mark.parametrize(
    ("callable_", "name", "described", "names", "arguments", "text"),
    [
        (Meter().read, "read", "Reads it.", ["scale"], {"scale": "2"}, "14"),
        (Meter(), "meter", "Measures things.", ["what"], {"what": "rain"}, "measured rain"),
        (Meter.static, "static", "Static.", ["x"], {"x": 1}, "1"),
        (functools.partial(keyed, secret="k"), "keyed", "Uses a key.", ["text", "times"], {"text": "a"}, "k:a"),
        (functools.partial(keyed, "k", times=2), "keyed", "Uses a key.", ["text"], {"text": "a"}, "k:aa"),
        (AsyncCall(), "async_call", "Is awaited.", ["x"], {"x": 1}, "2"),
        (functools.partial(AsyncCall()), "async_call", "Is awaited.", ["x"], {"x": 1}, "2"),
        (traced(keyed), "keyed", "Uses a key.", ["secret", "text", "times"], {"secret": "s", "text": "t"}, "s:t"),
    ],
)
def test_callables(callable_: Any, name: str, described: str, names: Any, arguments: Any, text: str) -> None:
    function = Function.of(callable_)
    flat = function.spec.flat()
    assert (flat["name"], flat["description"]) == (name, described)
    assert list(flat["parameters"]["properties"]) == names
    assert asyncio.run(function.run(arguments)).text == text
    with pytest.raises(InputError, match="unknown: secret2"):
        function.bind({**arguments, "secret2": 1})


def test_what_a_partial_has_filled_is_not_the_models_to_give() -> None:
    with pytest.raises(InputError, match="unknown: secret"):
        Function.of(functools.partial(keyed, secret="k")).bind({"text": "a", "secret": "mine"})


def positional(x: int, /) -> None: ...
def many(*x: int) -> None: ...
def named(**x: int) -> None: ...
def untyped(x): ...  # type: ignore[no-untyped-def]
def unknown(x: NoSuchType) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def called(x: Callable[[int], int]) -> None: ...
def opened(x: io.BytesIO) -> None: ...
def generated(x: int) -> Iterator[int]:
    yield x


async def generated_later(x: int) -> typing.AsyncIterator[int]:
    yield x


def result_unknown(x: int) -> NoSuchType: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (positional, r"positional\(x: .int.\) cannot be given by name"),
        (many, r"many\(\*x: .int.\) cannot be given by name"),
        (named, r"named\(\*\*x: .int.\) takes any names, which a schema cannot list"),
        (untyped, "parameter x of untyped needs a type annotation"),
        (unknown, r"an annotation of unknown cannot be read \(NameError.*NoSuchType"),
        (called, r"called\(x\): .*Callable.* cannot be written as JSON"),
        (opened, r"opened\(x\): BytesIO cannot be written as JSON"),
        (generated, "generated is a generator"),
        (generated_later, "generated_later is a generator"),
        (lambda: 1, "has no name for a tool"),
        (Meter, "is not a function"),
        (staticmethod(keyed), "a staticmethod of a class"),
        (3, "is not a function"),
        (print, "print"),
        ({"a": 1}.get, "get"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_tool(given: Any, words: str) -> None:
    with pytest.raises(ToolError, match=words):
        Function.of(given)


def test_only_parameters_need_types_that_can_be_read() -> None:
    assert list(properties(result_unknown)) == ["x"]


def test_a_name_may_be_given() -> None:
    assert Function.of(lambda: 1, name="one").spec.name == "one"
    with pytest.raises(ToolError, match="no name"):
        Function.of(keyed, name="a b")
    with pytest.raises(ToolError, match="no name"):
        Function.of(keyed, name="a" * 65)


# Docstrings


@pytest.mark.parametrize(
    "text",
    [
        "Args:\n    city (str): its name,\n        in any language\n    days: how many\n\nReturns:\n    x: it",
        "Args:\n  city: its name, in any\n    language\n  days (dict[str, tuple[int]]): how many\nMore.",
        ":param city: its name,\n    in any language\n:param int days: how many\n:returns: it",
        "Parameters\n----------\ncity : str\n    its name, in any\n    language\ndays : int, optional\n    how many\n\n"
        "Returns\n-------\ndict\n    it",
    ],
    ids=["google", "google-2", "rest", "numpy"],
)  # fmt: skip
def test_docstrings(text: str) -> None:
    described, told = read_docstring(f"The weather\nof a city.\n\n{text}")
    assert described == "The weather of a city."
    assert told["city"] == "its name, in any language"
    assert told["days"] == "how many"
    assert set(told) == {"city", "days"}


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=":-() \nAargsPm*x", max_size=200) | st.text())
def test_any_docstring_is_read(text: str) -> None:
    described, told = read_docstring(text)
    assert "\n" not in described
    assert all(told.values())


# What is wrong with arguments


@pytest.mark.parametrize(
    ("hint", "given", "words"),
    [
        (int, "x", "x must be a valid integer, unable to parse string as an integer, got 'x'"),
        (int, True, "x must be integer, got True"),
        (float, False, "x must be number, got False"),
        (int, 2.5, "x must be a valid integer, got a number with a fractional part, got 2.5"),
        (float, float("nan"), "x must be a finite number, got nan"),
        (str, 3, "x must be a valid string, got 3"),
        (Literal["C", "F"], "K" * 999, f"x must be 'C' or 'F', got '{'K' * 79}…"),
        (int | Point, "a", "x must be a valid integer"),
        (list[int], [1, "b", 3], "x[1] must be a valid integer, unable to parse string as an integer, got 'b'"),
        (Point, {"y": 1}, "missing: x.x"),
        (list[Point], [{"x": 1}, {}], "missing: x[1].x"),
        (Annotated[int, Field(le=7)], 9, "x must be less than or equal to 7, got 9"),
        (datetime.date, "gestern", "x must be a valid date"),
    ],
)  # fmt: skip
def test_problems_are_one_line(hint: Any, given: Any, words: str) -> None:
    with pytest.raises(InputError) as caught:
        takes(hint).bind({"x": given})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_unknown_missing_and_wrong_are_told_together() -> None:
    with pytest.raises(InputError, match=r"^unknown: dayz; missing: city; unit must be a valid string, got 1$"):
        Function.of(official).bind({"dayz": 1, "unit": 1})


def test_arguments_without_end_are_refused_before_they_are_read() -> None:
    deep: Any = "x"
    for _ in range(100):
        deep = [deep]
    endless: list[Any] = []
    endless.append(endless)
    for one in (deep, endless, list(range(20_000)), "x" * (2 << 20), {"k" * (2 << 20): 1}):
        with pytest.raises(InputError, match="too large"):
            takes(Any).bind({"x": one})


# Results


class _NoRepr:
    def __repr__(self) -> str:
        raise ValueError("no")


def _endless() -> Any:
    made: list[Any] = []
    made.append(made)
    return made


def _deep() -> Any:
    made: Any = 1
    for _ in range(50_000):
        made = [made]
    return made


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain 文字", "plain 文字"),
        ({"城市": [1, 2.5, None, True]}, '{"城市": [1, 2.5, null, true]}'),
        (None, "null"),
        (Point(1), '{"x": 1, "y": 0.5}'),
        (Place(title="a", at=Point(1)), '{"title": "a", "at": {"x": 1, "y": 0.5}, "tags": []}'),
        (Colour.RED, '"red"'),
        ([Level.HIGH], "[2]"),
        (datetime.date(2026, 11, 29), '"2026-11-29"'),
        (decimal.Decimal("0.1"), '"0.1"'),
        ({1}, "[1]"),
        (collections.OrderedDict(a=1), '{"a": 1}'),
        (numpy.int64(3), "3"),
        (numpy.arange(3), "[0, 1, 2]"),
        (b"\x00\x01", '"<2 bytes>"'),
        ({(1, 2): 3}, "{(1, 2): 3}"),
        (object, None),
        (_NoRepr(), '"<_NoRepr>"'),
        ({("a", 1): _NoRepr()}, "{('a', 1): <_NoRepr>}"),
        (_endless(), None),
        (float("nan"), "NaN"),
    ],
)  # fmt: skip
def test_results_as_text(value: Any, text: str | None) -> None:
    found = as_text(value)
    assert found if text is None else found == text


def test_results_of_any_size_are_bounded() -> None:
    for value in (_deep(), list(range(10**6)), {"a": "x" * 10**7}, "y" * 10**7, {(1,): list(range(10**6))}):
        outcome = cut(outcome_of(value), 1024, 256 << 10)
        assert len(outcome.text) <= 1024 + len(" [TRUNCATED]")
        assert len(outcome.whole.encode()) <= (256 << 10) + len(" [TRUNCATED]")
    long = cut(outcome_of("北" * 2000), 1024, 1 << 20)
    assert long.text == "北" * 1024 + " [TRUNCATED]"
    assert long.whole == "北" * 2000
    assert cut(outcome_of("北" * 2000), 1024, 100).whole == "北" * 33 + " [TRUNCATED]"
    assert "10" in as_text(10**5000) or "digits" in as_text(10**5000)
    assert cut(Outcome("half \ud800"), 1024, 100).text == "half ?"


def test_exceptions_as_text() -> None:
    class HostileError(Exception):
        def __str__(self) -> str:
            raise SystemExit(1)

    assert failure(HostileError()) == "Error: HostileError"
    assert failure(ValueError("no such city")) == "Error: ValueError: no such city"
    assert failure(ValueError()) == "Error: ValueError"


def test_pictures() -> None:
    from matplotlib.figure import Figure
    from PIL import Image

    image = Image.new("RGB", (3, 2), "red")
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([1, 2])
    file = io.BytesIO()
    image.save(file, "PNG")
    for value in (image, figure, file.getvalue()):
        outcome = outcome_of(value)
        assert outcome.text == "[Image]"
        (picture,) = outcome.pictures
        assert not png_problem(picture)
        assert Image.open(io.BytesIO(picture)).format == "PNG"
    large = outcome_of(Image.new("L", (5000, 1)))
    assert large.failed
    assert "5000 × 1 pixels; the limit is 4096 each way" in large.text
    given = Outcome("two", pictures=(file.getvalue(), b"\x89PNG\r\n\x1a\n but not", b"<svg/>"))
    assert cut(outcome_of(given), 1024, 1024).pictures == (file.getvalue(),)


_VALUES = st.recursive(
    st.none() | st.text() | st.integers() | st.floats() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(_VALUES, st.integers(1, 100))
def test_whatever_is_shown_is_short(value: Any, most: int) -> None:
    assert len(shown(value, most)) <= most + 1


def test_without_pydantic_it_is_said_how_to_get_it() -> None:
    code = (
        "import sys; sys.modules['pydantic'] = None\n"
        "from chatglm.tools import Function, Toolbox\n"
        "from chatglm.errors import DependencyError\n"
        "assert Toolbox().specs == ()\n"
        "def f(x: int) -> int: 'F.'\n"
        "try: Function.of(f)\n"
        "except DependencyError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True)
    assert done.stdout.strip().endswith("pip install 'chatglm[tools]'")
    assert issubclass(DependencyError, ImportError)
