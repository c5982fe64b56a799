"""Summaries of texts of any length."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["MAP", "REDUCE", "REFINE", "WHOLE"]


def _prompts(chinese: str, english: str) -> Mapping[str, str]:
    return MappingProxyType({"zh": chinese, "en": english})


WHOLE = _prompts(
    "写出下面文字的概要，分段写，只说其中有的内容：\n\n{text}",
    "Summarise the following text in paragraphs. Say only what it says:\n\n{text}",
)
"""For a text that the model can read at once."""
MAP = _prompts(
    "写出下面文字的概要，只说其中有的内容：\n\n{text}",
    "Summarise the following text. Say only what it says:\n\n{text}",
)
"""For each part of a longer one."""
REDUCE = _prompts(
    "下面是一篇长文各部分的概要，依先后排列。把它们合成一篇概要，分段写，只说其中有的内容：\n\n{text}",
    "These are summaries of the parts of a long text, in order. Make one summary of them, in paragraphs. Say only what "
    "they say:\n\n{text}",
)
"""For summaries of parts, as often as they do not fit into one prompt, and for the last time."""
REFINE = _prompts(
    "下面是一篇长文前一部分的概要，和接着的文字。把它们合成一篇概要，分段写，只说其中有的内容。\n\n概要：\n{summary}\n\n接着的文字：\n{text}",
    "This is a summary of the first part of a long text, and the text that follows. Make one summary of both, in "
    "paragraphs. Say only what they say.\n\nSummary:\n{summary}\n\nWhat follows:\n{text}",
)
"""For each next part, beside the summary of those before."""
