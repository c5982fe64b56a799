"""A character: the role that a model plays, its greetings, examples of what it says, and its lorebook."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from chatglm.characters.cards import card_of, fields_of, is_card, read_lore, read_text, read_texts, written_lore
from chatglm.characters.containers import MOST_BYTES, PNG, ZIP, json_object, png_with, split_png, zip_card
from chatglm.characters.lore import LoreEntry, chosen
from chatglm.chat.files import read_file
from chatglm.chat.generations import Generation
from chatglm.chat.messages import Message
from chatglm.chat.personas import Persona, staged
from chatglm.errors import CheckpointError, InputError
from chatglm.output import replace_file

__all__ = ["Character"]

Count = Callable[[str], int]

_MOST_ZIP = 64 << 20  # bytes of a .charx file, which also contains pictures and sounds
_MOST_YAML = 256 << 10
_MOST_DEPTH, _MOST_VALUES = 32, 40_000
_SCANNED = 4  # number of last messages that are searched for keys of the lore, unless the card has a number
_AROUND = 8  # the most tokens that a format adds around a message
_PLACEHOLDER = re.compile(r"\{\{(char|user)\}\}|<(char|bot|user)>", re.I)
_CHINESE = re.compile(r"[\u3400-\u9fff]")
_TEXTS = ("name", "bot_info", "user_name", "user_info", "creator", "licence", "language", "notes", "system_prompt",
          "post_history_instructions")  # fmt: skip
_LISTS = ("greetings", "tags")
_OTHERS = ("examples", "lore", "extensions", "card")
_OFFICIAL = {"bot_name": "name", "greeting": "greetings"}  # CharacterGLM's character.json


@dataclass(frozen=True)
class Character:
    """A character that a model plays. In all texts `{{char}}` and `{{user}}` are replaced by the two names.

    Attributes:
        name, user_name: "": the default name of `Persona` is used; in texts that are not Chinese, `{{user}}` becomes
            "the user".
        bot_info, user_info: what the model should know about them, best in whole sentences.
        greetings: possible first messages of the character.
        examples: pairs of a question and the character's answer; the question is "" if the character speaks first.
        language: language of the texts, as a BCP 47 tag (`zh`, `en`); "" if unknown.
        notes: the creator's notes for people.
        system_prompt, post_history_instructions: instructions to the model by the card's creator. They are shown to
            people; the model gets the first only with `instructions`, and the second never.
        lore: texts that the model gets when one of their words occurs in the last messages.
        extensions: data of other programs, kept unchanged.
        card: other fields of a card, written again on export.
        picture: the PNG file that contained the card, without the card; b"" if there is none.
    """

    name: str = ""
    bot_info: str = ""
    user_name: str = ""
    user_info: str = ""
    greetings: tuple[str, ...] = ()
    examples: tuple[tuple[str, str], ...] = ()
    tags: tuple[str, ...] = ()
    creator: str = ""
    licence: str = ""
    language: str = ""
    notes: str = ""
    system_prompt: str = ""
    post_history_instructions: str = ""
    lore: tuple[LoreEntry, ...] = ()
    extensions: Mapping[str, Any] = field(default_factory=dict, hash=False)
    card: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)
    picture: bytes = field(default=b"", repr=False)

    # Files

    @classmethod
    def read(cls, path: str | Path) -> Character:
        """Read a file: YAML or JSON of our own, CharacterGLM's `character.json`, or a card (V1, V2, V3) as JSON, in a
        PNG picture or in a `.charx` file. The kind is found by content.

        Raises:
            InputError: the file cannot be read, is too large, or is of none of these kinds; the message names the file
                and the fault.
        """
        path = Path(os.path.expanduser(path))
        try:
            data = read_file(path, _MOST_ZIP if path.suffix.lower() == ".charx" else MOST_BYTES)
        except CheckpointError as error:
            raise InputError(re.split(", the limit for |; is ", str(error))[0]) from None
        return cls.from_bytes(data, str(path))

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Character:
        """Read the contents of such a file.

        Args:
            where: the file's name, for errors.

        Raises:
            InputError: as `read`.
        """
        most = _MOST_ZIP if data.startswith(ZIP) else MOST_BYTES
        if len(data) > most:
            raise InputError(f"{where}: larger than {most:,} bytes")
        if data.startswith(ZIP):
            return cls(**fields_of(zip_card(data, where), where))
        if data.startswith(PNG):
            picture, card = split_png(data, where)
            return cls(**fields_of(card, where), picture=picture)
        if data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{":
            given: Any = json_object(data, where)
        else:
            given = _yaml(data, where)
        if not isinstance(given, dict) or not given:
            raise InputError(f"{where}: expected names with texts, such as `name: 李白`; known: {', '.join(_known())}")
        return cls(**(fields_of(given, where) if is_card(given) else _own(given, where)))

    def write(self, path: str | Path, *, own: bool = False) -> None:
        """Write a file; its ending decides the form: `.yaml` is our own, `.json` and `.png` are cards for other
        programs (V3 if the character was read from V3, else V2; the picture is kept).

        Args:
            own: write `.json` in our own form, not as a card.

        Raises:
            InputError: another ending; a card without a name, or without the picture that it needs; or the file would
                be larger than `read` accepts. Nothing is written.
            OutputError: the file cannot be written.
        """
        path = Path(os.path.expanduser(path))
        ending = path.suffix.lower()
        if ending in (".yaml", ".yml"):
            data = yaml.dump(self._given(), Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=100).encode()
        elif ending == ".json":
            data = self.text().encode() if own else _json(self._card()).encode()
        elif ending == ".png":
            if not self.picture:
                raise InputError(f"{path}: {self.name or 'the character'} has no picture; write .json or .yaml")
            card = self._card()
            cards = {"chara": self._card("chara_card_v2")}
            if card["spec"] == "chara_card_v3":
                cards["ccv3"] = card
            data = png_with(self.picture, cards, str(path))
        else:
            raise InputError(f"{path}: write .yaml, .json or .png")
        Character.from_bytes(data, str(path))
        replace_file(path, data)

    def text(self) -> str:
        """The character as JSON in our own form, without the picture; `from_bytes` reads it."""
        return _json(self._given())

    @classmethod
    def library(cls) -> tuple[str, ...]:
        """The names of the characters that come with the package."""
        files = resources.files("chatglm.characters").joinpath("library").iterdir()
        return tuple(sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml")))

    @classmethod
    def named(cls, name: str) -> Character:
        """A character of the package, by its name.

        Raises:
            InputError: there is no such character; the message lists all names.
        """
        if name not in cls.library():
            raise InputError(f"there is no character {name!r:.60}; known: {', '.join(cls.library())}")
        file = resources.files("chatglm.characters").joinpath("library", f"{name}.yaml")
        return cls.from_bytes(file.read_bytes(), file.name)

    # Role play

    def persona(self) -> Persona:
        """Both speakers, as a `Persona` for `chatglm.chat`."""
        return Persona(
            self.name or Persona.bot_name,
            self._filled(self.bot_info),
            self.user_name or Persona.user_name,
            self._filled(self.user_info),
        )

    def opening(
        self, generation: Generation | str | None, *, greeting: int = 0, system: str = "", instructions: bool = False
    ) -> tuple[Persona | None, tuple[Message, ...]]:
        """The beginning of a dialogue, in the form for a generation of models.

        CharacterGLM gets a persona, and the greeting as an answer to an empty message. All others get a system message
        in sentences, and the greeting. If a generation has no system messages, the sentences come before the first
        question.

        Args:
            generation: of the model; None: unknown, because the model is on another server.
            greeting: index of the greeting.
            system: text that is added to the system message, after the character.
            instructions: whether the model also gets the card's `system_prompt`.

        Raises:
            InputError: there is no such greeting.
        """
        return self._staged(generation, [], greeting, system, instructions)

    def dialogue(
        self,
        generation: Generation | str | None,
        history: Sequence[Message],
        *,
        context: int = 2048,
        count: Count = len,
        greeting: int = 0,
        system: str = "",
        instructions: bool = False,
    ) -> tuple[Persona | None, tuple[Message, ...]]:
        """The opening, as many examples as fit, and the dialogue so far, with the matching lore.

        Args:
            history: messages of the dialogue, without the opening.
            context: number of tokens that the model can read. The lore gets at most a quarter of it. Examples get what
                is left of half of it; the first ones come first.
            count: returns the number of tokens of a text. The default counts characters, which is a safe estimate.
            generation, greeting, system, instructions: see `opening`.

        Raises:
            InputError: there is no such greeting.
        """
        opening = [Message("assistant", self.greeting(greeting))]
        lore = self.lore_of([*opening, *history], context, count)
        told = "\n".join([text for text in (system, *lore) if text])
        persona, start = self._staged(generation, [], greeting, told, instructions)
        room = context // 2 - (0 if persona is None else count(persona.bot_info + persona.user_info))
        for message in (*start, *history):
            room -= count(message.content) + _AROUND
        examples: list[Message] = []
        for pair in self.examples:
            question, answer = map(self._filled, pair)
            if len(question) + len(answer) > 32 * room:  # texts that cannot fit are not counted
                break
            room -= count(question) + count(answer) + 2 * _AROUND
            if room < 0:
                break
            examples += [Message("user", question)] if question or _is_script(generation) else []
            examples.append(Message("assistant", answer))
        persona, start = self._staged(generation, examples, greeting, told, instructions)
        return persona, (*start, *history)

    def lore_of(self, messages: Sequence[Message], budget: int, count: Count = len) -> tuple[str, ...]:
        """The texts of the lore that match the last messages.

        Args:
            budget: tokens of the whole context. The lore gets at most a quarter of it, and at most the card's own
                `token_budget`.
            count: returns the number of tokens of a text.
        """
        book = self.card.get("book", {})
        depth, own = book.get("scan_depth"), book.get("token_budget")
        depth = min(depth, 100) if isinstance(depth, int) and depth > 0 else _SCANNED
        quota = budget // 4
        quota = min(quota, own) if isinstance(own, int) and own > 0 else quota
        texts = [message.content for message in messages[-depth:]]
        return tuple(map(self._filled, chosen(self.lore, texts, quota, lambda text: count(self._filled(text)))))

    def _staged(
        self,
        generation: Generation | str | None,
        examples: Sequence[Message],
        greeting: int,
        system: str,
        instructions: bool,
    ) -> tuple[Persona | None, tuple[Message, ...]]:
        told = "\n".join(
            text for text in (self._filled(self.system_prompt) if instructions else "", system) if text.strip()
        )
        greets = self.greeting(greeting)
        script = _is_script(generation)
        messages = [Message("system", told)] if told else []
        messages += examples
        if greets:
            messages += [Message("user", "")] if script else []
            messages.append(Message("assistant", greets))
        return (self.persona(), tuple(messages)) if script else (None, tuple(staged(messages, self.persona())))

    def greeting(self, number: int = 0) -> str:
        """A greeting with names filled in; "" if the character has none.

        Raises:
            InputError: it has fewer greetings.
        """
        if not self.greetings and number == 0:
            return ""
        if not 0 <= number < len(self.greetings):
            who = self.name or "the character"
            raise InputError(f"greeting {number}: {who} has no such greeting; {len(self.greetings)} in all, from 0 on")
        return self._filled(self.greetings[number])

    def _filled(self, text: str) -> str:
        """Replace `{{char}}` and `{{user}}` by the names. Names are inserted unchanged, even if they contain such
        placeholders.
        """
        chinese = self.language.startswith("zh") if self.language else _CHINESE.search(self.bot_info) is not None
        user = self.user_name or (Persona.user_name if chinese else "the user")
        nickname = self.card.get("data", {}).get("nickname")  # V3
        bot = nickname[:200] if isinstance(nickname, str) and nickname else self.name or Persona.bot_name
        return _PLACEHOLDER.sub(lambda found: user if (found[1] or found[2]).lower() == "user" else bot, text)

    # Forms

    def _fields(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}

    def _card(self, spec: str = "") -> dict[str, Any]:
        if not self.name.strip():
            raise InputError("a card needs the character's name")
        return card_of(self._fields(), spec)

    def _given(self) -> dict[str, Any]:
        """The character's fields in our own form, without empty ones."""
        told = {name: getattr(self, name) for name in _TEXTS}
        told |= {name: list(getattr(self, name)) for name in _LISTS}
        told["examples"] = [{"user": user, "bot": bot} for user, bot in self.examples]
        told["lore"] = written_lore(self.lore)
        told |= {"extensions": dict(self.extensions), "card": dict(self.card)}
        return {name: value for name, value in told.items() if value}


