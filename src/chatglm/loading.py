"""Loads a model, its tokenizer and its chat format from a folder. Never runs code from the folder.

`load_parts` returns a `PreTrainedModel` for programs that use the model themselves. `chatglm.load` makes an assistant
from the result of `load_to_answer`. If the native decoder can run the model, that result holds only the weights,
because importing the model classes of `transformers` takes longer than loading a 6B model.

The Auto classes here are those of `transformers`, with this family registered. They look at a folder before
`transformers` does. So a bad config.json raises `CheckpointError`, as everywhere in chatglm, and raises it at once.
`AutoTokenizer` recognises a folder by its contents, because some copies lack the line that names the tokenizer class.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from chatglm import hub
from chatglm.chat.formats import ChatFormat, chat_format
from chatglm.chat.generations import read_generation, read_json
from chatglm.chat.tokenizers import ChatGLMTokenizer
from chatglm.errors import CheckpointError, InputError, TokenizerError
from chatglm.models import native
from chatglm.models.adapters import with_adapter, without_adapter
from chatglm.models.bare import BareModel
from chatglm.models.checkpoint import check_folder, named_folder, read_config, weight_files
from chatglm.models.configuration import ChatGLMConfig
from chatglm.models.fit import check_fit
from chatglm.models.generation_config import read_generation_config
from chatglm.models.memory import read_back, read_in, to_huge_pages, to_huge_pages_behind
from chatglm.models.registration import register_models, without_models
from chatglm.models.weights import headers, mapped
from chatglm.quantization.linear import QuantizedEmbedding, QuantizedLinear
from chatglm.quantization.settings import QuantizationConfig
from chatglm.quantization.swap import is_quantized, pack, swap

if TYPE_CHECKING:
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoModelForSequenceClassification,
    )

__all__ = [
    "AutoConfig",
    "AutoModel",
    "AutoModelForCausalLM",
    "AutoModelForSeq2SeqLM",
    "AutoModelForSequenceClassification",
    "AutoTokenizer",
    "Loaded",
    "adapter_base",
    "add_adapter",
    "check_device",
    "demo_folder",
    "load_parts",
    "load_to_answer",
    "remove_adapter",
]

_PREFIX = "transformer.prefix_encoder."
_PREFIX_PARTS = ("embedding.weight", "trans.0.weight", "trans.0.bias", "trans.2.weight", "trans.2.bias")
_MAX_VIRTUAL_TOKENS = 1 << 16


def __getattr__(name: str) -> Any:
    """The Auto classes of `transformers`. They are made at first use, because they import all model classes."""
    if name not in __all__ or not name.startswith(("AutoConfig", "AutoModel")):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    about: dict[str, Any] = {"__module__": __name__}
    if name == "AutoConfig":
        about["part"] = "config"
    else:
        register_models()
    about["__doc__"] = f"`transformers.{name}` that finds repository ids of this family in every cache."
    made = type(name, (_ById, getattr(transformers, name)), about)
    globals()[name] = made
    return made


_HUB_OPTIONS = frozenset(("subfolder", "gguf_file", "cache_dir", "force_download", "proxies", "token", "code_revision"))


def _local(name: Any, part: hub.Part, kwargs: dict[str, Any]) -> Any:
    """The folder for a repository id of this family, found by `chatglm.hub`; any other name is returned unchanged.

    Args:
        kwargs: arguments of `from_pretrained`. `revision` and `local_files_only` are removed if they were used here.
            Options that need the downloads of `transformers` (such as `cache_dir`) leave the name unchanged.
    """
    if not isinstance(name, str | os.PathLike) or any(kwargs.get(option) for option in _HUB_OPTIONS):
        return name
    revision = kwargs.get("revision")
    wanted = name if revision is None else f"{os.fspath(name)}@{revision}"
    if hub.repository(name) is None or hub.repository(wanted) is None:
        return name
    offline = bool(kwargs.get("local_files_only"))
    folder = hub.folder(wanted, "config", offline=offline)
    if not (folder / "config.json").is_file() or read_json(folder / "config.json").get("model_type") != "chatglm":
        return name
    kwargs.pop("revision", None)
    kwargs.pop("local_files_only", None)
    return hub.folder(wanted, part, offline=offline)


class _ById:
    """Base of the Auto classes: `from_pretrained` finds repository ids of this family in every cache, and looks at a
    folder before `transformers` does.
    """

    part: hub.Part = "model"

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load as `transformers` does.

        Raises:
            CheckpointError: there is no such folder, or its config.json cannot be read.
            ConfigError, UnsupportedError: it describes a model that does not belong to the family.
        """
        name = _local(pretrained_model_name_or_path, cls.part, kwargs)
        _check_config(name, kwargs)
        return super().from_pretrained(name, *args, **kwargs)  # type: ignore[misc]


