"""`Example` is one sequence to learn from. Dialogues become examples, examples become rows, and rows become batches.

Only `ChatFormat` decides what is learned. Targets are stored beside the inputs and already shifted: for each position
an example has the token that must be predicted, or a mark that nothing is learned there.

Shapes in comments: B rows of a batch, S positions of a row.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from chatglm.chat.formats import ChatFormat
from chatglm.chat.generations import Generation
from chatglm.chat.messages import Message
from chatglm.errors import InputError, UnsupportedError
from chatglm.training.dialogues import BadRow, Columns, Dialogue, Paths, read_dialogues

__all__ = ["IGNORE", "Collator", "Example", "Loss", "Tally", "counted", "encode", "encode_files", "pack"]

IGNORE = -100
"""Target of a position from which nothing is learned."""

Loss: TypeAlias = Literal["all", "last", "split"]
"""Which assistant turns are learned: `all`: every turn, in as few passes as the format allows; `last`: only the last
turn of a dialogue; `split`: every turn, each in a pass of its own.
"""


@dataclass(frozen=True, slots=True)
class Example:
    """One sequence to learn from.

    Attributes:
        ids: the S inputs.
        targets: S targets: the token that each position must predict, or IGNORE.
        positions: one row of S position numbers from 0 on; two rows for ChatGLM-6B.
        where: "file:line" of its source, for messages.
    """

    ids: Sequence[int]
    targets: Sequence[int]
    positions: tuple[Sequence[int], ...]
    where: str = ""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(slots=True)
class Tally:
    """Counts dialogues, and the examples made from them.

    Attributes:
        dialogues: dialogues that were read, without bad ones that were skipped.
        examples: sequences made from them.
        tokens: inputs in these.
        learned: positions from which something is learned.
        cut: dialogues over the limit: rounds in front of some turns, or turns themselves, were left out.
        lost: assistant turns that are not learned because they do not fit, even with only their own round in front.
        silent: dialogues from which nothing is learned.
        forms: number of dialogues by the form in which they were written.
        skipped: bad rows that were left out.
    """

    dialogues: int = 0
    examples: int = 0
    tokens: int = 0
    learned: int = 0
    cut: int = 0
    lost: int = 0
    silent: int = 0
    forms: dict[str, int] = field(default_factory=dict)
    skipped: list[BadRow] = field(default_factory=list)

    def lines(self, most: int = 20) -> list[str]:
        """The counts as lines for people, with at most `most` of the skipped rows."""
        forms = ", ".join(f"{count:,} {form}" for form, count in self.forms.items())
        share = f" ({self.learned / self.tokens:.1%})" if self.tokens else ""
        counts = (
            f"{counted(self.examples, 'example')}, {counted(self.tokens, 'token')}, {self.learned:,} learned{share}"
        )
        lines = [f"{counted(self.dialogues, 'dialogue')}{f' ({forms})' if forms else ''}: {counts}"]
        if self.cut:
            lost = f"; not learned, as they do not fit at all: {counted(self.lost, 'turn')}" if self.lost else ""
            lines.append(f"too long and cut between rounds: {counted(self.cut, 'dialogue')}{lost}")
        if self.silent:
            lines.append(f"without anything to learn: {counted(self.silent, 'dialogue')}")
        if self.skipped:
            lines.append(f"skipped: {counted(len(self.skipped), 'bad row')}")
            lines += [f"  {where}: {reason}" for where, reason in self.skipped[:most]]
            if len(self.skipped) > most:
                lines.append(f"  … and {len(self.skipped) - most:,} more")
        return lines


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 row", "2 rows"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def encode(
    dialogue: Dialogue,
    form: ChatFormat,
    *,
    loss: str = "all",
    max_length: int | None = None,
    one_pass: bool = False,
    tally: Tally | None = None,
) -> list[Example]:
    """Encode a dialogue as examples. Each example ends with its last learned position.

    A message's own `loss` overrides `loss`. A turn is only learned after a prompt that inference would also make:

    - Long dialogues are cut between rounds (a round begins with a user's message), never inside a prompt. System
      messages at the beginning of the dialogue always stay.
    - If a long dialogue is learned in one pass, it is divided into several passes, each as long as fits. No turn is
      lost.
    - If a turn is learned by itself, the oldest rounds in front of it are left out.
    - Of a round that is too long by itself, only the turns that end within the limit are learned.

    Args:
        loss: which turns are learned, see `Loss`. Some formats cannot extend a prompt by further turns (ChatGLM-6B,
            ChatGLM2, CharacterGLM). There each turn needs a pass of its own, so `all` and `split` are the same.
        max_length: the most positions of an example.
        one_pass: for ChatGLM2 and CharacterGLM: learn all turns in one pass nevertheless. Then the history of later
            turns has stop ids, which do not occur in inference.
        tally: counts are added to it.

    Raises:
        InputError, UnsupportedError: the format cannot represent the dialogue; the message begins with its file and
            line.
    """
    _check_options(form, loss, max_length, one_pass)
    try:
        if dialogue.persona is not None:
            form = form.with_persona(dialogue.persona)
        in_one_pass = loss == "all" and (form.extends or one_pass)
        made, cut, lost = _Encoding(form, dialogue, max_length, in_one_pass).run(loss)
    except (InputError, UnsupportedError) as error:
        raise type(error)(f"{dialogue.where}: {error}" if dialogue.where else str(error)) from None
    except BaseException as error:
        # tiktoken's panics are not Exceptions. Some values of a row cannot be written as text.
        if type(error).__name__ != "PanicException" and not isinstance(error, ValueError | RecursionError):
            raise
        where = f"{dialogue.where}: " if dialogue.where else ""
        reason = " ".join(str(error).split())
        raise InputError(f"{where}its text cannot become tokens ({type(error).__name__}: {reason:.120})") from None
    if tally is not None:
        tally.dialogues += 1
        tally.examples += len(made)
        tally.tokens += sum(map(len, made))
        tally.learned += sum(target != IGNORE for example in made for target in example.targets)
        tally.cut += cut
        tally.lost += lost
        tally.silent += not made
        if dialogue.form:
            tally.forms[dialogue.form] = tally.forms.get(dialogue.form, 0) + 1
    return made


def encode_files(
    paths: Paths,
    form: ChatFormat,
    *,
    loss: str = "all",
    max_length: int | None = None,
    one_pass: bool = False,
    columns: Columns | None = None,
    skip_bad_rows: bool = False,
    tally: Tally | None = None,
) -> Iterator[tuple[Dialogue, list[Example]]]:
    """Read the dialogues of files one by one, each with its examples; see `read_dialogues` and `encode`.

    Args:
        skip_bad_rows: leave out what cannot be read or encoded, and list it in `tally.skipped`.

    Raises:
        InputError, UnsupportedError: a bad row, with its file and line.
    """
    _check_options(form, loss, max_length, one_pass)
    tally = Tally() if tally is None else tally
    for dialogue in read_dialogues(paths, skipped=tally.skipped if skip_bad_rows else None, columns=columns):
        try:
            made = encode(dialogue, form, loss=loss, max_length=max_length, one_pass=one_pass, tally=tally)
        except (InputError, UnsupportedError) as error:
            if not skip_bad_rows:
                raise
            tally.skipped.append(BadRow(dialogue.where, str(error).removeprefix(f"{dialogue.where}: ")))
        else:
            yield dialogue, made


def _check_options(form: ChatFormat, loss: str, max_length: int | None, one_pass: bool) -> None:
    if loss not in get_args(Loss):
        raise InputError(f"loss {loss!r}: must be one of {', '.join(get_args(Loss))}")
    if max_length is not None and max_length < 1:
        raise InputError(f"max_length {max_length}: must be 1 or more")
    if one_pass and form.generation == Generation.CHATGLM:
        raise UnsupportedError(
            "one_pass: ChatGLM-6B reads its prompt in both directions, so that each turn needs its own pass"
        )


class _Encoding:
    """Converts one dialogue to examples."""

    def __init__(self, form: ChatFormat, dialogue: Dialogue, limit: int | None, in_one_pass: bool) -> None:
        self._form, self._dialogue, self._limit = form, dialogue, limit
        self._in_one_pass = in_one_pass

    def run(self, loss: str) -> tuple[list[Example], bool, int]:
        """The examples, whether anything was cut, and the number of lost turns."""
        messages = list(self._dialogue.messages)
        if self._in_one_pass:
            return self._together(messages)
        if not self._form.extends:
            self._form.text(messages, self._dialogue.tools)  # refuses messages that the format cannot represent
        turns = [n for n, message in enumerate(messages) if _is_learned(message)]
        if loss == "last":
            # A message's own `loss` decides first.
            asked = {n for n in turns if messages[n].loss}
            turns = sorted(asked | set(turns[-1:]))
        made, cut, lost = [], False, 0
        for turn in turns:
            only = [message if n == turn else replace(message, loss=False) for n, message in enumerate(messages)]
            # If the header of the next message ends the turn, that message stays.
            example, shorter = self._alone(only if self._form.extends else only[: turn + 1], turn)
            cut |= shorter
            lost += example is None and shorter
            made += [] if example is None else [example]
        return made, cut, lost

    def _together(self, messages: list[Message]) -> tuple[list[Example], bool, int]:
        whole = self._example(messages)
        if self._fits(whole):
            return [] if whole is None else [whole], False, 0
        front, rounds = _rounds(messages)
        made: list[Example] = []
        begin, lost = 0, 0
        while begin < len(rounds):

            def upto(end: int, begin: int = begin, front: list[Message] = front) -> Example | None:
                return self._example([*front, *(m for part in rounds[begin:end] for m in part)])

            ends = range(begin + 1, len(rounds) + 1)
            # Examples grow with each turn: search for the first that does not fit.
            fitting = bisect.bisect_left(ends, True, key=lambda end: not self._fits(upto(end)))
            end = begin + max(fitting, 1)
            example = upto(end)
            if not fitting and example is not None:
                turns = _ends(example)
                kept = [place for place in turns if place <= (self._limit or 0)]
                lost += len(turns) - len(kept)
                example = _first(example, kept[-1]) if kept else None
            made += [] if example is None else [example]
            begin, front = end, [replace(message, loss=False) for message in front]  # learned only once
        return made, True, lost

    def _alone(self, messages: list[Message], turn: int) -> tuple[Example | None, bool]:
        """The example of one turn, and whether it was cut; None if it does not fit."""
        example = self._example(messages)
        if self._fits(example):
            return example, False
        front, rounds = _rounds(messages)
        own, seen = 0, len(front)  # `own`: the round that holds the turn
        while seen + len(rounds[own]) <= turn:
            seen, own = seen + len(rounds[own]), own + 1

        def since(begin: int) -> Example | None:
            return self._example([*front, *(m for part in rounds[begin:] for m in part)])

        begin = bisect.bisect_left(range(own + 1), True, key=lambda begin: self._fits(since(begin)))
        return (since(begin) if begin <= own else None), True

    def _fits(self, example: Example | None) -> bool:
        return example is None or self._limit is None or len(example) <= self._limit

    def _example(self, messages: Sequence[Message]) -> Example | None:
        """One pass over messages, with the format's mask; None if nothing is learned."""
        if self._in_one_pass or self._form.extends:
            made = [self._form.example(messages, self._dialogue.tools)]
        else:
            made = self._form.examples(messages, self._dialogue.tools)
        if not made or True not in made[-1][1]:
            return None
        ids, mask = made[-1]
        length = len(mask) - 1 - mask[::-1].index(True)  # the last learned id is only a target
        targets = [ids[n + 1] if mask[n + 1] else IGNORE for n in range(length)]
        return Example(ids[:length], targets, self._positions(ids[:length]), self._dialogue.where)

    def _positions(self, ids: list[int]) -> tuple[Sequence[int], ...]:
        """One row of numbers from 0 on; for ChatGLM-6B the two rows of `models.positions.two_row_positions`."""
        if self._form.generation != Generation.CHATGLM:
            return (range(len(ids)),)
        command = self._form.tokenizer.get_command
        blank, sop = ids.index(command("[gMASK]")), ids.index(command("<sop>"))
        generated = len(ids) - sop
        return [*range(sop), *[blank] * generated], [*[0] * sop, *range(1, generated + 1)]


def _is_learned(message: Message) -> bool:
    return message.role == "assistant" if message.loss is None else message.loss


def _rounds(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """The system messages in front, and the rest in rounds. Each round begins with a user's (or system) message."""
    first = next((n for n, message in enumerate(messages) if message.role != "system"), len(messages))
    rounds: list[list[Message]] = []
    asks = False  # whether the message before was a question
    for message in messages[first:]:
        asked, asks = asks, message.role in ("user", "system")
        if not rounds or (asks and not asked):
            rounds.append([])
        rounds[-1].append(message)
    return list(messages[:first]), rounds


def _ends(example: Example) -> list[int]:
    """Lengths of the example up to the end of each learned turn."""
    learned = np.append(np.asarray(example.targets) != IGNORE, False)
    return [int(place) for place in np.flatnonzero(learned[:-1] & ~learned[1:]) + 1]


def _first(example: Example, length: int) -> Example:
    rows = tuple(row[:length] for row in example.positions)
    return Example(example.ids[:length], example.targets[:length], rows, example.where)


def pack(lengths: Sequence[int], limit: int, window: int = 4096) -> list[list[int]]:
    """Distribute examples over rows of at most `limit` positions; returns the indices in each row.

    The algorithm is best fit, longest first, within windows of the given order. So distant examples stay apart, and the
    cost is linear. The same lengths give the same rows.

    Args:
        lengths: lengths of the examples, in their order.
        window: number of examples that are sorted at a time. More fill the rows better.

    Raises:
        InputError: an example is longer than a row.
    """
    rows: list[list[int]] = []
    for start in range(0, len(lengths), window):
        sizes = [int(length) for length in lengths[start : start + window]]
        if sizes and max(sizes) > limit:
            at = start + sizes.index(max(sizes))
            raise InputError(
                f"example {at} has {max(sizes)} tokens and a row holds {limit}; encode with max_length={limit} or less"
            )
        room: list[tuple[int, int]] = []  # free positions of each open row, sorted, and the number of the row
        for index in sorted(range(len(sizes)), key=lambda n: (-sizes[n], n)):
            place = bisect.bisect_left(room, (sizes[index], -1))
            left, row = room.pop(place) if place < len(room) else (limit, len(rows))
            if row == len(rows):
                rows.append([])
            rows[row].append(start + index)
            bisect.insort(room, (left - sizes[index], row))
    return rows


class Collator:
    """Collects rows into a batch for training: `model(**batch)`.

    The examples of a row are concatenated. Where position numbers begin again at 0, the model begins a new example,
    which does not attend to others. Padding is on the right and continues the last example, whose tokens do not attend
    to it; so a causal model needs no mask for rows of one example.

    Args:
        pad_id: any id; nothing is learned from it.
        multiple: rows are padded to a multiple of this length, which is faster on some devices.
        length: rows are padded to exactly this length.
    """

    def __init__(self, pad_id: int, multiple: int = 8, length: int | None = None) -> None:
        if multiple < 1:
            raise InputError(f"multiple {multiple}: must be 1 or more")
        self._pad_id, self._multiple, self._length = int(pad_id), multiple, length

    def __call__(self, rows: Sequence[Example | Sequence[Example]]) -> dict[str, Tensor]:
        """`input_ids` (B, S), `position_ids` (B, S) or with two rows (B, 2, S), `shift_labels` (B, S), all int64.

        Raises:
            InputError: there are no rows, rows are of different kinds, or one is longer than `length`.
        """
        parts = [[row] if isinstance(row, Example) else list(row) for row in rows]
        kinds = {len(example.positions) for row in parts for example in row}
        if len(kinds) != 1:
            raise InputError(
                "no examples"
                if not kinds
                else "some examples have one row of positions and some have two; a batch needs the same for all"
            )
        longest = max(sum(map(len, row)) for row in parts)
        length = self._length or -(-longest // self._multiple) * self._multiple
        if longest > length:
            raise InputError(f"a row of {longest} positions in a batch of length {length}; pack or cut to that length")
        count = kinds.pop()
        ids = np.full((len(parts), length), self._pad_id, dtype=np.int64)
        targets = np.full((len(parts), length), IGNORE, dtype=np.int64)
        positions = np.zeros((len(parts), count, length), dtype=np.int64)
        for number, row in enumerate(parts):
            start = 0
            for example in row:
                place = slice(start, start := start + len(example))
                ids[number, place] = example.ids
                targets[number, place] = example.targets
                for line, values in enumerate(example.positions):
                    positions[number, line, place] = values
            # The last row of positions counts on. If there are two rows, this shows that padding is not a prompt.
            positions[number, :-1, start:] = positions[number, :-1, start - 1 : start]
            positions[number, -1, start:] = positions[number, -1, start - 1] + 1 + np.arange(length - start)
        return {
            "input_ids": torch.from_numpy(ids),
            "position_ids": torch.from_numpy(positions if count > 1 else positions[:, 0]),
            "shift_labels": torch.from_numpy(targets),
        }
