"""E-mails (.eml): subject, sender, recipients and date, the text, and the text of attachments."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Callable, Iterator
from email.message import EmailMessage

from chatglm.errors import ChatGLMError, InputError
from chatglm.knowledge.encodings import decode
from chatglm.knowledge.reading.documents import Draft, Limits, Reading
from chatglm.knowledge.reading.html import add_html

__all__ = ["read_mail"]

_HEADERS = {"From": "发件人", "To": "收件人", "Cc": "抄送", "Date": "日期"}


def read_mail(data: bytes, limits: Limits, inner: Callable[[bytes, str], Reading]) -> Reading:
    """Read an e-mail. Attachments that cannot be read become warnings.

    Args:
        inner: reads an attachment, given its bytes and its name.

    Raises:
        InputError: the file is not an e-mail, has too many parts, or is nested too deeply.
    """
    draft = Draft(limits)
    try:
        message = email.message_from_bytes(data, policy=email.policy.default)
        if not message.keys():
            raise InputError("has no header lines as an e-mail has; name it .txt to have it read as text")
        _add(draft, message, inner, 0, limits)
    except RecursionError:
        raise InputError("its parts are nested too deeply") from None
    return draft.reading("message/rfc822")


def _header(message: EmailMessage, name: str) -> str:
    try:
        return " ".join(str(message.get(name, "")).split())
    except (
        ValueError,
        TypeError,
        IndexError,
        AttributeError,
        LookupError,
    ):  # Python's parser raises these for some malformed headers
        return ""


def _add(
    draft: Draft, message: EmailMessage, inner: Callable[[bytes, str], Reading], depth: int, limits: Limits
) -> None:
    draft.heading(_header(message, "Subject"), 1 + depth)
    for name, shown in _HEADERS.items():
        if said := _header(message, name):
            draft.line(f"{shown}：{said}")
    draft.add("\n")
    for part, alternative in _parts(message, limits):
        kind, name = part.get_content_type(), _name_of(part)
        if alternative:
            continue
        if kind == "message/rfc822":
            payload: object = part.get_payload()
            forwarded = payload[0] if isinstance(payload, list) and payload else None
            if depth < limits.depth and isinstance(forwarded, EmailMessage):
                _add(draft, forwarded, inner, depth + 1, limits)
            continue
        content = part.get_payload(decode=True)
        if not isinstance(content, bytes) or not content.strip():
            continue
        if name or part.get_content_disposition() == "attachment":
            _attach(draft, content, name or "attachment", inner, depth)
        elif kind in ("text/plain", "text/html"):
            text = decode(content, part.get_content_charset()).text
            if kind == "text/html":
                add_html(draft, text)
            else:
                draft.line(text.strip())


def _attach(draft: Draft, content: bytes, name: str, inner: Callable[[bytes, str], Reading], depth: int) -> None:
    try:
        reading = inner(content, name)
    except ChatGLMError as error:
        draft.warnings.append(f"attachment {error}")
        return
    draft.add("\n")
    draft.heading(name, 2 + depth)
    draft.take(reading, 2 + depth)
    draft.warnings += [f"attachment {name}: {warning}" for warning in reading.warnings]


def _parts(message: EmailMessage, limits: Limits) -> Iterator[tuple[EmailMessage, bool]]:
    """All parts that are not containers. The second value says whether to skip the part, because another form of it is
    read (`multipart/alternative`); plain text is preferred."""
    stack: list[tuple[EmailMessage, bool]] = [(message, False)]
    seen = 0
    while stack:
        part, alternative = stack.pop()
        seen += 1
        if seen > limits.members:
            raise InputError(f"has more than {limits.members:,} parts")
        inside = part.get_payload()
        if part.get_content_maintype() != "multipart" or not isinstance(inside, list):
            yield part, alternative
            continue
        children = [each for each in inside if isinstance(each, EmailMessage)]
        best: EmailMessage | None = None
        if part.get_content_subtype() == "alternative":
            plain = [each for each in children if each.get_content_type() == "text/plain" and each.get_payload()]
            best = plain[0] if plain else children[-1] if children else None
        stack += [(each, alternative or (best is not None and each is not best)) for each in reversed(children)]


def _name_of(part: EmailMessage) -> str:
    try:
        return " ".join(str(part.get_filename() or "").split())
    except (ValueError, TypeError, IndexError, AttributeError, LookupError):
        return ""
