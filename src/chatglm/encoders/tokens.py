"""Converts the texts for an encoder to token ids, and cuts them to the length that its folder allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chatglm.encoders.folder import EncoderFolder
from chatglm.errors import CheckpointError, InputError, TokenizerError

__all__ = ["MAX_TOKENS", "Row", "Tokens"]

MAX_TOKENS = 300_000
"""Most tokens of one request. OpenAI's API has the same limit."""
_CHARACTERS = 100
"""Characters of a text that are read for each token that fits. The rest is cut off before the text is tokenised."""
_AT_A_TIME = 1 << 18  # characters that are tokenised together
_LONGEST_TEXT = 1 << 20  # most characters of a text for `encode`, which does not cut

_CLASSES = {
    "bert": "BertTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}
_WHOLE = ("PreTrainedTokenizer", "TokenizersBackend")
"""Classes for which tokenizer.json describes the whole tokenizer."""


@dataclass(frozen=True)
class Row:
    """A text, or a pair of texts, as input of the model.

    Attributes:
        ids, kinds: ids and types of the tokens; the type is 1 in the second text of a pair, else 0.
        prompt: number of tokens at the beginning that belong to the prompt, including a control token before it.
        cut: whether the text was longer than the limit.
    """

    ids: list[int]
    kinds: list[int]
    prompt: int = 0
    cut: bool = False


class Tokens:
    """The tokenizer of an encoder. Words that look like control tokens ("[SEP]", "</s>") are plain text.

    Attributes:
        longest: most tokens of a row, including control tokens.
        size: number of tokens of the vocabulary.

    Raises:
        CheckpointError, TokenizerError: the tokenizer's files are missing or damaged, or do not fit the model.
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
        except BaseException as error:  # a panic of the Rust code in `tokenizers` is a BaseException
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
        """The control tokens before and after each text, which are the two ids of an empty text; else (None, None)."""
        return (ids[0], ids[-1]) if len(ids) == 2 else (None, None)

    def _plain(self, lower: bool) -> None:
        from tokenizers import normalizers

        self._tokenizer.encode_special_tokens = True  # their names in a text are split like other text
        if lower:
            own = self._tokenizer.normalizer
            small = normalizers.Lowercase()
            self._tokenizer.normalizer = small if own is None else normalizers.Sequence([small, own])

    def texts(self, texts: Sequence[str], prompt: str = "") -> list[Row]:
        """Make a row for each text.

        Args:
            prompt: text that is put in front of each text.
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
        """Make a row for each pair of `first` and another text. If a pair is too long, its longer text is cut first."""
        most = self.longest * _CHARACTERS
        pairs = [(first[:most], other[:most]) for other in others]
        return self._rows(pairs, [max(len(first), len(other)) > most for other in others])

    def _rows(self, given: Sequence[Any], cut: Sequence[bool], prompt: int = 0) -> list[Row]:
        """Make rows of a few texts at a time, because the tokenizer's uncut result is many times larger than the text.
        Stop early if there are more tokens than a request may have.
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
        """The ids of a text, in which names of control tokens become the unknown token: XLM-R's vocabulary has these
        names among the pieces for text.
        """
        ids: list[int] = encoding.ids
        if self._control.isdisjoint(ids):
            return ids
        own = encoding.special_tokens_mask
        return [
            self._unknown if token in self._control and not mask else token
            for token, mask in zip(ids, own, strict=True)
        ]

    def row(self, ids: Sequence[int], where: str) -> Row:
        """Make a row from token ids that a caller sent.

        Args:
            where: name of the ids in error messages.

        Raises:
            InputError: the ids are not of this vocabulary, or do not begin and end with its control tokens. Ids of
                another vocabulary would give a meaningless vector.
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
        """All ids of a text; it is not cut.

        Args:
            special: add the control tokens before and after it.

        Raises:
            InputError: the text has more than 1,048,576 characters.
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
        """The string of a token in the vocabulary."""
        return str(self._tokenizer.id_to_token(token) or "")


def _load(folder: EncoderFolder) -> Any:
    """Load the tokenizer with one of the known classes of `transformers`. A folder cannot name another class or bring
    its own code.
    """
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
