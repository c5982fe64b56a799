"""What the text of an answer must be: OpenAI's `response_format`, and vLLM's fields for the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import Field

from chatglm.errors import InputError, UnsupportedError
from chatglm.serving.dialect import Strict
from chatglm.serving.fields import JsonText, OneOf, by_tag, wrong

__all__ = ["Guided", "ResponseFormat", "TextFormat", "format_named"]


class _Text(Strict):
    type: Literal["text"]


class _JsonObject(Strict):
    type: Literal["json_object"]
    schema_: dict[str, Any] | None = Field(None, alias="schema", description="JSON schema, as llama.cpp has it")


class _Schema(Strict):
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = Field(None, description="whether every keyword of the schema must be enforced")


class _JsonSchema(Strict):
    type: Literal["json_schema"]
    json_schema: _Schema


class _BareSchema(Strict):
    """llama.cpp's and Together's form: without the object around the schema."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class _Regex(Strict):
    type: Literal["regex"]
    pattern: str


class _Grammar(Strict):
    type: Literal["grammar"]
    grammar: str = Field(description="EBNF, as in llama.cpp")


_by_type = by_tag(
    "type",
    {"text": _Text, "json_object": _JsonObject, "json_schema": _JsonSchema, "regex": _Regex, "grammar": _Grammar},
)


def _format(value: Any) -> Any:
    bare = isinstance(value, dict) and value.get("type") == "json_schema" and value.get("schema") is not None
    return _BareSchema if bare and value.get("json_schema") is None else _by_type.choose(value)


ResponseFormat = Annotated[_Text | _JsonObject | _JsonSchema | _BareSchema | _Regex | _Grammar, OneOf(_format)]


class _FlatFormat(Strict):
    """The Responses API's form: without the objects around the parts."""

    def plain(self) -> dict[str, Any]:
        """The format in the form of the request."""
        made = self.model_dump(by_alias=True)
        if isinstance(self, _FlatSchema):
            made["schema"] = self.schema_
        return made

    def nested(self) -> dict[str, Any]:
        """The format in the form that the assistant takes."""
        return self.model_dump(exclude_none=True)


class _FlatText(_FlatFormat):
    type: Literal["text"]


class _FlatObject(_FlatFormat):
    type: Literal["json_object"]


