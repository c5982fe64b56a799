"""Reads `response_format`: the form that the text of an answer must have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from chatglm.errors import InputError
from chatglm.schemas import Held, held

__all__ = ["Output", "output_of"]

_FIELDS = {"regex": "pattern", "grammar": "grammar"}


@dataclass(frozen=True)
class Output:
    """The form of an answer's text.

    Attributes:
        schema: the schema, if `kind` is `json`.
        source: the text of the regular expression or grammar, if `kind` is `regex` or `grammar`.
        dropped: keywords of the schema that are not enforced.
    """

    kind: Literal["text", "json", "regex", "grammar"]
    schema: Held = field(default_factory=lambda: Held({}))
    source: str = ""

    @property
    def dropped(self) -> tuple[str, ...]:
        return self.schema.dropped


def output_of(response_format: Mapping[str, Any] | None) -> Output:
    """Read a `response_format`.

    Known types: OpenAI's `text`, `json_object` and `json_schema` (name, description and strict may be missing);
    `json_object` with a `schema`, and `json_schema` with a `schema` beside `type`, as in llama.cpp, Together and
    Fireworks; `regex` with `pattern`; `grammar` with `grammar`. Without `strict: true`, keywords of a schema that
    cannot be enforced are dropped.

    Raises:
        InputError: it has another form, or its schema is not a valid JSON schema.
        UnsupportedError: a schema is too large, or a strict one has keywords that cannot be enforced.
    """
    if response_format is None:
        return Output("text")
    if not isinstance(response_format, Mapping):
        raise InputError(f"response_format: expected an object with `type`, got {response_format!r:.80}")
    kind = response_format.get("type")
    match kind:
        case "text":
            return Output("text")
        case "json_object":
            given = response_format.get("schema")
            if given is None:
                return Output("json", Held({"type": "object"}))
            return Output("json", held(given, where="response_format.schema"))
        case "json_schema":
            inner = response_format.get("json_schema", response_format)
            if not isinstance(inner, Mapping) or not isinstance(inner.get("schema"), Mapping | bool):
                raise InputError("response_format.json_schema.schema: expected a JSON schema")
            strict = inner.get("strict") is True
            return Output("json", held(inner["schema"], strict=strict, where="response_format.json_schema.schema"))
        case "regex" | "grammar":
            source = response_format.get(_FIELDS[kind])
            if not isinstance(source, str):
                raise InputError(f"response_format.{_FIELDS[kind]}: expected a string, got {source!r:.80}")
            return Output(kind, source=source)
    raise InputError(f"response_format.type: {kind!r}; known: text, json_object, json_schema, regex, grammar")
