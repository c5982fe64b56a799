"""What a model may call, whoever runs it: its description, whether people are asked first, what comes of a call."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from chatglm.chat.messages import ToolSpec

__all__ = ["Consent", "Outcome", "Tool"]


class Consent(enum.Enum):
    """How often a person is asked before a tool is used."""

    NEVER = "never"
    ONCE = "once"  # in each conversation
    ALWAYS = "always"


@dataclass(frozen=True)
class Outcome:
    """What came of a call.

    Attributes:
        text: for the model; cut to what a prompt has room for.
        whole: for people; "" if the same as `text`.
        pictures: PNG files, checked.
        files: names of files that were made, beneath the conversation's folder.
        failed: whether the call did not do what it was asked to; `text` says why.
        seconds: that it took.
    """

    text: str
    whole: str = ""
    pictures: tuple[bytes, ...] = ()
    files: tuple[str, ...] = ()
    failed: bool = False
    seconds: float = 0.0


class Tool(Protocol):
    """Something that a model may call. `Toolbox` is the one place that runs it.

    One that needs more or less time than others has an attribute `seconds`: its calls are given up after that. One
    that can check arguments has `problem(arguments)`: what is wrong with them, "" if nothing. It is asked before a
    person is.
    """

    @property
    def spec(self) -> ToolSpec:
        """What the model is shown."""

    @property
    def consent(self) -> Consent:
        """Whether a person is asked before a call."""

    async def run(self, arguments: Mapping[str, Any]) -> Outcome:
        """Do it. What it raises is told to the model as a failure."""
