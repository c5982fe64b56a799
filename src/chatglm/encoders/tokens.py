"""Texts of an encoder as token ids, cut to what its folder says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chatglm.encoders.folder import EncoderFolder
from chatglm.errors import CheckpointError, InputError, TokenizerError

__all__ = ["MAX_TOKENS", "Row", "Tokens"]

MAX_TOKENS = 300_000
"""Of one request, as OpenAI has it."""
_CHARACTERS = 100
"""For each token that fits, the most characters of a text that are looked at."""
_AT_A_TIME = 1 << 18  # characters that are tokenised together
_LONGEST_TEXT = 1 << 20  # characters of a text whose ids are wanted whole

_CLASSES = {
    "bert": "BertTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}
_WHOLE = ("PreTrainedTokenizer", "TokenizersBackend")
"""Classes for which tokenizer.json describes the whole tokenizer."""


@dataclass(frozen=True)
class Row:
    """A text, or a pair of texts, for the model.

    Attributes:
        ids, kinds: of its tokens; a token's kind is 1 in the second text of a pair.
        prompt: how many of the tokens are those of the prompt.
        cut: whether it was longer.
    """

    ids: list[int]
    kinds: list[int]
    prompt: int = 0
    cut: bool = False


class Tokens:
    """
    Words that look like control tokens ("[SEP]", "</s>") are plain text here.

    Attributes:
        longest: the most tokens of a row, the control tokens among them.
    """

    def __init__(self, folder: EncoderFolder) -> None:
        shape = folder.shape
        try:
            tokenizer = _load(folder)
            self.longest: int = min(folder.max_tokens or int(tokenizer.model_max_length), shape.longest)
            self._tokenizer = tokenizer.backend_tokenizer
            self._tokenizer.no_padding()
            self._plain(folder.lower)
            self._tokenizer.enable_truncation(self.longest)
            self.size: int = self._tokenizer.get_vocab_size()
            self._unknown: int = tokenizer.unk_token_id
            self._control = frozenset(tokenizer.all_special_ids) - {self._unknown}
            self._begin, self._end = self.pair_of(self._tokenizer.encode("").ids)
        except (CheckpointError, KeyboardInterrupt):
            raise
        except BaseException as error:  # tokenizers panics in Rust, with a BaseException
            if isinstance(error, SystemExit | GeneratorExit):
                raise
            raise TokenizerError(
                f"{folder.path}: its tokenizer cannot be loaded ({type(error).__name__}: {str(error)[:200]}); download "
                "it again"
            ) from None
        if self.size > shape.vocab_size:
            raise TokenizerError(
                f"{folder.path}: its tokenizer has {self.size} tokens, its model {shape.vocab_size}; copy the "
                "tokenizer's files from the model's own download"
            )

    @staticmethod
    def pair_of(ids: Sequence[int]) -> tuple[int | None, int | None]:
        """The control tokens around a text, from those of an empty one."""
        return (ids[0], ids[-1]) if len(ids) == 2 else (None, None)

    def _plain(self, lower: bool) -> None:
        from tokenizers import normalizers

        self._tokenizer.encode_special_tokens = True  # those in the text are split as other text is
        if lower:
            own = self._tokenizer.normalizer
            small = normalizers.Lowercase()
            self._tokenizer.normalizer = small if own is None else normalizers.Sequence([small, own])

    def texts(self, texts: Sequence[str], prompt: str = "") -> list[Row]:
        """
        Args:
            prompt: is put in front of each text.
        """
        length = 0
        if prompt:
            ids = self._tokenizer.encode(prompt).ids
            length = len(ids) - (self._end is not None and ids[-1:] == [self._end])
        most = self.longest * _CHARACTERS
        return self._rows(
            [(prompt + text)[:most] for text in texts], [len(prompt + text) > most for text in texts], length
        )

    def pairs(self, first: str, others: Sequence[str]) -> list[Row]:
        """A row for each pair of `first` and another text. The longer of the two is cut first."""
        most = self.longest * _CHARACTERS
        pairs = [(first[:most], other[:most]) for other in others]
        return self._rows(pairs, [max(len(first), len(other)) > most for other in others])

    def _rows(self, given: Sequence[Any], cut: Sequence[bool], prompt: int = 0) -> list[Row]:
        """Works on a few at a time: the tokenizer's result, before it is cut, is many times larger than the text. Ends
        early when there are more tokens than a request may have.
        """
        rows: list[Row] = []
        total = start = 0
        while start < len(given) and total <= MAX_TOKENS:
            size, end = 0, start
            while end < len(given) and (end == start or size < _AT_A_TIME):
                size += sum(map(len, given[end])) if isinstance(given[end], tuple) else len(given[end])
                end += 1
            for one, shortened in zip(self._tokenizer.encode_batch_fast(given[start:end]), cut[start:end], strict=True):
                rows.append(Row(self._plain_ids(one), one.type_ids, prompt, bool(one.overflowing) or shortened))
                total += len(one.ids)
            start = end
        return rows

    def _plain_ids(self, encoding: Any) -> list[int]:
        """XLM-R's vocabulary has the names of control tokens among its pieces of text: in a text they are unknown."""
        ids: list[int] = encoding.ids
        if self._control.isdisjoint(ids):
            return ids
        own = encoding.special_tokens_mask
        return [
            self._unknown if token in self._control and not mask else token
            for token, mask in zip(ids, own, strict=True)
        ]

    def row(self, ids: Sequence[int], where: str) -> Row:
        """Token ids that the caller has.

        Raises:
            InputError: they are not of this vocabulary. Ids of another one would give a vector without meaning, so they
                must begin and end as this model's do.
        """
        whole = self._begin is None or (len(ids) >= 2 and (ids[0], ids[-1]) == (self._begin, self._end))
        if not ids or not whole or not all(0 <= token < self.size for token in ids):
            around = f", so they begin with {self._begin} and end with {self._end}" if self._begin is not None else ""
            raise InputError(
                f"{where}: these token ids are not this model's. Send texts, or the ids that POST /tokenize gives for "
                f"this model{around}. (LangChain's OpenAIEmbeddings sends ids of OpenAI's vocabulary unless it gets "
                "check_embedding_ctx_length=False.)"
            )
        kept = list(ids) if len(ids) <= self.longest else [*ids[: self.longest - 1], ids[-1]]
        return Row(kept, [0] * len(kept), cut=len(kept) < len(ids))

    def encode(self, text: str, special: bool = True) -> list[int]:
        """A text's ids, not cut; with or without the control tokens around it.

        Raises:
            InputError: the text is very long.
        """
        if len(text) > _LONGEST_TEXT:
            raise InputError(f"prompt: has {len(text):,} characters; at most {_LONGEST_TEXT:,} are supported")
        found = self._tokenizer.encode(text, add_special_tokens=False)
        ids = self._plain_ids(found)
        for more in found.overflowing:
            ids += self._plain_ids(more)
        around = special and self._begin is not None
        return [self._begin, *ids, self._end] if around else ids  # type: ignore[list-item]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def name(self, token: int) -> str:
        """A token as the vocabulary writes it."""
        return str(self._tokenizer.id_to_token(token) or "")


def _load(folder: EncoderFolder) -> Any:
    """By a class of `transformers` of a known name: a folder can name no other, and bring no code."""
    import transformers

    from chatglm.chat.files import read_json

    file = folder.path / "tokenizer_config.json"
    named = read_json(file).get("tokenizer_class") if file.exists() else None
    named = str(named or _CLASSES[folder.shape.model_type]).removesuffix("Fast")
    if named in _WHOLE:
        named = "PreTrainedTokenizerFast"
    elif named not in _CLASSES.values():
        raise TokenizerError(
            f"{file}: tokenizer_class {named!r:.60} is not supported; supported are {', '.join(_CLASSES.values())} and "
            "PreTrainedTokenizerFast"
        )
    return getattr(transformers, named).from_pretrained(folder.path, local_files_only=True)
