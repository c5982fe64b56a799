"""`chatglm quantize`: a checkpoint with weights of 4 or 8 bits from one with 16, layer by layer."""

from __future__ import annotations

import argparse
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from chatglm.cli.models import model_of_environment, note, quieten
from chatglm.errors import InputError

if TYPE_CHECKING:
    from chatglm.quantization.folder import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="folder or repository id of the checkpoint (default: MODEL_PATH, else the demo model)",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the quantised checkpoint")
    parser.add_argument("--bits", type=int, choices=(4, 8), default=4, help="bits of a weight (default: 4)")
    parser.add_argument(
        "--group-size",
        type=int,
        choices=(32, 64, 128),
        metavar="N",
        help="weights that share a scale: 32, 64 or 128 (default: 128)",
    )
    parser.add_argument(
        "--scheme",
        choices=("groups", "official"),
        default="groups",
        help="official: a scale per row, in the layout of the official int4 and int8 checkpoints",
    )
    parser.add_argument(
        "--method",
        choices=("rtn", "gptq"),
        default="rtn",
        help="rtn: round to nearest (default); gptq: minimize the error of each layer's outputs on calibration data",
    )
    parser.add_argument(
        "--calibration", metavar="DATA", help="gptq calibration data: .txt, .jsonl with texts, or dialogues"
    )
    parser.add_argument("--samples", type=int, metavar="N", help="gptq: passages (default: 128)")
    parser.add_argument(
        "--length", type=int, metavar="N", help="gptq, --perplexity: longest passage in tokens (default: 512)"
    )
    parser.add_argument("--no-act-order", action="store_true", help="gptq: keep the columns in their order")
    parser.add_argument("--head", action="store_true", help="quantise the output head too")
    parser.add_argument("--embedding", action="store_true", help="quantise the input embedding too")
    parser.add_argument(
        "--layout",
        choices=("chatglm", "gptq"),
        default="chatglm",
        help="gptq: write AutoGPTQ's checkpoint format (4 bits, groups)",
    )
    parser.add_argument(
        "--perplexity", metavar="DATA", help="measure perplexity on it before and after; loads both models"
    )
    parser.add_argument("--device", default="cpu", help="device to compute on (default: cpu)")
    parser.add_argument("--overwrite", action="store_true", help="replace the checkpoint in the output folder")


def run(arguments: argparse.Namespace) -> int:
    quieten()
    from pathlib import Path

    from chatglm import hub
    from chatglm.loading import check_device, demo_folder
    from chatglm.quantization.folder import Job, quantize_folder
    from chatglm.quantization.schemes import Scheme

    official = arguments.scheme == "official"
    if official and arguments.group_size is not None:
        raise InputError("--group-size: the official scheme has a scale per row; leave it out, or --scheme official")
    for name in ("calibration", "no_act_order", "samples"):
        given = getattr(arguments, name)
        if given is not None and given is not False and arguments.method != "gptq":
            raise InputError(f"--{name.replace('_', '-')}: cannot be used with --method {arguments.method}")
    if arguments.length is not None and arguments.method != "gptq" and not arguments.perplexity:
        raise InputError("--length: is of passages for --method gptq or --perplexity, and there are none")
    length = 512 if arguments.length is None else arguments.length
    samples = 128 if arguments.samples is None else arguments.samples
    if arguments.method == "gptq" and not arguments.calibration:
        raise InputError("--method gptq: give --calibration DATA, texts or dialogues like those the model is for")
    check_device(arguments.device)
    job = Job(
        Scheme(arguments.bits, 0 if official else arguments.group_size or 128),
        method=arguments.method,
        head=arguments.head,
        embedding=arguments.embedding,
        act_order=not arguments.no_act_order,
        layout=arguments.layout,
    )
    model_of_environment(arguments)
    source = demo_folder() if arguments.model is None else hub.folder(arguments.model, any_family=True, say=note)
    measured = _read(source, arguments.perplexity, length, None) if arguments.perplexity else None
    calibration = []
    if arguments.method == "gptq":
        calibration = [p.ids for p in _read(source, arguments.calibration, length, samples)]
    progress, watch = _shown()
    report = quantize_folder(
        source,
        arguments.output,
        job,
        calibration=calibration,
        device=arguments.device,
        overwrite=arguments.overwrite,
        progress=progress,
        watch=watch,
    )
    if report.done_before:
        rest = "nothing to do" if measured is None else "only the perplexity is measured"
        print(f"{report.output}: was made from the same weights with the same settings; {rest}")
        if measured is None:
            return 0
    if measured is not None:
        report.perplexity = {"text": arguments.perplexity, **_perplexities(source, arguments, measured)}
        report.write(Path(arguments.output).expanduser())
    print(*report.lines(), sep="\n")
    print(f"checkpoint in {report.output}\nTry it: chatglm chat --model {report.output}")
    return 0


