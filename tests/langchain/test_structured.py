"""`ChatGLM3`: structured chat agents in the model's own form, and what older code says."""

from __future__ import annotations

import json
import warnings
from collections.abc import AsyncGenerator, Generator
from typing import Any

import pytest
from clever import Clever
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import LLM
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.outputs import GenerationChunk
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.tools import BaseTool, tool
from pydantic import BaseModel, Field

from chatglm import AutoModel, AutoTokenizer
from chatglm.assistant import Ask, BaseAssistant, Delta, Finish, TextDelta, Usage
from chatglm.errors import CheckpointError
from chatglm.langchain import ChatGLM, ChatGLM3
from chatglm.loading import demo_folder
from server import serving

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it imports langchain-community
    from langchain_classic.agents import AgentExecutor, AgentType, create_structured_chat_agent, initialize_agent
    from langchain_classic.agents.structured_chat.prompt import FORMAT_INSTRUCTIONS, PREFIX, SUFFIX

pytestmark = [
    pytest.mark.filterwarnings("ignore::langchain_core._api.deprecation.LangChainDeprecationWarning"),
]


class Amount(BaseModel):
    calculation: str = Field(description="calculation to perform")


class Calculator(BaseTool):
    name: str = "Calculator"
    description: str = "Useful for when you need to calculate math problems"
    args_schema: type[BaseModel] = Amount

    def _run(self, calculation: str) -> str:
        return {"34*34": "1156", "1156+1": "1157"}[calculation]


class Inner(BaseModel):
    deep: int


@tool
def convert(distance: float, unit: str = "m", parts: list[int] | None = None, inner: Inner | None = None) -> str:
    """Converts: a distance, args: none.

    In (m) or (km) - or neither.
    """
    return "30000 m"


class Native(Clever):
    """Makes calls in the model's own form, in turn, and then says something.

    Args:
        calls: (name, arguments).
    """

    def __init__(self, *calls: tuple[str, dict[str, Any]], says: str = "It is `1157`.") -> None:
        self.calls, self.says = calls, says
        self.asked: list[Ask] = []

    def stream(self, messages: Any, **options: Any) -> Generator[Delta]:
        self.asked.append(Ask.of(messages, options, self.defaults))
        yield from super().stream(messages, **options)

    def _call(self, ask: Ask) -> tuple[str, dict[str, Any]] | None:
        done = sum(message.role == "observation" for message in ask.messages)
        return self.calls[done] if done < len(self.calls) else None

    def _text(self, ask: Ask) -> str:
        return self.says


def hub_prompt() -> ChatPromptTemplate:
    """In the words of LangChain's hwchase17/structured-chat-agent."""
    instructions = FORMAT_INSTRUCTIONS.replace("{{{{", "{{").replace("}}}}", "}}")
    last = "{input}\n\n{agent_scratchpad}\n (reminder to respond in a JSON blob no matter what)"
    return ChatPromptTemplate(
        [
            ("system", "\n\n".join([PREFIX, "{tools}", instructions, SUFFIX])),
            MessagesPlaceholder("chat_history", optional=True),
            ("human", last),
        ]
    )


def executor(llm: LLM, *tools: BaseTool) -> AgentExecutor:
    agent = create_structured_chat_agent(llm=llm, tools=tools, prompt=hub_prompt())
    return AgentExecutor(agent=agent, tools=tools)


CALLS = [("Calculator", {"calculation": "34*34"}), ("Calculator", {"calculation": "1156+1"})]


def test_an_agent_asks_the_model_in_its_own_form() -> None:
    model = Native(*CALLS)
    history = [HumanMessage("北京温度多少度"), AIMessage("北京现在12度")]
    said = executor(ChatGLM3(assistant=model), Calculator(), convert).invoke(
        {"input": "34 * 34 + 1?", "chat_history": history}
    )
    assert said["output"] == "It is `1157`."
    first, _, last = model.asked
    assert [(message.role, message.content) for message in first.messages] == [
        ("user", "北京温度多少度"),
        ("assistant", "北京现在12度"),
        ("user", "34 * 34 + 1?"),
    ]
    own, other = (spec.flat() for spec in first.tools)
    assert own["name"] == "Calculator"
    assert own["description"] == "Useful for when you need to calculate math problems"
    assert own["parameters"]["properties"]["calculation"]["description"] == "calculation to perform"
    assert own["parameters"]["required"] == ["calculation"]
    assert other["name"] == "convert"
    assert "or neither" in other["description"]
    assert other["parameters"]["required"] == ["distance"]
    assert not first.parallel_calls
    assert [message.role for message in last.messages[2:]] == ["user", *["assistant", "observation"] * 2]
    assert [message.content for message in last.messages if message.role == "observation"] == ["1156", "1157"]
    assert [dict(call.arguments) for message in last.messages for call in message.tool_calls] == [c[1] for c in CALLS]


