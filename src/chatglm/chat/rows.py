"""Reads dialogues from rows of JSON, in common forms.

| form           | a row                                                                                               |
|----------------|-----------------------------------------------------------------------------------------------------|
| `chatglm3`     | `{"conversations": [{"role", "content"} or {"role": "tool", "name", "parameters", "observation"}]}` |
| `messages`     | `{"messages": [{"role", "content", "tool_calls"?}]}`, as GLM-4 and OpenAI have them                 |
| `pairs`        | `{"prompt", "response", "history"?: [[question, answer]]}`; other common names, or `columns`        |
| `firefly`      | `{"conversation": [{"human", "assistant"}]}`                                                        |
| `alpaca`       | `{"instruction", "input"?, "output", "history"?}`                                                   |
| `sharegpt`     | `{"conversations": [{"from", "value"}]}`                                                            |
| `characterglm` | any of these with `"session_meta"` or `"meta"`: `{bot_name, bot_info, user_name, user_info}`        |

Any row may have `"system"` and `"tools"`, any message `"loss": true | false`. The form of each row is detected
separately, so forms may be mixed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from chatglm.chat.messages import INTERPRETER, Message, ToolCall, ToolSpec
from chatglm.chat.personas import Persona
from chatglm.errors import InputError

__all__ = ["Columns", "Dialogue", "check_columns", "detect_form", "dialogue_of"]

Columns: TypeAlias = Mapping[str, str]
"""Names in the data for the columns `prompt`, `response` and `history` of the pairs form."""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One row of the data.

    Attributes:
        messages: at least one of them is from the assistant.
        tools: tools of the row; then no message has tools.
        where: "file:line".
        form: the format of the row.
        persona: the speakers of a role play.
    """

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    where: str = ""
    form: str = ""
    persona: Persona | None = None


_PAIRS = {"prompt": "prompt", "response": "response", "history": "history"}
# Common names of the two columns, the most reliable first. `content` and `summary` are those of the official AdGen
# data.
_ALIASES = (
    ("prompt", "response"),
    ("content", "summary"),
    ("prompt", "completion"),
    ("query", "response"),
    ("question", "answer"),
    ("question", "response"),
    ("query", "answer"),
    ("prompt", "answer"),
    ("instruction", "response"),
    ("instruction", "answer"),
    ("instruction", "target"),
    ("input", "output"),
    ("input", "target"),
    ("context", "target"),
    ("source", "target"),
)


