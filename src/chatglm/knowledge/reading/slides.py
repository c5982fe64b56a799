"""Presentations (.pptx): the text of each slide from top to bottom, tables, speaker notes.

The format is ECMA-376, part 1, chapter 19.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from chatglm.errors import InputError
from chatglm.knowledge.reading.archives import Archive
from chatglm.knowledge.reading.documents import Draft, Limits, Reading
from chatglm.knowledge.reading.xml import Element, below, local, parse

__all__ = ["read_pptx"]

_MAIN = "ppt/presentation.xml"
_NOTES = "备注："
_TITLES = ("title", "ctrTitle")
_OMITTED = ("sldNum", "dt", "ftr", "hdr", "sldImg")


def read_pptx(data: bytes, name: str, limits: Limits) -> Reading:
    """Read a presentation. Slides are in the order in which they are shown, including hidden ones.

    Raises:
        InputError: the file is damaged or encrypted, is not a presentation, or has too many slides.
    """
    draft = Draft(limits)
    with Archive(data, limits) as archive:
        if _MAIN not in archive:
            raise InputError("is not a presentation: ppt/presentation.xml is missing")
        targets = _targets(archive, _MAIN)
        shown = [
            targets.get(value, "")
            for slide in below(parse(archive.read(_MAIN), _MAIN), "sldId")
            for key, value in slide.attrib.items()
            if key.endswith("}id")
        ]
        if len(shown) > limits.pages:
            raise InputError(f"has {len(shown):,} slides, and at most {limits.pages:,} are read; split it")
        for n, part in enumerate(shown, 1):
            if part not in archive:
                draft.warnings.append(f"slide {n} is missing in the file")
                continue
            with draft.part("slide", str(n)):
                _add_slide(draft, parse(archive.read(part), part))
                for notes in _targets(archive, part).values():
                    if "/notesSlides/" in notes and notes in archive:
                        _add_notes(draft, parse(archive.read(notes), notes))
                draft.add("\n")
    return draft.reading("application/vnd.openxmlformats-officedocument.presentationml.presentation")


def _targets(archive: Archive, part: str) -> dict[str, str]:
    """The targets of a part's relationships inside the file, by relationship id."""
    folder, name = posixpath.split(part)
    relations = f"{folder}/_rels/{name}.rels"
    if relations not in archive:
        return {}
    found = {}
    for element in below(parse(archive.read(relations), relations), "Relationship"):
        if element.get("TargetMode") != "External":
            target = posixpath.normpath(posixpath.join(folder, element.get("Target", "")))
            found[element.get("Id", "")] = target.removeprefix("/")
    return found


def _add_slide(draft: Draft, root: Element) -> None:
    shapes = sorted(_shapes(root), key=lambda shape: (not _is_title(shape), _place(shape)))
    for shape in shapes:
        if _kind(shape) in _OMITTED:
            continue
        lines = list(_lines(shape))
        if _is_title(shape):
            draft.heading(" ".join(lines), 1)
        elif local(shape) == "graphicFrame":
            rows = [[" ".join(_lines(cell)) for cell in below(row, "tc")] for row in below(shape, "tr")]
            with draft.part("table", ""):
                for row in rows:
                    draft.line(" | ".join(row))
        else:
            for line in lines:
                draft.line(line)


def _add_notes(draft: Draft, root: Element) -> None:
    lines = [line for shape in _shapes(root) if _kind(shape) not in _OMITTED for line in _lines(shape)]
    if lines:
        draft.line(_NOTES + "\n".join(lines))


def _shapes(root: Element) -> Iterator[Element]:
    return below(root, "sp", "graphicFrame")


def _kind(shape: Element) -> str:
    return next((each.get("type", "body") for each in below(shape, "ph")), "")


def _is_title(shape: Element) -> bool:
    return _kind(shape) in _TITLES


def _place(shape: Element) -> tuple[int, int]:
    """Position of a shape for sorting: (top, left) in centimetres. Shapes without a position come first, in the order
    of the file."""
    for each in below(shape, "off"):
        try:
            return int(each.get("y", "0")) // 360_000, int(each.get("x", "0")) // 360_000
        except ValueError:
            break
    return -1, 0


def _lines(shape: Element) -> Iterator[str]:
    for paragraph in below(shape, "p"):
        said = "".join(
            (each.text or "") if local(each) == "t" else "\n" for each in below(paragraph, "t", "br")
        ).strip()
        if said:
            yield said
