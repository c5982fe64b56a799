"""Tiny folders of encoders with random weights: a BERT and an XLM-R, for embeddings and for rerank."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
import transformers

SENTENCE = "sentence_transformers.models."
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 你好世界天气怎么样北京是中国的首都我爱吃苹果今明吗很请介绍一下自己"
WIDTH = 32


def tokenizer(kind: str) -> Any:
    """Of letters: every character is a token."""
    letters = list(dict.fromkeys(LETTERS.replace(" ", "")))
    if kind == "bert":
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
        return transformers.BertTokenizer(vocab={word: number for number, word in enumerate(words)})
    special = [(word, 0.0) for word in ("<s>", "<pad>", "</s>", "<unk>")]
    pieces = [("▁", -2.0), *((letter, -3.0 - number / 99) for number, letter in enumerate(letters)), ("<mask>", 0.0)]
    return transformers.XLMRobertaTokenizer(vocab=special + pieces)


def model(kind: str, *, labels: int | None = None, positions: int = 64, seed: int = 1) -> Any:
    made = tokenizer(kind)
    torch.manual_seed(seed)
    options: dict[str, Any] = {} if labels is None else {"num_labels": labels}
    if kind == "bert":
        config: Any = transformers.BertConfig
    else:
        config = transformers.XLMRobertaConfig
        options["type_vocab_size"] = 1
    about = config(
        vocab_size=len(made),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=positions,
        pad_token_id=made.pad_token_id,
        initializer_range=0.5,
        **options,
    )
    name = {"bert": "Bert", "xlm-roberta": "XLMRoberta"}[kind]
    return getattr(transformers, f"{name}{'Model' if labels is None else 'ForSequenceClassification'}")(about).eval()


def make_bare(folder: Path, kind: str = "bert", **options: Any) -> Path:
    """A folder as `transformers` saves it."""
    model(kind, **options).save_pretrained(folder)
    made = tokenizer(kind)
    made.model_max_length = options.get("positions", 64) - (0 if kind == "bert" else 2)
    made.save_pretrained(folder)
    return folder


def make_reranker(folder: Path, kind: str = "xlm-roberta", **options: Any) -> Path:
    return make_bare(folder, kind, labels=1, **options)


def make_sentence(
    folder: Path,
    kind: str = "bert",
    *,
    pooling: dict[str, Any] | None = None,
    dense: int | None = None,
    normalize: bool = True,
    max_tokens: int | None = 32,
    prompts: dict[str, str] | None = None,
    **options: Any,
) -> Path:
    """A folder in the layout of sentence-transformers.

    Args:
        pooling: of 1_Pooling/config.json, besides the width.
        dense: length of the vectors that a Dense part makes.
    """
    make_bare(folder, kind, **options)
    parts = [("", "Transformer"), ("1_Pooling", "Pooling")]
    if dense is not None:
        parts.append(("2_Dense", "Dense"))
    if normalize:
        parts.append((f"{len(parts)}_Normalize", "Normalize"))
    listed = [
        {"idx": number, "name": str(number), "path": path, "type": SENTENCE + name}
        for number, (path, name) in enumerate(parts)
    ]
    write(folder / "modules.json", listed)
    for path, _ in parts[1:]:
        (folder / path).mkdir()
    given = {"pooling_mode_mean_tokens": True} if pooling is None else pooling
    write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": WIDTH, **given})
    write(folder / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False})
    if prompts is not None:
        write(folder / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": None})
    if dense is not None:
        modes = sum(value is True for name, value in given.items() if name.startswith("pooling_mode")) or 1
        torch.manual_seed(7)
        layer = torch.nn.Linear(WIDTH * modes, dense)
        torch.save({f"linear.{k}": v for k, v in layer.state_dict().items()}, folder / "2_Dense" / "pytorch_model.bin")
        about = {"in_features": WIDTH * modes, "out_features": dense, "bias": True}
        about["activation_function"] = "torch.nn.modules.activation.Tanh"
        write(folder / "2_Dense" / "config.json", about)
    return folder


def write(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value), "utf-8")


def length(vector: Any) -> float:
    return math.sqrt(sum(number * number for number in vector))
