"""The settings of a conversation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from chatglm.errors import InputError
from chatglm.params import SamplingParams

__all__ = ["MODES", "Mode", "Settings"]

Mode = Literal["chat", "tools", "code", "character", "documents"]
MODES: tuple[Mode, ...] = get_args(Mode)

_TEXTS = ("model", "adapter", "system", "manual", "character", "summary", "language")
_ALONE = ("n", "logprobs", "prompt_logprobs")
"""Options of generation that a dialogue cannot use."""


@dataclass(frozen=True)
class Settings:
    """The settings of a conversation.

    Attributes:
        model, adapter: names; "": the first model, and no adapter.
        system: system prompt.
        params: options of generation that differ from the model's own.
        tools: names of the tools that are switched on; None: all of the toolbox.
        manual: YAML or JSON of tools whose calls the person answers, as in the official demo's manual mode.
        character: the conversation's own copy of a character, as text in the form of `Character.write(own=True)`.
        summary: summary of earlier turns; the model gets it.
        summarised: the last turn that `summary` covers; 0: a person wrote it, and it holds on every branch.
        memory: whether turns that leave the context are summarised.
        knowledge: names of bases, for the mode `documents`, and for a search in the mode `tools`.
        extract: whether the mode `documents` answers with sentences of the documents, without the model.
        language: "zh" or "en"; "" if nobody chose.
        more: keys that this version does not know; they are kept.
    """

    mode: Mode = "chat"
    model: str = ""
    adapter: str = ""
    system: str = ""
    params: Mapping[str, Any] = field(default_factory=dict, hash=False)
    tools: tuple[str, ...] | None = None
    manual: str = ""
    character: str = ""
    summary: str = ""
    summarised: int = 0
    memory: bool = False
    knowledge: tuple[str, ...] = ()
    extract: bool = False
    language: str = ""
    more: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], mode: str | None = None) -> Settings:
        """Read the result of `to_dict`.

        Args:
            mode: replaces the mode in `data`.

        Raises:
            InputError: a value has another type; the message names the key.
        """
        known = {one.name for one in dataclasses.fields(cls)} - {"more"}
        found: dict[str, Any] = {name: value for name, value in data.items() if name in known}
        if mode is not None:
            found["mode"] = mode
        for name in ("tools", "knowledge"):
            if isinstance(found.get(name), list):
                found[name] = tuple(found[name])
        made = cls(**found, more={name: value for name, value in data.items() if name not in known})
        made.check()
        return made

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON values: those that differ from the defaults, and the keys in `more`."""
        made: dict[str, Any] = dict(self.more)
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            if one.name != "more" and value != getattr(_DEFAULTS, one.name):
                made[one.name] = list(value) if isinstance(value, tuple) else value
        return made

    def check(self) -> None:
        """Check types and values.

        Raises:
            InputError: a field has another type, or an impossible value; the message names the field.
        """
        if self.mode not in MODES:
            raise InputError(f"mode {self.mode!r:.40}: must be one of {', '.join(MODES)}")
        for name in _TEXTS:
            if not isinstance(getattr(self, name), str):
                raise InputError(f"{name}: must be text, got {getattr(self, name)!r:.60}")
        for name in ("tools", "knowledge"):
            value = getattr(self, name)
            if name == "tools" and value is None:
                continue
            if not isinstance(value, tuple) or not all(isinstance(each, str) for each in value):
                raise InputError(f"{name}: must be a list of names, got {value!r:.60}")
        for name in ("memory", "extract"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name}: must be true or false, got {getattr(self, name)!r:.60}")
        if not isinstance(self.summarised, int) or isinstance(self.summarised, bool):
            raise InputError(f"summarised: must be the id of a turn, got {self.summarised!r:.60}")
        if self.language not in ("", "zh", "en"):
            raise InputError(f"language {self.language!r:.40}: must be zh or en")
        if not isinstance(self.params, Mapping):
            raise InputError(f"params: must be an object, got {self.params!r:.60}")
        for name in _ALONE:
            if self.params.get(name) not in (None, 1 if name == "n" else None):
                raise InputError(f"{name}: a conversation has one answer at a time, without probabilities")
        SamplingParams.from_dict(self.params)


_DEFAULTS = Settings()
