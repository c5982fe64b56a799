"""`/tokenize` and `/detokenize`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from chatglm.assistant import Assistant, RemoteAssistant
from chatglm.chat.messages import Message
from chatglm.encoders import Embedder
from scripted import ScriptedEngine, Writer
from server import serving
from tiny_encoders import make_bare

TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def url(write: Writer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = make_bare(tmp_path_factory.mktemp("encoders") / "m")
    with (
        Embedder.load(folder) as texts,
        Assistant(write.form, ScriptedEngine([write.end])) as assistant,  # type: ignore[arg-type]
        serving({"demo": assistant}, encoders={"texts": texts}) as address,
    ):
        yield address


def ask(url: str, path: str = "/tokenize", **body: Any) -> Any:
    answer = httpx.post(url + path, json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_text(url: str, write: Writer) -> None:
    tokenizer = write.form.tokenizer
    plain = tokenizer.encode_text("你好，世界")
    whole = tokenizer.build_inputs_with_special_tokens(plain)
    found = ask(url, model="demo", prompt="你好，世界")
    assert found == {"count": len(whole), "max_model_len": found["max_model_len"], "tokens": whole, "token_strs": None}
    assert found["max_model_len"] > len(whole)
    assert ask(url, prompt="你好，世界", add_special_tokens=False)["tokens"] == plain
    assert ask(url, "/detokenize", tokens=plain)["prompt"] == "你好，世界"
    named = ask(url, prompt="你好，世界", return_token_strs=True)["token_strs"]
    assert len(named) == len(whole)
    assert "".join(named[-len(plain) :]).strip() == "你好，世界"
    assert ask(url, prompt="")["tokens"] == tokenizer.build_inputs_with_special_tokens([])


def test_a_text_has_no_control_tokens(url: str, write: Writer) -> None:
    for name, token in write.form.tokenizer._commands().items():
        assert token not in ask(url, prompt=f"a{name}b", add_special_tokens=False)["tokens"]


def test_a_dialogue(url: str, write: Writer) -> None:
    messages = [{"role": "user", "content": "你好"}]
    found = ask(url, messages=messages, tools=[TOOL])
    told = [Message("user", "你好")]
    with_tool = write.form.prompt(told, tools_of_form())
    assert found["tokens"] == with_tool
    assert ask(url, messages=messages)["tokens"] == write.form.prompt(told)
    shorter = ask(url, messages=messages, add_generation_prompt=False)["tokens"]
    assert shorter == write.form.ids(told, (), False)
    assert len(shorter) < found["count"]


def tools_of_form() -> Any:
    from chatglm.chat.messages import ToolSpec

    return ToolSpec.list_from([TOOL])


def test_an_encoder(url: str) -> None:
    found = ask(url, model="texts", prompt="你好")
    assert (found["count"], found["max_model_len"]) == (4, 64)
    assert ask(url, model="texts", prompt="你好", add_special_tokens=False)["tokens"] == found["tokens"][1:-1]
    assert ask(url, model="texts", prompt="你好", return_token_strs=True)["token_strs"] == [
        "[CLS]",
        "你",
        "好",
        "[SEP]",
    ]
    assert ask(url, "/detokenize", model="texts", tokens=found["tokens"])["prompt"] == "[CLS] 你 好 [SEP]"
    again = httpx.post(f"{url}/v1/embeddings", json={"input": found["tokens"]}).json()
    assert again["data"] == httpx.post(f"{url}/v1/embeddings", json={"input": "你好"}).json()["data"]


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/tokenize", {}, 400, "prompt: give either prompt or messages"),
        ("/tokenize", {"prompt": "a", "messages": [{"role": "user", "content": "a"}]}, 400, "give either"),
        ("/tokenize", {"prompt": 5}, 400, "prompt: must be a string"),
        ("/tokenize", {"prompt": "a", "tools": [TOOL]}, 400, "tools: need messages"),
        ("/tokenize", {"prompt": "a", "chat_template": "x"}, 400, "chat_template: unknown field"),
        ("/tokenize", {"prompt": "a", "continue_final_message": True}, 400, "only false is supported"),
        ("/tokenize", {"prompt": "a", "model": "x"}, 404, "'x' is not served here"),
        ("/tokenize", {"messages": [{"role": "user", "content": "a"}], "model": "texts"}, 400, "reads texts"),
        ("/detokenize", {"tokens": [10**9]}, 400, "tokens: 1000000000 is not a token of this model"),
        ("/detokenize", {"tokens": [-1]}, 400, "tokens[0]: must be at least 0"),
        ("/detokenize", {"tokens": ["a"]}, 400, "tokens[0]: must be an integer"),
        ("/detokenize", {}, 400, "tokens: required"),
    ],
)
def test_what_is_refused(url: str, path: str, body: dict[str, Any], status: int, said: str) -> None:
    answer = httpx.post(url + path, json=body)
    assert said in answer.json()["error"]["message"]
    assert answer.status_code == status


def test_a_model_at_another_server(url: str) -> None:
    with RemoteAssistant(f"{url}/v1") as remote, serving({"far": remote}) as front:
        for path, body in (("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": [1]})):
            answer = httpx.post(front + path, json=body)
            assert answer.status_code == 501
            assert answer.json()["error"]["code"] == "not_offered"
            assert "'far' is at another server" in answer.json()["error"]["message"]


def test_every_generation(checkpoint: Callable[[str], Path]) -> None:
    for name in ("chatglm", "chatglm2", "glm4"):
        with Assistant.load(checkpoint(name)) as assistant, serving({"m": assistant}) as url:
            found = ask(url, prompt="你好 hello")
            assert found["tokens"] == assistant.tokenizer("你好 hello")["input_ids"]
            assert found["max_model_len"] == assistant.context
            ids = ask(url, prompt="你好 hello", add_special_tokens=False)["tokens"]
            assert ask(url, "/detokenize", tokens=ids)["prompt"] == "你好 hello"
