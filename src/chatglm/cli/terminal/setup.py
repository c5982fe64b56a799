"""Commands that change settings of a conversation."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from rich.text import Text

from chatglm.characters import Character
from chatglm.chat.files import read_file
from chatglm.cli.characters import character_of
from chatglm.cli.plain import check_prompt
from chatglm.cli.shown import plain
from chatglm.cli.terminal.part import Part
from chatglm.errors import InputError
from chatglm.params import SamplingParams

__all__ = ["MODES", "Setup", "typed_options"]

MODES = ("chat", "tools", "code", "character", "documents")
_MANUAL = 64 << 10
"""Most bytes of a file of tools whose calls the user answers."""
_ALONE = ("n", "logprobs", "prompt_logprobs")


def typed_options() -> list[Any]:
    """Options of generation that apply to one answer and can be typed."""
    return [one for one in SamplingParams.options() if one.name not in _ALONE and one.kind not in _UNTYPED]


_UNTYPED = ("biases", "words", "ids")


class Setup(Part):
    async def mode(self, argument: str) -> None:
        settings = self.app.dialogue.settings
        if not argument:
            return self.said("mode", settings.mode)
        if argument not in MODES:
            raise self.usage("mode")
        await asyncio.to_thread(self.app.dialogue.prepare, argument)
        if argument == "code" and self.app.dialogue.rights:
            self.screen.say(self.words("rights"), "bold red")
        if argument == "character" and not settings.character:
            raise InputError(self.words("usage", usage="/character NAME|FILE"))
        await self.app.dialogue.configure(mode=argument)
        return self.changed("mode", argument)

    async def system(self, argument: str) -> None:
        if not argument:
            return self.said("system", self.app.dialogue.settings.system)
        text = "" if argument == "off" else argument
        if text and self.app.models.now is not None:
            check_prompt(self.app.models.now, text, True)
        await self.app.dialogue.configure(system=text)
        return self.changed("system", text or self.words("none"))

    async def tools(self, argument: str) -> None:
        word, _, name = argument.partition(" ")
        if not argument:
            return self._list_tools()
        if word == "manual" and name:
            data = b"" if name == "off" else await asyncio.to_thread(read_file, Path(os.path.expanduser(name)), _MANUAL)
            await self.app.dialogue.configure(manual=data.decode("utf-8", "replace"), mode="tools")
            return self.screen.note(self.words("manual" if data else "manual_off"))
        box = self.app.dialogue.toolbox
        if word in ("on", "off") and name:
            if box is None or (tool := box.tool(name.strip())) is None:
                raise InputError(self.words("now", what=name.strip(), value=self.words("nothing_found")))
            all_of = [spec.name for spec in box.specs]
            on = self.app.dialogue.settings.tools
            chosen = set(all_of if on is None else on)
            (chosen.add if word == "on" else chosen.discard)(tool.spec.name)
            await self.app.dialogue.configure(tools=tuple(one for one in all_of if one in chosen))
            return self._list_tools()
        await self._open_tools(argument)
        if self.app.dialogue.settings.mode == "chat":
            await self.app.dialogue.configure(mode="tools", tools=None)
            self.changed("mode", "tools")
        return self._list_tools()

    async def _open_tools(self, source: str) -> None:
        await asyncio.to_thread(self.app.dialogue.open_tools, [os.path.expanduser(source)])

    def _list_tools(self) -> None:
        box = self.app.dialogue.toolbox
        if box is None:
            return self.screen.note(self.words("no_tools"))
        on = self.app.dialogue.settings.tools
        rows = []
        for spec in box.specs:
            tool = box.tool(spec.name)
            asks = f" ({self.words('asks')})" if tool is not None and tool.consent.value != "never" else ""
            state = "on" if on is None or spec.name in on else "off"
            rows.append(
                (
                    Text(spec.name, "cyan" if state == "on" else "bright_black"),
                    self.words(state),
                    plain(_first_line(str(spec.flat().get("description", "")))) + asks,
                )
            )
        self.grid(rows)
        for name, reason in box.refused.items():
            self.screen.note(f"{name}: {reason}")
        return None

    async def character(self, argument: str) -> None:

        settings = self.app.dialogue.settings
        if not argument:
            name = ""
            if settings.character:
                name = Character.from_bytes(settings.character.encode(), "character").name
            self.said("character", plain(name))
            return self.screen.note(", ".join(Character.library()))
        if argument == "off":
            await self.app.dialogue.configure(character="", mode="chat")
            return self.changed("character", self.words("none"))
        found = character_of(argument)
        self.app.dialogue.clear()
        await self.app.dialogue.configure(character=found.text(), mode="character")
        self.changed("character", plain(found.name))
        return await self.app.greet()

    async def params(self, argument: str) -> None:
        settings = self.app.dialogue.settings
        model = self.app.models.now
        defaults = model.defaults if model is not None else None
        name, _, value = argument.partition(" ")
        if name == "parameter":  # as ollama has it
            name, _, value = value.strip().partition(" ")
        if not name:
            now = SamplingParams.from_dict(settings.params, defaults)
            rows = []
            for option in typed_options():
                own = option.name in settings.params
                rows.append(
                    (
                        Text(option.name, "bold cyan" if own else "cyan"),
                        Text(json.dumps(_listed(getattr(now, option.name)), ensure_ascii=False), "bold" if own else ""),
                        self.words.option(option.name, option.help),
                    )
                )
            return self.grid(rows)
        if name in _ALONE:
            raise InputError(f"{name}: a conversation has one answer at a time, without probabilities")
        params = dict(settings.params)
        if value in ("off", "default"):
            params.pop(name, None)
        elif value:
            params[name] = _value(value.strip())
        now = SamplingParams.from_dict(params, defaults)
        options = {one.name: one for one in SamplingParams.options()}
        if name not in options:
            SamplingParams.from_dict({name: None})  # says which there are
        if value:
            await self.app.dialogue.configure(params=params)
        self.screen.say(f"{name} = {json.dumps(_listed(getattr(now, name)), ensure_ascii=False)}")
        return self.screen.note(self.words.option(name, options[name].help))

    async def model(self, argument: str) -> None:
        app = self.app
        if not argument:
            return self.said("model", app.words("loading") if app.models.loading else app.models.name)
        found = os.path.expanduser(argument)
        await app.waiting(app.words("loading"), app.models.change(found))
        named_so = os.path.abspath(found) if os.path.isdir(found) else argument
        await app.dialogue.configure(model=named_so, adapter="")
        return self.changed("model", app.models.name)

    async def adapter(self, argument: str) -> None:
        model = await self.app.models(self.app.dialogue.settings)
        if not argument:
            self.said("adapter", self.app.dialogue.settings.adapter)
            return self.screen.note(
                self.words("now", what=self.words("adapters"), value=", ".join(model.adapters) or self.words("none"))
            )
        name = "" if argument == "off" else argument
        if name and name not in model.adapters:
            raise InputError(f"adapter: there is no {name!r:.80}; known: {', '.join(model.adapters) or 'none'}")
        await self.app.dialogue.configure(adapter=name)
        return self.changed("adapter", name or self.words("none"))

    async def summary(self, argument: str) -> None:
        settings = self.app.dialogue.settings
        if argument in ("on", "off"):
            await self.app.dialogue.configure(memory=argument == "on")
            return self.changed("memory", self.words(argument))
        if argument:
            await self.app.dialogue.configure(summary=argument, summarised=0)
            return self.changed("summary", argument)
        self.said("memory", self.words("on" if settings.memory else "off"))
        return self.said("summary", plain(settings.summary))


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _value(text: str) -> Any:
    """The value of typed text: JSON, or the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
