"""Texts of the interpreter for the model, in the official form.

From ChatGLM3's PROMPT.md and `composite_demo/demo_ci.py`, and GLM-4's `composite_demo/src/tools/python.py`: the text of
the output, cut to 1,024 characters with ` [TRUNCATED]`; `[Image]` for a picture; a notice of an uploaded file in front
of the user's question. ChatGLM3's ```` ```result ```` fence and the system prompts belong to the prompt, and are made
with it (`chat/formats.py`).
"""

from __future__ import annotations

from chatglm.tools.interpreter.limits import Cell

__all__ = ["FOLDER", "observation", "upload_notice"]

FOLDER = "/mnt/data"
"""The conversation's folder, as the official prompts tell the model."""
_IMAGE = "[Image]"
_TRUNCATED = " [TRUNCATED]"


def observation(cell: Cell, characters: int = 1024) -> str:
    """The result of a cell for the model: text, then the traceback, why the kernel was ended, and its pictures.

    Args:
        characters: of it; what is cut is the text, then the middle of the traceback. A text alone is cut as in the
            official demo: so many characters, and ` [TRUNCATED]` after them.
    """
    error = cell.error.strip("\n")
    most = characters * 5 // 8
    if len(error) > most:  # the first line says where, the last one says what
        error = f"{error[: most // 4]}\n…\n{error[-(most - most // 4 - 3) :]}"
    ended = f"[the kernel was ended: {cell.ended}]" if cell.ended else ""
    after = "\n".join(part for part in (error, ended, *(_IMAGE for _ in cell.pictures)) if part)
    text = cell.text.strip("\n")
    room = characters - (len(after) + 1 + len(_TRUNCATED) if after else 0)
    if len(text) > room:
        text = text[: max(room, 0)] + _TRUNCATED
    return "\n".join(part for part in (text, after) if part)


def upload_notice(name: str, size: int) -> str:
    """The notice in front of the user's message when a file was uploaded.

    Args:
        size: in bytes.
    """
    return f"#File: {FOLDER}/{name}\n#Size: {size}\n#File uploaded"
