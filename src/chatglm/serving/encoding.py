"""Encoders of texts for routes, with the share of the caller and metrics of their use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chatglm.encoders import Embedder, Embeddings, Reranker, Scores
from chatglm.serving.access.callers import Caller
from chatglm.serving.metrics import Metrics

__all__ = ["Encoder", "ServedEmbedder", "ServedReranker"]

Encoder = Embedder | Reranker


@dataclass(frozen=True)
class ServedEmbedder:
    """A model for embeddings, for one caller. `name` is what requests call it."""

    name: str
    encoder: Embedder
    caller: Caller
    metrics: Metrics
    count: Callable[[int], None] | None = None
    """Called with numbers of tokens, for the caller's limits."""

    async def embed(
        self,
        texts: Sequence[str] | Sequence[Sequence[int]],
        *,
        dimensions: int | None = None,
        prompt_name: str | None = None,
        field: str = "input",
    ) -> Embeddings:
        """See `Embedder.embed`."""
        with self.metrics.encoding(self.name):
            found = await self.encoder.embed(
                texts, dimensions=dimensions, prompt_name=prompt_name, client=self.caller.client, field=field
            )
        self.metrics.note_encoded(self.name, len(found.vectors), sum(found.tokens), self.count)
        return found


@dataclass(frozen=True)
class ServedReranker:
    """A model for rerank, for one caller. `name` is what requests call it."""

    name: str
    encoder: Reranker
    caller: Caller
    metrics: Metrics
    count: Callable[[int], None] | None = None
    """Called with numbers of tokens, for the caller's limits."""

    async def score(self, query: str, documents: Sequence[str]) -> Scores:
        """See `Reranker.score`."""
        with self.metrics.encoding(self.name):
            found = await self.encoder.score(query, documents, client=self.caller.client)
        self.metrics.note_encoded(self.name, len(documents), found.tokens, self.count)
        return found
