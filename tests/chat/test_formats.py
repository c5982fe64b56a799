"""Laws of the chat formats, and their texts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chatglm import AutoTokenizer
from chatglm.chat.formats import CallPart, CallPiece, TextPiece, chat_format, postprocess, postprocess_v1
from chatglm.chat.messages import INTERPRETER, Message, ToolCall, ToolSpec, messages_from_pairs
from chatglm.chat.personas import Persona
from chatglm.chat.tokenizers import ChatGLMTokenizer
from chatglm.errors import InputError, UnsupportedError
from conftest import VERSIONS

LAW = settings(max_examples=60, deadline=None)
GENERATIONS = [*VERSIONS, "characterglm"]
ROLES = ["chatglm3", "glm4"]
WORDS = st.sampled_from(
    [
        "你好",
        "北京",
        "，",
        "。",
        ",",
        "!",
        "?",
        " ",
        "\n",
        "a",
        "The fox",
        "1+1=2",
        "😀",
        "<|user|>",
        "</s>",
        "[gMASK]",
        "[Round 1]",
        "问：",
        "答：",
        "```",
        "tool_call(a=1)",
        '{"a": 1}',
        "[[训练",
        "：",
        "x",
    ]
)
TEXT = st.lists(WORDS, min_size=1, max_size=8).map("".join)
NAMES = st.sampled_from(["get_weather", "track", "text-to-speech", "查询", "a b", "<|user|>"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | TEXT, lambda v: st.lists(v, max_size=2), max_leaves=4
)
ARGUMENTS = st.dictionaries(st.sampled_from(["city", "n", "a-b", "def"]), VALUES, max_size=3)
TOOL_CALLS = st.builds(ToolCall, NAMES, ARGUMENTS) | TEXT.map(
    lambda code: ToolCall(INTERPRETER, {"code": code.strip()})
)
TOOLS = [{"name": "track", "description": "追踪指定股票的实时价格", "parameters": {"type": "object", "properties": {}}}]


@pytest.fixture(scope="session")
def formats(checkpoint) -> dict[str, Any]:
    made = {name: chat_format(AutoTokenizer.from_pretrained(checkpoint(name))) for name in VERSIONS}
    character = ChatGLMTokenizer.from_pretrained(checkpoint("chatglm2"), generation="characterglm")
    persona = Persona(bot_name="苏梦远", bot_info="歌手", user_name="陆星辰", user_info="音乐人")
    return {**made, "characterglm": chat_format(character).with_persona(persona)}


def dialogues(kind: str) -> st.SearchStrategy[list[Message]]:
    """Questions and answers in turn; with ChatGLM3 and GLM-4 also calls and what they returned."""
    user = TEXT.map(lambda text: Message("user", text))
    answer = TEXT.map(lambda text: Message("assistant", text))
    turns = st.tuples(user, answer).map(list)
    if kind in ROLES:
        call = st.builds(
            lambda calls: Message("assistant", "", tuple(calls)), st.lists(TOOL_CALLS, min_size=1, max_size=2)
        )
        observation = TEXT.map(lambda text: Message("observation", text))
        turns |= st.tuples(user, call, observation, answer).map(list)
    return st.lists(turns, min_size=1, max_size=3).map(lambda parts: [m for part in parts for m in part])


def stable(form: Any, message: Message) -> Message:
    """The message as the model's own text would show it: outer blanks and v1's half-width forms are not kept."""
    text = form.tokenizer.decode(form.tokenizer.encode_text(message.content))
    return Message("assistant", form._text_of(text), message.tool_calls)


@pytest.mark.parametrize("kind", GENERATIONS)
def test_a_reply_is_read_as_it_was_written(kind: str, formats) -> None:
    """parse(reply part of an example) == message, and the incremental parser says the same in pieces."""
    form = formats[kind]

    @LAW
    @given(dialogues(kind))
    def law(messages: list[Message]) -> None:
        if kind == "characterglm":
            messages = [Message(m.role, m.content.replace("\n", " ")) for m in messages]
        for end, message in enumerate(messages, 1):
            if message.role != "assistant":
                continue
            made = form.examples(messages[:end])
            assume(made)
            ids, mask = made[-1]
            start = len(mask) - mask[::-1].index(False) if False in mask else 0
            reply = ids[start:]
            expected = stable(form, message)
            if kind == "chatglm":
                expected = Message("assistant", form._text_of(form.tokenizer.decode(reply, skip_special_tokens=True)))
            assert form.parse(reply) == expected
            assert form.parse(reply[:-1]) == expected  # the stop id may be there or not
            parser = form.parser()
            deltas = [delta for token_id in reply for delta in parser.feed(token_id)]
            whole = parser.close()
            assert parser.close() == whole
            deltas += parser.last
            assert whole == expected
            assert "".join(d.text for d in deltas if isinstance(d, TextPiece)) == whole.content
            assert tuple(d.call for d in deltas if isinstance(d, CallPiece)) == whole.tool_calls
            check_parts(form, reply, [call.name for call in message.tool_calls], expected)

    law()


def check_parts(form: Any, reply: list[int], offered: list[str], expected: Message | None, cut: bool = False) -> Any:
    """Read a reply whose calls are certain to be calls, and compare their parts with the whole."""
    parser = form.parser(offered, certain=True)
    deltas = [delta for token_id in reply for delta in parser.feed(token_id)]
    whole = parser.close(cut)
    assert expected is None or whole == expected
    names: list[str] = []
    texts: list[str] = []
    told = ""
    for delta in [*deltas, *parser.last]:
        if isinstance(delta, CallPart):
            assert bool(delta.name) != bool(told)
            assert delta.arguments
            told += delta.arguments
        elif isinstance(delta, CallPiece):
            assert delta.told == told
            names.append(delta.call.name)
            texts.append(delta.call.to_dict()["function"]["arguments"])
            assert texts[-1].startswith(told)
            told = ""
    assert not told
    calls = [call.to_dict()["function"] for call in whole.tool_calls]
    assert [call["name"] for call in calls] == names
    assert [call["arguments"] for call in calls] == texts
    return [*deltas, *parser.last]


@pytest.mark.parametrize("kind", ROLES)
def test_arguments_come_while_they_are_written(kind: str, formats) -> None:
    """Several calls, cut after any token: what was told is a beginning of the arguments, and never taken back."""
    form = formats[kind]
    arguments = {"city": "北京\n'\"", "n": 3, "deep": {"list": [1.5, None, "x"], "empty": {}}}
    calls = (ToolCall("f", arguments), ToolCall("g", {}))
    (ids, mask), *_ = form.examples([Message("user", "q"), Message("assistant", "看", calls)])
    reply = [token for token, learned in zip(ids, mask, strict=True) if learned]
    whole = json.dumps(arguments, ensure_ascii=False)
    length = 0
    for end in range(len(reply) + 1):
        deltas = check_parts(form, reply[:end], ["f", "g"], None, cut=True)
        parts = [delta for delta in deltas if isinstance(delta, CallPart)]
        told = "".join(
            part.arguments for part in parts[: next(iter(n for n, p in enumerate(parts) if p.name == "g"), 99)]
        )
        assert whole.startswith(told)
        assert len(told) >= length
        length = len(told)
    assert length > 0.9 * len(whole)
    assert sum(1 for part in parts if part.name) == 2
    assert len(parts) > 12  # not in one lump
    # A tool that is not on offer, and replies that are not certain, are read as before.
    assert not any(isinstance(d, CallPart) for d in check_parts(form, reply, [], form.parse(reply)))
    parser = form.parser(["f", "g"])
    assert not any(isinstance(d, CallPart) for token in reply for d in parser.feed(token))


@pytest.mark.parametrize("kind", ROLES)
def test_a_call_that_breaks_off_keeps_what_was_told(kind: str, formats) -> None:
    """A stop token of the caller's own may end a call anywhere."""
    form = formats[kind]
    text = "f\n" + ("```python\ntool_call(a='北', b=(" if kind == "chatglm3" else '{"a": "北", "b": ]')
    for cut in (False, True):
        deltas = check_parts(form, form.tokenizer.encode_text(text), ["f"], None, cut)
        (piece,) = [delta for delta in deltas if isinstance(delta, CallPiece)]
        assert piece.call == ToolCall("f", {}, text='{"a": "北", "b": ')
    if kind == "glm4":
        text = 'f\n{"a": 1, "a": 2}'
        (*_, piece) = check_parts(form, form.tokenizer.encode_text(text), ["f"], None)
        assert piece.call == ToolCall("f", {"a": 2}, text='{"a": 1, "a": 2}')
        assert form.parse(form.tokenizer.encode_text(text)).tool_calls == (ToolCall("f", {"a": 2}),)
        cut_code = form.parser(["python"])
        for token in form.tokenizer.encode_text("python\nprint('x')\n"):
            cut_code.feed(token)
        assert cut_code.close(cut=True).tool_calls == (ToolCall(INTERPRETER, {"code": "print('x')\n"}),)


