"""Characters, documents and memory in conversations, and what becomes of a conversation as training data."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from talks import Teller, contents, heard, text_of

from chatglm.assistant import Delta, Finish, RemoteAssistant, TextDelta, Usage
from chatglm.characters import Character
from chatglm.chat.messages import Message, ToolCall
from chatglm.chat.rows import dialogue_of
from chatglm.conversation.events import Began, Done, Failed, Note, Source, Sources, Text
from chatglm.conversation.export import json_line
from chatglm.conversation.memory import extended
from chatglm.conversation.prompts import told
from chatglm.conversation.session import Sessions
from chatglm.conversation.settings import Settings
from chatglm.conversation.store import Store
from chatglm.conversation.tree import Tree, Turn
from chatglm.errors import InputError
from chatglm.training.dialogues import read_dialogues
from chatglm.training.preview import preview
from scripted import Writer
from server import serving

TEA = Character.named("tea-house")
BY_DAY, BY_RAIN = TEA.greeting(0), TEA.greeting(1)


# Characters


def test_a_character_greets_and_is_played(store: Store, user: int, over: Any, write: Writer) -> None:
    assistant = over(write.say("好茶"), write.say("龙井很嫩"))
    sessions = Sessions({"demo": assistant}, store)

    async def talk() -> None:
        session = await sessions.make(user, Settings(mode="character", character=TEA.text()))
        assert session.conversation.title == "沈清"
        assert contents(store, user, session) == [(BY_DAY, "stop")]
        greeting = store.tree(user, session.id).path()[0]
        # Its other greetings are branches, and so is one that a person writes.
        events = await heard(session, await session.again(greeting.id))
        assert [event.kind for event in events] == ["began", "text", "done"]
        assert text_of(events) == BY_RAIN
        assert [event.place for event in events if isinstance(event, Began)] == [(2, 2)]
        await session.again(greeting.id, "请坐。")
        assert contents(store, user, session) == [("请坐。", "stop")]
        await heard(session, await session.send("有什么茶？"))
        prompt = assistant.prompts()[0]
        assert "请你扮演沈清" in prompt
        assert prompt.index("有龙井") < prompt.index("请坐。") < prompt.rindex("有什么茶？")
        assert BY_DAY not in prompt
        await heard(session, await session.send("说说龙井"))
        assert "清明前采的最嫩" in assistant.prompts()[1]  # lore
        # The greeting is nobody's lesson.
        row = await session.training_row()
        assert row is not None
        assert row["session_meta"]["bot_name"] == "沈清"
        assert dialogue_of(row).persona == TEA.persona()
        assert [message.get("loss") for message in row["messages"]] == [False, None, None, None, None]

    asyncio.run(talk())


def test_another_character_before_the_first_question(store: Store, user: int, over: Any, write: Writer) -> None:
    sessions = Sessions({"demo": over(write.say("好"))}, store)
    detective = Character.named("detective")

    async def talk() -> None:
        with pytest.raises(InputError, match="character"):
            await sessions.make(user, Settings(mode="character", character="{nobody"))
        # However the conversation was made, its character has the first word.
        tea = Settings(mode="character", character=TEA.text())
        session = sessions.open(user, store.make(user, mode="character", settings=tea.to_dict()))
        assert contents(store, user, session) == [(BY_DAY, "stop")]
        await session.configure(Settings(mode="character", character=detective.text()))
        assert contents(store, user, session) == [(detective.greeting(), "stop")]
        await heard(session, await session.send("你好"))
        await session.configure(tea)
        assert len(contents(store, user, session)) == 3
        assert await session.undo() == "你好"
        assert contents(store, user, session) == [(detective.greeting(), "stop")]
        await session.configure(Settings())
        assert session.settings.mode == "chat"

    asyncio.run(talk())


def test_a_script_has_a_persona(write: Writer) -> None:
    """CharacterGLM; system prompt and summary are told of the character."""
    form = SimpleNamespace(generation="characterglm", tokenizer=write.form.tokenizer)
    assistant: Any = SimpleNamespace(format=form, context=2048)
    turns = [Turn(1, None, Message("assistant", "请坐。")), Turn(2, 1, Message("user", "好"))]
    settings = Settings(mode="character", character=TEA.text(), system="短", summary="他来过")
    found = told(Tree.of(turns, 2), 2, settings, assistant)
    assert found.persona is not None
    assert found.persona.bot_name == "沈清"
    assert found.messages[0] == Message("system", "短\n之前发生的事：他来过")
    assert found.messages[-3:] == (Message("user", ""), Message("assistant", "请坐。"), Message("user", "好"))
    assert [turn.id for turn in found.turns] == [2]


def test_what_was_never_carried_out_is_not_told(store: Store, user: int, over: Any, write: Writer) -> None:
    calls = (ToolCall("f", {}, "1"), ToolCall("g", {}, "2"))
    messages = [
        Message("user", "一"),
        Message("assistant", "看", calls),
        Message("observation", "得", tool_call_id="1"),
        Message("assistant", ""),
        Message("user", "二"),
        Message("assistant", "", calls[:1]),
        Message("user", "三"),
    ]
    turns = [Turn(number, number - 1 or None, message) for number, message in enumerate(messages, 1)]
    found = told(Tree.of(turns, 7), 7, Settings(), Teller.text(""))
    assert list(found.messages) == [
        messages[0],
        Message("assistant", "看", calls[:1]),
        messages[2],
        messages[4],
        messages[6],
    ]
    assert [turn.id for turn in found.turns] == [1, 2, 3, 5, 7]


# Documents


SOURCE = Source(n=1, base="手册", file="茶.txt", start=3, end=9, title="茶", text="茶是叶子")


class Books:
    """A knowledge base with one passage."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.ends = True

    async def answer(self, assistant: Any, question: str, **how: Any) -> AsyncGenerator[tuple[Source, ...] | Delta]:
        self.asked.append({"question": question, **how})
        yield (SOURCE,)
        yield TextDelta("叶子[1]")
        if self.ends:
            yield Finish("stop", Usage(9, 3))


