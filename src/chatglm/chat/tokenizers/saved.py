"""Checks the tokenizer settings of a folder before they are used: their types, values and sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chatglm.chat.files import read_file, read_json, size_of
from chatglm.chat.generations import CONFIG_KEY, Generation
from chatglm.errors import TokenizerError

__all__ = ["check_vocabulary", "read_saved"]

_MAX_VOCABULARY = 64 << 20
"""Most bytes of a vocabulary file. Official ones have 1 to 3 MB."""
_MAX_TEMPLATE = 1 << 20
_MAX_TOKENS = 10_000
_MAX_TOKEN = 1_000

_SWITCHES = (
    "allow_special_tokens",
    "clean_up_tokenization_spaces",
    "do_lower_case",
    "encode_special_tokens",
    "remove_space",
)
_TOKENS = (
    "bos_token",
    "cls_token",
    "end_token",
    "eos_token",
    "gmask_token",
    "mask_token",
    "pad_token",
    "sep_token",
    "unk_token",
)


def read_saved(folder: Path) -> dict[str, Any]:
    """Read a folder's tokenizer_config.json; {} if there is none. Also check the other files that `transformers` reads.

    Raises:
        CheckpointError: a file cannot be read, is not JSON, or is too large.
        TokenizerError: a field has a wrong type or value; the message names file and field.
    """
    for name in ("special_tokens_map.json", "added_tokens.json", "chat_template.json"):
        if (folder / name).exists():
            read_json(folder / name)
    if (folder / "chat_template.jinja").exists():
        read_file(folder / "chat_template.jinja", _MAX_TEMPLATE)
    file = folder / "tokenizer_config.json"
    if not (file.is_symlink() or file.exists()):
        return {}
    saved = read_json(file)
    for name, value in saved.items():
        if value is not None and (right := _wanted(name, value)):
            raise TokenizerError(f"{file}: {name} is {value!r:.60}; it must be {right}")
    return saved


def check_vocabulary(file: Path, generation: Generation) -> None:
    """Check a vocabulary file without reading it.

    Raises:
        TokenizerError: the file is missing, not a regular file, or too large.
    """
    if not (file.is_symlink() or file.exists()):
        raise TokenizerError(f"{file}: no such file; a {generation} checkpoint needs it, download it again")
    try:
        size = size_of(file)
    except OSError as error:
        raise TokenizerError(str(error)) from None
    if not 0 < size <= _MAX_VOCABULARY:
        raise TokenizerError(
            f"{file}: has {size:,} bytes; a vocabulary has 1 to {_MAX_VOCABULARY:,}; download it again"
        )


def _wanted(name: str, value: Any) -> str:
    """What the value of a field must be, in words; "" if it is valid, or if the field is not used."""
    if name == CONFIG_KEY:
        known = [generation.value for generation in Generation]
        return "" if value in known else "one of " + ", ".join(known)
    if name in _SWITCHES:
        return "" if isinstance(value, bool) else "true or false"
    if name in _TOKENS:
        return "" if _token(value) else "a short string"
    if name == "padding_side":
        return "" if value in ("left", "right") else "'left' or 'right'"
    if name == "truncation_side":
        return "" if value in ("left", "right") else "'left' or 'right'"
    if name == "model_max_length":
        fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
        return "" if fits else "a positive number"
    if name == "num_image_tokens":
        return "" if type(value) is int and 0 <= value <= 100_000 else "an integer from 0 to 100,000"
    if name == "chat_template":
        templates = value if isinstance(value, list) else [{"template": value}]
        texts = [item.get("template") if isinstance(item, dict) else None for item in templates]
        fits = all(isinstance(text, str) and len(text) <= _MAX_TEMPLATE for text in texts)
        return "" if fits else "a template, or a list of named ones"
    if name == "added_tokens_decoder":
        fits = isinstance(value, Mapping) and len(value) <= _MAX_TOKENS
        fits = fits and all(str(key).isdecimal() and len(str(key)) < 10 for key in value)
        fits = fits and all(isinstance(item, dict) and item.get("content") and _token(item) for item in value.values())
        return "" if fits else "an object of tokens by id"
    if name == "additional_special_tokens":
        fits = isinstance(value, list) and len(value) <= _MAX_TOKENS and all(map(_token, value))
        return "" if fits else "a list of tokens"
    return ""


def _token(value: Any) -> bool:
    text = value.get("content") if isinstance(value, dict) else value
    return text is None or (isinstance(text, str) and len(text) <= _MAX_TOKEN)