@pytest.mark.parametrize("kind", GENERATIONS)
def test_an_example_is_prompt_reply_and_one_stop_id(kind: str, formats) -> None:
    form = formats[kind]

    @LAW
    @given(dialogues(kind))
    def law(messages: list[Message]) -> None:
        turns = [n for n, m in enumerate(messages) if m.role == "assistant"]
        made = form.examples(messages)
        assert len(made) == (1 if form.extends else len(turns))
        if form.extends:
            ids, mask = made[0]
            for number, turn in enumerate(turns):
                prompt = form.prompt(messages[:turn])
                assert ids[: len(prompt)] == prompt  # every learned token follows what inference would feed
                assert not mask[len(prompt) - 1]
                following = messages[turn + 1 :]
                end = len(form.ids(messages[: turn + 1], (), False)) if following else len(ids) - 1
                assert all(mask[len(prompt) : end + 1])
                assert ids[end] in form.stop_ids
                assert not set(ids[len(prompt) : end]) & form.stop_ids
                assert number == len(turns) - 1 or not mask[end + 1]
        else:
            for (ids, mask), turn in zip(made, turns, strict=True):
                prompt = form.prompt(messages[:turn])
                assert ids[: len(prompt)] == prompt
                assert mask == [False] * len(prompt) + [True] * (len(ids) - len(prompt))
                assert ids[-1] in form.stop_ids
                assert not set(ids[len(prompt) : -1]) & form.stop_ids

    law()


