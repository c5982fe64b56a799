"""Checks that every value of a configuration has the right type and a sensible size, before it is used.

config.json is foreign input: a layer count of 10⁹ would keep a machine busy for hours, and a string instead of a number
would fail in the middle of an answer. Names and types are those of the configuration's fields.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from chatglm.errors import ConfigError, UnsupportedError

__all__ = [
    "ATTENTION",
    "DTYPES",
    "MAX_LABELS",
    "PRECISIONS",
    "check_attention",
    "check_dtype",
    "check_fields",
    "check_labels",
    "dtype_name",
]

ATTENTION = ("eager", "sdpa", "flex_attention", "flash_attention_2")
"""Attention implementations that a folder may ask for."""

PRECISIONS = ("float32", "float16", "bfloat16")
"""Types of weights that a user may choose."""

DTYPES = (*PRECISIONS, "float64")
"""Types that weights can have in memory."""

_OTHER_NAMES = {"fp32": "float32", "float": "float32", "fp16": "float16", "half": "float16", "bf16": "bfloat16"}

MAX_LABELS = 100_000

# Far above the values of any model, but small enough that memory and time stay limited until the sizes are compared
# with the weights.
_LARGEST = {
    "num_layers": 10_000,
    "num_attention_heads": 1 << 16,
    "multi_query_group_num": 1 << 16,
    "kv_channels": 1 << 16,
    "hidden_size": 1 << 20,
    "ffn_hidden_size": 1 << 22,
    "inner_hidden_size": 1 << 22,
    "padded_vocab_size": 1 << 24,
    "vocab_size": 1 << 24,
    "seq_length": 1 << 31,
    "max_sequence_length": 1 << 31,
    "pre_seq_len": 1 << 16,
    "chunk_size_feed_forward": 1 << 31,
}
# Ranges of numbers: in words, and as a test.
_RANGES = {
    "layernorm_epsilon": ("above 0 and at most 1", lambda x: 0 < x <= 1),
    "rope_ratio": ("above 0 and at most 1e9", lambda x: 0 < x <= 1e9),
    "initializer_range": ("from 0 to 1e3", lambda x: 0 <= x <= 1e3),
    "hidden_dropout": ("from 0 to 1", lambda x: 0 <= x <= 1),
    "attention_dropout": ("from 0 to 1", lambda x: 0 <= x <= 1),
    "classifier_dropout": ("from 0 to 1", lambda x: 0 <= x <= 1),
}
_MAX_STOP_IDS = 1024


def dtype_name(text: str) -> str:
    """Convert any usual name of a data type (fp16, half, torch.float16) to torch's name. Other texts are only put into
    lower case.
    """
    plain = text.lower().removeprefix("torch.")
    return _OTHER_NAMES.get(plain, plain)


def check_fields(config: Any) -> None:
    """Check the fields of a configuration (a dataclass).

    Raises:
        ConfigError: a value has another type than its field, or is out of range; names the field.
        UnsupportedError: it describes an encoder-decoder model.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        kinds = str(field.type).split(" | ")
        if value is None:
            if "None" in kinds:
                continue
            raise _wrong(field.name, value, "a value other than null")
        if "bool" in kinds:
            if not isinstance(value, bool):
                raise _wrong(field.name, value, "true or false")
        elif field.name.endswith("_token_id"):
            _check_ids(field.name, value, "list[int]" in kinds)
        elif "int" in kinds:
            if type(value) is not int:
                raise _wrong(field.name, value, "an integer")
            if value > _LARGEST.get(field.name, 1 << 62) or value < -(1 << 62):
                raise _wrong(field.name, value, f"an integer of at most {_LARGEST.get(field.name, 1 << 62):,}")
        elif "float" in kinds:
            _check_number(field.name, value)
        elif "str" in kinds and "torch.dtype" not in kinds:
            if not isinstance(value, str) or len(value) > 200:
                raise _wrong(field.name, value, "a short string")
        elif "list[str]" in kinds and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise _wrong(field.name, value, "a list of strings")
    check_labels(config)
    if config.is_encoder_decoder:
        raise UnsupportedError("config.json: is_encoder_decoder=true belongs to another family of models")


def check_labels(config: Any, number: Any = None) -> None:
    """Check the labels of a classifier.

    Args:
        number: `num_labels`, if it is given.

    Raises:
        ConfigError: a field about labels has a wrong type or value, or there are too many labels.
    """
    if number is not None and (type(number) is not int or not 1 <= number <= MAX_LABELS):
        raise _wrong("num_labels", number, f"an integer from 1 to {MAX_LABELS:,}")
    names, numbers = config.id2label, config.label2id
    if names is not None:
        valid = isinstance(names, Mapping) and len(names) <= MAX_LABELS
        if not valid or not all(str(key).isdecimal() and len(str(key)) < 10 for key in names):
            raise _wrong("id2label", names, f"an object of at most {MAX_LABELS:,} names with integers as keys")
        if not all(isinstance(value, str) for value in names.values()):
            raise _wrong("id2label", names, "an object of names")
    if numbers is not None and not (isinstance(numbers, Mapping) and len(numbers) <= MAX_LABELS):
        raise _wrong("label2id", numbers, f"an object of at most {MAX_LABELS:,} numbers")
    kinds = ("regression", "single_label_classification", "multi_label_classification")
    if config.problem_type not in (None, *kinds):
        raise _wrong("problem_type", config.problem_type, " or ".join(kinds))
    labels = len(names) if names is not None else 2 if number is None else number
    if config.problem_type == "single_label_classification" and labels == 1:
        raise _wrong("problem_type", config.problem_type, "regression, because there is one label")


def check_dtype(value: Any) -> None:
    """Check a type of weights: a `torch.dtype` or its name.

    Raises:
        ConfigError: weights in memory cannot have this type.
    """
    if str(value).removeprefix("torch.") not in DTYPES:
        raise ConfigError(f"dtype is {str(value)!r:.60}; weights can be {', '.join(DTYPES)}")


def check_attention(value: Any) -> None:
    """Check the name of an attention implementation, or a mapping with such names as values.

    Raises:
        UnsupportedError: it would be downloaded from the hub and run.
    """
    for name in value.values() if isinstance(value, Mapping) else (value,):
        if isinstance(name, str) and ("/" in name or ":" in name or "@" in name):
            raise UnsupportedError(
                f"attn_implementation is {name!r:.100}, a kernel from the hub, which would run code of others; use one "
                f"of {', '.join(ATTENTION)}"
            )


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(name, value, "a number")
    said, fits = _RANGES.get(name, ("finite", lambda x: True))
    if not -1e300 < value < 1e300 or not math.isfinite(value) or not fits(value):
        raise _wrong(name, value, said)


def _check_ids(name: str, value: Any, many: bool) -> None:
    ids = value if many and isinstance(value, list | tuple) else [value]
    if len(ids) > _MAX_STOP_IDS or not all(type(item) is int and 0 <= item < 1 << 31 for item in ids):
        raise _wrong(name, value, "a token id" + (", or a list of them" if many else ""))


def _wrong(name: str, value: Any, right: str) -> ConfigError:
    return ConfigError(f"config.json: {name} is {value!r:.60}; it must be {right}")