class AutoTokenizer:
    """`transformers.AutoTokenizer` that recognises a ChatGLM folder by its contents."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Load the tokenizer of a folder. `trust_remote_code` is accepted and never needed.

        Raises:
            CheckpointError: there is no such folder.
            TokenizerError: the tokenizer's file is missing, damaged or does not fit the model.
        """
        pretrained_model_name_or_path = _local(pretrained_model_name_or_path, "tokenizer", kwargs)
        folder = Path(pretrained_model_name_or_path)
        if (folder / "config.json").exists() and read_json(folder / "config.json").get("model_type") == "chatglm":
            kwargs.pop("trust_remote_code", None)
            return ChatGLMTokenizer.from_pretrained(folder, *args, **kwargs)
        if named_folder(pretrained_model_name_or_path) and not folder.is_dir():
            raise CheckpointError(f"{folder!s:.300}: no such folder; give the path of a downloaded checkpoint")
        return transformers.AutoTokenizer.from_pretrained(pretrained_model_name_or_path, *args, **kwargs)


def _check_config(path: Any, asked: dict[str, Any]) -> None:
    """Raise `CheckpointError` if a name means a folder that does not exist or whose config.json cannot be read.

    Args:
        asked: keyword arguments of `from_pretrained`.
    """
    if path is None or asked.get("gguf_file"):
        return
    folder = Path(path).joinpath(asked.get("subfolder") or "")
    if folder.is_file() or not named_folder(path):
        return  # a file of a configuration, or a repository at the hub
    if not folder.is_dir():
        raise CheckpointError(f"{folder!s:.300}: no such folder; give the path of a downloaded ChatGLM checkpoint")
    if not (folder / "adapter_config.json").is_file() or (folder / "config.json").exists():
        read_config(folder)


@dataclass(frozen=True)
class Loaded:
    """The result of `load_parts`; unpacks as `model, tokenizer, format = load_parts(path)`."""

    model: Any
    tokenizer: ChatGLMTokenizer
    format: ChatFormat

    def __iter__(self) -> Any:
        return iter((self.model, self.tokenizer, self.format))


def demo_folder() -> Path:
    """The folder of the bundled demo model, an ordinary checkpoint folder.

    Raises:
        CheckpointError: this copy of chatglm does not contain it.
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
        path: a folder in an official layout, or a repository id such as `THUDM/chatglm3-6b` (see `chatglm.hub`); or a
            PEFT adapter, whose base model is then loaded under it. Default: the base model of `adapter`; without an
            adapter the bundled demo model.
        adapter: folder or repository id of a PEFT adapter (LoRA …) for the model.
        prefix: a folder or file with an official P-tuning v2 state (`transformer.prefix_encoder.*`).
        huge_pages: put the weights into memory pages of 2 MiB, for more tokens per second on a CPU. If the file
            system has no such pages, the weights are copied, which takes seconds. Other processes do not share the
            copy.
        kwargs: arguments of `from_pretrained`: `dtype`, `device`, `device_map`, `attn_implementation` …

    Raises:
        CheckpointError: the folder is missing, incomplete, cut short or of an unknown kind; names the file.
        TokenizerError: its tokenizer does not fit its model.
        DependencyError: an adapter is given and `peft` is not installed.
        InputError, UnsupportedError: there is no such device; no huge pages for this model, or on this system.
    """
    if kwargs.get("device") is not None:
        check_device(kwargs["device"])
    opened = _open(path, adapter)
    model = _whole_model(opened, prefix, **kwargs)
    if huge_pages:
        to_huge_pages(model)
    return _loaded(opened, model)


def load_to_answer(
    path: str | os.PathLike[str] | None = None,
    *,
    store: torch.dtype | None = None,
    adapter: str | os.PathLike[str] | None = None,
    prefix: str | os.PathLike[str] | None = None,
    huge_pages: bool = False,
    whole: bool = False,
    **kwargs: Any,
) -> Loaded:
    """Like `load_parts`, but for an `Engine`: it takes less time and memory. Answers and errors are the same.

    Args:
        store: type of stored keys and values, the same as the engine's.
        huge_pages: as in `load_parts`; the model can be used while the weights are being copied.
        whole: always return a model of `transformers`, which can get adapters later.

    Returns:
        A `BareModel` if the native decoder can run the model: on the CPU, without an adapter or a prefix. Otherwise
        the result of `load_parts`.
    """
    if kwargs.get("device") is not None:
        check_device(kwargs["device"])
    model: Any = None
    with without_models():
        opened = _open(path, adapter)
        plain = opened.adapter is None and not (opened.folder / "adapter_config.json").exists()
        if plain and not whole and prefix is None and not kwargs.keys() - {"device", "dtype"}:
            model = _bare_model(opened, store, **kwargs)
    if model is None:
        model = _whole_model(opened, prefix, **kwargs)
    if huge_pages:
        to_huge_pages_behind(model)
    return _loaded(opened, model)