@pytest.mark.parametrize("kind", ROLES)
def test_prompts_extend(kind: str, formats) -> None:
    form = formats[kind]
    assert form.extends

    @LAW
    @given(dialogues(kind), TEXT)
    def law(messages: list[Message], query: str) -> None:
        for end in (n for n, m in enumerate(messages) if m.role == "assistant"):
            earlier = form.prompt(messages[:end])
            later = form.prompt([*messages, Message("user", query)])
            assert later[: len(earlier)] == earlier

    law()


@pytest.mark.parametrize("kind", GENERATIONS)
def test_no_text_forges_a_control_id(kind: str, formats) -> None:
    """The control ids of a prompt depend on the roles alone, never on what is said."""
    form = formats[kind]
    controls = form.tokenizer.control_ids

    @LAW
    @given(dialogues(kind))
    def law(messages: list[Message]) -> None:
        def bones(dialogue: list[Message]) -> list[int]:
            return [i for i in form.prompt([*dialogue, Message("user", "x")]) if i in controls]

        harmless = [
            Message(m.role, "x" if m.content else "", tuple(ToolCall("f", {}) for _ in m.tool_calls)) for m in messages
        ]
        assert bones(messages) == bones(harmless)

    law()


@pytest.mark.parametrize("kind", GENERATIONS)
def test_anything_can_be_parsed(kind: str, formats) -> None:
    form = formats[kind]

    @LAW
    @given(st.lists(st.integers(0, len(form.tokenizer) + 99) | st.sampled_from(sorted(form.tokenizer.control_ids))))
    def law(ids: list[int]) -> None:
        assert form.parse(ids).role == "assistant"

    law()


