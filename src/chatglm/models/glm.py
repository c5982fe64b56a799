"""ChatGLM-6B: the first generation, a prefix language model with two-dimensional positions.

Before the first `<sop>` (bos), tokens attend to one another in both directions; from there on, a token attends only to
tokens before it. A token has two positions. The first is its position in the prompt; in the generated part, it is
always the position of the `[gMASK]` (or `[MASK]`) that is filled. The second is its position in the generated part, 0
inside the prompt. Each position rotates one half of every head.

Source: Du et al. 2022, "GLM"; parameter names are those of THUDM/chatglm-6b's `modeling_chatglm.py`.

Shapes in comments: B batch, S new tokens, T all tokens in the cache, H hidden size, N heads, D channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Cache, GenerationMixin
from transformers.masking_utils import create_causal_mask, create_masks_for_generate
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from chatglm.errors import InputError, UnsupportedError
from chatglm.models.api import ChatMixin
from chatglm.models.attention import MaskFunction, eager_attention
from chatglm.models.configuration import GLMConfig
from chatglm.models.layout import ALPHA
from chatglm.models.positions import two_row_positions, two_row_tables
from chatglm.models.pretrained import (
    FamilyModel,
    LanguageModel,
    Past,
    new_tokens,
    remember,
    split_heads,
    with_prefix,
)

__all__ = ["GLMForConditionalGeneration", "GLMModel", "GLMPreTrainedModel"]

Tables = tuple[Tensor, Tensor]


def rotate(states: Tensor, tables: Tables) -> Tensor:
    """Rotate both halves of every head, each by its own position, channel i with channel i + D/4: (B, N, S, D)."""
    cos, sin = tables
    first, second = states.unflatten(-1, (2, 2, -1)).unbind(dim=-2)
    return torch.stack((first * cos - second * sin, second * cos + first * sin), dim=-2).flatten(-3)


class SelfAttention(nn.Module):
    """Multi-head attention. The rows of `query_key_value` are, for each head, its query, key and value.

    The official code divides scores by (layer + 1) before an fp16 softmax, and multiplies them again inside it, so that
    they do not overflow. Current kernels keep scores in float32, so both steps are left out.
    """

    def __init__(self, config: GLMConfig, layer: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer
        self.heads = config.num_attention_heads
        self.num_key_value_groups = 1
        self.scaling = (config.hidden_size // self.heads) ** -0.5
        self.is_causal = True
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, states: Tensor, mask: Any, tables: Tables, past: Past, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        query, key, value = split_heads(self.query_key_value(states), self.heads).chunk(3, dim=-1)
        query, key = rotate(query, tables), rotate(key, tables)
        key, value = remember(past, key, value, self.layer_idx)
        attend: Callable[..., tuple[Tensor, Tensor | None]] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention
        )
        context, weights = attend(self, query, key, value, mask, dropout=0.0, scaling=self.scaling, **kwargs)
        return self.dense(context.reshape(*states.shape[:2], -1)), weights


class GLU(nn.Module):
    """The MLP: dense, GELU (tanh form), dense. The name is the official one, though there is no gate."""

    def __init__(self, config: GLMConfig) -> None:
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, config.inner_hidden_size)
        self.dense_4h_to_h = nn.Linear(config.inner_hidden_size, config.hidden_size)

    def forward(self, states: Tensor) -> Tensor:
        return self.dense_4h_to_h(F.gelu(self.dense_h_to_4h(states), approximate="tanh"))


class GLMBlock(GradientCheckpointingLayer):  # type: ignore[misc]
    """y = norm(x); z = αy + attention(y); u = norm(z); αu + mlp(u). The residual is the *normalised* input.

    α is √56 for any number of layers, because the official model never passes its number to the block, whose default is
    28.
    """

    def __init__(self, config: GLMConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.attention = SelfAttention(config, layer)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.mlp = GLU(config)

    def forward(
        self, states: Tensor, mask: Any, tables: Tables, past: Past, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        normed = self.input_layernorm(states)
        attended, weights = self.attention(normed, mask, tables, past, **kwargs)
        normed = self.post_attention_layernorm(normed * ALPHA + attended)
        return normed * ALPHA + self.mlp(normed), weights


class GLMPreTrainedModel(FamilyModel):
    """Base of the models in this file."""

    config_class = GLMConfig
    config: GLMConfig
    # FlashAttention kernels take no mask, and a prefix language model needs one.
    _supports_flash_attn = False


class GLMModel(GLMPreTrainedModel):
    """Embedding, blocks and final norm of ChatGLM-6B."""

    def __init__(self, config: GLMConfig) -> None:
        super().__init__(config)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(GLMBlock(config, layer) for layer in range(config.num_layers))
        self.final_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.prefix_encoder = (
            self._make_prefix_encoder(
                heads=config.num_attention_heads,
                width=config.hidden_size // config.num_attention_heads,
                hidden=config.hidden_size,
                embedding=config.hidden_size,
            )
            if config.pre_seq_len
            else None
        )
        self.gradient_checkpointing = False
        self.post_init()
        self.freeze_behind_prefix()

    def get_input_embeddings(self) -> nn.Module:
        return self.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.word_embeddings = value  # type: ignore[assignment]

    def forward(
        self,
        input_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        attention_mask: Any = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Run the blocks over S new tokens.

        Args:
            input_ids: (B, S), with the whole prompt at once, whose tokens attend to one another; or `inputs_embeds`
                (B, S, H) instead.
            position_ids: (B, 2, S); default: from the ids (`two_row_positions`), which must then be the whole sequence.
                Without a cache and a mask, a token with both positions 0 begins a packed example, which does not attend
                to others.
            attention_mask: (B, T) with non-zero for real tokens; or the official tokenizer's (B, 1, S, T) of booleans,
                True for *masked*; or floats of that shape, added to the scores.
            past_key_values: the cache of an earlier call; new tokens are appended to it in place.
            use_cache: default: `config.use_cache`, off in training.
            output_hidden_states: return the embeddings, the outputs of all blocks except the last, and the output of
                the final norm: L + 1 tensors (B, S, H).

        Raises:
            InputError: both or neither of `input_ids` and `inputs_embeds` are given, positions are missing or have
                another shape, or the cache is not a `transformers.Cache`.
            UnsupportedError: the cache is static, and the model has a P-tuning prefix.
        """
        config = self.config
        states, cache, seen, use_cache = self._begin(input_ids, inputs_embeds, past_key_values, use_cache)
        if position_ids is None:
            if input_ids is None or not isinstance(seen, int) or seen:
                raise InputError(
                    "position_ids of shape (batch, 2, tokens) are needed for embeddings and for tokens that continue a "
                    "cache: ChatGLM-6B's positions depend on where the prompt ends"
                )
            padding = attention_mask if isinstance(attention_mask, Tensor) and attention_mask.ndim == 2 else None
            position_ids = two_row_positions(input_ids, config, padding)
        if position_ids.ndim != 3 or position_ids.shape[1] != 2:
            raise InputError(f"position_ids has shape {tuple(position_ids.shape)}; expected (batch, 2, tokens)")
        position_ids = position_ids.to(states.device)  # `generate` may compute them on the CPU
        packed = self._packed(position_ids, attention_mask, past_key_values)
        mask = self._mask(states, position_ids, with_prefix(attention_mask, self.prefix_encoder), cache, packed)
        tables = two_row_tables(position_ids, config, states.dtype)

        states, hidden, attentions = self._run_blocks(
            self.layers, states, mask, tables, cache, use_cache, output_hidden_states, output_attentions, **kwargs
        )
        states = self.final_layernorm(states)
        return BaseModelOutputWithPast(
            last_hidden_state=states,
            past_key_values=cache if use_cache else None,
            # As in the official code, the last entry is the output of the final norm, not its input.
            hidden_states=None if hidden is None else (*hidden[:-1], states),
            attentions=None if attentions is None else tuple(attentions),
        )

    def _mask(
        self, states: Tensor, position_ids: Tensor, given: Any, cache: Cache | None, packed: MaskFunction | None
    ) -> Any:
        """The mask for the attention implementation in use: causal, but bidirectional inside the prompt."""
        if isinstance(given, Tensor) and given.ndim == 4:
            if self.prefix_encoder is not None and cache is not None:
                # If the caller's mask has no columns for the virtual tokens, all tokens may attend to them.
                lacking = cache.get_mask_sizes(states.shape[1], 0)[0] - given.shape[-1]
                given = F.pad(given, (lacking, 0)) if lacking == self.prefix_encoder.length else given
            if given.dtype != torch.bool:
                return given
            return _open(given.shape, states).masked_fill(given.to(states.device), torch.finfo(states.dtype).min)
        queries = states.shape[1]
        both_ways: Callable[..., Any] | None = None
        if queries > 1:
            seen = int(cache.get_seq_length()) if cache is not None else 0
            total = max(cache.get_mask_sizes(queries, 0)[0], seen + queries) if cache is not None else queries
            in_prompt = torch.zeros(states.shape[0], total, dtype=torch.bool, device=states.device)
            in_prompt[:, seen : seen + queries] = position_ids[:, 1] == 0

            def both_ways(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
                return in_prompt[batch, key]

        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=states,
            attention_mask=given,
            past_key_values=cache,
            or_mask_function=both_ways,
            and_mask_function=packed,
        )
        if queries > 1 and given is not None and isinstance(mask, Tensor) and mask.dtype == torch.bool:
            # The weights of a padding row that attends to nothing must be uniform, as in the official code, and not
            # NaN: the most negative number plus any score is the same number.
            return _open(mask.shape, states).masked_fill(~mask, torch.finfo(states.dtype).min)
        return mask