def _alias(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """The columns of a row that hold a question and its answer."""
    return next((pair for pair in _ALIASES if pair[0] in row and pair[1] in row), None)


def check_columns(columns: Columns | None) -> Columns | None:
    """Add the default names of columns that are not named; None if there are no names at all.

    Raises:
        InputError: a key is not a column of the pairs form.
    """
    if columns is None:
        return None
    for name in columns:
        if name not in _PAIRS:
            raise InputError(f"columns: {name!r} is not one of {', '.join(_PAIRS)}")
    return {**_PAIRS, **columns}


def detect_form(row: Any, columns: Columns | None = None) -> str | None:
    """The name of a row's form; None if the form is not known."""
    if not isinstance(row, Mapping):
        return None
    if "session_meta" in row or "meta" in row:
        inner = {key: value for key, value in row.items() if key not in ("session_meta", "meta")}
        meta = row.get("session_meta", row.get("meta"))
        if detect_form(inner, columns) is None or not isinstance(meta, Mapping):
            return None if "session_meta" in row else detect_form(inner, columns)
        # Other data may have a column "meta" for another purpose.
        return "characterglm" if "session_meta" in row or "bot_name" in meta else detect_form(inner, columns)
    if columns is not None and columns.get("prompt", "prompt") in row and columns.get("response", "response") in row:
        return "pairs"
    for key, form in (("conversations", "chatglm3"), ("messages", "messages"), ("conversation", "firefly")):
        if key not in row:
            continue
        entries = row[key] if isinstance(row[key], list) else []
        first = next((entry for entry in entries if isinstance(entry, Mapping)), {})
        if "from" in first:
            return "sharegpt"
        if "role" in first:
            return "messages" if form == "firefly" else form
        if "human" in first:
            return "firefly"
        if key != "conversations" or isinstance(row[key], list):
            return form
    if "instruction" in row and "output" in row:
        return "alpaca"
    return "pairs" if _alias(row) else None


def _key(row: Mapping[str, Any]) -> str:
    """The field with the messages."""
    return next(key for key in ("conversations", "messages", "conversation") if key in row)


def dialogue_of(row: Any, where: str = "", columns: Columns | None = None) -> Dialogue:
    """Read a row as a dialogue.

    Args:
        where: the row's place, for `Dialogue.where`.
        columns: what `check_columns` returned.

    Raises:
        InputError: the row is not a dialogue; the message names the field or message.
        RecursionError: the row is nested too deep.
    """
    if not isinstance(row, Mapping):
        raise InputError(f"a row must be an object, got {type(row).__name__}")
    form = detect_form(row, columns)
    if form is None:
        names = [str(name) for name in row]
        raise InputError(
            f"a row with the fields {', '.join(names) or '(none)':.200} is of no known form; known are "
            "conversations, messages, conversation, instruction and output, prompt and response; name the fields of "
            f"the last two with --set data_config.columns.prompt={(names or ['NAME'])[0]:.40} --set "
            f"data_config.columns.response={(names or ['NAME'])[-1]:.40} (in Python: columns)"
        )
    persona, reader = None, form
    if form == "characterglm":
        key = "session_meta" if "session_meta" in row else "meta"
        persona = _persona(row[key], key)
        row = {name: value for name, value in row.items() if name != key}
        reader = detect_form(row, columns) or ""
    messages = _FORMS[reader](row, columns)
    if not messages:
        raise InputError("the dialogue is empty")
    system = row.get("system")
    if system:
        if messages[0].role == "system":
            raise InputError("system: the first message is a system message too; keep one of them")
        messages.insert(0, Message("system", _text(system, "system")))
    for number, message in enumerate(messages):
        if (
            message.role == "assistant"
            and message.loss is not False
            and not (message.content.strip() or message.tool_calls)
        ):
            raise InputError(
                f"message {number + 1}: the assistant's message is empty; write its answer, or set loss: false"
            )
        for call in message.tool_calls:
            if call.cut:
                raise InputError(f"message {number + 1}: arguments of {call.name} must be a JSON object")
    if not any(message.role == "assistant" for message in messages):
        raise InputError("no message is from the assistant, so there is nothing to learn")
    tools = _tools(row.get("tools"))
    if tools and any(message.tools for message in messages):
        raise InputError("tools: a message has tools too; keep them in one place")
    if form == "pairs" and (columns is None or columns["prompt"] not in row):
        alias = _alias(row)
        form = "pairs" if alias is None or alias in _ALIASES[:2] else "/".join(alias)
    return Dialogue(tuple(messages), tools, where, form, persona)


def _of_chatglm3(row: Mapping[str, Any], columns: Columns | None) -> list[Message]:
    messages: list[Message] = []
    for number, entry in enumerate(_list(row, "conversations")):
        # An OpenAI message with this role has `content`, the result of the tool.
        if isinstance(entry, Mapping) and entry.get("role") == "tool" and entry.get("content") is None:
            messages += _call_and_observation(entry, f"conversations[{number}]")
        else:
            messages.append(_message(entry, number, "conversations"))
    return messages


def _call_and_observation(entry: Mapping[str, Any], field: str) -> list[Message]:
    """Read ChatGLM3's `tool` entry: a call, which is learned, and its result, which is not."""
    if not isinstance(entry.get("name"), str):
        raise InputError(f"{field}.name: expected the tool's name, got {entry.get('name')!r:.80}")
    name, parameters = entry["name"], entry.get("parameters", {})
    if name == INTERPRETER and isinstance(parameters, str):
        parameters = {"code": parameters}
    try:
        call = ToolCall.from_dict({"name": name, "arguments": parameters})
    except InputError as error:
        raise InputError(f"{field}.parameters: {str(error).removeprefix('tool_calls: ')}") from None
    messages = [Message("assistant", tool_calls=(call,), loss=_loss(entry, field))]
    if entry.get("observation") is not None:
        observation = entry["observation"]
        if not isinstance(observation, str):
            observation = json.dumps(observation, ensure_ascii=False)
        messages.append(Message("observation", observation))
    return messages


def _of_messages(row: Mapping[str, Any], columns: Columns | None) -> list[Message]:
    key = _key(row)
    return [_message(entry, number, key) for number, entry in enumerate(_list(row, key))]


def _message(entry: Any, number: int, key: str) -> Message:
    if isinstance(entry, Mapping) and (speaker := _SPEAKERS.get(str(entry.get("role")))) in ("user", "assistant"):
        entry = {**entry, "role": speaker}  # human, gpt, bot
    try:
        message = Message.from_dict(entry, number)
    except InputError as error:
        raise InputError(str(error).replace("messages[", f"{key}[", 1)) from None
    if message.role in ("user", "observation") and entry.get("content") is None:
        raise InputError(f"{key}[{number}].content: missing; a {message.role} message needs it")
    weight = entry.get("weight")  # OpenAI's name for `loss`, 0 or 1
    if weight is not None and message.loss is None:
        if weight not in (0, 1):
            raise InputError(f"{key}[{number}].weight: must be 0 or 1, got {weight!r}")
        message = dataclasses.replace(message, loss=bool(weight))
    return message


def _of_pairs(row: Mapping[str, Any], columns: Columns | None) -> list[Message]:
    if columns is None or columns["prompt"] not in row:
        prompt, response = _alias(row) or _ALIASES[0]
        columns = {**_PAIRS, "prompt": prompt, "response": response}
        question = _instruction(row) if prompt == "instruction" else _text(row.get(prompt), prompt)
    else:
        question = _text(row.get(columns["prompt"]), columns["prompt"])
    answer = _text(row.get(columns["response"]), columns["response"])
    asked, answered = Message("user", question), Message("assistant", answer, loss=_loss(row, ""))
    return [*_history(row, columns["history"]), asked, answered]


def _history(row: Mapping[str, Any], key: str) -> list[Message]:
    messages: list[Message] = []
    for number, pair in enumerate(_list(row, key) if row.get(key) else []):
        if not isinstance(pair, list) or len(pair) != 2:
            raise InputError(f"{key}[{number}]: expected a pair [question, answer], got {pair!r:.80}")
        for role, text, place in zip(("user", "assistant"), pair, (0, 1), strict=True):
            messages.append(Message(role, _text(text, f"{key}[{number}][{place}]")))
    return messages


def _of_firefly(row: Mapping[str, Any], columns: Columns | None) -> list[Message]:
    messages: list[Message] = []
    key = _key(row)
    for number, entry in enumerate(_list(row, key)):
        field = f"{key}[{number}]"
        if not isinstance(entry, Mapping):
            raise InputError(f"{field}: expected {{'human', 'assistant'}}, got {entry!r:.80}")
        messages.append(Message("user", _text(entry.get("human"), f"{field}.human")))
        answer = _text(entry.get("assistant"), f"{field}.assistant")
        messages.append(Message("assistant", answer, loss=_loss(entry, field)))
    return messages


def _of_alpaca(row: Mapping[str, Any], columns: Columns | None) -> list[Message]:
    answer = Message("assistant", _text(row["output"], "output"), loss=_loss(row, ""))
    return [*_history(row, "history"), Message("user", _instruction(row)), answer]


def _instruction(row: Mapping[str, Any]) -> str:
    """A row's instruction, and on the next line the text that it is about: `input`, or `context` as in Dolly's data."""
    question = _text(row["instruction"], "instruction")
    if row.get("input"):
        return f"{question}\n{_text(row['input'], 'input')}"
    about = row.get("context")
    return f"{question}\n{about}" if isinstance(about, str) and about else question


_SPEAKERS = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "assistant": "assistant",
    "function_call": "call",
    "tool_call": "call",
    "observation": "observation",
    "tool": "observation",
    "tool_response": "observation",
    "function_response": "observation",
}