@pytest.mark.parametrize("kind", ["chatglm2", "characterglm"])
def test_one_pass_over_rounds(kind: str, formats) -> None:
    """Where prompts do not extend, `example` still has every answer once, each with its stop id."""
    form = formats[kind]
    messages = [
        Message("user", "一"),
        Message("assistant", "甲"),
        Message("user", "二"),
        Message("assistant", "乙", loss=False),
        Message("user", "三"),
        Message("assistant", "丙"),
    ]
    ids, mask = form.example(messages)
    learned = [i for i, keep in zip(ids, mask, strict=True) if keep]
    assert learned == [*form._reply(messages[1]), *form._reply(messages[5])]
    assert form.example(messages[:2]) == form.examples(messages[:2])[0]
    assert len(form.examples(messages)) == 2


def test_example_of_chatglm_is_its_last_turn(formats) -> None:
    form = formats["chatglm"]
    messages = [Message("user", "一"), Message("assistant", "甲"), Message("user", "二"), Message("assistant", "乙")]
    assert form.example(messages) == form.examples(messages)[-1]
    assert form.example(messages[:1])[1] == [False] * len(form.ids(messages[:1], (), False))


@pytest.mark.parametrize("kind", ROLES)
def test_loss_flags(kind: str, formats) -> None:
    form = formats[kind]
    plain = [Message("user", "一"), Message("assistant", "甲"), Message("user", "二"), Message("assistant", "乙")]
    ids, mask = form.example(plain)
    without, less = form.example([plain[0], Message("assistant", "甲", loss=False), *plain[2:]])
    assert without == ids
    assert sum(less) < sum(mask)
    first = len(form.prompt(plain[:1]))
    assert not any(less[: first + len(form._reply(plain[1]))][: first + 2])
    _, more = form.example([Message("user", "一", loss=True), *plain[1:]])
    assert sum(more) > sum(mask)
    with pytest.raises(InputError, match="system"):
        form.example([*plain, Message("system", "late")])


def test_ids_of_the_official_finetuning_of_chatglm3(formats) -> None:
    """[gMASK] sop, build_single_message of every message, </s>; learned: after each <|assistant|> (features 1.6)."""
    form = formats["chatglm3"]
    build = form.tokenizer.build_single_message
    ids, mask = form.example(
        [Message("user", "你好"), Message("assistant", "早"), Message("user", "再见"), Message("assistant", "走好")]
    )
    expected = [*form.tokenizer.get_prefix_tokens()]
    targets = [False, False]
    for role, text in (("user", "你好"), ("assistant", "早"), ("user", "再见"), ("assistant", "走好")):
        new = build(role, "", text)
        expected += new
        # The official mask, shifted by one, marks the header after an answer and everything in it after its own.
        targets += [role == "user" and len(targets) > 2] + [role == "assistant"] * (len(new) - 1)
    assert ids == [*expected, 2]
    assert mask == [*targets, True]


def test_tool_dialogue_of_chatglm3(formats) -> None:
    form = formats["chatglm3"]
    call = Message("assistant", "好的", (ToolCall("track", {"symbol": "10111"}),))
    messages = [Message("user", "查股票"), call, Message("observation", '{"price": 1}'), Message("assistant", "一元")]
    text = form.text(messages, TOOLS, add_generation_prompt=False)
    assert text.startswith("[gMASK]sop<|system|> \n Answer the following questions as best as you can.")
    assert json.dumps(TOOLS, indent=4, ensure_ascii=False) in text
    assert "<|assistant|> \n 好的<|assistant|> track\n ```python\ntool_call(symbol='10111')\n```<|observation|>" in text
    ids, mask = form.example(messages, TOOLS)
    headers = [n for n, i in enumerate(ids) if i == form.tokenizer.get_command("<|assistant|>")]
    assert [mask[n] for n in headers] == [False, True, False]  # the header inside the turn is the model's own
    observation = ids.index(form.tokenizer.get_command("<|observation|>"))
    assert mask[observation]
    assert not mask[observation + 1]
    wrapped = [{"type": "function", "function": tool} for tool in TOOLS]
    assert form.ids(messages, wrapped) == form.ids(messages, TOOLS)  # differences: tools-unwrapped
    assert form.example(messages[:2])[0][-1] == form.tokenizer.get_command("<|observation|>")


