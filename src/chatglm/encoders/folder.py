"""Reads and checks an encoder's folder, before any weights are read.

Two layouts are supported: that of sentence-transformers, where `modules.json` lists the parts (Transformer, Pooling,
Normalize, Dense …) and their folders; and a bare folder of `transformers`. The models are BERT, RoBERTa and XLM-R as
`transformers` implements them. A folder that needs anything else, such as its own code, is refused; the error names it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from chatglm.chat.files import read_json, read_list, size_of
from chatglm.errors import CheckpointError, UnsupportedError

__all__ = ["EncoderFolder", "Part", "Shape", "folder_kind", "read_encoder"]

KINDS = ("bert", "roberta", "xlm-roberta")
"""`model_type` of the models that are supported."""

PARTS = ("Transformer", "Pooling", "Normalize", "Dense", "LayerNorm", "Dropout")
"""Parts of sentence-transformers that are supported."""

_SETTINGS = ("sentence_bert_config.json", "sentence_roberta_config.json", "sentence_xlm-roberta_config.json")
_MAX_PARTS = 16
_MAX_PROMPTS = 64
_MAX_VOCABULARY = 64 << 20
"""Most bytes of a file with a vocabulary. XLM-R's tokenizer.json has 17 MB."""

_JSON_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json")
_OTHER_FILES = ("tokenizer.json", "vocab.txt", "merges.txt", "sentencepiece.bpe.model", "chat_template.jinja")

Kind = Literal["embedding", "rerank"]


@dataclass(frozen=True)
class Shape:
    """Sizes of a BERT-like model, from config.json. Names and meanings are those of `transformers`."""

    model_type: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    pad_token_id: int
    hidden_act: str
    layer_norm_eps: float

    @property
    def longest(self) -> int:
        """Most tokens that have position embeddings. RoBERTa's positions begin after the padding token's id."""
        return self.max_position_embeddings - (0 if self.model_type == "bert" else self.pad_token_id + 1)


@dataclass(frozen=True)
class Part:
    """One of the parts after the transformer.

    Attributes:
        kind: one of `PARTS`.
        folder: where its files are.
        settings: its config.json.
    """

    kind: str
    folder: Path
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class EncoderFolder:
    """The checked contents of an encoder's folder, without weights.

    Attributes:
        path: the folder with the transformer's files.
        max_tokens: texts are cut to this number of tokens; None: the tokenizer's own limit holds.
        lower: whether texts are lower-cased before they are tokenised.
        parts: what comes after the transformer; empty for a bare folder.
        prompts: texts that can be put in front of the input, by name.
        default_prompt: name of the prompt that is used if none is requested; None: no prompt.
        dimensions: lengths to which vectors may be cut (Matryoshka embeddings); (): none; None: any length.
    """

    path: Path
    shape: Shape
    max_tokens: int | None
    lower: bool
    parts: tuple[Part, ...]
    prompts: Mapping[str, str]
    default_prompt: str | None
    dimensions: tuple[int, ...] | None


def folder_kind(folder: Path) -> Kind | None:
    """The kind of a folder, from its config.json: "embedding", "rerank" (a sequence classification with one label),
    or None for other models.

    Raises:
        CheckpointError: config.json is missing or damaged.
    """
    if not (folder / "config.json").exists() and (folder / "modules.json").exists():
        return "embedding"  # its transformer has a folder of its own
    config = read_json(folder / "config.json")
    if config.get("model_type") not in KINDS:
        return None
    if (folder / "modules.json").exists():
        return "embedding"
    return "rerank" if _is_classifier(config) else "embedding"


