"""Training methods (full, LoRA, P-tuning v2, freeze): which weights are trained and written. Also merges LoRA.

Trained weights are always float32, whatever the precision of the computation: bfloat16 cannot represent a change of
1e-4 of a number.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chatglm import hub
from chatglm.chat.formats import ChatFormat, chat_format
from chatglm.chat.generations import read_generation, read_json
from chatglm.chat.messages import Message
from chatglm.chat.tokenizers import ChatGLMTokenizer
from chatglm.errors import CheckpointError, DependencyError, InputError, TokenizerError, UnsupportedError
from chatglm.loading import AutoConfig, AutoModel, AutoTokenizer, Loaded, check_device, load_parts
from chatglm.models.fields import PRECISIONS, dtype_name
from chatglm.output import locked, reporting_disk_errors
from chatglm.quantization.swap import is_quantized
from chatglm.training.settings import Lora, Prefix, Settings

__all__ = [
    "ALL_LAYERS",
    "Merged",
    "checkpoint_dtype",
    "fitting_tokenizer",
    "merge",
    "prepare",
    "read_weights",
    "trained",
    "write_rest",
    "write_weights",
]

ALL_LAYERS = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
"""The linear layers of a block, in both architectures. By default LoRA adapts all of them. At equal size this learns
better than a larger rank on `query_key_value` alone, which is what the official scripts adapt (`target_modules:
[query_key_value]`).
"""

PREFIX_NAME = "transformer.prefix_encoder."
"""Prefix of the names in an official P-tuning state."""

_PREFIX_FILE = "pytorch_model.bin"  # the name that the official scripts look for

# Rounding the merged weights may change the scores by at most this much, relative to the largest score.
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def prepare(settings: Settings, *, low_precision: torch.dtype | None = None) -> Loaded:
    """Load the model of `settings`. Exactly the weights that its method trains require a gradient.

    Args:
        low_precision: type of the computation if it is not float32. Frozen weights under an adapter have this type.

    Raises:
        CheckpointError, TokenizerError: the model's folder is missing or damaged.
        DependencyError: LoRA without the `peft` package.
        InputError: a layer to adapt does not exist, or there are fewer blocks than should be trained.
        UnsupportedError: the method would train integer weights, or the model has a prefix already.
    """
    folder = settings.base
    adapted = settings.method in ("lora", "ptuning")
    held = low_precision if adapted and low_precision is not None else torch.float32
    if settings.dtype != "auto":
        held = getattr(torch, settings.dtype)
    tokenizer = fitting_tokenizer(folder, folder)
    config = AutoConfig.from_pretrained(folder)
    if config.pre_seq_len:
        raise UnsupportedError(f"{folder}: has a P-tuning prefix already; give the model without it")
    if isinstance(settings.peft_config, Prefix):
        config.pre_seq_len = settings.peft_config.num_virtual_tokens
        config.prefix_projection = settings.peft_config.prefix_projection
    model = AutoModel.from_pretrained(folder, config=config, dtype=held)
    if not adapted and is_quantized(model):
        raise UnsupportedError(
            f"{folder}: its weights are quantised, and integers cannot be trained; use --method lora or ptuning, or "
            "the original weights"
        )
    if isinstance(settings.peft_config, Lora):
        # An adapter names its base. A repository id is valid everywhere, but a relative path is not.
        named = hub.repository(settings.model) if settings.model is not None else None
        model.name_or_path = str(folder.resolve()) if named is None else named.id
        model = _with_lora(model, settings.peft_config, None if named is None else named.revision)
    elif settings.method == "freeze":
        _freeze(model, settings.trainable_layers)
    elif settings.method == "full":
        model.requires_grad_(True)
    if adapted:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    return Loaded(model, tokenizer, chat_format(tokenizer))


def fitting_tokenizer(folder: Path, base: Path) -> ChatGLMTokenizer:
    """The tokenizer of a folder, checked against the model that `base`'s config.json describes.

    Raises:
        TokenizerError: it belongs to another generation, or has ids that the model does not have.
    """
    tokenizer: ChatGLMTokenizer = AutoTokenizer.from_pretrained(folder)
    config = AutoConfig.from_pretrained(base)
    highest = max(tokenizer.control_ids)
    if tokenizer.generation != read_generation(base) or highest >= config.vocab_size:
        raise TokenizerError(
            f"{folder}: its tokenizer is of {tokenizer.generation} with ids up to {highest}, but "
            f"{base / 'config.json'} describes a model of {config.generation} with {config.vocab_size} ids; use the "
            "model's own tokenizer"
        )
    return tokenizer


def trained(model: nn.Module) -> tuple[int, int]:
    """Number of trained weights, and of all weights."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(size for size, grad in sizes if grad), sum(size for size, _ in sizes)


