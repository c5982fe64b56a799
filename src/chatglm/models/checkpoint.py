"""Is a folder a whole checkpoint? Checked before a byte of weights is read, so that the answer is one clear line."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path

from chatglm.chat.generations import read_json
from chatglm.errors import CheckpointError

__all__ = ["check_folder", "check_missing", "read_json", "weight_files"]

_SINGLE = ("model.safetensors", "pytorch_model.bin")
_INDEX = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights of `folder`: safetensors before .bin, one file before shards.

    Raises:
        CheckpointError: there are none, or the index names a file that is not there.
    """
    for single, index in zip(_SINGLE, _INDEX, strict=True):
        if (folder / single).is_file():
            return [folder / single]
        if (folder / index).is_file():
            weight_map = read_json(folder / index).get("weight_map")
            if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
                raise CheckpointError(f"{folder / index}: has no valid `weight_map`; download it again")
            names = sorted(set(weight_map.values()))
            if missing := [name for name in names if not (folder / name).is_file()]:
                raise CheckpointError(
                    f"{folder}: {len(missing)} of {len(names)} weight files are missing (first: {missing[0]}); "
                    "download the rest of the checkpoint"
                )
            return [folder / name for name in names]
    raise CheckpointError(
        f"{folder}: no weights: expected {' or '.join(_SINGLE)}, or their sharded form with its .index.json; "
        "download the checkpoint again"
    )


def check_folder(folder: Path) -> None:
    """Raise `CheckpointError` unless `folder` is a ChatGLM checkpoint whose weight files are all there and whole."""
    if not folder.exists():
        raise CheckpointError(
            f"{folder}: no such folder; give a checkpoint's folder, or a repository id such as THUDM/chatglm3-6b"
        )
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: is a file; give the folder that holds it")
    config = read_json(folder / "config.json")
    if (kind := config.get("model_type")) != "chatglm":
        hint = (
            " (a transformers-native GLM folder: load it with transformers itself)"
            if str(kind) in ("glm", "glm4")
            else ""
        )
        raise CheckpointError(f"{folder / 'config.json'}: model_type is {kind!r}, not 'chatglm'{hint}")
    for file in weight_files(folder):
        (_check_safetensors if file.suffix == ".safetensors" else _check_bin)(file)


def _check_safetensors(file: Path) -> None:
    """A safetensors file says in its header how long it must be (github.com/huggingface/safetensors, "Format")."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        header = stream.read(length) if length <= size - 8 else b""
    try:
        tensors = json.loads(header)
        end = max((info["data_offsets"][1] for name, info in tensors.items() if name != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise CheckpointError(f"{file}: not a whole safetensors file (unreadable header); {_again(file)}") from None
    if size != 8 + length + end:
        raise CheckpointError(f"{file}: {size:,} bytes where its header says {8 + length + end:,}; {_again(file)}")


def _check_bin(file: Path) -> None:
    """torch.save writes a zip archive (since 1.6), whose directory stands at the end: a cut file has none."""
    with file.open("rb") as stream:
        head = stream.read(2)
    # Files from before torch 1.6 are a bare pickle (0x80 …); torch.load(weights_only=True) judges those itself.
    if head == b"\x80\x02":
        return
    if head != b"PK" or not zipfile.is_zipfile(file):
        what = "a Git LFS pointer" if file.stat().st_size < 1024 else "cut short or damaged"
        raise CheckpointError(f"{file}: not a whole torch file ({what}); {_again(file)}")


def _again(file: Path) -> str:
    return f"download {file.name} again"


def check_missing(folder: str, missing: Iterable[str], optional: tuple[str, ...]) -> None:
    """Raise when weights that are never initialised at random were not in the checkpoint.

    Raises:
        CheckpointError: `missing` has a name that none of the `optional` parts explains.
    """
    lost = sorted(name for name in missing if not any(part in name for part in optional))
    if lost:
        raise CheckpointError(
            f"{folder}: {len(lost)} weights that the model needs are not in the checkpoint (first: {lost[0]}); "
            "it is incomplete, or config.json describes another model"
        )