def read_encoder(folder: Path, kind: Kind) -> EncoderFolder:
    """Read and check a folder. No weights are read.

    Raises:
        CheckpointError: a file is missing or damaged, contradicts itself, or describes another kind of model.
        UnsupportedError: the folder needs a model or a part that is not supported.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder!s:.300}: no such folder; give a model's folder, or its repository id")
    path: Path = folder
    parts: tuple[Part, ...] = ()
    if kind == "embedding" and (folder / "modules.json").exists():
        path, parts = _read_modules(folder)
    config = read_json(path / "config.json")
    shape = _read_shape(config, path / "config.json")
    if kind == "rerank" and not _is_classifier(config):
        raise CheckpointError(
            f"{path / 'config.json'}: not a cross-encoder: `architectures` must be a …ForSequenceClassification with "
            "one label; use an embedding model as `embedding`"
        )
    if kind == "embedding" and not parts and _is_classifier(config):
        raise CheckpointError(
            f"{path / 'config.json'}: a classifier, not an embedding model; use a cross-encoder as `rerank`"
        )
    for name in _JSON_FILES:
        if (path / name).exists():
            size_of(path / name)
            if name != "vocab.json":
                read_json(path / name)
    for name in (*_OTHER_FILES, "vocab.json"):
        if (path / name).exists() and size_of(path / name) > _MAX_VOCABULARY:
            raise CheckpointError(f"{path / name}: larger than {_MAX_VOCABULARY:,} bytes, the limit for a vocabulary")
    max_tokens, lower = _read_settings(path)
    prompts, default = _read_prompts(folder)
    return EncoderFolder(path, shape, max_tokens, lower, parts, prompts, default, _dimensions(config, path))


def _is_classifier(config: Mapping[str, Any]) -> bool:
    names = config.get("architectures")
    if not isinstance(names, list) or not any("SequenceClassification" in str(name) for name in names):
        return False
    labels = config.get("id2label")
    count = len(labels) if isinstance(labels, dict) else config.get("num_labels", 2)
    return bool(count == 1)


def _read_modules(folder: Path) -> tuple[Path, tuple[Part, ...]]:
    """Read `modules.json`; returns the transformer's folder, and the parts after it."""
    file = folder / "modules.json"
    listed = read_list(file)
    if not 1 <= len(listed) <= _MAX_PARTS:
        raise CheckpointError(f"{file}: lists {len(listed)} parts; from 1 to {_MAX_PARTS} are expected")
    found: list[Part] = []
    for number, entry in enumerate(listed):
        entry = entry if isinstance(entry, dict) else {}
        named, where = entry.get("type"), entry.get("path")
        if not isinstance(named, str) or not isinstance(where, str):
            raise CheckpointError(f"{file}: entry {number} has no `type` and `path`; download it again")
        kind = named.rpartition(".")[2]
        if not named.startswith("sentence_transformers.") or kind not in PARTS:
            raise UnsupportedError(
                f"{file}: the part {named:.100} is not supported; supported are those of sentence-transformers named "
                f"{', '.join(PARTS)}"
            )
        if where != "" and (where != Path(where).name or where in (".", "..") or "\\" in where or len(where) > 100):
            raise CheckpointError(f"{file}: the path {where!r:.100} must be the name of a folder beside it")
        if (kind == "Transformer") != (number == 0):
            raise UnsupportedError(f"{file}: part {number} is {kind}; a Transformer must come first, and only there")
        settings = {}
        if kind not in ("Transformer", "Normalize", "Dropout"):
            settings = read_json(folder / where / "config.json")
        found.append(Part(kind, folder / where, settings))
    if len(found) < 2 or found[1].kind != "Pooling" or any(part.kind == "Pooling" for part in found[2:]):
        raise UnsupportedError(f"{file}: one Pooling must come after the Transformer, and nowhere else")
    return found[0].folder, tuple(found[1:])