def test_interpreter(formats) -> None:
    message = Message("assistant", "", (ToolCall(INTERPRETER, {"code": "print(1)\n\nprint(2)"}),))
    three = formats["chatglm3"].text([Message("user", "算"), message], add_generation_prompt=False)
    assert "<|assistant|> interpreter\n ```python\nprint(1)\n\nprint(2)\n```" in three
    four = formats["glm4"].text([Message("user", "算"), message], add_generation_prompt=False)
    assert four.endswith("<|assistant|>python\nprint(1)\n\nprint(2)")


def test_the_interpreter_of_chatglm3_is_a_sentence_and_no_tool(formats) -> None:
    form, question, python = formats["chatglm3"], Message("user", "算"), {"type": "python"}
    sentence = Message("system", form.INTERPRETING)
    assert form.prompt([question], [python]) == form.prompt([sentence, question])
    assert form.prompt([sentence, question], [python]) == form.prompt([sentence, question])
    own = form.text([Message("system", "说英文。"), question], [python])
    assert f"{form.INTERPRETING}\n说英文。<|user|>" in own
    both = form.text([question], [TOOLS[0], python])
    listed = form.text([question], [TOOLS[0]]).partition("<|system|>")[2].lstrip()
    assert f"{form.INTERPRETING}\n{listed}" in both
    assert form.prompt([Message("system", "", tools=ToolSpec.list_from([python])), question]) == form.prompt(
        [sentence, question]
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("3", "```result\n3\n```"),
        ("", "```result\n\n```"),
        ("[Image]", "[Image]"),
        ("3\n[Image]\n[Image]", "```result\n3\n```\n[Image]\n[Image]"),
        ("```result\n3\n```", "```result\n3\n```"),
        ("```result\n3\n```\n[Image]", "```result\n3\n```\n[Image]"),
    ],
)
def test_results_of_the_interpreter(formats, text: str, shown: str) -> None:
    """ChatGLM3 reads them between fences, and `[Image]` as it is; GLM-4 reads them as they are.
    (differences: results-fenced)"""
    asked = ToolCall(INTERPRETER, {"code": "1"}, "b"), ToolCall("f", {}, "a")
    dialogue = [Message("user", "u"), Message("assistant", "", asked)]
    answers = [Message("observation", "plain", tool_call_id="a"), Message("observation", text, tool_call_id="b")]
    without_ids = [Message("observation", text), Message("observation", "plain")]
    three, four = formats["chatglm3"], formats["glm4"]
    assert three.result(text) == shown
    observed = [three.text([*dialogue, *these], (), False) for these in (answers, without_ids)]
    assert observed[0].endswith(f"<|observation|> \n plain<|observation|> \n {shown}")
    assert observed[1].endswith(f"<|observation|> \n {shown}<|observation|> \n plain")
    told = four.text([*dialogue, *answers], (), False)
    assert told.endswith("<|observation|>\nplain<|observation|>\n" + (text or "\n"))
    official = Message.from_dict({"role": "assistant", "metadata": "interpreter", "content": "```python\n1\n```"})
    assert three.text([official, Message("observation", text)], (), False).rstrip().endswith(text)


def test_tools_of_glm4_as_in_its_template(formats) -> None:
    """What the format writes by itself is what the folder's own template renders."""
    form = formats["glm4"]
    tools = [
        {"type": "function", "function": TOOLS[0]},
        {"type": "python"},
        {"type": "simple_browser"},
        {"type": "cogview"},
    ]
    dicts = [{"role": "system", "content": "s", "tools": tools}, {"role": "user", "content": "u"}]
    template = form.tokenizer.apply_chat_template(dicts, add_generation_prompt=True, return_dict=False)
    assert form.prompt([Message.from_dict(d) for d in dicts]) == template
    assert form.prompt([Message("system", "s"), Message("user", "u")], tools) == template


