"""The common base of the two SentencePiece tokenizers."""

from __future__ import annotations

import codecs
import functools
from typing import Any

import sentencepiece

from chatglm.chat.messages import whole_text
from chatglm.chat.tokenizers.base import ChatGLMTokenizer
from chatglm.chat.vocabulary import Detokenizer
from chatglm.errors import TokenizerError

__all__ = ["PiecesTokenizer"]

SPACE = "▁"  # stands for a space in SentencePiece's pieces
REPLACEMENT = "\ufffd"


class _PiecesDetokenizer(Detokenizer):
    """Does the same as SentencePiece's `Decode`, one id at a time: spaces at the start of the text are dropped, runs of
    byte pieces are decoded as UTF-8, and each invalid byte becomes U+FFFD.
    """

    def __init__(self, tokenizer: PiecesTokenizer) -> None:
        self._of = tokenizer
        self._bytes = bytearray()
        self._at_start, self._dropped_blank = True, False
        self._any_text = False

    def go_on(self) -> None:
        self._at_start = False

    def feed(self, token_id: int) -> str:
        piece = self._of.piece_bytes(token_id)
        if isinstance(piece, int):  # one byte of a character
            self._bytes.append(piece)
            return self._take(final=False)
        text = self._take(final=True)
        if self._dropped_blank or self._any_text:
            self._at_start = False
        word = piece
        self._dropped_blank = False
        if self._at_start and token_id not in self._of.literal_ids and word.startswith(SPACE):
            word = word[len(SPACE) :]
            self._dropped_blank = not self._of.drops_all_leading_blanks
        word = word if token_id in self._of.literal_ids else word.replace(SPACE, " ")
        self._any_text = self._any_text or bool(word)
        return text + word

    def flush(self) -> str:
        return self._take(final=True)

    def _take(self, final: bool) -> str:
        out: list[str] = []
        while self._bytes:
            length = _character_length(self._bytes)
            if length == 0 and not final:
                break
            if length > 0:
                out.append(self._bytes[:length].decode("utf-8"))
            else:
                out.append(REPLACEMENT)
            del self._bytes[: max(length, 1)]
        text = "".join(out)
        self._any_text = self._any_text or bool(text)
        return text


def _character_length(data: bytearray) -> int:
    """Number of bytes of the UTF-8 character at the beginning of `data`; 0 if it is incomplete, −1 if it is invalid."""
    try:
        codecs.utf_8_decode(bytes(data[:4]), "strict", False)
    except UnicodeDecodeError as error:
        if error.start == 0:
            return -1
    text, used = codecs.utf_8_decode(bytes(data[:4]), "ignore", False)
    if used == 0 or not text:
        return 0
    return len(text[0].encode("utf-8"))


class PiecesTokenizer(ChatGLMTokenizer):
    """The two SentencePiece tokenizers. Control tokens are pieces, or have the ids after the pieces."""

    def __init__(self, vocab_file: str, *, offset: int, **kwargs: Any) -> None:
        self.vocab_file = str(vocab_file)
        self._processor = _read_sentencepiece(self.vocab_file)
        self._offset = offset
        blank = self._processor.decode([SPACE, SPACE, "a"])
        self.drops_all_leading_blanks = blank == "a"
        self.literal_ids = frozenset(self._literals())
        self.control_ids = frozenset(self._commands().values())
        super().__init__(**kwargs)

    def _literals(self) -> dict[int, str]:
        """Ids whose text differs from their piece, with this text: whitespace, and control tokens that the official
        `decode` writes as names.
        """
        return {}

    def _encode_part(self, text: str, is_first: bool, is_last: bool) -> list[int]:
        if not (is_first and is_last):
            return self._encode_inner(text, is_first, is_last)
        ids = self._processor.encode(self._prepare(whole_text(text)))
        return [i + self._offset for i in ids] if self._offset else list(ids)

    def _encode_inner(self, text: str, is_first: bool, is_last: bool) -> list[int]:
        """Encode text next to an added token. SentencePiece puts a space in front of a text, and may drop spaces at its
        ends. At an end where the text goes on, a line break prevents this. It is always a separate piece, so its id is
        removed again.
        """
        *start, line_break = self._encode_part("\n", True, True)
        ids = self._encode_part(("" if is_first else "\n") + text + ("" if is_last else "\n"), True, True)
        ids = ids if is_first else ids[len(start) + 1 :]
        return ids[:-1] if not is_last and ids[-1:] == [line_break] else ids

    def _put(self, name: str, token_id: int, special: bool) -> None:
        super()._put(name, token_id, special)
        self._literal_texts[token_id] = name
        self.literal_ids |= {token_id}

    def _pieces(self, text: str) -> list[Any]:
        return list(self._processor.encode(self._prepare(whole_text(text)), out_type=str))

    def _prepare(self, text: str) -> str:
        return text

    def _known(self, token_id: int) -> bool:
        return self._offset <= token_id < self._offset + self._processor.get_piece_size()

    @functools.cached_property
    def _literal_texts(self) -> dict[int, str]:
        return self._literals()

    def piece_bytes(self, token_id: int) -> int | str:
        """The byte of a byte piece, as a number; for any other id its text, with "▁" for spaces."""
        if (literal := self._literal_texts.get(token_id)) is not None:
            return literal
        if token_id in self.control_ids or not self._known(token_id):
            return ""
        piece_id = token_id - self._offset
        if self._processor.is_byte(piece_id):
            return int(self._processor.id_to_piece(piece_id)[3:5], 16)
        return str(self._processor.id_to_piece(piece_id))

    def token_bytes(self, token_id: int) -> bytes:
        if token_id in self.control_ids:
            return b""
        piece = self.piece_bytes(token_id)
        if isinstance(piece, int):
            return bytes([piece])
        return (piece if token_id in self.literal_ids else piece.replace(SPACE, " ")).encode("utf-8")

    def detokenizer(self, *, spaces_between_special_tokens: bool = True) -> Detokenizer:
        return _PiecesDetokenizer(self)

    def _convert_token_to_id(self, token: str) -> int | None:
        token_id = self._processor.piece_to_id(token)
        known = token_id != self._processor.unk_id() or token == self._processor.id_to_piece(token_id)
        return token_id + self._offset if known else None


def _read_sentencepiece(file: str) -> Any:
    processor = sentencepiece.SentencePieceProcessor()
    try:
        loaded = processor.Load(file)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise TokenizerError(f"{file}: not a complete SentencePiece model ({error}); download it again") from None
    if not loaded or processor.get_piece_size() == 0:
        raise TokenizerError(f"{file}: not a complete SentencePiece model; download it again")
    return processor
