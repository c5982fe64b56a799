"""Checks that a folder is a complete checkpoint, before any weights are read, so that the error is one clear line."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from chatglm.chat.files import read_json, size_of
from chatglm.errors import CheckpointError
from chatglm.models.weights import About, headers

__all__ = ["check_folder", "check_missing", "named_folder", "read_config", "read_json", "weight_files"]

_SINGLE = ("model.safetensors", "pytorch_model.bin")
_INDEX = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a folder: safetensors are preferred to .bin, and one file to shards.

    Raises:
        CheckpointError: there are none, the index is not valid, or it names a file that is missing or is outside of the
            folder.
    """
    for single, index in zip(_SINGLE, _INDEX, strict=True):
        if _exists(folder / single):
            size_of(folder / single)
            return [folder / single]
        if _exists(folder / index):
            return _shards(folder, folder / index)
    raise CheckpointError(
        f"{folder}: no weights: expected {' or '.join(_SINGLE)}, or their sharded form with its .index.json; "
        "download the checkpoint again"
    )


def _shards(folder: Path, index: Path) -> list[Path]:
    about = read_json(index)
    weight_map = about.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: has no valid `weight_map`; download it again")
    suffix = ".safetensors" if ".safetensors." in index.name else ".bin"
    for name in weight_map.values():
        # A name must not leave the folder. But links in it may lead elsewhere, as in the hub's cache.
        plain = isinstance(name, str) and name == Path(name).name and "\\" not in name and "\0" not in name
        if not plain or not name.endswith(suffix) or len(name) > 255:
            raise CheckpointError(
                f"{index}: `weight_map` names {name!r:.100}, but it may name only *{suffix} files of this folder"
            )
    names = sorted(set(weight_map.values()))
    if missing := [name for name in names if not _exists(folder / name)]:
        raise CheckpointError(
            f"{folder}: {len(missing)} of {len(names)} weight files are missing (first: {missing[0]}); "
            "download the rest of the checkpoint"
        )
    for name in names:
        size_of(folder / name)
    if not isinstance(about.get("metadata"), dict):
        raise CheckpointError(f"{index}: has no `metadata` object; download it again")
    return [folder / name for name in names]


def _exists(path: Path) -> bool:
    """Whether the path exists, even as a pipe or a broken link; `size_of` reports these.

    Raises:
        CheckpointError: the path cannot be reached.
    """
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be reached ({error.strerror})") from None
    return True


def named_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a name can only be a folder, not a repository `owner/name` of the hub."""
    text = os.fspath(path)
    try:
        found = Path(text).exists()
    except OSError:  # too long, or a circle of links
        found = True
    return found or text.startswith((".", "~", os.sep)) or text.count("/") != 1 or os.path.isabs(text)


def read_config(folder: Path) -> dict[str, Any]:
    """A folder's config.json.

    Raises:
        CheckpointError: it is missing, is not JSON, refers to another file instead, or has a wrong type in a field that
            `transformers` reads before it uses a class of this family.
    """
    config = read_json(folder / "config.json")
    if not isinstance(config.get("model_type", ""), str):
        raise CheckpointError(
            f"{folder / 'config.json'}: model_type is {config['model_type']!r:.60}; it must be a string"
        )
    classes = config.get("auto_map", {})
    if not isinstance(classes, dict) or not all(isinstance(name, str | list) for name in classes.values()):
        raise CheckpointError(f"{folder / 'config.json'}: auto_map is {classes!r:.60}; it must be an object of names")
    if "configuration_files" in config:
        raise CheckpointError(
            f"{folder / 'config.json'}: configuration_files is not supported; put the configuration into this file"
        )
    return config


def check_folder(folder: Path) -> dict[str, tuple[Path, About]]:
    """Check that a folder is a ChatGLM checkpoint with complete weight files.

    Returns:
        file, shape and type of every tensor, by name.

    Raises:
        CheckpointError: it is not; names the file.
    """
    if not _exists(folder):
        raise CheckpointError(
            f"{folder!s:.300}: no such folder; give a checkpoint's folder, or a repository id such as THUDM/chatglm3-6b"
        )
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: is a file; give the folder that holds it")
    config = read_config(folder)
    if (kind := config.get("model_type")) != "chatglm":
        hint = (
            " (a transformers-native GLM folder: load it with transformers itself)"
            if str(kind) in ("glm", "glm4")
            else ""
        )
        raise CheckpointError(f"{folder / 'config.json'}: model_type is {kind!r:.60}, not 'chatglm'{hint}")
    return headers(weight_files(folder))


def check_missing(folder: str, missing: Iterable[str], optional: tuple[str, ...]) -> None:
    """Check the names of weights that are missing in a checkpoint.

    Raises:
        CheckpointError: a name in `missing` contains none of the `optional` parts.
    """
    lost = sorted(name for name in missing if not any(part in name for part in optional))
    if lost:
        raise CheckpointError(
            f"{folder}: weights that are missing in the checkpoint: {len(lost)} (first: {lost[0]}); it is incomplete, "
            "or config.json describes another model"
        )
