"""Runs a whole decoder in one native call: all layers over a batch of tokens, with keys and values in pages.

In a small batch, the work between two linear layers takes less time than the Python code that calls it. So the native
library runs all layers itself, with one pool of threads, from the embeddings to the logits. The tokens of a batch may
belong to several sequences, at any positions. Each token has the number of tokens that it can attend to. This covers
prompts processed in pieces, batched decoding, and ChatGLM-6B's prompts, where attention is bidirectional.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from contextlib import suppress
from ctypes import byref
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from chatglm.errors import UnsupportedError
from chatglm.kernels import native
from chatglm.kernels.packing import PackedWeight
from chatglm.kernels.reference import quantize_inputs

__all__ = ["PAGE_TOKENS", "Block", "Decoder", "Linear", "Pages", "Shape", "page_memory"]

PAGE_TOKENS = 64
"""Tokens in a page of keys and values."""
_RESERVED = 16
"""Pages that `Pages` allocates at once."""


@dataclass(frozen=True)
class Linear:
    """A weight, packed or a matrix (rows, columns) of float16, bfloat16 or float32, with an optional bias (rows,)."""

    weight: PackedWeight | Tensor
    bias: Tensor | None = None


@dataclass(frozen=True)
class Block:
    """One layer. A norm is (weight, bias); the bias is None for RMSNorm.

    Args:
        norm1: before attention.
        norm2: before the feed-forward part.
        qkv: its rows are queries, keys and values, in the order given by `Shape.interleaved`.
        dense: after attention.
        up: its rows are gate, then up, if `Shape.gated`.
        down: back to the hidden size.
    """

    norm1: tuple[Tensor, Tensor | None]
    qkv: Linear
    dense: Linear
    norm2: tuple[Tensor, Tensor | None]
    up: Linear
    down: Linear


@dataclass(frozen=True)
class Shape:
    """Sizes and variants of a model that cannot be seen from its weights.

    Args:
        heads: number of query heads.
        groups: number of key and value heads.
        channels: of a head, a multiple of 16.
        inner: size inside the feed-forward part.
        eps: of the norms.
        pairs: pairs of channels of a head that are rotated by one angle each (rotary positions).
        gated: SwiGLU; else GELU (tanh form).
        interleaved: the rows of qkv are query, key and value of the first head, then of the next; else all queries, all
            keys, all values.
        alpha: 0 for x + f(norm(x)), else alpha · norm(x) + f(norm(x)).
    """

    heads: int
    groups: int
    channels: int
    inner: int
    eps: float
    pairs: tuple[tuple[int, int], ...]
    gated: bool = True
    interleaved: bool = False
    alpha: float = 0.0


def page_memory(pages: int, page_bytes: int) -> Tensor:
    """Memory for keys and values: uint8 (pages, page_bytes), all zeros.

    The system allocates it on first use, in pages of 2 MiB if it can. A step reads a little of each page for every
    layer. With the system's small pages, translating addresses would take longer than reading the data.
    """
    if pages and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # the kernel lacks huge pages, or there is no memory left
            memory = mmap.mmap(-1, pages * page_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            memory.madvise(mmap.MADV_HUGEPAGE)
            return torch.frombuffer(memory, dtype=torch.uint8).view(pages, page_bytes)
    return torch.zeros(pages, page_bytes, dtype=torch.uint8)


@dataclass
class Pages:
    """Memory for keys and values of one sequence: pages of `PAGE_TOKENS` tokens. A page holds all layers."""

    page_bytes: int
    memory: list[Tensor] = field(default_factory=list)
    _spare: list[Tensor] = field(default_factory=list)

    def reserve(self, tokens: int) -> None:
        """Allocate room for `tokens` tokens in all."""
        while len(self.memory) * PAGE_TOKENS < tokens:
            self._spare = self._spare or list(page_memory(_RESERVED, self.page_bytes))
            self.memory.append(self._spare.pop(0))

    def drop(self, tokens: int) -> None:
        """Keep the pages of the first `tokens` tokens, and reuse the others for later tokens. With 0, all memory is
        freed.
        """
        kept = -(-tokens // PAGE_TOKENS)
        self._spare = [*self.memory[kept:], *self._spare] if kept else []
        del self.memory[kept:]

    def copy(self) -> Pages:
        """Copy all pages into new memory."""
        made = Pages(self.page_bytes)
        made.reserve(len(self.memory) * PAGE_TOKENS)
        for page, kept in zip(made.memory, self.memory, strict=True):
            page.copy_(kept)
        return made

    @staticmethod
    def tables(sequences: Sequence[Pages]) -> Tensor:
        """Addresses of the pages of several sequences, int64 (sequences, most pages); 0 where a sequence has fewer."""
        most = max(len(pages.memory) for pages in sequences)
        return torch.tensor(
            [[page.data_ptr() for page in pages.memory] + [0] * (most - len(pages.memory)) for pages in sequences],
            dtype=torch.int64,
        )


class Decoder:
    """Layers, final norm and output head of one model, run by the native library.

    Args:
        store: type in which keys and values are stored: float32, float16, or int16 or int8 with a scale for each token
            of each group.

    Raises:
        UnsupportedError: there is no native library, or it does not support a shape.
    """

    def __init__(
        self,
        shape: Shape,
        blocks: Sequence[Block],
        final_norm: tuple[Tensor, Tensor | None],
        head: Linear,
        store: torch.dtype = torch.float16,
    ) -> None:
        lib = native.library()
        if lib is None:
            raise UnsupportedError(f"native kernels are not in use: {native.info().reason}")
        if store not in native.STORES:
            raise UnsupportedError(f"keys and values are stored as float32, float16, int16 or int8, not {store}")
        self._library = lib
        self._kept: list[Any] = []  # tensors whose addresses the library holds
        self.shape, self.store, self.layers = shape, store, len(blocks)
        if isinstance(head.weight, Tensor):  # `head` reads it in place
            head = Linear(head.weight.detach().contiguous(), head.bias)
        self.vocabulary, self._head = _rows(head.weight), head
        layers = (native.Layer * len(blocks))()
        for layer, block in zip(layers, blocks, strict=True):
            layer.norm1, layer.norm1_bias = map(self._address, block.norm1)
            layer.norm2, layer.norm2_bias = map(self._address, block.norm2)
            for name in ("qkv", "dense", "up", "down"):
                setattr(layer, name, self._weight(getattr(block, name)))
        self.hidden = _rows(blocks[0].dense.weight)
        pairs = torch.tensor(shape.pairs, dtype=torch.int32)
        model = native.Model(
            layer=layers,
            final_norm=self._address(final_norm[0]),
            final_norm_bias=self._address(final_norm[1]),
            head=self._weight(head),
            pairs=pairs.data_ptr(),
            hidden=self.hidden,
            inner=shape.inner,
            layers=len(blocks),
            heads=shape.heads,
            groups=shape.groups,
            channels=shape.channels,
            angles=len(shape.pairs),
            gated=shape.gated,
            interleaved=shape.interleaved,
            page_tokens=PAGE_TOKENS,
            store=native.STORES[store],
            eps=shape.eps,
            alpha=shape.alpha,
        )
        self.page_bytes = int(lib.cg_page_bytes(byref(model)))
        self._handle = lib.cg_decoder_new(byref(model))
        if not self._handle:
            raise UnsupportedError(
                f"heads of {shape.channels} channels in layers of {self.hidden}: the native decoder takes heads of 16 "
                "to 256 channels, in steps of 16"
            )

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.cg_decoder_free(self._handle)
            self._handle = None

    def _address(self, tensor: Tensor | None) -> int | None:
        if tensor is None:
            return None
        kept = tensor.detach().to(torch.float32).contiguous()
        self._kept.append(kept)
        return kept.data_ptr()

    def _weight(self, linear: Linear) -> native.Weight:
        bias = None if linear.bias is None else linear.bias.detach().to(torch.float32).contiguous()
        weight = linear.weight if isinstance(linear.weight, PackedWeight) else linear.weight.detach().contiguous()
        self._kept += [weight, bias]
        return native.weight_of(weight, bias)

    def run(
        self,
        hidden: Tensor,
        cosines: Tensor,
        sines: Tensor,
        tables: Tensor,
        sequence: Tensor | Sequence[int],
        position: Tensor | Sequence[int],
        visible: Tensor | Sequence[int],
        wanted: Tensor | Sequence[int],
        *,
        states: bool = False,
        logits: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        """Run R tokens through all layers, and store their keys and values.

        Args:
            hidden: float32 (R, hidden), the embeddings; overwritten.
            cosines, sines: float32 (R, angles).
            tables: int64 (sequences, most pages), the addresses of every sequence's pages, with room for each position
                that is written. Entries after a sequence's last page are not read.
            sequence: (R,) the sequence of each token.
            position: (R,) where its key and value are stored.
            visible: (R,) the number of tokens of its sequence, from the first one on, that it attends to.
            wanted: indices of the tokens whose scores are returned.
            states: also return the input of the output head; `head` computes scores from it.
            logits: False: compute no scores.

        Returns:
            logits, float32 (wanted, vocabulary), or (0, vocabulary) without scores; and the states after the final
            norm, (wanted, hidden), or None.

        Raises:
            MemoryError: there is no memory for the batch.
        """
        rows = hidden.shape[0]
        whose, where, sees, asked = (
            torch.as_tensor(numbers, dtype=torch.int32).contiguous()
            for numbers in (sequence, position, visible, wanted)
        )
        scores = torch.empty(len(wanted) if logits else 0, self.vocabulary)
        last = torch.empty(len(wanted), self.hidden) if states else None
        cosines, sines, tables = cosines.contiguous(), sines.contiguous(), tables.contiguous()
        batch = native.Batch(
            hidden=hidden.data_ptr(),
            cosines=cosines.data_ptr(),
            sines=sines.data_ptr(),
            tables=tables.data_ptr(),
            sequence=whose.data_ptr(),
            position=where.data_ptr(),
            visible=sees.data_ptr(),
            wanted=asked.data_ptr(),
            logits=scores.data_ptr() if logits else None,
            states=None if last is None else last.data_ptr(),
            rows=rows,
            pages_per_table=tables.shape[1],
            wanted_count=len(wanted),
        )
        if self._library.cg_decoder_run(self._handle, byref(batch)):
            raise MemoryError(f"no memory for a batch of {rows} tokens")
        return scores, last

    def head(self, states: Tensor) -> Tensor:
        """Scores, float32 (rows, vocabulary), of states (rows, hidden) that `run` returned."""
        return native.linear(self._library, states, self._head.weight, self._head.bias)

    def write(self, pages: Sequence[Tensor], layer: int, key: Tensor, value: Tensor) -> None:
        """Store keys and values, each (groups, tokens, channels), of one layer at the beginning of a sequence's pages.

        Args:
            pages: uint8 (page_bytes,) each, with room for the tokens.
        """
        groups, channels = self.shape.groups, self.shape.channels
        size = groups * PAGE_TOKENS * channels * self.store.itemsize
        start_of_layer = layer * (self.page_bytes // self.layers)
        for number, start in enumerate(range(0, key.shape[1], PAGE_TOKENS)):
            stop = min(start + PAGE_TOKENS, key.shape[1])
            held = pages[number][start_of_layer:]
            places = torch.arange(stop - start)
            keys, values = held[:size].view(self.store), held[size : 2 * size].view(self.store)
            new_keys, new_values = key[:, start:stop], value[:, start:stop]
            if not self.store.is_floating_point:  # integers are stored in pairs; the scales follow
                scales = held[2 * size : 2 * size + 8 * groups * PAGE_TOKENS].view(torch.float32)
                scales = scales.view(2, groups, PAGE_TOKENS, 1)
                new_keys, scales[0, :, : stop - start] = quantize_inputs(new_keys.float(), channels, self.store)
                new_values, scales[1, :, : stop - start] = quantize_inputs(new_values.float(), channels, self.store)
                keys = keys.view(groups, PAGE_TOKENS // 16, channels // 2, 16, 2)
                keys[:, places // 16, :, places % 16] = new_keys.transpose(0, 1).unflatten(-1, (-1, 2))
                values = values.view(groups, PAGE_TOKENS // 2, channels, 2)
                values[:, places // 2, :, places % 2] = new_values.transpose(0, 1)
            else:
                keys = keys.view(groups, PAGE_TOKENS // 16, channels, 16).transpose(2, 3)
                keys[:, places // 16, places % 16] = new_keys.to(self.store)
                values.view(groups, PAGE_TOKENS, channels)[:, : stop - start] = new_values.to(self.store)


def _rows(weight: PackedWeight | Tensor) -> int:
    return weight.rows if isinstance(weight, PackedWeight) else int(weight.shape[0])