@dataclass
class _Opened:
    """A complete folder, before its weights are read."""

    folder: Path
    adapter: Path | None
    tokenizer: ChatGLMTokenizer
    config: Any


def _open(path: str | os.PathLike[str] | None, adapter: str | os.PathLike[str] | None) -> _Opened:
    if path is None and adapter is not None:
        path, adapter = adapter, None
        if not (hub.folder(path) / "adapter_config.json").is_file():
            raise CheckpointError(f"{path}: no adapter_config.json; give the folder that PEFT saved")
    folder = demo_folder() if path is None else hub.folder(path)
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        if adapter is not None:
            raise InputError(f"{folder} is an adapter itself; give the base model's folder as path")
        adapter, folder = folder, _base_of(folder)
    tensors = check_folder(folder)
    config = ChatGLMConfig.from_pretrained(folder)
    check_fit(folder, config, tensors)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.generation != read_generation(folder) or len(tokenizer) > config.vocab_size:
        raise TokenizerError(
            f"{folder}: its tokenizer is of {tokenizer.generation} with ids up to {len(tokenizer) - 1}, but its model "
            f"is of {config.generation} with {config.vocab_size} ids; copy the tokenizer's files from the model's own "
            "download"
        )
    return _Opened(folder, None if adapter is None else hub.folder(adapter), tokenizer, config)


def adapter_base(adapter: str | os.PathLike[str]) -> str | None:
    """The base model that an adapter names: a folder or a repository id; None: the bundled demo model.

    Raises:
        CheckpointError: `adapter` is not an adapter's folder, or names no base model.
    """
    file = hub.folder(adapter) / "adapter_config.json"
    if not file.is_file():
        raise CheckpointError(f"{adapter}: no adapter_config.json; give the folder that PEFT saved")
    config = read_json(file)
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(base, str) or not base:
        raise CheckpointError(f"{file}: names no base model; give the base model's folder (--model, or path=)")
    if Path(base).parts[-2:] == ("chatglm", "demo"):  # the demo model, wherever it was installed
        return None
    return f"{base}@{revision}" if isinstance(revision, str) and revision and hub.repository(base) else base


def _base_of(adapter: Path) -> Path:
    """The folder of the base model that an adapter's configuration names."""
    file, base = adapter / "adapter_config.json", adapter_base(adapter)
    if base is None:
        return demo_folder()
    try:
        folder = hub.folder(base)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: the base model: {error}") from None
    if not folder.exists():
        raise CheckpointError(
            f"{file}: names the base model {base}, which is not on this machine; give its folder or its repository id "
            "(--model, or path=)"
        )
    return folder


def _loaded(opened: _Opened, model: Any) -> Loaded:
    return Loaded(model.eval(), opened.tokenizer, chat_format(opened.tokenizer))


def _whole_model(opened: _Opened, prefix: str | os.PathLike[str] | None, **kwargs: Any) -> Any:
    from transformers import AutoModel

    register_models()
    config = opened.config
    state = _read_prefix(hub.folder(prefix, "state")) if prefix is not None else None
    if state is not None:
        config.pre_seq_len = state["embedding.weight"].shape[0]
        config.prefix_projection = any(name.startswith("trans.") for name in state)
    with _quiet_off_terminal():
        model = AutoModel.from_pretrained(opened.folder, config=config, **kwargs)
    if state is not None:
        encoder = model.transformer.prefix_encoder
        for name, wanted in encoder.state_dict().items():
            if name not in state:
                raise CheckpointError(f"{prefix}: holds no {_PREFIX}{name}; the P-tuning state is incomplete")
            if state[name].shape != wanted.shape:
                found, needed = ("×".join(map(str, shape)) for shape in (state[name].shape, wanted.shape))
                raise CheckpointError(
                    f"{prefix}: made for another model: its tensor {_PREFIX}{name} is {found}, this model's is {needed}"
                )
        encoder.load_state_dict(state)
    if opened.adapter is not None:
        model = _with_adapter(model, opened.adapter)
    return model


