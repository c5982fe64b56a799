"""ChatGLM-6B's tokenizer: `ice_text.model`."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers.utils import PaddingStrategy

from chatglm.chat.generations import Generation, read_json
from chatglm.chat.tokenizers.pieces import PiecesTokenizer
from chatglm.errors import TokenizerError, UnsupportedError

__all__ = ["IceTextTokenizer"]


MOST_IMAGE_TOKENS = 20_000
"""Most image tokens: their number in the first release of ChatGLM-6B."""


class IceTextTokenizer(PiecesTokenizer, generations=(Generation.CHATGLM,)):
    """ChatGLM-6B: whitespace has pieces of its own, and prompts end in `[gMASK] <sop>`.

    Args:
        num_image_tokens: number of ids before those of the pieces; 20,000 in the first release (vocabulary 150528),
            later 0.
    """

    vocab_files_names = {"vocab_file": "ice_text.model"}  # noqa: RUF012

    def __init__(
        self,
        vocab_file: str,
        generation: str | Generation = Generation.CHATGLM,
        num_image_tokens: int = 0,
        bos_token: str = "<sop>",
        eos_token: str = "<eop>",
        end_token: str = "</s>",
        mask_token: str = "[MASK]",
        gmask_token: str = "[gMASK]",
        pad_token: str = "<pad>",
        unk_token: str = "<unk>",
        **kwargs: Any,
    ) -> None:
        if not isinstance(num_image_tokens, int) or not 0 <= num_image_tokens <= MOST_IMAGE_TOKENS:
            raise TokenizerError(
                f"tokenizer_config.json: num_image_tokens is {num_image_tokens!r:.80}; it must be a number from 0 to "
                f"{MOST_IMAGE_TOKENS}"
            )
        self.num_image_tokens = int(num_image_tokens)
        names = {
            "bos_token": bos_token,
            "eos_token": eos_token,
            "mask_token": mask_token,
            "pad_token": pad_token,
            "unk_token": unk_token,
        }
        self._names = {name: str(token) for name, token in names.items()}
        self.end_token, self.gmask_token = str(end_token), str(gmask_token)
        for name in ("do_lower_case", "remove_space"):
            kwargs.pop(name, None)
        super().__init__(
            vocab_file,
            offset=self.num_image_tokens,
            generation=generation,
            num_image_tokens=num_image_tokens,
            **names,
            **kwargs,
        )
        missing = [t for t in (*self._names.values(), self.end_token, self.gmask_token) if t not in self._commands()]
        if missing:
            raise TokenizerError(f"{vocab_file}: has no piece {missing[0]!r}; it is not ChatGLM-6B's ice_text.model")

    @classmethod
    def _defaults(cls, folder: Path, saved: Mapping[str, Any]) -> dict[str, Any]:
        if "num_image_tokens" in saved:
            return {}
        config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
        size = config.get("vocab_size")
        return {"num_image_tokens": 20_000 if isinstance(size, int) and size > 150_000 else 0}

    @property
    def sp_tokenizer(self) -> _InnerTokenizer:
        """The inner tokenizer of the official class: `encode`, `decode`, `tokenize`, `num_tokens`."""
        return _InnerTokenizer(self)

    @functools.cached_property
    def _control_pieces(self) -> dict[str, int]:
        processor = self._processor
        return {
            processor.id_to_piece(i): i + self._offset
            for i in range(processor.get_piece_size())
            if processor.is_control(i) or processor.is_unknown(i)
        }

    def _commands(self) -> dict[str, int]:
        return {**self._control_pieces, **self._added_special}

    def _special_names(self) -> dict[str, int]:
        return {**{name: self._control_pieces[name] for name in self._names.values()}, **self._added_special}

    def _literals(self) -> dict[int, str]:
        literals = {self._processor.piece_to_id("<n>"): "\n", self._processor.piece_to_id("<|tab|>"): "\t"}
        for count in range(2, 81):
            literals[self._processor.piece_to_id(f"<|blank_{count}|>")] = " " * count
        literals.pop(self._processor.unk_id(), None)
        literals[self._processor.unk_id()] = " \u2047 "  # SentencePiece's text for unknown characters
        return {token_id + self._offset: text for token_id, text in literals.items()}

    def _prepare(self, text: str) -> str:
        text = text.replace("\n", "<n>").replace("\t", "<|tab|>")
        # Longest runs first; a run of more than 80 spaces is split.
        return re.sub(
            " {2,}", lambda run: "".join(f"<|blank_{n}|>" if n > 1 else " " for n in _blank_runs(len(run[0]))), text
        )

    @property
    def vocab_size(self) -> int:
        return int(self._processor.get_piece_size()) + self.num_image_tokens

    @property
    def gmask_token_id(self) -> int:
        return self._control_pieces[self.gmask_token]

    @property
    def end_token_id(self) -> int:
        return self._control_pieces[self.end_token]

    def _convert_id_to_token(self, index: int) -> str:
        if index < self.num_image_tokens:
            return f"<image_{index}>"
        if self._known(index):
            return str(self._processor.id_to_piece(index - self._offset))
        return self._literal_texts.get(index, "")

    def _convert_token_to_id(self, token: str) -> int | None:
        image = re.fullmatch(r"<image_(\d+)>", token)
        if image and int(image[1]) < self.num_image_tokens:
            return int(image[1])
        return super()._convert_token_to_id(token)

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        suffix = [self.gmask_token_id, self.bos_token_id]
        return [*token_ids_0, *suffix, *([*token_ids_1, self.eos_token_id] if token_ids_1 is not None else [])]

    def _pad(
        self,
        encoded_inputs: Any,
        max_length: int | None = None,
        padding_strategy: PaddingStrategy = PaddingStrategy.DO_NOT_PAD,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
    ) -> dict[str, Any]:
        """Left padding with the official mask (1, s, s; True = masked) and positions (2, s); without padding, ids only.

        Raises:
            UnsupportedError: padding on the right.
        """
        if (padding_side or self.padding_side) != "left":
            raise UnsupportedError(
                "padding_side='right': ChatGLM-6B's positions are counted from the right; use 'left'"
            )
        ids = encoded_inputs["input_ids"]
        if padding_strategy == PaddingStrategy.DO_NOT_PAD:
            encoded_inputs.pop("attention_mask", None)
            return dict(encoded_inputs)
        length = len(ids) if padding_strategy == PaddingStrategy.LONGEST or max_length is None else max_length
        if pad_to_multiple_of:
            length = -(-length // pad_to_multiple_of) * pad_to_multiple_of
        extra = max(length - len(ids), 0)
        sop = ids.index(self.bos_token_id) if self.bos_token_id in ids else len(ids)
        blank = next((t for t in (self.gmask_token_id, self.mask_token_id) if t in ids), None)
        place = 0 if blank is None else ids.index(blank)
        if return_attention_mask is not False:
            masked = [
                [True] * extra + [key > query and key >= sop for key in range(len(ids))] for query in range(len(ids))
            ]
            encoded_inputs["attention_mask"] = [[[True] * (extra + len(ids))] * extra + masked]
            encoded_inputs["position_ids"] = [
                [0] * extra + [i if i < sop or blank is None else place for i in range(len(ids))],
                [0] * extra + [max(i - sop + 1, 0) for i in range(len(ids))],
            ]
        encoded_inputs["input_ids"] = [self.pad_token_id] * extra + list(ids)
        return dict(encoded_inputs)


def _blank_runs(count: int) -> list[int]:
    """The numbers of spaces of the pieces for a run of spaces: 80 for each piece, then the rest."""
    whole, rest = divmod(count, 80)
    return [80] * whole + ([rest] if rest else [])


class _InnerTokenizer:
    """The parts of the official `tokenizer.sp_tokenizer` that scripts use. It adds no `[gMASK] <sop>`."""

    def __init__(self, outer: IceTextTokenizer) -> None:
        self._outer = outer
        self.num_image_tokens = outer.num_image_tokens
        self.num_text_tokens = int(outer._processor.get_piece_size())
        self.num_tokens = self.num_image_tokens + self.num_text_tokens
        self.text_tokenizer = outer._processor

    def encode(self, text: str) -> list[int]:
        return self._outer.encode_text(text)

    def decode(self, text_ids: Sequence[int]) -> str:
        return self._outer.to_text(text_ids)

    def tokenize(self, text: str) -> list[str]:
        return list(self._outer.tokenize(text))

    def __getitem__(self, x: int | str) -> int | str:
        """The id of a token, or the token of an id."""
        outer = self._outer
        return outer.convert_ids_to_tokens(x) if isinstance(x, int) else outer.convert_tokens_to_ids(x)  # type: ignore[no-any-return]
