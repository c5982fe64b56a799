"""The tokenizer of ChatGLM2, ChatGLM3, CharacterGLM and CodeGeeX2: SentencePiece's `tokenizer.model`."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import BatchEncoding

from chatglm.chat.generations import Generation
from chatglm.chat.tokenizers.base import ROLES, official_turns
from chatglm.chat.tokenizers.pieces import PiecesTokenizer

__all__ = ["SentencePieceTokenizer"]


class SentencePieceTokenizer(
    PiecesTokenizer, generations=(Generation.CHATGLM2, Generation.CHATGLM3, Generation.CHARACTERGLM)
):
    """ChatGLM2, ChatGLM3, CharacterGLM and CodeGeeX2: control tokens have the ids after the pieces, and prompts begin
    with `[gMASK] sop`. ChatGLM3 also has role tokens.

    Args:
        encode_special_tokens: ChatGLM3's official option: role tokens in text become their ids.
    """

    vocab_files_names = {"vocab_file": "tokenizer.model"}  # noqa: RUF012
    BEHIND = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")

    def __init__(
        self,
        vocab_file: str,
        generation: str | Generation = Generation.CHATGLM3,
        encode_special_tokens: bool = False,
        **kwargs: Any,
    ) -> None:
        self._has_roles = Generation(generation) == Generation.CHATGLM3
        self.encode_special_tokens = bool(encode_special_tokens)
        padding = kwargs.pop("pad_token", None)
        for name in ("do_lower_case", "remove_space", "eos_token", "unk_token", "bos_token"):
            kwargs.pop(name, None)
        super().__init__(
            vocab_file,
            offset=0,
            generation=generation,
            encode_special_tokens=encode_special_tokens,
            eos_token="</s>",
            pad_token="<unk>",
            unk_token="<unk>",
            **kwargs,
        )
        if padding is not None and self._is_known(str(padding)):  # the official code ignores the folder's pad_token
            self.pad_token = str(padding)

    @functools.cached_property
    def _behind(self) -> dict[str, int]:
        size = self._processor.get_piece_size()
        return {name: size + n for n, name in enumerate([*self.BEHIND, *(ROLES if self._has_roles else ())])}

    @property
    def tokenizer(self) -> _InnerTokenizer:
        """The inner tokenizer of the official class: `n_words`, `special_tokens`, `eos_id`, `encode`, `decode` …"""
        return _InnerTokenizer(self)

    def _commands(self) -> dict[str, int]:
        # In the model file, id 0 is <unk>. The checkpoints use it for padding.
        processor = self._processor
        pad = processor.pad_id() if processor.pad_id() >= 0 else processor.unk_id()
        return {
            "<bos>": processor.bos_id(),
            "<eos>": processor.eos_id(),
            "<pad>": pad,
            **self._behind,
            **self._added_special,
        }

    def _special_names(self) -> Mapping[str, int]:
        if self.encode_special_tokens:
            return {**{name: self._behind[name] for name in ROLES if name in self._behind}, **self._added_special}
        return self._added_special

    def tokenize(
        self, text: str, pair: str | None = None, add_special_tokens: bool = False, **kwargs: Any
    ) -> list[Any]:
        kwargs.setdefault("allow_special_tokens", self.allow_special_tokens or self.encode_special_tokens)
        return super().tokenize(text, pair, add_special_tokens, **kwargs)

    def _encode_plus(self, text: Any, *args: Any, **kwargs: Any) -> BatchEncoding:
        kwargs.setdefault("allow_special_tokens", self.allow_special_tokens or self.encode_special_tokens)
        return super()._encode_plus(text, *args, **kwargs)

    def _literals(self) -> dict[int, str]:
        # ChatGLM3's `decode` writes the names of control tokens, ChatGLM2's writes nothing for them.
        return {token_id: name for name, token_id in self._behind.items()} if self._has_roles else {}

    @property
    def vocab_size(self) -> int:
        return int(self._processor.get_piece_size()) + len(self._behind)

    def _convert_id_to_token(self, index: int) -> str:
        if index in self.control_ids:
            return self._literal_texts.get(index, "")
        return str(self._processor.id_to_piece(index)) if self._known(index) else self._literal_texts.get(index, "")

    def _convert_token_to_id(self, token: str) -> int | None:
        if token in ("</s>", "<s>", "<unk>"):
            return int(self._processor.piece_to_id(token))
        return super()._convert_token_to_id(token)

    def _token_of(self, token_id: int) -> Any:
        # If a control token is a piece, transformers uses the piece's name: `</s>`, not `<eos>`.
        return self._processor.id_to_piece(token_id) if self._known(token_id) else super()._token_of(token_id)

    def get_prefix_tokens(self) -> list[int]:
        return [self.get_command("[gMASK]"), self.get_command("sop")]

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        ids = [*self.get_prefix_tokens(), *token_ids_0]
        return ids if token_ids_1 is None else [*ids, *token_ids_1, self.get_command("<eos>")]

    def build_chat_input(
        self, query: str, history: Sequence[Mapping[str, Any]] | None = None, role: str = "user"
    ) -> BatchEncoding:
        if not self._has_roles:
            return super().build_chat_input(query, history, role)
        turns = official_turns(history, query, role)
        ids = [i for message in turns for i in self.build_single_message(*_parts(message))]
        return self._tensors([*self.get_prefix_tokens(), *ids, self.get_command("<|assistant|>")])


class _InnerTokenizer:
    """The parts of the official `tokenizer.tokenizer` (`SPTokenizer`) that scripts use. It adds no `[gMASK] sop`."""

    def __init__(self, outer: SentencePieceTokenizer) -> None:
        self._outer = outer
        self.sp_model = outer._processor
        self.bos_id = int(self.sp_model.bos_id())
        self.eos_id = int(self.sp_model.eos_id())
        self.pad_id = int(self.sp_model.unk_id())
        self.special_tokens = {**outer._behind, **outer._added_special}
        self.index_special_tokens = {token_id: name for name, token_id in self.special_tokens.items()}
        self.n_words = len(outer)

    def tokenize(self, s: str, encode_special_tokens: bool = False) -> list[str]:
        return list(self._outer.tokenize(s, allow_special_tokens=encode_special_tokens))

    def encode(self, s: str, bos: bool = False, eos: bool = False) -> list[int]:
        return [self.bos_id] * bos + self._outer.encode_text(s) + [self.eos_id] * eos

    def decode(self, t: int | Sequence[int]) -> str:
        return self._outer.to_text([t] if isinstance(t, int) else t)

    def decode_tokens(self, tokens: Sequence[str]) -> str:
        return self._outer.convert_tokens_to_string(list(tokens))

    def convert_token_to_id(self, token: str) -> int:
        return int(self._outer.convert_tokens_to_ids(token))

    def convert_id_to_token(self, index: int) -> str:
        return str(self._outer.convert_ids_to_tokens(index))


def _parts(message: Mapping[str, Any]) -> tuple[str, str, str]:
    """Role, metadata and content of an entry of an official history; tools are written as in the official code."""
    content = message["content"]
    if message["role"] == "system" and "tools" in message:
        content += "\n" + json.dumps(message["tools"], indent=4, ensure_ascii=False)
    return message["role"], message.get("metadata") or "", content
