"""XML inside Office files and books. A document type declaration (DOCTYPE) is refused, so no entities are expanded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast
from xml.etree import ElementTree

from chatglm.errors import InputError

__all__ = ["Element", "below", "local", "parse", "refuse_types"]

Element = ElementTree.Element

_TYPED = re.compile(rb"<!\s*(?:DOCTYPE|ENTITY)", re.IGNORECASE)
_DEEPEST = 2000


def refuse_types(data: bytes, name: str) -> None:
    """Refuse XML with a document type declaration (DOCTYPE).

    Args:
        name: the name of the member, for the message.

    Raises:
        InputError: the document has a DOCTYPE, or declares entities.
    """
    if _TYPED.search(data) or (b"\0" in data and _TYPED.search(data.replace(b"\0", b""))):  # UTF-16
        raise InputError(f"{name} has a document type, which its format does not allow; it is not read")


def parse(data: bytes, name: str) -> Element:
    """Parse a document and return its root element.

    Args:
        name: the name of the member, for the message.

    Raises:
        InputError: the document is not XML, is nested too deeply, or has a DOCTYPE or entities.
    """
    refuse_types(data, name)
    parser: Any = ElementTree.XMLPullParser(("start", "end"))
    depth = 0
    root: Element | None = None
    try:
        for at in range(0, len(data), 1 << 16):
            parser.feed(data[at : at + (1 << 16)])
            for event, element in cast("Iterator[tuple[str, Element]]", parser.read_events()):
                root = element if root is None else root
                depth += 1 if event == "start" else -1
                if depth > _DEEPEST:
                    raise InputError(f"{name} is nested too deeply")
        parser.close()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name} is damaged ({error})") from None
    if root is None:
        raise InputError(f"{name} is empty")
    return root


def local(element: Element) -> str:
    """An element's name without its namespace."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def below(element: Element, *names: str) -> Iterator[Element]:
    """The element itself and all elements below it, at any depth, that have one of these local names."""
    return (each for each in element.iter() if local(each) in names)
