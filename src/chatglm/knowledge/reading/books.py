"""Books (.epub): the chapters in reading order. The formats are EPUB 3.3 and 2.0: a zip file of XHTML pages."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote

from chatglm.errors import InputError
from chatglm.knowledge.reading.archives import Archive
from chatglm.knowledge.reading.documents import Draft, Limits, Reading
from chatglm.knowledge.reading.headings import with_headings
from chatglm.knowledge.reading.html import add_html
from chatglm.knowledge.reading.texts import decoded
from chatglm.knowledge.reading.xml import below, local, parse

__all__ = ["read_epub"]

_CONTAINER = "META-INF/container.xml"
_FONTS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
"""Algorithms that obfuscate only embedded fonts. They do not protect the text."""


def read_epub(data: bytes, name: str, limits: Limits) -> Reading:
    """Read a book.

    Raises:
        InputError: the file is damaged, protected by DRM, or not an EPUB file.
    """
    draft = Draft(limits)
    with Archive(data, limits) as archive:
        if _CONTAINER not in archive:
            raise InputError(f"is not an EPUB file: {_CONTAINER} is missing")
        _check_protection(archive)
        root = next(
            (e.get("full-path", "") for e in below(parse(archive.read(_CONTAINER), _CONTAINER), "rootfile")), ""
        )
        package = parse(archive.read(root), root)
        items = {item.get("id"): item for item in below(package, "item")}
        folder = posixpath.dirname(root)
        for reference in below(package, "itemref"):
            item = items.get(reference.get("idref"))
            if item is None or "html" not in item.get("media-type", "") or "nav" in item.get("properties", "").split():
                continue
            page = posixpath.normpath(posixpath.join(folder, unquote(item.get("href", ""))))
            if page not in archive:
                draft.warnings.append(f"{page} is missing in the book")
                continue
            add_html(draft, decoded(archive.read(page), limits).text, title=False)
            draft.add("\n")
    return with_headings(draft.reading("application/epub+zip"))


def _check_protection(archive: Archive) -> None:
    part = "META-INF/encryption.xml"
    if part not in archive:
        return
    for element in below(parse(archive.read(part), part), "EncryptionMethod"):
        if local(element) and element.get("Algorithm") not in _FONTS:
            raise InputError("is protected against copying (DRM) and cannot be read")
