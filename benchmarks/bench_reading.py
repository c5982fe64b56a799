"""How well and how fast documents become text and pieces.

    python benchmarks/bench_reading.py [--shared ../shared] [--manual FOLDER] [--pages 20]

- encodings: texts of 20 characters and more of the shared data, in five encodings; how many are read exactly.
- pieces: the four novels, read, cut, and their grams listed.
- PDF: Debian's Chinese manual, of which the package debian-reference-zh-cn has text, HTML and 251 pages of PDF; FOLDER
  holds its files. What share of the HTML's runs of 12 Chinese characters the PDF's text has, ours and pdfium's own.
- pictures: pages of 30 lines rendered with Noto's Chinese font; the share of characters that are recognised.

Seconds are this process' own on the processor, so that other programs do not count. Prints a table, and one JSON line
for machines.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import random
import re
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "knowledge"))

import making
from common import machine

from chatglm.errors import ChatGLMError
from chatglm.knowledge.encodings import decode
from chatglm.knowledge.grams import grams
from chatglm.knowledge.reading import read
from chatglm.knowledge.splitting import split
from chatglm.knowledge.variants import SIMPLIFIED

ENCODINGS = ("utf-8", "gb18030", "big5", "utf-16-le", "utf-16-be")


def encodings(texts: Sequence[str], count: int) -> dict[str, Any]:
    chance = random.Random(1)
    traditional = {ord(simple): chr(code) for code, simple in SIMPLIFIED.items() if _in_big5(chr(code))}
    right = tried = 0
    begun = time.process_time()
    while tried < count:
        text = chance.choice(texts)
        at = chance.randrange(max(len(text) - 20, 1))
        part = text[at : at + chance.choice((20, 25, 40, 100, 1000))]
        encoding = ENCODINGS[tried % len(ENCODINGS)]
        if encoding == "big5":
            part = part.translate(traditional).encode("big5", "ignore").decode("big5")
        if len(part) >= 20:
            tried += 1
            with contextlib.suppress(ChatGLMError):
                right += decode(part.encode(encoding)).text == part
    return {"texts": tried, "right": right, "seconds": round(time.process_time() - begun, 2)}


def _in_big5(character: str) -> bool:
    return bool(character.encode("big5", "ignore"))


def pieces(files: Sequence[Path]) -> list[dict[str, Any]]:
    rows = []
    for file in files:
        times = [time.process_time()]
        reading = read(file, name=file.name)
        times.append(time.process_time())
        cut = list(split(reading))
        times.append(time.process_time())
        for piece in cut:
            grams(piece.text)
        times.append(time.process_time())
        spent = [round(after - before, 3) for before, after in pairwise(times)]
        rows.append({"file": file.name, "characters": len(reading.text), "pieces": len(cut),
                     **dict(zip(("read", "split", "grams"), spent, strict=True))})  # fmt: skip
    return rows


def pdf(folder: Path) -> dict[str, Any]:
    import pypdfium2

    file = next(folder.rglob("debian-reference.zh-cn.pdf"))
    begun = time.process_time()
    ours = read(file, name=file.name)
    spent = time.process_time() - begun
    document = pypdfium2.PdfDocument(file)
    begun = time.process_time()
    plain = "\n".join(page.get_textpage().get_text_range() for page in document)
    plainly = time.process_time() - begun
    wanted = set().union(*(_runs(read(page, name=page.name).text) for page in sorted(folder.rglob("ch*.zh-cn.html"))))
    return {
        "pages": len(document),
        "seconds": round(spent, 2),
        "pdfium": round(plainly, 2),
        "share": round(len(wanted & _runs(ours.text)) / len(wanted), 3),
        "pdfium_share": round(len(wanted & _runs(plain)) / len(wanted), 3),
        "headings": sum(mark.kind == "heading" for mark in ours.marks),
    }


def _runs(text: str) -> set[str]:
    found = re.findall("[\u4e00-\u9fff，。、；：（）“”]{12,}", text)
    return {run[at : at + 12] for run in found for at in range(len(run) - 11)}


def pictures(text: str, count: int, lines: int = 30, width: int = 36) -> dict[str, Any]:
    chance = random.Random(1)
    text = re.sub(r"[\s\u3000]+", "", text)
    right = total = 0
    spent = []
    for _ in range(count):
        at = chance.randrange(len(text) - lines * width)
        page = [text[at + n * width : at + (n + 1) * width] for n in range(lines)]
        data = making.picture(page)
        begun = time.process_time()
        seen = re.sub(r"\s", "", read(data, name="page.png").text)
        spent.append(time.process_time() - begun)
        blocks = difflib.SequenceMatcher(None, "".join(page), seen, autojunk=False).get_matching_blocks()
        right += sum(block.size for block in blocks)
        total += lines * width
    return {
        "pages": count,
        "characters": total,
        "right": round(right / total, 4),
        "seconds_a_page": round(min(spent), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--manual", type=Path, help="a folder with the files of debian-reference-zh-cn")
    parser.add_argument("--texts", type=int, default=16_000)
    parser.add_argument("--pages", type=int, default=20)
    options = parser.parse_args()
    data = options.shared / "data" / "knowledge"
    novels = sorted(data.glob("*.txt"))
    articles = json.loads((data / "cmrc_dev.json").read_text("utf-8"))["data"]
    texts = [paragraph["context"] for article in articles for paragraph in article["paragraphs"]]
    result: dict[str, Any] = {"machine": machine()}
    result["encodings"] = encodings([*texts, *(novel.read_text("utf-8") for novel in novels)], options.texts)
    print(f"encodings: {result['encodings']}")
    result["pieces"] = pieces(novels)
    for row in result["pieces"]:
        print(f"pieces: {row}")
    if options.manual:
        result["pdf"] = pdf(options.manual)
        print(f"PDF: {result['pdf']}")
    if options.pages:
        result["pictures"] = pictures("".join(texts), options.pages)
        print(f"pictures: {result['pictures']}")
    print(json.dumps(result, ensure_ascii=False))


if __name__ == "__main__":
    main()
