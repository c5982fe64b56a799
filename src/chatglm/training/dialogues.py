"""Reads dialogues for training from files of any size: .json, .jsonl, or tables (.csv, .tsv, .parquet).

Rows have the forms of `chat/rows.py`. In tables, the fields of these forms are columns.
"""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeAlias

from chatglm.chat.rows import Columns, Dialogue, check_columns, detect_form, dialogue_of
from chatglm.errors import InputError
from chatglm.training.tables import NESTED, Unreadable, open_data, read_csv, read_parquet

__all__ = ["BadRow", "Columns", "Dialogue", "Paths", "data_files", "detect_form", "named_files", "read_dialogues"]

Paths: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class BadRow(NamedTuple):
    """A row that was left out."""

    where: str
    reason: str


# Files


def named_files(paths: Paths, endings: Collection[str], what: str, hint: str) -> list[Path]:
    """The files that paths name: single files, and the files of folders that have one of the endings, sorted by name.
    Hidden files and folders in these are left out: `.ipynb_checkpoints` has older copies of files, for example.

    Args:
        endings: endings of files that can be read, such as ".jsonl".
        what: the expected content of the files, for messages.
        hint: for messages: what to do with a file that has another ending.

    Raises:
        InputError: a file is missing or has another ending, or a folder has no such files.
    """
    files: list[Path] = []
    for path in [paths] if isinstance(paths, str | os.PathLike) else paths:
        path = Path(os.path.expanduser(path))
        if path.is_dir():
            found = sorted(
                file
                for file in path.rglob("*")
                if file.suffix in endings
                and not any(part.startswith(".") for part in file.relative_to(path).parts)
                and file.is_file()
            )
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
    """Read dialogues one by one, from files of any size.

    Args:
        paths: .json (a list, an object with a list in it, or JSON lines), .jsonl, .csv, .tsv or .parquet files, or
            folders of them.
        skipped: bad rows are added to it and left out; without it they are errors. A syntax error in a .json file is
            always an error, because the rest cannot be read.
        columns: {"prompt": …, "response": …, "history": …}: the names of these columns in the data.

    Raises:
        InputError: a file cannot be read, or a row is bad; the message is "file:line: field: what is wrong".
    """
    names = check_columns(columns)
    for file in data_files(paths):
        for line, row in _READERS[file.suffix](file, names):
            where = f"{file}:{line}"
            try:
                if isinstance(row, Unreadable):
                    raise InputError(row.reason)
                dialogue = dialogue_of(row, where, names)
            except (InputError, RecursionError) as error:
                said = str(error) if isinstance(error, InputError) else "nested too deep to be a dialogue"
                reason = said.encode("utf-8", "backslashreplace").decode()  # it may quote bytes that are not valid text
                if skipped is None:
                    raise InputError(f"{where}: {reason}") from None
                skipped.append(BadRow(where, reason))
            else:
                yield dialogue


Numbered: TypeAlias = Iterator[tuple[int, Any]]
"""Rows, each with the line where it begins."""


def _read_lines(file: Path, columns: Columns | None = None) -> Numbered:
    """JSON lines. A broken line does not affect the others."""
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
    except ValueError as error:  # Python does not read integers of more than 4,300 digits
        return Unreadable(f"a number in it cannot be read ({str(error).partition(';')[0]})")


def _read_json(file: Path, columns: Columns | None = None) -> Numbered:
    """A list of rows, an object that holds one, or JSON lines with the ending .json."""
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
            text.fail("text after the end of the data")


def _rows_of_object(text: _Json, columns: Columns | None) -> Numbered:
    """Rows of the one list of rows in an object. Without such a list, the object itself is a row."""
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
    """Whether an object contains a list of rows, and is not a row itself."""
    lists = (value for value in row.values() if isinstance(value, list) and value)
    return any(detect_form(value[0], columns) is not None for value in lists)


_CHUNK = 1 << 20


class _Json:
    """Reads JSON piece by piece. Only a few pieces of the file are in memory."""

    def __init__(self, file: Path, opened: Any, chunk: int = _CHUNK) -> None:
        self._file, self._opened, self._chunk = file, opened, chunk
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._scan = json.JSONDecoder().raw_decode
        self._text, self._place, self._end = "", 0, False
        self.line = 1

    def peek(self) -> str:
        """The next character that is not whitespace; "" at the end."""
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
        """The next complete value."""
        self.peek()
        while True:
            try:
                value, end = self._scan(self._text, self._place)
            except json.JSONDecodeError as error:
                # At the end of the text in memory, a value may be incomplete.
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
        """The elements of a list, each with the line where it begins."""
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
        """Raise the error that tells where the file is not JSON."""
        if end:
            problem = f"the file ends too early ({problem}); copy it again"
        raise InputError(f"{self._file}:{self.line}: not JSON: {problem}")

    def _more(self, least: int = 0) -> bool:
        """Read more; for long values larger pieces, so that the cost stays linear. False at the end of the file."""
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
"""If fewer characters than this follow a number or an error, the cause may be the end of a piece, and more must be
read. Apart from strings, no longer token of JSON changes its meaning when it is cut. (An escaped surrogate pair has
12.)
"""


def _refuse_utf16(file: Path, head: bytes) -> None:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(f"{file}:1: this is UTF-16; save the file as UTF-8")


_READERS: dict[str, Callable[[Path, Columns | None], Numbered]] = {
    ".json": _read_json,
    ".jsonl": _read_lines,
    ".csv": lambda file, columns: read_csv(file, _nested(columns)),
    ".tsv": lambda file, columns: read_csv(file, _nested(columns)),
    ".parquet": lambda file, columns: read_parquet(file, _nested(columns)),
}


def _nested(columns: Columns | None) -> tuple[str, ...]:
    """Columns of a table that hold lists or objects."""
    if columns is None:
        return NESTED
    texts = (columns["prompt"], columns["response"])
    return tuple(name for name in (*NESTED, columns["history"]) if name not in texts)