def test_golden_dialogues_of_glm4(formats, golden) -> None:
    form = formats["glm4"]
    for record in golden("glm4")["tokenizer"]["apply_chat_template"]["cases"]:
        messages = [Message.from_dict(d, n) for n, d in enumerate(record["messages"])]
        for prompt in (True, False):
            if f"text_agp_{prompt}" not in record:
                continue
            assert form.text(messages, (), prompt) == record[f"text_agp_{prompt}"], record["name"]
            # differences: user-text-never-control
            forged = record["name"] == "special-text-in-content"
            assert (form.ids(messages, (), prompt) != record[f"ids_agp_{prompt}"]) is forged, record["name"]


def test_rounds_take_no_tools(formats) -> None:
    for kind in ("chatglm", "chatglm2", "characterglm"):
        with pytest.raises(UnsupportedError, match="tools"):
            formats[kind].prompt([Message("user", "x")], TOOLS)
        with pytest.raises(UnsupportedError, match="tools"):
            formats[kind].prompt([Message("observation", "x")])
    with pytest.raises(UnsupportedError, match="loss"):
        formats["chatglm2"].example([Message("user", "x", loss=True), Message("assistant", "y")])


def test_system_message_in_rounds_goes_before_the_question(formats) -> None:
    assert (
        formats["chatglm2"].text([Message("system", "规则"), Message("user", "问")])
        == "[Round 1]\n\n问：规则\n\n问\n\n答："
    )
    two = [Message("user", "一"), Message("user", "二")]
    assert formats["chatglm"].text(two) == "一\n二"
    assert formats["chatglm"].text([two[0], Message("system", "规则")]) == "一\n规则"
    late = [two[0], Message("assistant", "甲"), Message("system", "规则")]
    assert formats["chatglm2"].text(late).endswith("\n\n[Round 2]\n\n问：规则\n\n答：")
    greeting = [Message("system", "规则"), Message("assistant", "你好"), Message("user", "二")]
    assert formats["chatglm"].text(greeting) == "[Round 0]\n问：规则\n答：你好\n[Round 1]\n问：二\n答："


def test_script_of_characterglm(formats) -> None:
    form = formats["characterglm"]
    history = [Message("user", ""), Message("assistant", "来了。\n坐"), Message("user", " 你好 ")]
    assert form.text(history) == (
        "以下是一段苏梦远和陆星辰之间的对话。\n关于苏梦远的信息：歌手\n关于陆星辰的信息：音乐人\n"
        "[苏梦远]来了。 坐\n[陆星辰]你好\n[苏梦远]"
    )
    bare = form.with_persona(Persona())
    assert bare.text([Message("system", "一位\n诗人"), Message("user", "x")]) == (
        "以下是一段AI和用户之间的对话。\n关于AI的信息：一位 诗人\n[用户]x\n[AI]"
    )


@given(st.text(alphabet="中,!:;? a文", max_size=12))
def test_punctuation_of_chatglm(text: str) -> None:
    done = postprocess_v1(text)
    assert len(done) == len(text.strip())
    for before, after in zip(text.strip(), done, strict=True):
        assert after == before or dict(zip(",!:;?", "，！：；？", strict=True))[before] == after
    assert postprocess_v1(done) == done
    assert postprocess(text) == text.strip()


def test_golden_prompts(formats, golden) -> None:
    """The ids of every recorded prompt, straight from the format."""
    for kind, name in (("chatglm", "prompts"), ("chatglm2", "build_prompt")):
        for record in golden(kind)["tokenizer"][name]:
            messages = messages_from_pairs(record["history"] or [], record["query"])
            assert formats[kind].text(messages) == record["prompt"]
            assert formats[kind].prompt(messages) == record["input_ids"]
    for record in golden("chatglm3")["tokenizer"]["build_chat_input"]:
        history = [*record["history"], {"role": record["role"], "content": record["query"]}]
        messages = [Message.from_dict(d, n) for n, d in enumerate(history)]
        assert formats["chatglm3"].prompt(messages) == record["out"]["input_ids"][0], record["name"]
        assert formats["chatglm3"].text(messages) == record["decoded"], record["name"]


