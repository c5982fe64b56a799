"""Fixtures: the recorded official outputs and tiny checkpoints to compare with them.

The records lie beside the repository in `../shared` (or where CHATGLM_SHARED says). In CI they must be there; in a
user's clone the tests that need them skip, and `tests/goldens` still tests parity.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
import torch
from hypothesis import settings
from safetensors.torch import load_file

REPOSITORY = Path(__file__).resolve().parent.parent
VERSIONS = ("chatglm", "chatglm2", "chatglm3", "glm4")

# One thread in each process, and in those that tests start: threads wait busily for one another, and several processes
# of tests share few CPUs. `tests/kernels` sets more.
os.environ.setdefault("CHATGLM_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)

# By default httpx waits five seconds for an answer, which a busy machine may need for the first one.
for _part in ("connect", "read", "write", "pool"):
    setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, _part, 60.0)

# In CI the same examples every time; at a desk new ones, which may find what nobody thought of.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI") == "true":
    settings.load_profile("ci")


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tests keep nothing in the user's own folder."""
    folder = tmp_path_factory.mktemp("home")
    os.environ["CHATGLM_HOME"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = Path(os.environ.get("CHATGLM_SHARED") or REPOSITORY.parent / "shared")
    if not (folder / "golden").is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{folder}/golden: the recorded official outputs must be there in CI")
        pytest.skip(f"no recorded official outputs at {folder} (set CHATGLM_SHARED)")
    return folder


@pytest.fixture(scope="session")
def maker(shared: Path) -> ModuleType:
    """The script that draws the tiny checkpoints from their seeds."""
    spec = importlib.util.spec_from_file_location("make_checkpoints", shared / "golden" / "make_checkpoints.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def checkpoint(maker: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`checkpoint("chatglm3")` is the folder of a tiny random model in the official layout. Do not write to it."""
    root = tmp_path_factory.mktemp("checkpoints")

    def get(name: str) -> Path:
        if not (root / name).exists():
            maker.main(root, name)
        return root / name

    return get


@pytest.fixture
def copied(checkpoint: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """Like `checkpoint`, a copy to damage."""

    def get(name: str) -> Path:
        return Path(shutil.copytree(checkpoint(name), tmp_path / name))

    return get


class Golden:
    """The records of one version: `g["model"]`, and the tensors that they name: `g.tensor("prompt0.logits.cols")`."""

    def __init__(self, folder: Path, name: str, file: str = "golden.json") -> None:
        self.name = name
        self.records = json.loads((folder / "golden" / name / file).read_text("utf-8"))
        self.tensors = load_file(folder / "golden" / name / "golden.safetensors")

    def __getitem__(self, part: str) -> Any:
        return self.records[part]

    def tensor(self, name: str) -> torch.Tensor:
        return self.tensors[name]

    @property
    def columns(self) -> torch.Tensor:
        return self.tensors["cols"].long()


@pytest.fixture(scope="session")
def golden(shared: Path) -> Callable[..., Golden]:
    made: dict[tuple[str, str], Golden] = {}

    def get(name: str, file: str = "golden.json") -> Golden:
        if (name, file) not in made:
            made[name, file] = Golden(shared, name, file)
        return made[name, file]

    return get


@pytest.fixture(scope="session")
def loaded(checkpoint: Callable[[str], Path]) -> Callable[[str], tuple[Any, Any]]:
    """`loaded("chatglm3")` is (model in float32, tokenizer), loaded once a session: leave both as they are."""
    made: dict[str, tuple[Any, Any]] = {}

    def get(name: str) -> tuple[Any, Any]:
        if name not in made:
            from chatglm import AutoModel, AutoTokenizer

            model = AutoModel.from_pretrained(checkpoint(name), trust_remote_code=True).float().eval()
            made[name] = model, AutoTokenizer.from_pretrained(checkpoint(name), trust_remote_code=True)
        return made[name]

    return get
