"""`Embedder` turns texts into vectors, with a model for sentence embeddings."""

from __future__ import annotations

import asyncio
import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from chatglm import hub
from chatglm.encoders.folder import read_encoder
from chatglm.encoders.model import EncoderModel
from chatglm.encoders.parts import behind, dtype_of, pad, transformer
from chatglm.encoders.tokens import MAX_TOKENS, Row, Tokens
from chatglm.errors import InputError, UnsupportedError

__all__ = ["Embedder", "Embeddings"]

MAX_TEXTS = 2048
"""Most texts of one request. OpenAI's API has the same limit."""


@dataclass(frozen=True)
class Embeddings:
    """The vectors of the texts of one request.

    Attributes:
        vectors: a vector of float32 numbers for each text.
        tokens: number of tokens of each text, including control tokens, without tokens that were cut off.
        cut: indices of the texts that were longer than the model's limit.
    """

    vectors: tuple[array[float], ...]
    tokens: tuple[int, ...]
    cut: tuple[int, ...] = ()


class Embedder(EncoderModel):
    """A model that turns texts into vectors, for any number of callers at once. `load` makes it.

    Attributes:
        dimensions: length of a vector.
        sizes: lengths to which vectors may be cut; None: any length; (): none, because the folder does not say that
            the model was trained for it.
        max_tokens: longest text in tokens; longer texts are cut.
        prompts: names of the folder's prompts.
        memory: bytes of the weights.
    """

    def __init__(
        self,
        model: Any,
        tokens: Tokens,
        parts: tuple[Any, Any, int],
        sizes: tuple[int, ...] | None = (),
        prompts: dict[str, str] | None = None,
        default_prompt: str | None = None,
    ) -> None:
        self.dimensions = parts[2]
        self.sizes = sizes
        self._prompts, self._default = prompts or {}, default_prompt
        self.prompts = tuple(self._prompts)
        pooling, rest, _ = parts

        @torch.inference_mode()
        def run(rows: Sequence[Row]) -> Tensor:
            inputs, prompt = pad(rows, model)
            hidden = model(**inputs).last_hidden_state
            return rest(pooling(hidden, inputs["attention_mask"], prompt)).float().cpu()

        super().__init__(model, tokens, run, "chatglm embeddings")

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        device: str = "cpu",
        dtype: str = "auto",
        dimensions: tuple[int, ...] | None = (),
        say: hub.Say | None = None,
    ) -> Embedder:
        """Load the model of a folder.

        Args:
            path: a folder in the layout of sentence-transformers; a bare folder of `transformers`, where the vector of
                a text is the mean of its tokens' vectors; or a repository id, which is downloaded unless it is in the
                cache.
            dtype: of the weights; "auto": float32 on a CPU, float16 on other devices.
            dimensions: lengths to which vectors may be cut, if the folder does not say it; None: any length.
            say: gets a line before something is downloaded.

        Raises:
            CheckpointError, TokenizerError: the folder is missing, incomplete or damaged.
            UnsupportedError: the folder needs a model or a part that is not supported.
        """
        folder = read_encoder(hub.folder(path, "encoder", any_family=True, say=say), "embedding")
        tokens = Tokens(folder)
        parts = behind(folder.parts, folder.shape.hidden_size, device)
        model = transformer(folder, dtype_of(dtype, device), device)
        sizes = folder.dimensions if folder.dimensions != () else dimensions
        return cls(model, tokens, parts, sizes, dict(folder.prompts), folder.default_prompt)

    async def embed(
        self,
        texts: Sequence[str] | Sequence[Sequence[int]],
        *,
        dimensions: int | None = None,
        prompt_name: str | None = None,
        client: str = "",
        field: str = "input",
    ) -> Embeddings:
        """Compute the vector of each text.

        Args:
            texts: at most 2,048 texts, or lists of token ids of this model, including its control tokens.
            dimensions: cut the vectors to this length, and scale them to length 1 again.
            prompt_name: name of the folder's prompt that is put in front of each text; default: the folder's default,
                if any.
            client: identifies the caller; callers share the encoder fairly.
            field: name of the texts in error messages.

        Raises:
            InputError: too many texts or tokens, an empty text, an unknown prompt, ids of another vocabulary, or
                `dimensions` is not between 1 and the length of the model's vectors.
            UnsupportedError: the model was not trained for `dimensions`.
            QueueFullError: too many texts are waiting.
            EngineError: the model has been closed.
            NumericalError: a vector is not finite.
        """
        if not texts or len(texts) > MAX_TEXTS:
            raise InputError(f"{field}: has {len(texts)} texts; from 1 to {MAX_TEXTS:,} are supported")
        self._check_dimensions(dimensions)
        if prompt_name is not None and prompt_name not in self._prompts:
            known = f"it has {', '.join(self.prompts)}" if self.prompts else "it has none"
            raise InputError(f"prompt_name: the model has no prompt {prompt_name!r:.60} ({known})")
        prompt = self._prompts.get(prompt_name or self._default or "", "")
        rows = await asyncio.to_thread(self._rows, texts, prompt, field)
        vectors = await asyncio.wrap_future(self._batches.submit(rows, client))
        if dimensions is not None and dimensions < self.dimensions:
            vectors = torch.nn.functional.normalize(vectors[:, :dimensions], dim=-1)
        return await asyncio.to_thread(_embeddings, vectors, rows)

    def _rows(self, texts: Sequence[str] | Sequence[Sequence[int]], prompt: str, field: str) -> list[Row]:
        several = len(texts) > 1
        if isinstance(texts[0], str):
            for number, text in enumerate(texts):
                if not text:
                    raise InputError(f"{field}{f'[{number}]' if several else ''}: is empty; there is nothing to embed")
            rows = self.tokenizer.texts(texts, prompt)  # type: ignore[arg-type]
        else:
            rows = [
                self.tokenizer.row(ids, f"{field}[{number}]" if several else field)  # type: ignore[arg-type]
                for number, ids in enumerate(texts)
            ]
        total = sum(len(row.ids) for row in rows)
        if total > MAX_TOKENS:
            raise InputError(
                f"{field}: has more than {MAX_TOKENS:,} tokens, which is the most for one request. Send the texts in "
                "several requests."
            )
        return rows

    def _check_dimensions(self, wanted: int | None) -> None:
        if wanted is None or wanted == self.dimensions:
            return
        if not 1 <= wanted <= self.dimensions:
            raise InputError(f"dimensions: is {wanted}; this model's vectors have {self.dimensions}")
        if self.sizes is not None and wanted not in self.sizes:
            sizes = ", ".join(map(str, self.sizes))
            raise UnsupportedError(
                f"dimensions: this model's vectors have {self.dimensions} numbers, and "
                + (f"may be cut to {sizes}" if sizes else "it was not trained for shorter ones; leave it out")
            )


def _embeddings(vectors: Tensor, rows: Sequence[Row]) -> Embeddings:
    data = array("f", vectors.contiguous().numpy().tobytes())
    width = vectors.shape[1]
    return Embeddings(
        tuple(data[start : start + width] for start in range(0, len(data), width)),
        tuple(len(row.ids) for row in rows),
        tuple(number for number, row in enumerate(rows) if row.cut),
    )
