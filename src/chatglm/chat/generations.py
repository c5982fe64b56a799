"""Finds out which generation of the family a checkpoint folder holds.

Every official config.json says `"model_type": "chatglm"`, and ChatGLM2 and ChatGLM3 share one architecture and one
tokenizer file while their prompts differ. So the generation is found from several clues, of which the most reliable
comes first.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chatglm.chat.files import read_json
from chatglm.errors import ConfigError

__all__ = [
    "CONFIG_KEY",
    "OFFICIAL_SAMPLING",
    "Generation",
    "checkpoint_name",
    "detect_generation",
    "read_generation",
    "read_json",
]

CONFIG_KEY = "chatglm_generation"
"""The key that `save_pretrained` writes into config.json. With it, the generation need not be guessed."""


class Generation(str, enum.Enum):
    """The generation of a checkpoint, which determines its prompt format. `CHATGLM` also has its own architecture."""

    CHATGLM = "chatglm"
    CHATGLM2 = "chatglm2"
    CHATGLM3 = "chatglm3"
    GLM4 = "glm4"
    CHARACTERGLM = "characterglm"

    __str__ = str.__str__


OFFICIAL_SAMPLING: Mapping[Generation, Mapping[str, float]] = {
    Generation.CHATGLM: {"temperature": 0.95, "top_p": 0.7},
    Generation.CHATGLM2: {"temperature": 0.8, "top_p": 0.8},
    Generation.CHATGLM3: {"temperature": 0.8, "top_p": 0.8},
    Generation.GLM4: {"temperature": 0.8, "top_p": 0.8},
    Generation.CHARACTERGLM: {"temperature": 0.9, "top_p": 0.9, "repetition_penalty": 1.6},
}
"""The default sampling options of the official `chat` methods."""


# Searched in this order in the names that a checkpoint carries; CodeGeeX2 is prompted like ChatGLM2.
_NAMES = (
    (re.compile(r"characterglm|charglm", re.I), Generation.CHARACTERGLM),
    (re.compile(r"chatglm[-_ ]?2|codegeex[-_ ]?2", re.I), Generation.CHATGLM2),
    (re.compile(r"chatglm[-_ ]?3", re.I), Generation.CHATGLM3),
    (re.compile(r"glm[-_ ]?4|codegeex[-_ ]?4|longwriter-glm4", re.I), Generation.GLM4),
)


def detect_generation(
    config: Mapping[str, Any], tokenizer_config: Mapping[str, Any] | None = None, folder: str = ""
) -> Generation:
    """Find the generation from the contents of config.json and tokenizer_config.json, and the folder's name.

    Args:
        config: config.json as a mapping.
        tokenizer_config: tokenizer_config.json, if there is one.
        folder: path of the folder; its name is used if no field of the files has a known name.

    Raises:
        ConfigError: the `chatglm_generation` key has an unknown value.
    """
    if (named := config.get(CONFIG_KEY)) is not None:
        try:
            return Generation(named)
        except (ValueError, TypeError):
            known = ", ".join(g.value for g in Generation)
            raise ConfigError(f"config.json: {CONFIG_KEY} is {named!r}; it must be one of {known}") from None
    if config.get("position_encoding_2d") is not None or config.get("inner_hidden_size") is not None:
        return Generation.CHATGLM
    tokenizer_config = tokenizer_config or {}
    if tokenizer_config.get("tokenizer_class") == "ChatGLM4Tokenizer" or _largest_id(config) >= 100_000:
        return Generation.GLM4
    for name in (config.get("_name_or_path"), tokenizer_config.get("name_or_path"), folder):
        for pattern, generation in _NAMES:
            # A ChatGLM2-sized vocabulary is never GLM-4, whatever the folder is called.
            if generation is not Generation.GLM4 and name and pattern.search(checkpoint_name(Path(str(name)))):
                return generation
    if "<|user|>" in json.dumps(tokenizer_config, ensure_ascii=False):
        return Generation.CHATGLM3
    # Every official ChatGLM2 config was written by 4.27; ChatGLM3 came with 4.30.
    version = re.match(r"(\d{1,4})\.(\d{1,4})", str(config.get("transformers_version", "")))
    if version and (int(version[1]), int(version[2])) < (4, 30):
        return Generation.CHATGLM2
    return Generation.CHATGLM3


def _largest_id(config: Mapping[str, Any]) -> int:
    """The largest token id or vocabulary size in a config of ChatGLM2 or later. Only GLM-4 has 100,000 or more."""
    eos = config.get("eos_token_id")
    ids = [*eos] if isinstance(eos, list) else [eos]
    found = [*ids, config.get("padded_vocab_size"), config.get("vocab_size")]
    return max((number for number in found if isinstance(number, int)), default=0)


def read_generation(folder: str | Path) -> Generation:
    """The generation of the checkpoint in a folder. Without a config.json, it is found from tokenizer and name.

    Raises:
        CheckpointError: a JSON file cannot be read.
        ConfigError: the `chatglm_generation` key has an unknown value.
    """
    folder = Path(folder)
    config_file, tokenizer_file = folder / "config.json", folder / "tokenizer_config.json"
    config = read_json(config_file) if config_file.exists() else {}
    tokenizer_config = read_json(tokenizer_file) if tokenizer_file.exists() else {}
    if not config and (folder / "ice_text.model").exists():
        return Generation.CHATGLM
    return detect_generation(config, tokenizer_config, str(folder.resolve()))


def checkpoint_name(folder: Path) -> str:
    """A folder's name; in the cache of `huggingface_hub`, where it is a hash, the name of the repository
    (`models--OWNER--NAME/snapshots/HASH`).
    """
    if folder.parent.name == "snapshots" and (storage := folder.parents[1].name).startswith("models--"):
        return storage.rsplit("--", 1)[1]
    return folder.name