def test_documents(store: Store, user: int, over: Any, write: Writer) -> None:
    books = Books()
    sessions = Sessions({"demo": over(write.say("x"))}, store, knowledge=books)

    async def talk() -> None:
        session = await sessions.make(user, Settings(mode="documents", knowledge=("手册",), language="zh", system="短"))
        events = await heard(session, await session.send("茶是什么？"))
        assert [event.kind for event in events] == ["began", "title", "began", "sources", "text", "done"]
        sources = next(event for event in events if isinstance(event, Sources))
        assert sources.sources == (SOURCE,)
        turn = store.tree(user, session.id).path()[-1]
        assert sources.turn == turn.id
        assert turn.message.content == "叶子[1]"
        assert [source["file"] for source in turn.details["sources"]] == ["茶.txt"]
        (asked,) = books.asked
        assert (asked["question"], asked["bases"], asked["user"], asked["language"]) == (
            "茶是什么？",
            ("手册",),
            user,
            "zh",
        )
        assert asked["history"] == [Message("system", "短")]
        books.ends = False
        events = await heard(session, await session.send("再说"))
        assert isinstance(events[-1], Failed)
        assert contents(store, user, session)[-1] == ("叶子[1]", "stopped")

    asyncio.run(talk())
    with pytest.raises(InputError, match="mode: documents"):
        asyncio.run(Sessions({}, store).make(user, Settings(mode="documents")))


# Memory


def exchanges(count: int, length: int = 20) -> list[Message]:
    return [
        message
        for number in range(count)
        for message in (Message("user", f"问{number}" + "长" * length), Message("assistant", f"答{number}"))
    ]


def test_turns_that_leave_are_summarised(store: Store, user: int, over: Any, write: Writer) -> None:
    assistant = over(write.say("好"), write.say("他问了许多"), write.say("嗯"))
    sessions = Sessions({"demo": assistant}, store)

    async def talk() -> None:
        session = sessions.open(user, store.make(user, messages=exchanges(30)))
        await session.configure(Settings(memory=True, system="短"))
        events = await heard(session, await session.send("新"))
        notes = [event for event in events if isinstance(event, Note)]
        assert [note.code for note in notes] == ["left_out", "summary"]
        assert notes[1].text == "他问了许多"
        assert isinstance(events[-1], Done)
        assert text_of(events) == "好"
        asked = assistant.prompts()[1]
        assert "用户：问13长" in asked
        assert "助手：答13" in asked
        assert "问29" not in asked
        settings = session.settings
        assert settings.summary == "他问了许多"
        # The model is told, and is not asked for another one before eight more turns have left.
        events = await heard(session, await session.send("再"))
        assert [event.code for event in events if isinstance(event, Note)] == ["left_out"]
        assert "短\n之前发生的事：他问了许多" in assistant.prompts()[-1]
        # On a branch that begins earlier, it would tell of what has not happened.
        first = store.tree(user, session.id).path()[0]
        await heard(session, await session.again(first.id))
        assert "之前发生的事" not in assistant.prompts()[-1]
        # What a person writes holds everywhere.
        await session.configure(Settings(summary="他爱喝茶"))
        await heard(session, await session.again(first.id))
        assert "之前发生的事：他爱喝茶" in assistant.prompts()[-1]

    asyncio.run(talk())


