"""Parts of request bodies that dialects share: sampling options, text content, unions, fields that may not be set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, GetCoreSchemaHandler, TypeAdapter, create_model
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from chatglm.chat.messages import unreadable_part
from chatglm.params import SamplingParams
from chatglm.serving.bodies import Limits, containers
from chatglm.serving.dialect import Strict
from chatglm.serving.hints import CONTENT_PART

__all__ = [
    "OPTIONS",
    "Content",
    "JsonText",
    "OneOf",
    "Strings",
    "TextPart",
    "TopK",
    "Unsupported",
    "by_tag",
    "part_of",
    "sampling_option",
    "text_or",
    "wrong",
]


def wrong(message: str) -> PydanticCustomError:
    """An error about a value, to be raised in a validator. It is shown as it is, after the name of the field."""
    return PydanticCustomError("plain", "{message}", {"message": message})


def _refuse(value: Any) -> None:
    if value is not None:
        raise PydanticCustomError("unsupported", "not supported; leave it out")


Unsupported = Annotated[None, BeforeValidator(_refuse), Field(description="not supported: must be null, or left out")]

_EXACT = 2**53  # larger integers are rounded by JSON readers

OPTIONS = {option.name: option for option in SamplingParams.options()}
"""The sampling options, by name."""


def sampling_option(name: str) -> Any:
    """Return a field for a sampling option: its range and help. `None` means the default of the model's folder."""
    option = OPTIONS[name]
    bounds: dict[str, Any] = {}
    # Limits beyond what JSON readers hold exactly (those of `seed`) are checked by SamplingParams.
    if option.high is not None and option.high < _EXACT:
        bounds["le"] = option.high
    if option.low is not None and option.low > -_EXACT:
        bounds["gt" if option.above else "ge"] = option.low
    if option.kind == "number":
        bounds["allow_inf_nan"] = False
    return Field(None, description=option.help, **bounds)


def _all(value: Any) -> Any:
    """-1 means all in vLLM."""
    return 0 if value == -1 else value


TopK = Annotated[
    Annotated[int, Field(ge=0)] | None,
    BeforeValidator(_all, json_schema_input_type=Annotated[int, Field(ge=-1)] | None),
    Field(description=OPTIONS["top_k"].help + "; -1: also from all"),
]


class OneOf:
    """Marks a union whose branch is chosen by looking at the value: `Annotated[A | B, OneOf(choose)]`.

    Errors then name the fields of the request. Those of a plain union name its branches.

    Args:
        choose: returns the type that the value must have; may raise `wrong(…)`.
    """

    def __init__(self, choose: Callable[[Any], Any]) -> None:
        self.choose = choose

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(self._validate, handler(source))

    def _validate(self, value: Any, whole: Any) -> Any:
        return _adapter(self.choose(value)).validate_python(value, strict=True)


@lru_cache(maxsize=256)
def _adapter(branch: Any) -> TypeAdapter[Any]:
    return TypeAdapter(branch)


def by_tag(tag: str, branches: Mapping[str, type[Strict]], default: str | None = None) -> OneOf:
    """Choose among models by one of their fields, `type` or `role`.

    Args:
        default: what the tag is if it is left out; None: it is required.
    """
    known = ", ".join(branches)

    def choose(value: Any) -> Any:
        if not isinstance(value, dict):
            raise wrong("must be an object")
        given = default if value.get(tag) is None else value[tag]
        if isinstance(given, str) and given in branches:
            return branches[given]
        # A model of the tag alone, so that the error names the tag.
        return _tag_model(tag, f"must be one of: {known}")

    return OneOf(choose)


@lru_cache(maxsize=64)
def _tag_model(tag: str, message: str) -> Any:
    def refuse(value: Any) -> Any:
        raise wrong(message)

    field: Any = (Annotated[str, BeforeValidator(refuse)], ...)
    return create_model("Tagged", __base__=Strict, **{tag: field})


def _few_values(text: str) -> str:
    most = Limits.values
    if (count := containers(text, most)) > most:
        raise wrong(f"the JSON in it has too many arrays and objects ({count:,}); at most {most:,} are supported")
    return text


JsonText = Annotated[str, AfterValidator(_few_values)]
"""A string that holds JSON, which has no more arrays and objects than a body may have: reading them takes long."""


class TextPart(Strict):
    hints = CONTENT_PART

    type: Literal["text"]
    text: str


def part_of(branches: Mapping[str, Any]) -> OneOf:
    """Choose among parts of a message's content by their `type`. Others are refused with the reason: images are not
    supported."""

    def choose(value: Any) -> Any:
        if not isinstance(value, dict):
            raise wrong("must be an object with a `type`, such as text")
        kind = value.get("type")
        if isinstance(kind, str) and kind in branches:
            return branches[kind]
        raise PydanticCustomError("unsupported", "{message}", {"message": unreadable_part(kind, tuple(branches))})

    return OneOf(choose)


_Parts = list[Annotated[TextPart, part_of({"text": TextPart})]]


def text_or(parts: Any) -> OneOf:
    """A string, or a list of parts."""

    def choose(value: Any) -> Any:
        if isinstance(value, str):
            return str
        if isinstance(value, list):
            return parts
        raise wrong("must be a string or a list of text parts")

    return OneOf(choose)


Content = Annotated[str | _Parts, text_or(_Parts)]
"""The content of a message."""


_NotEmpty = Annotated[str, Field(min_length=1)]


def _strings(value: Any) -> Any:
    if isinstance(value, str):
        return _NotEmpty
    if isinstance(value, list):
        return list[_NotEmpty]
    raise wrong("must be a string or a list of strings")


Strings = Annotated[_NotEmpty | list[_NotEmpty], OneOf(_strings)]
"""One string or several, none of them empty."""