class _FlatSchema(_FlatFormat):
    type: Literal["json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = Field(None, description="whether every keyword of the schema must be enforced")

    def nested(self) -> dict[str, Any]:
        inner = {"name": self.name, "schema": self.schema_, "strict": self.strict}
        return {
            "type": "json_schema",
            "json_schema": {name: value for name, value in inner.items() if value is not None},
        }


class _FlatRegex(_FlatFormat):
    type: Literal["regex"]
    pattern: str


class _FlatGrammar(_FlatFormat):
    type: Literal["grammar"]
    grammar: str = Field(description="EBNF, as in llama.cpp")


TextFormat = Annotated[
    _FlatText | _FlatObject | _FlatSchema | _FlatRegex | _FlatGrammar,
    by_tag(
        "type",
        {
            "text": _FlatText,
            "json_object": _FlatObject,
            "json_schema": _FlatSchema,
            "regex": _FlatRegex,
            "grammar": _FlatGrammar,
        },
    ),
]
"""The Responses API's `text.format`."""


def _schema(value: Any) -> Any:
    if isinstance(value, str):
        return JsonText
    if isinstance(value, dict):
        return dict[str, Any]
    raise wrong("must be a JSON schema: an object, or a string that holds one")


_AnySchema = Annotated[dict[str, Any] | str, OneOf(_schema)]
_Choices = Annotated[list[str], Field(min_length=1)]


class _StructuredOutputs(Strict):
    """vLLM's `structured_outputs`: one of these."""

    json_: _AnySchema | None = Field(None, alias="json")
    regex: str | None = None
    choice: _Choices | None = None
    grammar: str | None = None
    json_object: bool | None = None


class Guided(Strict):
    """Every field that says what the text must be. A request may set one of them."""

    response_format: ResponseFormat | None = None
    guided_json: _AnySchema | None = Field(None, description="JSON schema, as vLLM has it")
    guided_regex: str | None = None
    guided_choice: _Choices | None = Field(None, description="the text is one of these")
    guided_grammar: str | None = Field(None, description="EBNF")
    structured_outputs: _StructuredOutputs | None = None

    def format(self) -> dict[str, Any] | None:
        """Return the response format as the assistant takes it; None if there is none.

        Raises:
            InputError: there are several, or a schema in a string is not JSON.
        """
        found = self._formats()
        if len(found) > 1:
            first, second, *_ = found
            raise InputError(f"{second}: cannot be given together with {first}")
        if found:
            return next(iter(found.values()))
        return None if self.response_format is None else {"type": "text"}

    def _formats(self) -> dict[str, dict[str, Any]]:
        """The formats that are set, by the name of their field."""
        found: dict[str, dict[str, Any]] = {}
        if self.response_format is not None and not isinstance(self.response_format, _Text):
            found["response_format"] = _plain(self.response_format)
        more: dict[str, tuple[str, Any]] = {
            f"guided_{kind}": (kind, getattr(self, f"guided_{kind}")) for kind in ("json", "regex", "choice", "grammar")
        }
        if self.structured_outputs is not None:
            inner = self.structured_outputs
            for kind, value in (
                ("json", inner.json_),
                ("regex", inner.regex),
                ("choice", inner.choice),
                ("grammar", inner.grammar),
                ("json_object", inner.json_object or None),
            ):
                more[f"structured_outputs.{kind}"] = kind, value
        for name, (kind, value) in more.items():
            if value is not None:
                found[name] = _of_guided(name, kind, value)
        return found

    @contextmanager
    def naming_its_fields(self) -> Iterator[None]:
        """Make errors about the format name the field of this request that holds it."""
        try:
            yield
        except (InputError, UnsupportedError) as error:
            for name, made in self._formats().items():
                if (text := _renamed(str(error), name, made)) is not None:
                    raise type(error)(text) from error
            raise


@contextmanager
def format_named(field: str) -> Iterator[None]:
    """Make errors about the response format name the field of this dialect that holds it."""
    try:
        yield
    except (InputError, UnsupportedError) as error:
        text = str(error)
        for place in ("response_format.json_schema", "response_format"):
            if text.startswith(place):
                raise type(error)(field + text.removeprefix(place)) from error
        raise


def _renamed(text: str, name: str, made: Mapping[str, Any]) -> str | None:
    """The words of an error with the name of the field in front; None if they are about something else."""
    own = name == "response_format"
    for place in ("response_format.json_schema.schema", "response_format.schema"):
        if text.startswith(place):
            bare = own and "json_schema" not in made  # llama.cpp's form
            return ("response_format.schema" if bare else place if own else name) + text.removeprefix(place)
    for kind, front, field in (("regex", "regular expression:", "pattern"), ("grammar", "grammar:", "grammar")):
        if made["type"] == kind and text.startswith(front):
            return f"response_format.{field}: {text}" if own else f"{name}: {text}"
    return None


def _plain(given: Any) -> dict[str, Any]:
    if isinstance(given, _JsonObject | _BareSchema) and given.schema_ is not None:
        return {"type": given.type, "schema": given.schema_}
    made: dict[str, Any] = given.model_dump(by_alias=True, exclude_none=True)
    if isinstance(given, _JsonSchema):  # null has a meaning within a schema
        made["json_schema"]["schema"] = given.json_schema.schema_
    return made


_META = re.compile(r"[\\.^$|?*+()\[\]{}]")


def _of_guided(name: str, kind: str, value: Any) -> dict[str, Any]:
    match kind:
        case "json":
            if isinstance(value, str):
                try:
                    value = json.loads(value)
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{name}: the string is not JSON ({error})") from None
                if not isinstance(value, dict):
                    raise InputError(f"{name}: the string must hold a JSON object")
            return {"type": "json_schema", "json_schema": {"schema": value}}
        case "json_object":
            return {"type": "json_object"}
        case "choice":
            return {"type": "regex", "pattern": "|".join(_META.sub(r"\\\g<0>", choice) for choice in value)}
        case "regex":
            return {"type": "regex", "pattern": value}
    return {"type": "grammar", "grammar": value}
