"""A folder quantised into another: the same as in memory, in little memory, whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from small import FAMILY, logits, small

import chatglm
from chatglm.errors import ChatGLMError, CheckpointError, InputError, UnsupportedError
from chatglm.loading import load_parts
from chatglm.quantization.folder import Job, quantize_folder
from chatglm.quantization.linear import QuantizedEmbedding, QuantizedLinear
from chatglm.quantization.schemes import Scheme
from chatglm.quantization.swap import quantize_module

HERE = Path(__file__).parent


@pytest.mark.parametrize("kind", [*FAMILY, "llama", "moss"])
@pytest.mark.parametrize(
    "job",
    [
        Job(Scheme(4, 32)),
        Job(Scheme(8, 128), head=True),
        Job(Scheme(4, 64), head=True, embedding=True),
        Job(Scheme(8, 0)),
        Job(Scheme(4, 0), head=True, embedding=True),
        Job(Scheme(4, 0), embedding=True),
    ],
    ids=str,
)
@pytest.mark.parametrize("shard", [1 << 30, 10_000])
def test_same_as_in_memory(kind: str, job: Job, shard: int, tmp_path: Path) -> None:
    model = small(kind)
    model.save_pretrained(tmp_path / "plain", max_shard_size="30KB")
    report = quantize_folder(tmp_path / "plain", tmp_path / "q", job, shard_bytes=shard)
    quantize_module(model, job.scheme.bits, job.scheme.group_size, head=job.head, embedding=job.embedding)
    auto = transformers.AutoModelForCausalLM
    made = auto.from_pretrained(tmp_path / "q")
    assert torch.equal(logits(made, kind), logits(model, kind))
    count = sum(isinstance(m, (QuantizedLinear, QuantizedEmbedding)) for m in made.modules())
    tied = kind == "chatglm" and (job.head or job.embedding)
    assert len(report.layers) == count - tied
    assert all(0 < layer.weight_error < 0.2 for layer in report.layers)
    assert report.bytes_after < report.bytes_before
    assert json.loads((tmp_path / "q" / "report.json").read_text("utf-8"))["method"] == "rtn"
    assert "rtn" in "\n".join(report.lines())
    assert not [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")]
    made.save_pretrained(tmp_path / "again")
    assert torch.equal(logits(auto.from_pretrained(tmp_path / "again"), kind), logits(model, kind))


@pytest.mark.parametrize("version", ["chatglm", "chatglm2", "chatglm3", "glm4"])
def test_official_folders(version: str, checkpoint, tmp_path: Path) -> None:
    """From torch files and safetensors; tokenizer and defaults come along, and it chats."""
    for job in (Job(Scheme(8, 0)), Job(Scheme(8, 32), head=True, embedding=True)):
        out = tmp_path / str(job.scheme.group_size)
        quantize_folder(checkpoint(version), out, job)
        model, tokenizer, _ = load_parts(out, dtype=torch.float32)
        response, _ = model.chat(tokenizer, "你好", history=[], do_sample=False, max_new_tokens=4)
        assert response is not None
        about = json.loads((out / "config.json").read_text("utf-8"))
        assert ("quantization_bit" in about) == job.scheme.official
        kept = {entry.name for entry in checkpoint(version).iterdir() if "pytorch" not in entry.name}
        assert {name for name in kept if "safetensors" not in name} <= {entry.name for entry in out.iterdir()}


def test_official_layout_comes_out_again(checkpoint, shared: Path, tmp_path: Path) -> None:
    quantize_folder(checkpoint("chatglm2"), tmp_path / "q", Job(Scheme(4, 0)))
    state = load_file(tmp_path / "q" / "model.safetensors")
    record = load_file(shared / "golden" / "chatglm2" / "quant.safetensors")
    for name in (name for name in record if name.startswith("int4.layers.") and name.endswith(("weight", "scale"))):
        assert torch.equal(state[f"transformer.encoder.{name.removeprefix('int4.')}"], record[name])


# Killed, and gone on with

WORKER = """
import os, signal, sys
sys.path.insert(0, {here!r})
import torch
from chatglm.quantization.folder import Job, quantize_folder
from chatglm.quantization.schemes import Scheme
torch.set_num_threads(1)
calibration = [torch.arange(4 + n, 44 + n) for n in range(6)] if {method!r} == "gptq" else ()
def stop(name, done, total):
    if done == 6:
        os.kill(os.getpid(), signal.SIGKILL)
quantize_folder({source!r}, {output!r}, Job(Scheme(4, 32), method={method!r}), calibration=calibration,
    shard_bytes=8000, progress=stop)
