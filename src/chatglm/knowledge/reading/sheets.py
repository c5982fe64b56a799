"""Spreadsheets (.xlsx): rows with the names of their columns; formulas have the values that were last computed."""

from __future__ import annotations

import datetime
import io
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from chatglm.errors import DependencyError, InputError
from chatglm.knowledge.reading.archives import Archive
from chatglm.knowledge.reading.documents import Draft, Limits, Reading
from chatglm.knowledge.reading.tables import add_rows
from chatglm.knowledge.reading.xml import refuse_types

__all__ = ["read_xlsx"]


def read_xlsx(data: bytes, name: str, limits: Limits) -> Reading:
    """Read a spreadsheet, sheet by sheet, including hidden sheets.

    Raises:
        DependencyError: `openpyxl` is not installed.
        InputError: the file is damaged or encrypted, is not a spreadsheet, or is too large when unpacked.
    """
    try:
        import openpyxl
    except ImportError:
        raise DependencyError("spreadsheets need the openpyxl package: pip install 'chatglm[knowledge]'") from None
    _check(data, limits)
    draft = Draft(limits)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about unsupported features
            book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
        try:
            for sheet in book.worksheets:
                with draft.part("sheet", sheet.title):
                    draft.section(sheet.title, 1)
                    with warnings.catch_warnings(), draft.part("table", ""):
                        warnings.simplefilter("ignore")
                        sheet.reset_dimensions()  # the size that the file declares may be wrong
                        add_rows(draft, _rows(sheet.iter_rows(values_only=True), limits), limits)
                    draft.add("\n")
        finally:
            book.close()
    except InputError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # openpyxl raises all kinds of errors for damaged files
        raise InputError(f"is a damaged spreadsheet ({type(error).__name__}: {error!s:.200})") from None
    return draft.reading("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet")


def _check(data: bytes, limits: Limits) -> None:
    """Unpack all members once, as openpyxl will do: this checks the limits, and that no XML has a DOCTYPE."""
    with Archive(data, limits) as archive:
        if "xl/workbook.xml" not in archive and not any(part.endswith("workbook.xml") for part in archive.names):
            raise InputError("is not a spreadsheet: xl/workbook.xml is missing")
        for part in archive.names:
            content = archive.read(part)
            if part.endswith((".xml", ".rels", ".vml")):
                refuse_types(content, part)


def _rows(rows: Iterator[Sequence[Any]], limits: Limits) -> Iterator[list[str]]:
    for row in rows:
        yield [_said(value) for value in row]


def _said(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "是" if value else "否"
    if isinstance(value, datetime.datetime):
        return value.strftime("%Y-%m-%d" if value.time() == datetime.time() else "%Y-%m-%d %H:%M:%S")
    if isinstance(value, float):
        return f"{value:.15g}"
    return str(value)
