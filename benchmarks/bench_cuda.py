"""How fast does a full-size ChatGLM3-6B decode on a CUDA device in bf16, int8 and int4, and what does the card allow?

    python benchmarks/bench_cuda.py [--layers 28] [--context 512] [--tokens 128] [--long 8192]
    python benchmarks/bench_cuda.py --tiny --device cpu    # does the script itself work? says nothing about a card

Random weights of ChatGLM3-6B's sizes, drawn on the device; int8 and int4 in groups of 128, the output head as it is.
Each kind in a process of its own:

- reads a prompt of --long tokens, and reports the peak of allocated memory;
- decodes at batch 1 behind a prompt of --context tokens, in a static cache, with `torch.compile` in its mode
  "reduce-overhead", which records the step as a CUDA graph: median of --tokens steps, each waited for;
- compares the bytes that a step must read (weights but for the embedding's other rows, and the cache) per second with
  what the card reads and writes in a large copy.

Prints a table for people and one JSON line for machines. Needs 16 GiB of device memory for bf16.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from common import child, machine
from full_size import CONFIG

KINDS = {"bf16": 0, "int8": 8, "int4": 4}
GROUP = 128
TINY = {
    "hidden_size": 128,
    "ffn_hidden_size": 192,
    "num_attention_heads": 4,
    "kv_channels": 32,
    "padded_vocab_size": 512,
}
_GIB = 2**30


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def timed(run: Callable[[], Any], device: str) -> float:
    wait(device)
    start = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - start


def bandwidth(device: str, tiny: bool) -> float:
    """Bytes that a large copy reads and writes, per second: the best of ten."""
    source = torch.ones((1 << 24) if tiny else (1 << 30), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / min(timed(lambda: target.copy_(source), device) for _ in range(10))


def make(kind: str, layers: int, device: str, tiny: bool) -> Any:
    """The model, drawn where it will run, and quantised there."""
    from chatglm.models.chatglm import ChatGLMForConditionalGeneration
    from chatglm.models.configuration import ChatGLMConfig

    sizes = {**CONFIG, "num_layers": layers, "seq_length": 32768, **(TINY if tiny else {})}
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = ChatGLMForConditionalGeneration(ChatGLMConfig(**sizes)).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    return model.quantize(KINDS[kind], group_size=GROUP) if KINDS[kind] else model


def weight_bytes(model: Any) -> int:
    """What a step reads of the weights: all but the embedding, of which it reads a row."""
    table = model.get_input_embeddings().weight
    held = {t.data_ptr(): t.nbytes for t in (*model.parameters(), *model.buffers()) if t is not table}
    return sum(held.values())


@torch.no_grad()
def reading(model: Any, ids: torch.Tensor, device: str) -> dict[str, Any]:
    """One prompt, ids (1, tokens), into a cache that is kept."""
    from transformers import DynamicCache

    cache, peak = DynamicCache(config=model.config), None
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    seconds = timed(lambda: model(input_ids=ids, past_key_values=cache, logits_to_keep=1), device)
    if device.startswith("cuda"):
        peak = torch.cuda.max_memory_allocated()
    return {"long_seconds": seconds, "long_peak": peak}


@torch.no_grad()
def decoding(model: Any, ids: torch.Tensor, tokens: int, device: str) -> dict[str, Any]:
    """Steps behind a prompt, ids (1, context), each waited for."""
    from transformers import StaticCache

    context, warm, config = ids.shape[1], 5, model.config
    room = context + warm + tokens
    cache = StaticCache(config=config, max_cache_len=room)
    how: dict[str, Any] = {"mode": "reduce-overhead"} if device.startswith("cuda") else {"backend": "aot_eager"}
    step = torch.compile(model, fullgraph=True, **how)
    model(input_ids=ids, past_key_values=cache, logits_to_keep=1)
    fed, where = ids[:, :1].clone(), torch.full((1, 1), context, device=device)

    def decode() -> None:
        torch.compiler.cudagraph_mark_step_begin()
        logits = step(input_ids=fed, position_ids=where, past_key_values=cache, logits_to_keep=1).logits
        fed.copy_(logits[:, -1].argmax(dim=-1, keepdim=True))
        where.add_(1)

    times = [timed(decode, device) for _ in range(warm + tokens)][warm:]
    # The static cache is read whole at every step: keys and values of 2 bytes.
    cached = 2 * 2 * room * config.multi_query_group_num * config.kv_channels * config.num_layers
    seconds = statistics.median(times)
    return {
        "seconds_per_token": seconds,
        "tokens_per_second": 1 / seconds,
        "bytes_per_token": weight_bytes(model) + cached,
    }


def measure(kind: str, layers: int, context: int, tokens: int, long: int, device: str, tiny: int) -> dict[str, Any]:
    from chatglm.kernels import cuda

    model = make(kind, layers, device, bool(tiny))
    ids = torch.randint(10, model.config.padded_vocab_size - 10, (1, max(context, long)), device=device)
    found: dict[str, Any] = {"kernels": cuda.info().variant, "because": cuda.info().reason}
    reading(model, ids[:, : min(context, long)], device)  # compiles the kernels and fills the allocator
    found |= reading(model, ids[:, :long], device)
    found |= decoding(model, ids[:, :context], tokens, device)
    found["bandwidth"] = bandwidth(device, bool(tiny))
    found["share"] = found["bytes_per_token"] * found["tokens_per_second"] / found["bandwidth"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--context", type=int, default=512, help="tokens of the prompt before decoding")
    parser.add_argument("--tokens", type=int, default=128, help="steps that are timed")
    parser.add_argument("--long", type=int, default=8192, help="tokens of the prompt whose memory is reported")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a toy model: tries the script, measures nothing")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, *rest = options.child
        numbers: list[Any] = [int(word) if word.isdigit() else word for word in rest]
        print(json.dumps(measure(kind, *numbers)))
        return
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("no CUDA device (to try the script: --tiny --device cpu)")
    if options.tiny:
        options.layers = 2
    device = torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else options.device
    report: dict[str, Any] = {"machine": machine(), "device": device, "tiny": options.tiny, "layers": options.layers}
    print(f"{report['machine']}\n{device}")
    print("a toy model: these numbers say nothing\n" if options.tiny else "ChatGLM3-6B, random weights\n")
    print(
        f"{'':6}{'tokens/s':>10}{'ms':>8}{'GiB/token':>11}{'of bandwidth':>14}{'prompt s':>10}{'peak GiB':>10}  kernels"
    )
    for kind in KINDS:
        found = child(
            __file__,
            kind,
            options.layers,
            options.context,
            options.tokens,
            options.long,
            options.device,
            int(options.tiny),
        )
        report[kind] = found
        peak = "?" if found["long_peak"] is None else f"{found['long_peak'] / _GIB:.2f}"
        print(
            f"{kind:6}{found['tokens_per_second']:10.1f}{found['seconds_per_token'] * 1e3:8.2f}"
            f"{found['bytes_per_token'] / _GIB:11.3f}{found['share']:14.1%}{found['long_seconds']:10.2f}{peak:>10}"
            f"  {found['kernels'] if KINDS[kind] else '-'}",
            flush=True,
        )
    print(json.dumps(report))


if __name__ == "__main__":
    main()
