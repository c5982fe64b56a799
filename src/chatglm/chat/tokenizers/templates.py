"""Renders chat templates, and finds the control tokens that come from the template and not from the caller's text.

Only the template may write control ids. So it is rendered a second time, with stand-ins for the characters of control
tokens in the caller's text. A control token in the result comes from the template if no character of it is a stand-in.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from chatglm.errors import ChatGLMError, InputError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["LONGEST", "RenderedPrompt", "check_operators", "control_parts", "shows"]

SECONDS = 10.0
"""Most seconds for one template. Templates of a folder are foreign programs; official ones take milliseconds."""

MEMORY = 1 << 30
"""Most bytes of memory for one template, if the system can limit a process (Linux)."""

LONGEST = 1 << 18
"""Most characters of a template. Official ones have 2,000 to 10,000."""

_PRIVATE = range(0xF0000, 0x10FFFE)
"""Private-use code points (planes 15 and 16), which are used as stand-ins."""


Render = Callable[[Mapping[str, Any]], str]
"""Renders a template with these values."""


class RenderedPrompt(str):
    """The text of `apply_chat_template(tokenize=False)`, with its ids.

    A tokenizer returns these ids for it, with or without `add_special_tokens`. A part of it, or its concatenation with
    other text, is an ordinary string, in which names of control tokens are plain text.

    Attributes:
        ids: the ids of the prompt, including its control tokens.
    """

    ids: tuple[int, ...]

    def __new__(cls, text: str, ids: Iterable[int]) -> RenderedPrompt:
        made = super().__new__(cls, text)
        made.ids = tuple(ids)
        return made

    def __getnewargs__(self) -> tuple[Any, ...]:  # for copy and pickle
        return str(self), self.ids


def shows(render: Render, given: Mapping[str, Any], name: str) -> bool:
    """Whether the text of a template depends on one of the values.

    Args:
        given: all values for the template.
        name: name of this value.

    Raises:
        InputError: the template fails with these values, or takes too long.
    """
    text = _run(render, given)
    try:
        return text != _run(render, {**given, name: None})
    except InputError:
        return True


def control_parts(render: Render, given: Mapping[str, Any], names: Iterable[str]) -> list[tuple[str, bool]]:
    """The rendered text in pieces, and which of them are control tokens that the template itself wrote.

    Args:
        render: renders the template with these values.
        given: the caller's values: `conversation`, `tools` and others. Roles get no stand-ins, so the caller must have
            checked them.
        names: the control tokens.

    Raises:
        InputError: the template fails or takes too long, or a value is not JSON.
    """
    names = [name for name in names if name]
    text = _run(render, given)
    stand_ins = _StandIns(names, {*text, *_characters(given)})
    shown, source = text, ""
    for everything in (True, False):
        try:
            source = _run(render, stand_ins.put(given, everything))
        except InputError:
            if not everything:
                raise
            continue  # a condition of the template depends on the caller's text
        shown = stand_ins.undo(source)
        if len(shown) == len(text) and (shown == text or shown.casefold() == text.casefold()):
            shown = text  # the same characters; the template can only have changed upper and lower case
            break
    pattern = re.compile("|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)))
    parts: list[tuple[str, bool]] = []
    end = 0
    for found in pattern.finditer(source) if names else ():
        parts += [(shown[end : found.start()], False), (shown[found.start() : found.end()], True)]
        end = found.end()
    return [(part, control) for part, control in [*parts, (shown[end:], False)] if part]


class _StandIns:
    """Replaces the characters of control tokens by private-use characters, and back."""

    def __init__(self, names: Iterable[str], used: set[str]) -> None:
        letters = {form for name in names for c in name for form in (c, c.lower(), c.upper()) if len(form) == 1}
        # Quotes, backslashes and whitespace keep their characters, because `tojson` and `trim` treat them differently.
        chars = sorted(c for c in letters if c.isprintable() and not c.isspace() and c not in "\"'\\")
        taken = {ord(c) for c in used if ord(c) >= _PRIVATE.start}
        places = (start for start in _PRIVATE if not taken.intersection(range(start, start + len(chars))))
        start = next(iter(places), None)
        if start is None or start + len(chars) > _PRIVATE.stop:
            raise InputError("the messages use nearly all private-use characters, which templates are rendered with")
        self._all = {ord(c): chr(start + n) for n, c in enumerate(chars)}
        self._marks = {code: to for code, to in self._all.items() if not (chr(code).isalnum() or chr(code) == "_")}
        self._undo = {ord(to): chr(code) for code, to in self._all.items()}
        words = {word for name in names for word in re.findall(r"\w+", name)}
        short = sorted(word for word in words if len(word) < 3)
        long = sorted((word for word in words if len(word) >= 3), key=len, reverse=True)
        choices = [*map(re.escape, long), *(rf"\A\W*{re.escape(word)}\W*\Z" for word in short)]
        self._words = re.compile("|".join(choices) or r"(?!)", re.I)

    def put(self, given: Mapping[str, Any], everything: bool) -> dict[str, Any]:
        """The values with stand-ins.

        Args:
            everything: replace all characters that control tokens have; False: only punctuation, and whole words that
                are in names of control tokens.
        """

        def break_up(text: str) -> str:
            return self._words.sub(lambda found: found[0].translate(self._all), text).translate(self._marks)

        def put(value: Any) -> Any:
            if isinstance(value, str):
                return value.translate(self._all) if everything else break_up(value)
            if isinstance(value, Mapping):
                return {break_up(key) if isinstance(key, str) else key: put(item) for key, item in value.items()}
            if isinstance(value, list | tuple):
                return [put(item) for item in value]
            return value

        def put_message(message: Any) -> Any:
            if not isinstance(message, Mapping):
                return put(message)
            return {
                str(key).translate(self._marks): item if key == "role" else put(item) for key, item in message.items()
            }

        return {
            name: [put_message(message) for message in value] if name == "conversation" else put(value)
            for name, value in given.items()
        }

    def undo(self, text: str) -> str:
        return text.translate(self._undo)


def _characters(given: Mapping[str, Any]) -> set[str]:
    try:
        return set(json.dumps(given, ensure_ascii=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the values for the chat template must be JSON ({error})") from None


def check_operators(template: str) -> None:
    """Refuse arithmetic that could take hours within one step of a template: powers, and products of two variables.

    Raises:
        InputError: the template has such an operation.
    """
    import jinja2

    try:
        tokens = [(line, kind, text) for line, kind, text in jinja2.Environment().lex(template) if kind != "whitespace"]
    except jinja2.TemplateSyntaxError:
        return  # rendering raises this error, too
    for before, (line, kind, text), after in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if kind != "operator" or text not in ("*", "**") or before[2] in ("(", ","):  # `f(*x, **y)` is not arithmetic
            continue
        if text == "**" or not {before[1], after[1]} & {"integer", "float", "string"}:
            raise InputError(
                f"chat_template, line {line}: {before[2]} {text} {after[2]} is not supported; templates may multiply "
                "by a number or a text only"
            )


class _MemoryLimit:
    """While any thread is inside this context, the process cannot grow by more than `MEMORY`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = (-1, -1)

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1 and resource is not None and sys.platform == "linux":
                self._before = resource.getrlimit(resource.RLIMIT_AS)
                pages = int(Path("/proc/self/statm").read_text().split()[0])
                most = pages * resource.getpagesize() + MEMORY
                limits = [most, *(limit for limit in self._before if limit != resource.RLIM_INFINITY)]
                resource.setrlimit(resource.RLIMIT_AS, (min(limits), self._before[1]))

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and resource is not None and sys.platform == "linux":
                resource.setrlimit(resource.RLIMIT_AS, self._before)


_memory_limit = _MemoryLimit()  # only one, because the limit holds for the whole process


def _run(render: Render, given: Mapping[str, Any]) -> str:
    """Render within `SECONDS` and `MEMORY`. A trace function of this thread checks the time at every line of the
    template.

    Raises:
        InputError: the template fails, or takes too long or too much memory.
    """
    deadline = time.monotonic() + SECONDS

    def watch(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != "<template>":
            return None  # no lines of other files are traced
        if time.monotonic() > deadline:
            raise InputError(f"chat_template: still running after {SECONDS:g} seconds; it was stopped")
        return watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        with _memory_limit:
            return render(given)
    except (ChatGLMError, KeyboardInterrupt):
        raise
    except MemoryError:
        raise InputError(f"chat_template: it needs more than {MEMORY >> 20} MiB of memory; it was stopped") from None
    except Exception as error:
        raise InputError(f"chat_template: it failed with {type(error).__name__}: {str(error)[:300]}") from error
    finally:
        sys.settrace(before)
