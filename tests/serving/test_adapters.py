"""LoRA adapters that come and go while the server runs, by vLLM's `/v1/load_lora_adapter` and `unload_lora_adapter`."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from chatglm.assistant import Assistant
from chatglm.loading import load_parts
from chatglm.serving.access.key_sources import KeyFile
from chatglm.serving.access.keys import Keyring
from chatglm.serving.catalog import Catalog, Source
from server import serving
from waiting import until

QUESTION = [{"role": "user", "content": "你好，请介绍一下自己"}]


@pytest.fixture(scope="module")
def folder(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters `one` and `two` of the tiny ChatGLM3, and `other`, of a ChatGLM2 of another size."""
    from peft import LoraConfig, get_peft_model

    root = tmp_path_factory.mktemp("adapters")
    for number, name in enumerate(("one", "two")):
        base, _, _ = load_parts(checkpoint("chatglm3"), dtype=torch.float32)
        torch.manual_seed(number)
        lora = LoraConfig(r=2, lora_alpha=64, target_modules=["query_key_value"], init_lora_weights=False)
        get_peft_model(base, lora).save_pretrained(root / name)
    shutil.copytree(root / "one", root / "other")
    about = json.loads((root / "other" / "adapter_config.json").read_text())
    (root / "other" / "adapter_config.json").write_text(json.dumps({**about, "r": 4}))
    (root / "empty").mkdir()
    (root / "out").symlink_to(checkpoint("chatglm3"))
    return root


@pytest.fixture(scope="module")
def url(checkpoint: Callable[[str], Path], folder: Path) -> Iterator[str]:
    with (
        Assistant.load(checkpoint("chatglm3"), dtype="float32", adaptable=True) as assistant,
        serving({"glm": assistant}, adapters_from=folder) as address,
    ):
        yield address


def load(url: str, name: str, path: str, **more: Any) -> httpx.Response:
    return httpx.post(f"{url}/v1/load_lora_adapter", json={"lora_name": name, "lora_path": path, **more}, timeout=60)


def unload(url: str, name: str) -> httpx.Response:
    return httpx.post(f"{url}/v1/unload_lora_adapter", json={"lora_name": name}, timeout=60)


def said(url: str, model: str, **more: Any) -> str:
    body = {"model": model, "messages": QUESTION, "temperature": 0, "max_tokens": 8, **more}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def names(url: str) -> dict[str, str | None]:
    return {one["id"]: one["parent"] for one in httpx.get(f"{url}/v1/models").json()["data"]}


def test_adapters_come_and_go(url: str, checkpoint: Callable[[str], Path], folder: Path) -> None:
    expected = {}
    for name in (None, "one", "two"):
        with Assistant.load(checkpoint("chatglm3"), dtype="float32", adapter=name and folder / name) as alone:
            (answer,) = alone.answers(QUESTION, params={"temperature": 0, "max_new_tokens": 8}, trim=False)
            expected[name] = answer.message.content
    assert len({*expected.values()}) == 3
    assert said(url, "glm") == expected[None]
    assert load(url, "a", "one").text == "Success: LoRA adapter 'a' added successfully."
    assert load(url, "b", str(folder / "two")).status_code == 200
    assert names(url) == {"glm": None, "a": "glm", "b": "glm"}
    assert (said(url, "a"), said(url, "glm"), said(url, "b")) == (expected["one"], expected[None], expected["two"])
    # Another adapter under the same name: nothing of the old one's keys and values is used again.
    refused = load(url, "a", "two")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "lora_name")
    assert load(url, "a", "two", load_inplace=True).status_code == 200
    assert said(url, "a") == expected["two"]
    assert unload(url, "b").text == "Success: LoRA adapter 'b' removed successfully."
    assert names(url) == {"glm": None, "a": "glm"}
    assert (said(url, "a"), said(url, "glm")) == (expected["two"], expected[None])
    assert unload(url, "a").status_code == 200
    assert said(url, "glm") == expected[None]
    assert load(url, "a", "one").status_code == 200
    assert said(url, "a") == expected["one"]
    assert unload(url, "a").status_code == 200
    gone = unload(url, "a")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not_found")


def test_an_adapter_is_replaced_by_a_request_that_names_it(url: str) -> None:
    """As the model that the new one is for; the request must not wait for itself."""
    assert load(url, "a", "one").status_code == 200
    assert load(url, "b", "one").status_code == 200
    said(url, "b")
    assert load(url, "a", "two", load_inplace=True, base_model_name="a").status_code == 200
    assert names(url) == {"glm": None, "a": "glm", "b": "glm"}
    said(url, "a")
    assert [unload(url, name).status_code for name in ("b", "a")] == [200, 200]