def _bare_model(opened: _Opened, store: torch.dtype | None, device: Any = None, dtype: Any = None) -> BareModel | None:
    """The model for the native decoder; None if the decoder cannot run it, or if the folder is damaged. Then
    `from_pretrained` must load it, and reports what is wrong.
    """
    config = opened.config
    asked = config.dtype if dtype in (None, "auto") else dtype
    dtype = getattr(torch, asked, None) if isinstance(asked, str) else asked
    if not native.in_use() or str(device or "cpu") != "cpu" or not isinstance(dtype, torch.dtype) or config.pre_seq_len:
        return None
    model, about = BareModel(config), getattr(config, "quantization_config", None)
    chosen = None
    if about is not None:
        settings = QuantizationConfig.from_dict(about)
        if settings.scheme == "gptq":
            return None  # GPTQ weights are packed again per module, not per tensor
        try:
            chosen = settings.choose(model)
            swap(model, chosen, settings.made())
        except InputError:
            return None
    files = weight_files(opened.folder)
    read_in(files)
    if not _fill(model, mapped(files), dtype):
        return None
    read_back(model)
    config.dtype = dtype
    if chosen is not None:
        pack(model, chosen)
    model.generation_config = read_generation_config(opened.folder, config)
    return model if native.decoder_of(model, store) is not None else None


def _fill(model: BareModel, tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> bool:
    """Put loaded tensors into the model; returns whether all are there, with the right shapes and types."""
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = bool(model.config.tie_word_embeddings)
    for path, module in model.named_modules():
        if tied and module is table:
            continue
        integers = isinstance(module, (QuantizedLinear, QuantizedEmbedding))
        buffers = dict(module.named_buffers(recurse=False))
        for kind, held in (*module.named_parameters(recurse=False), *buffers.items()):
            tensor = tensors.get(f"{path}.{kind}")
            if tensor is None or tensor.shape != held.shape:
                return False
            both_float = tensor.is_floating_point() and held.is_floating_point()
            if not both_float and tensor.dtype != held.dtype:
                return False
            if kind in buffers:  # scales, which are never converted
                setattr(module, kind, tensor)
            else:
                kept = tensor if integers and kind == "weight" else tensor.to(dtype)
                setattr(module, kind, torch.nn.Parameter(kept, requires_grad=False))
    if isinstance(table, QuantizedEmbedding):
        table.dtype = dtype
    if tied:  # if a file has both, the head's is used, as in the official code
        for kind in ("weight", "weight_scale"):
            if hasattr(head, kind):
                setattr(table, kind, getattr(head, kind))
    return True


@contextmanager
def _quiet_off_terminal() -> Iterator[None]:
    """Turn progress bars off if stderr is not a terminal: they would fill a log."""
    log = transformers.utils.logging
    showed = log.is_progress_bar_enabled()
    if showed and not sys.stderr.isatty():
        log.disable_progress_bar()
    try:
        yield
    finally:
        if showed:
            log.enable_progress_bar()


def check_device(name: str | torch.device) -> None:
    """Check that a device exists.

    Raises:
        InputError: this machine or this torch has no such device.
    """
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {str(name)!r} cannot be used: {reason}; use device 'cpu'") from None


def _read_prefix(path: Path) -> dict[str, torch.Tensor]:
    """The `prefix_encoder` part of a saved state, without the prefix of the official names."""
    path = path.expanduser()
    files = weight_files(path) if path.is_dir() else [path]
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{file}: no such file; give the folder that the P-tuning run wrote")
    headers(files)
    state = {name.removeprefix(_PREFIX): held for name, held in mapped(files).items() if name.startswith(_PREFIX)}
    if "embedding.weight" not in state:
        raise CheckpointError(f"{path}: holds no P-tuning state (no {_PREFIX}embedding.weight)")
    table = state["embedding.weight"]
    if table.ndim != 2 or not 1 <= table.shape[0] <= _MAX_VIRTUAL_TOKENS:
        raise CheckpointError(
            f"{path}: {_PREFIX}embedding.weight has the shape {tuple(table.shape)}; it must have one row for each "
            f"virtual token, and 1 to {_MAX_VIRTUAL_TOKENS:,} rows"
        )
    for name, tensor in state.items():
        if name not in _PREFIX_PARTS or not tensor.is_floating_point():
            raise CheckpointError(f"{path}: {_PREFIX}{name:.100} ({tensor.dtype}) does not belong to a P-tuning state")
    return state


def _with_adapter(model: Any, folder: Path, name: str = "default", *, removable: bool = False) -> Any:
    made = with_adapter(model, folder, name, removable=removable)
    if is_quantized(made):
        from chatglm.quantization.lora import refuse_merging

        refuse_merging(made)
    return made


def add_adapter(model: Any, folder: str | os.PathLike[str], name: str) -> Any:
    """Add an adapter, named `name`, to a model that is also used without it; returns the model. For errors, see
    `models.adapters.with_adapter`.
    """
    return _with_adapter(model, hub.folder(folder), name, removable=True)


def remove_adapter(model: Any, name: str) -> Any:
    """Remove an adapter from a model; returns the model, or the base model if it was the last adapter."""
    return without_adapter(model, name)