def _json(given: Mapping[str, Any]) -> str:
    return json.dumps(given, ensure_ascii=False, indent=2) + "\n"


def _is_script(generation: Generation | str | None) -> bool:
    return generation == Generation.CHARACTERGLM


def _known() -> list[str]:
    return [*_TEXTS, *_LISTS, *_OTHERS, *_OFFICIAL]


def _own(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Read fields with our own names, or those of CharacterGLM's `character.json`."""
    for name in given:
        if name not in _known():
            raise InputError(f"{where}: unknown name {name!r:.60}; known: {', '.join(_known())}")
    for official, ours in _OFFICIAL.items():
        if official in given and ours in given:
            raise InputError(f"{where}: {official} and {ours} mean the same; leave one out")
    fields: dict[str, Any] = {name: read_text(given, name, where) for name in _TEXTS}
    fields |= {name: read_texts(given, name, where) for name in _LISTS}
    fields["name"] = fields["name"] or read_text(given, "bot_name", where)
    if greeting := read_text(given, "greeting", where):
        fields["greetings"] = (greeting,)
    examples = given.get("examples") or []
    if not isinstance(examples, list) or not all(isinstance(e, dict) and e.keys() <= {"user", "bot"} for e in examples):
        raise InputError(f"{where}: examples: expected a list of {{user: …, bot: …}}")
    fields["examples"] = tuple(
        (read_text(e, "user", f"{where}: examples"), read_text(e, "bot", f"{where}: examples")) for e in examples
    )
    fields["lore"] = read_lore(given.get("lore") or [], f"{where}: lore")
    for name in ("extensions", "card"):
        value = given.get(name) or {}
        if not isinstance(value, dict):
            raise InputError(f"{where}: {name}: expected an object, got {value!r:.60}")
        fields[name] = value
    _check_card(fields["card"], where)
    return fields


def _check_card(card: Mapping[str, Any], where: str) -> None:
    """Check that the kept data of a card have the form that `cards.fields_of` gives them."""
    kinds = {"spec": str, "spec_version": str, "top": dict, "data": dict, "texts": dict, "book": dict}
    for name, value in card.items():
        if not isinstance(value, kinds.get(name, ())):
            raise InputError(f"{where}: card: {name!r:.60} is unknown or of the wrong type")
    texts = card.get("texts", {})
    if card.get("spec", "chara_card_v2") not in ("chara_card_v2", "chara_card_v3") or not (
        texts.keys() <= {"description", "personality", "scenario", "mes_example"}
        and all(isinstance(text, str) for text in texts.values())
    ):
        raise InputError(f"{where}: card: expected the other fields of a V2 or V3 card")


class _Loader(yaml.SafeLoader):
    """Loads YAML without aliases, which could repeat one text a million times. Dates and 12:30 are texts, as in YAML
    1.2.
    """

    nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.nodes += 1
        if self.check_event(yaml.AliasEvent) or self.nodes > _MOST_VALUES:
            raise yaml.composer.ComposerError(
                None, None, "aliases are not supported, or there are too many values", self.peek_event().start_mark
            )
        return super().compose_node(parent, index)

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        if ":" in node.value:
            return self.construct_yaml_str(node)
        return self.construct_yaml_int(node) if node.tag.endswith(":int") else self.construct_yaml_float(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_number)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_number)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.construct_yaml_str)


