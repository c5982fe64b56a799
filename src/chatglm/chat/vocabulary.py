"""The interface of tokenizers for prompt formats and decoders: text to ids and back, without `transformers`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from chatglm.chat.generations import Generation
from chatglm.errors import InputError, UnsupportedError

__all__ = ["Detokenizer", "Vocabulary"]


class Detokenizer:
    """Converts ids to text, one at a time. `feed` returns the text that can no longer change, `flush` the rest, such as
    an incomplete character.

    `decode` and the streaming decoder both use it, so their results are always the same.
    """

    def go_on(self) -> None:
        """Say that the text continues another text, so that a space at its beginning is kept."""

    def feed(self, token_id: int) -> str:
        raise UnsupportedError("feed")  # pragma: no cover

    def flush(self) -> str:
        raise UnsupportedError("flush")  # pragma: no cover


class Vocabulary:
    """The vocabulary of one checkpoint. Every tokenizer of `chatglm.chat.tokenizers` is one.

    Attributes:
        generation: the generation whose prompts the checkpoint was trained on.
        control_ids: all ids that are not text.
        vocab_file: the file that it was read from.
        pad_token_id: the id that pads shorter rows of a batch.
    """

    generation: Generation
    control_ids: frozenset[int]
    vocab_file: str
    pad_token_id: int

    def __len__(self) -> int:
        raise UnsupportedError("__len__")  # pragma: no cover

    def encode_text(self, text: str) -> list[int]:
        """Ids of ordinary text, without a prefix and without control ids, whatever the text contains."""
        raise UnsupportedError("encode_text")  # pragma: no cover

    def token_bytes(self, token_id: int) -> bytes:
        """The UTF-8 bytes that an id adds to the text; b"" for control ids, and for ids beyond the vocabulary."""
        raise UnsupportedError("token_bytes")  # pragma: no cover

    def detokenizer(self, *, spaces_between_special_tokens: bool = True) -> Detokenizer:
        """A new decoder, which takes one id at a time."""
        raise UnsupportedError("detokenizer")  # pragma: no cover

    def _commands(self) -> Mapping[str, int]:
        """Every control token by name."""
        raise UnsupportedError("_commands")  # pragma: no cover

    def get_command(self, token: str) -> int:
        """The id of a control token by its name.

        Raises:
            InputError: no control token has this name.
        """
        commands = self._commands()
        if token not in commands:
            raise InputError(f"{token!r} is not a control token of {self.generation}; known: {', '.join(commands)}")
        return commands[token]

    @property
    def all_special_tokens(self) -> list[str]:
        """Names of all control tokens."""
        return list(self._commands())

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of all control tokens."""
        return list(self._commands().values())

    def get_prefix_tokens(self) -> list[int]:
        """The ids at the start of every prompt."""
        return []

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """The ids of one or two texts, with the control ids that a model expects before, between and after them."""
        raise UnsupportedError("build_inputs_with_special_tokens")  # pragma: no cover

    def build_single_message(self, role: str, metadata: str, message: str, tokenize: bool = True) -> Any:
        """One message of ChatGLM3 or GLM-4 as ids (or text): header, a line of metadata, content.

        Raises:
            InputError: the role is not system, user, assistant or observation.
            UnsupportedError: the generation's prompts have no such messages.
        """
        raise UnsupportedError(f"build_single_message: prompts of {self.generation} are not made of such messages")

    def to_text(
        self, ids: Iterable[int], *, skip_special_tokens: bool = False, spaces_between_special_tokens: bool = True
    ) -> str:
        """The text of ids, as `decode` gives it."""
        decoder = self.detokenizer(spaces_between_special_tokens=spaces_between_special_tokens)
        fed = [decoder.feed(i) for i in ids if not (skip_special_tokens and i in self.control_ids)]
        return "".join([*fed, decoder.flush()])