def _with_lora(model: Any, lora: Lora, revision: str | None) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise DependencyError("LoRA needs the peft package: pip install 'chatglm[peft]'") from None
    targets: Any = lora.target_modules or ALL_LAYERS
    if targets != "all-linear":
        targets = [targets] if isinstance(targets, str) else list(targets)
        layers = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        if unknown := sorted(set(targets) - layers):
            raise InputError(
                f"peft_config.target_modules: this model has no linear layer {unknown[0]!r}; it has "
                f"{', '.join(sorted(layers))}"
            )
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=targets,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        revision=None if revision == "main" else revision,  # of the base model
    )
    if not is_quantized(model):
        return get_peft_model(model, config)
    if lora.use_dora:
        raise UnsupportedError("DoRA needs floating-point weights, and these are quantised; use plain LoRA")
    from chatglm.quantization.lora import refuse_merging

    adapted = get_peft_model(model, config)
    refuse_merging(adapted)
    return adapted


def _freeze(model: Any, count: int) -> None:
    backbone = model.transformer
    blocks = backbone.layers if hasattr(backbone, "layers") else backbone.encoder.layers
    if count > len(blocks):
        raise InputError(f"trainable_layers is {count}, but the model has {len(blocks)} blocks")
    model.requires_grad_(False)
    for block in blocks[len(blocks) - count :]:
        block.requires_grad_(True)


# Writing results


def write_weights(
    model: Any, folder: Path, state: dict[str, Tensor] | None = None, *, dtype: torch.dtype | None = None
) -> None:
    """Write what training changed: the weights and config.json of a whole checkpoint, or PEFT's files, or only the
    prefix.

    Args:
        state: the weights, if they are not in the model itself (FSDP, DeepSpeed).
        dtype: type of the written weights; default: unchanged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    if _is_peft(model):
        model.save_pretrained(str(folder), state_dict=state, save_embedding_layers=False)
    elif config.pre_seq_len:
        held = model.state_dict() if state is None else state
        prefix = {name: value for name, value in held.items() if name.startswith(PREFIX_NAME)}
        prefix = {name: value.detach().to("cpu", dtype or value.dtype).clone() for name, value in prefix.items()}
        torch.save(prefix, folder / _PREFIX_FILE)
    else:
        held = model.state_dict() if state is None else state
        if dtype is not None:
            held = _rounded(held, dtype)
        model.save_pretrained(str(folder), state_dict=held)
        # transformers describes the model as it is in memory, without a cache and in the precision of training.
        file = folder / "config.json"
        about = {**read_json(file), "use_cache": True}
        if dtype is not None:
            about["dtype"] = str(dtype).removeprefix("torch.")
        file.write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", "utf-8")


def read_weights(model: Any, folder: Path) -> bool:
    """Load the P-tuning state that `write_weights` wrote. Returns False if the model has none or is a PEFT model."""
    if _is_peft(model) or not model.config.pre_seq_len:
        return False
    state = torch.load(folder / _PREFIX_FILE, map_location="cpu", weights_only=True)
    encoder = model.transformer.prefix_encoder
    encoder.load_state_dict({name.removeprefix(PREFIX_NAME): value for name, value in state.items()})
    return True


def _rounded(state: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Convert floats to another type. A tensor under two names (ChatGLM-6B's embedding and head) stays one tensor."""
    made: dict[tuple[int, torch.Size], Tensor] = {}
    for value in state.values():
        if value.is_floating_point():
            made.setdefault((value.data_ptr(), value.shape), value.to(dtype))
    return {name: made.get((value.data_ptr(), value.shape), value) for name, value in state.items()}


