"""Parts of request bodies that dialects share: sampling options, text, functions, fields that may not be set."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from chatglm.params import SamplingParams
from chatglm.serving.dialect import Strict

__all__ = ["OPTIONS", "Content", "Function", "Never", "TextPart", "Unsupported", "sampling_option"]


def _refuse(value: Any) -> None:
    if value is not None:
        raise PydanticCustomError("unsupported", "not supported here; leave it out")


def _refuse_true(value: Any) -> Any:
    if value is True:
        raise PydanticCustomError("unsupported", "true is not supported here; leave it out")
    if value is not False and value is not None:
        raise PydanticCustomError("bool_type", "input should be a valid boolean")
    return value


Never = Annotated[Literal[False], BeforeValidator(_refuse_true)]
"""A switch that can only be off. (`Literal[False]` alone takes 0 for it.)"""

Unsupported = Annotated[None, BeforeValidator(_refuse), Field(description="not supported: null, or left out")]

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


class TextPart(Strict):
    type: Literal["text"]
    text: str


Content = str | list[TextPart]


class Function(Strict):
    """A function that the model may call."""

    name: str = Field(pattern=r"^[\w.-]+$", max_length=64)
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="JSON schema of an object")
    strict: bool | None = None