async def test_an_agent_runs_in_coroutines() -> None:
    said = await executor(ChatGLM3(assistant=Native(*CALLS)), Calculator()).ainvoke({"input": "34 * 34 + 1?"})
    assert said["output"] == "It is `1157`."


def test_one_object_serves_several_agents_at_once() -> None:
    """The official class keeps the state of the last one (differences: langchain-demo)."""
    llm = ChatGLM3(assistant=Native(*CALLS))
    agents = [executor(llm, Calculator()) for _ in range(2)]
    steps = [agent.iter({"input": "34 * 34 + 1?"}) for agent in agents]
    outputs = [list(each) for each in zip(*steps, strict=True)]
    assert [each["output"] for each in outputs[-1]] == ["It is `1157`."] * 2


def test_the_first_form_of_the_demo_runs() -> None:
    agent = initialize_agent(
        [Calculator()],
        ChatGLM3(assistant=Native(*CALLS)),
        agent=AgentType.STRUCTURED_CHAT_ZERO_SHOT_REACT_DESCRIPTION,
        handle_parsing_errors=True,
    )
    assert agent.run("34 * 34 + 1?") == "It is `1157`."


def test_arguments_are_as_the_model_wrote_them() -> None:
    """The official class cuts them at commas, and makes texts of them (differences: langchain-demo)."""
    written = {"distance": 30.5, "unit": "km, or m", "parts": [1, 2]}
    heard: list[dict[str, Any]] = []

    def listens(**given: Any) -> str:
        heard.append(given)
        return "done"

    listening = convert.model_copy(update={"func": listens})
    executor(ChatGLM3(assistant=Native(("convert", written))), listening).invoke({"input": "x"})
    assert heard == [{**written, "inner": None}] or heard == [written]


@pytest.mark.parametrize(
    "says",
    [
        '``` is no end, nor is {"action": "Calculator"}',
        'Action:\n```\n{"action": "Calculator", "action_input": {"calculation": "1"}}\n```\nObservation: 1\nThought: ',
        '汉字\n"quoted" \\ and <|user|>',
        "",
    ],
)
def test_whatever_the_model_says_is_the_final_answer(says: str) -> None:
    assert executor(ChatGLM3(assistant=Native(says=says)), Calculator()).invoke({"input": "x"})["output"] == says


@pytest.mark.parametrize("question", ["a\n\nb", "Human: x", "{input} {tools}", "Use a json blob", "\nObservation: 7"])
def test_whatever_the_user_says_is_a_question(question: str) -> None:
    model = Native(*CALLS)
    executor(ChatGLM3(assistant=model), Calculator()).invoke({"input": question})
    assert model.asked[0].messages[-1].content == question.strip()
    assert len(model.asked) == 3


@pytest.mark.parametrize(
    "question",
    ["q" + "Action:\n```{}```\nObservation: x\nThought: no " * 2_000, "a" + " " * 200_000 + "b"],
    ids=["steps without an end", "spaces"],
)
def test_a_long_question_is_read_in_one_pass(question: str) -> None:
    """To try every beginning of a step with every end takes hours, in which nothing else runs."""
    model = Native(says="x")
    executor(ChatGLM3(assistant=model), Calculator()).invoke({"input": question})
    assert model.asked[0].messages[-1].content == question.strip()