"""


def kill_at_work(source: Path, output: Path, method: str) -> int:
    """Quantise in a process that is killed within; its code of return."""
    code = textwrap.dedent(WORKER).format(here=str(HERE), source=str(source), output=str(output), method=method)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120).returncode


def work(source: Path, output: Path, method: str) -> list[str]:
    """The same here, to the end; the layers that were done."""
    calibration = [torch.arange(4 + n, 44 + n) for n in range(6)] if method == "gptq" else ()
    done: list[str] = []
    job = Job(Scheme(4, 32), method=method)  # type: ignore[arg-type]
    quantize_folder(
        source, output, job, calibration=calibration, shard_bytes=8000, progress=lambda name, *_: done.append(name)
    )
    return done


@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_killed_and_resumed(method: str, tmp_path: Path) -> None:
    small("chatglm3").save_pretrained(tmp_path / "plain")
    assert len(work(tmp_path / "plain", tmp_path / "whole", method)) == 8
    assert kill_at_work(tmp_path / "plain", tmp_path / "q", method) == -signal.SIGKILL
    assert not (tmp_path / "q").exists()
    (draft,) = (entry for entry in tmp_path.iterdir() if entry.name.startswith("."))
    with pytest.raises((ChatGLMError, OSError, ValueError)):
        chatglm.AutoModel.from_pretrained(draft)
    with pytest.raises(ChatGLMError):
        load_parts(draft)

    assert 0 < len(work(tmp_path / "plain", tmp_path / "q", method)) < 8  # it went on
    assert not draft.exists()
    for file in (tmp_path / "whole").iterdir():
        if file.name != "report.json":
            assert file.read_bytes() == (tmp_path / "q" / file.name).read_bytes()
    a, b = (json.loads((tmp_path / n / "report.json").read_text("utf-8")) for n in ("whole", "q"))
    assert a["layers"] == b["layers"]


def test_other_settings_begin_anew(tmp_path: Path) -> None:
    small("chatglm3").save_pretrained(tmp_path / "plain")
    assert kill_at_work(tmp_path / "plain", tmp_path / "q", "rtn") == -signal.SIGKILL
    report = quantize_folder(tmp_path / "plain", tmp_path / "q", Job(Scheme(8, 0)))
    assert len(report.layers) == 8
    model = chatglm.AutoModel.from_pretrained(tmp_path / "q")
    assert torch.equal(logits(model, "chatglm3"), logits(small("chatglm3").quantize(8), "chatglm3"))


def test_an_error_leaves_no_checkpoint(tmp_path: Path) -> None:
    model = small("chatglm3")
    model.transformer.encoder.layers[1].mlp.dense_4h_to_h.weight.data[3, 3] = float("inf")
    model.save_pretrained(tmp_path / "plain")
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.dense_4h_to_h\.weight: .*infinity"):
        quantize_folder(tmp_path / "plain", tmp_path / "q", Job(Scheme(4)))
    assert not (tmp_path / "q").exists()


def test_what_comes_into_the_output_meanwhile_is_kept(tmp_path: Path) -> None:
    """A run may take hours. What somebody has put there is not removed, and the work is not lost."""
    small("chatglm3").save_pretrained(tmp_path / "source")
    output = tmp_path / "out"

    def put(name: str, done: int, total: int) -> None:
        output.mkdir(exist_ok=True)
        (output / "mine.txt").write_text("mine")

    with pytest.raises(InputError, match="exists already"):
        quantize_folder(tmp_path / "source", output, Job(Scheme(8, 32)), progress=put)
    assert (output / "mine.txt").read_text() == "mine"
    (output / "mine.txt").unlink()
    done: list[str] = []
    report = quantize_folder(
        tmp_path / "source", output, Job(Scheme(8, 32)), progress=lambda name, number, total: done.append(name)
    )
    assert done == []  # it goes on where it stopped
    assert not report.done_before
    assert (output / "config.json").is_file()


def test_two_at_once(tmp_path: Path) -> None:
    small("chatglm3").save_pretrained(tmp_path / "plain")

    def meanwhile(name: str, done: int, total: int) -> None:
        if done == 3:
            with pytest.raises(InputError, match="another process"):
                quantize_folder(tmp_path / "plain", tmp_path / "q", Job(Scheme(4)))

    quantize_folder(tmp_path / "plain", tmp_path / "q", Job(Scheme(4)), progress=meanwhile)


MEMORY = """
import sys, threading, time
sys.path.insert(0, {here!r})
import torch
from chatglm.quantization.folder import Job, quantize_folder
from chatglm.quantization.schemes import Scheme
torch.set_num_threads(1)
quantize_folder({small!r}, {small!r} + "-q", Job(Scheme(4), head=True, embedding=True))  # everything is imported
def held():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
peak, base, over = 0.0, held(), False
def watch():
    global peak
    while not over:
        peak = max(peak, held())
        time.sleep(0.001)
