"""Client packages that people have, each in an environment of its own, unmodified, against the real server.

Each script in `scripts/` is what a user of that package would write; it prints one JSON object. `environments.py` sets
the environments up once; in CI the tests do.
"""

from __future__ import annotations

import datetime
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from client_scripts import run_script
from environments import JAVASCRIPT, SCRIPTS, folder_of

from chatglm.loading import demo_folder

Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def run(demo: str) -> Run:
    """Run a script against the server with the demo model; what it found."""

    def get(environment: str, script: str, *arguments: str) -> dict[str, Any]:
        file = folder_of(environment) / script if environment == JAVASCRIPT else SCRIPTS / script
        found: dict[str, Any] = json.loads(run_script(environment, file, demo, *arguments).splitlines()[-1])
        return found

    return get


def test_litellm(run: Run) -> None:
    found = run("agents", "litellm_client.py")
    assert "演示模型" in found["text"]
    assert found["streamed"] == found["cached"] == found["text"]
    assert found["arguments"] == {"city": "北京"}
    assert "晴" in found["after_tool"]
    assert found["too_long"] == "ContextWindowExceededError"


def test_litellm_anthropic(run: Run) -> None:
    found = run("agents", "litellm_anthropic_client.py")
    assert "演示模型" in found["text"]
    assert found["streamed"] == found["text"]
    assert found["arguments"] == {"city": "北京"}
    assert "晴" in found["after_tool"]
    assert found["too_long"] == "ContextWindowExceededError"


def test_anthropic(run: Run) -> None:
    found = run("anthropic", "anthropic_client.py")
    assert "演示模型" in found["text"]
    assert found["streamed"] == found["final"] == found["text"]
    assert found["reason"] == "end_turn"
    assert found["prompt"] == found["counted"] == found["stream_prompt"]
    assert found["same_usage"]
    assert found["tool_reason"] == "tool_use"
    assert found["input"] == found["snapshot"] == found["streamed_input"] == {"city": "北京"}
    assert "晴" in found["after_tool"]
    assert "晴" in found["runner"]
    assert found["parsed"].keys() == {"city", "sunny"}
    assert (found["models"], found["model"]) == (["demo"], "demo")
    assert found["stopped"] == ["stop_sequence", "模型"]
    assert found["short"] == "max_tokens"
    assert found["BadRequestError"] == ["BadRequestError", "invalid_request_error", True]
    assert found["NotFoundError"] == ["NotFoundError", "not_found_error", True]
    assert found["RequestTooLargeError"][1:] == ["request_too_large", True]


def test_langchain_anthropic(run: Run) -> None:
    found = run("anthropic", "langchain_anthropic_client.py")
    assert "演示模型" in found["text"]
    assert found["streamed"] == found["text"]
    assert found["usage"]
    assert found["called"] == {"city": "北京"}
    assert found["forced"]
    assert "晴" in found["after_tool"]


def test_pydantic_ai(run: Run) -> None:
    found = run("agents", "pydantic_ai_client.py")
    person = found["output"]
    assert 1 <= len(person["name"]) <= 8
    assert 0 <= person["age"] <= 120
    datetime.date.fromisoformat(person["born"])
    assert re.fullmatch("[A-Z]{2}[0-9]{3}", person["code"])
    assert len(found["native"]["city"]) <= 8
    assert found["called"] == ["get_weather"]
    assert "晴" in found["tool_loop"]


def test_openai_agents(run: Run) -> None:
    found = run("agents", "openai_agents_client.py")
    assert found["called"] == ["北京"]
    assert "晴" in found["tool"]
    for name in ("typed", "both"):
        assert len(found[name]["city"]) <= 8
        assert -50 <= found[name]["degrees"] <= 60
    assert "演示模型" in found["streamed"]


def test_openai_agents_over_responses(run: Run) -> None:
    found = run("agents", "openai_agents_responses_client.py")
    assert found["called"] == ["北京"]
    assert "晴" in found["tool"]
    assert found["again"]
    assert found["continued"]
    assert len(found["typed"]["city"]) <= 8
    assert -50 <= found["typed"]["degrees"] <= 60
    assert "晴" in found["streamed"]
    assert found["events"] == ["agent_updated_stream_event", "raw_response_event", "run_item_stream_event"]


def test_responses(run: Run) -> None:
    found = run("agents", "responses_client.py")
    for name in ("text", "streamed", "litellm", "litellm_streamed"):
        assert "演示模型" in found[name]
    assert found["called"] == {"city": "北京"}
    assert "晴" in found["after_tool"]
    assert "晴" in found["chained"]
    assert len(found["forced"]) <= 8


def test_langgraph(run: Run) -> None:
    found = run("agents", "langgraph_client.py")
    assert found["types"] == ["human", "ai", "tool", "ai"]
    assert set(found["names"]) == {"weather_agent"}
    assert found["last"]


def test_autogen(run: Run) -> None:
    found = run("agents", "autogen_client.py")
    assert "ToolCallRequestEvent" in found["kinds"]
    assert "ToolCallExecutionEvent" in found["kinds"]
    assert found["last"]


def test_instructor(run: Run) -> None:
    found = run("instructor", "instructor_client.py")
    for mode in ("TOOLS", "TOOLS_STRICT", "JSON_SCHEMA", "retried"):
        assert len(found[mode]["city"]) <= 12
        assert 0 <= found[mode]["age"] <= 99
    assert found["attempts"] == 2


def test_openai_0_28(run: Run) -> None:
    found = run("openai-0.28", "openai_0_28_client.py")
    assert found["reasons"] == ["function_call", "function_call"]
    assert [json.loads(call["arguments"]) for call in found["calls"]] == [{"city": "北京"}] * 2
    assert "晴" in found["after"]
    assert json.loads(found["streamed"]).keys() == {"city"}


def test_lm_eval(run: Run) -> None:
    found = run("lm-eval", "lm_eval_client.py", str(demo_folder()), *sys.path)
    likely, unlikely, right, wrong = found["scores"]
    assert found["rolling"] < 0
    assert likely > unlikely
    assert right > wrong


def test_ai_over_responses(run: Run) -> None:
    found = run(JAVASCRIPT, "ai_responses_client.mjs")
    assert "演示模型" in found["text"]
    assert found["streamed"] == found["text"]
    assert found["referenced"]
    assert len(found["object"]["city"]) <= 8
    assert "晴" in found["after_tool"]
    assert "晴" in found["streamed_tool"]
    assert found["called"] == ["北京", "北京"]


@pytest.mark.parametrize("script", ["openai_client.mjs", "ai_client.mjs", "langchain_client.mjs"])
def test_javascript(run: Run, script: str) -> None:
    found = run(JAVASCRIPT, script)
    assert "演示模型" in found["streamed"]
    assert "晴" in found["after_tool"]
    for call in found["called"]:
        assert call in ("北京", {"city": "北京"})
    assert found["called"]
    for name in {"object", "both", "functionCalling", "jsonSchema"} & found.keys():
        assert len(found[name]["city"]) <= 8
        assert 0 <= found[name]["age"] <= 99


def test_every_script_is_run() -> None:
    text = "".join(file.read_text("utf-8") for file in Path(__file__).parent.glob("test_*.py"))
    for script in (*SCRIPTS.glob("*.py"), *SCRIPTS.glob("js/*.mjs")):
        assert f'"{script.name}"' in text
