"""The project's tools in LangChain: LangChain's own tests, and what they do not ask."""

from __future__ import annotations

import asyncio
import copy
import gc
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from clever import Clever
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, ToolException
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests

from chatglm.chat.messages import ToolSpec
from chatglm.langchain import ChatChatGLM, langchain_tools
from chatglm.tools.interpreter.pool import Kernels
from chatglm.tools.interpreter.tool import Interpreter
from chatglm.tools.tool import Consent, Outcome
from chatglm.tools.toolbox import Toolbox
from kernels import need_sandbox


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


PICTURE = (
    b"\x89PNG\r\n\x1a\n"
    + _chunk(b"IHDR", bytes((0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0)))
    + _chunk(b"IDAT", zlib.compress(b"\0\0"))
    + _chunk(b"IEND", b"")
)


def divide(dividend: float, divisor: float = 2.0) -> float:
    """Divide a number.

    Args:
        dividend: what is divided.
        divisor: by what.
    """
    return dividend / divisor


class TestUnit(ToolsUnitTests):
    @property
    def tool_constructor(self) -> BaseTool:
        return langchain_tools([divide])[0]

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"dividend": 6, "divisor": 3}


class TestIntegration(ToolsIntegrationTests):
    @property
    def tool_constructor(self) -> BaseTool:
        return langchain_tools([divide])[0]

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"dividend": 6, "divisor": 3}


def called(tool: BaseTool, **arguments: Any) -> ToolMessage:
    message = tool.invoke({"name": tool.name, "args": arguments, "id": "call_1", "type": "tool_call"})
    assert isinstance(message, ToolMessage)
    return message


def test_a_function_becomes_a_tool_with_its_schema() -> None:
    (tool,) = langchain_tools([divide])
    assert tool.name == "divide"
    assert "Divide a number." in tool.description
    assert set(tool.args) == {"dividend", "divisor"}
    assert tool.args["dividend"]["description"] == "what is divided."


def test_an_answer_has_a_text_for_the_model_and_an_outcome_for_people() -> None:
    message = called(langchain_tools([divide])[0], dividend=6)
    assert "3.0" in message.text
    assert isinstance(message.artifact, Outcome)
    assert message.tool_call_id == "call_1"


async def test_a_call_within_an_event_loop() -> None:
    (tool,) = langchain_tools([divide])
    assert "3.0" in str(await tool.ainvoke({"dividend": 6}))
    assert "3.0" in str(tool.invoke({"dividend": 6}))  # without `await`, too
    many = await asyncio.gather(*(tool.ainvoke({"dividend": n, "divisor": 1}) for n in range(20)))
    assert [str(n) in str(text) for n, text in enumerate(many)] == [True] * 20


def test_a_copy_with_another_name_is_the_same_tool() -> None:
    (tool,) = langchain_tools([divide])
    for other in (copy.deepcopy(tool), tool.model_copy(update={"name": "share"})):
        assert other.invoke({"dividend": 6}) == "3.0"


async def test_arguments_may_have_any_name() -> None:
    """Also names that LangChain gives to what it passes itself."""

    def search(config: str, run_manager: str, callbacks: str, args: list[int], kwargs: str, tool_input: str) -> str:
        return f"{config} {run_manager} {callbacks} {args} {kwargs} {tool_input}"

    (tool,) = langchain_tools([search])
    given = {name: name for name in tool.args} | {"args": [1]}
    call = {"name": "search", "args": given, "id": "1", "type": "tool_call"}
    for message in (tool.invoke(call), await tool.ainvoke(call)):
        assert message.content == "config run_manager callbacks [1] kwargs tool_input"


def test_an_error_is_told_to_the_model_as_one() -> None:
    message = called(langchain_tools([divide])[0], dividend=6, divisor=0)
    assert message.status == "error"
    assert "division" in message.text


def test_arguments_are_checked_by_the_toolbox() -> None:
    message = called(langchain_tools([divide])[0], dividend="many")
    assert message.status == "error"
    assert "dividend" in message.text


