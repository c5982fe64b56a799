"""GLM-4's tokenizer: `tokenizer.model`, lines of a base64 token and its rank."""

from __future__ import annotations

import base64
import codecs
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tiktoken
from transformers import AddedToken, BatchEncoding

from chatglm.chat.formats import chat_format
from chatglm.chat.generations import Generation
from chatglm.chat.messages import Message
from chatglm.chat.tokenizers.base import ROLES, ChatGLMTokenizer, official_turns
from chatglm.chat.vocabulary import Detokenizer
from chatglm.errors import InputError, TokenizerError, UnsupportedError

__all__ = ["ChatGLM4Tokenizer"]


class _ByteDetokenizer(Detokenizer):
    """Decodes bytes as UTF-8 with errors="replace". Control tokens become words between spaces."""

    def __init__(self, tokenizer: ChatGLM4Tokenizer, spaces: bool) -> None:
        self._of, self._blank = tokenizer, " " if spaces else ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._any_text = self._after_special = False

    def feed(self, token_id: int) -> str:
        name = self._of.special_text(token_id)
        if name is None:
            text = self._decoder.decode(self._of.token_bytes(token_id))
            return self._with_blank(text)
        text = self.flush()
        blank = self._blank if self._any_text else ""
        self._any_text = self._after_special = True
        return text + blank + name

    def flush(self) -> str:
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return self._with_blank(text)

    def _with_blank(self, text: str) -> str:
        if not text:
            return ""
        blank = self._blank if self._after_special else ""
        self._any_text, self._after_special = True, False
        return blank + text


