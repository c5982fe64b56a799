"""Tables as text: each row has the names of its columns, `姓名=张三；年龄=30`, so that every piece of a table can be
understood by itself."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

from chatglm.errors import InputError
from chatglm.knowledge.reading.documents import Draft, Limits, Reading
from chatglm.knowledge.reading.texts import decoded, warnings_of

__all__ = ["add_rows", "read_csv"]

_LONGEST_CELL = 1 << 17
_NUMBER = re.compile(r"[-+]?[\d.,]+%?$")


def add_rows(draft: Draft, rows: Iterable[Sequence[str]], limits: Limits) -> None:
    """Add the rows of a table to a draft. Empty rows are left out.

    The first row with at least two cells is taken as the names of the columns if it looks like names. Columns beyond
    `limits.columns` are left out, with a warning.

    Args:
        rows: the cells of each row.
    """
    names: list[str] | None = None
    wide = 0
    for row in rows:
        wide = max(wide, len(row))
        cells = [" ".join(cell.split()) for cell in row[: limits.columns]]
        while cells and not cells[-1]:
            cells.pop()
        filled = sum(map(bool, cells))
        if not filled:
            continue
        if names is None and filled > 1:
            names = cells if _are_names(cells) else []
            if names:
                draft.line("；".join(name for name in names if name))
                continue
        draft.line("；".join(_cell(names or [], n, cell) for n, cell in enumerate(cells) if cell))
    if wide > limits.columns:
        draft.warnings.append(f"it has {wide:,} columns, and the first {limits.columns:,} were read")


def _are_names(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell]
    return len(set(filled)) == len(filled) and not any(_NUMBER.match(cell) or len(cell) > 60 for cell in filled)


def _cell(names: Sequence[str], n: int, cell: str) -> str:
    return f"{names[n]}={cell}" if n < len(names) and names[n] else cell


def read_csv(data: bytes, name: str, limits: Limits) -> Reading:
    """Read a CSV file. The separator is the comma, semicolon, tab or bar, whichever is most frequent in the first five
    lines; in a `.tsv` file it is the tab.

    Raises:
        InputError: the file is not text, is too long, or cannot be read as a table.
    """
    found = decoded(data, limits)
    text = found.text
    head = "\n".join(text[:10_000].split("\n")[:5])
    delimiter = "\t" if name.lower().endswith(".tsv") else max(",;\t|", key=head.count)
    csv.field_size_limit(_LONGEST_CELL)
    draft = Draft(limits)
    with draft.part("table", ""):
        try:
            add_rows(draft, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), limits)
        except csv.Error as error:
            raise InputError(
                f"cannot be read as a table ({error}); check whether a quotation mark is not closed"
            ) from None
    draft.warnings += warnings_of(text, found.damaged)
    return draft.reading("text/tab-separated-values" if delimiter == "\t" else "text/csv")
