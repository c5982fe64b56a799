"""Generation on a CPU through the native decoder: every layer of a step in one call, keys and values in pages.

`generate` asks for a cache. If the native decoder can run the model, it gets a `NativeCache`, and a forward pass with
this cache uses `kernels.Decoder` instead of the blocks. The rest of `generate` is unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache

from chatglm.errors import UnsupportedError
from chatglm.kernels import native
from chatglm.kernels.decoder import Block, Decoder, Linear, Pages
from chatglm.kernels.packing import PackedWeight

__all__ = ["DECODER", "NativeCache", "decoder_of", "in_use", "step"]

DECODER = "_native_decoder"
"""Name of the attribute in which a model keeps the result of `decoder_of`."""

_ROWS = 512
"""Tokens that go through the layers together: their intermediate results fit into the CPU's caches."""


class NativeCache(Cache):  # type: ignore[misc]
    """Keys and values of a batch of sequences, in the layout of the native decoder.

    Args:
        decoder: the model's decoder.
        batch_size: number of sequences.
    """

    def __init__(self, decoder: Decoder, batch_size: int) -> None:
        super().__init__(layers=[])
        self.decoder = decoder
        self.pages = [Pages(decoder.page_bytes) for _ in range(batch_size)]
        self.held = torch.zeros(batch_size, 0, dtype=torch.bool)
        """Which of the columns so far are real tokens: booleans (batch, columns)."""

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.held.shape[1]

    def lengths(self) -> Tensor:
        """Number of real tokens of each sequence: (batch,)."""
        return self.held.sum(dim=1)

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def crop(self, tokens_to_remove: int) -> None:
        """Keep only the first `tokens_to_remove` columns; if it is negative, remove that many of the last columns."""
        total = self.get_seq_length()
        keep = total + tokens_to_remove if tokens_to_remove < 0 else min(tokens_to_remove, total)
        self.held = self.held[:, : max(keep, 0)]
        for pages, length in zip(self.pages, self.lengths().tolist(), strict=True):
            pages.drop(length)

    def batch_select_indices(self, indices: Tensor) -> None:
        chosen = indices.tolist()
        self.held = self.held[indices]
        self.pages = [
            self.pages[row].copy() if row in chosen[:number] else self.pages[row] for number, row in enumerate(chosen)
        ]

    reorder_cache = batch_select_indices

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.batch_select_indices(torch.arange(len(self.pages)).repeat_interleave(repeats))

    def reset(self) -> None:
        self.held = self.held[:, :0]
        for pages in self.pages:
            pages.drop(0)

    @property
    def batch_size(self) -> int:
        return len(self.pages)

    @property
    def is_compileable(self) -> bool:
        return False

    @property
    def is_croppable(self) -> bool:
        return True


def in_use() -> bool:
    """Whether the native decoder is available."""
    return native.library() is not None


def decoder_of(model: Any, store: torch.dtype | None = None, *, packed: bool = False) -> Decoder | None:
    """The native decoder of a model of this package, made on the first call and kept until a weight changes.

    Args:
        store: dtype of stored keys and values: float32, float16, int16 or int8; default: float32 for float32 weights,
            else the fastest type of two bytes.
        packed: return None unless all linear layers of the blocks hold packed integers.

    Returns:
        None if torch must run the model: there is no native library, it is another kind of model, weights are not on
            the CPU, a layer has an adapter, or a shape is not supported.
    """
    if not in_use() or not hasattr(model, "decoder_parts"):
        return None
    shape, blocks, final_norm, head = model.decoder_parts()
    linears = [layer for block in blocks for layer in (block[1], block[2], block[4], block[5])]
    weights = [_weight(layer) for layer in (*linears, head)]
    if any(weight is None or _device(weight) != "cpu" for weight in weights):
        return None
    if any(isinstance(weight, Tensor) and weight.dtype not in native.PLAIN for weight in weights):
        return None
    if packed and not all(isinstance(weight, PackedWeight) for weight in weights[:-1]):
        return None
    if store is None:
        plain = [weight.dtype for weight in weights if isinstance(weight, Tensor)]
        store = torch.float32 if len(plain) == len(weights) and torch.float32 in plain else native.store_of_two_bytes()
    key = (store, *(_identity(layer) for layer in (*linears, head)))
    kept = model.__dict__.get(DECODER)
    if kept is not None and kept[0] == key:
        found: Decoder | None = kept[1]
        return found
    try:
        decoder = Decoder(
            shape,
            [
                Block(_norm(norm1), _linear(qkv), _linear(dense), _norm(norm2), _linear(up), _linear(down))
                for norm1, qkv, dense, norm2, up, down in blocks
            ],
            _norm(final_norm),
            _linear(head),
            store,
        )
    except UnsupportedError:
        decoder = None
    model.__dict__[DECODER] = (key, decoder)
    return decoder


