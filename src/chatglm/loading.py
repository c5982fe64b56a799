"""A folder, and out comes a model, its tokenizer and its chat format. Never runs code from the folder.

`chatglm.load` makes an assistant of these parts; `load_parts` is for those who want the model to themselves.

The Auto classes are `transformers`' own, with this family registered; only `AutoTokenizer` looks first whether the
folder is one of ours, because some people's copies lack the line that names the tokenizer class.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
)

from chatglm.chat.formats import ChatFormat, chat_format
from chatglm.chat.generations import read_generation, read_json
from chatglm.chat.tokenizers import ChatGLMTokenizer
from chatglm.errors import CheckpointError, DependencyError, InputError, TokenizerError
from chatglm.models.checkpoint import check_folder, weight_files
from chatglm.models.memory import to_huge_pages
from chatglm.models.registration import register_all
from chatglm.quantization.swap import is_quantized

__all__ = [
    "AutoConfig",
    "AutoModel",
    "AutoModelForCausalLM",
    "AutoModelForSeq2SeqLM",
    "AutoModelForSequenceClassification",
    "AutoTokenizer",
    "Loaded",
    "check_device",
    "demo_folder",
    "load_parts",
]

register_all()

_PREFIX = "transformer.prefix_encoder."


class AutoTokenizer:
    """`transformers.AutoTokenizer` that knows a ChatGLM folder by its contents."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """The tokenizer of a folder; `trust_remote_code` is accepted and never needed.

        Raises:
            TokenizerError: the tokenizer's file is missing, damaged or does not fit.
        """
        folder = Path(pretrained_model_name_or_path)
        if (folder / "config.json").is_file() and read_json(folder / "config.json").get("model_type") == "chatglm":
            kwargs.pop("trust_remote_code", None)
            return ChatGLMTokenizer.from_pretrained(folder, *args, **kwargs)
        return transformers.AutoTokenizer.from_pretrained(pretrained_model_name_or_path, *args, **kwargs)


@dataclass(frozen=True)
class Loaded:
    """What `load_parts` returns; unpacks as `model, tokenizer, format = load_parts(path)`."""

    model: Any
    tokenizer: ChatGLMTokenizer
    format: ChatFormat

    def __iter__(self) -> Any:
        return iter((self.model, self.tokenizer, self.format))


def demo_folder() -> Path:
    """The bundled demo model, a checkpoint folder like any other.

    Raises:
        CheckpointError: this copy of chatglm came without it.
    """
    folder = Path(__file__).parent / "demo"
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder}: the demo model is not there; install chatglm from a wheel or a whole clone, or name a "
            "checkpoint's folder"
        )
    return folder


def load_parts(
    path: str | os.PathLike[str] | None = None,
    *,
    adapter: str | os.PathLike[str] | None = None,
    prefix: str | os.PathLike[str] | None = None,
    huge_pages: bool = False,
    **kwargs: Any,
) -> Loaded:
    """Load the parts of a checkpoint folder: a model in evaluation mode, its tokenizer and its format.

    Args:
        path: a folder in an official layout; or a PEFT adapter's folder, whose base model is then loaded under it;
            default: the bundled demo model.
        adapter: a PEFT adapter's folder (LoRA …), put on the model of `path`.
        prefix: a folder or file with an official P-tuning v2 state (`transformer.prefix_encoder.*`).
        huge_pages: copy the weights into huge pages of this process's memory: more tokens a second on a CPU, a longer
            start, and no memory shared with other processes.
        kwargs: what `from_pretrained` takes: `dtype`, `device`, `device_map`, `attn_implementation` …

    Raises:
        CheckpointError: the folder is missing, incomplete, cut short or of an unknown kind; names the file.
        TokenizerError: its tokenizer does not fit its model.
        DependencyError: an adapter is given and `peft` is not installed.
        InputError, UnsupportedError: no huge pages for this model, or on this system.
    """
    folder = demo_folder() if path is None else Path(path).expanduser()
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        if adapter is not None:
            raise InputError(f"{folder} is an adapter itself; give the base model's folder as path")
        base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
        if not base:
            raise CheckpointError(
                f"{folder / 'adapter_config.json'}: names no base model; give its folder as path and "
                "this one as adapter"
            )
        adapter, folder = folder, Path(base).expanduser()
    check_folder(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = AutoConfig.from_pretrained(folder)
    if tokenizer.generation != read_generation(folder) or max(tokenizer.control_ids) >= config.vocab_size:
        raise TokenizerError(
            f"{folder}: its tokenizer is a {tokenizer.generation} one with ids up to {max(tokenizer.control_ids)}, its "
            f"model has {config.vocab_size} of {config.generation}; copy the tokenizer's files from the model's own "
            "download"
        )
    state = _read_prefix(Path(prefix)) if prefix is not None else None
    if state is not None:
        config.pre_seq_len = state["embedding.weight"].shape[0]
        config.prefix_projection = "trans.0.weight" in state
    with _quiet_off_terminal():
        model = AutoModel.from_pretrained(folder, config=config, **kwargs)
    if state is not None:
        try:
            model.transformer.prefix_encoder.load_state_dict(state)
        except RuntimeError as error:
            raise CheckpointError(f"{prefix}: this P-tuning state was made for another model ({error})") from None
    if adapter is not None:
        model = _with_adapter(model, Path(adapter).expanduser())
    if huge_pages:
        to_huge_pages(model)
    return Loaded(model.eval(), tokenizer, chat_format(tokenizer))


@contextmanager
def _quiet_off_terminal() -> Iterator[None]:
    """No progress bars where nobody sees them: they would fill a log."""
    log = transformers.utils.logging
    showed = log.is_progress_bar_enabled()
    if showed and not sys.stderr.isatty():
        log.disable_progress_bar()
    try:
        yield
    finally:
        if showed:
            log.enable_progress_bar()


def check_device(name: str) -> None:
    """
    Raises:
        InputError: this machine or this torch has no such device.
    """
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"--device {name}: {str(error).splitlines()[0]}") from None


def _read_prefix(path: Path) -> dict[str, torch.Tensor]:
    """The `prefix_encoder` part of a saved state, without its official name in front."""
    path = path.expanduser()
    files = weight_files(path) if path.is_dir() else [path]
    state: dict[str, torch.Tensor] = {}
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{file}: no such file; give the folder that the P-tuning run wrote")
        try:
            if file.suffix == ".safetensors":
                from safetensors.torch import load_file

                tensors = load_file(file)
            else:
                tensors = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            raise CheckpointError(f"{file}: cannot be read ({error}); copy it again") from error
        state |= {name.removeprefix(_PREFIX): value for name, value in tensors.items() if name.startswith(_PREFIX)}
    if "embedding.weight" not in state:
        raise CheckpointError(f"{path}: holds no P-tuning state (no {_PREFIX}embedding.weight)")
    return state


def _with_adapter(model: Any, folder: Path) -> Any:
    try:
        from peft import PeftConfig, PeftModel
    except ImportError:
        raise DependencyError("adapters need the peft package: pip install 'chatglm[peft]'") from None
    if not (folder / "adapter_config.json").is_file():
        raise CheckpointError(f"{folder}: no adapter_config.json; give the folder that PEFT saved")
    config = PeftConfig.from_pretrained(str(folder))
    if is_quantized(model):
        from chatglm.quantization.lora import adapt

        adapt(config)
    return PeftModel.from_pretrained(model, str(folder), config=config)
