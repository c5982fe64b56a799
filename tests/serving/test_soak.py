"""A short run of `benchmarks/soak.py`: many clients, well and badly behaved, against a real server."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "soak.py"


@pytest.fixture(scope="module")
def soak() -> ModuleType:
    spec = importlib.util.spec_from_file_location("soak", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["soak"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_nothing_is_lost(soak: ModuleType) -> None:
    result, wrong = soak.soak(streams=16, seconds=10, fill_first=False)
    assert wrong == []
    assert result["requests"] >= 32
    assert len(result["whole"]) >= 5
    assert result["by key"].keys() >= {"open", "other"}
    memory = result["memory_mb"]
    assert memory["after"] - memory["before"] < 300  # of it 200 are keys and values, touched for the first time


def test_what_does_not_add_up_is_told(soak: ModuleType) -> None:
    """The checks themselves: figures that are right pass, and each that is wrong is found."""
    counts = soak.Counts()
    counts.statuses[soak.CHAT, 200] += 3
    counts.statuses[soak.CHAT, 400] += 1
    counts.reasons["stop"] += 2
    counts.kinds["chat"] += 2
    counts.left, counts.prompt_tokens, counts.completion_tokens = 1, 30, 9
    route = 'chatglm_requests_total{dialect="openai",route="/v1/chat/completions",status="%d"}'
    right = {
        route % 200: 3,
        route % 400: 1,
        **{
            f'chatglm_{name}{{model="demo"}}': value
            for name, value in {
                "answers_running": 0,
                "engine_running": 0,
                "engine_waiting": 0,
                "engine_pages_used": 0,
                "prompt_tokens_total": 30,
                "completion_tokens_total": 9,
                "engine_prompt_tokens_total": 45,
                "engine_generated_tokens_total": 12,
                "time_to_first_token_seconds_count": 3,
            }.items()
        },
        'chatglm_answers_total{model="demo",reason="stop"}': 2,
        'chatglm_answers_total{model="demo",reason="broken off"}': 1,
    }
    assert soak.compare(counts, {}, right) == []
    for name in right:
        for change in (-1, 1) if "engine" not in name else (-40, 40):
            changed = {**right, name: right[name] + change}
            found = soak.compare(counts, {}, changed)
            more = name.endswith(("prompt_tokens_total{", "generated_tokens_total{")) or (
                "engine" in name and "tokens" in name and change > 0
            )
            fewer = name.startswith("chatglm_time_to_first") and change < 0
            assert bool(found) != (more or fewer), (name, change, found)


def test_tools_that_a_model_has_made_up(soak: ModuleType) -> None:
    """It may where it need not call any."""
    called = [{"function": {"name": "get_whether", "arguments": "{}"}}]
    choice = {"finish_reason": "tool_calls", "message": {"tool_calls": called}}
    soak.check_chat(soak.Ask("tools", soak.CHAT, {}), choice)
    with pytest.raises(ValueError, match="no call of get_weather"):
        soak.check_chat(soak.Ask("tools", soak.CHAT, {}, must_call=True), choice)
    called[0]["function"]["arguments"] = "[]"
    with pytest.raises(ValueError, match="no arguments of a call"):
        soak.check_chat(soak.Ask("tools", soak.CHAT, {}), choice)


def test_batches_are_answered_whole(soak: ModuleType) -> None:
    counts = soak.Counts()
    body = {"choices": [{"finish_reason": "stop"}], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
    lines = [
        {"custom_id": f"{n}", "response": {"status_code": 400} if n == 3 else {"status_code": 200, "body": body}}
        for n in range(soak.LINES)
    ]
    output, errors = (
        "\n".join(json.dumps(line) for line in lines if (line["custom_id"] == "3") is wrong).encode()
        for wrong in (False, True)
    )
    soak.check_batch({"status": "completed"}, 3, output, errors, counts)
    assert counts.reasons == {"stop": soak.LINES - 1}
    assert counts.key_tokens["batches", "prompt"] == counts.prompt_tokens == 5 * (soak.LINES - 1)
    for state, found, refused in (
        ("failed", output, errors),
        ("completed", output.partition(b"\n")[2], errors),
        ("completed", output + b"\n" + output.partition(b"\n")[0], errors),
        ("completed", output, b""),
    ):
        with pytest.raises(ValueError, match=r"with the errors|not every line has one answer"):
            soak.check_batch({"status": state}, 3, found, refused, counts)


def test_growth_is_that_after_the_warm_up(soak: ModuleType) -> None:
    flat = [100.0 + 3 * n for n in range(20)] + [160.0] * 60
    assert soak.growth(flat) == 0
    noisy = [100.0 + 10 * (n % 7 == 0) for n in range(80)]
    assert abs(soak.growth(noisy)) < 1
    assert soak.growth([100 + n / 60 for n in range(90)]) == pytest.approx(1, rel=0.01)


def test_memory_that_is_lost_is_told(soak: ModuleType) -> None:
    rises = [100.0 + 50 * min(1, n / 300) for n in range(600)]
    flat = [120.0, 123.0, 121.0, 122.0, 121.5, 121.0, 122.0, 121.0, 121.5, 122.0]
    assert soak.check_memory(soak.Memory(rises, flat, flat), 600) == []
    lost = [120.0 + 2 * n for n in range(10)]
    assert "heap in use grew" in soak.check_memory(soak.Memory(rises, lost, flat), 600)[0]
    assert "in the second half" in soak.check_memory(soak.Memory(rises, flat, [100 + 3 * n for n in range(10)]), 600)[0]
    assert "up to" in soak.check_memory(soak.Memory([100.0] + [300.0] * 599, flat, flat), 600)[0]


def test_keys_that_do_not_add_up_are_told(soak: ModuleType) -> None:
    counts = soak.Counts()
    counts.keys.update({("open", True): 5, ("thin", True): 3, ("thin", False): 1})
    counts.refused["thin", 429] = 2
    counts.key_tokens.update({("open", "prompt"): 30, ("open", "completion"): 9})
    requests = 'chatglm_key_requests_total{dialect="openai",key="%s",model="demo",status="%d"}'
    tokens = 'chatglm_key_tokens_total{dialect="openai",key="%s",kind="%s",model="demo"}'
    right = {
        requests % ("open", 200): 5,
        requests % ("thin", 200): 1,
        requests % ("thin", 429): 2,
        tokens % ("open", "prompt"): 30,
        tokens % ("open", "completion"): 10,
        'chatglm_prompt_tokens_total{model="demo"}': 30,
        'chatglm_completion_tokens_total{model="demo"}': 9,
    }
    assert soak.compare_keys(counts, {}, right) == []
    for name in right:
        for change in (-2, 2) if "key_" in name else (2,):
            changed = {**right, name: right[name] + change}
            more = change > 0 and "key_tokens" in name
            assert bool(soak.compare_keys(counts, {}, changed)) != more, (name, change)
    counts.keys["slow", True] = 130
    assert soak.compare_limits(counts, 60) == ["key slow: 130 requests in 60 s, and 60 a minute are its limit"]
    counts.refused["slow", 429] = 20
    assert soak.compare_limits(counts, 60) == []


def test_a_log_that_says_too_much_is_told(soak: ModuleType) -> None:
    line = '{"level": "%s", "logger": "chatglm.requests", "method": "POST", "message": "%s"}\n'
    right = line % ("info", "request") * 3
    assert soak.check_log(right, 3, 0) == soak.check_log(right, 2, 1) == []
    assert len(soak.check_log(right, 4, 0)) == len(soak.check_log(right, 2, 0)) == 1
    assert "not JSON" in soak.check_log(right + "Traceback (most recent call last):\n", 3, 0)[0]
    assert "the log: " in soak.check_log(right + line % ("error", "it failed"), 4, 0)[0]
    assert "text of users" in soak.check_log(right + line % ("info", soak.QUESTIONS[2]), 4, 0)[0]
