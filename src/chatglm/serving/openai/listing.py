"""A page of a list, in the form of OpenAI's lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from chatglm.errors import InputError

__all__ = ["page_of"]


def page_of(
    entries: Sequence[dict[str, Any]], limit: int, order: Literal["asc", "desc"], after: str | None, what: str
) -> dict[str, Any]:
    """
    Args:
        entries: with an `id` each, in ascending order.
        limit: entries of the page.
        after: the id of the entry in front of the page; None: it is the first page.
        what: an entry is, for the error: "item of this response".

    Raises:
        InputError: no entry has the id `after`.
    """
    left = entries if order == "asc" else entries[::-1]
    if after is not None:
        place = next((number for number, entry in enumerate(left) if entry["id"] == after), None)
        if place is None:
            raise InputError(f"after: no {what} has the id {after!r:.100}")
        left = left[place + 1 :]
    shown = left[:limit]
    first, last = (shown[0]["id"], shown[-1]["id"]) if shown else (None, None)
    return {"object": "list", "data": shown, "first_id": first, "last_id": last, "has_more": len(shown) < len(left)}
