"""Configurations for every official config.json of the family, with the official field names.

All these files have `"model_type": "chatglm"`. `ChatGLMConfig` describes ChatGLM2, ChatGLM3, GLM-4 and models derived
from them; `GLMConfig` describes ChatGLM-6B. `ChatGLMConfig.from_dict`, and so `AutoConfig`, returns the class that
fits. The Auto classes choose a model by the type of its configuration, so they choose the right architecture.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from transformers import PreTrainedConfig
from transformers.utils import is_flash_attn_2_available

from chatglm.chat.generations import CONFIG_KEY, Generation, detect_generation, read_generation
from chatglm.errors import ConfigError, UnsupportedError
from chatglm.models.fields import ATTENTION, check_attention, check_dtype, check_fields, check_labels

__all__ = ["ChatGLMConfig", "GLMConfig", "check_quantizer"]

QUANTIZER = "chatglm"
"""Name under which the quantiser is registered with `transformers`."""


def check_quantizer(given: Any, where: str) -> None:
    """Check that a `quantization_config` is for this package's quantiser.

    Args:
        where: where it was given, for errors.

    Raises:
        UnsupportedError: it is for another quantiser.
    """
    method = given.get("quant_method") if isinstance(given, dict) else getattr(given, "quant_method", None)
    if str(getattr(method, "value", method)) != QUANTIZER:
        raise UnsupportedError(
            f"{where}: quant_method {getattr(method, 'value', method)!r} in quantization_config is not supported for "
            "this family; load the original weights, and use model.quantize(4) or `chatglm quantize` for fewer bits"
        )


# What a folder's config.json may contain in addition to the fields of its class. Everything else is kept and saved
# again, but does not become an attribute of the configuration: transformers uses many names (auto_map,
# transformers_weights, fusion_config, custom_pipelines …), and for some it loads or runs files.
_OF_TRANSFORMERS = frozenset({"torch_dtype", "num_labels", "quantization_config", "name_or_path", "output_attentions"})
_OWN = frozenset({"quantization_embeddings"})
_NEVER_SAVED = frozenset({"transformers_weights", "configuration_files", "attn_implementation"})


def _as_official(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields for a folder in the official layout: the same as in official folders."""
    about = fields.get("quantization_config")
    if isinstance(about, dict) and about.get("scheme") == "official":
        plain = not (about.get("modules_to_not_convert") or about.get("head") != about.get("embedding"))
        if plain:
            del fields["quantization_config"]
            fields["quantization_bit"] = about["bits"]
            if about.get("embedding"):
                fields["quantization_embeddings"] = True
    return fields