@pytest.mark.parametrize("prompt", ["A cat by the river", "一只猫", "{a}", " x", "x\ny", "", "A <|user|> cat"])
def test_what_cogview_draws_is_written_as_it_is(prompt: str, formats) -> None:
    form = formats["glm4"]
    call = Message("assistant", "", (ToolCall("cogview", {"prompt": prompt}),))
    ids = form.example([Message("user", "画"), call])[0]
    reply = ids[len(form.prompt([Message("user", "画")])) :]
    assert form.parse(reply) == call
    parser = form.parser(["cogview"])
    for token in reply:
        parser.feed(token)
    assert parser.close() == call
    if prompt == "A cat by the river":
        assert form.text([call], (), False).endswith("<|assistant|>cogview\nA cat by the river")


@pytest.mark.parametrize("code", ["tool_call(a=1)", "```python\nx\n```", "```\n```", "", "x\n", " x\n  ", "# c\nx"])
@pytest.mark.parametrize("kind", ROLES)
def test_code_is_code(kind: str, code: str, formats) -> None:
    """Whatever it looks like: a call, a fenced block."""
    form = formats[kind]
    call = ToolCall(INTERPRETER, {"code": code})
    ids, _ = form.example([Message("user", "x"), Message("assistant", "", (call,))])
    assert form.parse(ids[len(form.prompt([Message("user", "x")])) :]).tool_calls == (call,)


@pytest.mark.parametrize("kind", GENERATIONS)
@settings(max_examples=120, deadline=None)
@given(text=st.text(alphabet="中文,!:? \n[训练时间]a`#", max_size=24) | TEXT, placeholder=st.booleans())
def test_pieces_make_the_whole(kind: str, text: str, placeholder: bool, formats) -> None:
    """What was passed on of any text was right, and is what the whole text reads as."""
    form = formats[kind]
    ids = form.tokenizer.encode_text(text.replace("a", "[[训练时间]]") if placeholder else text)
    parser = form.parser()
    deltas = [delta for token_id in ids for delta in parser.feed(token_id)]
    message = parser.close()
    assume(not message.tool_calls)
    assert "".join(delta.text for delta in [*deltas, *parser.last]) == message.content
    assert message.content == form._text_of(form.tokenizer.decode(ids, skip_special_tokens=True))


@pytest.mark.parametrize("kind", ROLES)
@pytest.mark.parametrize(
    ("reply", "held"),
    [
        ("\n你好。", False),
        ("好的。\n第一点", False),
        ("说明\n```c\nint x;", False),
        ("说明\n```python\nprint(1)", False),
        ("说明\n[1] 引用", False),
        ("好的", True),
    ],
)
def test_text_is_not_held_until_its_end(kind: str, reply: str, held: bool, formats) -> None:
    """Only what may still be a call is held, whether or not the model begins with the empty line of metadata."""
    form = formats[kind]
    parser = form.parser()
    for token_id in form.tokenizer.encode_text(reply):
        parser.feed(token_id)
    parser.close()
    assert (parser.last == [TextPiece(reply)]) is held


@pytest.mark.parametrize(
    ("kind", "reply"),
    [
        ("chatglm3", "f\n```python\ntool_call(a=)\n```"),
        ("chatglm3", "f\n```python\ntool_call(a=print(1))\n```"),
        ("chatglm3", "f\ntool_call"),
        ("chatglm3", "interpreter\n```python\nprint(1)"),
        ("chatglm3", "f"),
        ("glm4", 'f\n{"a": 1'),
        ("glm4", "f\n[1]"),
    ],
)
def test_a_broken_call_stays_text(kind: str, reply: str, formats) -> None:
    """differences: no-eval. Name and content are both kept."""
    form = formats[kind]
    assert form.parse(form.tokenizer.encode_text(reply)) == Message("assistant", reply)


def test_text_around_calls(formats) -> None:
    """One reply of several messages: later texts stand on lines of their own."""
    form = formats["chatglm3"]
    header, encode = form.header_id(), form.tokenizer.encode_text
    ids = [*encode("\n一"), header, *encode("f\ntool_call(a=1)"), header, *encode("\n二"), header]
    assert form.parse(ids) == Message("assistant", "一\n二", (ToolCall("f", {"a": 1}),))


