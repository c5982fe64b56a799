"""The common base of embedders and rerankers: a model that many callers use at once, until it is closed."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from chatglm.encoders.batches import Batches, EncoderStats
from chatglm.encoders.tokens import Row, Tokens

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["EncoderModel"]


class EncoderModel:
    """A model with its tokenizer and its thread.

    Args:
        run: computes the results of rows, see `Batches`. It must not refer to this object, which closes itself when
            nothing refers to it any more.
        name: of the thread.

    Attributes:
        max_tokens: most tokens of a row; longer rows are cut.
        memory: bytes of the weights.
    """

    def __init__(self, model: Any, tokens: Tokens, run: Callable[[Sequence[Row]], Tensor], name: str) -> None:
        self.tokenizer = tokens
        self.max_tokens = tokens.longest
        self.memory = sum(weight.nbytes for weight in model.parameters())
        self._batches = Batches(run, name)
        self._closer = weakref.finalize(self, self._batches.stop)

    def stats(self) -> EncoderStats:
        return self._batches.stats()

    def close(self) -> None:
        """Close the model. Requests that wait, and later ones, fail with `EngineError`."""
        self._closer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
