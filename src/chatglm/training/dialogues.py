"""Dialogues for training, read from files of any size in the forms that people have them in.

| form           | a row                                                                                               |
|----------------|-----------------------------------------------------------------------------------------------------|
| `chatglm3`     | `{"conversations": [{"role", "content"} or {"role": "tool", "name", "parameters", "observation"}]}` |
| `messages`     | `{"messages": [{"role", "content", "tool_calls"?}]}`, as GLM-4 and OpenAI have them                 |
| `pairs`        | `{"prompt", "response", "history"?: [[question, answer]]}`; other common names, or `columns`        |
| `firefly`      | `{"conversation": [{"human", "assistant"}]}`                                                        |
| `alpaca`       | `{"instruction", "input"?, "output", "history"?}`                                                   |
| `sharegpt`     | `{"conversations": [{"from", "value"}]}`                                                            |
| `characterglm` | any of these with `"session_meta"` or `"meta"`: `{bot_name, bot_info, user_name, user_info}`        |

Any row may have `"system"` and `"tools"`, any message `"loss": true | false`. Each row is told by itself, so forms may
be mixed. Files are .json, .jsonl, or tables (.csv, .tsv, .parquet) with these names as columns.
"""

from __future__ import annotations

import codecs
import dataclasses
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeAlias

from chatglm.chat.messages import INTERPRETER, Message, ToolCall, ToolSpec
from chatglm.chat.personas import Persona
from chatglm.errors import InputError
from chatglm.training.tables import Unreadable, open_data, read_csv, read_parquet

__all__ = ["BadRow", "Columns", "Dialogue", "Paths", "data_files", "detect_form", "named_files", "read_dialogues"]