def test_what_glm4_leaves_out_ends_no_turn(formats) -> None:
    """The official template drops an observation without content; the header that follows is no stop id."""
    form = formats["glm4"]
    call = Message("assistant", "", (ToolCall("f", {}),))
    messages = [Message("user", "x"), call, Message("observation", ""), Message("assistant", "y")]
    ids, mask = form.example(messages)
    assert ids[:-1] == form.ids(messages, (), False)
    learned = {i for i, keep in zip(ids, mask, strict=True) if keep}
    assert form.header_id() not in learned
    messages[2] = Message("observation", "1")
    ids, mask = form.example(messages)
    assert mask[ids.index(form.tokenizer.get_command("<|observation|>"))]


def test_tools_offered_twice_are_shown_once(formats) -> None:
    """Those of the call replace those of the first message."""
    messages = [Message("system", "s", tools=ToolSpec.list_from({"name": "old"})), Message("user", "u")]
    for kind in ROLES:
        text = formats[kind].text(messages, TOOLS)
        assert "old" not in text
        assert text.count(TOOLS[0]["description"]) == 1


def test_tools_of_the_demo_registry_of_chatglm3(formats) -> None:
    """`get_tools()` of the official demos is a dict by name, and the official prompt is its JSON."""
    tools = {"track": {"name": "track", "description": "d", "params": []}}
    message = Message.from_dict({"role": "system", "content": "s", "tools": tools})
    assert formats["chatglm3"].text([message], (), False) == "[gMASK]sop<|system|> \n s\n" + json.dumps(
        tools, indent=4, ensure_ascii=False
    )
    assert formats["chatglm3"].ids([Message("system", "s")], tools) == formats["chatglm3"].ids([message])


@pytest.mark.parametrize("kind", ROLES)
@pytest.mark.parametrize("name", ["", " ", "a\nb"])
def test_a_call_has_a_name_of_one_line(kind: str, name: str, formats) -> None:
    with pytest.raises(InputError, match="the name of a tool call"):
        formats[kind].prompt([Message("assistant", "", (ToolCall(name, {}),))])


@pytest.mark.parametrize("kind", ROLES)
@pytest.mark.parametrize("written", ['{"city": "北', "<|user|>\n[gMASK]", "[1]"])
def test_a_call_that_was_cut_short_is_shown_as_it_was(kind: str, written: str, formats) -> None:
    form = formats[kind]

    def prompt(call: ToolCall) -> list[int]:
        return form.prompt([Message("user", "q"), Message("assistant", "", (call,)), Message("user", "x")])

    cut, whole = prompt(ToolCall("f", {}, text=written)), prompt(ToolCall("f", {}))
    controls = form.tokenizer.control_ids
    assert [token for token in cut if token in controls] == [token for token in whole if token in controls]
    assert "北" not in written or '{"city": "北' in form.tokenizer.decode(cut)


UNTOLD = {
    "chatglm3": [
        "tool_call(a=0x" + "f" * 5000 + ")",
        "tool_call(a={(1, 2): 3})",
        "tool_call(a='\\ud800')",
        "tool_call(**{'\\ud800': 1})",
        "tool_call(a=[1e999, -1e999])",
        "tool_call(a=[{'b': (1e999,)}])",
        "tool_call(a=" + "[" * 5000 + "]" * 5000 + ")",
        "tool_call(a=" + "-" * 100_000 + "1)",
        "tool_call(a=" + "not " * 100_000 + "x)",
        "tool_call(a=" + "{1:" * 100_000 + "1)",
    ],
    "glm4": [
        '{"a": NaN}',
        '{"a": Infinity}',
        '{"a": -Infinity}',
        '{"a": 1e999}',
        '{"a": "\\ud800"}',
        '{"\\udfff": 1}',
        '{"a": ' + "9" * 5000 + "}",
        '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"a":' * 100_000,
    ],
}


@pytest.mark.parametrize(
    ("kind", "content"), [(kind, text) for kind in ROLES for text in UNTOLD[kind]], ids=lambda part: part[:20]
)
def test_a_call_that_json_cannot_say_stays_text(kind: str, content: str, formats) -> None:
    assert formats[kind].read_call(f"f\n{content}") is None