def test_unloading_waits_for_requests(url: str) -> None:
    assert load(url, "a", "one").status_code == 200
    body = {"model": "a", "messages": QUESTION, "stream": True, "max_tokens": 60, "min_tokens": 60}
    done: list[int] = []
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as answer:
        lines = answer.iter_lines()
        next(lines)
        thread = threading.Thread(target=lambda: done.append(unload(url, "a").status_code))
        thread.start()
        until(lambda: "a" not in names(url))  # no new request gets it
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert json.loads(rest[-2][6:])["choices"][0]["finish_reason"] in ("length", "stop")
    thread.join(60)
    assert done == [200]


@pytest.mark.parametrize(
    ("path", "said_"),
    [
        ("nothing", "is not a folder within"),
        ("../", "is not a folder within"),
        ("/etc", "is not a folder within"),
        ("one/../../..", "is not a folder within"),
        ("out", "is not a folder within"),  # a link that leads out
        ("one/adapter_config.json", "is not a folder within"),
        ("a\0b", "is not a folder within"),
        ("empty", "no adapter_config.json"),
        ("other", "r is 4"),
    ],
)
def test_wrong_folders(url: str, path: str, said_: str) -> None:
    refused = load(url, "x", path)
    assert refused.status_code == 400
    assert said_ in refused.json()["error"]["message"]
    assert refused.json()["error"]["param"] == "lora_path"
    assert names(url) == {"glm": None}
    assert said(url, "glm")


def test_wrong_names(url: str) -> None:
    for name in ("", "a b", "a/b", "x" * 200):
        assert load(url, name, "one").status_code == 400
    assert "is the name of a model or adapter already" in load(url, "glm", "one").json()["error"]["message"]
    assert load(url, "x", "one", base_model_name="none").status_code == 404


def test_only_where_the_server_was_started_for_it(
    checkpoint: Callable[[str], Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Assistant.load(checkpoint("chatglm3"), dtype="float32") as assistant:
        with serving({"glm": assistant}) as url:
            assert (
                "start `chatglm serve` with --adapters-from FOLDER" in load(url, "x", "one").json()["error"]["message"]
            )
        with serving({"glm": assistant}, adapters_from=folder) as url:  # an engine on the native decoder
            refused = load(url, "x", "one")
            assert refused.status_code == 400
            assert "cannot get adapters while it runs" in refused.json()["error"]["message"]
            monkeypatch.setattr("chatglm.serving.openai.adapters._is_local", lambda request: False)
            assert load(url, "x", "one").status_code == unload(url, "x").status_code == 403


def test_only_a_key_that_may_loads_them(checkpoint: Callable[[str], Path], folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    secrets = {"manager": "manager-0123456789abcdef", "user": "user-0123456789abcdef"}
    file.write_text(
        f"keys:\n  - {{key: {secrets['manager']}, name: manager, may: [manage-adapters]}}\n"
        f"  - {{key: {secrets['user']}, name: user}}\n"
    )
    with (
        Assistant.load(checkpoint("chatglm3"), dtype="float32", adaptable=True) as assistant,
        serving({"glm": assistant}, adapters_from=folder, keys=Keyring([KeyFile(file)])) as url,
    ):

        def ask(who: str, action: str) -> httpx.Response:
            body = {"lora_name": "one", **({"lora_path": "one"} if action == "load" else {})}
            headers = {"Authorization": f"Bearer {secrets.get(who, 'nobody-0123456789abcdef')}"}
            return httpx.post(f"{url}/v1/{action}_lora_adapter", json=body, headers=headers, timeout=60)

        refused = ask("user", "load")
        assert refused.status_code == 403
        assert "manage-adapters" in refused.json()["error"]["message"]
        assert ask("stranger", "load").status_code == 401
        assert ask("manager", "load").status_code == 200
        assert ask("user", "unload").status_code == 403
        assert ask("manager", "unload").status_code == 200


def test_a_model_with_adapters_is_not_unloaded(checkpoint: Callable[[str], Path], folder: Path) -> None:
    def open_() -> Assistant:
        return Assistant.load(checkpoint("chatglm3"), dtype="float32", adaptable=True)

    source = Source("glm", "chat", open_, at_start=False, idle=0.1)
    with Catalog([source]) as catalog, serving(catalog, adapters_from=folder) as url:  # type: ignore[arg-type]
        (holder,) = catalog.models()
        assert load(url, "a", "one").status_code == 200
        time.sleep(0.5)
        assert holder.model is not None
        assert said(url, "a")
        assert unload(url, "a").status_code == 200
        until(lambda: holder.model is None)
        assert said(url, "glm")
