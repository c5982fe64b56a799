"""`read`: find the format of a document, and read it with the right function."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePath
from typing import BinaryIO, Literal

from chatglm.errors import DependencyError, InputError, UnsupportedError
from chatglm.knowledge.reading.archives import read_zip
from chatglm.knowledge.reading.books import read_epub
from chatglm.knowledge.reading.documents import Limits, Reading
from chatglm.knowledge.reading.html import read_html
from chatglm.knowledge.reading.mail import read_mail
from chatglm.knowledge.reading.ocr import Sight, read_picture
from chatglm.knowledge.reading.pdf import read_pdf
from chatglm.knowledge.reading.records import read_json
from chatglm.knowledge.reading.sheets import read_xlsx
from chatglm.knowledge.reading.slides import read_pptx
from chatglm.knowledge.reading.subtitles import read_subtitles
from chatglm.knowledge.reading.tables import read_csv
from chatglm.knowledge.reading.texts import read_code, read_markdown, read_rst, read_text
from chatglm.knowledge.reading.word import read_docx

__all__ = ["ENDINGS", "TEXT_ENDINGS", "bytes_of", "kind_of", "read"]


def _words(text: str) -> list[str]:
    return text.split()


_CODE = _words(
    "py pyi js mjs cjs ts tsx jsx java kt kts scala go rs c h cc cpp cxx hpp hh cs swift m mm php rb pl pm lua r jl sh "
    "bash zsh fish ps1 bat sql proto gradle groovy dart ex exs erl hs ml mli clj lisp el vim css scss less asm s f90"
)
_TEXT = _words("txt text log conf cfg ini toml yaml yml xml tex bib properties env diff patch")

_TEXTS: dict[str, Callable[[bytes, str, Limits], Reading]] = {
    **dict.fromkeys(_TEXT, read_text),
    **dict.fromkeys(_CODE, read_code),
    **dict.fromkeys(("md", "markdown", "mdown", "mkd"), read_markdown),
    **dict.fromkeys(("rst", "rest"), read_rst),
    **dict.fromkeys(("csv", "tsv"), read_csv),
    **dict.fromkeys(("json", "jsonl", "ndjson"), read_json),
    **dict.fromkeys(("srt", "vtt"), read_subtitles),
}
_FORMATS: dict[str, Callable[[bytes, str, Limits], Reading]] = {
    **dict.fromkeys(("html", "htm", "xhtml"), read_html),
    **dict.fromkeys(("docx", "docm", "dotx"), read_docx),
    **dict.fromkeys(("pptx", "pptm", "ppsx"), read_pptx),
    **dict.fromkeys(("xlsx", "xlsm", "xltx"), read_xlsx),
    "epub": read_epub,
}
_SEEN: dict[str, Callable[[bytes, Limits, Sight], Reading]] = {
    "pdf": read_pdf,
    **dict.fromkeys(("png", "jpg", "jpeg", "tif", "tiff", "bmp", "gif", "webp"), read_picture),
}
_CONTAINERS: dict[str, Callable[[bytes, Limits, Callable[[bytes, str], Reading]], Reading]] = {
    "zip": read_zip,
    "eml": read_mail,
}
_REFUSED = {
    **dict.fromkeys(("doc", "dot", "wps", "rtf", "odt"), "save it as .docx"),
    **dict.fromkeys(("ppt", "pps", "dps", "odp"), "save it as .pptx"),
    **dict.fromkeys(("xls", "et", "ods", "xlsb"), "save it as .xlsx"),
    **dict.fromkeys(("mobi", "azw", "azw3", "chm", "djvu", "caj"), "convert it to .epub or .pdf"),
    **dict.fromkeys(("rar", "7z", "gz", "tgz", "tar", "bz2", "xz"), "pack it as .zip, or unpack it"),
    **dict.fromkeys(("mp3", "wav", "m4a", "mp4", "mkv", "avi", "mov"), "add its subtitles (.srt)"),
    **dict.fromkeys(("exe", "dll", "so", "bin", "iso", "class", "jar", "pyc", "whl"), "it has no text"),
}

TEXT_ENDINGS = frozenset(_TEXTS)
"""File name suffixes (without the dot) of text formats. They are safe to read in this process: only Python's own code
parses them, in linear time."""
_HALF = re.compile("[\ud800-\udfff]")
ENDINGS = frozenset([*_TEXTS, *_FORMATS, *_SEEN, *_CONTAINERS])
"""File name suffixes of all supported formats, without the dot. A file with another suffix is read if it is text."""


def read(
    source: Path | BinaryIO | bytes,
    *,
    name: str,
    ocr: bool | Literal["auto"] = "auto",
    limit: Limits = Limits(),  # noqa: B008 - it is immutable
    alive: Callable[[], None] | None = None,
) -> Reading:
    """Read a document in this process. For files from untrusted sources use `read_apart`.

    Args:
        source: the file, or its bytes.
        name: the name of the file; its suffix tells the format.
        ocr: recognise text in pictures: True: on all pages; False: never; "auto": in pictures and on pages without
            text.
        limit: limits for the document. `seconds` and `memory` are not enforced here.
        alive: is called after each recognition of a picture.

    Raises:
        InputError: the document cannot be read. The message says why, and what to do.
        UnsupportedError: the format is not supported.
        DependencyError: the format needs a package that is not installed.
    """
    sight = Sight(ocr, alive) if alive else Sight(ocr)
    return _whole(_read(bytes_of(source, name, limit), name, limit, sight, 0))


def _whole(reading: Reading) -> Reading:
    """Replace lone surrogates (halves of characters) by U+FFFD. JSON and some Office formats can contain them, but a
    database, a terminal and an HTTP response cannot."""
    count = len(_HALF.findall(reading.text))
    if not count and not any(_HALF.search(mark.value) for mark in reading.marks):
        return reading
    marks = tuple(replace(mark, value=_HALF.sub("\ufffd", mark.value)) for mark in reading.marks)
    warning = f"characters of which the file has only one half, and which became \ufffd: {count:,}"
    return replace(reading, text=_HALF.sub("\ufffd", reading.text), marks=marks, warnings=(*reading.warnings, warning))


def _read(data: bytes, name: str, limits: Limits, sight: Sight, depth: int) -> Reading:
    kind = kind_of(name, data)
    try:
        if reader := _TEXTS.get(kind) or _FORMATS.get(kind):
            return reader(data, name, limits)
        if seer := _SEEN.get(kind):
            return seer(data, limits, sight)
        if kind == "locked":
            raise InputError("is protected by a password; save it without one")
        if kind in _REFUSED:
            raise UnsupportedError(f".{kind} files are not supported; {_REFUSED[kind]}")
        if opener := _CONTAINERS.get(kind):
            if depth >= limits.depth:
                raise InputError(f"is inside {depth} nested files, which is the limit; unpack them")
            return opener(data, limits, lambda inner, within: _read(inner, within, limits, sight, depth + 1))
        return read_text(data, name, limits)
    except (InputError, UnsupportedError, DependencyError) as error:
        raise type(error)(f"{name}: {error}") from error


_MAGIC = (
    (b"%PDF-", "pdf"),
    (b"\x89PNG\r\n", "png"),
    (b"\xff\xd8\xff", "jpg"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "ole"),
    (b"Rar!", "rar"),
    (b"7z\xbc\xaf", "7z"),
    (b"\x1f\x8b", "gz"),
)


def kind_of(name: str, data: bytes) -> str:
    """The format of a file: by its suffix, or by its first bytes if the suffix is missing, unknown or clearly wrong.

    Returns:
        a suffix without the dot; "locked": an encrypted Office document; "": perhaps a text file.
    """
    ending = PurePath(name).suffix.lower().removeprefix(".")
    found = next((kind for magic, kind in _MAGIC if data.startswith(magic)), "")
    if data.startswith(b"PK\x03\x04"):
        found = ending if ending in _FORMATS or ending in _CONTAINERS else _packed_kind(data)
    if found == "ole":  # the container format of Office 97, and of encrypted newer Office documents
        return ending if ending in _REFUSED else "locked" if ending in _FORMATS else "doc"
    if not ending or ending not in ENDINGS | _REFUSED.keys():
        return found or ("" if ending not in ENDINGS else ending)
    if found and ending in _TEXTS:
        return found
    return ending


def _packed_kind(data: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as opened:
            names = set(opened.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "zip"
    parts = {"word/document.xml": "docx", "ppt/presentation.xml": "pptx", "xl/workbook.xml": "xlsx"}
    parts["META-INF/container.xml"] = "epub"
    return next((kind for part, kind in parts.items() if part in names), "zip")


def bytes_of(source: Path | BinaryIO | bytes, name: str, limit: Limits) -> bytes:
    """The bytes of a document.

    Raises:
        InputError: the file cannot be opened, or is larger than `limit.bytes`.
    """
    if isinstance(source, bytes):
        data = source
    elif isinstance(source, Path):
        try:
            with source.open("rb") as file:
                data = file.read(limit.bytes + 1)
        except OSError as error:
            raise InputError(f"{name}: cannot be read ({error.strerror})") from None
    else:
        data = source.read(limit.bytes + 1)
    if len(data) > limit.bytes:
        raise InputError(f"{name}: is larger than {limit.bytes >> 20:,} MiB, the limit for a file; split it")
    return data
