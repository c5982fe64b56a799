"""Answers from the user's own documents: read, split, index and search them, and answer with citations."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chatglm.knowledge.answering import CitationEvent, Done, Event, Passages
    from chatglm.knowledge.base import (
        Base,
        Bases,
        Upload,
        bases,
        delete_base,
        import_base,
        open_base,
        open_bases,
        rename_base,
    )
    from chatglm.knowledge.citations import Citation
    from chatglm.knowledge.indexing import Report, Step
    from chatglm.knowledge.packing import Passage, packed, shown
    from chatglm.knowledge.searching import Answerable, Hit, Hits
    from chatglm.knowledge.shelf import Shelf
    from chatglm.knowledge.store import File, NotFoundError, StoredPiece
    from chatglm.knowledge.summarising import (
        FileTexts,
        Part,
        Progress,
        Summary,
        SummaryEvent,
        SummaryRequest,
        asummarise,
        known_summary,
        summarise,
    )

_HOMES = {
    "answering": ("CitationEvent", "Done", "Event", "Passages"),
    "base": (
        "Base",
        "Bases",
        "Upload",
        "bases",
        "delete_base",
        "import_base",
        "open_base",
        "open_bases",
        "rename_base",
    ),
    "citations": ("Citation",),
    "indexing": ("Report", "Step"),
    "packing": ("Passage", "packed", "shown"),
    "searching": ("Answerable", "Hit", "Hits"),
    "shelf": ("Shelf",),
    "store": ("File", "NotFoundError", "StoredPiece"),
    "summarising": (
        "FileTexts",
        "Part",
        "Progress",
        "Summary",
        "SummaryEvent",
        "SummaryRequest",
        "asummarise",
        "known_summary",
        "summarise",
    ),
}
_WHERE = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Answerable",
    "Base",
    "Bases",
    "Citation",
    "CitationEvent",
    "Done",
    "Event",
    "File",
    "FileTexts",
    "Hit",
    "Hits",
    "NotFoundError",
    "Part",
    "Passage",
    "Passages",
    "Progress",
    "Report",
    "Shelf",
    "Step",
    "StoredPiece",
    "Summary",
    "SummaryEvent",
    "SummaryRequest",
    "Upload",
    "asummarise",
    "bases",
    "delete_base",
    "import_base",
    "known_summary",
    "open_base",
    "open_bases",
    "packed",
    "rename_base",
    "shown",
    "summarise",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
