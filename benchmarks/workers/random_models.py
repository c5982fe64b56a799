"""Random models of ChatGLM3-6B's sizes, in the formats that other engines read.

    python random_models.py gguf OUT.gguf [LAYERS]     ChatGLM for llama.cpp, Q4_0 throughout (needs gguf)
    python random_models.py hf OUT_FOLDER [LAYERS]     bf16 safetensors and a tokenizer (needs tokenizers)

The second has the Llama architecture, for engines that have lost ChatGLM or never had it: the same matrices, a split
query/key/value layer, no bias. Weights are drawn once and used again at other offsets: engines do not look at them.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

VOCABULARY, HIDDEN, INNER, HEADS, GROUPS, CHANNELS, CONTEXT = 65024, 4096, 13696, 32, 2, 128, 8192
QUERIES, KEYS = HEADS * CHANNELS, GROUPS * CHANNELS
LAYERS = 28
SHARD_BYTES = 3 << 30


class Pool:
    """Random values of which every tensor takes a stretch."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self._random = np.random.default_rng(1)

    def take(self, count: int) -> Iterator[Any]:
        """`count` of them, in pieces."""
        while count:
            start = int(self._random.integers(len(self.values) // 2))
            piece = self.values[start : start + count]
            count -= len(piece)
            yield piece


def normal(count: int) -> Any:
    return np.random.default_rng(0).standard_normal(count, dtype=np.float32) * 0.02


def write_gguf(path: Path, layers: int) -> None:
    from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType
    from gguf.quants import quantize

    kind = GGMLQuantizationType.Q4_0
    writer = GGUFWriter(path, "chatglm")
    writer.add_name("ChatGLM3-6B, random")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(layers)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(CHANNELS // 2)
    writer.add_rope_freq_base(10000.0)
    writer.add_file_type(LlamaFileType.MOSTLY_Q4_0)
    writer.add_add_bos_token(False)
    writer.add_vocab_size(VOCABULARY)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [TokenType.UNKNOWN, *[TokenType.CONTROL] * 2, *[TokenType.BYTE] * 256]
    missing = VOCABULARY - len(tokens)
    tokens += [f"\u2581t{number}" for number in range(missing)]
    types += [TokenType.NORMAL] * missing
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(number) for number in range(VOCABULARY)])
    writer.add_token_types(types)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    shapes: list[tuple[str, tuple[int, ...]]] = [("token_embd.weight", (VOCABULARY, HIDDEN))]
    for layer in range(layers):
        shapes += [
            (f"blk.{layer}.{name}", shape)
            for name, shape in (
                ("attn_norm.weight", (HIDDEN,)),
                ("attn_qkv.weight", (QUERIES + 2 * KEYS, HIDDEN)),
                ("attn_qkv.bias", (QUERIES + 2 * KEYS,)),
                ("attn_output.weight", (HIDDEN, QUERIES)),
                ("ffn_norm.weight", (HIDDEN,)),
                ("ffn_up.weight", (2 * INNER, HIDDEN)),
                ("ffn_down.weight", (HIDDEN, INNER)),
            )
        ]
    shapes += [("output_norm.weight", (HIDDEN,)), ("output.weight", (VOCABULARY, HIDDEN))]
    blocks = Pool(quantize(normal(1 << 25).reshape(-1, 32), kind))  # rows of one block: 32 weights, 18 bytes
    for name, shape in shapes:
        if len(shape) == 2:
            size = math.prod(shape) // 32 * 18
            packed = (shape[0], shape[1] // 32 * 18)
            writer.add_tensor_info(name, packed, np.dtype(np.uint8), size, raw_dtype=kind)
        else:
            writer.add_tensor_info(name, shape, np.dtype(np.float32), shape[0] * 4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, shape in shapes:
        if len(shape) == 2:
            writer.write_tensor_data(np.concatenate(list(blocks.take(math.prod(shape) // 32))))
        else:
            writer.write_tensor_data(normal(shape[0]) if "bias" in name else np.ones(shape, np.float32))
    writer.close()


def write_hf(folder: Path, layers: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": GROUPS,
        "head_dim": CHANNELS,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    groups: list[dict[str, tuple[int, ...]]] = [{"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}]
    for layer in range(layers):
        parts = {
            "input_layernorm": (HIDDEN,),
            "self_attn.q_proj": (QUERIES, HIDDEN),
            "self_attn.k_proj": (KEYS, HIDDEN),
            "self_attn.v_proj": (KEYS, HIDDEN),
            "self_attn.o_proj": (HIDDEN, QUERIES),
            "post_attention_layernorm": (HIDDEN,),
            "mlp.gate_proj": (INNER, HIDDEN),
            "mlp.up_proj": (INNER, HIDDEN),
            "mlp.down_proj": (HIDDEN, INNER),
        }
        groups.append({f"model.layers.{layer}.{name}.weight": shape for name, shape in parts.items()})
    groups.append({"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)})
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    for group in groups:
        if shards[-1] and size_of(shards[-1] | group) > SHARD_BYTES:
            shards.append({})
        shards[-1] |= group
    halves = Pool((normal(1 << 25).view(np.uint32) >> 16).astype(np.uint16))  # the upper half of a float32 is a bf16
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        weight_map |= dict.fromkeys(shard, name)
        write_safetensors(folder / name, shard, halves)
    total = sum(map(size_of, shards))
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})
    write_tokenizer(folder)


def size_of(shapes: dict[str, tuple[int, ...]]) -> int:
    return sum(2 * math.prod(shape) for shape in shapes.values())


def write_safetensors(path: Path, shapes: dict[str, tuple[int, ...]], halves: Pool) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shapes.items():
        end = at + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            if len(shape) == 1:
                np.full(shape, 0x3F80, np.uint16).tofile(file)  # 1.0
            else:
                for piece in halves.take(math.prod(shape)):
                    piece.tofile(file)


def write_tokenizer(folder: Path) -> None:
    """Any tokenizer of as many tokens: prompts are given as ids."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    known = ["<unk>", "<s>", "</s>", *letters]
    pairs = [(a, b) for a in letters for b in letters][: VOCABULARY - len(known)]
    known += [a + b for a, b in pairs]
    tokenizer = Tokenizer(
        models.BPE(vocab={token: i for i, token in enumerate(known)}, merges=pairs, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **special})


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def main() -> None:
    kind, target, *rest = sys.argv[1:]
    {"gguf": write_gguf, "hf": write_hf}[kind](Path(target), int(rest[0]) if rest else LAYERS)


if __name__ == "__main__":
    main()