def _of_sharegpt(row: Mapping[str, Any], columns: Columns | None) -> list[Message]:
    messages: list[Message] = []
    key = _key(row)
    for number, entry in enumerate(_list(row, key)):
        field = f"{key}[{number}]"
        if not isinstance(entry, Mapping):
            raise InputError(f"{field}: expected {{'from', 'value'}}, got {entry!r:.80}")
        role = _SPEAKERS.get(str(entry.get("from")))
        if role is None:
            raise InputError(f"{field}.from: {entry.get('from')!r}; must be one of {', '.join(_SPEAKERS)}")
        loss = _loss(entry, field)
        if role != "call":
            messages.append(Message(role, _text(entry.get("value"), f"{field}.value"), loss=loss))
            continue
        calls = entry.get("value")
        if isinstance(calls, str):
            try:
                calls = json.loads(calls)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{field}.value: a call must be JSON with `name` and `arguments` ({error})") from None
        several: list[Any] = calls if isinstance(calls, list) else [calls]
        made = [ToolCall.from_dict(call, f"{field}.value") for call in several]
        messages.append(Message("assistant", tool_calls=tuple(made), loss=loss))
    return messages


_FORMS: dict[str, Callable[[Mapping[str, Any], Columns | None], list[Message]]] = {
    "chatglm3": _of_chatglm3,
    "messages": _of_messages,
    "pairs": _of_pairs,
    "firefly": _of_firefly,
    "alpaca": _of_alpaca,
    "sharegpt": _of_sharegpt,
}


# Fields


def _list(row: Mapping[str, Any], key: str) -> list[Any]:
    value = row.get(key)
    if not isinstance(value, list):
        raise InputError(f"{key}: expected a list, got {type(value).__name__}")
    return value


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{field}: expected a string, got {'nothing' if value is None else type(value).__name__}")
    return value


def _loss(entry: Mapping[str, Any], field: str) -> bool | None:
    value = entry.get("loss")
    if value is not None and not isinstance(value, bool):
        raise InputError(f"{field}{'.' if field else ''}loss: must be true or false, got {value!r:.40}")
    return value


def _tools(value: Any) -> tuple[ToolSpec, ...]:
    if isinstance(value, str):
        try:
            value = json.loads(value.strip() or "[]")
        except (ValueError, RecursionError) as error:
            raise InputError(f"tools: a string must be JSON ({error})") from None
    return ToolSpec.list_from(value) if value else ()


def _persona(meta: Any, key: str) -> Persona:
    if not isinstance(meta, Mapping):
        raise InputError(f"{key}: expected an object, got {type(meta).__name__}")
    known = [field.name for field in dataclasses.fields(Persona)]
    return Persona(**{name: _text(meta[name], f"{key}.{name}") for name in known if meta.get(name) is not None})
