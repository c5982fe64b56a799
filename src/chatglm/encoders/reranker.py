"""`Reranker` scores how well documents answer a query, with a cross-encoder."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from chatglm import hub
from chatglm.encoders.folder import read_encoder
from chatglm.encoders.model import EncoderModel
from chatglm.encoders.parts import classifier, dtype_of, pad
from chatglm.encoders.tokens import MAX_TOKENS, Row, Tokens
from chatglm.errors import InputError

__all__ = ["Reranker", "Scores"]

MAX_DOCUMENTS = 2048
"""Most documents of one request."""


@dataclass(frozen=True)
class Scores:
    """The scores of the documents of one request.

    Attributes:
        values: the score of each document, from 0 to 1; higher is better.
        tokens: number of tokens of all pairs of query and document.
        cut: indices of the documents that were, together with the query, longer than the model's limit.
    """

    values: tuple[float, ...]
    tokens: int
    cut: tuple[int, ...] = ()


class Reranker(EncoderModel):
    """A cross-encoder, for any number of callers at once. `load` makes it.

    Attributes:
        max_tokens: limit for query and document together. Longer pairs are cut, the longer of the two texts first.
        memory: bytes of the weights.
    """

    def __init__(self, model: Any, tokens: Tokens) -> None:

        @torch.inference_mode()
        def run(rows: Sequence[Row]) -> Tensor:
            inputs, _ = pad(rows, model)
            return model(**inputs).logits.float().sigmoid().cpu()

        super().__init__(model, tokens, run, "chatglm rerank")

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        device: str = "cpu",
        dtype: str = "auto",
        say: hub.Say | None = None,
    ) -> Reranker:
        """Load the model of a folder.

        Args:
            path: a folder of BERT, RoBERTa or XLM-R with a head of one label (bge-reranker …), or a repository id.
            dtype: of the weights; "auto": float32 on a CPU, float16 on other devices.
            say: gets a line before something is downloaded.

        Raises:
            CheckpointError, TokenizerError: the folder is missing, incomplete or damaged.
            UnsupportedError: the folder needs a model that is not supported.
        """
        folder = read_encoder(hub.folder(path, "encoder", any_family=True, say=say), "rerank")
        tokens = Tokens(folder)
        return cls(classifier(folder, dtype_of(dtype, device), device), tokens)

    async def score(self, query: str, documents: Sequence[str], *, client: str = "") -> Scores:
        """Score how well each document answers the query.

        Args:
            documents: at most 2,048.
            client: identifies the caller; callers share the encoder fairly.

        Raises:
            InputError: no or too many documents, too many tokens, or an empty query.
            QueueFullError: too many documents are waiting.
            EngineError: the model has been closed.
            NumericalError: a score is not finite.
        """
        if not query:
            raise InputError("query: is empty; there is nothing to compare with")
        if not documents or len(documents) > MAX_DOCUMENTS:
            raise InputError(f"documents: has {len(documents)} entries; from 1 to {MAX_DOCUMENTS:,} are supported")
        rows = await asyncio.to_thread(self.tokenizer.pairs, query, documents)
        total = sum(len(row.ids) for row in rows)
        if total > MAX_TOKENS:
            raise InputError(
                f"documents: have, with the query, more than {MAX_TOKENS:,} tokens, which is the most for one request. "
                "Send them in several requests."
            )
        values = await asyncio.wrap_future(self._batches.submit(rows, client))
        return Scores(tuple(values[:, 0].tolist()), total, tuple(number for number, row in enumerate(rows) if row.cut))