def _is_peft(model: Any) -> bool:
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


@contextmanager
def _written_whole(output: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A new folder to write to. It replaces `output` if the block succeeds, and is removed if it fails.

    Raises:
        InputError: `output` cannot be made; or it is not empty and must not be overwritten, or holds files that do not
            belong to a checkpoint.
    """
    output = output.resolve()  # if `output` is a link to a folder, the link stays
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; give a folder for the result")
    held = sorted(entry.name for entry in output.iterdir()) if output.is_dir() else []
    if held and not overwrite:
        raise InputError(f"{output}: exists already; choose another folder, or add --overwrite")
    if others := [name for name in held if not _is_of_checkpoint(output / name)]:
        raise InputError(
            f"{output}: has {others[0]} in it, which does not belong to a checkpoint; choose another folder"
        )
    if held and "config.json" not in held:
        raise InputError(
            f"{output}: is not a checkpoint (no config.json), so it is not overwritten; choose another folder"
        )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output}: cannot be made ({error.strerror}); choose another folder") from None
    with locked(output.with_name(f".{output.name}.lock"), output), reporting_disk_errors(output):
        draft = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".partial", dir=output.parent))
        try:
            yield draft
            draft.chmod(0o755)
            if output.exists():
                old = draft.with_suffix(".old")
                output.rename(old)
                draft.rename(output)
                shutil.rmtree(old)
            else:
                draft.rename(output)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise


def _is_of_checkpoint(entry: Path) -> bool:
    """Whether this is a file that a merge may have written."""
    return entry.suffix in (".json", ".safetensors", ".model", ".jinja") and entry.is_file()


# Merging


@dataclass(frozen=True)
class Merged:
    """The result of a merge, measured on a probe of `tokens` positions.

    Attributes:
        output: the new checkpoint's folder.
        difference: largest difference of a score between base + adapter and the written checkpoint.
        scale: largest score, to compare with.
        agreement: share of positions at which both find the same token most likely.
        effect: largest change of a score by the adapter.
    """

    output: Path
    tokens: int
    difference: float
    scale: float
    agreement: float
    effect: float

    def __str__(self) -> str:
        return (
            f"probe of {self.tokens} tokens: largest difference {self.difference:.2e} (scores up to {self.scale:.3g}), "
            f"same likeliest token at {self.agreement:.1%}; the adapter itself moves scores by up to {self.effect:.2e}"
        )


def merge(
    adapter: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    dtype: str = "auto",
    device: str = "cpu",
    overwrite: bool = False,
) -> Merged:
    """Merge a LoRA adapter into its base model and write a complete checkpoint, but only if its scores stay the same.

    The sum of the weights is computed in float32 and rounded once. Then the written checkpoint is loaded again, and its
    scores are compared with those of base + adapter.

    Args:
        model: the base model's folder or repository id; default: the one that the adapter names.
        dtype: type of the written weights; auto: the base checkpoint's.

    Raises:
        CheckpointError: a folder cannot be read, or the scores of the merged model differ from those of base + adapter;
            nothing is written then.
        UnsupportedError: the folder holds a P-tuning state, which cannot be added to weights; or the base model is
            quantised.
        InputError: `output` exists, or is the folder of the adapter or of its base model; or there is no such device.
    """
    adapter, output = hub.folder(adapter), Path(os.path.expanduser(output))
    if not (adapter / "adapter_config.json").is_file():
        if (adapter / _PREFIX_FILE).is_file() and not (adapter / "config.json").is_file():
            raise UnsupportedError(
                f"{adapter}: holds a P-tuning state: virtual tokens cannot be merged into weights; load it with "
                "prefix= (--prefix) beside its model"
            )
        raise CheckpointError(f"{adapter}: no adapter_config.json; give the folder that a LoRA run wrote")
    if read_json(adapter / "adapter_config.json").get("peft_type") != "LORA":
        raise UnsupportedError(f"{adapter}: only LoRA adapters can be merged")
    dtype = dtype_name(dtype)
    if dtype not in ("auto", *PRECISIONS):
        raise InputError(f"dtype is {dtype!r}; must be auto, {', '.join(PRECISIONS)}")
    check_device(device)
    _refuse_source(adapter, output)
    options: dict[str, Any] = {"dtype": torch.float32, "device": device}
    with _written_whole(output, overwrite=overwrite) as draft:
        if model is None:
            joint, tokenizer, form = load_parts(adapter, **options)
        else:
            joint, tokenizer, form = load_parts(model, adapter=adapter, **options)
        if is_quantized(joint):
            from chatglm.quantization.lora import MERGE

            raise UnsupportedError(f"{adapter}: {MERGE}")
        base = joint.get_base_model().name_or_path
        _refuse_source(Path(base), output)
        saved = checkpoint_dtype(Path(base)) if dtype == "auto" else getattr(torch, dtype)
        probe = _probe(form, joint.device)
        wanted = _scores(joint, probe)
        with joint.disable_adapter():
            effect = max(float((a - b).abs().max()) for a, b in zip(wanted, _scores(joint, probe), strict=True))
        plain = joint.merge_and_unload()
        write_weights(plain, draft, dtype=saved)
        write_rest(tokenizer, Path(base), draft)
        del joint, plain
        got = _scores(load_parts(draft, **options).model, probe)
        difference = max(float((a - b).abs().max()) for a, b in zip(wanted, got, strict=True))
        scale = max(float(a.abs().max()) for a in wanted)
        same = torch.cat([a.argmax(-1).flatten() == b.argmax(-1).flatten() for a, b in zip(wanted, got, strict=True)])
        result = Merged(output, len(same), difference, scale, float(same.float().mean()), effect)
        if not difference <= _TOLERANCE[saved] * scale:  # also true if it is NaN
            raise CheckpointError(
                f"{output}: not written: the merged model's scores are not those of base + adapter ({result}); merge "
                "with --dtype float32, or keep the adapter apart"
            )
    return result


def _refuse_source(source: Path, output: Path) -> None:
    if source.resolve().is_relative_to(output.resolve()):
        raise InputError(f"{output}: this folder holds what is merged ({source}); choose another folder for the result")


def checkpoint_dtype(folder: Path) -> torch.dtype:
    """The type of the weights that a checkpoint's config.json names; in official ones float16 or bfloat16."""
    config = read_json(folder / "config.json")
    name = str(config.get("dtype") or config.get("torch_dtype") or "float16").removeprefix("torch.")
    made = getattr(torch, name, None)
    return made if made in _TOLERANCE else torch.float16


def write_rest(tokenizer: Any, base: Path, folder: Path) -> None:
    """Write the other files of a checkpoint: the tokenizer's files and the generation defaults."""
    tokenizer.save_pretrained(str(folder))
    if (base / "generation_config.json").is_file():
        shutil.copyfile(base / "generation_config.json", folder / "generation_config.json")


_QUESTIONS = ("你好", "晚上睡不着应该怎么办", "Write a short poem about the sea.", "1 + 2 × 3 = ?")


def _probe(form: ChatFormat, device: Any) -> list[Tensor]:
    """Prompts for the comparison, each (1, S)."""
    return [torch.tensor([form.prompt([Message("user", text)])], device=device) for text in _QUESTIONS]


@torch.no_grad()
def _scores(model: Any, probe: list[Tensor]) -> list[Tensor]:
    return [model(input_ids=ids).logits.float().cpu() for ids in probe]
