"""Converts cards of SillyTavern and related programs to fields of a character, and back.

V1 is flat; V2 is `chara_card_v2` (both: https://github.com/malfoyslastname/character-card-spec-v2); V3 is
`chara_card_v3` (https://github.com/kwaroran/character-card-spec-v3). Data that a character has no field for are kept in
its `card` and written again on export, as V2 demands.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from chatglm.characters.lore import LoreEntry
from chatglm.errors import InputError

__all__ = ["card_of", "fields_of", "is_card", "read_lore", "read_text", "read_texts", "written_lore"]

V2, V3 = "chara_card_v2", "chara_card_v3"

_MOST_TEXT = 1 << 20  # characters
_MOST_ENTRIES, _MOST_KEYS = 1000, 10_000
_ABOUT = ("description", "personality", "scenario")  # joined in this order they become bot_info
_FLAT = ("name", *_ABOUT, "first_mes", "mes_example")  # V1
_SAME = ("system_prompt", "post_history_instructions", "creator")
_KNOWN = {*_FLAT, *_SAME, "alternate_greetings", "tags", "creator_notes", "extensions", "character_book"}
_ALWAYS = {"extensions", "character_version", "group_only_greetings", "use_regex"}  # required by specs, even if empty
_OURS = ("user_name", "user_info", "licence", "language")  # in cards: fields of `extensions.chatglm`
_SPEAKER = re.compile(r"\s*(?:(\{\{user\}\}|<user>)|(\{\{char\}\}|<bot>|<char>))\s*[:：]\s*", re.I)
_START = re.compile(r"<start>", re.I)


def is_card(data: Mapping[str, Any]) -> bool:
    """Whether an object is a card: it names its kind, or has fields that only V1 has."""
    return "spec" in data or any(name in data for name in _FLAT[1:])


def fields_of(card: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The arguments of `Character` for a card.

    Raises:
        InputError: the card is of another kind, or a field has the wrong type; the message names it.
    """
    spec = card.get("spec", "")
    if spec not in ("", V2, V3):
        raise InputError(f"{where}: cards of the kind {spec!r:.60} are not supported; supported are {V2} and {V3}")
    data = card.get("data") if spec else card
    if not isinstance(data, Mapping):
        raise InputError(f"{where}: data: expected an object, got {type(data).__name__}")
    texts = {name: read_text(data, name, where) for name in (*_FLAT, *_SAME, "creator_notes")}
    if not texts["name"].strip():
        raise InputError(f"{where}: the card has no name")
    extensions = dict(_object(data, "extensions", where))
    ours = extensions.get("chatglm")
    if isinstance(ours, Mapping) and ours.keys() <= set(_OURS) and all(isinstance(t, str) for t in ours.values()):
        del extensions["chatglm"]
    else:
        ours = {}
    book = _object(data, "character_book", where)
    greetings = (texts["first_mes"], *read_texts(data, "alternate_greetings", where))
    kept = {
        "spec": spec,
        "spec_version": read_text(card, "spec_version", where) if spec else "",
        "top": _rest(card, {"spec", "spec_version", "data"}) if spec else {},
        "data": _rest(data, _KNOWN),
        "texts": {name: texts[name] for name in (*_ABOUT, "mes_example") if texts[name]},
        "book": _rest(book, {"entries"}),
    }
    if not spec:
        # When written as V2, they are put beside the flat fields, as other programs do.
        kept["top"], kept["data"] = {**dict.fromkeys(_FLAT, ""), **kept["data"]}, {}
    return {
        "name": texts["name"],
        "bot_info": _about(texts),
        "greetings": greetings if any(greetings) else (),
        "examples": _examples(texts["mes_example"]),
        "tags": read_texts(data, "tags", where),
        "notes": texts["creator_notes"],
        **{name: texts[name] for name in _SAME},
        **ours,
        "extensions": extensions,
        "lore": read_lore(book.get("entries") or (), f"{where}: character_book"),
        "card": {name: value for name, value in kept.items() if value},
    }


def card_of(fields: Mapping[str, Any], spec: str = "") -> dict[str, Any]:
    """The card for a character's fields.

    Args:
        spec: kind of the card; "": the kind that was read, else V2.
    """
    kept = fields["card"]
    spec = spec or kept.get("spec") or V2
    texts = dict.fromkeys((*_ABOUT, "mes_example"), "") | kept.get("texts", {})
    if _about(texts) != fields["bot_info"]:
        texts.update(description=fields["bot_info"], personality="", scenario="")
    if _examples(texts["mes_example"]) != fields["examples"]:
        texts["mes_example"] = "".join(
            "<START>\n" + (f"{{{{user}}}}: {user}\n" if user else "") + f"{{{{char}}}}: {bot}\n"
            for user, bot in fields["examples"]
        )
    first, *others = fields["greetings"] or ("",)
    flat = {"name": fields["name"], "first_mes": first, **texts}
    ours = {name: fields[name] for name in _OURS if fields[name]}
    data = {
        **kept.get("data", {}),
        **{name: flat[name] for name in _FLAT},
        **{name: fields[name] for name in _SAME},
        "alternate_greetings": others,
        "tags": list(fields["tags"]),
        "creator_notes": fields["notes"],
        "extensions": {**fields["extensions"], **({"chatglm": ours} if ours else {})},
    }
    data.setdefault("character_version", "")
    if spec == V3:
        data.setdefault("group_only_greetings", [])
    if fields["lore"] or "book" in kept:
        book = kept.get("book", {})
        data["character_book"] = {"extensions": {}, **book, "entries": written_lore(fields["lore"], spec == V3)}
    top = {name: flat.get(name, value) for name, value in kept.get("top", {}).items()}
    version = kept.get("spec_version") if spec == kept.get("spec") else None
    return {**top, "spec": spec, "spec_version": version or ("3.0" if spec == V3 else "2.0"), "data": data}