def test_arguments_that_cannot_be_read_are_left_open() -> None:
    model = Native()
    llm = ChatGLM3(assistant=model)
    for written in (
        "{'a': __import__('os')}",
        "{" * 2000 + "}" * 2000,
        "{'a': 'x" + "x" * 100_000 + "'}",
        "{'a': {1}}",
    ):
        llm.invoke(f"You have access to the following tools:\n\nf - does, args: {written}\n\nUse a json blob\nHuman: x")
        assert [spec.flat()["parameters"]["properties"] for spec in model.asked[-1].tools] == [{}]


def test_other_prompts_are_questions(demo: Any) -> None:
    llm = ChatGLM3(assistant=demo.opened(), temperature=0)
    plain = ChatGLM(assistant=demo.opened(), temperature=0)
    assert llm.invoke("计算12+30") == plain.invoke("计算12+30")
    assert len(list(llm.stream("你好"))) > 2


def test_it_is_loaded_as_the_demo_does() -> None:
    llm = ChatGLM3(do_sample=False)
    llm.load_model(model_name_or_path=str(demo_folder()))
    assert llm._llm_type == "ChatGLM3"
    assert llm.params()["temperature"] == 0
    assert llm._identifying_params["model"] == "demo"
    assert llm.invoke("计算12+30").endswith("12+30=42。")
    with pytest.raises(CheckpointError):
        llm.load_model("/no/such/folder")
    llm.close()


class Says(BaseAssistant):
    """Says what it is asked, as it was asked."""

    defaults = Clever.defaults
    context = None

    def stream(self, messages: Any, **options: Any) -> Generator[Delta]:
        yield TextDelta(json.dumps([[message.role, message.content] for message in messages], ensure_ascii=False))
        yield Finish("stop", Usage(1, 1))

    async def astream(self, messages: Any, **options: Any) -> AsyncGenerator[Delta]:
        for delta in self.stream(messages, **options):
            yield delta

    stream_text = astream_text = None  # type: ignore[assignment]

    def close(self) -> None: ...


def test_the_class_of_langchain_community() -> None:
    with serving({"chatglm3-6b": Says()}) as url:
        llm = ChatGLM3(
            endpoint_url=f"{url}/v1/chat/completions",
            model_name="chatglm3-6b",
            max_tokens=80000,
            prefix_messages=[SystemMessage("简短"), AIMessage("好")],
            top_p=0.9,
        )
        assert json.loads(llm.invoke("x")) == [["system", "简短"], ["assistant", "好"], ["user", "x"]]
        assert json.loads("".join(llm.stream("x"))) == [["system", "简短"], ["assistant", "好"], ["user", "x"]]
        llm.close()


def test_the_older_name_of_max_tokens() -> None:
    llm = ChatGLM(endpoint_url="http://127.0.0.1:8000", max_token=80000, history=[["a", "b"]], top_p=0.9)
    assert llm.max_tokens == 80000


class OfTutorials(LLM):
    """A class around `model.chat`, as tutorials have it. Imported from elsewhere are the model and its tokenizer."""

    tokenizer: AutoTokenizer = None
    model: AutoModel = None
    history: list[Any] = []  # noqa: RUF012
    max_token: int = 2048

    def __init__(self, model_path: str) -> None:
        super().__init__()
        self.tokenizer = AutoTokenizer.from_pretrained(model_path, trust_remote_code=True)
        self.model = AutoModel.from_pretrained(model_path, trust_remote_code=True).eval()

    @property
    def _llm_type(self) -> str:
        return "ChatGLM"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"max_token": self.max_token}

    def _call(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> str:
        response, self.history = self.model.chat(self.tokenizer, prompt, history=[], do_sample=False)
        return str(response)

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Any:
        before = ""
        for response, _ in self.model.stream_chat(self.tokenizer, prompt, history=[], do_sample=False):
            chunk = GenerationChunk(text=response[len(before) :])
            before = response
            if run_manager is not None:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk


def test_a_class_of_a_tutorial_around_model_chat() -> None:
    from langchain_classic.chains import LLMChain
    from langchain_core.prompts import PromptTemplate

    llm = OfTutorials(str(demo_folder()))
    chain = LLMChain(llm=llm, prompt=PromptTemplate.from_template("计算{a}+{b}"))
    whole = chain.predict(a=12, b=30)
    assert whole.endswith("12+30=42。")
    pieces = list(llm.stream("计算12+30"))
    assert len(pieces) > 2
    assert "".join(pieces) == whole
