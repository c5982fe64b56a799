"""What `chatglm serve` serves: models from the command line, or from a YAML file (`--config`)."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from chatglm.cli.models import DTYPES, add_assistant_arguments, model_name, note, open_assistant
from chatglm.errors import InputError
from chatglm.models.fields import dtype_name

if TYPE_CHECKING:
    from chatglm.serving.catalog import Catalog, Kind, Model, Source

__all__ = ["add_catalog_arguments", "open_catalog"]

_NAME = re.compile(r"[^\s=/\\][^\s=\\]{0,127}")
_LARGEST = 1 << 20  # bytes of a YAML file
_MOST = 256  # models
_KV_SHARE = 4
"""The keys and values of a model take at most the memory budget divided by this, unless `kv-memory` is set."""

_SINGLE = ("adapter", "prefix", "draft", "remote", "remote_model")
"""Options that belong to one model."""


def add_catalog_arguments(parser: argparse.ArgumentParser) -> None:
    add_assistant_arguments(parser, several=True)
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="YAML file that names models, embedding and rerank models, their options and a memory budget "
        "(docs/serving.md); instead of --model and the options of a model",
    )
    parser.add_argument(
        "--name",
        action="append",
        metavar="NAME",
        help="model name in the API; repeat for aliases (default: the name of the folder or repository)",
    )
    parser.add_argument(
        "--adapters-from",
        metavar="FOLDER",
        help="let POST /v1/load_lora_adapter load LoRA adapters from this folder. On a CPU, models that can get "
        "adapters answer more slowly",
    )
    parser.add_argument(
        "--embedding",
        action="append",
        default=[],
        metavar="[NAME=]MODEL",
        help="model for /v1/embeddings: a sentence-embedding folder (bge, m3e, text2vec …) or repository id; may be "
        "repeated",
    )
    parser.add_argument(
        "--rerank",
        action="append",
        default=[],
        metavar="[NAME=]MODEL",
        help="model for /v1/rerank: a cross-encoder's folder (bge-reranker …) or repository id; may be repeated",
    )


def open_catalog(arguments: argparse.Namespace) -> Catalog:
    """The models that the command line asks for; those for the start are loaded. The caller closes the catalog.

    Raises:
        InputError: an option or the YAML file is wrong; names it.
        ChatGLMError: a model cannot be loaded.
    """
    from chatglm.serving.catalog import Catalog

    memory = None
    if arguments.config is None:
        sources = _of_options(arguments)
    else:
        sources, memory = _of_file(Path(arguments.config).expanduser(), arguments)
    catalog = Catalog(sources, memory=memory)
    try:
        catalog.start()
    except BaseException:
        catalog.close()
        raise
    return catalog


# The command line


def _of_options(arguments: argparse.Namespace) -> list[Source]:
    from chatglm.serving.catalog import Source

    given = [_named(text) for text in arguments.model or ()]
    if len(given) <= 1:
        name, arguments.model = given[0] if given else ("", None)
        if name and arguments.name:
            raise InputError(f"--name: the model has the name {name!r} already (--model NAME=FOLDER)")
        models = [arguments]
        names = arguments.name or ([name] if name else [])
    else:
        for option in ("name", *_SINGLE):
            if getattr(arguments, option) is not None:
                raise InputError(
                    f"--{option.replace('_', '-')}: belongs to one model, but --model is given {len(given)} times; use "
                    "--model NAME=FOLDER for names, and --config FILE for options of each model"
                )
        models = [argparse.Namespace(**{**vars(arguments), "model": path}) for _, path in given]
        names = []
    encoders = [
        _encoder(name, kind, path, {"device": arguments.device})
        for kind, listed in (("embedding", arguments.embedding), ("rerank", arguments.rerank))
        for name, path in map(_named, listed)
    ]
    sources = []
    for own, (name, _) in zip(models, given or [("", "")], strict=True):
        if len(models) > 1:
            load: Callable[[], Model] = partial(open_assistant, own, **_engine(own))
        else:  # opened now, because this may choose the model
            load = partial(_same, open_assistant(own, **_engine(own)))
        chosen = names or [name or model_name(own)]
        sources.append(Source(chosen[0], "chat", load, tuple(chosen[1:]), _root(own.model)))
    return [*sources, *encoders]


def _engine(own: argparse.Namespace) -> dict[str, Any]:
    return {"adaptable": True} if own.adapters_from is not None else {}


def _same(model: Model) -> Model:
    return model


def _named(text: str) -> tuple[str, str]:
    """`NAME=FOLDER`, or a folder without a name."""
    name, equals, path = text.partition("=")
    if equals and path and _NAME.fullmatch(name) and not Path(text).exists():
        return name, path
    return "", text


def _root(path: str | None) -> str:
    """The origin of a model for clients: a repository, or the name of a folder without its path."""
    from chatglm import hub

    return "demo" if path is None else path if hub.repository(path) is not None else hub.folder_name(path)


def _encoder(name: str, kind: Any, path: str, options: Mapping[str, Any], **more: Any) -> Source:
    from chatglm.encoders import Embedder, Reranker
    from chatglm.hub import folder_name
    from chatglm.serving.catalog import Source

    device = options.get("device") or _device()
    loading = {key: value for key, value in options.items() if value is not None} | {"device": device, "say": note}
    if loading.get("dimensions") == "any":
        loading["dimensions"] = None
    load = partial(Embedder.load if kind == "embedding" else Reranker.load, path, **loading)
    size = partial(_weights, path, "encoder", options.get("dtype") or ("float32" if device == "cpu" else "float16"))
    return Source(name or folder_name(path), kind, load, root=_root(path), size=size, **more)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


# The YAML file


def _of_file(file: Path, arguments: argparse.Namespace) -> tuple[list[Source], int | None]:
    from chatglm.serving.catalog import Source

    for option in (
        "model",
        "name",
        "embedding",
        "rerank",
        "draft",
        "kv_cache",
        "kv_memory",
        "huge_pages",
        "dtype",
        *_SINGLE,
    ):
        if getattr(arguments, option):
            raise InputError(f"--{option.replace('_', '-')} cannot be used with --config; write it into {file}")
    top = _read_fields(_compose(file), _TOP, str(file), file)
    if not top.get("models") and not top.get("embeddings") and not top.get("rerank"):
        raise InputError(f"{file}: names no models; write `models:` with a name and a folder for each")
    memory = top.get("memory")
    if top.get("threads") is not None:
        if arguments.threads is not None:
            raise InputError(f"--threads cannot be used with `threads` of {file}")
        arguments.threads = top["threads"]
    sources = []
    for name, fields in (top.get("models") or {}).items():
        own = _model_arguments(arguments, fields)
        if memory is not None and own.remote is None and own.kv_memory is None:
            own.kv_memory = memory / _KV_SHARE / (1 << 30)  # at most: the engine takes no more than it can use
        sources.append(
            Source(
                name,
                "chat",
                partial(_open_model, own, fields.get("context")),
                root=_root(own.model) if own.remote is None else name,
                size=partial(_chat_size, own, fields.get("context")),
                **_plan(fields),
            )
        )
    kinds: tuple[tuple[str, Kind], ...] = (("embeddings", "embedding"), ("rerank", "rerank"))
    for section, kind in kinds:
        for name, fields in (top.get(section) or {}).items():
            options = {key: fields[key] for key in ("dtype", "dimensions") if key in fields}
            options["device"] = fields.get("device") or arguments.device
            sources.append(_encoder(name, kind, fields["path"], options, **_plan(fields)))
    return sources, memory


def _plan(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "aliases": tuple(fields.get("aliases") or ()),
        "at_start": fields.get("load", "start") == "start",
        "idle": fields.get("idle"),
    }


def _model_arguments(arguments: argparse.Namespace, fields: Mapping[str, Any]) -> argparse.Namespace:
    """The arguments of a command line for one model of the file."""
    own = argparse.Namespace(**vars(arguments))
    own.model, own.device = fields.get("path"), fields.get("device") or arguments.device
    for name in ("adapter", "prefix", "dtype", "draft", "kv_cache", "huge_pages", "remote", "remote_model"):
        setattr(own, name, fields.get(name))
    own.kv_memory = fields["kv_memory"] / (1 << 30) if "kv_memory" in fields else None
    if own.remote is not None:
        own.device = own.threads = None
    return own


def _open_model(own: argparse.Namespace, context: int | None) -> Model:
    return open_assistant(own, **_engine(own), **({} if context is None else {"context": context}))


def _chat_size(own: argparse.Namespace, context: int | None) -> int:
    """Bytes that a model will take, estimated from its files: its weights, and the most for keys and values."""
    if own.remote is not None:
        return 0
    device = own.device or _device()
    dtype = own.dtype or ("float32" if own.model is None else "bfloat16") if device == "cpu" else own.dtype or "auto"
    weights = _weights(own.model, "weights", dtype)
    if own.draft is not None:
        weights += _weights(own.draft, "weights", dtype)
    keys_and_values = _full_contexts(own, dtype, context)
    if own.kv_memory is not None:
        keys_and_values = min(keys_and_values, int(own.kv_memory * (1 << 30)))
    return weights + keys_and_values


def _weights(path: str | None, part: Any, dtype: str) -> int:
    """Bytes of the weights in memory: floating-point numbers as `dtype`, integers as they are."""
    import torch

    from chatglm import hub
    from chatglm.loading import demo_folder
    from chatglm.models.checkpoint import weight_files
    from chatglm.models.weights import headers

    folder = demo_folder() if path is None else hub.folder(path, part, any_family=part == "encoder", say=note)
    wide = getattr(torch, dtype, None)
    total = 0
    for _, (shape, kind) in headers(weight_files(folder)).values():
        size = torch.Size(shape).numel()
        total += size * (wide.itemsize if wide is not None and kind.is_floating_point else kind.itemsize)
    return total


def _full_contexts(own: argparse.Namespace, dtype: str, context: int | None, dialogues: int = 16) -> int:
    """Bytes of keys and values of full contexts, as many as an engine takes by default."""
    from chatglm import hub
    from chatglm.loading import AutoConfig, demo_folder

    config = AutoConfig.from_pretrained(demo_folder() if own.model is None else hub.folder(own.model, say=note))
    heads = config.num_attention_heads
    groups = getattr(config, "multi_query_group_num", None) if getattr(config, "multi_query_attention", False) else None
    width = getattr(config, "kv_channels", None) or config.hidden_size // heads
    longest = context or getattr(config, "seq_length", None) or getattr(config, "max_sequence_length", None) or 2048
    size = {"int8": 1, "float32": 4}.get(own.kv_cache or "", 4 if dtype == "float32" and own.model is not None else 2)
    return int(2 * config.num_hidden_layers * (groups or heads) * width * size * longest * dialogues)


# Reading YAML, with line numbers for errors


def _compose(file: Path) -> yaml.Node:
    try:
        with file.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
    except OSError as error:
        raise InputError(f"--config {file}: cannot be read ({error.strerror})") from None
    if len(data) > _LARGEST:
        raise InputError(f"--config {file}: larger than {_LARGEST:,} bytes")
    try:
        node = yaml.compose(data.decode("utf-8"), yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}:" if mark is not None else ""
        raise InputError(f"{file}:{where} not valid YAML ({getattr(error, 'problem', None) or error})") from None
    if node is None:
        raise InputError(f"{file}: is empty")
    return node


def _read_fields(
    node: yaml.Node, known: Mapping[str, Callable[[yaml.Node, str, Path], Any]], what: str, file: Path
) -> dict[str, Any]:
    """An object with known keys; `-` and `_` are the same in them."""
    found: dict[str, Any] = {}
    for key, value in _pairs(node, what, file):
        name = key.value.replace("-", "_")
        if name not in known:
            names = ", ".join(one.replace("_", "-") for one in known)
            raise _wrong(key, file, f"unknown key {key.value!r:.60}; known: {names}")
        if name in found:
            raise _wrong(key, file, f"{key.value} is given twice")
        found[name] = known[name](value, key.value, file)
    return found


def _pairs(node: yaml.Node, what: str, file: Path) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        raise _wrong(node, file, f"{what}: expected names with values, such as `name: value`")
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _wrong(key, file, f"{what}: a name must be a word")
    return list(node.value)


def _wrong(node: yaml.Node, file: Path, said: str) -> InputError:
    return InputError(f"{file}: line {node.start_mark.line + 1}: {said}")


def _scalar(node: yaml.Node, name: str, file: Path) -> Any:
    if not isinstance(node, yaml.ScalarNode):
        raise _wrong(node, file, f"{name}: expected one value")
    try:
        return yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError):
        raise _wrong(node, file, f"{name}: {node.value!r:.60} is not a value") from None


def _text(node: yaml.Node, name: str, file: Path) -> str:
    value = _scalar(node, name, file)
    if value is None or node.value == "":
        raise _wrong(node, file, f"{name}: expected a text")
    return str(node.value)


def _path(node: yaml.Node, name: str, file: Path) -> str:
    """A folder, relative to the file; or a repository id."""
    from chatglm import hub

    text = _text(node, name, file)
    beside = file.parent / Path(text).expanduser()
    if beside.exists():
        return str(beside)
    if hub.repository(text) is None:
        raise _wrong(node, file, f"{name}: {text!r:.200}: no such folder (looked for {beside})")
    return text


def _whole(node: yaml.Node, name: str, file: Path) -> int:
    value = _scalar(node, name, file)
    if type(value) is not int or not 1 <= value < 1 << 40:
        raise _wrong(node, file, f"{name}: {node.value!r:.60} must be a whole number above 0")
    return value


def _flag(node: yaml.Node, name: str, file: Path) -> bool | None:
    value = _scalar(node, name, file)
    if not isinstance(value, bool):
        raise _wrong(node, file, f"{name}: {node.value!r:.60} must be true or false")
    return value or None


def _one_of(*values: str) -> Callable[[yaml.Node, str, Path], str]:
    def read(node: yaml.Node, name: str, file: Path) -> str:
        text = _text(node, name, file)
        if text not in values:
            raise _wrong(node, file, f"{name}: {text!r:.60} must be one of {', '.join(values)}")
        return text

    return read


def _dtype(node: yaml.Node, name: str, file: Path) -> str:
    text = dtype_name(_text(node, name, file))
    if text not in DTYPES:
        raise _wrong(node, file, f"{name}: {text!r:.60} must be one of {', '.join(DTYPES)}")
    return text


_BYTES = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}
_BYTES |= {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _amount(units: Mapping[str, int], example: str) -> Callable[[yaml.Node, str, Path], float]:
    def read(node: yaml.Node, name: str, file: Path) -> float:
        text = _text(node, name, file).strip().lower()
        match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*([a-z]*)", text)
        if match is None or match[2] not in units or not float(match[1]):
            raise _wrong(node, file, f"{name}: {text!r:.60} must be an amount such as {example}")
        return float(match[1]) * units[match[2]]

    return read


def _memory(node: yaml.Node, name: str, file: Path) -> int:
    return int(_amount(_BYTES, "12GiB")(node, name, file))


def _listed(
    read: Callable[[yaml.Node, str, Path], Any],
) -> Callable[[yaml.Node, str, Path], tuple[Any, ...]]:
    def read_all(node: yaml.Node, name: str, file: Path) -> tuple[Any, ...]:
        entries = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if len(entries) > _MOST:
            raise _wrong(node, file, f"{name}: has {len(entries)} entries; at most {_MOST} are supported")
        return tuple(read(entry, name, file) for entry in entries)

    return read_all


def _dimensions(node: yaml.Node, name: str, file: Path) -> Any:
    if isinstance(node, yaml.ScalarNode) and node.value == "any":
        return "any"
    return _listed(_whole)(node, name, file)


def _models(fields: Mapping[str, Callable[[yaml.Node, str, Path], Any]]) -> Callable[[yaml.Node, str, Path], Any]:
    """An object of models by name; each value is a path, or an object with these fields."""

    def read(node: yaml.Node, section: str, file: Path) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        pairs = _pairs(node, section, file)
        if len(pairs) > _MOST:
            raise _wrong(node, file, f"{section}: has {len(pairs)} models; at most {_MOST} are supported")
        for key, value in pairs:
            name = key.value
            if not _NAME.fullmatch(name):
                raise _wrong(key, file, f"{section}: {name!r:.60} is not a valid name for a model")
            if name in found:
                raise _wrong(key, file, f"{section}: {name} is given twice")
            if isinstance(value, yaml.ScalarNode):
                found[name] = {"path": _path(value, name, file)}
                continue
            found[name] = _read_fields(value, fields, name, file)
            if "path" not in found[name] and "remote" not in found[name]:
                raise _wrong(key, file, f"{name}: needs `path`: a folder, or a repository id")
            if "path" in found[name] and "remote" in found[name]:
                raise _wrong(key, file, f"{name}: has `path` and `remote`; give one of them")
        return found

    return read


_PLAN: dict[str, Callable[[yaml.Node, str, Path], Any]] = {
    "path": _path,
    "aliases": _listed(_text),
    "load": _one_of("start", "first-use"),
    "idle": _amount(_SECONDS, "10m"),
    "device": _text,
    "dtype": _dtype,
}
_MODEL = {
    **_PLAN,
    "adapter": _path,
    "prefix": _path,
    "draft": _path,
    "kv_cache": _one_of("auto", "float32", "float16", "int8"),
    "kv_memory": _memory,
    "context": _whole,
    "huge_pages": _flag,
    "remote": _listed(_text),
    "remote_model": _text,
}
_TOP: dict[str, Callable[[yaml.Node, str, Path], Any]] = {
    "models": _models(_MODEL),
    "embeddings": _models({**_PLAN, "dimensions": _dimensions}),
    "rerank": _models(_PLAN),
    "memory": _memory,
    "threads": _whole,
}