def test_examples_of_a_toolbox_are_all_offered() -> None:
    with Toolbox.open(["calculator", "get_weather"]) as box:
        tools = {tool.name: tool for tool in langchain_tools(box)}
        assert set(tools) == {"calculator", "get_weather"}
        assert "408" in called(tools["calculator"], expression="12*34").text


def test_tools_of_functions_end_with_the_last_of_them() -> None:
    before = set(threading.enumerate())
    tools = langchain_tools([divide])
    agent = ChatChatGLM(assistant=Clever()).bind_tools(tools)
    assert "3.0" in called(tools[0], dividend=6).text
    # The call's own thread may be about to end.
    own = [one for one in threading.enumerate() if one not in before and one.name != "chatglm tool"]
    assert [thread.name for thread in own] == ["chatglm tools"]
    (copy,) = [tool.model_copy() for tool in tools]
    del tools, agent
    gc.collect()
    assert "3.0" in called(copy, dividend=6).text
    del copy
    gc.collect()
    for thread in own:
        thread.join(60)
        assert not thread.is_alive()


class Delicate:
    """A tool that asks first."""

    spec = ToolSpec({"name": "erase", "description": "Erases.", "parameters": {"type": "object", "properties": {}}})
    consent = Consent.ALWAYS

    async def run(self, arguments: Any) -> Outcome:
        return Outcome("erased")


def test_a_tool_that_wants_consent_is_refused_where_nobody_can_be_asked() -> None:
    message = called(langchain_tools([Delicate()])[0])
    assert message.status == "error"
    assert "erased" not in message.text


def test_a_tool_that_wants_consent_runs_where_it_is_given() -> None:
    async def permit(call: Any, *rest: Any) -> bool:
        return bool(call.name == "erase")

    assert called(langchain_tools([Delicate()], permit=permit)[0]).text == "erased"


def test_errors_are_exceptions_for_those_who_want_them() -> None:
    (tool,) = langchain_tools([divide])
    tool.handle_tool_error = False
    with pytest.raises(ToolException, match="division"):
        tool.invoke({"dividend": 1, "divisor": 0})


@pytest.fixture
def interpreter() -> Iterator[BaseTool]:
    need_sandbox()
    kernels = Kernels(spare=0)
    yield langchain_tools([Interpreter(kernels)])[0]
    asyncio.run(kernels.close())


def test_the_interpreter_runs_code_and_keeps_its_variables(interpreter: BaseTool) -> None:
    assert "Python" in interpreter.description
    assert set(interpreter.args) == {"code"}
    assert called(interpreter, code="total = sum(range(1, 101))\nprint(total)").text.strip() == "5050"
    assert called(interpreter, code="print(total + 1)").text.strip() == "5051"


def test_an_error_of_code_is_a_text_that_a_model_can_read(interpreter: BaseTool) -> None:
    assert "ZeroDivisionError" in called(interpreter, code="1 / 0").text


def test_the_model_is_told_of_the_interpreter_as_its_family_is(interpreter: BaseTool) -> None:
    bound = ChatChatGLM(assistant=Clever()).bind_tools([interpreter])
    assert bound.kwargs["tools"] == [{"type": "python"}]  # type: ignore[attr-defined]


class Painter:
    """Draws nothing in particular; `chatglm.tools.drawing.Draw` has the same form."""

    spec = ToolSpec({"type": "cogview"})
    consent = Consent.NEVER

    async def run(self, arguments: Any) -> Outcome:
        return Outcome(f"[Image] {arguments['prompt']}", pictures=(PICTURE,))


def test_pictures_are_the_artifact_of_the_message() -> None:
    (tool,) = langchain_tools([Painter()])
    model = ChatChatGLM(assistant=Clever())
    assert model.bind_tools([tool]).kwargs["tools"] == [{"type": "cogview"}]  # type: ignore[attr-defined]
    message = called(tool, prompt="a cat")
    assert message.text == "[Image] a cat"
    assert message.artifact.pictures == (PICTURE,)


def test_without_langchain_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['langchain_core'] = None; from chatglm.langchain import ChatGLM"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "chatglm[langchain]" in done.stderr
    assert "DependencyError" in done.stderr


def test_importing_all_of_it_says_nothing() -> None:
    code = "import chatglm.langchain as m; [getattr(m, name) for name in m.__all__]"
    done = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
