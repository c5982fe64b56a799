"""How fast does a full-size ChatGLM3-6B run on a CUDA device in bf16, int8 and int4, and what does the card allow?

    python benchmarks/bench_cuda.py [--layers 28] [--context 512] [--tokens 64] [--long 8192] [--compile]
    python benchmarks/bench_cuda.py --tiny --device cpu    # does the script itself work? says nothing about a card

Random weights of ChatGLM3-6B's sizes, drawn on the device; int8 and int4 in groups of 128, "official" int4 with a scale
per row, the output head as it is. In processes of their own:

- the four linear layers of a block, alone: median time of a CUDA graph of many different weights, more than any cache
  holds, for 1 to 2,048 rows of inputs, beside torch's bf16 product on the same sizes;
- each kind of weights: prompts of 512 tokens and of --long, and the peak of allocated memory; `generate` behind one
  of --context tokens; the engine with 1, 8 and 32 requests of 128 tokens each, the time of a step that gives everyone a
  token, and the bytes it must read (weights but for the embedding's other rows) per second, beside a large copy's;
- with --compile, one step in a static cache through `torch.compile` in its mode "reduce-overhead";
- `transformers`' own GLM on the same bf16 weights: prompts and `generate`.

`generate` is timed in its second run: the first one meets lengths for which kernels are still chosen.

Prints tables for people and one JSON line for machines. Needs 20 GiB of device memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from common import child, machine, native_twin
from full_size import CONFIG

KINDS = {"bf16": (0, 0), "int8": (8, 128), "int4": (4, 128), "official": (4, 0)}
"""Bits and group size."""
LAYERS = {"query_key_value": (4608, 4096), "dense": (4096, 4096), "h_to_4h": (27392, 4096), "4h_to_h": (4096, 13696)}
COUNTS = (1, 4, 16, 32, 64, 128, 512, 2048)
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


def in_graph(run: Callable[[], Any], device: str) -> float:
    """Seconds, the median of five replays."""
    if not device.startswith("cuda"):
        return timed(run, device)
    timed(run, device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    times = []
    for _ in range(6):
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1000)
    return statistics.median(times[1:])


@torch.no_grad()
def layers_alone(device: str, tiny: bool) -> dict[str, Any]:
    """Seconds of a layer, by its name, its weights and the rows of inputs; and the bytes of its weights."""
    from chatglm.kernels.linear import linear
    from chatglm.kernels.packing import PackedWeight, shapes

    found: dict[str, Any] = {"bandwidth": bandwidth(device, tiny)}
    for name, (rows, columns) in LAYERS.items():
        rows, columns = (rows // 64, columns // 64) if tiny else (rows, columns)
        for kind, (bits, group) in KINDS.items():
            size, scales = shapes(rows, columns, bits or 8, group)
            many = 2 if tiny else max(2, int(6e8 // (size if bits else 2 * rows * columns)))
            weights: list[Any] = [
                PackedWeight(
                    torch.randint(0, 255, (size,), dtype=torch.uint8, device=device),
                    (torch.rand(scales, device=device) / 100).half(),
                    rows,
                    columns,
                    bits,
                    group,
                )
                if bits
                else torch.randn(rows, columns, device=device, dtype=torch.bfloat16)
                for _ in range(many)
            ]
            layer = linear if bits else torch.nn.functional.linear
            held = size + 2 * scales[0] * scales[1] * scales[2] if bits else 2 * rows * columns
            times = {}
            for count in COUNTS:
                inputs = torch.randn(count, columns, device=device, dtype=torch.bfloat16)
                times[count] = in_graph(lambda x=inputs, w=weights, f=layer: [f(x, one) for one in w], device) / many
            found[f"{name} {kind}"] = {"bytes": held, "seconds": times}
    return found


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
    bits, group = KINDS[kind]
    return model.quantize(bits, group_size=group) if bits else model


def weight_bytes(model: Any) -> int:
    """What a step reads of the weights: all but the embedding, of which it reads a row."""
    table = model.get_input_embeddings().weight
    held = {t.data_ptr(): t.nbytes for t in (*model.parameters(), *model.buffers()) if t is not table}
    return sum(held.values())


@torch.no_grad()
def reading(model: Any, ids: torch.Tensor, device: str) -> dict[str, Any]:
    """One prompt, ids (1, tokens), into a cache that is kept; the second time that it is read."""
    from transformers import DynamicCache

    def read() -> None:
        model(input_ids=ids, past_key_values=DynamicCache(config=model.config), logits_to_keep=1)

    timed(read, device)
    peak = None
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    seconds = timed(read, device)
    if device.startswith("cuda"):
        peak = torch.cuda.max_memory_allocated()
    return {"tokens_per_second": ids.shape[1] / seconds, "peak": peak}


def generating(model: Any, ids: torch.Tensor, tokens: int, device: str) -> float:
    """Tokens a second of `generate`, the prompt's time among them."""

    def run() -> None:
        options = {"max_new_tokens": tokens, "min_new_tokens": tokens, "eos_token_id": None, "pad_token_id": 0}
        model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, **options)

    timed(run, device)
    return tokens / timed(run, device)


