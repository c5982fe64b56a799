"""The bundled demo model: it is there, it is what its card says, and it can be taught."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cafe import CAFE, answers, check_what_it_learned
from chatglm.assistant import load
from chatglm.chat.messages import Message
from chatglm.cli import main
from chatglm.loading import demo_folder, load_parts
from chatglm.tools.toolbox import Toolbox
from chatglm.training.finetune import finetune
from chatglm.training.settings import Settings

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def evaluation() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "recipes" / "demo"))
    try:
        import evaluate

        yield evaluate
    finally:
        sys.path.remove(str(ROOT / "recipes" / "demo"))


def test_it_is_small_and_official() -> None:
    folder = demo_folder()
    assert (folder / "model.safetensors").stat().st_size <= 16_000_000
    model, tokenizer, _ = load_parts()
    assert tokenizer.generation == "chatglm3"
    assert sum(p.numel() for p in model.parameters()) < 16_000_000
    assert "transformer.encoder.layers.0.self_attention.query_key_value.weight" in model.state_dict()


def test_card_tells_what_it_measures(evaluation: ModuleType) -> None:
    """The card's figures are of another draw of the same held-out side: near them, and none is made up."""
    card = (demo_folder() / "MODEL_CARD.md").read_text("utf-8")
    told = {name: float(share) for name, share in re.findall(r"^\| (\w+) \| \d+ \| ([\d.]+)% \|", card, re.MULTILINE)}
    scores = evaluation.evaluate(demo_folder(), 20, seed=7)
    told_of_all = told.pop("all")
    assert set(told) == set(scores)
    assert told_of_all >= 90
    asked = sum(score.asked for score in scores.values())
    right = sum(score.right for score in scores.values())
    expected = sum(told[name] / 100 * score.asked for name, score in scores.items())
    assert right / asked > expected / asked - 0.05


def test_nothing_held_out_is_learned(evaluation: ModuleType) -> None:
    from corpus import PRACTICE, draw_sample  # type: ignore[import-not-found]
    from corpus.base import Random, held_out  # type: ignore[import-not-found]

    rng = Random(3)
    for name in PRACTICE:
        for _ in range(40):
            made = [draw_sample(rng, split, name, PRACTICE) for split in ("train", "test")]
            first, asked = (next(m["content"] for m in each.messages if m["role"] == "user") for each in made)
            assert first != asked
            if name in ("chat", "arithmetic"):
                assert not held_out(first)
                assert held_out(asked)


def test_commands_talk_to_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "你好"]) == 0
    assert "演示模型" in capsys.readouterr().out
    assert main(["chat", "你是谁？"]) == 0
    assert "演示模型" in capsys.readouterr().out
    assert main(["chat", "What can you do?"]) == 0
    assert capsys.readouterr().out.startswith("I can chat and remember what you told me")


def test_chat_and_stream_agree_and_stream_in_pieces() -> None:
    model, tokenizer, _ = load_parts()
    response, history = model.chat(tokenizer, "晚上睡不着应该怎么办", history=[], temperature=0)
    pieces = [text for text, _ in model.stream_chat(tokenizer, "晚上睡不着应该怎么办", history=[], temperature=0)]
    assert pieces[-1] == response
    assert len(pieces) > 20
    assert history[-1]["content"] == response


@pytest.mark.parametrize("name", ["city_name", "city", "location", "town"])
@pytest.mark.parametrize("question", ["北京的天气怎么样？", "查一下北京的天气"])
def test_parameters_are_called_as_the_schema_calls_them(name: str, question: str) -> None:
    city = {"type": "string", "description": "城市"}
    parameters = {"type": "object", "properties": {name: city}, "required": [name]}
    tools = [{"name": "get_weather", "description": "查询城市的天气", "parameters": parameters}]
    model, _, form = load_parts(dtype="float32")
    (call,) = answers(model, form, [Message("user", question)], tools).tool_calls
    assert (call.name, call.arguments) == ("get_weather", {name: "北京"})


@pytest.mark.parametrize("title", ["get_weather_args", "GetWeatherInput", "get_weather_schema"])
def test_a_title_of_a_schema_is_not_a_name(title: str) -> None:
    """As pydantic and OpenAI's Agents SDK write schemas."""
    city = {"description": "城市", "title": "City", "type": "string"}
    parameters = {"properties": {"city": city}, "required": ["city"], "title": title, "type": "object"}
    tools = [{"name": "get_weather", "description": "查询城市的天气", "parameters": parameters}]
    model, _, form = load_parts(dtype="float32")
    for question, asked in (("北京的天气怎么样？", "北京"), ("查一下上海的天气", "上海")):
        (call,) = answers(model, form, [Message("user", question)], tools).tool_calls
        assert (call.name, call.arguments) == ("get_weather", {"city": asked})


def teach(method: str, output: Path, **changes: Any) -> Any:
    common = {"per_device_train_batch_size": 1, "use_cpu": True, "report_to": "none"}
    settings = Settings.from_dict(
        {
            "method": method,
            "max_length": 512,
            "data_config": {"train_file": str(CAFE)},
            "training_args": {"output_dir": str(output), **common, **changes.pop("training_args", {})},
            **changes,
        }
    )
    return finetune(settings, say=lambda line: None)


@pytest.mark.parametrize("method", ["full", "freeze", "ptuning"])
def test_it_learns_a_persona_and_a_tool(method: str, tmp_path: Path) -> None:
    """LoRA does in `system/test_readme.py`, by the commands of README and of the guide."""
    rates = {"full": 5e-4, "freeze": 3e-3, "ptuning": 0.3}
    epochs = {"full": 11, "freeze": 18, "ptuning": 26}
    changes: dict[str, Any] = {"training_args": {"learning_rate": rates[method], "num_train_epochs": epochs[method]}}
    if method == "ptuning":
        changes["peft_config"] = {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 48}
    result = teach(method, tmp_path / "out", **changes)
    assert result.losses[-1] < 0.1 < result.losses[0]
    model, _, form = load_parts(prefix=result.output) if method == "ptuning" else load_parts(result.output)
    # The last layers alone, or a prefix, learn whom to call, and not to read the order.
    check_what_it_learned(model.float(), form, reads_orders=method == "full")


def _recorded(section: str) -> list[tuple[list[str], str]]:
    """The rows of a table of docs/demo.md: what is typed, one message after the other, and the last answer."""
    text = (ROOT / "docs" / "demo.md").read_text("utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:2] == "| "]
    return [(typed.split("<br>"), answer.replace("<br>", "\n")) for typed, answer in rows[1:]]


def test_the_guide_tells_its_first_minute() -> None:
    with load(dtype="float32") as assistant, Toolbox.open(["examples"]) as box:
        asked = 0
        for section, tools in (("The first minute", None), ("With tools", box)):
            for typed, wanted in _recorded(section):
                messages: list[Message] = []
                for question in typed:
                    messages.append(Message("user", question))
                    if tools is None:
                        messages.append(assistant.reply(messages, params={"temperature": 0}))
                    else:
                        messages += assistant.run(messages, tools, params={"temperature": 0})
                assert messages[-1].content == wanted, typed
                asked += 1
    assert asked >= 24
