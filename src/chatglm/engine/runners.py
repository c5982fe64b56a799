"""Runners: they run the model in a step of the engine, with keys and values in pages.

`NativeRunner` calls the native decoder, `TorchRunner` any causal language model of `transformers` (this package's own,
native GLM, Llama …) on any device. Both take the same chunks and give the same scores.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import Cache

from chatglm.engine.graphs import Graphs
from chatglm.engine.pages import PAGE_TOKENS
from chatglm.errors import InputError, UnsupportedError
from chatglm.kernels import native
from chatglm.kernels.decoder import Decoder, page_memory
from chatglm.kernels.reference import quantize_inputs
from chatglm.models.native import decoder_of

__all__ = ["Chunk", "NativeRunner", "Runner", "TorchRunner", "runner_for"]

_SCORED = 64
"""Rows of scores in memory at a time if those of a whole prompt are wanted: 64 rows of GLM-4 take 39 MB."""
_DECODING = 32
"""With torch, chunks of at most this many tokens run together, padded to the longest; longer ones run alone."""


@dataclass(frozen=True)
class Chunk:
    """Some tokens of one sequence that go through the model together.

    Args:
        ids: ids of the sequence up to the last token of the chunk.
        start: position of the chunk's first token; the keys and values of all tokens before it are in the pages.
        pages: numbers of the sequence's pages, with room for all of `ids` (and the learned prefix in front).
        wanted: number of last tokens whose scores are needed.
        adapter: name of the LoRA adapter to run with; None: the base model.
    """

    ids: Sequence[int]
    start: int
    pages: Sequence[int]
    wanted: int
    adapter: str | None = None

    @property
    def count(self) -> int:
        return len(self.ids) - self.start


class Runner(ABC):
    """Runs a model with keys and values in pages.

    Attributes:
        model: the model.
        vocabulary: number of ids.
        causal: whether a token attends only to those before it. ChatGLM-6B reads its prompt in both directions, so the
            whole prompt must be in one chunk.
        prefix: number of virtual tokens (P-tuning v2) at the front of every sequence's pages, before its first token.
        context: longest sequence in tokens by the configuration; 0: unknown.
        window: longest sequence in which every token attends to all tokens before it, if the model has sliding windows;
            0: it has none.
        adapters: names of the model's adapters.
        page_bytes: bytes of one page, for all layers.
    """

    causal: bool
    page_bytes: int

    def __init__(self, model: Any) -> None:
        self.model = model
        self._base = model.get_base_model() if hasattr(model, "peft_config") else model
        config = self._base.config
        self.vocabulary = int(config.vocab_size)
        self.causal = getattr(self._base, "is_causal_decoder", True)
        encoder: Any = getattr(getattr(self._base, "transformer", None), "prefix_encoder", None)
        self._prefix_encoder: Any = encoder
        self.prefix = 0 if encoder is None else int(encoder.length)
        self.context = int(getattr(config, "seq_length", 0) or getattr(config, "max_position_embeddings", 0) or 0)
        self.window = _window(config.get_text_config())
        self.adapters = tuple(model.peft_config) if hasattr(model, "peft_config") else ()

    @abstractmethod
    def allocate(self, pages: int) -> None:
        """Allocate memory for this many pages; earlier contents are lost."""

    @abstractmethod
    def copy(self, source: int, target: int) -> None:
        """Copy one page."""

    @abstractmethod
    def write_prefix(self, pages: Sequence[int]) -> None:
        """Write the keys and values of the virtual tokens to the front of a sequence's pages."""

    @abstractmethod
    def run(self, chunks: Sequence[Chunk]) -> Tensor:
        """Scores of the wanted tokens of all chunks, in order: float32 (wanted tokens, vocabulary)."""

    @abstractmethod
    def score(self, chunk: Chunk, take: Callable[[Tensor], None]) -> None:
        """Run one chunk, and give `take` the scores of all its tokens in their order, in pieces of at most `_SCORED`
        rows: float32 (rows, vocabulary).
        """

    def positions(self, chunk: Chunk) -> Tensor:
        """Position ids of the chunk's tokens: (count,), or (2, count) for ChatGLM-6B."""
        if self.causal:
            return torch.arange(chunk.start, len(chunk.ids))
        positions: Tensor = self._base.positions_of(torch.tensor([list(chunk.ids)]))[0, :, chunk.start :]
        return positions

    def visible(self, chunk: Chunk, positions: Tensor) -> Tensor:
        """Number of the sequence's keys, including the prefix, that each token of the chunk attends to: (count,)."""
        sees = torch.arange(chunk.start, len(chunk.ids)) + 1
        if not self.causal:
            inside = positions[1] == 0  # the prompt
            if bool(inside.any()):
                sees[inside] = chunk.start + int(inside.sum())
        return sees + self.prefix

    def block_of(self, prompt: Sequence[int]) -> int:
        """Number of first tokens of a prompt that must go through the model together: for ChatGLM-6B, the context,
        whose tokens attend to one another in both directions, and the <sop> after it, which the positions depend on.
        """
        if self.causal:
            return 0
        return int((self._base.positions_of(torch.tensor([list(prompt)]))[0, 1] == 0).sum()) + 1

    @property
    def weight_bytes(self) -> int:
        """Bytes of the model's weights; shared weights count once."""
        tensors = {one.data_ptr(): one.nbytes for one in (*self.model.parameters(), *self.model.buffers())}
        return sum(tensors.values())

    def replace(self, model: Any) -> None:
        """Replace the model by the same model with one adapter more or less."""
        self.model = model
        self._base = model.get_base_model() if hasattr(model, "peft_config") else model
        self.adapters = tuple(model.peft_config) if hasattr(model, "peft_config") else ()

    def check_adapter(self, name: str | None) -> None:
        """Check the name of an adapter.

        Raises:
            InputError: the model has no such adapter.
        """
        if name is not None and name not in self.adapters:
            has = f"it has {', '.join(self.adapters)}" if self.adapters else "it has none"
            raise InputError(f"adapter {name!r} is not on this model ({has})")


