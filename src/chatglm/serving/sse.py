"""Server-sent events as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["compact", "event"]

compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Encode as JSON without blanks."""


def event(data: str | Mapping[str, Any], name: str = "") -> str:
    """Return one event. A mapping is encoded as JSON.

    Args:
        name: of the event, for clients that tell events apart by it.
    """
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {data if isinstance(data, str) else compact(data)}\n\n"