def read_lore(entries: Any, where: str) -> tuple[LoreEntry, ...]:
    """Read the entries of a lorebook, with the field names of cards or of our own files.

    Raises:
        InputError: a field has the wrong type, or there are too many entries.
    """
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise InputError(f"{where}: expected a list of entries")
    if len(entries) > _MOST_ENTRIES:
        raise InputError(f"{where}: more than {_MOST_ENTRIES:,} entries")
    found, keys = [], 0
    for number, entry in enumerate(entries):
        here = f"{where}: entry {number + 1}"
        if not isinstance(entry, Mapping):
            raise InputError(f"{here}: expected an object, got {type(entry).__name__}")
        flags = {name: _flag(entry, name, here) for name in ("selective", "constant", "enabled", "case_sensitive")}
        made = LoreEntry(
            read_text(entry, "content", here),
            read_texts(entry, "keys", here),
            read_texts(entry, "secondary_keys", here),
            **flags,
            order=_number(entry, "insertion_order", here),
            priority=_number(entry, "priority", here),
            more=_rest(entry, _ENTRY),
        )
        keys += len(made.keys) + len(made.secondary_keys)
        found.append(made)
    if keys > _MOST_KEYS:
        raise InputError(f"{where}: more than {_MOST_KEYS:,} keys")
    return tuple(found)


_ENTRY = {"content", "keys", "secondary_keys", "selective", "constant", "enabled", "case_sensitive", "insertion_order",
          "priority"}  # fmt: skip


def written_lore(entries: Sequence[LoreEntry], v3: bool = False) -> list[dict[str, Any]]:
    """Entries in the form of a card."""
    needed: dict[str, Any] = {"extensions": {}, **({"use_regex": False} if v3 else {})}
    return [
        {
            **needed,
            **entry.more,
            "keys": list(entry.keys),
            "secondary_keys": list(entry.secondary_keys),
            "content": entry.content,
            "selective": entry.selective,
            "constant": entry.constant,
            "enabled": entry.enabled,
            "case_sensitive": entry.case_sensitive,
            "insertion_order": entry.order,
            "priority": entry.priority,
        }
        for entry in entries
    ]


def read_text(data: Mapping[str, Any], name: str, where: str) -> str:
    """Read a field that is a text; "" if it is missing.

    Raises:
        InputError: it has another type, or is too long.
    """
    value = data.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{where}: {name}: expected a text, got {value!r:.60}")
    if len(value) > (200 if name in ("name", "bot_name", "user_name") else _MOST_TEXT):
        raise InputError(f"{where}: {name}: too long ({len(value):,} characters)")
    return value


def read_texts(data: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    """Read a field that is a list of texts.

    Raises:
        InputError: it has another type, or is too long.
    """
    value = data.get(name)
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise InputError(f"{where}: {name}: expected a list of texts, got {value!r:.60}")
    if len(value) > _MOST_ENTRIES:
        raise InputError(f"{where}: {name}: more than {_MOST_ENTRIES:,} texts")
    return tuple(read_text({name: text}, name, where) for text in value)


def _rest(data: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The fields that must be written again on export: all unknown ones, unless they are always written."""
    return {name: value for name, value in data.items() if name not in known and (value or name not in _ALWAYS)}


def _object(data: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    value = data.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise InputError(f"{where}: {name}: expected an object, got {type(value).__name__}")
    return value or {}


def _flag(data: Mapping[str, Any], name: str, where: str) -> bool:
    value = data.get(name)
    if value is not None and not isinstance(value, bool):
        raise InputError(f"{where}: {name}: expected true or false, got {value!r:.60}")
    return name == "enabled" if value is None else value


def _number(data: Mapping[str, Any], name: str, where: str) -> float:
    value = data.get(name)
    if value is None:
        return 0
    if not isinstance(value, int | float):
        raise InputError(f"{where}: {name}: expected a number, got {value!r:.60}")
    return value


def _about(texts: Mapping[str, str]) -> str:
    return "\n".join(text for name in _ABOUT if (text := texts[name].strip()))


def _examples(text: str) -> tuple[tuple[str, str], ...]:
    """Pairs of question and answer in a card's `mes_example`."""
    pairs: list[tuple[str, str]] = []
    for block in _START.split(text):
        turns: list[tuple[bool, list[str]]] = []  # for each turn: whether the user speaks, and the lines
        for line in block.strip().splitlines():
            if speaker := _SPEAKER.match(line):
                by_user = speaker[1] is not None
                if not turns or turns[-1][0] != by_user or not by_user:
                    turns.append((by_user, []))
                turns[-1][1].append(line[speaker.end() :])
            elif turns:
                turns[-1][1].append(line)
        question = ""
        for by_user, lines in turns:
            said = "\n".join(lines).strip()
            if by_user:
                question = said
            elif said:
                pairs.append((question, said))
                question = ""
    return tuple(pairs)