def _read_shape(config: Mapping[str, Any], file: Path) -> Shape:
    kind = config.get("model_type")
    if kind not in KINDS:
        code = " (it needs code of its own, which is never run)" if config.get("auto_map") else ""
        raise UnsupportedError(
            f"{file}: model_type is {kind!r:.60}, which is not supported{code}; supported are {', '.join(KINDS)}"
        )
    if config.get("is_decoder") or config.get("add_cross_attention"):
        raise UnsupportedError(f"{file}: is_decoder and add_cross_attention are not supported for an encoder")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise UnsupportedError(f"{file}: position_embedding_type: only 'absolute' is supported")
    # The defaults of `transformers` for missing fields.
    roberta = kind != "bert"
    vocabulary = {"bert": 30522, "roberta": 50265, "xlm-roberta": 30522}[kind]
    shape = Shape(
        kind,
        _whole_number(config, file, "vocab_size", vocabulary, 1 << 21),
        _whole_number(config, file, "hidden_size", 768, 1 << 15),
        _whole_number(config, file, "num_hidden_layers", 12, 1 << 10),
        _whole_number(config, file, "num_attention_heads", 12, 1 << 10),
        _whole_number(config, file, "intermediate_size", 3072, 1 << 18),
        _whole_number(config, file, "max_position_embeddings", 512, 1 << 20),
        _whole_number(config, file, "type_vocab_size", 2, 64),
        _whole_number(config, file, "pad_token_id", 1 if roberta else 0, 1 << 21, 0),
        config.get("hidden_act", "gelu"),
        config.get("layer_norm_eps", 1e-12),
    )
    if shape.hidden_act not in ("gelu", "gelu_new", "gelu_fast", "relu", "silu"):
        raise UnsupportedError(f"{file}: hidden_act {shape.hidden_act!r:.60} is not supported")
    eps = shape.layer_norm_eps
    if isinstance(eps, bool) or not isinstance(eps, int | float) or not 0 < eps < 1 or not math.isfinite(eps):
        raise CheckpointError(f"{file}: layer_norm_eps is {eps!r:.60}; it must be a number between 0 and 1")
    if shape.hidden_size % shape.num_attention_heads:
        raise CheckpointError(
            f"{file}: hidden_size {shape.hidden_size} is not a multiple of num_attention_heads "
            f"{shape.num_attention_heads}"
        )
    if shape.pad_token_id >= shape.vocab_size or shape.longest < 4:
        raise CheckpointError(f"{file}: pad_token_id, vocab_size and max_position_embeddings contradict each other")
    return shape


def _whole_number(
    fields: Mapping[str, Any], file: Path, name: str, default: int | None, most: int, least: int = 1
) -> int:
    value = fields.get(name)
    if value is None:
        value = default
    if type(value) is not int or not least <= value <= most:
        raise CheckpointError(f"{file}: {name} is {value!r:.60}; it must be a whole number from {least} to {most}")
    return value


def _read_settings(path: Path) -> tuple[int | None, bool]:
    """Read `sentence_bert_config.json`; returns the most tokens of a text (None: not given), and whether it is
    lower-cased.
    """
    for name in _SETTINGS:
        if (path / name).exists():
            found = read_json(path / name)
            lower = found.get("do_lower_case", False)
            if not isinstance(lower, bool):
                raise CheckpointError(f"{path / name}: do_lower_case is {lower!r:.60}; it must be true or false")
            if found.get("max_seq_length") is None:
                return None, lower
            return _whole_number(found, path / name, "max_seq_length", None, 1 << 20, 3), lower
    return None, False


def _read_prompts(folder: Path) -> tuple[dict[str, str], str | None]:
    file = folder / "config_sentence_transformers.json"
    if not file.exists():
        return {}, None
    found = read_json(file)
    prompts, default = found.get("prompts") or {}, found.get("default_prompt_name")
    if not isinstance(prompts, dict) or len(prompts) > _MAX_PROMPTS:
        raise CheckpointError(f"{file}: prompts must be an object of at most {_MAX_PROMPTS} texts")
    for name, text in prompts.items():
        if not isinstance(text, str) or len(text) > 10_000:
            raise CheckpointError(f"{file}: the prompt {name!r:.60} must be a text of at most 10,000 characters")
    if default is not None and default not in prompts:
        raise CheckpointError(f"{file}: default_prompt_name {default!r:.60} is not one of the prompts")
    return prompts, default


def _dimensions(config: Mapping[str, Any], path: Path) -> tuple[int, ...] | None:
    """`matryoshka_dimensions` and `is_matryoshka`, as vLLM reads them from config.json."""
    listed = config.get("matryoshka_dimensions")
    if listed is None:
        return None if config.get("is_matryoshka") is True else ()
    if not isinstance(listed, list) or not all(type(size) is int and size > 0 for size in listed[:1000]):
        raise CheckpointError(f"{path / 'config.json'}: matryoshka_dimensions must be a list of whole numbers")
    return tuple(listed[:1000])
