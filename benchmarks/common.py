"""What the benchmarks share: the machine, a process of its own for each measurement, and `transformers`' own GLM."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import torch

__all__ = ["Memory", "child", "machine", "native_twin"]


class Memory:
    """Peaks of this process' resident memory, sampled every 2 ms: all of it, and the anonymous part."""

    def __init__(self) -> None:
        self.peak = {"rss": 0, "anonymous": 0}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self.start = self._read()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _read(self) -> dict[str, int]:
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return {
            "rss": int(fields["VmRSS"].split()[0]) * 1024,
            "anonymous": int(fields["RssAnon"].split()[0]) * 1024,
        }

    def _watch(self) -> None:
        while not self._stop.wait(0.002):
            now = self._read()
            self.peak = {name: max(value, now[name]) for name, value in self.peak.items()}


def native_twin(model: Any) -> Any:
    """`transformers`' own GLM on the very weights of ours: views of them, so that both fit into memory at once."""
    from transformers import GlmConfig, GlmForCausalLM

    ours = model.config
    config = GlmConfig(
        vocab_size=ours.padded_vocab_size,
        hidden_size=ours.hidden_size,
        intermediate_size=ours.ffn_hidden_size,
        num_hidden_layers=ours.num_layers,
        num_attention_heads=ours.num_attention_heads,
        head_dim=ours.kv_channels,
        num_key_value_heads=ours.multi_query_group_num,
        rms_norm_eps=ours.layernorm_epsilon,
        pad_token_id=0,
        eos_token_id=2,
    )
    with torch.device("meta"):
        twin = GlmForCausalLM(config)
    sizes = [ours.num_attention_heads * ours.kv_channels, *[ours.multi_query_group_num * ours.kv_channels] * 2]
    weights = {
        "model.embed_tokens.weight": model.transformer.embedding.word_embeddings.weight,
        "model.norm.weight": model.transformer.encoder.final_layernorm.weight,
        "lm_head.weight": model.transformer.output_layer.weight,
    }
    for number, block in enumerate(model.transformer.encoder.layers):
        p, attention = f"model.layers.{number}.", block.self_attention
        for name, weight, bias in zip(
            "qkv",
            attention.query_key_value.weight.split(sizes),
            attention.query_key_value.bias.split(sizes),
            strict=True,
        ):
            weights[f"{p}self_attn.{name}_proj.weight"] = weight
            weights[f"{p}self_attn.{name}_proj.bias"] = bias
        weights |= {
            p + "self_attn.o_proj.weight": attention.dense.weight,
            p + "mlp.gate_up_proj.weight": block.mlp.dense_h_to_4h.weight,
            p + "mlp.down_proj.weight": block.mlp.dense_4h_to_h.weight,
            p + "input_layernorm.weight": block.input_layernorm.weight,
            p + "post_attention_layernorm.weight": block.post_attention_layernorm.weight,
        }
    twin.load_state_dict(weights, assign=True)
    rotary = twin.model.rotary_emb
    for name in ("inv_freq", "original_inv_freq"):
        setattr(rotary, name, rotary.compute_default_rope_parameters(config)[0])
    return twin.eval()


def child(script: str, *arguments: object) -> dict[str, Any]:
    """What a script prints as its last line, as JSON, when it is run with `--child` in a process of its own."""
    command = [sys.executable, script, "--child", *map(str, arguments)]
    environment = {**os.environ, "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    result: dict[str, Any] = json.loads(output.stdout.splitlines()[-1])
    return result


def machine() -> dict[str, Any]:
    """The machine and the versions that a figure belongs to."""
    import transformers

    about = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        about.setdefault(name.strip(), value.strip())
    model = about.get("model name", platform.processor())
    if "cpu family" in about:  # a virtual machine may say no more than the maker's name
        model += f" (family {about['cpu family']}, model {about['model']})"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory, 1),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
