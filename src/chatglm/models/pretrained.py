"""Common base classes of both architectures as `transformers` models: loading, adapters, P-tuning, generation."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from transformers import Cache, DynamicCache, PreTrainedConfig, PreTrainedModel, StaticCache
from transformers.generation.configuration_utils import GenerationMode
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import is_flash_attn_2_available

from chatglm.errors import CheckpointError, ConfigError, InputError, UnsupportedError
from chatglm.kernels.native import torch_on_one_thread
from chatglm.models.adapters import Adapter, check_matches, read_adapter, remember_frozen, take_off
from chatglm.models.attention import MaskFunction, packed_examples
from chatglm.models.checkpoint import check_folder, check_missing, named_folder
from chatglm.models.configuration import QUANTIZER, check_quantizer
from chatglm.models.fields import check_attention, check_dtype
from chatglm.models.fit import check_fit
from chatglm.models.generation_config import read_generation_config
from chatglm.models.layout import DecoderMixin
from chatglm.models.native import DECODER, NativeCache, decoder_of, step
from chatglm.models.prefix import PrefixEncoder
from chatglm.models.weights import mapped

__all__ = [
    "FamilyModel",
    "LanguageModel",
    "Past",
    "new_tokens",
    "remember",
    "select_positions",
    "split_heads",
    "with_prefix",
]


class FamilyModel(PreTrainedModel):  # type: ignore[misc]
    """Base of all models here. `from_pretrained` refuses incomplete folders, and never runs code of a folder."""

    base_model_prefix = "transformer"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ["GLMBlock"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    # Rotary tables are computed from the configuration. Official checkpoints contain them, too.
    _keys_to_ignore_on_load_unexpected = [r"rotary_(pos_)?emb\.inv_freq"]  # noqa: RUF012

    may_be_new: ClassVar[tuple[str, ...]] = ("prefix_encoder.", "classifier_head.")
    """Parts of the names of parameters that a checkpoint may lack. They are initialised at random, for training."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint folder in its official layout.

        It accepts all arguments of `transformers`, and the official `device="cuda"` (= `device_map`) and `empty_init`.

        Raises:
            CheckpointError: the folder is missing, incomplete, damaged or not of this family; names the file.
            ConfigError: its config.json has a wrong value.
            UnsupportedError: its config.json or an argument asks for something that is not supported.
            InputError: an option does not exist, `device` and `device_map` are both given, or weights cannot have the
                given `dtype`.
        """
        kwargs.pop("trust_remote_code", None)
        kwargs.pop("empty_init", None)
        _refuse_others_code(kwargs)
        if (device := kwargs.pop("device", None)) is not None:
            if kwargs.get("device_map") is not None:
                raise InputError("device= and device_map= say the same thing twice; give one of them")
            kwargs["device_map"] = device
        if (given := kwargs.get("quantization_config")) is not None:
            check_quantizer(given, "from_pretrained")
        for name in ("load_in_8bit", "load_in_4bit"):
            if kwargs.get(name):
                raise UnsupportedError(f"{name}: bitsandbytes is not supported for this family; use model.quantize(4)")
        folder = Path(os.fspath(pretrained_model_name_or_path or "")).joinpath(kwargs.get("subfolder") or "")
        # An adapter's folder names its base model. transformers loads that model by calling this method again.
        only_adapter = (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()
        if (
            pretrained_model_name_or_path is not None
            and named_folder(pretrained_model_name_or_path)
            and not only_adapter
        ):
            kwargs.setdefault("generation_config", cls._check_folder(folder, kwargs))
        asked = kwargs.pop("output_loading_info", False)
        try:
            model, info = super().from_pretrained(
                pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs
            )
        except TypeError as error:  # transformers gives the model's class all options that it does not know itself
            if (found := _UNKNOWN.search(str(error))) is None or found[1] not in kwargs:
                raise
            raise InputError(
                f"there is no option {found[1]!r}; the options are those of from_pretrained in transformers, such as "
                "dtype, device_map and quantization_config. To quantise: model.quantize(4), or `chatglm quantize`"
            ) from None
        check_missing(str(pretrained_model_name_or_path), info["missing_keys"], cls.may_be_new)
        model.freeze_behind_prefix()
        return (model, info) if asked else model

    @classmethod
    def _check_folder(cls, folder: Path, asked: dict[str, Any]) -> Any:
        """Check that the folder's weights are complete and fit its configuration.

        Args:
            asked: keyword arguments of `from_pretrained`.

        Returns:
            the folder's generation_config.json, checked.

        Raises:
            CheckpointError, ConfigError, UnsupportedError: see `from_pretrained`.
        """
        tensors = check_folder(folder)
        config = asked.get("config")
        if not isinstance(config, PreTrainedConfig):
            fields = {field.name for field in dataclasses.fields(cls.config_class)} | set(
                cls.config_class.attribute_map
            )
            changed = {name: value for name, value in asked.items() if name in fields and name != "dtype"}
            config = cls.config_class.from_pretrained(folder if config is None else config, **changed)
        mismatched = cls.may_be_new if asked.get("ignore_mismatched_sizes") else ()
        if asked.get("key_mapping") is None:
            check_fit(folder, config, tensors, mismatched)
        return read_generation_config(folder, config)

    def _check_and_adjust_attn_implementation(self, attn_implementation: Any, *args: Any, **kwargs: Any) -> Any:
        """Called by transformers before it uses, or downloads, an attention implementation."""
        check_attention(attn_implementation)
        if attn_implementation == "flash_attention_2" and not is_flash_attn_2_available():
            raise UnsupportedError(
                "attn_implementation='flash_attention_2' needs the flash-attn package: pip install flash-attn, or use "
                "'sdpa'"
            )
        return super()._check_and_adjust_attn_implementation(attn_implementation, *args, **kwargs)

    def load_adapter(
        self, peft_model_id: Any = None, adapter_name: str | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Put an adapter on the layers, as in `transformers`. The adapter of a folder is checked first. After an error,
        the model is unchanged.

        Raises:
            CheckpointError, ConfigError, UnsupportedError: the folder's adapter is damaged, was made for another model,
                or is not supported.
            DependencyError: `peft` is not installed.
        """
        if peft_model_id is None or not named_folder(peft_model_id) or kwargs.get("peft_config") is not None:
            return super().load_adapter(peft_model_id, adapter_name, *args, **kwargs)
        adapter = read_adapter(self, Path(os.fspath(peft_model_id)))
        # PEFT saves DoRA's magnitudes without the end of their name, so transformers would not find them.
        tensors = {
            f"{name}.weight" if name.endswith(".lora_magnitude_vector") else name: tensor
            for name, tensor in mapped([adapter.weights]).items()
        }
        kwargs |= {"peft_config": adapter.config, "adapter_state_dict": tensors}
        kwargs.pop("adapter_kwargs", None)
        name = adapter_name or "default"
        had = name in getattr(self, "peft_config", ())  # then it is replaced, or refused
        active, restore = self.active_adapters() if hasattr(self, "peft_config") else [], remember_frozen(self)
        try:
            info = super().load_adapter(None, adapter_name, *args, **kwargs)
            check_matches(adapter, self, type(self).__name__, name)
        except BaseException as error:
            if had:
                raise
            misfit = _misfit(adapter, self, name) if isinstance(error, RuntimeError) else None
            if active:
                self.set_adapter(active)
            take_off(self, name)
            if configs := getattr(self, "peft_config", None):
                configs.pop(name, None)
            if not configs:
                self.__dict__.pop("peft_config", None)
                self._hf_peft_config_loaded = False
            restore()
            if misfit is not None:
                raise misfit from None
            if isinstance(error, ValueError):
                raise CheckpointError(f"{adapter.folder}: {' '.join(str(error).split()):.300}") from None
            raise
        return info

    def freeze_behind_prefix(self) -> None:
        """If the model has a P-tuning prefix, freeze everything else, as in the official code."""
        if self.config.pre_seq_len:
            for name, parameter in self.named_parameters():
                parameter.requires_grad_("prefix_encoder." in name)

    def quantize(
        self,
        bits: int,
        empty_init: bool = False,
        device: Any = None,
        *,
        group_size: int = 0,
        head: bool = False,
        embedding: bool = False,
        **others: Any,
    ) -> Any:
        """Quantise the weights of the linear layers to integers of `bits` bits, in place, as in the official code.
        Returns the model.

        Args:
            bits: 4 or 8; 0 changes nothing.
            empty_init: the official argument; it has no effect.
            device: device of the quantised model; default: the model's device. No GPU is needed.
            group_size: number of columns that share a scale: 32, 64 or 128; default: 0, the official scheme, with one
                scale for each row.
            head, embedding: also quantise the output head, and the input embedding (officially neither).
            others: the official `quantize_embeddings` (both of these) and `use_quantization_cache` (no effect).

        Raises:
            InputError: the model is quantised already; a weight cannot be quantised, for example because it has NaN; or
                there is no such argument, number of bits or group size. The model is unchanged then.
        """
        from transformers.quantizers.auto import AutoHfQuantizer

        others.pop("use_quantization_cache", None)
        if others.pop("quantize_embeddings", False):
            head = embedding = True
        if others:
            raise InputError(f"quantize has no argument {sorted(others)[0]!r}")
        if bits:
            # The quantiser comes from the registry of transformers, because this package must not import it.
            about = {"bits": bits, "group_size": group_size, "head": head, "embedding": embedding}
            AutoHfQuantizer.from_config({"quant_method": QUANTIZER, **about}, pre_quantized=False).quantize_(
                self, device
            )
        return self if device is None else self.to(device)

    # The common part of both backbones' forward pass

    prefix_encoder: PrefixEncoder | None
    gradient_checkpointing: bool

    def _begin(
        self, input_ids: Tensor | None, inputs_embeds: Tensor | None, cache: Cache | None, use_cache: bool | None
    ) -> tuple[Tensor, Cache | None, int, bool]:
        """Prepare a forward pass.

        Returns:
            the embeddings (B, S, H); the cache, with a P-tuning prefix at its front; the number of real tokens in it;
                and whether the blocks write to it, which is so if the caller requests it or gave the cache.

        Raises:
            InputError: both or neither of ids and embeddings are given, or the cache is not a `transformers.Cache`.
            UnsupportedError: the cache is static, and the model has a P-tuning prefix.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise InputError("give either input_ids or inputs_embeds to the model")
        if cache is not None and not isinstance(cache, Cache):
            raise InputError(
                f"past_key_values is a {type(cache).__name__}; pass the transformers.Cache of an earlier call"
            )
        states: Tensor = self.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds
        if self.gradient_checkpointing and self.training:
            use_cache = False  # blocks run twice, and would write twice
        elif cache is not None:
            use_cache = True
        elif use_cache is None:
            use_cache = self.config.use_cache and not self.training
        prefix = self.prefix_encoder
        if cache is None and (use_cache or prefix is not None):
            cache = DynamicCache(config=self.config)
        seen = 0 if cache is None else cache.get_seq_length()
        if prefix is not None and cache is not None:
            if isinstance(cache, StaticCache):
                raise UnsupportedError(
                    "a static cache has no room for a P-tuning prefix; use the dynamic cache (the default)"
                )
            if seen == 0:
                prefix.fill(cache, states.shape[0], states.dtype, states.device)
            else:
                seen -= prefix.length
        return states, cache, seen, bool(use_cache)

    def _packed(self, position_ids: Tensor | None, mask: Any, given: Cache | None) -> MaskFunction | None:
        """The mask of packed examples; None if the caller gave a mask or a cache, or no examples are packed."""
        if mask is not None or given is not None:
            return None
        prefix = self.prefix_encoder.length if self.prefix_encoder is not None else 0
        return packed_examples(position_ids, prefix, self.config._attn_implementation)

    def _run_blocks(
        self,
        blocks: Iterable[nn.Module],
        states: Tensor,
        mask: Any,
        tables: Any,
        cache: Cache | None,
        use_cache: bool,
        output_hidden_states: bool | None,
        output_attentions: bool | None,
        **kwargs: Any,
    ) -> tuple[Tensor, list[Tensor] | None, list[Tensor | None] | None]:
        """Run the blocks.

        Args:
            states: (B, S, H).

        Returns:
            the last block's output (B, S, H); the inputs of all blocks and the last output, if requested; the attention
                weights of all blocks, if requested.
        """
        config = self.config
        keep = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        keep_weights = config.output_attentions if output_attentions is None else output_attentions
        trail, attentions = [states], []
        with _attention_of(states):
            for number, block in enumerate(blocks):
                # A cache that must not be written to (a prefix in training) is only read.
                reads = cache is not None and not use_cache
                past = (
                    (cache.layers[number].keys, cache.layers[number].values) if cache is not None and reads else cache
                )
                states, weights = block(states, mask, tables, past, **kwargs)
                if keep:
                    trail.append(states)
                if keep_weights:
                    attentions.append(weights)
        return states, trail if keep else None, attentions if keep_weights else None

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


class LanguageModel(FamilyModel, DecoderMixin):
    """The forward pass of both conditional-generation models, which returns scores of the next token."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        attention_mask: Any = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        return_last_logit: bool | None = False,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Scores of the next token. For arguments that are not described here, see the backbone's `forward`.

        Args:
            labels: (B, S); the loss is the mean cross entropy of each token given those before it; −100 is ignored.
            num_items_in_batch: divisor of the sum of the losses; default: the number of learned positions.
            logits_to_keep: the output head gets only the last n positions (0: all), or the positions in a tensor.
            return_last_logit: the official name of `logits_to_keep=1`.
            kwargs: `shift_labels`, (B, S), instead of `labels`: the id that each position must predict; −100: nothing
                is learned there. Only learned positions go through the output head, and `logits` is None: with a
                vocabulary of 65024, the other scores would take most of a training step's memory. It is not a named
                parameter, because `transformers.Trainer` requires every parameter with "label" in its name for the
                evaluation.

        Returns:
            logits (B, S or n, vocabulary) in the weights' dtype, loss, the cache, and L + 1 hidden states.

        Raises:
            InputError: `labels` and `shift_labels` are both given. Also the errors of the backbone's `forward`.
            UnsupportedError: a cache of the native decoder is used together with labels, hidden states or attention
                weights.
        """
        shift_labels: Tensor | None = kwargs.pop("shift_labels", None)
        if isinstance(past_key_values, NativeCache):
            asked: dict[str, Any] = {"labels": labels, "shift_labels": shift_labels}
            asked |= {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
            if given := [name for name, value in asked.items() if value is not None and value is not False]:
                raise UnsupportedError(
                    f"{given[0]}: not supported with a cache of the native decoder; use a DynamicCache"
                )
            scores = self._native_step(
                past_key_values,
                self.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds,
                input_ids,
                position_ids,
                attention_mask,
                1 if return_last_logit else logits_to_keep,
            )
            native = CausalLMOutputWithPast(logits=scores, past_key_values=past_key_values)
            return native if return_dict in (None, True) and self.config.return_dict else native.to_tuple()
        if shift_labels is not None and past_key_values is None and use_cache is None:
            use_cache = False  # no text is generated after a loss
        outputs = self.transformer(
            input_ids=input_ids,
            position_ids=position_ids,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            **kwargs,
        )
        loss, logits = None, None
        if shift_labels is not None:
            if labels is not None:
                raise InputError("labels and shift_labels: give one of them")
            loss = self._loss_of_learned(outputs.last_hidden_state, shift_labels, num_items_in_batch)
        else:
            states = select_positions(outputs.last_hidden_state, 1 if return_last_logit else logits_to_keep)
            logits = self.get_output_embeddings()(states)
        if labels is not None:
            loss = self.loss_function(
                logits=logits,
                labels=labels,
                vocab_size=self.config.vocab_size,
                num_items_in_batch=num_items_in_batch,
                **kwargs,
            )
        result = CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return result if return_dict in (None, True) and self.config.return_dict else result.to_tuple()

    # Generation by the native decoder

    def __getstate__(self) -> dict[str, Any]:
        """The state for a copy or a pickle, without the native decoder, which has addresses of this model's weights."""
        return {name: value for name, value in self.__dict__.items() if name != DECODER}

    def _native_positions(
        self, input_ids: Tensor | None, seen: int, columns: int, attention_mask: Tensor | None
    ) -> Tensor:
        """Positions of the new columns if the caller gives none: (1, S), or (B, 2, S) for ChatGLM-6B."""
        return torch.arange(seen, seen + columns)[None]

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], generation_mode: Any, batch_size: int, *rest: Any
    ) -> Any:
        """Called by `generate` to make a cache: one of the native decoder if it supports all options."""
        options = generation_config
        plain = (
            model_kwargs.get("past_key_values") is None
            and options.use_cache is not False
            and options.cache_implementation is None
            and generation_mode in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE)
            and not (options.output_attentions or options.output_hidden_states)
            and not (self.config.output_attentions or self.config.output_hidden_states)
            and not (self.training or self.config.pre_seq_len)
            and getattr(model_kwargs.get("attention_mask"), "ndim", 2) == 2
        )
        decoder = decoder_of(self, packed=True) if plain else None
        if decoder is None:
            return super()._prepare_cache_for_generation(
                generation_config, model_kwargs, generation_mode, batch_size, *rest
            )
        model_kwargs["past_key_values"] = NativeCache(decoder, batch_size * (options.num_return_sequences or 1))
        return None

    def _sample(self, *args: Any, **kwargs: Any) -> Any:
        """Called by `generate` for greedy and sampled text."""
        with torch_on_one_thread() if isinstance(kwargs.get("past_key_values"), NativeCache) else nullcontext():
            return super()._sample(*args, **kwargs)

    def _native_step(
        self,
        cache: NativeCache,
        embeddings: Tensor,
        input_ids: Tensor | None,
        position_ids: Tensor | None,
        attention_mask: Tensor | None,
        keep: int | Tensor,
    ) -> Tensor:
        columns, seen = embeddings.shape[1], cache.get_seq_length()
        if position_ids is None:
            position_ids = self._native_positions(input_ids, seen, columns, attention_mask)
        if position_ids.shape[0] == 1:
            position_ids = position_ids.expand(embeddings.shape[0], *position_ids.shape[1:])
        places = torch.arange(columns)
        wanted = places[keep] if isinstance(keep, Tensor) else places[-keep:]
        prompt = position_ids[:, 1] == 0 if position_ids.ndim == 3 else None
        return step(
            cache,
            embeddings.detach(),
            self.rotary_angles(position_ids),
            attention_mask,
            None if prompt is None or seen else prompt,
            wanted.tolist(),
        )

    def _loss_of_learned(self, states: Tensor, targets: Tensor, count: Tensor | int | None) -> Tensor:
        """Mean cross entropy in float32 at the learned positions. If there are many, it is computed in pieces, whose
        scores are computed again in the backward pass.

        Args:
            states: (B, S, H).
            targets: (B, S); −100 where nothing is learned.
            count: divisor; None: the number of learned positions.
        """
        learned = targets != -100
        states, targets = states[learned], targets[learned].to(states.device)
        head = self.get_output_embeddings()

        def summed(part: Tensor, wanted: Tensor) -> Tensor:
            return F.cross_entropy(head(part).float(), wanted, reduction="sum")

        size = max(1, _SCORES_AT_ONCE // self.config.vocab_size)
        if len(targets) <= size:
            total = summed(states, targets)
        else:
            parts = zip(states.split(size), targets.split(size), strict=True)
            total = torch.stack([checkpoint(summed, *part, use_reentrant=False) for part in parts]).sum()
        number: Any = max(len(targets), 1) if count is None else count
        return total / (number.to(total.device) if isinstance(number, Tensor) else number)


_UNKNOWN = re.compile(r"__init__\(\) got an unexpected keyword argument '(\w+)'")

_SCORES_AT_ONCE = 1 << 25
"""Most scores of the vocabulary in memory at a time in training: 128 MiB in float32."""


_OF_OTHERS = ("use_kernels", "kernel_config", "allow_all_kernels", "fusion_config", "gguf_file")


def _misfit(adapter: Adapter, model: Any, name: str) -> CheckpointError | None:
    """The error about an adapter's tensors that do not fit the model; None if all of them fit."""
    try:
        check_matches(adapter, model, type(model).__name__, name)
    except CheckpointError as error:
        return error
    return None


def _refuse_others_code(asked: dict[str, Any]) -> None:
    """Check the keyword arguments of `from_pretrained`.

    Raises:
        UnsupportedError: with an option, transformers would download and run code, or unpickle objects.
        InputError: weights cannot have the requested type.
    """
    for name in _OF_OTHERS:
        if asked.get(name):
            raise UnsupportedError(f"{name} is not supported for this family; leave it out")
    if asked.get("weights_only") is False:
        raise UnsupportedError("weights_only=False would run code from the weight files; leave it out")
    if "attn_implementation" in asked:
        check_attention(asked["attn_implementation"])
    for name in ("dtype", "torch_dtype"):
        if (dtype := asked.get(name)) not in (None, "auto"):
            try:
                check_dtype(dtype)
            except ConfigError as error:
                raise InputError(str(error)) from None


_UNPLANNED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def _attention_of(states: Tensor) -> AbstractContextManager[None]:
    """A context that limits which of torch's attention kernels may run on new tokens, (B, S, H).

    On Hopper GPUs, torch prefers cuDNN's kernel, which makes a plan for every new number of keys. This takes about 30
    ms, and when one token is generated at a time, the number is always new. In a CUDA graph it does not change.
    """
    alone = states.is_cuda and states.shape[1] == 1 and not torch.compiler.is_compiling()
    return sdpa_kernel(_UNPLANNED) if alone and not torch.cuda.is_current_stream_capturing() else nullcontext()


Past: TypeAlias = Cache | tuple[Tensor, Tensor] | None
"""Earlier keys and values of a block: a cache that it writes to, keys and values that it only reads, or None."""


def remember(past: Past, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """Put earlier keys and values in front of new ones, all (batch, heads, tokens, channels)."""
    if past is None:
        return key, value
    if isinstance(past, tuple):
        return torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
    updated: tuple[Tensor, Tensor] = past.update(key, value, layer)
    return updated


def with_prefix(mask: Tensor | None, prefix: PrefixEncoder | None) -> Tensor | None:
    """Extend a padding mask (batch, keys; non-zero = real) by the virtual tokens in front, which are always real."""
    if prefix is None or mask is None or mask.ndim != 2:
        return mask
    return torch.cat([mask.new_ones(mask.shape[0], prefix.length), mask], dim=1)


def new_tokens(count: int | None, cache: Cache | None, prefix: PrefixEncoder | None, first: bool) -> int | None:
    """Correct the number of ids that are not in the cache yet. If generation starts with a cache that is not empty,
    transformers computes it from the cache's length, and so counts the virtual tokens at its front as ids.
    """
    if first and count is not None and prefix is not None and cache is not None and cache.get_seq_length() > 0:
        return count + prefix.length
    return count


def split_heads(states: Tensor, heads: int) -> Tensor:
    """Split heads: (batch, tokens, heads × width) → (batch, heads, tokens, width)."""
    return states.view(*states.shape[:2], heads, -1).transpose(1, 2)


def select_positions(states: Tensor, keep: int | Tensor) -> Tensor:
    """Select the positions of (batch, tokens, hidden) for the output head.

    Args:
        keep: number of last positions (0: all); or a tensor of positions, (n,) for all rows or (batch, n); or a boolean
            tensor (batch, tokens).

    Returns:
        (batch, n, hidden); for a boolean tensor (selected, hidden).
    """
    if isinstance(keep, int):
        return states[:, -keep:] if keep else states
    if keep.dtype == torch.bool:
        return states[keep]
    return states[:, keep] if keep.ndim == 1 else torch.take_along_dim(states, keep[..., None], dim=1)
