"""Files of every kind, made by the tests themselves."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from email.message import EmailMessage
from pathlib import Path
from typing import Any

_FONTS = sorted(
    (file for folder in ("/usr/share/fonts", "/usr/local/share/fonts") for file in Path(folder).rglob("*CJK*.tt[cf]")),
    key=lambda file: "SansCJK-Regular" not in file.name,
)
FONT = _FONTS[0] if _FONTS else None
"""Noto's Chinese font, if it is installed: `tests/packages.sh`."""


def zipped(members: Mapping[str, bytes | str]) -> bytes:
    """A zip file."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def replaced(data: bytes, name: str, old: bytes, new: bytes) -> bytes:
    """A zip file with something else in one of its members."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    assert old in members[name]
    return zipped({**members, name: members[name].replace(old, new, 1)})


def mail(subject: str, text: str, attachments: Mapping[str, bytes] | None = None) -> bytes:
    message = EmailMessage()
    message["From"] = "张三 <zhang@example.com>"
    message["To"] = "li@example.com"
    message["Subject"] = subject
    message.set_content(text, charset="gb18030", cte="base64")
    for name, data in (attachments or {}).items():
        message.add_attachment(data, maintype="application", subtype="octet-stream", filename=name)
    return message.as_bytes()


def pdf(pages: Iterable[Sequence[tuple[float, float, float, str]]], extra: bytes = b"", outline: str = "") -> bytes:
    """A PDF file.

    Args:
        pages: strings with their left end, the height of their baseline above the page's lower edge, and their size, in
            points; of pages of 595 × 842.
        extra: goes into the trailer.
        outline: the title of an entry for the first page.
    """
    objects: list[bytes] = [
        b"",  # the catalog
        b"",  # the pages
        b"<</Type/Font/Subtype/Type0/BaseFont/STSong-Light/Encoding/UniGB-UCS2-H/DescendantFonts[4 0 R]>>",
        b"<</Type/Font/Subtype/CIDFontType0/BaseFont/STSong-Light/DW 1000"
        b"/CIDSystemInfo<</Registry(Adobe)/Ordering(GB1)/Supplement 4>>/FontDescriptor 5 0 R>>",
        b"<</Type/FontDescriptor/FontName/STSong-Light/Flags 6/FontBBox[-25 -254 1000 880]/ItalicAngle 0/Ascent 880"
        b"/Descent -120/CapHeight 880/StemV 93>>",
    ]
    kids = []
    for page in pages:
        content = b"".join(
            f"BT /F {size} Tf {x} {y} Td <{text.encode('utf-16-be').hex()}> Tj ET\n".encode()
            for x, y, size, text in page
        )
        objects.append(b"<</Length %d>>stream\n%sendstream" % (len(content), content))
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Resources<</Font<</F 3 0 R>>>>/Contents %d 0 R>>"
            % len(objects)
        )
        kids.append(len(objects))
    objects[1] = b"<</Type/Pages/Kids[%s]/Count %d>>" % (b" ".join(b"%d 0 R" % kid for kid in kids), len(kids))
    catalog = b"/Type/Catalog/Pages 2 0 R"
    if outline:
        title = b"<feff" + outline.encode("utf-16-be").hex().encode() + b">"
        root = len(objects) + 1
        objects.append(b"<</First %d 0 R/Last %d 0 R/Count 1>>" % (root + 1, root + 1))
        objects.append(b"<</Title %s/Parent %d 0 R/Dest[%d 0 R/Fit]>>" % (title, root, kids[0]))
        catalog += b"/Outlines %d 0 R" % root
    objects[0] = b"<<" + catalog + b">>"
    data = bytearray(b"%PDF-1.5\n")
    places = []
    for number, content in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = len(data)
    data += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    data += b"".join(b"%010d 00000 n \n" % place for place in places)
    data += b"trailer<</Size %d/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, extra, table)
    return bytes(data)


def picture(lines: Sequence[str], *, size: int = 28, form: str = "PNG", width: int = 1240) -> bytes:
    """Printed lines as a picture of 150 dots an inch."""
    data = io.BytesIO()
    drawn(lines, size, width).save(data, form, **({"resolution": 150.0} if form == "PDF" else {}))
    return data.getvalue()


def drawn(lines: Sequence[str], size: int = 28, width: int = 1240) -> Any:
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(str(FONT), size, index=2 if str(FONT).endswith("ttc") else 0)
    image = Image.new("RGB", (width, max(int(len(lines) * size * 1.7) + 160, 200)), "white")
    pen = ImageDraw.Draw(image)
    for n, line in enumerate(lines):
        pen.text((90, 80 + n * size * 1.7), line, fill="black", font=font)
    return image


def docx(fill: Any) -> bytes:
    """A Word document that `fill` puts something into."""
    import docx as word

    document = word.Document()
    fill(document)
    data = io.BytesIO()
    document.save(data)
    return data.getvalue()


def pptx(slides: Sequence[tuple[str, str, str]]) -> bytes:
    """Slides of a title, a text and notes."""
    import pptx as power

    show = power.Presentation()
    for title, text, notes in slides:
        slide = show.slides.add_slide(show.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = text
        if notes:
            slide.notes_slide.notes_text_frame.text = notes
    data = io.BytesIO()
    show.save(data)
    return data.getvalue()


def xlsx(sheets: Mapping[str, Sequence[Sequence[Any]]]) -> bytes:
    import openpyxl

    book = openpyxl.Workbook(write_only=True)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    data = io.BytesIO()
    book.save(data)
    return data.getvalue()


def epub(chapters: Sequence[tuple[str, str]], more: Mapping[str, bytes | str] | None = None) -> bytes:
    """A book of chapters with a title and a text."""
    names = [f"c{n}.xhtml" for n in range(len(chapters))]
    items = "".join(f'<item id="{name}" href="{name}" media-type="application/xhtml+xml"/>' for name in names)
    spine = "".join(f'<itemref idref="{name}"/>' for name in names)
    package = (
        '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0">'
        f"<manifest>{items}</manifest><spine>{spine}</spine></package>"
    )
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OEBPS/p.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
    )
    pages = {
        f"OEBPS/{name}": f'<!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml"><head><title>x</title></head>'
        f"<body><h1>{title}</h1><p>{text}</p></body></html>"
        for name, (title, text) in zip(names, chapters, strict=True)
    }
    return zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": container,
            "OEBPS/p.opf": package,
            **pages,
            **(more or {}),
        }
    )
