"""Reads rows of tables: .csv and .tsv with a line of column names, and .parquet.

In columns that hold a list or an object (`messages`, `history` …), a cell is parsed as JSON. In all others it is text,
which may be JSON, too: many answers are. Only a few rows are in memory at a time.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from chatglm.errors import DependencyError, InputError

__all__ = ["NESTED", "Unreadable", "open_data", "read_csv", "read_parquet"]

NESTED = ("conversations", "messages", "conversation", "history", "tools", "session_meta", "meta")
"""Columns that hold a list or an object, see `chat/rows.py`."""

_LONGEST_CELL = 1 << 24
"""Most characters of a cell. If a quote is never closed, the rest of a file becomes one cell."""
_BATCH = 64
"""Rows of a parquet file that are decoded at a time."""


class Unreadable(NamedTuple):
    """Takes the place of a row that cannot be read."""

    reason: str


def open_data(file: Path) -> Any:
    """Open a file for reading bytes.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        return file.open("rb")
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None


def read_csv(file: Path, nested: Collection[str] = NESTED) -> Iterator[tuple[int, Any]]:
    """Rows of a .csv or .tsv file as dicts, each with the line where it begins.

    Columns of .csv files are separated by commas, semicolons or tabs, whichever is most frequent in the first line;
    columns of .tsv files by tabs.

    Args:
        nested: names of the columns whose cells are parsed as JSON.

    Raises:
        InputError: there is no line of column names, or a name occurs twice, or the file is not UTF-8.
    """
    csv.field_size_limit(_LONGEST_CELL)
    with open_data(file) as opened:
        yield from _rows_of_csv(file, _Lines(file, opened), nested)


def _rows_of_csv(file: Path, lines: _Lines, nested: Collection[str]) -> Iterator[tuple[int, Any]]:
    names_line = next(lines, "")
    delimiter = "\t" if file.suffix == ".tsv" else max(",;\t", key=names_line.count)
    names = [name.strip() for name in next(csv.reader([names_line], delimiter=delimiter), [])]
    if not any(names):
        raise InputError(f"{file}:1: the first line must have the names of the columns")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{file}:1: two columns are named {twice[0]!r}")
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        begin = lines.number + 1
        try:
            cells = next(rows, None)
        except csv.Error as error:
            yield begin, Unreadable(f"not CSV: {error}")
            continue
        if cells is None:
            return
        if not any(cells):  # an empty line
            continue
        if len(cells) != len(names):
            yield begin, Unreadable(f"has another number of columns ({len(cells)}) than the first line ({len(names)})")
        else:
            yield begin, {name: _value(name, cell, nested) for name, cell in zip(names, cells, strict=True)}


class _Lines:
    """Lines of a UTF-8 file with their line ends, as `csv` needs them.

    Attributes:
        number: number of the last line that was read.
    """

    def __init__(self, file: Path, opened: Any) -> None:
        self._file, self._opened, self.number = file, opened, 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        raw: bytes = self._opened.readline(_LONGEST_CELL)
        if not raw:
            raise StopIteration
        self.number += 1
        if self.number == 1:
            if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise InputError(f"{self._file}:1: this is UTF-16; save the file as UTF-8")
            raw = raw.removeprefix(codecs.BOM_UTF8)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{self._file}:{self.number}: not UTF-8 ({error.reason} at byte {error.start}){_other_encoding(raw)}; "
                "save the file as UTF-8"
            ) from None


def _other_encoding(raw: bytes) -> str:
    try:
        raw.decode("gb18030")
    except UnicodeDecodeError:
        return ""
    return "; it may be GBK, as Excel saves it (choose `CSV UTF-8` there, or `iconv -f gb18030 -t utf-8`)"


def _value(name: str, cell: Any, nested: Collection[str]) -> Any:
    if name in nested and isinstance(cell, str) and cell.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            pass  # it is a text that begins with a bracket
    return cell


def read_parquet(file: Path, nested: Collection[str] = NESTED) -> Iterator[tuple[int, Any]]:
    """Rows of a .parquet file as dicts, with their numbers, from 1.

    Args:
        nested: names of the columns whose texts are parsed as JSON.

    Raises:
        DependencyError: `pyarrow` is not installed.
        InputError: the file is not a parquet file, or is damaged.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DependencyError(f"{file}: parquet files need the pyarrow package: pip install 'chatglm[data]'") from None
    number = 0
    try:
        with parquet.ParquetFile(file) as opened:
            for batch in opened.iter_batches(batch_size=_BATCH):
                for place in range(batch.num_rows):
                    number += 1
                    yield number, _row(batch.slice(place, 1), nested)
    except (pyarrow.ArrowException, OSError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file}: cannot be read after row {number} ({reason:.200}); copy it again") from None


def _row(batch: Any, nested: Collection[str]) -> Any:
    try:
        (row,) = batch.to_pylist()
    except (UnicodeDecodeError, ValueError, OverflowError) as error:
        return Unreadable(f"a value cannot be read ({error})")
    return {name: _value(name, cell, nested) for name, cell in row.items() if cell is not None}