def _weight(layer: nn.Module) -> PackedWeight | Tensor | None:
    """The weight of a linear layer; None if it is not a plain linear layer, for example if it has an adapter."""
    packed = getattr(layer, "packed", None)
    if callable(packed) and isinstance(weight := packed(), PackedWeight):
        return weight
    return layer.weight if type(layer) is nn.Linear else None


def _device(weight: PackedWeight | Tensor) -> str:
    return str((weight.data if isinstance(weight, PackedWeight) else weight).device.type)


def _identity(layer: nn.Module) -> tuple[int, int]:
    weight = _weight(layer)
    tensor: Any = weight.data if isinstance(weight, PackedWeight) else weight
    return id(layer), tensor.data_ptr()


def _norm(norm: Any) -> tuple[Tensor, Tensor | None]:
    return norm.weight, getattr(norm, "bias", None)


def _linear(layer: Any) -> Linear:
    weight = _weight(layer)
    assert weight is not None
    return Linear(weight, layer.bias)


def step(
    cache: NativeCache,
    embeddings: Tensor,
    angles: tuple[Tensor, Tensor],
    attention_mask: Tensor | None,
    prompt: Tensor | None,
    wanted: Sequence[int],
) -> Tensor:
    """Run one forward pass of B sequences over S new columns, and add these to the cache.

    Args:
        embeddings: (B, S, hidden).
        angles: cosines and sines, float32 (B, S, angles).
        attention_mask: (B, T) with zero for padding, whose last columns are the new ones; None: there is no padding.
        prompt: booleans (B, S): tokens that attend to one another in both directions; None: each attends to those
            before it.
        wanted: numbers of the columns, of S, whose scores are wanted.

    Returns:
        logits, float32 (B, wanted, vocabulary); zeros for padding.
    """
    batch, columns, width = embeddings.shape
    real = torch.ones(batch, columns, dtype=torch.bool)
    if attention_mask is not None:
        real = attention_mask[:, -columns:] != 0
    before = cache.lengths()[:, None]
    places = before + real.cumsum(dim=1) - 1  # (B, S): position of each token in its sequence
    sees = places + 1
    if prompt is not None:
        inside = (prompt & real).sum(dim=1, keepdim=True) + before
        sees = torch.where(prompt, torch.maximum(sees, inside), sees)
    for pages, count in zip(cache.pages, (places[:, -1] + 1).tolist(), strict=True):
        pages.reserve(count)
    tables = Pages.tables(cache.pages)
    asked = torch.zeros(columns, dtype=torch.bool)
    asked[list(wanted)] = True
    index = real.reshape(-1).nonzero().flatten()
    scored = (asked.expand(batch, -1) & real).reshape(-1)[index]
    cosines, sines = (table.reshape(batch * columns, -1)[index] for table in angles)
    hidden = embeddings.reshape(-1, width)[index].float()
    sequence, position, visible = index // columns, places.reshape(-1)[index], sees.reshape(-1)[index]
    out = []
    # If tokens attend in both directions, the whole prompt must be stored first.
    size = len(index) if prompt is not None and bool(prompt.any()) else _ROWS
    for start in range(0, len(index), size):
        part = slice(start, start + size)
        logits, _ = cache.decoder.run(
            hidden[part].contiguous(),
            cosines[part],
            sines[part],
            tables,
            sequence[part],
            position[part],
            visible[part],
            scored[part].nonzero().flatten(),
        )
        out.append(logits)
    cache.held = torch.cat((cache.held, real), dim=1)
    scores = torch.cat(out) if len(out) > 1 else out[0]
    if batch * len(wanted) == len(scores):
        return scores.view(batch, len(wanted), -1)
    whole = scores.new_zeros(batch * columns, scores.shape[-1])
    whole[index[scored]] = scores
    return whole.view(batch, columns, -1)[:, list(wanted)]
