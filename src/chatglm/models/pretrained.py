"""What both architectures share as `transformers` models: loading, saving, P-tuning, classification."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel, StaticCache

from chatglm.errors import InputError, UnsupportedError
from chatglm.models.checkpoint import check_folder, check_missing
from chatglm.models.prefix import PrefixEncoder

__all__ = ["FamilyModel", "new_tokens", "open_cache", "select_positions", "split_heads", "with_prefix"]


class FamilyModel(PreTrainedModel):  # type: ignore[misc]
    """Base of every model here. `from_pretrained` refuses what it cannot load whole, and runs no code of the folder."""

    base_model_prefix = "transformer"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ["GLMBlock"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    # Rotary tables are computed from the configuration; official checkpoints carry them too.
    _keys_to_ignore_on_load_unexpected = [r"rotary_(pos_)?emb\.inv_freq"]  # noqa: RUF012

    may_be_new: ClassVar[tuple[str, ...]] = ("prefix_encoder.", "classifier_head.")
    """Parts of parameter names that a checkpoint may lack: they are made at random for training."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint folder in its official layout.

        Everything that `transformers` accepts, and the official `device="cuda"` (= `device_map`) and `empty_init`.

        Raises:
            CheckpointError: the folder is missing, incomplete, cut short or not of this family; names the file.
            UnsupportedError, ConfigError: its config.json asks for what is not supported.
        """
        kwargs.pop("trust_remote_code", None)
        kwargs.pop("empty_init", None)
        if (device := kwargs.pop("device", None)) is not None:
            if kwargs.get("device_map") is not None:
                raise InputError("device= and device_map= say the same thing twice; give one of them")
            kwargs["device_map"] = device
        if kwargs.get("quantization_config") is not None or kwargs.get("load_in_8bit") or kwargs.get("load_in_4bit"):
            raise UnsupportedError("loading with quantization_config is not supported yet; load the fp16 weights")
        folder = Path(os.fspath(pretrained_model_name_or_path or "")).joinpath(kwargs.get("subfolder") or "")
        # An adapter's folder names its base model, which transformers fetches and this method then sees.
        only_adapter = (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()
        named = pretrained_model_name_or_path is not None and (
            folder.exists() or _is_path(pretrained_model_name_or_path)
        )
        if named and not only_adapter:
            check_folder(folder)
        asked = kwargs.pop("output_loading_info", False)
        model, info = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        check_missing(str(pretrained_model_name_or_path), info["missing_keys"], cls.may_be_new)
        model.freeze_behind_prefix()
        return (model, info) if asked else model

    def freeze_behind_prefix(self) -> None:
        """With a P-tuning prefix nothing else is trained, as in the official code; without one nothing is changed."""
        if self.config.pre_seq_len:
            for name, parameter in self.named_parameters():
                parameter.requires_grad_("prefix_encoder." in name)

    def _make_prefix_encoder(self, *, heads: int, width: int, hidden: int, embedding: int | None) -> PrefixEncoder:
        config = self.config
        return PrefixEncoder(
            config.pre_seq_len,
            layers=config.num_layers,
            heads=heads,
            width=width,
            projection=hidden if config.prefix_projection else None,
            embedding=embedding,
        )


def _is_path(name: Any) -> bool:
    """Whether a name can only mean a folder, and not a repository `owner/name` of the hub."""
    text = os.fspath(name)
    return text.startswith((".", "~", os.sep)) or text.count("/") != 1 or os.path.isabs(text)


def open_cache(
    cache: Cache | None, use_cache: bool, config: Any, prefix: PrefixEncoder | None, inputs: Tensor
) -> tuple[Cache | None, int]:
    """The cache that a forward pass writes to, the P-tuning prefix at its front, and how many real tokens it holds.

    Args:
        inputs: embeddings (batch, tokens, hidden), for their batch size, dtype and device.

    Raises:
        InputError: `cache` is not a `transformers` cache (the official code's tuples are not accepted).
        UnsupportedError: a static cache together with a P-tuning prefix.
    """
    if cache is not None and not isinstance(cache, Cache):
        raise InputError(
            f"past_key_values is a {type(cache).__name__}; pass the transformers.Cache that an earlier call returned"
        )
    if cache is None and (use_cache or prefix is not None):
        cache = DynamicCache(config=config)
    if cache is None:
        return None, 0
    seen = cache.get_seq_length()
    if prefix is None:
        return cache, seen
    if isinstance(cache, StaticCache):
        raise UnsupportedError("a static cache has no room for a P-tuning prefix; use the dynamic cache (the default)")
    if seen == 0:
        prefix.fill(cache, inputs.shape[0], inputs.dtype, inputs.device)
        return cache, 0
    return cache, seen - prefix.length


def with_prefix(mask: Tensor | None, prefix: PrefixEncoder | None) -> Tensor | None:
    """A padding mask (batch, keys; non-zero = real) extended over the virtual tokens, which everyone sees."""
    if prefix is None or mask is None or mask.ndim != 2:
        return mask
    return torch.cat([mask.new_ones(mask.shape[0], prefix.length), mask], dim=1)


def new_tokens(count: int | None, cache: Cache | None, prefix: PrefixEncoder | None, first: bool) -> int | None:
    """How many of the ids are not in the cache yet. transformers takes the cache's length for theirs, and so counts the
    virtual tokens at its front as ids, when generation starts on a cache that is not empty.
    """
    if first and count is not None and prefix is not None and cache is not None and cache.get_seq_length() > 0:
        return count + prefix.length
    return count


def split_heads(states: Tensor, heads: int) -> Tensor:
    """(batch, tokens, heads × width) as (batch, heads, tokens, width)."""
    return states.view(*states.shape[:2], heads, -1).transpose(1, 2)


def select_positions(states: Tensor, keep: int | Tensor) -> Tensor:
    """The positions of (batch, tokens, hidden) that the output head is asked for: the last `keep`, 0 for all, or those
    that a tensor names, (n,) alike for every row, (batch, n) row by row, or a boolean (batch, tokens).
    """
    if isinstance(keep, int):
        return states[:, -keep:] if keep else states
    if keep.dtype == torch.bool:
        return states[keep]
    return states[:, keep] if keep.ndim == 1 else torch.take_along_dim(states, keep[..., None], dim=1)