def test_an_endpoint_that_refuses_long_dialogues_gets_shorter_ones(
    store: Store, user: int, over: Any, write: Writer
) -> None:
    """Another server says that it is too long, and not by how much: older turns are left out until it fits, and what
    is left out is summarised as with a model of this process."""
    local = over(write.say("好"), write.say("他问了许多"))

    async def talk() -> None:
        session = sessions.open(user, store.make(user, messages=exchanges(30)))
        await session.configure(Settings(memory=True, system="短"))
        events = await heard(session, await session.send("新"))
        notes = [event for event in events if isinstance(event, Note)]
        assert [note.code for note in notes] == ["left_out", "summary"]
        assert notes[0].text.startswith("the context is too short; oldest turns left out: 23 of 31")
        assert text_of(events) == "好"
        first, second = local.prompts()
        assert "问22" not in first
        assert "问23" in first
        assert "短" in first
        assert "用户：问22" in second
        assert session.settings.summary == "他问了许多"
        # One question alone that is too long is an error.
        failed = (await heard(session, await session.send("长" * 5000)))[-1]
        assert isinstance(failed, Failed)

    with serving({"demo": local}) as url, RemoteAssistant(f"{url}/v1") as remote:
        sessions = Sessions({"there": remote}, store)
        asyncio.run(talk())


def test_a_summary_that_is_of_no_use_is_thrown_away(store: Store, user: int, over: Any, write: Writer) -> None:
    empty = write.say(" ")
    assistant = over(write.say("好"), empty, write.say("好"), write.say("好"), RuntimeError("broken"))
    sessions = Sessions({"demo": assistant}, store)

    async def talk() -> None:
        session = sessions.open(user, store.make(user, messages=exchanges(30)))
        await session.configure(Settings(memory=True))
        events = await heard(session, await session.send("新"))
        assert [event.code for event in events if isinstance(event, Note)] == ["left_out", "summary_failed"]
        assert session.settings.summary == ""
        await heard(session, await session.send("新"))
        assert len(assistant.prompts()) == 3  # it is not tried again at once
        await session.configure(Settings(memory=True))
        events = await heard(session, await session.send("新"))
        assert isinstance(events[-1], Done)

        short = [Turn(1, None, Message("user", "短"))]
        for text, said in (("概括了很久", ""), ("", ""), ("一", "一")):
            assert await extended(Teller.text(text), "", short, {}) == said
        assert len(await extended(Teller.text("长" * 500), "长" * 400, short, {})) == 300
        assert await extended(Teller.text("长" * 200 + "。" + "短" * 200), "长" * 400, short, {}) == "长" * 200 + "。"

    asyncio.run(talk())


# Training data


@pytest.mark.parametrize("form", ["messages", "chatglm3"])
def test_a_rated_dialogue_is_what_training_reads(
    store: Store, user: int, over: Any, write: Writer, tmp_path: Path, form: Any
) -> None:
    sessions = Sessions({"demo": over(write.say("好"), write.say("坏"), write.say("停" * 300), delay=0.001)}, store)

    async def talk() -> None:
        session = await sessions.make(user, Settings(system="短"))
        await heard(session, await session.send("一"))
        await heard(session, await session.send("二"))
        path = store.tree(user, session.id).path()
        await session.rate(path[1].id, 1)
        await session.rate(path[3].id, -1)
        after = await session.send("三")
        async for event in session.events(after):
            if isinstance(event, Text):
                break
        await session.stop()
        tree = await session.tree()
        row = await session.training_row(form=form)
        assert row is not None
        file = tmp_path / "data.jsonl"
        file.write_bytes(json_line(row))
        (dialogue,) = read_dialogues(file)
        said = [turn.message.content for turn in tree.path()]
        assert [message.content for message in dialogue.messages] == ["短", *said]
        assert [message.loss for message in dialogue.messages if message.role == "assistant"] == [None, False, False]
        lines = "\n".join(preview(file, write.form, color=False))
        learned = "".join(part.split("⟧")[0] for part in lines.split("⟦")[1:])
        assert "好" in learned
        assert "坏" not in learned
        assert "停" not in learned

    asyncio.run(talk())
