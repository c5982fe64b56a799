"""ChatGLM2-6B, ChatGLM3-6B, GLM-4-9B, CharacterGLM-6B and CodeGeeX2-6B: one architecture for different configurations.

Pre-norm blocks with RMSNorm and SwiGLU; grouped key/value heads ("multi-query attention"); rotary positions in
interleaved pairs of channels in the first half of each head. Parameter names are those of the official
`modeling_chatglm.py`.

Shapes in comments: B batch, S new tokens, T all tokens in the cache, H hidden size, N heads, G key/value heads,
D channels of a head. In all tensors the batch is first; caches are (B, G, T, D), as everywhere in `transformers`. In
the official code of ChatGLM2 and ChatGLM3, the sequence is first.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, Cache, GenerationMixin
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    SequenceClassifierOutputWithPast,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from chatglm.chat.generations import Generation, read_generation
from chatglm.models.api import ChatMixin
from chatglm.models.attention import eager_attention, one_token_attention, show_everything_to_padding
from chatglm.models.configuration import ChatGLMConfig
from chatglm.models.positions import rotary_tables
from chatglm.models.pretrained import (
    FamilyModel,
    LanguageModel,
    Past,
    new_tokens,
    remember,
    split_heads,
    with_prefix,
)

__all__ = [
    "ChatGLMForConditionalGeneration",
    "ChatGLMForSequenceClassification",
    "ChatGLMModel",
    "ChatGLMPreTrainedModel",
]

Tables = tuple[Tensor, Tensor] | Tensor
"""Cosines and sines, or both as one complex tensor."""


def rotate(states: Tensor, tables: Tables) -> Tensor:
    """Rotate each pair of channels (2i, 2i+1) in the first half of every head: (B, N, S, D) → (B, N, S, D)."""
    half = states.shape[-1] // 2
    if isinstance(tables, Tensor):
        pairs = torch.view_as_complex(states[..., :half].float().unflatten(-1, (half // 2, 2)))
        turned = torch.view_as_real(pairs * tables).flatten(-2).to(states.dtype)
        return torch.cat((turned, states[..., half:]), dim=-1)
    cos, sin = tables
    even, odd = states[..., 0:half:2], states[..., 1:half:2]
    turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)
    return torch.cat((turned, states[..., half:]), dim=-1)


class RMSNorm(nn.Module):
    """RMS normalisation: x / sqrt(mean(x²) + eps) · weight."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, states: Tensor) -> Tensor:
        return F.rms_norm(states, self.weight.shape, self.weight, self.eps)