def _with_others(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields for config.json, including those that this package does not know."""
    others = fields.pop("unknown_fields", None) or {}
    return {**{name: value for name, value in others.items() if name not in _NEVER_SAVED}, **fields}


def _known(cls: type[PreTrainedConfig], given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide a folder's config.json into the fields of a configuration and the rest."""
    names = {field.name for field in dataclasses.fields(cls)} | _OF_TRANSFORMERS | _OWN  # type: ignore[arg-type]
    known = {name: value for name, value in given.items() if name in names}
    for alias, name in cls.attribute_map.items():
        if alias in given:
            known.setdefault(name, given[alias])
    if given.get("_name_or_path"):
        known.setdefault("name_or_path", str(given["_name_or_path"]))
    attention = given.get("attn_implementation", given.get("_attn_implementation"))
    if attention in ATTENTION and (attention != "flash_attention_2" or is_flash_attn_2_available()):
        known["attn_implementation"] = attention
    ours = {*names, *cls.attribute_map, "model_type"}
    others = {name: value for name, value in given.items() if name not in ours and not name.startswith("_")}
    return known, others


class _FamilyConfig(PreTrainedConfig):
    """The common part of both configurations: P-tuning fields, the generation, and checks."""

    model_type: ClassVar[str] = "chatglm"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]

    when_made: ClassVar[list[Callable[[], None]]] = []
    """Functions that are called whenever a configuration is made (`registration.py` registers the models then)."""

    pre_seq_len: int | None = None
    prefix_projection: bool = False
    quantization_bit: int = 0
    use_cache: bool = True
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    official_half_rope: bool = False
    chatglm_generation: str | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        for alias, name in self.attribute_map.items():
            if alias in kwargs:
                setattr(self, name, kwargs.pop(alias))
        self._check(kwargs)
        clues = {**kwargs, **{k: v for k, v in vars(self).items() if not k.startswith("_")}}
        self.chatglm_generation = detect_generation(clues, folder=str(kwargs.get("name_or_path", ""))).value
        # AutoTokenizer reads it if a folder has no tokenizer_config.json.
        kwargs.setdefault(
            "tokenizer_class", "ChatGLM4Tokenizer" if self.generation == Generation.GLM4 else "ChatGLMTokenizer"
        )
        if (quantized := self._quantization(kwargs)) is not None:
            kwargs["quantization_config"] = quantized
        super().__post_init__(**kwargs)
        for callback in self.when_made:
            callback()
        if self.pre_seq_len is not None and self.pre_seq_len < 1:
            raise ConfigError(f"pre_seq_len is {self.pre_seq_len}; it must be a positive number of virtual tokens")

    def _check(self, others: dict[str, Any]) -> None:
        """Check types and values.

        Args:
            others: given values that are not fields.
        """
        check_fields(self)
        check_labels(self, others.get("num_labels"))
        for dtype in (self.dtype, others.get("torch_dtype")):
            if dtype is not None:
                check_dtype(dtype)
        for name in ("quantization_embeddings", "output_attentions"):
            if not isinstance(others.get(name), bool | None):
                raise ConfigError(f"config.json: {name} is {others[name]!r:.60}; it must be true or false")

    def _set_attention(self, value: Any) -> None:
        check_attention(value)
        PreTrainedConfig._attn_implementation.fset(self, value)

    # The getter is still that of transformers, which torch.compile can trace.
    _attn_implementation = PreTrainedConfig._attn_implementation.setter(_set_attention)

    @property
    def generation(self) -> Generation:
        """The generation whose prompts the checkpoint was trained on."""
        return Generation(self.chatglm_generation)

    def _quantization(self, fields: dict[str, Any]) -> Any:
        """The `quantization_config` for the quantiser `chatglm`, from a config.json in any form; None: not quantised.

        Raises:
            ConfigError: `quantization_bit` is neither 0, 4 nor 8.
            UnsupportedError: the folder was made with another quantiser.
        """
        given = fields.get("quantization_config")
        if given is None:
            if not self.quantization_bit:
                return None
            if self.quantization_bit not in (4, 8):
                raise ConfigError(f"config.json: quantization_bit is {self.quantization_bit!r}; it must be 4 or 8")
            both = bool(fields.get("quantization_embeddings"))  # ChatGLM-6B-int4-qe: embedding and head, one weight
            about = {
                "scheme": "official",
                "bits": self.quantization_bit,
                "group_size": 0,
                "head": both,
                "embedding": both,
            }
            return {"quant_method": QUANTIZER, "version": 1, **about}
        method = given.get("quant_method") if isinstance(given, dict) else getattr(given, "quant_method", None)
        if method == "gptq" and isinstance(given, dict):
            return {**given, "quant_method": QUANTIZER, "scheme": "gptq", "version": 1}
        check_quantizer(given, "config.json")
        return {"version": 1, **given} if isinstance(given, dict) else given

    def to_dict(self) -> dict[str, Any]:
        return _with_others(_as_official(super().to_dict()))

    def to_diff_dict(self) -> dict[str, Any]:
        return _with_others(_as_official(super().to_diff_dict()))

    def _require(self, **positive: int) -> None:
        for name, value in positive.items():
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"config.json: {name} is {value!r}; it must be a positive integer")

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Make the configuration of a config.json: `GLMConfig` for ChatGLM-6B, else `ChatGLMConfig`.

        Args:
            config_dict: the JSON object; fields that this package does not know are kept and saved again.
            kwargs: overrides, and `return_unused_kwargs` as in `transformers`.

        Raises:
            ConfigError: a value is wrong, or the object describes a model that does not belong to the family.
            UnsupportedError: it asks for something that is not supported.
        """
        config_dict = dict(config_dict)
        folder = str(kwargs.get("name_or_path") or config_dict.get("name_or_path") or "")
        if CONFIG_KEY not in config_dict:
            # The whole folder is needed: only the tokenizer's files distinguish ChatGLM2 from ChatGLM3.
            beside = Path(folder) if folder and (Path(folder) / "config.json").is_file() else None
            generation = read_generation(beside) if beside else detect_generation(config_dict, folder=folder)
            config_dict[CONFIG_KEY] = generation.value
        if cls is ChatGLMConfig and config_dict[CONFIG_KEY] == Generation.CHATGLM:
            return GLMConfig.from_dict(config_dict, **kwargs)
        known, others = _known(cls, config_dict)
        made = super().from_dict(known, **kwargs)
        config = made[0] if isinstance(made, tuple) else made
        config._check({})  # with the caller's changes
        if others:
            config.unknown_fields = others
        return made


class ChatGLMConfig(_FamilyConfig):
    """ChatGLM2-6B, ChatGLM3-6B (-base, -32k, -128k), GLM-4-9B (-chat), CharacterGLM-6B, CodeGeeX2-6B.

    Field names and defaults are those of the official `configuration_chatglm.py`. Sizes: `hidden_size` H,
    `ffn_hidden_size` F, `num_attention_heads` heads of `kv_channels` each, `multi_query_group_num` key/value heads.

    Raises:
        ConfigError: a value is wrong, or sizes do not fit together.
        UnsupportedError: a switch has a value that no official checkpoint uses (`rmsnorm=False`, `original_rope=False`
            …).
    """

    attribute_map: ClassVar[dict[str, str]] = {
        "num_hidden_layers": "num_layers",
        "vocab_size": "padded_vocab_size",
        "intermediate_size": "ffn_hidden_size",
        "num_key_value_heads": "multi_query_group_num",
        "head_dim": "kv_channels",
        "max_position_embeddings": "seq_length",
        "rms_norm_eps": "layernorm_epsilon",
    }

    num_layers: int = 28
    padded_vocab_size: int = 65024
    hidden_size: int = 4096
    ffn_hidden_size: int = 13696
    kv_channels: int = 128
    num_attention_heads: int = 32
    seq_length: int = 2048
    hidden_dropout: float = 0.0
    classifier_dropout: float | None = None
    attention_dropout: float = 0.0
    layernorm_epsilon: float = 1e-5
    rmsnorm: bool = True
    apply_residual_connection_post_layernorm: bool = False
    post_layer_norm: bool = True
    add_bias_linear: bool = False
    add_qkv_bias: bool = False
    bias_dropout_fusion: bool = True
    multi_query_attention: bool = False
    multi_query_group_num: int = 1
    rope_ratio: float = 1.0
    original_rope: bool = True
    apply_query_key_layer_scaling: bool = True
    attention_softmax_in_fp32: bool = True
    fp32_residual_connection: bool = False

    def to_dict(self) -> dict[str, Any]:
        """All fields. Also `num_key_value_heads`, another name of a field, because PEFT's prefix tuning reads it here.
        Saved files have only the official names.
        """
        return {**super().to_dict(), "num_key_value_heads": self.multi_query_group_num}

    def to_diff_dict(self) -> dict[str, Any]:
        return {name: value for name, value in super().to_diff_dict().items() if name != "num_key_value_heads"}

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.tie_word_embeddings = False  # the head has its own weight, whatever the official config says
        if not self.multi_query_attention:
            self.multi_query_group_num = self.num_attention_heads
        self._require(
            num_layers=self.num_layers,
            padded_vocab_size=self.padded_vocab_size,
            hidden_size=self.hidden_size,
            ffn_hidden_size=self.ffn_hidden_size,
            kv_channels=self.kv_channels,
            num_attention_heads=self.num_attention_heads,
            multi_query_group_num=self.multi_query_group_num,
            seq_length=self.seq_length,
        )
        if self.num_attention_heads % self.multi_query_group_num:
            raise ConfigError(
                f"config.json: num_attention_heads ({self.num_attention_heads}) is not a multiple of "
                f"multi_query_group_num ({self.multi_query_group_num})"
            )
        if self.kv_channels % 4:
            raise ConfigError(
                f"config.json: kv_channels is {self.kv_channels}; half of it is rotated in pairs, so it "
                "must be a multiple of 4"
            )
        for name, supported in {
            "rmsnorm": True,
            "post_layer_norm": True,
            "original_rope": True,
            "apply_residual_connection_post_layernorm": False,
            "fp32_residual_connection": False,
        }.items():
            if (given := getattr(self, name)) is not supported:
                raise UnsupportedError(
                    f"config.json: {name}={given} is not used by any official checkpoint and is "
                    f"not supported; expected {supported}"
                )


class GLMConfig(_FamilyConfig):
    """ChatGLM-6B with either vocabulary: control tokens are 130xxx, or, in the first release, 150xxx after 20,000 image
    tokens.

    Field names and defaults are those of the official `configuration_chatglm.py` of THUDM/chatglm-6b.

    Raises:
        ConfigError: a value is wrong, or sizes do not fit together.
        UnsupportedError: `position_encoding_2d` is False, which no official checkpoint uses.
    """

    attribute_map: ClassVar[dict[str, str]] = {
        "num_hidden_layers": "num_layers",
        "intermediate_size": "inner_hidden_size",
        "max_position_embeddings": "max_sequence_length",
        "seq_length": "max_sequence_length",
    }

    vocab_size: int = 130528
    hidden_size: int = 4096
    num_layers: int = 28
    num_attention_heads: int = 32
    layernorm_epsilon: float = 1e-5
    max_sequence_length: int = 2048
    inner_hidden_size: int = 16384
    position_encoding_2d: bool = True
    mask_token_id: int | None = None
    gmask_token_id: int | None = None
    # Official config.json files leave it out. In the transformers of that time, the default is True.
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        # Missing ids depend on the vocabulary: in the first release, 20,000 image tokens come before them.
        shift = 20_000 if self.vocab_size > 150_000 else 0
        defaults = {
            "mask_token_id": 130000,
            "gmask_token_id": 130001,
            "bos_token_id": 130004,
            "eos_token_id": 130005,
            "pad_token_id": 3,
        }
        for name, token_id in defaults.items():
            if getattr(self, name) is None:
                setattr(self, name, token_id + shift)
        self._require(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            num_attention_heads=self.num_attention_heads,
            max_sequence_length=self.max_sequence_length,
            inner_hidden_size=self.inner_hidden_size,
        )
        if self.hidden_size % (self.num_attention_heads * 4):
            raise ConfigError(
                f"config.json: hidden_size ({self.hidden_size}) must be a multiple of 4 × num_attention_heads "
                f"({self.num_attention_heads}): each half of a head is rotated by a position of its own"
            )
        if not self.position_encoding_2d:
            raise UnsupportedError(
                "config.json: position_encoding_2d=False is not used by any official checkpoint and is not supported"
            )
