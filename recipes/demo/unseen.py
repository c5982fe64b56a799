"""Dialogues that people could have typed (`unseen.yaml`), and how the demo model's answers to them are judged.

An answer is right, or honest (the model says that it cannot, or does not know), or wrong, or babble: without an end, or
the same over and over, or nothing at all.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import yaml

from chatglm.chat.messages import Message
from chatglm.loading import load_parts

__all__ = ["FILE", "Tally", "judge", "read", "report", "unseen"]

FILE = Path(__file__).with_name("unseen.yaml")
LONGEST = 200
"""Tokens of an answer."""

Verdict = Literal["right", "honest", "wrong", "babble"]
_VERDICTS: tuple[Verdict, ...] = ("right", "honest", "wrong", "babble")

_REFUSALS = re.compile(
    "还不会|不知道|没有说|还没有告诉我|没有合适的工具|无法回答|没想好|算不了|没有这样的"
    "|cannot|can ?not|not told me|is not given|have not thought|none of the tools|do not know"
)
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?|(?<=[=＝:：])-?\d+(?:\.\d+)?|\d+(?:\.\d+)?")
_CITED = re.compile(r"\[(\d+)\][。.]?$")
_INTERPRETER = "interpreter"


@dataclass
class Tally:
    """Of one skill: how many answers were what, and those that were not right."""

    verdicts: dict[Verdict, int] = field(default_factory=lambda: dict.fromkeys(_VERDICTS, 0))
    others: list[tuple[Verdict, str, str]] = field(default_factory=list)

    @property
    def asked(self) -> int:
        return sum(self.verdicts.values())


def read(file: Path = FILE) -> dict[str, list[dict[str, Any]]]:
    """Dialogues by skill, with their tools whole."""
    data = yaml.safe_load(file.read_text("utf-8"))
    for items in data["dialogues"].values():
        for item in items:
            item["tools"] = [data["tools"][name] for name in item.get("tools", ())]
            item["ask"] = [item["ask"]] if isinstance(item["ask"], str) else item["ask"]
    dialogues: dict[str, list[dict[str, Any]]] = data["dialogues"]
    return dialogues


@torch.no_grad()
def unseen(folder: str | Path, file: Path = FILE) -> dict[str, Tally]:
    """Ask a model all of them, greedily."""
    model, _, form = load_parts(folder, dtype=torch.float32)
    tallies: dict[str, Tally] = {}
    for skill, items in read(file).items():
        tally = tallies[skill] = Tally()
        for item in items:
            got, text, ended = _asked(model, form, item)
            verdict = judge(item, got, text, ended)
            tally.verdicts[verdict] += 1
            if verdict != "right":
                tally.others.append((verdict, " / ".join(item["ask"])[-200:], text.strip()))
    return tallies


def _asked(model: Any, form: Any, item: Mapping[str, Any]) -> tuple[Message, str, bool]:
    """The last answer, as a message and as text, and whether it came to an end."""
    messages = [Message("system", item["system"])] if "system" in item else []
    for question in item["ask"][:-1]:
        messages.append(Message("user", question))
        messages.append(_answer(model, form, messages, item["tools"])[0])
    messages.append(Message("user", item["ask"][-1]))
    if called := item.get("called"):
        made = {"role": "assistant", "content": "", "tool_calls": [called]}
        messages += [Message.from_dict(made, 0), Message.from_dict({"role": "tool", "content": item["returned"]}, 1)]
    return _answer(model, form, messages, item["tools"])


def _answer(model: Any, form: Any, messages: Sequence[Message], tools: Any) -> tuple[Message, str, bool]:
    prompt = form.prompt(messages, tools)
    made = model.generate(
        torch.tensor([prompt]), do_sample=False, max_new_tokens=LONGEST, eos_token_id=list(form.stop_ids)
    )[0, len(prompt) :].tolist()
    return form.parse(made), form.tokenizer.decode(made), bool(made) and made[-1] in form.stop_ids


def judge(item: Mapping[str, Any], got: Message, text: str, ended: bool) -> Verdict:
    """What an answer is.

    Args:
        item: as in the file.
        text: of the answer, a call as it was written.
        ended: whether the model came to an end.
    """
    if not ended or _babbles(text):
        return "babble"
    said = _plain(got.content)
    if _right(item, got, said):
        return "right"
    return "honest" if not got.tool_calls and _REFUSALS.search(said) else "wrong"


def _right(item: Mapping[str, Any], got: Message, said: str) -> bool:
    calls = [(call.name, dict(call.arguments)) for call in got.tool_calls]
    if wanted := item.get("call"):
        allowed = wanted["arguments"]
        allowed = [allowed] if isinstance(allowed, Mapping) else allowed
        return bool(calls) and calls[0][0] == wanted["name"] and _bare(calls[0][1]) in allowed
    if wanted := item.get("code"):
        code = re.sub(r"\s", "", str(calls[0][1].get("code", ""))) if calls else ""
        return bool(calls) and calls[0][0] == _INTERPRETER and all(part.replace(" ", "") in code for part in wanted)
    if calls:
        return False
    if item.get("refuse"):
        return bool(_REFUSALS.search(said))
    checks = [
        "is" not in item or said.strip("。.!？?") == _plain(item["is"]).strip("。.!？?"),
        all(_within(part, said) for part in item.get("has", ())),
        "any" not in item or any(_within(part, said) for part in item["any"]),
        not any(_within(part, said) for part in item.get("lacks", ())),
        "number" not in item or (_NUMBER.findall(said) or [""])[-1] == str(item["number"]),
        "cite" not in item or [str(item["cite"])] == _CITED.findall(said),
    ]
    return all(checks)


def _bare(arguments: dict[str, Any]) -> dict[str, Any]:
    """Without blanks around texts, which no tool minds."""
    return {name: value.strip() if isinstance(value, str) else value for name, value in arguments.items()}


def _within(part: str, said: str) -> bool:
    """Numbers as a whole, and words of few letters, too."""
    part = _plain(part)
    found = re.escape(part)
    if part[:1].isdigit():
        found = r"(?<![\d.])" + found
    if part[-1:].isdigit():
        found += r"(?!\d)"
    if part.isascii() and part.isalpha() and len(part) < 4:
        found = rf"(?<![a-z]){found}(?![a-z])"
    return re.search(found, said) is not None


def _plain(text: str) -> str:
    """In small letters, half width, and without blanks beside Chinese characters."""
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return re.sub(r"(?<=[^\x00-\x7f]) | (?=[^\x00-\x7f])", "", text)


def _babbles(text: str) -> bool:
    """Whether it is nothing, or goes round: the same stretch four times and more, as no answer has it."""
    return not text.strip() or "\ufffd" in text or re.search(r"(\S.{3,40}?)\1{3,}", text, re.DOTALL) is not None


def report(tallies: Mapping[str, Tally]) -> str:
    """A table for people."""
    lines = ["| skill | right | right or honest | babble |", "|---|---|---|---|"]
    whole = Tally()
    for tally in tallies.values():
        for verdict, count in tally.verdicts.items():
            whole.verdicts[verdict] += count
    for name, tally in [*tallies.items(), ("all", whole)]:
        right, honest, babble = (tally.verdicts[verdict] for verdict in ("right", "honest", "babble"))
        shares = f"{(right + honest) / tally.asked:.1%} | {babble / tally.asked:.1%}"
        lines.append(f"| {name} | {right / tally.asked:.1%} of {tally.asked} | {shares} |")
    return "\n".join(lines)
