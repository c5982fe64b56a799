"""Repository ids, and the folders on this machine that hold the repositories."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from chatglm.chat.files import read_list
from chatglm.chat.generations import checkpoint_name, read_json
from chatglm.errors import ChatGLMError, CheckpointError
from chatglm.models.checkpoint import weight_files

__all__ = ["Part", "Repository", "cached", "folder_name", "missing", "offline", "parse", "places", "repository", "root"]

Part = Literal["config", "tokenizer", "weights", "model", "state", "encoder"]
"""The part of a repository that is needed. `config`: its configuration; `tokenizer`: also the tokenizer; `weights`:
also the weights; `model`: configuration and weights (a download also includes the tokenizer); `state`: only a
P-tuning state; `encoder`: all of a text encoder, which does not belong to this family.
"""

_ID = re.compile(r"([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@([A-Za-z0-9][\w./-]{0,199}))?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
_MODULE_FOLDER = re.compile(r"|[A-Za-z0-9][\w-]{0,99}", re.ASCII)
_OWNERS = ("THUDM", "zai-org", "ZhipuAI")
"""Names of the same publisher: the old and the new one at the hub, and the one at ModelScope."""

CONFIG = ("config.json", "adapter_config.json")
TOKENIZER = (
    "tokenizer.model",
    "ice_text.model",
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "sentencepiece.bpe.model",
)
BESIDE_TOKENIZER = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
)
BESIDE_WEIGHTS = ("generation_config.json", "quantize_config.json")
# The same order as in `models.checkpoint.weight_files`: the first file that exists is read.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
# In an encoder with the layout of sentence-transformers, `modules.json` lists its parts and their folders.
MODULES = "modules.json"
BESIDE_MODULES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_xlm-roberta_config.json",
    "config_sentence_transformers.json",
)


@dataclass(frozen=True)
class Repository:
    """`owner/name` and its revision: a branch, a tag or a commit."""

    id: str
    revision: str = "main"

    def __str__(self) -> str:
        return self.id if self.revision == "main" else f"{self.id}@{self.revision}"

    def others(self) -> Iterator[str]:
        """The same repository under the publisher's other names."""
        owner, name = self.id.split("/")
        if owner in _OWNERS:
            yield from (f"{other}/{name}" for other in _OWNERS if other != owner)


def parse(text: str) -> Repository | None:
    """`owner/name` or `owner/name@revision`; None for anything else."""
    match = _ID.fullmatch(text)
    if match is None or ".." in text or "--" in match[1]:
        return None
    return Repository(match[1], match[2] or "main")


def repository(name: str | os.PathLike[str]) -> Repository | None:
    """The repository that a name refers to; None for a folder, whether it exists or not."""
    text = os.fspath(name)
    found = parse(text)
    return None if found is None or os.path.lexists(text) else found


def folder_name(path: str | os.PathLike[str]) -> str:
    """A name for a model: that of its repository, also if a cache keeps it under a hash; else that of its folder."""
    found = repository(path)
    return checkpoint_name(Path(os.path.expanduser(path)).resolve()) if found is None else found.id.split("/")[1]


def cached() -> list[str]:
    """Ids of this family's models that are complete in the caches of this machine."""
    names = [place.name.removeprefix("models--").replace("--", "/") for place in root().glob("models--*--*")]
    for base in _modelscope_roots():
        names += [f"{place.parent.name}/{place.name.replace('___', '.')}" for place in base.glob("*/*")]
    found = []
    for repo in filter(None, map(parse, sorted({*names}))):
        with contextlib.suppress(ChatGLMError, OSError):
            if any((place / "config.json").is_file() and _is_whole(place) for place in _own_places(repo)):
                found.append(repo.id)
    return found


def _is_whole(place: Path) -> bool:
    return is_family(place) and not missing(place, "weights")


def root() -> Path:
    """The folder of `huggingface_hub`'s cache."""
    from huggingface_hub import constants

    return Path(os.path.expanduser(constants.HF_HUB_CACHE))


