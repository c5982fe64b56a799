"""Shows what training learns from the data: every dialogue token by token, with learned parts in colour."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from chatglm.chat.formats import ChatFormat
from chatglm.chat.vocabulary import Vocabulary
from chatglm.training.dialogues import Columns, Paths
from chatglm.training.examples import IGNORE, Example, Tally, counted, encode_files

__all__ = ["preview", "show"]

_LEARNED, _CONTROL, _HEADING, _PLAIN = "\x1b[32m", "\x1b[2m", "\x1b[1m", "\x1b[0m"
_MARKS = "⟦", "⟧"


def preview(
    paths: Paths,
    form: ChatFormat,
    *,
    loss: str = "all",
    max_length: int | None = None,
    one_pass: bool = False,
    columns: Columns | None = None,
    skip_bad_rows: bool = False,
    limit: int = 3,
    color: bool = True,
) -> Iterator[str]:
    """Lines to print: the first `limit` dialogues with their learned parts, then statistics of all the data.

    Args:
        paths, loss, max_length, one_pass, columns, skip_bad_rows: see `encode_files`.
        color: learned text is green, and control tokens that are not learned are dim. Without color, learned text is in
            ⟦…⟧.

    Raises:
        InputError, UnsupportedError: a bad row, with its file and line.
    """
    tally = Tally()
    encoded = encode_files(
        paths,
        form,
        loss=loss,
        max_length=max_length,
        one_pass=one_pass,
        columns=columns,
        skip_bad_rows=skip_bad_rows,
        tally=tally,
    )
    cut = 0
    for dialogue, made in itertools.islice(encoded, max(limit, 0)):
        note = ", cut" if tally.cut > cut else ""
        cut = tally.cut
        if not made:
            yield _heading(f"{dialogue.where} ({dialogue.form}): nothing is learned{note}", color)
        for number, example in enumerate(made, 1):
            which = f", example {number} of {len(made)}" if len(made) > 1 else ""
            learned = sum(target != IGNORE for target in example.targets)
            counts = f"{counted(len(example), 'token')}, {learned:,} learned"
            yield _heading(f"{dialogue.where} ({dialogue.form}){which}: {counts}{note}", color)
            yield from show(example, form.tokenizer, color).split("\n")
        yield ""
    for _ in encoded:
        pass
    yield from tally.lines()


def show(example: Example, tokenizer: Vocabulary, color: bool = True) -> str:
    """The text of an example, token by token: control tokens by name, learned text in colour or in ⟦…⟧.

    For each position the following token is shown: its target if it is learned, else the next input.
    """
    names = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    shown = [(int(example.ids[0]), False)] if len(example) else []
    for place, target in enumerate(example.targets):
        if target != IGNORE:
            shown.append((int(target), True))
        elif place + 1 < len(example):
            shown.append((int(example.ids[place + 1]), False))
    parts: list[str] = []
    for learned, run in itertools.groupby(shown, key=lambda token: token[1]):
        text = ""
        for is_control, tokens in itertools.groupby((token_id for token_id, _ in run), key=names.__contains__):
            if is_control:
                words = "".join(names[token_id] for token_id in tokens)
                text += _paint(words, _CONTROL) if color and not learned else words
            else:
                data = b"".join(map(tokenizer.token_bytes, tokens))
                text += _visible(data.decode("utf-8", "replace"))
        if learned:
            text = _paint(text, _LEARNED) if color else text.join(_MARKS)
        parts.append(text)
    return "".join(parts)


def _visible(text: str) -> str:
    """Replace characters that could control a terminal by visible ones."""
    visible = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}
    return text.translate(visible | dict.fromkeys(range(128, 160), "\ufffd"))


def _paint(text: str, code: str) -> str:
    # Colour each line separately, so that a pager shows the same wherever it begins.
    return "\n".join(f"{code}{line}{_PLAIN}" if line else "" for line in text.split("\n"))


def _heading(text: str, color: bool) -> str:
    return _paint(f"── {text} ──", _HEADING) if color else f"── {text} ──"