class ChatGLM4Tokenizer(ChatGLMTokenizer, generations=(Generation.GLM4,)):
    """GLM-4: byte-pair encoding over bytes, lossless; prompts begin with `[gMASK]<sop>`."""

    vocab_files_names = {"vocab_file": "tokenizer.model"}  # noqa: RUF012
    saved_class = "ChatGLM4Tokenizer"
    # How text is cut before merging; \p{N}{1,3} groups digits by three (official tokenization_chatglm.py).
    PATTERN = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
        r"\s+(?!\S)|\s+"
    )
    SPECIAL = (
        "<|endoftext|>",
        "[MASK]",
        "[gMASK]",
        "[sMASK]",
        "<sop>",
        "<eop>",
        *ROLES,
        "<|begin_of_image|>",
        "<|end_of_image|>",
        "<|begin_of_video|>",
        "<|end_of_video|>",
    )
    _has_roles = _renders_template = True

    def __init__(
        self,
        vocab_file: str,
        generation: str | Generation = Generation.GLM4,
        added_tokens_decoder: Mapping[int, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.vocab_file = str(vocab_file)
        ranks = _read_ranks(self.vocab_file)
        self._encoding = _encoding(self.PATTERN, ranks)
        self._ranks = len(ranks)
        self._bytes = {rank: token for token, rank in ranks.items()}
        listed = dict(added_tokens_decoder or {})
        self._check_ids(listed)
        named = {
            str(token): token_id
            for token_id, token in listed.items()
            if not isinstance(token, AddedToken) or token.special or str(token) in self.SPECIAL
        }
        self._by_name = named or {name: self._ranks + n for n, name in enumerate(self.SPECIAL)}
        self._by_id = {token_id: name for name, token_id in self._by_name.items()}
        self.control_ids = frozenset(self._by_id)
        for name in ("do_lower_case", "remove_space"):
            kwargs.pop(name, None)
        kwargs = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", **kwargs}
        super().__init__(generation=generation, added_tokens_decoder=listed, **kwargs)
        for name in ("eos_token", "pad_token"):
            if not self._is_known(token := str(getattr(self, name))):
                raise TokenizerError(
                    f"tokenizer_config.json: {name} is {token!r:.80}, which the vocabulary does not have"
                )

    def _check_ids(self, listed: Mapping[int, Any]) -> None:
        """Raise `TokenizerError` if a folder's added tokens cannot be those of GLM-4."""
        where = "tokenizer_config.json: added_tokens_decoder"
        for token_id, token in listed.items():
            if token_id < self._ranks:  # the token would have the id of ordinary text
                raise TokenizerError(
                    f"{where} gives {str(token)!r:.60} the id {token_id}, which belongs to ordinary text"
                )
        names = {str(token) for token in listed.values()}
        needed = ("<|endoftext|>", "[gMASK]", "<sop>", *ROLES)
        if (lost := [name for name in needed if name not in names]) and not names.isdisjoint(self.SPECIAL):
            raise TokenizerError(f"{where} has no {lost[0]}, which prompts need")

    @property
    def added_tokens_decoder(self) -> dict[int, Any]:
        """The control tokens and the added ones, as tokenizer_config.json lists them."""
        control = {i: AddedToken(name, normalized=False, special=True) for i, name in self._by_id.items()}
        return dict(sorted({**self._added_tokens_decoder, **control}.items()))

    @property
    def vocab_size(self) -> int:
        return self._ranks

    def _own_size(self) -> int:
        return max(self._ranks, *(token_id + 1 for token_id in self._by_id))

    def _put(self, name: str, token_id: int, special: bool) -> None:
        super()._put(name, token_id, special)
        if special:
            self._by_name, self._by_id = {**self._by_name, name: token_id}, {**self._by_id, token_id: name}
        else:
            self._bytes[token_id] = name.encode()

    def _commands(self) -> dict[str, int]:
        return self._by_name

    def _special_names(self) -> dict[str, int]:
        return self._by_name

    # The official tokenizer's attributes

    @property
    def tokenizer(self) -> tiktoken.Encoding:
        """tiktoken's encoding, without control tokens."""
        return self._encoding

    @property
    def mergeable_ranks(self) -> dict[bytes, int]:
        """The vocabulary file: bytes and their rank, which is the id."""
        return {token: rank for rank, token in self._bytes.items() if rank < self._ranks}

    @property
    def special_tokens(self) -> dict[str, int]:
        """Control tokens and their ids."""
        return dict(self._by_name)

    @property
    def decoder(self) -> dict[int, bytes]:
        """Rank to bytes."""
        return {rank: token for rank, token in self._bytes.items() if rank < self._ranks}

    @property
    def pat_str(self) -> str:
        """The pattern that cuts a text before merging."""
        return self.PATTERN

    @property
    def n_words(self) -> int:
        """Number of tokens, including control tokens: the official name of `len(tokenizer)`."""
        return len(self)

    def special_text(self, token_id: int) -> str | None:
        """The name of a control id; None for text."""
        return self._by_id.get(token_id)

    LONG_RUN = 100_000
    """Whitespace of this length or more is encoded separately, because tiktoken's pattern panics at a length of
    1,000,000.
    """

    def _encode_part(self, text: str, is_first: bool, is_last: bool) -> list[int]:
        if len(text) < self.LONG_RUN:
            return list(self._encoding.encode_ordinary(text))
        ids: list[int] = []
        start = 0
        for run in self._long_run.finditer(text):
            begin, end = run.span()
            if text[end : end + 1] in ("\r", "\n"):
                continue  # the pattern makes one piece of this and the line breaks, without backtracking
            # `\s+(?!\S)` makes one piece of the whitespace, without its last character if text follows.
            end -= end < len(text)
            ids += self._encoding.encode_ordinary(text[start:begin])
            ids += self._one_piece.encode_ordinary(text[begin:end])
            start = end
        return [*ids, *self._encoding.encode_ordinary(text[start:])]

    @functools.cached_property
    def _long_run(self) -> re.Pattern[str]:
        return re.compile(f"[{_BLANKS}]{{{self.LONG_RUN},}}")

    @functools.cached_property
    def _one_piece(self) -> tiktoken.Encoding:
        """An encoding with the same merges, but without cutting the text into pieces first."""
        return _encoding(r"[\s\S]+", self.mergeable_ranks)

    def _pieces(self, text: str) -> list[Any]:
        return [self._bytes[i] for i in self.encode_text(text)]

    def token_bytes(self, token_id: int) -> bytes:
        return self._bytes.get(token_id, b"")

    def detokenizer(self, *, spaces_between_special_tokens: bool = True) -> Detokenizer:
        return _ByteDetokenizer(self, spaces_between_special_tokens)

    def _convert_id_to_token(self, index: int) -> Any:
        if index >= self._ranks:
            token = self._added_tokens_decoder.get(index)
            return self._by_id.get(index) or ("" if token is None else token.content)
        return self._bytes.get(index, "")

    def _convert_token_to_id(self, token: Any) -> int | None:
        data = token.encode("utf-8") if isinstance(token, str) else token
        try:
            return int(self._encoding.encode_single_token(data))
        except KeyError:
            return None

    def _convert_token_to_id_with_added_voc(self, token: Any) -> int:
        token_id = self._by_name.get(token, self._added_text.get(token)) if isinstance(token, str) else None
        token_id = self._convert_token_to_id(token) if token_id is None else token_id
        if token_id is None:
            raise InputError(f"{token!r} is not a token of this vocabulary")
        return token_id

    def get_prefix_tokens(self) -> list[int]:
        return [self._by_name["[gMASK]"], self._by_name["<sop>"]]

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        if token_ids_1 is not None:
            raise UnsupportedError("text_pair: GLM-4 has no form for a pair of texts; join them yourself")
        return [*self.get_prefix_tokens(), *token_ids_0]

    def build_chat_input(
        self, query: str, history: Sequence[Mapping[str, Any]] | None = None, role: str = "user"
    ) -> BatchEncoding:
        turns = official_turns(history, query, role)
        return self._tensors(
            chat_format(self).prompt([Message.from_dict(turn, index) for index, turn in enumerate(turns)])
        )


_BLANKS = "\t\v\f \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""The characters that `\\s` matches in tiktoken (Unicode's White_Space), without line breaks."""


def _encoding(pattern: str, ranks: dict[bytes, int]) -> tiktoken.Encoding:
    return tiktoken.Encoding(name="glm4", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


def _read_ranks(file: str) -> dict[bytes, int]:
    """Read lines of a base64 token and its rank (the format of tiktoken's .tiktoken files).

    Raises:
        TokenizerError: the file cannot be read, or does not have this format; the message names the file.
    """
    ranks: dict[bytes, int] = {}
    try:
        lines = Path(file).read_bytes().splitlines()
    except OSError as error:
        raise TokenizerError(f"{file}: cannot be read ({error})") from None
    for number, line in enumerate(lines, 1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError:
            raise TokenizerError(
                f"{file}, line {number}: expected a base64 token and its rank, found {line[:40]!r}; download it again"
            ) from None
    if not ranks or set(ranks.values()) != set(range(len(lines))) or len(ranks) != len(lines):
        raise TokenizerError(f"{file}: ranks are missing or given twice; download it again")
    if missing := [byte for byte in range(256) if bytes([byte]) not in ranks]:
        raise TokenizerError(f"{file}: has no token for byte {missing[0]}; download it again")
    return ranks
