"""TEXTS -> VECTORS AND SCORES: models for sentence embeddings, and cross-encoders that rerank documents."""

from chatglm.encoders.embedder import Embedder, Embeddings
from chatglm.encoders.folder import folder_kind
from chatglm.encoders.reranker import Reranker, Scores

__all__ = ["Embedder", "Embeddings", "Reranker", "Scores", "folder_kind"]