Paths: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Columns: TypeAlias = Mapping[str, str]
"""What the columns `prompt`, `response` and `history` of the pairs form are called."""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One row of the data.

    Attributes:
        messages: at least one of them an assistant's.
        tools: on offer besides those in its messages.
        where: "file:line".
        form: the form that it was read from.
        persona: who speaks, in a role play.
    """

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    where: str = ""
    form: str = ""
    persona: Persona | None = None


class BadRow(NamedTuple):
    """A row that was left out."""

    where: str
    reason: str


# Files


def named_files(paths: Paths, endings: Collection[str], what: str, hint: str) -> list[Path]:
    """The files that paths name: themselves, and of a folder every one with such an ending, by name.

    Args:
        endings: those that are read, such as ".jsonl".
        what: what the files are to hold, for messages.
        hint: what to do with a file that has another ending.

    Raises:
        InputError: one is missing, has another ending, or is a folder without such files.
    """
    files: list[Path] = []
    for path in [paths] if isinstance(paths, str | os.PathLike) else paths:
        path = Path(path).expanduser()
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix in endings and file.is_file())
            if not found:
                raise InputError(f"{path}: a folder without {', '.join(endings)} files; give the files with the {what}")
            files += found
        elif not path.exists():
            raise InputError(f"{path}: no such file")
        elif path.suffix not in endings:
            raise InputError(f"{path}: the ending must be one of {', '.join(endings)}{hint}")
        else:
            files.append(path)
    if not files:
        raise InputError(f"no files with {what} were given")
    return files


def data_files(paths: Paths) -> list[Path]:
    """The files of dialogues that paths name: .json, .jsonl, .csv, .tsv, .parquet; see `named_files`."""
    return named_files(paths, _READERS, "dialogues", "; convert it, or rename it if it is one of these")


def read_dialogues(
    paths: Paths, *, skipped: list[BadRow] | None = None, columns: Columns | None = None
) -> Iterator[Dialogue]:
    """Dialogues one by one, however large the files are.

    Args:
        paths: .json (a list, an object with a list in it, or JSON lines after all), .jsonl, .csv, .tsv or .parquet; or
            folders of them.
        skipped: bad rows are added to it and left out; without it they are errors. What is behind a place where a
            .json file is no JSON cannot be read, and is an error in any case.
        columns: {"prompt": …, "response": …, "history": …}, what these columns are called in the data.

    Raises:
        InputError: a file that cannot be read, or a bad row, "file:line: field: what is wrong".
    """
    names = _check_columns(columns)
    for file in data_files(paths):
        for line, row in _READERS[file.suffix](file, names):
            where = f"{file}:{line}"
            try:
                if isinstance(row, Unreadable):
                    raise InputError(row.reason)
                dialogue = _dialogue(row, where, names)
            except (InputError, RecursionError) as error:
                said = str(error) if isinstance(error, InputError) else "nested too deep to be a dialogue"
                reason = said.encode("utf-8", "backslashreplace").decode()  # it quotes what may be no text
                if skipped is None:
                    raise InputError(f"{where}: {reason}") from None
                skipped.append(BadRow(where, reason))
            else:
                yield dialogue


Numbered: TypeAlias = Iterator[tuple[int, Any]]
"""Rows with the lines that they begin in."""


def _read_lines(file: Path, columns: Columns | None = None) -> Numbered:
    """JSON lines: a broken one harms no other."""
    with open_data(file) as opened:
        for number, raw in enumerate(opened, 1):
            if number == 1:
                _refuse_utf16(file, raw)
                raw = raw.removeprefix(codecs.BOM_UTF8)
            if raw.strip():
                yield number, _parse(raw)


def _parse(raw: bytes) -> Any:
    try:
        return json.loads(raw.rstrip().decode("utf-8"))
    except UnicodeDecodeError as error:
        return Unreadable(f"not UTF-8 ({error.reason} at byte {error.start}); save the file as UTF-8")
    except json.JSONDecodeError as error:
        return Unreadable(f"not JSON: {error.msg} at column {error.colno}; in a .jsonl file each line is one row")
    except RecursionError:
        return Unreadable("nested too deep to be a dialogue")
    except ValueError as error:  # Python reads no number of more than 4,300 digits
        return Unreadable(f"a number in it cannot be read ({str(error).partition(';')[0]})")


def _read_json(file: Path, columns: Columns | None = None) -> Numbered:
    """A list of rows, an object with one in it, or JSON lines under the name .json."""
    with open_data(file) as opened:
        head = opened.read(_CHUNK)
        _refuse_utf16(file, head)
        head = head.removeprefix(codecs.BOM_UTF8).lstrip()
        first, newline, _ = head.partition(b"\n")
    if head[:1] == b"{" and newline and isinstance(row := _parse(first), dict) and not _holds_rows(row, columns):
        yield from _read_lines(file)
        return
    with open_data(file) as opened:
        text = _Json(file, opened)
        opening = text.peek()
        if opening == "[":
            yield from text.elements()
        elif opening == "{":
            while text.peek() == "{":
                yield from _rows_of_object(text, columns)
        else:
            text.fail("expected a list of rows, or an object with one", end=not opening)
        if text.peek():
            text.fail("text behind the end of the data")


def _rows_of_object(text: _Json, columns: Columns | None) -> Numbered:
    """Rows from the one list of rows that is in an object; if there is none, the object is a row itself."""
    line = text.line
    seen: dict[str, Any] = {}
    found = ""
    text.take("{")
    while text.peek() != "}":
        if seen or found:
            text.take(",")
        key = text.value()
        if not isinstance(key, str):
            text.fail(f"expected a key, got {key!r:.40}")
        text.take(":")
        if text.peek() == "[":
            elements = text.elements()
            start = next(elements, None)
            if start is not None and detect_form(start[1], columns) is not None:
                if found:
                    text.fail(f"two lists of rows, {found!r} and {key!r}; keep each in a file of its own")
                found = key
                yield start
                yield from elements
                continue
            seen[key] = [*([] if start is None else [start[1]]), *(value for _, value in elements)]
        else:
            seen[key] = text.value()
    text.take("}")
    if not found:
        yield line, seen


def _holds_rows(row: Mapping[str, Any], columns: Columns | None) -> bool:
    """Whether an object has a list of rows in it, and is none itself."""
    lists = (value for value in row.values() if isinstance(value, list) and value)
    return any(detect_form(value[0], columns) is not None for value in lists)


_CHUNK = 1 << 20


class _Json:
    """JSON read piece by piece: never more of a file in memory than a few pieces of it."""

    def __init__(self, file: Path, opened: Any, chunk: int = _CHUNK) -> None:
        self._file, self._opened, self._chunk = file, opened, chunk
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._scan = json.JSONDecoder().raw_decode
        self._text, self._place, self._end = "", 0, False
        self.line = 1

    def peek(self) -> str:
        """The next character that is not blank; "" at the end."""
        while True:
            start = self._place
            length = len(self._text)
            while self._place < length and self._text[self._place] in " \t\r\n":
                self._place += 1
            self.line += self._text.count("\n", start, self._place)
            if self._place < length:
                return self._text[self._place]
            if not self._more():
                return ""

    def take(self, sign: str) -> None:
        found = self.peek()
        if found != sign:
            self.fail(f"expected {sign!r}, got {found!r}", end=not found)
        self._place += 1

    def value(self) -> Any:
        """The next value, whole."""
        self.peek()
        while True:
            try:
                value, end = self._scan(self._text, self._place)
            except json.JSONDecodeError as error:
                # Near the end of what is in memory a value may only be cut.
                open_string = error.msg.startswith("Unterminated")
                if self._end or not (open_string or error.pos >= len(self._text) - _LONGEST_SIGN):
                    self.line += self._text.count("\n", self._place, error.pos)
                    self.fail(error.msg, end=open_string or error.pos >= len(self._text.rstrip()))
            except RecursionError:
                self.fail("nested too deep to be a dialogue")
            except ValueError as error:
                self.fail(f"a number in it cannot be read ({str(error).partition(';')[0]})")
            else:
                if end <= len(self._text) - _LONGEST_SIGN or self._end:
                    self.line += self._text.count("\n", self._place, end)
                    self._place = end
                    return value
            self._more(len(self._text) - self._place)

    def elements(self) -> Numbered:
        """Elements of a list, with the lines that they begin in."""
        self.take("[")
        if self.peek() == "]":
            self.take("]")
            return
        while True:
            self.peek()
            line = self.line
            yield line, self.value()
            if self.peek() == "]":
                break
            self.take(",")
        self.take("]")

    def fail(self, problem: str, end: bool = False) -> NoReturn:
        """Says where the file is no JSON."""
        if end:
            problem = f"the file ends too early ({problem}); copy it again"
        raise InputError(f"{self._file}:{self.line}: not JSON: {problem}")

    def _more(self, least: int = 0) -> bool:
        """Read on; with long values more at a time, so that the cost stays linear. False at the end of the file."""
        if self._end:
            return False
        raw = self._opened.read(max(self._chunk, least))
        try:
            new = self._decode(raw, not raw)
        except UnicodeDecodeError as error:
            self.line += self._text.count("\n", self._place) + raw.count(b"\n", 0, error.start)
            raise InputError(f"{self._file}:{self.line}: not UTF-8 ({error.reason}); save the file as UTF-8") from None
        self._end = not raw
        self._text, self._place = self._text[self._place :] + new, 0
        return not self._end or bool(new)


_LONGEST_SIGN = 16
"""So many characters must stand behind a number, or an error, for it not to come from where a piece ends; there is
nothing longer in JSON that means something else by halves, besides strings. (An escaped surrogate pair has 12.)"""


def _refuse_utf16(file: Path, head: bytes) -> None:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(f"{file}:1: this is UTF-16; save the file as UTF-8")


_READERS: dict[str, Callable[[Path, Columns | None], Numbered]] = {
    ".json": _read_json,
    ".jsonl": _read_lines,
    ".csv": lambda file, columns: read_csv(file),
    ".tsv": lambda file, columns: read_csv(file),
    ".parquet": lambda file, columns: read_parquet(file),
}

# Rows

_PAIRS = {"prompt": "prompt", "response": "response", "history": "history"}
# What people call the two columns, the surest first. `content` and `summary` are the official AdGen data's.
_ALIASES = (
    ("prompt", "response"),
    ("content", "summary"),
    ("prompt", "completion"),
    ("query", "response"),
    ("question", "answer"),
    ("question", "response"),
    ("query", "answer"),
    ("prompt", "answer"),
    ("input", "output"),
    ("input", "target"),
    ("context", "target"),
    ("source", "target"),
    ("instruction", "response"),
    ("instruction", "answer"),
    ("instruction", "target"),
)


def _alias(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """The columns of a row that are a question and its answer."""
    return next((pair for pair in _ALIASES if pair[0] in row and pair[1] in row), None)


def _check_columns(columns: Columns | None) -> Columns | None:
    if columns is None:
        return None
    for name in columns:
        if name not in _PAIRS:
            raise InputError(f"columns: {name!r} is none of {', '.join(_PAIRS)}")
    return {**_PAIRS, **columns}


def detect_form(row: Any, columns: Columns | None = None) -> str | None:
    """The name of a row's form; None if it is none of those known."""
    if not isinstance(row, Mapping):
        return None
    if "session_meta" in row or "meta" in row:
        inner = {key: value for key, value in row.items() if key not in ("session_meta", "meta")}
        meta = row.get("session_meta", row.get("meta"))
        if detect_form(inner, columns) is None or not isinstance(meta, Mapping):
            return None if "session_meta" in row else detect_form(inner, columns)
        # Others have a column "meta" too, for their own purposes.
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


