"""Text recognition (OCR) for scans and photographs, with the models inside the package `rapidocr`. Nothing is
downloaded."""

from __future__ import annotations

import importlib.util
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from chatglm.errors import DependencyError, InputError
from chatglm.knowledge.reading.documents import Draft, Limits, Reading
from chatglm.knowledge.reading.headings import with_headings
from chatglm.knowledge.reading.lines import Line, in_columns, in_rows, joined, text_of

__all__ = ["Sight", "read_picture"]

_INSTALL = "text recognition (OCR) needs the rapidocr package: pip install 'chatglm[ocr]'"
_SURE = 0.5
"""Lines with a lower confidence are left out: they are usually parts of pictures."""
_UPRIGHT = 0.75
"""Mean confidence above which a page is taken to be upright. Typical: .97 upright, .54 upside down, .64 on its side."""
_LONGEST_SIDE = 4000
"""Longest side of a picture, in pixels; larger pictures are scaled down."""


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Sight:
    """Settings of text recognition.

    Attributes:
        mode: True: recognise all pages; False: none; "auto": pictures and pages without text.
        alive: is called after each recognition of a picture.
    """

    mode: bool | Literal["auto"] = "auto"
    alive: Callable[[], None] = _nothing

    @property
    def always(self) -> bool:
        """Whether all pages are recognised."""
        return self.mode is True and not self.missing

    @property
    def missing(self) -> str:
        """Why text recognition is not possible; "" if it is."""
        if self.mode is False:
            return "text recognition (OCR) is switched off"
        return "" if importlib.util.find_spec("rapidocr") and importlib.util.find_spec("onnxruntime") else _INSTALL

    def read(self, picture: Any) -> list[Line]:
        """Recognise the lines of a picture. If they have a low confidence, the picture is also tried in the other three
        orientations.

        Args:
            picture: an image of Pillow.

        Returns:
            the lines in reading order; coordinates are in pixels of the (turned) picture.

        Raises:
            DependencyError: `rapidocr` is not installed.
        """
        picture = picture.convert("RGB")
        lines, sure = _seen(picture)
        self.alive()
        if lines and sure < _UPRIGHT:
            for turn in (180, 90, 270):
                turned = picture.rotate(turn, expand=True)
                others, surer = _seen(turned)
                self.alive()
                if surer > max(sure, _UPRIGHT):
                    return in_columns(others, turned.width)
        return in_columns(lines, picture.width)


def _seen(picture: Any) -> tuple[list[Line], float]:
    """The recognised lines, in no particular order, and their mean confidence."""
    import numpy

    scale = max(1.0, max(picture.size) / _LONGEST_SIDE)
    if scale > 1:
        picture = picture.resize((round(picture.width / scale), round(picture.height / scale)))
    result = _recogniser()(numpy.asarray(picture)[:, :, ::-1])
    if result.boxes is None or result.txts is None:
        return [], 0.0
    lines, scores = [], []
    for box, text, score in zip(result.boxes, result.txts, result.scores, strict=True):
        xs, ys = [float(point[0]) * scale for point in box], [float(point[1]) * scale for point in box]
        if text.strip():
            lines.append(Line(text, min(xs), max(xs), min(ys), max(ys)))
            scores.append(float(score))
    return lines, sum(scores) / max(len(scores), 1)


@cache
def _recogniser() -> Any:
    """The models of rapidocr (detection, orientation, recognition), loaded once."""
    try:
        import logging

        from rapidocr import RapidOCR
    except ImportError:
        raise DependencyError(_INSTALL) from None
    logging.getLogger("RapidOCR").setLevel(logging.ERROR)
    return RapidOCR(
        params={
            "Global.log_level": "error",
            "Global.text_score": _SURE,
            "Global.use_cls": False,  # the orientation model turns upright lines by mistake; `read` turns whole pages
            "Det.limit_type": "max",  # do not enlarge small pictures
            "Det.limit_side_len": 1280,
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            "EngineConfig.onnxruntime.enable_cpu_mem_arena": False,
        }
    )


def read_picture(data: bytes, limits: Limits, sight: Sight) -> Reading:
    """Read a PNG, JPEG, TIFF, BMP, GIF or WebP file by OCR. Each picture of a TIFF file is a page.

    Raises:
        DependencyError: `rapidocr` is not installed.
        InputError: the file is damaged or too large, or text recognition is switched off.
    """
    if sight.mode is False:
        raise InputError(f"is a picture, but {sight.missing}")
    if sight.missing:
        raise DependencyError(sight.missing)
    draft = Draft(limits)
    for n, picture in enumerate(_pictures(data, limits), 1):
        lines = sight.read(picture)
        with draft.part("page", str(n)):
            for paragraph in joined(in_rows(lines)):
                draft.line(text_of(paragraph))
        if not lines:
            draft.warnings.append(f"picture {n} has no text that could be recognised")
    return with_headings(draft.reading("image"))


def _pictures(data: bytes, limits: Limits) -> Iterator[Any]:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP")) as picture:
                frames = getattr(picture, "n_frames", 1) if picture.format == "TIFF" else 1
                if frames > limits.pages:
                    raise InputError(f"has {frames:,} pictures, and at most {limits.pages:,} are read; split it")
                for frame in range(frames):
                    if frames > 1:
                        picture.seek(frame)
                    if picture.width * picture.height > limits.pixels:
                        raise InputError(
                            f"is a picture of {picture.width:,} × {picture.height:,} pixels, and at most "
                            f"{limits.pixels:,} are read; make it smaller"
                        )
                    yield ImageOps.exif_transpose(_on_white(picture))
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError("is not a supported picture; supported are PNG, JPEG, TIFF, BMP, GIF and WebP") from None
    except Image.DecompressionBombError:
        raise InputError(
            f"is a picture of too many pixels: at most {limits.pixels:,} are read; make it smaller"
        ) from None
    except (OSError, ValueError, SyntaxError, EOFError, OverflowError) as error:
        raise InputError(f"is a damaged picture ({error!s:.100})") from None


def _on_white(picture: Any) -> Any:
    """Replace transparency by white; otherwise it would become black."""
    if picture.mode not in ("RGBA", "LA", "PA") and "transparency" not in picture.info:
        return picture
    from PIL import Image

    seen = picture.convert("RGBA")
    white = Image.new("RGBA", seen.size, "white")
    white.alpha_composite(seen)
    return white
