"""Reads a folder's generation_config.json: only known fields with the right types.

`transformers` makes an attribute of every key in the file. With some of them, it downloads programs from the hub that
choose tokens; others set caches and compilers. Here, a folder cannot decide on these.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chatglm.chat.files import read_json
from chatglm.errors import ConfigError, UnsupportedError

__all__ = ["read_generation_config"]

_NUMBERS = {
    "temperature": (0, 1e38),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "typical_p": (0, 1),
    "epsilon_cutoff": (0, 1),
    "eta_cutoff": (0, 1),
    "top_h": (0, 1),
    "repetition_penalty": (1e-6, 1e6),
    "encoder_repetition_penalty": (1e-6, 1e6),
    "length_penalty": (-1e6, 1e6),
    "guidance_scale": (0, 1e6),
    "max_time": (0, 1e9),
}
_COUNTS = {
    "top_k": (0, 1 << 31),
    "max_length": (0, 1 << 31),
    "max_new_tokens": (0, 1 << 31),
    "min_length": (0, 1 << 31),
    "min_new_tokens": (0, 1 << 31),
    "num_beams": (1, 128),
    "num_return_sequences": (1, 128),
    "no_repeat_ngram_size": (0, 1 << 16),
    "encoder_no_repeat_ngram_size": (0, 1 << 16),
}
_SWITCHES = (
    "do_sample",
    "use_cache",
    "renormalize_logits",
    "remove_invalid_values",
    "token_healing",
)
_IDS = (
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "suppress_tokens",
    "begin_suppress_tokens",
)
_MAX_WORDS = 1_000
"""Most entries of `bad_words_ids` and `sequence_bias`, because each of them is checked for every token."""
_MAX_WORD = 128
_MAX_IDS = 200_000
_MAX_STOPS = 64

# Fields for which transformers runs programs from the hub, and the values for which it does not.
_ON_THE_HUB: dict[str, tuple[Any, ...]] = {
    "penalty_alpha": (0,),
    "dola_layers": (),
    "num_beam_groups": (1,),
    "diversity_penalty": (0,),
    "constraints": (),
    "force_words_ids": (),
}


def read_generation_config(folder: Path, config: Any) -> Any:
    """The `GenerationConfig` of a folder; without a generation_config.json, it is made from config.json.

    Raises:
        CheckpointError: the file cannot be read, or is not JSON.
        ConfigError: a field has a wrong type or value; names file and field.
        UnsupportedError: the file asks for code from the hub.
    """
    from transformers import GenerationConfig

    file = folder / "generation_config.json"
    if file.is_symlink() or file.exists():
        fields = _checked(read_json(file), file)
        return _made(GenerationConfig, fields, file)
    # Old folders have such fields in config.json.
    file = folder / "config.json"
    fields = _checked(read_json(file), file) if file.exists() else {}
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        fields[name] = getattr(config, name)
    return _made(GenerationConfig, {**fields, "_from_model_config": True}, file)


def _made(kind: Callable[..., Any], fields: dict[str, Any], file: Path) -> Any:
    try:
        return kind(**fields)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ConfigError(f"{file}: {str(error).strip().splitlines()[0]:.300}") from None


def _checked(given: dict[str, Any], file: Path) -> dict[str, Any]:
    """The known fields, each checked for type and range."""

    def wrong(name: str, right: str) -> ConfigError:
        return ConfigError(f"{file}: {name} is {given[name]!r:.60}; it must be {right}")

    for name, neutral in _ON_THE_HUB.items():
        if given.get(name) is not None and given[name] not in neutral:
            raise UnsupportedError(
                f"{file}: {name} is {given[name]!r:.60}, for which transformers would run code from the hub; remove it"
            )
    kept: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        if name in _NUMBERS:
            low, high = _NUMBERS[name]
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not low <= value <= high or not math.isfinite(value):
                raise wrong(name, f"a number from {low:g} to {high:g}")
        elif name in _COUNTS:
            least, most = _COUNTS[name]
            if type(value) is not int or not least <= value <= most:
                raise wrong(name, f"an integer from {least:,} to {most:,}")
        elif name in _SWITCHES:
            if not isinstance(value, bool):
                raise wrong(name, "true or false")
        elif name == "early_stopping":
            if not isinstance(value, bool) and value != "never":
                raise wrong(name, "true, false or 'never'")
        elif name in _IDS:
            if not _ids(value if isinstance(value, list) else [value], _MAX_IDS):
                raise wrong(name, "a token id, or a list of them")
        elif name == "bad_words_ids":
            if not isinstance(value, list) or len(value) > _MAX_WORDS or not all(_word(item) for item in value):
                raise wrong(name, f"at most {_MAX_WORDS:,} lists of at most {_MAX_WORD} token ids")
        elif name == "sequence_bias":
            if not isinstance(value, list) or len(value) > _MAX_WORDS or not all(_bias(item) for item in value):
                raise wrong(name, f"at most {_MAX_WORDS:,} pairs of a list of token ids and a number")
        elif name == "stop_strings":
            texts = value if isinstance(value, list) else [value]
            if len(texts) > _MAX_STOPS or not all(isinstance(text, str) and 0 < len(text) <= 1000 for text in texts):
                raise wrong(name, f"at most {_MAX_STOPS} short strings")
        elif name == "exponential_decay_length_penalty":
            fits = isinstance(value, list) and len(value) == 2 and type(value[0]) is int and value[0] >= 0
            if not fits or not isinstance(value[1], int | float) or not 0 < value[1] <= 1e6:
                raise wrong(name, "a list of a position and a factor")
        elif name == "watermarking_config":
            if not isinstance(value, dict):
                raise wrong(name, "an object")
        elif name == "transformers_version":
            if not isinstance(value, str):
                raise wrong(name, "a string")
        else:
            continue
        kept[name] = value
    return kept


def _ids(values: list[Any], most: int) -> bool:
    return len(values) <= most and all(type(item) is int and 0 <= item < 1 << 31 for item in values)


def _word(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and _ids(value, _MAX_WORD)


def _bias(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and _word(value[0])
        and isinstance(value[1], int | float)
        and math.isfinite(value[1])
    )
