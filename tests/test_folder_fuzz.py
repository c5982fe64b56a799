"""Tiny checkpoints with a file that was changed at random: a typed error in one line, or a model that works."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from chatglm.chat.messages import Message
from chatglm.errors import ChatGLMError
from chatglm.loading import load_parts

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 64, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308),
    *("", "x", "chatglm", "../x", "float32", "\0", "1" * 5000, [], [0], [[]], {}, {"": None}, [10**9, 10**9]),
)
FILES = ("config.json", "generation_config.json", "model.safetensors.index.json", "tokenizer_config.json")


@pytest.fixture(scope="module", params=["chatglm", "chatglm3", "glm4"])
def plain(request: pytest.FixtureRequest, checkpoint: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in two safetensors files with an index."""
    folder = Path(shutil.copytree(checkpoint(request.param), tmp_path_factory.mktemp("plain") / request.param))
    tensors: dict[str, torch.Tensor] = {}
    for shard in sorted(folder.glob("*.bin")):
        tensors |= torch.load(shard, weights_only=True)
        shard.unlink()
    for index in folder.glob("*.index.json"):
        index.unlink()
    names = sorted(tensors)
    where = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(names)}
    for file in set(where.values()):
        save_file({name: tensors[name].contiguous() for name in names if where[name] == file}, folder / file)
    (folder / FILES[2]).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (folder / FILES[1]).write_text(json.dumps({"do_sample": True, "top_p": 0.8, "temperature": 0.8, "eos_token_id": 2}))
    return folder


def change(rng: random.Random, value: Any) -> Any:
    """JSON with something else at a random place."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        match rng.randrange(8):
            case 0:
                return {name: inner for name, inner in value.items() if name != key}
            case 1:
                return {**value, key + "x": value[key]}
            case 2:
                return {**value, key: value[rng.choice(list(value))]}
            case _:
                return {**value, key: change(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.randrange(len(value))
        return [*value[:place], change(rng, value[place]), *value[place + 1 :]]
    if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.5:
        return value + rng.choice((-1, 1, value, -2 * value, 10**6))
    return rng.choice(VALUES)


def harm_json(rng: random.Random, folder: Path) -> None:
    file = folder / rng.choice(FILES)
    value = json.loads(file.read_text("utf-8"))
    for _ in range(rng.randrange(1, 4)):
        value = change(rng, value)
    replace(file, json.dumps(value).encode())


def harm_header(rng: random.Random, folder: Path) -> None:
    """The JSON header of a safetensors file."""
    file = folder / f"model-0000{rng.randrange(1, 3)}-of-00002.safetensors"
    data = file.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    for _ in range(rng.randrange(1, 3)):
        header = change(rng, header)
    made = json.dumps(header).encode()
    size = len(made) + rng.choice((0, 0, 0, 1, -1, 2**40, 2**63))
    replace(file, struct.pack("<Q", size % 2**64) + made + data[8 + size :])


def harm_bytes(rng: random.Random, folder: Path) -> None:
    """Bytes anywhere near the beginning, or the file's end."""
    file = folder / rng.choice((*FILES, *(f"model-0000{number}-of-00002.safetensors" for number in (1, 2))))
    data = bytearray(file.read_bytes())
    if rng.random() < 0.3:
        del data[rng.randrange(len(data)) :]
    for _ in range(rng.randrange(1, 6)):
        if data:
            data[rng.randrange(min(len(data), 2000))] = rng.randrange(256)
    replace(file, bytes(data))


HARMS: tuple[Callable[[random.Random, Path], None], ...] = (harm_json, harm_json, harm_header, harm_bytes)


def replace(file: Path, data: bytes) -> None:
    file.unlink()  # it is linked to the whole one
    file.write_bytes(data)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_a_folder_that_was_changed_is_refused_or_works(
    seed: int, plain: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = random.Random(seed)
    folder = tmp_path_factory.mktemp("harmed")
    try:
        for file in plain.iterdir():
            os.link(file, folder / file.name)
        rng.choice(HARMS)(rng, folder)
        said = ""
        try:
            model, tokenizer, form = load_parts(folder, dtype=torch.float32)
            ids = torch.tensor([form.prompt([Message("user", "你好")])])
            made = model.generate(ids, max_new_tokens=3, do_sample=False)
        except ChatGLMError as error:
            said = str(error)
        else:
            assert made.shape[1] > ids.shape[1]
            assert tokenizer.decode(made[0]) is not None
        assert "\n" not in said
        assert len(said) < 1500
    finally:
        shutil.rmtree(folder)
