"""Trains a SentencePiece model in the official layout of ChatGLM2 and ChatGLM3.

Like those, it is byte-pair encoding with byte fallback, so ids can always be decoded to the exact text. Each digit is a
piece of its own. `<unk>`, `<s>` and `</s>` have the ids 0, 1 and 2. Control tokens ([gMASK], sop, roles) are not
pieces; their ids follow those of the pieces.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import sentencepiece

from chatglm.chat.generations import Generation
from chatglm.chat.tokenizers import SentencePieceTokenizer
from chatglm.errors import InputError
from chatglm.output import working_in

__all__ = ["train_tokenizer"]

_LONGEST = 4096
"""Most characters of a line. Longer lines are cut here, because SentencePiece would drop them."""


def train_tokenizer(
    texts: Iterable[str],
    folder: str | os.PathLike[str],
    *,
    size: int,
    generation: str | Generation = Generation.CHATGLM3,
    longest_piece: int = 16,
    characters: str = "",
    symbols: Sequence[str] = (),
    coverage: float = 0.9995,
    threads: int = 1,
    overwrite: bool = False,
) -> SentencePieceTokenizer:
    """Learn a vocabulary and write `tokenizer.model` and `tokenizer_config.json`.

    Args:
        texts: texts to learn from, one string for each document or line.
        folder: output folder; made if it does not exist.
        size: number of pieces, including the 256 bytes and the three control pieces, without the control tokens after
            them.
        generation: `chatglm2` or `chatglm3` (which has role tokens).
        longest_piece: characters of the longest piece.
        characters: each of these gets its own piece, even if it is rare.
        symbols: strings that always become one piece.
        coverage: share of the text's characters that get pieces; the others are spelled in bytes.
        threads: more threads are faster, but may change the order of pieces of the same frequency.
        overwrite: replace an existing tokenizer.

    Returns:
        The tokenizer, loaded from `folder`.

    Raises:
        OutputError: the disk is full. A tokenizer that was there stays.
        InputError: there is no text, the size cannot be reached, the folder holds a tokenizer already, or it is another
            generation.
    """
    generation = Generation(generation)
    if generation not in (Generation.CHATGLM2, Generation.CHATGLM3):
        raise InputError(f"generation {generation}: a tokenizer can be trained in the layout of chatglm2 or chatglm3")
    if size < 300:
        raise InputError(f"size={size}: the bytes alone take 259 pieces; give at least 300")
    if not 0.98 <= coverage <= 1:
        raise InputError(f"coverage={coverage}: SentencePiece takes shares from 0.98 to 1")
    if not 1 <= longest_piece <= 512:
        raise InputError(f"longest_piece={longest_piece}: SentencePiece takes 1 to 512 characters")
    if wrong := [text for text in symbols if text in ("", "<unk>", "<s>", "</s>")]:
        raise InputError(
            f"symbols: {wrong[0]!r} cannot be a symbol; it is {'empty' if not wrong[0] else 'a control piece'}"
        )
    folder = Path(os.path.expanduser(folder))
    if (folder / "tokenizer.model").exists() and not overwrite:
        raise InputError(f"{folder / 'tokenizer.model'} exists already; choose another folder, or overwrite it")
    with working_in(folder):
        written = io.BytesIO()
        counted = _Counted(texts)
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(counted),
                model_writer=written,
                model_type="bpe",
                vocab_size=size,
                byte_fallback=True,
                split_digits=True,
                normalization_rule_name="identity",
                add_dummy_prefix=True,
                remove_extra_whitespaces=False,
                allow_whitespace_only_pieces=True,
                max_sentencepiece_length=longest_piece,
                max_sentence_length=4 * _LONGEST,
                character_coverage=coverage,
                required_chars=characters,
                user_defined_symbols=list(symbols),
                num_threads=threads,
                shuffle_input_sentence=False,
                minloglevel=2,
            )
        except (RuntimeError, OSError) as error:
            if not counted.seen:
                raise InputError("no text to learn a vocabulary from") from None
            raise InputError(
                f"size={size}: SentencePiece cannot make so many pieces of this text (lines: {counted.seen}; {error}); "
                "give more text, or another size (each character needs a piece)"
            ) from None
        with tempfile.TemporaryDirectory(prefix=".", dir=folder) as made:
            file = Path(made) / "learned.model"
            file.write_bytes(written.getvalue())
            whole = Path(made) / "whole"
            SentencePieceTokenizer(str(file), generation=generation).save_pretrained(str(whole))
            for entry in sorted(whole.iterdir(), key=lambda entry: entry.name == "tokenizer.model"):
                entry.replace(folder / entry.name)
        return SentencePieceTokenizer.from_pretrained(folder)


class _Counted:
    """Iterates over the lines of texts, for SentencePiece, and counts them."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self.seen = 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            for line in text.splitlines():
                for start in range(0, len(line), _LONGEST):
                    if part := line[start : start + _LONGEST].replace("\0", ""):
                        self.seen += 1
                        yield part