thread = threading.Thread(target=watch)
thread.start()
report = quantize_folder({source!r}, {source!r} + "-q", Job(Scheme(4), head=True, embedding=True))
over = True
thread.join()
print(peak - base, report.bytes_before / 1e6, report.bytes_after / 1e6)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_is_that_of_a_layer(tmp_path: Path) -> None:
    small("chatglm3").save_pretrained(tmp_path / "small")
    config = {"hidden_size": 1024, "ffn_hidden_size": 2816, "num_attention_heads": 16, "kv_channels": 64}
    model = small("chatglm3", num_layers=6, multi_query_group_num=2, padded_vocab_size=4096, **config)
    model.half().save_pretrained(tmp_path / "mid", max_shard_size="50MB")
    largest = 2 * 2816 * 1024 * 4 / 1e6  # in float32
    del model
    code = MEMORY.format(here=str(HERE), small=str(tmp_path / "small"), source=str(tmp_path / "mid"))
    # glibc's threshold grows with what is freed, and what lies below it is kept: it would show its hoard, not the need.
    # Layers of a full-size model are always above.
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "262144"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr
    peak, before, _ = map(float, done.stdout.split())
    assert before > 140
    assert peak < largest < before / 6


# What is refused


def test_refusals(tmp_path: Path) -> None:
    job = Job(Scheme(4, 32))
    with pytest.raises(CheckpointError, match="no such folder"):
        quantize_folder(tmp_path / "none", tmp_path / "q", job)
    plain = tmp_path / "plain"
    small("chatglm3").save_pretrained(plain)
    with pytest.raises(InputError, match="holds the weights to quantise"):
        quantize_folder(plain, plain, job, overwrite=True)
    quantize_folder(plain, tmp_path / "q", job)
    assert quantize_folder(plain, tmp_path / "q", job).done_before
    with pytest.raises(InputError, match="--overwrite"):
        quantize_folder(plain, tmp_path / "q", Job(Scheme(8, 32)))
    with pytest.raises(CheckpointError, match="quantised already"):
        quantize_folder(tmp_path / "q", tmp_path / "r", job)
    quantize_folder(plain, tmp_path / "q", Job(Scheme(8, 0)), overwrite=True)
    assert json.loads((tmp_path / "q" / "config.json").read_text("utf-8"))["quantization_bit"] == 8
    (tmp_path / "q" / "notes.doc").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.doc"):
        quantize_folder(plain, tmp_path / "q", job, overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        quantize_folder(plain, tmp_path / "file", job)
    with pytest.raises(InputError, match="cannot be made"):
        quantize_folder(plain, tmp_path / "file" / "q", job)


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    job = Job(Scheme(4, 32))
    small("chatglm3").save_pretrained(tmp_path / "plain")
    file = tmp_path / "plain" / "config.json"
    about = json.loads(file.read_text("utf-8"))

    def described(**changes: Any) -> None:
        file.write_text(json.dumps({**about, **changes}), "utf-8")

    described(num_layers=3)
    with pytest.raises(CheckpointError, match=r"missing in the files: 4 \(first: .*layers\.2"):
        quantize_folder(tmp_path / "plain", tmp_path / "q", job)
    described(ffn_hidden_size=20)
    with pytest.raises(CheckpointError, match="in the files, but"):
        quantize_folder(tmp_path / "plain", tmp_path / "q", job)
    described(model_type="vit")
    with pytest.raises(UnsupportedError, match="not a language model"):
        quantize_folder(tmp_path / "plain", tmp_path / "q", job)
    described(model_type="nonsense")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        quantize_folder(tmp_path / "plain", tmp_path / "q", job)
    weights = tmp_path / "plain" / "model.safetensors"
    described()
    os.truncate(weights, weights.stat().st_size - 10)
    with pytest.raises(CheckpointError, match="bytes, but its header says"):
        quantize_folder(tmp_path / "plain", tmp_path / "q", job)
    assert not (tmp_path / "q").exists()


def test_jobs_that_there_are_not() -> None:
    with pytest.raises(InputError, match="rtn or gptq"):
        Job(Scheme(4), method="awq")
    with pytest.raises(InputError, match="chatglm or gptq"):
        Job(Scheme(4), layout="gguf")
    with pytest.raises(InputError, match="needs 4 bits, groups"):
        Job(Scheme(8), layout="gptq")