def answering(model: Any, requests: int, tokens: int, device: str, tiny: bool) -> dict[str, float]:
    """Requests at once in the engine: a step in which all get a token, and all of it with the prompts."""
    from chatglm.engine.engine import Engine
    from chatglm.params import SamplingParams

    engine = Engine(model, adaptable=True, speculate=False, memory=(1 << 22) if tiny else (8 << 30))
    generator = torch.Generator().manual_seed(requests)
    length, vocabulary = 8 if tiny else 128, model.config.padded_vocab_size
    whole, steps = 0.0, []
    for _ in range(2):  # in the first round steps are recorded
        for _ in range(requests):
            prompt = torch.randint(10, vocabulary - 10, (length,), generator=generator).tolist()
            engine.submit(prompt, SamplingParams(temperature=0, max_new_tokens=tokens))
        steps, begin = [], time.perf_counter()
        while not engine.idle:
            start = time.perf_counter()
            given = sum(len(event.tokens) for event in engine.step())
            if given == requests:
                steps.append(time.perf_counter() - start)
        whole = time.perf_counter() - begin
    seconds = statistics.median(steps)
    return {"step": seconds, "tokens_per_second": requests / seconds, "with_prompts": requests * tokens / whole}


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


def measure(kind: str, layers: int, context: int, tokens: int, long: int, device: str, tiny: int, compiled: int) -> Any:
    from chatglm.kernels import cuda

    if kind == "layers":
        return layers_alone(device, bool(tiny))
    model: Any = make("bf16" if kind == "transformers" else kind, layers, device, bool(tiny))
    weights = weight_bytes(model)
    if kind == "transformers":
        model = native_twin(model).to(device)
    vocabulary = model.config.vocab_size
    ids = torch.randint(10, vocabulary - 10, (1, max(context, long, 512)), device=device)
    found: dict[str, Any] = {"kernels": cuda.info().variant, "because": cuda.info().reason, "bytes": weights}
    found["prompt"] = {length: reading(model, ids[:, :length], device) for length in (min(512, long), long)}
    found["generate"] = generating(model, ids[:, :context], tokens, device)
    if kind != "transformers":
        found["bandwidth"] = bandwidth(device, bool(tiny))
        found["engine"] = {n: answering(model, n, tokens, device, bool(tiny)) for n in (1, 8, 32)}
        if compiled:
            found["compiled"] = decoding(model, ids[:, :context], tokens, device)
    return found


def show_layers(found: dict[str, Any]) -> None:
    print(f"a large copy reads and writes {found['bandwidth'] / 1e12:.2f} TB/s\n")
    print("us; int8 and int4: times torch's bf16 ÷ theirs; for one row, TB/s of weights")
    print(f"{'layer':16}{'weights':>10}" + "".join(f"{f'{count} rows':>14}" for count in COUNTS))
    for name in LAYERS:
        plain = found[f"{name} bf16"]["seconds"]
        for kind in KINDS:
            about = found[f"{name} {kind}"]
            line = f"{name:16}{kind:>10}"
            for count in map(str, COUNTS):
                seconds = about["seconds"][count]
                ratio = f"{about['bytes'] / seconds / 1e12:.2f}" if count == "1" else f"{plain[count] / seconds:.2f}×"
                line += f"{seconds * 1e6:7.1f} {ratio:>6}"
            print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--context", type=int, default=512, help="tokens of the prompt before `generate`")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of an answer")
    parser.add_argument("--long", type=int, default=8192, help="tokens of the prompt whose memory is reported")
    parser.add_argument("--compile", action="store_true", help="a compiled step, too")
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
        options.layers, options.context, options.tokens, options.long = 2, 16, 4, 640
    device = torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else options.device
    report: dict[str, Any] = {"machine": machine(), "device": device, "tiny": options.tiny, "layers": options.layers}
    print(f"{report['machine']}\n{device}")
    print("a toy model: these numbers say nothing\n" if options.tiny else "ChatGLM3-6B, random weights\n")

    def run(kind: str) -> Any:
        sizes = (options.layers, options.context, options.tokens, options.long, options.device)
        report[kind] = child(__file__, kind, *sizes, int(options.tiny), int(options.compile))
        return report[kind]

    show_layers(run("layers"))
    print(f"\n{'':13}{'prompts, tokens/s':>20}{'peak GiB':>10}{'generate':>10}", end="")
    print("".join(f"{f'engine, {n}':>12}" for n in (1, 8, 32)) + f"{'of bandwidth':>14}{'compiled':>10}  kernels")
    for kind in ("transformers", *KINDS):
        found = run(kind)
        short, long = found["prompt"].values()
        peak = "?" if long["peak"] is None else f"{long['peak'] / _GIB:.2f}"
        line = f"{kind:13}{short['tokens_per_second']:10.0f}{long['tokens_per_second']:10.0f}{peak:>10}"
        line += f"{found['generate']:10.1f}"
        if "engine" in found:
            line += "".join(f"{one['tokens_per_second']:12.1f}" for one in found["engine"].values())
            share = found["bytes"] * found["engine"]["1"]["tokens_per_second"] / found["bandwidth"]
            compiled = f"{found['compiled']['tokens_per_second']:.1f}" if options.compile else "-"
            line += f"{share:14.1%}{compiled:>10}  {found['kernels'] if kind != 'bf16' else '-'}"
        print(line, flush=True)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
