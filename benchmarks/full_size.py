"""Does a full-size ChatGLM3-6B load in little more memory than its weights, and run as fast as `transformers`' own GLM?

    python benchmarks/full_size.py [--folder DIR] [--layers 28] [--rounds 3]

Makes a random checkpoint of ChatGLM3-6B's sizes in fp16, as sharded safetensors and as .bin (25 GB of disk; kept in
--folder for the next time), and then, every measurement in a process of its own:

- loads each, as it is (fp16) and turned into bf16, and reports the time and the peak of resident memory, as a ratio to
  the weights. Resident memory counts the pages of a mapped file as well; the anonymous part is shown apart. Files that
  were read before are in the page cache, so the time is that of a second start;
- runs it in bf16 beside `transformers`' native `GlmForCausalLM`, on the same weights in one process: first token of a
  prompt, and tokens per second after it, taking turns at every step; medians, and the median ratio of neighbours.

Prints a table for people and one JSON line for machines. Needs 24 GiB of memory.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from common import Memory, child, machine, native_twin

SIZES = {
    "hidden_size": 4096,
    "ffn_hidden_size": 13696,
    "num_attention_heads": 32,
    "kv_channels": 128,
    "multi_query_group_num": 2,
    "padded_vocab_size": 65024,
    "seq_length": 8192,
}
CONFIG = {
    "model_type": "chatglm",
    "architectures": ["ChatGLMModel"],
    "_name_or_path": "THUDM/chatglm3-6b",
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "layernorm_epsilon": 1e-5,
    "multi_query_attention": True,
    "original_rope": True,
    "post_layer_norm": True,
    "rmsnorm": True,
    "torch_dtype": "float16",
    "eos_token_id": 2,
    "pad_token_id": 0,
    **SIZES,
}
SHARD_LAYERS = 4


def shapes(layers: int) -> Iterator[dict[str, tuple[int, ...]]]:
    """Names and shapes of the official checkpoint, shard by shard."""
    hidden, ffn, width = SIZES["hidden_size"], SIZES["ffn_hidden_size"], SIZES["kv_channels"]
    qkv = (SIZES["num_attention_heads"] + 2 * SIZES["multi_query_group_num"]) * width
    yield {"transformer.embedding.word_embeddings.weight": (SIZES["padded_vocab_size"], hidden)}
    for first in range(0, layers, SHARD_LAYERS):
        shard: dict[str, tuple[int, ...]] = {}
        for layer in range(first, min(first + SHARD_LAYERS, layers)):
            p = f"transformer.encoder.layers.{layer}."
            shard |= {
                p + "input_layernorm.weight": (hidden,),
                p + "self_attention.query_key_value.weight": (qkv, hidden),
                p + "self_attention.query_key_value.bias": (qkv,),
                p + "self_attention.dense.weight": (hidden, hidden),
                p + "post_attention_layernorm.weight": (hidden,),
                p + "mlp.dense_h_to_4h.weight": (2 * ffn, hidden),
                p + "mlp.dense_4h_to_h.weight": (hidden, ffn),
            }
        yield shard
    yield {
        "transformer.encoder.final_layernorm.weight": (hidden,),
        "transformer.output_layer.weight": (SIZES["padded_vocab_size"], hidden),
    }


def make(folder: Path, layers: int, kind: str) -> None:
    """Write a random checkpoint; a folder that is there with all its shards is left as it is."""
    from safetensors.torch import save_file

    index = folder / ("model.safetensors.index.json" if kind == "safetensors" else "pytorch_model.bin.index.json")
    if index.exists() and json.loads((folder / "config.json").read_text())["num_layers"] == layers:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_layers": layers}, indent=2))
    generator = torch.Generator().manual_seed(0)
    groups, weight_map, total = list(shapes(layers)), {}, 0
    for number, shard in enumerate(groups, 1):
        tensors = {}
        for name, shape in shard.items():
            mean = 1.0 if "layernorm" in name else 0.0
            tensors[name] = torch.empty(shape).normal_(mean, 0.02, generator=generator).half()
            total += tensors[name].numel() * 2
        if kind == "safetensors":
            file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
            save_file(tensors, folder / file, metadata={"format": "pt"})
        else:
            file = f"pytorch_model-{number:05d}-of-{len(groups):05d}.bin"
            torch.save(tensors, folder / file)
        weight_map |= dict.fromkeys(shard, file)
        say(f"  {file}")
    index.write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}))


def say(text: str) -> None:
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)


# What the child processes do


def measure_load(folder: str, dtype: str) -> dict[str, Any]:
    from chatglm import AutoModel

    AutoModel.register  # noqa: B018  (import everything before the clock starts)
    with Memory() as memory:
        start = time.perf_counter()
        model = AutoModel.from_pretrained(folder, dtype=dtype)
        seconds = time.perf_counter() - start
        # Touch every weight: what is only mapped so far must count too.
        checksum = sum(float(p.flatten()[::4096].float().sum()) for p in model.parameters())
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    return {
        "seconds": seconds,
        "weights": weights,
        "checksum": checksum,
        "dtype": str(model.dtype),
        **{f"peak_{name}": value for name, value in memory.peak.items()},
        **{f"base_{name}": value for name, value in memory.start.items()},
    }


@torch.inference_mode()
def measure_run(folder: str, prompt: int, tokens: int, rounds: int) -> dict[str, Any]:
    """First-token times (seconds) and times per token of both models, taking turns at every prompt and token."""
    from transformers import DynamicCache

    from chatglm import AutoModel

    model = AutoModel.from_pretrained(folder, dtype=torch.bfloat16).eval()
    models = {"chatglm": model, "transformers": native_twin(model)}
    ids = torch.randint(100, 60000, (1, prompt), generator=torch.Generator().manual_seed(1))
    first: dict[str, list[float]] = {name: [] for name in models}
    each: dict[str, list[float]] = {name: [] for name in models}
    difference = 0.0
    for number in range(rounds + 1):  # the first warms up
        caches = {name: DynamicCache(config=m.config) for name, m in models.items()}
        logits: dict[str, torch.Tensor] = {}
        for step in range(tokens + 1):
            fed = ids if step == 0 else logits["chatglm"].argmax(-1)
            order = list(models) if (number + step) % 2 else list(models)[::-1]
            for name in order:
                start = time.perf_counter()
                output = models[name](input_ids=fed, past_key_values=caches[name], use_cache=True, logits_to_keep=1)
                seconds = time.perf_counter() - start
                logits[name] = output.logits
                if number:
                    (each if step else first)[name].append(seconds)
            a, b = logits["chatglm"].float(), logits["transformers"].float()
            difference = max(difference, float((a - b).abs().max() / b.abs().max()))
    pairs = {"first_token": first, "token": each}
    return {
        "seconds": {kind: {name: statistics.median(v) for name, v in runs.items()} for kind, runs in pairs.items()},
        # transformers' time over ours, pair by pair: what drifts on the machine hits both sides of a pair
        "ratios": {
            kind: statistics.median(t / o for o, t in zip(runs["chatglm"], runs["transformers"], strict=True))
            for kind, runs in pairs.items()
        },
        "logits_differ_by": difference,
    }


# The parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where the checkpoints are kept (default: made anew and removed)")
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--only", choices=("load", "run"))
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, *rest = options.child
        kinds: dict[str, Callable[..., dict[str, Any]]] = {"load": measure_load, "run": measure_run}
        numbers = [int(word) if word.isdigit() else word for word in rest]
        print(json.dumps(kinds[kind](*numbers)))
        return
    folder = options.folder or Path(tempfile.mkdtemp(prefix="chatglm-bench-"))
    report: dict[str, Any] = {"machine": machine(), "layers": options.layers}
    print(f"{report['machine']}\nChatGLM3-6B, random weights, {options.layers} layers\n")
    try:
        if options.only != "run":
            print(f"{'load':22}{'seconds':>9}{'weights':>10}{'peak RSS':>10}{'ratio':>7}{'anonymous':>11}{'ratio':>7}")
            for kind, dtype in (("safetensors", "auto"), ("bin", "auto"), ("safetensors", "bfloat16")):
                make(folder / kind, options.layers, kind)
                runs = [child(__file__, "load", folder / kind, dtype) for _ in range(options.rounds)]
                best = sorted(runs, key=lambda r: r["seconds"])[len(runs) // 2]
                report[f"load_{kind}_{dtype}"] = best
                gib = {k: v / 2**30 for k, v in best.items() if isinstance(v, int)}
                label = f"{kind}, {'fp16' if dtype == 'auto' else 'to bf16'}"
                print(
                    f"{label:22}{best['seconds']:9.1f}{gib['weights']:9.2f}G{gib['peak_rss']:9.2f}G"
                    f"{gib['peak_rss'] / gib['weights']:7.2f}{gib['peak_anonymous']:10.2f}G"
                    f"{gib['peak_anonymous'] / gib['weights']:7.2f}",
                    flush=True,
                )
        if options.only != "load":
            make(folder / "safetensors", options.layers, "safetensors")
            result = child(__file__, "run", folder / "safetensors", options.prompt, options.tokens, options.rounds)
            seconds, ratios = result["seconds"], result["ratios"]
            print(
                f"\nbf16, prompt of {options.prompt}, {options.tokens} tokens, {options.rounds} rounds, taking turns "
                f"token by token on the same weights (logits differ by {result['logits_differ_by']:.1e})"
            )
            print(f"{'median':14}{'first token s':>15}{'tokens/s':>10}")
            for which in ("chatglm", "transformers"):
                print(f"{which:14}{seconds['first_token'][which]:15.3f}{1 / seconds['token'][which]:10.3f}")
            print(f"{'ratio in pairs':14}{ratios['first_token']:14.3f}×{ratios['token']:9.3f}×")
            report["run"] = result
    finally:
        if options.folder is None:
            shutil.rmtree(folder)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
