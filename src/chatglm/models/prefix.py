"""P-tuning v2: learned keys and values of virtual tokens in front of every prompt.

Parameter names are the official ones (`transformer.prefix_encoder.*`), so states that the official `ptuning/` scripts
saved can be loaded unchanged. The two architectures differ only in the width of the projection's input.
Source: Liu et al. 2021, "P-Tuning v2"; THUDM/ChatGLM-6B and ChatGLM2-6B `PrefixEncoder`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import Cache

__all__ = ["PrefixEncoder"]


class PrefixEncoder(nn.Module):
    """Keys and values of `length` virtual tokens, for `layers` layers of `heads` key/value heads with `width` channels.

    Args:
        projection: hidden width of a two-layer MLP between embedding and keys/values; None: they are learned directly.
        embedding: width of the embedding if there is a projection (ChatGLM-6B: the hidden size); None: the width of all
            keys and values of a token (later models).
        dropout: probability that a channel of a virtual key or value is dropped in training (official: 0.1).
    """

    def __init__(
        self,
        length: int,
        *,
        layers: int,
        heads: int,
        width: int,
        projection: int | None = None,
        embedding: int | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.length, self.layers, self.heads, self.width = length, layers, heads, width
        total = layers * 2 * heads * width
        self.embedding = nn.Embedding(length, (embedding or total) if projection else total)
        self.trans: nn.Sequential | None = None
        if projection:
            self.trans = nn.Sequential(
                nn.Linear(embedding or total, projection), nn.Tanh(), nn.Linear(projection, total)
            )
        self.dropout = nn.Dropout(dropout)

    def forward(self, batch: int, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of the virtual tokens: one pair for each layer, each (batch, heads, length, width)."""
        states = self.embedding.weight
        if self.trans is not None:
            states = self.trans(states)
        states = states.to(dtype).view(self.length, self.layers * 2, self.heads, self.width)
        states = self.dropout(states.expand(batch, -1, -1, -1, -1)).permute(2, 0, 3, 1, 4)
        return [(states[2 * layer], states[2 * layer + 1]) for layer in range(self.layers)]

    def fill(self, cache: Cache, batch: int, dtype: torch.dtype, device: torch.device) -> None:
        """Put the virtual tokens at the front of an empty cache."""
        for layer, (key, value) in enumerate(self(batch, dtype)):
            cache.update(key.to(device), value.to(device), layer)
