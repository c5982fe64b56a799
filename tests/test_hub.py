"""Repository ids: found in the caches, else downloaded from a server that speaks the hub's protocol."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

import chatglm
from chatglm import hub
from chatglm.chat.generations import read_generation
from chatglm.cli import main
from chatglm.encoders import Embedder
from chatglm.errors import CheckpointError, InputError
from chatglm.hub import downloads
from chatglm.kernels import native
from chatglm.loading import AutoTokenizer, load_parts
from chatglm.models.checkpoint import check_folder
from fake_hub import FakeHub, commit_of, digest_of, fake_hub
from tiny_encoders import make_sentence
from waiting import until

TRAP = b"import pathlib\npathlib.Path('sprung').touch()\n"
ID = "THUDM/chatglm3-6b"


@pytest.fixture(scope="session")
def small(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ChatGLM3 in one safetensors file and, as at the hub, in .bin shards too, and a trap."""
    folder = tmp_path_factory.mktemp("hub") / "source"
    shutil.copytree(checkpoint("chatglm3"), folder)
    (folder / "modeling_chatglm.py").write_bytes(TRAP)
    return folder


@pytest.fixture
def server() -> Iterator[FakeHub]:
    with fake_hub() as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path, server: FakeHub, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; the endpoint is `server`."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def shards(files: dict[str, bytes]) -> list[str]:
    return sorted(name for name in files if name.endswith((".safetensors", ".bin")))


# Downloads


def test_a_repository_id_is_a_model(server: FakeHub, cache: Path, small: Path) -> None:
    server.add(ID, small)
    model, tokenizer, form = load_parts(ID, dtype=torch.float32)
    assert form.generation == "chatglm3"
    expected, theirs, _ = load_parts(small, dtype=torch.float32)
    options = {"do_sample": False, "max_new_tokens": 4}
    assert model.chat(tokenizer, "你好", **options) == expected.chat(theirs, "你好", **options)
    assert not server.asked(".py")
    assert not list(cache.rglob("*.py"))
    assert not Path("sprung").exists()
    before = len(server.requests)
    with chatglm.load(ID) as assistant:  # from the cache, without a request
        assert assistant.format.generation == "chatglm3"
    assert len(server.requests) == before
    assert hub.cached() == [ID]


def test_the_auto_classes_take_ids(server: FakeHub, cache: Path, small: Path) -> None:
    server.add(ID, small)
    assert chatglm.AutoConfig.from_pretrained(ID).generation == "chatglm3"
    assert {path.rsplit("/", 1)[1] for _, path, _ in server.asked("/resolve/")} == {"config.json"}
    tokenizer = AutoTokenizer.from_pretrained(ID, trust_remote_code=True)
    assert tokenizer.encode("你好") == AutoTokenizer.from_pretrained(small).encode("你好")
    assert not server.asked(".bin")
    model = chatglm.AutoModel.from_pretrained(ID, trust_remote_code=True)
    assert type(model).__module__ == "chatglm.models.chatglm"
    assert not server.asked(".py")


def test_a_local_folder_of_that_name_wins(server: FakeHub, cache: Path, small: Path) -> None:
    shutil.copytree(small, Path(ID))
    assert hub.folder(ID) == Path(ID)
    assert load_parts(ID).format.generation == "chatglm3"
    assert server.requests == []