def _open(shape: torch.Size, states: Tensor) -> Tensor:
    return torch.zeros(shape, dtype=states.dtype, device=states.device)


class GLMForConditionalGeneration(GLMPreTrainedModel, LanguageModel, ChatMixin, GenerationMixin):  # type: ignore[misc]
    """ChatGLM-6B. `AutoModel`, `AutoModelForCausalLM` and `AutoModelForSeq2SeqLM` load this class.

    Embedding and output head share one weight (`tie_word_embeddings`), though official files have it under both names.
    If these differ, the head's is used, as in the official code, which loads it last.
    """

    _tied_weights_keys = {"transformer.word_embeddings.weight": "lm_head.weight"}  # noqa: RUF012

    def __init__(self, config: GLMConfig) -> None:
        super().__init__(config)
        self.transformer = GLMModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()
        self.freeze_behind_prefix()

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.lm_head = new_embeddings  # type: ignore[assignment]

    def tie_weights(self, missing_keys: set[str] | None = None, recompute_mapping: bool = True) -> None:
        """Let embedding and head share one weight. `transformers` calls it after loading, with the missing keys."""
        if missing_keys is not None and self.config.tie_word_embeddings and "lm_head.weight" not in missing_keys:
            missing_keys.add("transformer.word_embeddings.weight")
        super().tie_weights(missing_keys, recompute_mapping)

    # Generation: the loop of transformers, with this model's masks and positions.

    def generate(self, inputs: Tensor | None = None, generation_config: Any = None, **kwargs: Any) -> Any:
        """`generate` of `transformers`. It also accepts the tokenizer's padded batches, whose mask is (B, 1, S, S).

        Raises:
            InputError: a row of ids has no `[gMASK]` or `[MASK]`, or no `<sop>`.
            UnsupportedError: a prefix language model does not support this: `prefill_chunk_size`, `inputs_embeds`, or
                positions that differ from those of the ids.
        """
        mask = kwargs.get("attention_mask")
        if isinstance(mask, Tensor) and mask.ndim == 4:
            # The last token attends to every real token, so its row tells which columns are padding.
            kwargs["attention_mask"] = mask = (~mask[:, 0, -1].bool()).long()
        if kwargs.get("prefill_chunk_size", getattr(generation_config, "prefill_chunk_size", None)) is not None:
            raise UnsupportedError(
                "prefill_chunk_size: ChatGLM-6B reads its prompt in both directions, so it cannot be read in chunks"
            )
        ids = kwargs.get("input_ids", inputs)
        if kwargs.get("inputs_embeds") is not None or ids is None:
            raise UnsupportedError("generate needs input_ids: ChatGLM-6B's positions follow from them")
        given = kwargs.pop("position_ids", None)
        if given is not None and given.ndim == 2:
            given = None  # computed by transformers; assisted decoding passes them to an assistant model
        if given is not None and not torch.equal(given, two_row_positions(ids, self.config, mask).to(given)):
            raise UnsupportedError(
                "position_ids: generate continues the positions that follow from input_ids, and these differ; leave "
                "them out, or call the model step by step"
            )
        return super().generate(inputs, generation_config, **kwargs)

    @staticmethod
    def create_masks_for_generate(
        config: Any, inputs_embeds: Tensor, attention_mask: Tensor | None, *args: Any, **kwargs: Any
    ) -> Any:
        """Called by `transformers` before a forward pass with a static cache, to make the mask outside of the graph."""
        if inputs_embeds.shape[1] > 1:
            return attention_mask  # a prompt's mask depends on its end, so the model makes it
        mask = create_masks_for_generate(config, inputs_embeds, attention_mask, *args, **kwargs)
        if isinstance(mask, Tensor) and mask.dtype == torch.bool:  # booleans would be the official tokenizer's masks
            mask = _open(mask.shape, inputs_embeds).masked_fill(~mask, torch.finfo(inputs_embeds.dtype).min)
        return mask

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        past_key_values: Cache | None = None,
        is_first_iteration: bool | None = False,
        attention_mask: Any = None,
        position_ids: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The inputs of one forward pass, with this model's two positions, which are computed from the ids."""
        prefix = self.transformer.prefix_encoder
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids,
            next_sequence_length=new_tokens(next_sequence_length, past_key_values, prefix, bool(is_first_iteration)),
            past_key_values=past_key_values,
            is_first_iteration=is_first_iteration,
            attention_mask=attention_mask,
            **kwargs,
        )
        padding = attention_mask if isinstance(attention_mask, Tensor) and attention_mask.ndim == 2 else None
        positions = two_row_positions(input_ids, self.config, padding)
        inputs["position_ids"] = positions[..., -inputs["input_ids"].shape[1] :]
        return inputs

    def _native_positions(
        self, input_ids: Tensor | None, seen: int, columns: int, attention_mask: Tensor | None
    ) -> Tensor:
        if input_ids is None or seen:
            raise InputError(
                "position_ids of shape (batch, 2, tokens) are needed for embeddings and for tokens that continue a "
                "cache: ChatGLM-6B's positions depend on where the prompt ends"
            )
        return two_row_positions(input_ids, self.config, attention_mask)