class NativeRunner(Runner):
    """The native decoder on a CPU.

    Args:
        decoder: the decoder of `model`. It decides the type of keys and values.

    Raises:
        UnsupportedError: the model has adapters.
    """

    def __init__(self, model: Any, decoder: Decoder) -> None:
        super().__init__(model)
        if self.adapters:
            raise UnsupportedError("the native decoder does not support adapters")
        self.decoder = decoder
        self.page_bytes = decoder.page_bytes
        self._memory = torch.empty(0, 0, dtype=torch.uint8)
        self._embed = self._base.get_input_embeddings()
        self._angles: tuple[Tensor, Tensor] | None = None  # cosines and sines of positions from 0

    def allocate(self, pages: int) -> None:
        self._memory = page_memory(pages, self.page_bytes)

    def copy(self, source: int, target: int) -> None:
        self._memory[target].copy_(self._memory[source])

    def write_prefix(self, pages: Sequence[int]) -> None:
        for layer, (key, value) in enumerate(self._prefix_encoder(1, torch.float32)):
            self.decoder.write([self._memory[page] for page in pages], layer, key[0], value[0])

    @torch.inference_mode()
    @native.torch_on_one_thread()
    def run(self, chunks: Sequence[Chunk]) -> Tensor:
        return self._run(chunks, scores=True)

    @torch.inference_mode()
    @native.torch_on_one_thread()
    def score(self, chunk: Chunk, take: Callable[[Tensor], None]) -> None:
        for part in self._run([replace(chunk, wanted=chunk.count)], scores=False).split(_SCORED):
            take(self.decoder.head(part))

    def _run(self, chunks: Sequence[Chunk], scores: bool) -> Tensor:
        """Scores of the wanted tokens; or, without `scores`, the hidden states that the head computes them from."""
        # Lists, and one tensor of them, because with few tokens every operation of torch takes a part of the time.
        most = max(len(chunk.pages) for chunk in chunks)
        numbers = torch.tensor([[*chunk.pages, *[0] * (most - len(chunk.pages))] for chunk in chunks])
        ids: list[int] = []
        places: list[int] = []
        whose: list[int] = []
        wanted: list[int] = []
        for number, chunk in enumerate(chunks):
            ids += chunk.ids[chunk.start :]
            places += range(chunk.start, len(chunk.ids))
            whose += [number] * chunk.count
            wanted += range(len(ids) - chunk.wanted, len(ids))
        tokens, positions, sequence = torch.tensor([ids, places, whose], dtype=torch.int32)
        place = positions + self.prefix if self.prefix else positions
        sees = place + 1
        if not self.causal:
            placed = [self.positions(chunk) for chunk in chunks]
            positions = torch.cat(placed, dim=-1)
            sees = torch.cat([self.visible(chunk, where) for chunk, where in zip(chunks, placed, strict=True)])
            cosines, sines = (table[0] for table in self._base.rotary_angles(positions[None]))
        else:
            cosines, sines = self._turned(positions, max(places) + 1)
        logits, states = self.decoder.run(
            self._embed(tokens).float(),
            cosines,
            sines,
            self._memory.data_ptr() + numbers * self.page_bytes,
            sequence,
            place,
            sees,
            wanted,
            states=not scores,
            logits=scores,
        )
        return logits if states is None else states

    def _turned(self, positions: Tensor, end: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of positions below `end`, each (count, pairs), from a table that is kept."""
        if self._angles is None or end > self._angles[0].shape[1]:
            self._angles = self._base.rotary_angles(torch.arange(max(1024, 1 << (end - 1).bit_length()))[None])
        cosines, sines = self._angles
        return cosines[0, positions], sines[0, positions]


class TorchRunner(Runner):
    """Any model of `transformers` that takes a cache and a 4-d mask.

    Args:
        store: dtype of stored keys and values; default: the model's. int16 and int8 have a scale for each token and
            group.

    Raises:
        UnsupportedError: the model has no keys and values of heads (DeepSeek's multi-head latent attention).
    """

    def __init__(self, model: Any, store: torch.dtype | None = None) -> None:
        super().__init__(model)
        config = self._base.config.get_text_config()
        if getattr(config, "kv_lora_rank", None):
            raise UnsupportedError(
                f"{config.model_type}: multi-head latent attention (`kv_lora_rank` in config.json) is not supported; "
                "use the model's own generate"
            )
        self.device, self.dtype = self._base.device, self._base.dtype
        self._store = store or self.dtype
        heads = config.num_attention_heads
        groups = getattr(config, "num_key_value_heads", None) or getattr(config, "multi_query_group_num", None)
        if getattr(config, "multi_query_attention", True) is False:
            groups = None
        width = getattr(config, "head_dim", None) or getattr(config, "kv_channels", None)
        self._layers = int(config.num_hidden_layers)
        self._shape = (int(groups or heads), int(width or config.hidden_size // heads))
        scale_bytes = 0 if self._store.is_floating_point else torch.float32.itemsize
        self.page_bytes = (
            2 * self._layers * PAGE_TOKENS * self._shape[0] * (self._shape[1] * self._store.itemsize + scale_bytes)
        )
        self._slots = _Slots(torch.empty(0))
        # A model that can be compiled as a whole never reads a number back from the device.
        whole = getattr(self._base, "_can_compile_fullgraph", False)
        self._graphs = Graphs(self.device) if self.device.type == "cuda" and whole else None

    def replace(self, model: Any) -> None:
        super().replace(model)
        if self._graphs is not None:
            self._graphs.clear()

    def allocate(self, pages: int) -> None:
        if self._graphs is not None:
            self._graphs.clear()
        # One page more, where padding is written. Its contents do not matter.
        shape = (self._layers, 2, (pages + 1) * PAGE_TOKENS, *self._shape)
        self._slots = _Slots(
            torch.zeros(shape, dtype=self._store, device=self.device),
            None if self._store.is_floating_point else torch.zeros(*shape[:-1], 1, device=self.device),
        )

    def copy(self, source: int, target: int) -> None:
        self._slots.copy(source, target)

    def write_prefix(self, pages: Sequence[int]) -> None:
        slots = _slots(pages, 0, self.prefix)
        for layer, pair in enumerate(self._prefix_encoder(1, self.dtype)):
            for which, states in enumerate(pair):
                self._slots.write(layer, which, slots, states[0].transpose(0, 1))

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk]) -> Tensor:
        scores: dict[int, Tensor] = {}
        # Chunks with the same adapter run together if they are short; a long chunk runs alone.
        batches: dict[Any, list[int]] = {}
        for number, chunk in enumerate(chunks):
            alone = None if chunk.count <= _DECODING else number
            batches.setdefault((chunk.adapter, alone), []).append(number)
        for (adapter, _), numbers in batches.items():
            for number, found in zip(numbers, self._batch([chunks[n] for n in numbers], adapter), strict=True):
                scores[number] = found
        return torch.cat([scores[number] for number in range(len(chunks))]).float()

    @torch.inference_mode()
    def score(self, chunk: Chunk, take: Callable[[Tensor], None]) -> None:
        if self.causal:
            for start in range(chunk.start, len(chunk.ids), _SCORED):
                ids = chunk.ids[: start + _SCORED]
                take(self._batch([Chunk(ids, start, chunk.pages, len(ids) - start)], chunk.adapter)[0].float())
            return
        with self._with(chunk.adapter):
            # ChatGLM-6B's prompt goes through the layers in one piece, and then through the head in pieces.
            size = self._size([chunk])
            inputs = self._inputs(self._table([chunk], size).to(self.device), size)
            states = self._base.transformer(**inputs).last_hidden_state[0]
            for part in states.split(_SCORED):
                take(self._base.get_output_embeddings()(part).float())

    def _with(self, adapter: str | None) -> Any:
        if not self.adapters:
            return nullcontext()
        if adapter is None:
            return self.model.disable_adapter()
        self.model.set_adapter(adapter)
        return nullcontext()

    def _batch(self, chunks: Sequence[Chunk], adapter: str | None) -> list[Tensor]:
        """Scores of each chunk's wanted tokens: (wanted, vocabulary) each."""
        size = self._size(chunks)
        recorded = None if self._graphs is None else _recorded(size)
        if recorded is not None:
            assert self._graphs is not None
            logits = self._graphs.run(
                (adapter, *recorded),
                self._table(chunks, recorded),
                lambda table: self._scores(table, recorded, adapter, 1 if recorded.columns == 1 else 0),
            )
        else:
            keep = max(chunks[0].wanted, 1) if len(chunks) == 1 else 0
            logits = self._scores(self._table(chunks, size).to(self.device), size, adapter, keep)
        found = []
        for row, chunk in enumerate(chunks):
            end = logits.shape[1] if recorded is None and len(chunks) == 1 else chunk.count
            found.append(logits[row, end - chunk.wanted : end])
        return found

    def _scores(self, table: Tensor, size: _Size, adapter: str | None, keep: int) -> Tensor:
        """Scores of a step: (rows, columns, vocabulary); only the last `keep` columns, if `keep` is not 0."""
        with self._with(adapter):
            scores: Tensor = self.model(**self._inputs(table, size), logits_to_keep=keep).logits
        return scores

    def _size(self, chunks: Sequence[Chunk]) -> _Size:
        most = max(len(chunk.ids) for chunk in chunks) + self.prefix
        return _Size(len(chunks), max(chunk.count for chunk in chunks), -(-most // PAGE_TOKENS))

    def _table(self, chunks: Sequence[Chunk], size: _Size) -> Tensor:
        """All inputs of a step in one tensor: int64 (rows, …), in the CPU's memory. A row has for each column the id,
        the position, the slot to write to, and the number of visible keys; then the number of tokens up to the chunk's
        end, and the pages. Padding attends to one token, and is written to the page for padding.
        """
        rows, columns, pages = size
        kinds = 1 if self.causal else 2
        nobody = self._slots.count // PAGE_TOKENS - 1
        table = np.zeros((rows, (kinds + 3) * columns + 1 + pages), dtype=np.int64)
        ids, positions, write, sees, end, held = np.split(
            table, np.cumsum([columns, kinds * columns, columns, columns, 1]), axis=1
        )
        write[:], sees[:], end[:], held[:] = nobody * PAGE_TOKENS, 1, 1, nobody
        for row, chunk in enumerate(chunks):
            count, total = chunk.count, self.prefix + len(chunk.ids)
            ids[row, :count] = chunk.ids[chunk.start :]
            used = held[row, : -(-total // PAGE_TOKENS)]
            used[:] = chunk.pages[: len(used)]
            places = np.arange(total - count, total)
            write[row, :count] = used[places // PAGE_TOKENS] * PAGE_TOKENS + places % PAGE_TOKENS
            end[row] = total
            if self.causal:
                positions[row, :count] = places - self.prefix
                sees[row, :count] = places + 1
            else:
                where = self.positions(chunk)
                positions[row].reshape(kinds, columns)[:, :count] = where.numpy()
                sees[row, :count] = self.visible(chunk, where).numpy()
        return torch.from_numpy(table)

    def _inputs(self, table: Tensor, size: _Size) -> dict[str, Any]:
        """The arguments of a model of `transformers`, from a `_table` on its device, without a synchronisation."""
        _, columns, pages = size
        kinds = 1 if self.causal else 2
        ids, positions, write, sees, end, held = table.split([columns, kinds * columns, columns, columns, 1, pages], 1)
        places = torch.arange(pages * PAGE_TOKENS, device=table.device)
        slots = (held[:, :, None] * PAGE_TOKENS + places[:PAGE_TOKENS]).flatten(1)
        # Positions after a sequence's end are masked, but their contents are undefined, and zero times infinity is NaN.
        # So the first slot is read there.
        read = torch.where(places < end, slots, slots[:, :1])
        mask = torch.zeros(len(table), 1, columns, len(places), dtype=self.dtype, device=table.device)
        mask.masked_fill_((places >= sees[..., None])[:, None], torch.finfo(self.dtype).min)
        return {
            "input_ids": ids,
            "position_ids": positions if self.causal else positions.unflatten(1, (kinds, columns)),
            "attention_mask": mask,
            "past_key_values": _PagedCache(self._slots, write, read),
            "use_cache": True,
        }


class _Size(NamedTuple):
    """Size of a step: number of chunks, tokens of the longest chunk, pages of the longest sequence."""

    rows: int
    columns: int
    pages: int


def _recorded(size: _Size) -> _Size | None:
    """The size of the CUDA graph for a step, which is at least the step's; None: a graph would save no time."""
    columns = 1 << (size.columns - 1).bit_length()
    rows = 1 << (size.rows - 1).bit_length() if size.rows <= 8 else -(-size.rows // 8) * 8
    pages = max(2, 1 << (size.pages - 1).bit_length())
    # For larger steps, the time to launch the kernels does not matter.
    fits = columns <= 8 and rows * columns <= 128 and rows * pages <= 4096
    return _Size(rows, columns, pages) if fits else None


@dataclass
class _Slots:
    """Memory for keys and values.

    Args:
        states: (layers, 2, slots, groups, channels).
        scales: scales of integer states, float32 (layers, 2, slots, groups, 1); None: the states are floats.
    """

    states: Tensor
    scales: Tensor | None = None

    @property
    def count(self) -> int:
        return int(self.states.shape[2])

    def copy(self, source: int, target: int) -> None:
        """Copy one page."""
        for held in (self.states, self.scales):
            if held is not None:
                pages = held.unflatten(2, (-1, PAGE_TOKENS))
                pages[:, :, target] = pages[:, :, source]

    def write(self, layer: int, which: int, slots: Tensor, states: Tensor) -> None:
        """Write keys (`which` is 0) or values (1), (..., groups, channels), to slots (...)."""
        if self.scales is not None:
            width, kept = states.shape[-1], self.states.dtype
            states, self.scales[layer, which, slots] = quantize_inputs(states.float(), width, kept)
        self.states[layer, which, slots] = states.to(self.states)

    def read(self, layer: int, slots: Tensor, dtype: torch.dtype) -> Tensor:
        """Keys and values of slots (...): (2, ..., groups, channels)."""
        seen = self.states[layer][:, slots].to(dtype)
        if self.scales is not None:
            seen = seen * self.scales[layer][:, slots].to(dtype)
        return seen


class _PagedCache(Cache):  # type: ignore[misc]
    """Keys and values of one forward pass: new ones are written to their slots, then all visible ones are read.

    Args:
        slots: the engine's memory.
        write: (B, S): slot of every new token.
        read: (B, T): slots of all tokens of each sequence, in order; those after its end are masked.
    """

    def __init__(self, slots: _Slots, write: Tensor, read: Tensor) -> None:
        super().__init__(layers=[])
        self._slots, self._write, self._read = slots, write, read

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        for which, states in enumerate((key, value)):
            self._slots.write(layer_idx, which, self._write, states.transpose(1, 2))
        seen = self._slots.read(layer_idx, self._read, key.dtype).transpose(2, 3)
        return seen[0], seen[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._read.shape[1] - self._write.shape[1]

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return self._read.shape[1], 0

    @property
    def is_compileable(self) -> bool:
        return False


def _window(config: Any) -> int:
    """The value of `Runner.window`."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and set(kinds) == {"full_attention"}:
        return 0
    sizes = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    return min((size for size in sizes if size), default=0)


def _slots(pages: Sequence[int], start: int, end: int) -> Tensor:
    """Slots of the tokens from `start` to `end` of a sequence."""
    places = torch.arange(start, end)
    return torch.tensor(list(pages))[places // PAGE_TOKENS] * PAGE_TOKENS + places % PAGE_TOKENS


def runner_for(model: Any, store: torch.dtype | None = None, *, adaptable: bool = False) -> Runner:
    """The fastest runner that can run a model.

    Args:
        store: dtype of stored keys and values: float32, float16, int16, int8 (or, with torch, any other float);
            default: float32 for a float32 model, else a type of two bytes.
        adaptable: the model may get adapters later, so the native decoder cannot be used.

    Raises:
        UnsupportedError: the model has multi-head latent attention (DeepSeek).
    """
    # A model with adapters is never run natively: an adapter only on the embedding would not be noticed, and ignored.
    decoder = None if adaptable or hasattr(model, "peft_config") else decoder_of(model, store)
    return TorchRunner(model, store) if decoder is None else NativeRunner(model, decoder)