def _dialogue(row: Any, where: str, columns: Columns | None) -> Dialogue:
    """A row as a dialogue.

    Raises:
        InputError: it cannot be one; begins with the field.
    """
    if not isinstance(row, Mapping):
        raise InputError(f"a row must be an object, got {type(row).__name__}")
    form = detect_form(row, columns)
    if form is None:
        names = [str(name) for name in row]
        raise InputError(
            f"a row with the fields {', '.join(names) or '(none)':.200} is of no known form; known are "
            "conversations, messages, conversation, instruction and output, prompt and response; say which fields are "
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
            raise InputError(f"message {number + 1}: the assistant says nothing; write its answer, or loss: false")
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
        # OpenAI's message of that role has `content`, what the tool returned.
        if isinstance(entry, Mapping) and entry.get("role") == "tool" and entry.get("content") is None:
            messages += _call_and_observation(entry, f"conversations[{number}]")
        else:
            messages.append(_message(entry, number, "conversations"))
    return messages


def _call_and_observation(entry: Mapping[str, Any], field: str) -> list[Message]:
    """ChatGLM3's `tool` entry: a call, which is learned, and what it returned, which is not."""
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
        raise InputError(f"{key}[{number}].content: missing; a {message.role} message is nothing without it")
    weight = entry.get("weight")  # OpenAI's name for the same, 0 or 1
    if weight is not None and message.loss is None:
        if weight not in (0, 1):
            raise InputError(f"{key}[{number}].weight: must be 0 or 1, got {weight!r}")
        message = dataclasses.replace(message, loss=bool(weight))
    return message


def _of_pairs(row: Mapping[str, Any], columns: Columns | None) -> list[Message]:
    if columns is None or columns["prompt"] not in row:
        prompt, response = _alias(row) or _ALIASES[0]
        columns = {**_PAIRS, "prompt": prompt, "response": response}
    messages = _history(row, columns["history"])
    for role, key in (("user", columns["prompt"]), ("assistant", columns["response"])):
        messages.append(Message(role, _text(row.get(key), key)))
    messages[-1] = dataclasses.replace(messages[-1], loss=_loss(row, ""))
    return messages


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
    question = _text(row["instruction"], "instruction")
    if row.get("input"):
        question += "\n" + _text(row["input"], "input")
    answer = Message("assistant", _text(row["output"], "output"), loss=_loss(row, ""))
    return [*_history(row, "history"), Message("user", question), answer]


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
