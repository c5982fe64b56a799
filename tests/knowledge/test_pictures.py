"""Pages of PDFs as pictures."""

from __future__ import annotations

import io

import numpy as np
import pytest
from making import pdf
from PIL import Image

from chatglm.errors import InputError
from chatglm.knowledge.reading import Limits, Readers
from chatglm.knowledge.reading.pictures import picture_of

PAGES = [
    [(72.0, 720.0, 14.0, "First page.")],
    [(72.0, 720.0, 14.0, "Close the gas valve"), (72.0, 690.0, 14.0, "before you leave.")],
]


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def test_a_quotation_is_marked_where_it_stands_over_lines_and_spaces() -> None:
    plain = pixels(picture_of(pdf(PAGES), 2, "", Limits()))
    marked = pixels(picture_of(pdf(PAGES), 2, "gas  valve before\nyou", Limits()))
    assert plain.shape == marked.shape
    changed = (plain != marked).any(axis=2)
    scale = plain.shape[0] / 842
    rows = np.nonzero(changed.any(axis=1))[0] / scale
    assert rows.min() > 842 - 720 - 16
    assert rows.max() < 842 - 690 + 8
    assert (marked[changed] <= plain[changed]).all()  # ink stays to be read
    assert (picture_of(pdf(PAGES), 2, "nowhere on it", Limits())) == picture_of(pdf(PAGES), 2, "", Limits())


def test_a_page_of_any_size_becomes_a_picture_of_bounded_size() -> None:
    huge = pdf(PAGES).replace(b"/MediaBox[0 0 595 842]", b"/MediaBox[0 0 14400 14400]")
    shape = pixels(picture_of(huge, 1, "", Limits())).shape
    assert shape[0] * shape[1] <= 4_100_000


def test_pictures_are_drawn_in_another_process_which_bad_files_do_not_harm() -> None:
    with Readers(Limits(seconds=30), workers=1) as readers:
        assert readers.picture(pdf(PAGES), "a.pdf", 1).startswith(b"\x89PNG")
        for data, page in ((b"%PDF-1.4 nothing", 1), (pdf(PAGES), 3), (pdf(PAGES), 0), (b"", 1), (b"\x00" * 1000, 1)):
            with pytest.raises(InputError):
                readers.picture(data, "a.pdf", page)
        assert readers.picture(pdf(PAGES), "a.pdf", 2, "gas valve").startswith(b"\x89PNG")
        assert "First page." in readers.read(pdf(PAGES), "a.pdf").text  # the same process reads
