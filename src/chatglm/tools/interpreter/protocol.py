"""Makes the texts of the interpreter for the model, in the official form.

The form is that of ChatGLM3's PROMPT.md and `composite_demo/demo_ci.py`, and of GLM-4's
`composite_demo/src/tools/python.py`: the text of the output, cut to 1,024 characters with ` [TRUNCATED]`; `[Image]` for
a picture; a notice of an uploaded file in front of the user's question. ChatGLM3's ```` ```result ```` fence and the
system prompts are parts of the prompt, and are made there (`chat/formats.py`).
"""

from __future__ import annotations

from chatglm.tools.interpreter.limits import Cell

__all__ = ["FOLDER", "observation", "upload_notice"]

FOLDER = "/mnt/data"
"""Path of the conversation's folder in the official prompts."""
_IMAGE = "[Image]"
_TRUNCATED = " [TRUNCATED]"


def observation(cell: Cell, characters: int = 1024) -> str:
    """The result of a cell as text for the model: output, traceback, why the kernel was ended, and pictures.

    Args:
        characters: most characters. A long output is cut at its end, a long traceback in its middle. Without traceback
            and pictures, the output is cut as in the official demo: to this length, with ` [TRUNCATED]` after it.
    """
    error = cell.error.strip("\n")
    most = characters * 5 // 8
    if len(error) > most:  # the first line has the place, the last one the error
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
        size: size of the file in bytes.
    """
    return f"#File: {FOLDER}/{name}\n#Size: {size}\n#File uploaded"