def _shown() -> tuple[Progress, Progress]:
    """A progress bar of layers on a terminal, and the passages in the present block beside it."""
    if not sys.stderr.isatty():
        return (lambda name, done, total: None), (lambda name, done, total: None)
    from tqdm import tqdm

    @cache
    def bar() -> Any:  # not before there is something to show
        return tqdm(unit="layer")

    def layer(name: str, done: int, total: int) -> None:
        if bar().total is None:
            bar().total = total
            bar().initial = bar().n = done - 1  # an earlier run's
        bar().set_postfix_str(name.removeprefix("transformer."), refresh=False)
        bar().update(1)
        if done == total:
            bar().close()

    def block(name: str, done: int, total: int) -> None:
        bar().set_postfix_str(f"{name.removeprefix('transformer.')}: {done} of {total}")

    return layer, block


def _read(source: Any, data: str, length: int, limit: int | None) -> list[Any]:
    """Passages of a file of texts or of dialogues, for the model in `source`."""
    import json
    from itertools import islice
    from pathlib import Path

    import torch

    from chatglm.loading import AutoTokenizer
    from chatglm.quantization.perplexity import Passage, passages

    if length < 8:
        raise InputError(f"--length {length}: too short; give 8 or more")
    if limit is not None and limit < 1:
        raise InputError(f"--samples {limit}: give 1 or more")
    tokenizer = AutoTokenizer.from_pretrained(source)
    file = Path(data).expanduser()
    texts = file.is_dir() or file.suffix == ".txt"
    if file.suffix == ".jsonl" and file.is_file():
        with file.open(encoding="utf-8", errors="replace") as lines:
            first = next((line for line in lines if line.strip()), "{}")
        try:
            texts = isinstance(json.loads(first).get("text"), str)
        except (ValueError, AttributeError):
            texts = False
    if texts:
        from chatglm.training.texts import read_texts

        return passages(tokenizer, (f"{document.text}\n" for document in read_texts(file)), length=length, limit=limit)
    if not hasattr(tokenizer, "generation"):
        raise InputError(f"{data}: dialogues are read for models of the ChatGLM family; give texts (.txt, .jsonl)")
    from chatglm.chat.formats import chat_format
    from chatglm.training.examples import encode_files

    made = (
        Passage(torch.tensor(example.ids), torch.tensor(example.targets))
        for _, examples in encode_files(file, chat_format(tokenizer), max_length=length)
        for example in examples
    )
    found = list(islice(made, limit))
    if not found:
        raise InputError(f"{data}: has no dialogue that fits into {length} tokens; raise --length")
    return found


def _perplexities(source: Any, arguments: argparse.Namespace, measured: list[Any]) -> dict[str, Any]:
    """Perplexities of the model before and after, one after the other, in the same precision."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    from chatglm.quantization.perplexity import perplexity

    auto = AutoModel if AutoConfig.from_pretrained(source).model_type == "chatglm" else AutoModelForCausalLM
    # float32 if possible: rounding the activations would make the measurement inexact.
    small = sum(f.stat().st_size for f in source.iterdir() if f.suffix in (".safetensors", ".bin")) < 4e9
    dtype = torch.float32 if small else torch.bfloat16
    found = {}
    for name, folder in (("before", source), ("after", arguments.output)):
        model = auto.from_pretrained(folder, dtype=dtype, device_map=arguments.device).eval()
        found[name], count = perplexity(model, measured)
        del model
    return {**found, "tokens": count}
