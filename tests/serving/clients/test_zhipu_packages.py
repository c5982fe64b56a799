"""ZhipuAI's packages of three generations and LangChain's class for it, against a server that knows their key."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from client_scripts import OWN, run_script
from environments import SCRIPTS

from chatglm.assistant import Assistant
from chatglm.encoders import Embedder
from chatglm.serving.access.key_sources import Texts
from chatglm.serving.access.keys import Keyring
from server import serving
from tiny_encoders import WIDTH, make_sentence

KEY = "alice.0123456789abcdef"

Run = Callable[[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run a script against a server with the demo model and a tiny one for embeddings; what it found."""
    folder = make_sentence(tmp_path_factory.mktemp("encoders") / "m")
    with (
        Assistant.load(dtype="float32") as assistant,
        Embedder.load(folder) as encoder,
        serving({"demo": assistant}, encoders={"embedding-3": encoder}, keys=Keyring([Texts([KEY], "test")])) as url,
    ):

        def get(environment: str, script: str) -> dict[str, Any]:
            found: dict[str, Any] = json.loads(run_script(environment, SCRIPTS / script, url, KEY).splitlines()[-1])
            return found

        yield get


def test_v3(run: Run) -> None:
    found = run("zhipuai-1", "zhipuai_1_client.py")
    text = found["plain"]
    assert "演示模型" in text
    assert json.loads(found["content"]) == text
    assert found["request_id"] == "my-request"
    assert found["usage"]["total_tokens"] == found["usage"]["prompt_tokens"] + found["usage"]["completion_tokens"]
    assert found["of_params"] is True

    *added, finish = found["events"]
    assert {name for name, _ in added} == {"add"}
    assert "".join(data for _, data in added) == text
    assert finish == ["finish", ""]
    assert found["meta"]["task_status"] == "SUCCESS"
    assert found["meta"]["usage"] == found["usage"]
    assert found["texts"][-2:] == [["add", text], ["finish", ""]]

    assert found["status"] == "PROCESSING"
    assert json.loads(found["later"]) == text
    assert "苏梦远" in found["played"]

    assert (found["unknown"]["code"], found["unknown"]["success"]) == (1211, False)
    assert [name for name, _ in found["unknown_event"]] == ["error"]
    assert found["unknown_event"][0][1] == found["unknown"]["msg"]
    assert (found["stranger"]["code"], found["stranger"]["success"]) == (1004, False)


@pytest.mark.parametrize("environment", ["zhipuai-2", "zai"])
def test_v4(run: Run, environment: str) -> None:
    found = run(environment, "zhipu_v4_client.py")
    text = found["text"]
    assert "演示模型" in text
    assert found["streamed"] == found["signed"] == text
    assert found["request_id"] == "my-request"
    assert found["usage"][2] == sum(found["usage"][:2])
    assert found["streamed_usage"] == found["usage"][:2]
    assert found["reason"] == found["streamed_reason"] == "stop"

    assert found["call"] == ["tool_calls", "get_weather", {"city": "北京"}]
    assert "晴" in found["after_tool"]
    assert found["streamed_call"] == [["get_weather", {"city": "北京"}]]
    assert found["pieces"][0] > 1
    assert found["pieces"][1] == {"city": "北京"}
    assert found["shaped"].startswith("{")  # the small model may not come to its end
    assert found["length"] == "length"

    assert "苏梦远" in found["played"]
    assert found["status"] == "PROCESSING"
    assert found["later"] == ["SUCCESS", text]

    assert found["embeddings"] == [[0, WIDTH], [1, WIDTH]]
    assert found["embeddings_usage"] > 0

    assert found["batch"] == ["completed", 2]
    assert all(found["batch_texts"])
    assert len(found["batch_texts"]) == 2
    assert [found[name] for name in ("files", "batches", "deleted")] == [True] * 3

    assert found["unknown"] == ["request", "1211"]
    assert found["long"] == ["request", "1261"]
    assert found["search"] == ["request", "1214"]
    assert found["stranger"] == found["stranger_signed"] == ["authentication", "1004"]


def test_chat_zhipuai(run: Run) -> None:
    found = run(OWN, "chat_zhipuai_client.py")
    assert "演示模型" in found["text"]
    assert found["streamed"] == found["awaited"] == found["text"]
    assert found["reason"] == "stop"
    assert found["usage"] > 0
    assert found["calls"] == [["get_weather", {"city": "北京"}]]
    assert "晴" in found["after_tool"]  # though it leaves the call out of what it sends back
    (call,) = found["streamed_calls"]
    assert json.loads(call["function"]["arguments"]) == {"city": "北京"}


def test_litellm_through_v4(run: Run) -> None:
    found = run("agents", "litellm_zhipu_client.py")
    assert "演示模型" in found["text"]
    assert found["streamed"] == found["text"]
    assert found["usage"] > 0
    assert found["calls"] == [{"city": "北京"}]
    assert found["stranger"] == "AuthenticationError"
