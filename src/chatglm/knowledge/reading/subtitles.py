"""Subtitles: SubRip (.srt) and WebVTT (.vtt)."""

from __future__ import annotations

import re
from itertools import zip_longest

from chatglm.errors import InputError
from chatglm.knowledge.reading.documents import Draft, Limits, Reading
from chatglm.knowledge.reading.texts import decoded, warnings_of

__all__ = ["read_subtitles"]

_TIMES = re.compile(r"^[ \t]*(?:(\d{1,3}):)?(\d{1,2}):(\d{2})[.,]\d{1,3}[ \t]*-->[ \t]*[\d:.,]+[^\n]*$", re.MULTILINE)
_TAGS = re.compile(r"</?(?:[bius]|font|c|v|lang|ruby|rt)\b[^>\n]{0,200}>|<\d[\d:.]*>|\{\\[^}\n]{1,100}\}")
_SECTION = 60
"""Length of a section with one heading, in seconds."""


def read_subtitles(data: bytes, name: str, limits: Limits) -> Reading:
    """Read the text of subtitles, without numbers and times. Each minute is a section with the time as its heading.

    Raises:
        InputError: the file is not text, is too long, or has no line with times.
    """
    found = decoded(data, limits)
    draft = Draft(limits)
    cues = list(_TIMES.finditer(found.text))
    if not cues and found.text.strip():
        raise InputError("has no times like 00:00:01,000 --> 00:00:02,000; name it .txt to have it read as text")
    minute = -1
    for cue, after in zip_longest(cues, cues[1:]):
        seconds = int(cue[1] or 0) * 3600 + int(cue[2]) * 60 + int(cue[3])
        if seconds // _SECTION != minute:
            minute = seconds // _SECTION
            draft.section(f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}", 1)
        said = _TAGS.sub("", found.text[cue.end() : after.start() if after else len(found.text)]).strip()
        if after:  # remove the number of the next subtitle
            said = re.sub(r"\n[ \t]*\d+$", "", f"\n{said}").strip()
        if said:
            draft.line(said)
    draft.warnings += warnings_of(found.text, found.damaged)
    return draft.reading("text/vtt" if found.text.startswith("WEBVTT") else "application/x-subrip")