def test_safetensors_are_preferred(server: FakeHub, cache: Path, small: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from chatglm.models.checkpoint import weight_files
    from chatglm.models.weights import mapped

    folder = Path(shutil.copytree(small, tmp_path / "both"))
    tensors = mapped(weight_files(folder))
    save_file({name: held.contiguous().clone() for name, held in tensors.items()}, tmp_path / "model.safetensors")
    server.add(ID, folder, **{"model.safetensors": (tmp_path / "model.safetensors").read_bytes()})
    place = hub.folder(ID)
    assert shards({file.name: b"" for file in place.iterdir()}) == ["model.safetensors"]
    check_folder(place)


def test_a_renamed_repository(server: FakeHub, cache: Path, small: Path) -> None:
    server.add("zai-org/chatglm3-6b", small)
    server.renamed[ID] = "zai-org/chatglm3-6b"
    place = hub.folder(ID)
    check_folder(place)
    before = len(server.requests)
    assert hub.folder("zai-org/chatglm3-6b") == place  # one publisher: what is here serves for each of its names
    assert hub.folder("ZhipuAI/chatglm3-6b") == place
    assert len(server.requests) == before


def test_modelscopes_name_is_downloaded_by_the_hubs(server: FakeHub, cache: Path, small: Path) -> None:
    server.add("zai-org/chatglm3-6b", small)
    check_folder(hub.folder("ZhipuAI/chatglm3-6b"))


def test_revisions(server: FakeHub, cache: Path, small: Path) -> None:
    server.add(ID, small)
    other = {**server.repositories[ID], "generation_config.json": b'{"do_sample": false}'}
    server.branches["v1.0"] = other
    assert (hub.folder(f"{ID}@v1.0") / "generation_config.json").read_bytes() == other["generation_config.json"]
    assert hub.folder(f"{ID}@{commit_of(other)}") == hub.folder(f"{ID}@v1.0")
    assert hub.folder(ID).name == commit_of(server.repositories[ID])
    with pytest.raises(CheckpointError, match="no revision 'v9'"):
        hub.folder(f"{ID}@v9")


def test_what_was_interrupted_is_resumed(server: FakeHub, cache: Path, small: Path) -> None:
    """Within one run by asking for the rest, and by the next run."""
    server.add(ID, small)
    name = shards(server.repositories[ID])[0]
    size = len(server.repositories[ID][name])
    server.cut[name], server.cuts = size // 3, 2
    check_folder(hub.folder(ID))
    ranges = [headers["range"] for _, path, headers in server.asked(digest_of(server.repositories[ID][name]))]
    assert ranges == ["bytes=0-", f"bytes={size // 3}-", f"bytes={2 * (size // 3)}-"]


def test_a_killed_download_is_resumed(
    server: FakeHub, cache: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add(ID, small)
    name = shards(server.repositories[ID])[0]
    content = server.repositories[ID][name]
    blobs = cache / "models--THUDM--chatglm3-6b" / "blobs"
    monkeypatch.setattr(downloads, "_TRIES", 1)
    server.cut[name], server.cuts = len(content) // 2, 99
    with pytest.raises(CheckpointError, match=ID):
        hub.folder(ID)
    assert (blobs / f"{digest_of(content)}.incomplete").stat().st_size >= len(content) // 2
    assert not (cache / "models--THUDM--chatglm3-6b" / "refs").exists()  # nobody takes it for whole
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE"):
        hub.folder(ID)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    server.cuts = 0
    server.requests.clear()
    check_folder(hub.folder(ID))
    assert server.bytes_of(name) < 0.6 * len(content)


def test_a_branch_that_moves_during_a_download(
    server: FakeHub, cache: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache's `main` is the commit that was fetched, of which all files are there."""
    server.add(ID, small)
    before = dict(server.repositories[ID])
    fetch = downloads.Download._fetch_all

    def fetched(self: downloads.Download, *arguments: Any) -> None:
        fetch(self, *arguments)
        server.branches["old"] = before
        server.repositories[ID] = {**before, "config.json": before["config.json"] + b"\n"}

    monkeypatch.setattr(downloads.Download, "_fetch_all", fetched)
    check_folder(hub.folder(ID))
    assert (cache / "models--THUDM--chatglm3-6b" / "refs" / "main").read_text() == commit_of(before)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    check_folder(hub.folder(ID))


def test_a_server_that_knows_no_ranges(server: FakeHub, cache: Path, small: Path) -> None:
    server.add(ID, small)
    name = shards(server.repositories[ID])[0]
    server.ranges, server.cut[name], server.cuts = False, 5000, 1
    check_folder(hub.folder(ID))


def test_damaged_bytes_are_fetched_again_and_then_refused(server: FakeHub, cache: Path, small: Path) -> None:
    server.add(ID, small)
    name = shards(server.repositories[ID])[0]
    server.damaged[name] = 2
    with pytest.raises(CheckpointError, match="damaged twice") as caught:
        hub.folder(ID)
    assert name in str(caught.value)
    server.damaged[name] = 1
    server.longer.add(name)
    check_folder(hub.folder(ID))


def test_a_cache_that_lacks_a_shard_is_completed(
    server: FakeHub, cache: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add(ID, small)
    place = hub.folder(ID)
    lost = place / shards({file.name: b"" for file in place.iterdir()})[0]
    lost.resolve().unlink()
    lost.unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"not complete .*1 of 2 weight files are missing.*HF_HUB_OFFLINE"):
        load_parts(ID)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    server.requests.clear()
    check_folder(hub.folder(ID))
    assert len(server.asked("/store/")) == 1


def test_what_hugging_faces_client_left_is_completed(
    server: FakeHub, cache: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cache after `AutoTokenizer.from_pretrained` of transformers: no weights."""
    from huggingface_hub import hf_hub_download

    server.add(ID, small)
    for name in ("config.json", "tokenizer_config.json", "tokenizer.model"):
        hf_hub_download(ID, name, cache_dir=cache, endpoint=server.address)
    place = hub.folder(ID)
    check_folder(place)
    # And after `AutoModel.from_pretrained`: no tokenizer, which is a model all the same.
    for name in ("tokenizer_config.json", "tokenizer.model"):
        (place / name).unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert chatglm.AutoModel.from_pretrained(ID).config.generation == "chatglm3"
    with pytest.raises(CheckpointError, match=r"not complete \(no tokenizer\)"):
        AutoTokenizer.from_pretrained(ID)


def test_no_room_on_the_disk(server: FakeHub, cache: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add(ID, small)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10_000))
    with pytest.raises(CheckpointError, match=r"needs [\d.]+ MB more, and .* has 0\.0 MB free"):
        hub.folder(ID)
    assert not server.asked(".bin")


def test_other_families_are_not_downloaded(server: FakeHub, cache: Path) -> None:
    server.repositories["a/llama"] = {"config.json": b'{"model_type": "llama"}', "model.safetensors": b"x" * 9000}
    with pytest.raises(CheckpointError, match="model_type is 'llama'"):
        load_parts("a/llama")
    server.repositories["a/data"] = {"README.md": b"a"}
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_parts("a/data")
    assert not server.asked("/store/")


def test_an_index_cannot_name_other_files(server: FakeHub, cache: Path, small: Path) -> None:
    server.add(ID, small)
    name = next(name for name in server.repositories[ID] if name.endswith(".index.json"))
    for lie in ("../../x.bin", "modeling_chatglm.py", "absent.bin", "/etc/passwd"):
        server.repositories[ID][name] = json.dumps({"weight_map": {"a": lie}}).encode()
        with pytest.raises(CheckpointError, match="which the repository does not have"):
            hub.folder(ID)
    assert not server.asked(".py")


# Errors in one line


def one_line(name: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        hub.folder(name)
    message = str(caught.value)
    assert "\n" not in message
    assert name.split("@")[0] in message
    return message


def test_errors_of_the_hub(server: FakeHub, cache: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no such folder" in (said := one_line("out/lora"))
    assert "has no such repository either" in said
    server.add("a/gated", small)
    server.gated.add("a/gated")
    assert "accept its terms at" in one_line("a/gated")
    assert "HF_TOKEN" in one_line("a/gated")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    check_folder(hub.folder("a/gated"))
    assert all("authorization" not in headers for _, _, headers in server.asked("/store/"))  # another origin
    server.down = True
    assert "answered 503" in one_line(ID)


def test_without_a_network(server: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        said = one_line(ID)
    assert "cannot be reached" in said
    assert "HF_ENDPOINT" in said


def test_a_silent_endpoint_is_given_up(server: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_ANSWER_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "cannot be reached" in one_line(ID)


def test_an_endpoint_that_is_no_hub(server: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.repositories[ID] = {}
    monkeypatch.setattr(constants, "ENDPOINT", server.address + "/nowhere")
    assert "answered 404" in one_line(ID)


@pytest.mark.parametrize(
    "name",
    [
        "chatglm3-6b",
        "a/b/c",
        "../b",
        "a/..",
        "./a",
        "/a/b",
        "a/",
        "~/a",
        "a\\b",
        "a/b@../../c",
        "a/b@",
        "a--b/c",
        ".a/b",
    ],
)
def test_these_are_folders(name: str, server: FakeHub, cache: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        load_parts(name)
    assert server.requests == []


# Caches


def test_modelscopes_cache(cache: Path, server: FakeHub, small: Path, tmp_path: Path) -> None:
    for number, under in enumerate(("models", "hub/models", "hub", ".")):
        name = f"chatglm3.{number}"
        place = tmp_path / "modelscope" / under / "ZhipuAI" / name.replace(".", "___")
        shutil.copytree(small, place)
        assert hub.folder(f"ZhipuAI/{name}") == place
        assert hub.folder(f"THUDM/{name}") == place
    assert f"ZhipuAI/{name}" in hub.cached()
    assert server.requests == []


def test_the_generation_of_a_snapshot(cache: Path, server: FakeHub, copied: Callable[[str], Path]) -> None:
    """ChatGLM2 and ChatGLM3 may differ in nothing but the repository's name, and a snapshot's folder is a hash."""
    folder = copied("chatglm2")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    for key in ("_name_or_path", "transformers_version"):
        config.pop(key, None)
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    for name, generation in (("a/chatglm2-x", "chatglm2"), ("a/chatglm3-x", "chatglm3")):
        server.add(name, folder, "tokenizer_config.json")
        assert read_generation(hub.folder(name)) == generation
        assert load_parts(name).format.generation == generation
        assert hub.folder_name(hub.folder(name)) == hub.folder_name(name) == name[2:]


# Folders


def test_download_to_a_folder(server: FakeHub, cache: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add(ID, small)
    name = shards(server.repositories[ID])[0]
    monkeypatch.setattr(downloads, "_TRIES", 1)
    server.cut[name], server.cuts = 9000, 99
    with pytest.raises(CheckpointError):
        hub.download(ID, "here")
    server.cuts = 0
    said: list[str] = []
    assert hub.download(ID, "here", say=said.append) == Path("here")
    assert said
    check_folder(Path("here"))
    assert not [file for file in Path("here").iterdir() if file.suffix in (".py", ".incomplete") or file.is_symlink()]
    server.requests.clear()
    hub.download(ID, "here")
    assert not server.asked("/resolve/")  # all there, and checked
    with pytest.raises(InputError, match=r"has .* in it already"):
        hub.download("THUDM/other", "here")
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"has notes\.txt in it already"):
        hub.download(ID, "full")
    for name in ("chatglm3-6b", "../x/y", "https://huggingface.co/THUDM/chatglm3-6b"):
        with pytest.raises(InputError, match="expected a repository id"):
            hub.download(name)


def test_an_adapters_base(server: FakeHub, cache: Path, small: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = load_parts(small).model
    model.name_or_path = ID
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["query_key_value"]))
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    server.add(ID, small)
    server.add("me/adapter", tmp_path / "adapter")
    for options in ({"path": "me/adapter"}, {"adapter": "me/adapter"}, {"adapter": tmp_path / "adapter"}):
        loaded: Any = load_parts(**options)
        assert loaded.model.peft_config
        assert loaded.format.generation == "chatglm3"
    with chatglm.load(adapter="me/adapter") as assistant:
        assert assistant.format.generation == "chatglm3"
    file = tmp_path / "adapter" / "adapter_config.json"
    about = json.loads(file.read_text("utf-8"))
    for base, said in (
        ("/data/models/chatglm3-6b", "not on this machine"),
        ("D:\\models\\chatglm3-6b", "not on this machine"),
        ("chatglm3-6b", "not on this machine"),
        ("nobody/knows", "has no such repository either"),
        (None, "names no base model"),
        (7, "names no base model"),
    ):
        file.write_text(json.dumps({**about, "base_model_name_or_path": base}), "utf-8")
        with pytest.raises(CheckpointError, match=said) as caught:
            load_parts(adapter=tmp_path / "adapter")
        assert "adapter_config.json" in str(caught.value)
        assert load_parts(small, adapter=tmp_path / "adapter").model.peft_config
    file.write_text(json.dumps({**about, "base_model_name_or_path": "/elsewhere/chatglm/demo"}), "utf-8")
    assert chatglm.loading.adapter_base(tmp_path / "adapter") is None


# As users run it


def environment(server: FakeHub, home: Path, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "MODEL"))}
    return {**kept, "HF_ENDPOINT": server.address, "HF_HOME": str(home), "OMP_NUM_THREADS": "1", **more}


def python(code: str, env: dict[str, str], folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, env=env, cwd=folder, timeout=300, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def run(arguments: list[str], env: dict[str, str], folder: Path, status: int = 0) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "chatglm.cli", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        env=env,
        cwd=folder,
    )
    assert done.returncode == status, done.stderr
    return done.stdout, done.stderr


def test_transformers_auto_classes_fetch_no_python(server: FakeHub, small: Path, tmp_path: Path) -> None:
    server.add(ID, small)
    code = (
        "import chatglm\nfrom transformers import AutoModel, AutoTokenizer\n"
        f"AutoTokenizer.from_pretrained({ID!r}, trust_remote_code=True)\n"
        f"AutoModel.from_pretrained({ID!r}, trust_remote_code=True)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=environment(server, tmp_path), cwd=tmp_path, timeout=300
    )
    assert not server.asked(".py")
    assert not (tmp_path / "sprung").exists()


def test_a_killed_process_is_continued(server: FakeHub, small: Path, tmp_path: Path) -> None:
    server.add(ID, small, **{"model.safetensors": b"0" * (64 << 20)})
    server.held["model.safetensors"] = threading.Event()  # else a quick download is over before it is killed
    env = environment(server, tmp_path / "home")
    process = subprocess.Popen(
        [sys.executable, "-c", f"from chatglm.hub import download; download({ID!r})"], env=env, cwd=tmp_path
    )

    def begun() -> bool:
        assert process.poll() is None
        for folder, _, files in os.walk(tmp_path):  # unlike `rglob`, it passes over a folder that has just gone
            for file in files:
                with contextlib.suppress(FileNotFoundError):  # it has got its final name since it was listed
                    if file.endswith(".incomplete") and Path(folder, file).stat().st_size > 1 << 20:
                        return True
        return False

    try:
        until(begun)
    finally:
        process.kill()
        process.wait(60)
        server.held["model.safetensors"].set()
    assert list(tmp_path.rglob("*.incomplete"))
    server.requests.clear()
    code = f"from chatglm.hub import download; print(download({ID!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=tmp_path, timeout=120, capture_output=True, check=True
    )
    assert (Path(done.stdout.decode().strip()) / "model.safetensors").stat().st_size == 64 << 20
    assert server.bytes_of("model.safetensors") < 64 << 20


def test_the_command(server: FakeHub, small: Path, tmp_path: Path) -> None:
    """`chatglm download`, then the same model by its id without a network."""
    server.add(ID, small)
    env = environment(server, tmp_path / "home")
    out, err = run(["download", ID], env, tmp_path)
    check_folder(Path(out.strip()))
    assert f"downloading {ID} from {server.address}" in err
    server.requests.clear()
    env["HF_HUB_OFFLINE"] = "1"
    talk = ["--temperature", "0", "--max-new-tokens", "2", "你好"]
    assert run(["chat", "--model", ID, *talk], env, tmp_path)[1] == ""
    assert "HF_HUB_OFFLINE" in run(["chat", "--model", "THUDM/chatglm2-6b", *talk], env, tmp_path, 1)[1]
    assert server.requests == []


@pytest.fixture
def command(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[str, str]]:
    """A command of `chatglm` in this process: what it writes to stdout and stderr."""
    for name in ("MODEL_PATH", "TOKENIZER_PATH", "PT_PATH"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object, status: int = 0) -> tuple[str, str]:
        assert main([*map(str, arguments)]) == status
        return tuple(capsys.readouterr())

    return run


TALK = ("--temperature", "0", "--max-new-tokens", "2", "你好")


def test_model_path(command: Any, small: Path, server: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    by_option, silence = command("chat", "--model", small, *TALK)
    assert silence == ""
    monkeypatch.setenv("MODEL_PATH", str(small))
    monkeypatch.setenv("TOKENIZER_PATH", "elsewhere")
    out, err = command("chat", *TALK)
    assert out == by_option
    assert err.splitlines() == [
        f"chatglm: model from MODEL_PATH: {small}",
        "chatglm: TOKENIZER_PATH is not used: the tokenizer is always the one of the model's folder",
    ]
    monkeypatch.setenv("MODEL_PATH", ID)
    server.add(ID, small)
    out, err = command("chat", *TALK)
    assert out == by_option
    assert f"downloading {ID}" in err
    monkeypatch.setenv("MODEL_PATH", "/nowhere")
    assert command("chat", "--model", small, *TALK) == (by_option, "")
    assert "/nowhere: no such folder" in command("chat", *TALK, status=1)[1]
    monkeypatch.setenv("MODEL_PATH", str(small))
    monkeypatch.setenv("PT_PATH", "/nowhere/pt")
    assert "/nowhere/pt: no such file" in command("chat", *TALK, status=1)[1]
    assert "model from MODEL_PATH" in command("quantize", "--output", "q")[1]
    assert read_generation("q") == "chatglm3"


def test_commands_take_ids(
    command: Any, small: Path, server: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add(ID, small)
    command("quantize", ID, "--output", "quantised")
    check_folder(Path("quantised"))
    assert server.asked("/store/")
    Path("rows.jsonl").write_text('{"prompt": "你好", "response": "早"}\n' * 4, "utf-8")
    options = ("--steps", "1", "--method", "lora", "--lora-rank", "2", "--cpu")
    command("finetune", "rows.jsonl", "--model", ID, "--output", "tuned", *options)
    about = json.loads(Path("tuned/adapter_config.json").read_text("utf-8"))
    assert about["base_model_name_or_path"] == ID  # means the same on every machine
    out, err = command("chat", "--adapter", "tuned", *TALK)
    assert f"base model of the adapter: {ID}" in err
    assert out == command("chat", "--model", ID, "--adapter", "tuned", *TALK)[0]
    command("merge", "tuned", "--output", "merged")
    check_folder(Path("merged"))
    measured = command("evaluate", "rows.jsonl", "--model", ID, "--samples", "0")[0]
    assert "loss" in measured
    monkeypatch.setenv("MODEL_PATH", ID)
    assert command("evaluate", "rows.jsonl", "--samples", "0")[0] == measured
    assert not list(cache.rglob("*.py"))


def test_options_of_a_model(command: Any, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = command("chat", "--model", small, "--dtype", "float16", *TALK)
    for name in ("fp16", "half", "torch.float16", "FP16"):
        assert command("chat", "--model", small, "--dtype", name, *TALK) == expected
    with pytest.raises(SystemExit):
        main(["chat", "--dtype", "int3"])
    threads = torch.get_num_threads()
    _, err = command("chat", "--model", small, "--threads", "4000", *TALK)
    assert "--threads 4000: this process has" in err
    assert torch.get_num_threads() < 4000
    native.set_threads(1)
    torch.set_num_threads(threads)
    for attempt in (
        lambda: chatglm.load(small, device="cuda:77"),
        lambda: load_parts(small, device=torch.device("cuda:77")),
    ):
        with pytest.raises(InputError, match="device 'cuda:77' cannot be used") as caught:
            attempt()
        assert "\n" not in str(caught.value)


# Encoders of texts


def test_an_encoder(server: FakeHub, cache: Path, tmp_path: Path) -> None:
    """All parts that `modules.json` names, and nothing else."""
    folder = make_sentence(tmp_path / "m", dense=8, prompts={"query": "q "})
    files = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    server.repositories["org/texts"] = {**files, "onnx/model.onnx": b"x" * 5000, "modeling.py": TRAP}
    with Embedder.load("org/texts") as encoder, Embedder.load(folder) as expected:
        assert encoder.dimensions == 8
        assert asyncio.run(encoder.embed(["你好"])) == asyncio.run(expected.embed(["你好"]))
    assert not server.asked("onnx")
    assert not server.asked(".py")
    server.down = True
    server.requests.clear()
    with Embedder.load("org/texts") as encoder:  # from the cache
        assert encoder.prompts == ("query",)
    assert not server.requests
    server.down = False
    assert hub.download("org/texts", tmp_path / "target") == tmp_path / "target"
    with Embedder.load(tmp_path / "target") as encoder:
        assert encoder.dimensions == 8


def test_an_encoder_that_is_not_whole(server: FakeHub, cache: Path, tmp_path: Path) -> None:
    folder = make_sentence(tmp_path / "m", dense=8)
    files = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    server.repositories["org/texts"] = {name: data for name, data in files.items() if name != "1_Pooling/config.json"}
    with pytest.raises(CheckpointError, match=r"1_Pooling/config\.json: no such file"):
        Embedder.load("org/texts")
    outside = files["modules.json"].replace(b'"1_Pooling"', b'"../Pooling"')
    server.repositories["org/others"] = {**files, "modules.json": outside}
    with pytest.raises(CheckpointError, match="without a valid `path` and `type`"):
        Embedder.load("org/others")
