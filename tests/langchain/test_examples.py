"""The scripts in examples/langchain run with the demo model, and say what they should."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clever import Clever
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from tiny_painter import make_painter

from chatglm.assistant import Ask
from chatglm.langchain import ChatChatGLM, ChatGLM, langchain_tools
from chatglm.tools import Toolbox
from chatglm.tools.drawing import Draw
from chatglm.tools.pictures import png_problem
from kernels import need_sandbox

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "langchain"
SAYS = {
    "agent": ["北京的天气：晴，21度。", "128*46=5888。", "interpreter: 5050", "结果是5050。"],
    "citations": ["馆长是王芳。", "town.txt, characters 0 to 24", "灯塔高32米。", "harbour.txt"],
    "executor": ["128*46=5888。"],
    "map_reduce": [],
    "predict": ["12+30=42。"],
    "structured": ["128*46=5888。", "北京的天气：晴，21度。"],
    "team": ["weatherman: 北京的天气：晴，21度。", "accountant: 128*46=5888。", "你好 chief: 你好！"],
}

pytestmark = [
    pytest.mark.filterwarnings("ignore::langchain_core._api.deprecation.LangChainDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*langchain-community:DeprecationWarning"),  # langchain_classic imports it
]


def test_no_script_is_forgotten() -> None:
    assert {file.stem for file in FOLDER.glob("*.py")} == {*SAYS, "draw"}


@pytest.mark.parametrize("name", SAYS)
def test_example(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "agent":
        need_sandbox()
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert said.strip()
    for part in SAYS[name]:
        assert part in said


def test_map_and_reduce_stream_what_they_would_say_whole(demo: ChatChatGLM) -> None:
    script = runpy.run_path(str(FOLDER / "map_reduce.py"))
    model = ChatChatGLM(assistant=demo.opened(), temperature=0, max_tokens=60)
    pieces = list(script["summary"](model, script["TEXTS"]))
    assert len(pieces) > 2
    assert "".join(pieces) == "".join(script["summary"](model, script["TEXTS"]))


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Draw]:
    made = Draw(make_painter(tmp_path_factory.mktemp("sdxl")), device="cpu", steps=1)
    yield made
    made.close()


class Describing(Clever):
    """Asks for a picture, once; the demo model asks for one or more, as it comes."""

    def _call(self, ask: Ask) -> tuple[str, dict[str, Any]] | None:
        return ("draw", {"prompt": "a cat", "seed": 5}) if ask.messages[-1].role == "user" else None


def test_an_agent_draws(painter: Draw, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = runpy.run_path(str(FOLDER / "draw.py"))
    (picture,) = script["draw"](ChatChatGLM(assistant=Describing()), painter, "画一只猫", tmp_path)
    assert not png_problem(picture.read_bytes())
    said = capsys.readouterr().out.splitlines()
    assert said == ["human: 画一只猫", "ai: ", "tool: [Image] (128x128, seed 5)", "ai: It is 5."]


class Structured(Clever):
    """Writes calls as JSON into its text, as structured chat agents ask for; the demo model cannot."""

    def _call(self, ask: Ask) -> None:
        return None

    def _text(self, ask: Ask) -> str:
        seen = "5888" in ask.messages[-1].content
        action: dict[str, Any] = (
            {"action": "Final Answer", "action_input": "It is 5888."}
            if seen
            else {"action": "calculator", "action_input": {"expression": "128*46"}}
        )
        return f"Thought: …\nAction:\n```\n{json.dumps(action)}\n```"


def test_a_structured_chat_agent_runs_with_the_completion_form() -> None:
    from langchain_classic.agents import AgentExecutor, create_structured_chat_agent

    system = "Tools: {tools}\nAnswer as JSON with action ({tool_names}) and action_input."
    prompt = ChatPromptTemplate([("system", system), ("user", "{input}\n\n{agent_scratchpad}")])
    with Toolbox.open(["calculator"]) as box:
        tools = langchain_tools(box)
        agent = create_structured_chat_agent(ChatGLM(assistant=Structured()), tools, prompt)
        assert AgentExecutor(agent=agent, tools=tools).invoke({"input": "128*46?"})["output"] == "It is 5888."


def test_a_class_of_a_tutorial_that_changes_the_stream(demo: ChatChatGLM) -> None:
    class Loud(ChatGLM):
        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            for chunk in super()._stream(*args, **kwargs):
                chunk.text = chunk.text.upper()
                yield chunk

    chain = PromptTemplate.from_template("{question}") | Loud(assistant=demo.opened(), temperature=0)
    assert "".join(chain.stream({"question": "你好"})) == chain.invoke({"question": "你好"})
    assert "CHATGLM" in chain.invoke({"question": "你好"})
