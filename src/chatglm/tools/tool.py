"""The interface of a tool: its description, whether a person is asked before a call, and the result of a call."""

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
    """The result of a call.

    Attributes:
        text: text for the model, cut to the limit of the toolbox.
        whole: text for people; "" if it equals `text`.
        pictures: PNG files, checked.
        files: names of the files that were made, as paths in the conversation's folder.
        failed: whether the call failed; `text` says why.
        seconds: duration of the call.
    """

    text: str
    whole: str = ""
    pictures: tuple[bytes, ...] = ()
    files: tuple[str, ...] = ()
    failed: bool = False
    seconds: float = 0.0


class Tool(Protocol):
    """Interface of tools that a model may call. Only `Toolbox` runs them.

    A tool may have an attribute `seconds`, the time limit of its calls. It may have a method `problem(arguments)`,
    which returns what is wrong with the arguments, or ""; it is called before a person is asked.
    """

    @property
    def spec(self) -> ToolSpec:
        """The specification for the model."""

    @property
    def consent(self) -> Consent:
        """How often a person is asked before a call."""

    async def run(self, arguments: Mapping[str, Any]) -> Outcome:
        """Run the call. The model gets an exception as a failure."""