class _Dumper(yaml.SafeDumper):
    """Dumps YAML that reads back unchanged: PyYAML changes unusual line ends, except between double quotes."""

    def represent_str(self, data: str) -> Any:
        style = '"' if re.search(r"[\x85\u2028\u2029\r]", data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


def _yaml(data: bytes, where: str) -> Any:
    if len(data) > _MOST_YAML:
        raise InputError(f"{where}: larger than {_MOST_YAML:,} bytes")
    try:
        given = yaml.load(data.decode("utf-8-sig"), _Loader)
    except (yaml.YAMLError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark is not None else ""
        raise InputError(f"{where}: {line}not valid YAML or JSON in UTF-8") from None
    _check_values(given, where)
    return given


def _check_values(given: Any, where: str) -> None:
    """Check that there are only values that JSON has, and that their depth is limited."""
    waiting = [(given, 0)]
    seen = 0
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if depth > _MOST_DEPTH or seen > _MOST_VALUES:
            raise InputError(f"{where}: more than {_MOST_DEPTH} levels or {_MOST_VALUES:,} values")
        if isinstance(value, dict):
            if not all(isinstance(name, str) for name in value):
                raise InputError(f"{where}: the name of a field is not a text; put it into quotes")
            waiting += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list):
            waiting += [(inner, depth + 1) for inner in value]
        elif not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
            raise InputError(f"{where}: {value!r:.60} is neither a text nor a number; put it into quotes")