def offline() -> bool:
    """Whether HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) forbids requests."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _modelscope_roots() -> list[Path]:
    """Folders in which releases of ModelScope keep models: `hub`, and since 2024 `hub/models`."""
    named = os.environ.get("MODELSCOPE_CACHE")
    bases = [Path(os.path.expanduser(named))] if named else [Path(os.path.expanduser("~/.cache/modelscope"))]
    return [base / under for base in bases for under in ("models", "hub/models", "hub", "")]


def places(repo: Repository) -> Iterator[Path]:
    """The folders that may hold a repository. Those of its own name come first."""
    for name in (repo.id, *repo.others()):
        yield from _own_places(Repository(name, repo.revision))


def _own_places(repo: Repository) -> Iterator[Path]:
    storage = root() / storage_name(repo.id)
    commit = repo.revision
    if not COMMIT.fullmatch(commit):
        try:
            commit = (storage / "refs" / repo.revision).read_text("ascii").strip()
        except (OSError, ValueError):
            commit = ""
    if COMMIT.fullmatch(commit) and (place := storage / "snapshots" / commit).is_dir():
        yield place
    owner, model = repo.id.split("/")
    for base in _modelscope_roots() if repo.revision == "main" else ():
        for spelled in dict.fromkeys((model.replace(".", "___"), model)):
            if (place := base / owner / spelled).is_dir():
                yield place


def storage_name(name: str) -> str:
    """The folder of a repository in the cache of `huggingface_hub`."""
    return "models--" + name.replace("/", "--")


def missing(place: Path, part: Part, any_family: bool = False) -> str:
    """The part that a folder in a cache lacks, in words; "" if it is complete."""
    there = {file.name for file in place.iterdir() if file.is_file()}
    if part == "encoder":
        return _missing_of_encoder(place, there)
    if part == "state":
        return "" if there & {*WEIGHTS} else "no weights"
    if not there & {*CONFIG}:
        return "no config.json"
    if part == "config":
        return ""
    if "config.json" not in there:
        return "" if there & {*ADAPTER_WEIGHTS} else "no adapter weights"
    if not any_family and not is_family(place):
        return ""  # the caller refuses this model
    if part != "model" and not there & {*TOKENIZER}:
        return "no tokenizer"
    if part in ("weights", "model"):
        try:
            weight_files(place)
        except CheckpointError as error:
            return str(error).removeprefix(f"{place}: ").split(";")[0]
    return ""


def _missing_of_encoder(place: Path, there: set[str]) -> str:
    folders = module_folders(place) if MODULES in there else {"": ""}
    for folder, kind in folders.items():
        where = place / folder
        names = {file.name for file in where.iterdir() if file.is_file()} if where.is_dir() else set()
        if kind == "" and (lost := "config.json" if "config.json" not in names else ""):
            return f"no {Path(folder) / lost}"
        if kind == "" and not names & {*TOKENIZER}:
            return "no tokenizer"
        if kind == "Pooling" and "config.json" not in names:
            return f"no {folder}/config.json"
        if kind in ("", "Dense", "LayerNorm"):
            try:
                weight_files(where)
            except CheckpointError as error:
                return str(error).removeprefix(f"{where}: ").split(";")[0]
    return ""


def module_folders(place: Path) -> dict[str, str]:
    """The parts of an encoder, from its `modules.json`: for each folder the name of the part, "" for the transformer.

    Raises:
        CheckpointError: the file is damaged.
    """
    found = {}
    for entry in read_list(place / MODULES):
        folder, kind = (entry.get("path"), entry.get("type")) if isinstance(entry, dict) else (None, None)
        if not isinstance(folder, str) or not isinstance(kind, str) or not _MODULE_FOLDER.fullmatch(folder):
            raise CheckpointError(f"{place / MODULES}: lists a part without a valid `path` and `type`")
        name = kind.rpartition(".")[2]
        found[folder] = "" if name == "Transformer" else name
    return found


def is_family(place: Path) -> bool:
    """Whether its config.json describes a model of this family."""
    return read_json(place / "config.json").get("model_type") == "chatglm"
