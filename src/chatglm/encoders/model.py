"""What embedders and rerankers share: a model that reads rows of many callers at once, until it is closed."""

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
    """
    Args:
        run: what the model gives for rows. It must not hold this object, which closes itself when nobody has it.
        name: of the thread that runs it.

    Attributes:
        max_tokens: longest row; what is longer is cut.
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
        """End every request; later ones get an error."""
        self._closer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