class SelfAttention(nn.Module):
    """Attention with N query heads, and G shared key/value heads (multi_query_attention) or N of them."""

    def __init__(self, config: ChatGLMConfig, layer: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer
        self.heads, self.groups, width = config.num_attention_heads, config.multi_query_group_num, config.kv_channels
        self.head_dim = width
        # Read by transformers' attention functions:
        self.num_key_value_groups = self.heads // self.groups
        self.scaling = width**-0.5
        self.is_causal = True
        self.query_key_value = nn.Linear(
            config.hidden_size,
            (self.heads + 2 * self.groups) * width,
            bias=config.add_bias_linear or config.add_qkv_bias,
        )
        self.dense = nn.Linear(self.heads * width, config.hidden_size, bias=config.add_bias_linear)

    def forward(
        self, states: Tensor, mask: Any, tables: Tables, past: Past, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        mixed = self.query_key_value(states)
        if self.config.multi_query_attention:  # rows: all queries, then keys, then values
            width = self.head_dim
            turning, value = mixed.split([(self.heads + self.groups) * width, self.groups * width], dim=-1)
            # Queries and keys are neighbours and have the same angles, so one call rotates both.
            turned = rotate(split_heads(turning, self.heads + self.groups), tables)
            query, key = turned.split([self.heads, self.groups], dim=1)
            value = split_heads(value, self.groups)
        else:  # rows: for each head its query, key and value
            query, key, value = split_heads(mixed, self.heads).chunk(3, dim=-1)
            query, key = rotate(query, tables), rotate(key, tables)
        key, value = remember(past, key, value, self.layer_idx)
        if (
            states.shape[1] == 1
            and self.config._attn_implementation == "sdpa"
            and isinstance(mask, Tensor)
            and key.shape[1] < self.heads
            and not self.training
        ):
            context = one_token_attention(query, key, value, mask, self.scaling)
            return self.dense(context.reshape(*states.shape[:2], -1)), None
        attend: Callable[..., tuple[Tensor, Tensor | None]] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention
        )
        context, weights = attend(
            self,
            query,
            key,
            value,
            mask,
            dropout=self.config.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.dense(context.reshape(*states.shape[:2], -1)), weights


class MLP(nn.Module):
    """SwiGLU: the first half of the rows of `dense_h_to_4h` gates the second half."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, 2 * config.ffn_hidden_size, bias=config.add_bias_linear)
        self.dense_4h_to_h = nn.Linear(config.ffn_hidden_size, config.hidden_size, bias=config.add_bias_linear)

    def forward(self, states: Tensor) -> Tensor:
        gate, up = self.dense_h_to_4h(states).chunk(2, dim=-1)
        gate = F.silu(gate)
        # This is the model's widest tensor. Without gradients, it is multiplied in place.
        return self.dense_4h_to_h(gate * up if torch.is_grad_enabled() else gate.mul_(up))


class GLMBlock(GradientCheckpointingLayer):  # type: ignore[misc]
    """A pre-norm block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: ChatGLMConfig, layer: int) -> None:
        super().__init__()
        self.hidden_dropout = config.hidden_dropout
        self.input_layernorm = RMSNorm(config.hidden_size, config.layernorm_epsilon)
        self.self_attention = SelfAttention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.layernorm_epsilon)
        self.mlp = MLP(config)

    def forward(
        self, states: Tensor, mask: Any, tables: Tables, past: Past, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        attended, weights = self.self_attention(self.input_layernorm(states), mask, tables, past, **kwargs)
        states = states + self._drop(attended)
        return states + self._drop(self.mlp(self.post_attention_layernorm(states))), weights

    def _drop(self, states: Tensor) -> Tensor:
        return F.dropout(states, self.hidden_dropout, self.training) if self.hidden_dropout else states


class ChatGLMPreTrainedModel(FamilyModel):
    """Base of the models in this file."""

    config_class = ChatGLMConfig
    config: ChatGLMConfig
    _supports_flash_attn = True


class _Embedding(nn.Module):
    """Exists for the official name `embedding.word_embeddings`."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.padded_vocab_size, config.hidden_size)


class _Encoder(nn.Module):
    """Exists for the official names `encoder.layers` and `encoder.final_layernorm`."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(GLMBlock(config, layer) for layer in range(config.num_layers))
        self.final_layernorm = RMSNorm(config.hidden_size, config.layernorm_epsilon)


class ChatGLMModel(ChatGLMPreTrainedModel):
    """Embedding, blocks and final norm. It also holds the output head, as in the official checkpoints."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__(config)
        self.embedding = _Embedding(config)
        self.encoder = _Encoder(config)
        self.output_layer = nn.Linear(config.hidden_size, config.padded_vocab_size, bias=config.add_bias_linear)
        self.prefix_encoder = (
            self._make_prefix_encoder(
                heads=config.multi_query_group_num, width=config.kv_channels, hidden=config.hidden_size, embedding=None
            )
            if config.pre_seq_len
            else None
        )
        self.gradient_checkpointing = False
        self.post_init()
        self.freeze_behind_prefix()

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embedding.word_embeddings = value  # type: ignore[assignment]

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
            input_ids: (B, S), or `inputs_embeds` (B, S, H) instead.
            position_ids: (B, S); default: they continue after the tokens in the cache. Without a cache and a mask,
                position 0 begins a packed example, which does not attend to others.
            attention_mask: (B, T) with non-zero for real tokens, or a 4-d mask for the attention implementation.
            past_key_values: the cache of an earlier call; new tokens are appended to it in place.
            use_cache: default: `config.use_cache`, off in training.
            output_hidden_states: return L + 1 hidden states (B, S, H): the input of each block, and the output of the
                last one before the final norm.

        Raises:
            InputError: both or neither of `input_ids` and `inputs_embeds` are given, or the cache is not a
                `transformers.Cache`.
            UnsupportedError: the cache is static, and the model has a P-tuning prefix.
        """
        config = self.config
        states, cache, seen, use_cache = self._begin(input_ids, inputs_embeds, past_key_values, use_cache)
        attention_mask = with_prefix(attention_mask, self.prefix_encoder)
        mask = create_causal_mask(
            config=config,
            inputs_embeds=states,
            attention_mask=attention_mask,
            past_key_values=cache,
            and_mask_function=self._packed(position_ids, attention_mask, past_key_values),
        )
        mask = show_everything_to_padding(mask, attention_mask, states.shape[1])
        if position_ids is None:
            position_ids = torch.arange(states.shape[1], device=states.device)[None] + seen
        tables: Tables = rotary_tables(position_ids, config, states.dtype)
        blocks = self.encoder.layers
        compiled = torch.compiler.is_compiling() or any(block._compiled_call_impl is not None for block in blocks)
        if states.device.type == "cpu" and not compiled:
            tables = torch.complex(tables[0].float(), tables[1].float())  # five times as fast on a CPU in eager mode

        states, hidden, attentions = self._run_blocks(
            blocks,
            states,
            mask,
            tables,
            cache,
            use_cache,
            output_hidden_states,
            output_attentions,
            **kwargs,
        )
        return BaseModelOutputWithPast(
            last_hidden_state=self.encoder.final_layernorm(states),
            past_key_values=cache if use_cache else None,
            hidden_states=None if hidden is None else tuple(hidden),
            attentions=None if attentions is None else tuple(attentions),
        )


class ChatGLMForConditionalGeneration(ChatGLMPreTrainedModel, LanguageModel, ChatMixin, GenerationMixin):  # type: ignore[misc]
    """The chat and base models. `AutoModel`, `AutoModelForCausalLM` and `AutoModelForSeq2SeqLM` load this class."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__(config)
        self.transformer = ChatGLMModel(config)
        self.post_init()
        self.freeze_behind_prefix()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Like `AutoModel.from_pretrained`. It also loads ChatGLM-6B, whose official class has the same name."""
        folder = Path(os.fspath(pretrained_model_name_or_path or "")).joinpath(kwargs.get("subfolder") or "")
        if (folder / "config.json").is_file() and read_generation(folder) == Generation.CHATGLM:
            return AutoModel.from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    def get_output_embeddings(self) -> nn.Module:
        """The output head; its weight is (vocabulary, H)."""
        return self.transformer.output_layer

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the output head by another module."""
        self.transformer.output_layer = new_embeddings  # type: ignore[assignment]

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        past_key_values: Cache | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The inputs of one forward pass, as `transformers` makes them, but with a correct count of P-tuning tokens."""
        prefix = self.transformer.prefix_encoder
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids,
            next_sequence_length=new_tokens(next_sequence_length, past_key_values, prefix, bool(is_first_iteration)),
            past_key_values=past_key_values,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        return inputs


class ChatGLMForSequenceClassification(ChatGLMPreTrainedModel):
    """A classifier: a linear head on the last real token, as in ChatGLM3 and GLM-4 (`classifier_head`)."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.transformer = ChatGLMModel(config)
        self.classifier_head = nn.Linear(config.hidden_size, config.num_labels, bias=True)
        self.dropout = nn.Dropout(config.classifier_dropout) if config.classifier_dropout is not None else None
        self.post_init()
        self.freeze_behind_prefix()

    def forward(
        self,
        input_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutputWithPast | tuple[Any, ...]:
        """Scores of the classes, (B, num_labels), from the last real token of each row.

        Args:
            attention_mask: (B, S) with non-zero for real tokens; None: the last token is real.
            labels: (B,) class numbers, or (B, num_labels) floats, or (B,) floats if there is one label. The loss
                depends on `config.problem_type`; if it is not set, on type and shape of the labels.
        """
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
        states = outputs.last_hidden_state
        if attention_mask is None or attention_mask.ndim != 2:
            pooled = states[:, -1]
        else:
            places = torch.arange(states.shape[1], device=states.device)
            last = (places * (attention_mask[:, -states.shape[1] :] != 0)).argmax(dim=-1)
            pooled = states[torch.arange(states.shape[0], device=states.device), last]
        if self.dropout is not None:
            pooled = self.dropout(pooled)
        logits = self.classifier_head(pooled)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, pooled_logits=logits, config=self.config)
        result = SequenceClassifierOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return result if return_dict in (None, True) and self.config.return_dict else result.to_tuple()
