"""One database for all users: what is stored, what is refused, and that nobody sees another's."""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chatglm.chat.messages import Message, ToolCall
from chatglm.conversation.store import Draft, Store, StoreLimits
from chatglm.conversation.users import SignInError, TooManyTriesError, Users
from chatglm.conversation.words import tokens_of
from chatglm.errors import BusyError, InputError, NotFoundError, OutputError, QueueFullError

SHA = "0" * 64
QUESTION, ANSWER = Message("user", "今天的天气怎么样？"), Message("assistant", "今天天气晴朗。")


def texts(store: Store, user: int, conversation: str) -> list[str]:
    return [turn.message.content for turn in store.tree(user, conversation).path()]


# Conversations and turns


def test_a_conversation_is_there_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "c.sqlite")
    user = store.users.local().id
    call = Message("assistant", "", (ToolCall("get_weather", {"city": "北京"}, "1"),))
    name = store.make(user, title=" 天气\n问答 ", mode="tools", settings={"system": "你好", "temperature": 0.1})
    for message in (QUESTION, call, Message("observation", "晴", tool_call_id="1"), ANSWER):
        store.add(user, name, message)
    store.close()
    store.close()
    store = Store(tmp_path / "c.sqlite")
    found = store.conversation(user, name)
    assert (found.title, found.mode, found.settings) == (
        "天气 问答",
        "tools",
        {"system": "你好", "temperature": 0.1},
    )
    path = store.tree(user, name).path()
    assert [turn.message for turn in path] == [QUESTION, call, Message("observation", "晴", tool_call_id="1"), ANSWER]
    assert path[-1].id == found.leaf
    assert stat.S_IMODE((tmp_path / "c.sqlite").stat().st_mode) == 0o600
    store.close()


def test_branches(store: Store, user: int) -> None:
    name = store.make(user, messages=(QUESTION, ANSWER))
    first, answer = store.tree(user, name).path()
    again = store.add(user, name, Message("assistant", "再答"), parent=first.id)
    edited = store.edit(user, name, first.id, "明天呢？")
    tree = store.tree(user, name)
    assert tree.place(again.id) == (2, 2)
    assert tree.place(edited.id) == (2, 2)
    assert tree.leaf == edited.id
    assert tree.turn(edited.id).edited
    store.choose(user, name, tree.tip(answer.id))
    assert texts(store, user, name) == [QUESTION.content, ANSWER.content]


def test_an_open_answer_is_written_once(store: Store, user: int) -> None:
    name = store.make(user, messages=(QUESTION,))
    turn = store.add(user, name, Message("assistant"), finish=None)
    store.keep(user, name, turn.id, Message("assistant", "多云"))
    assert store.tree(user, name).path()[-1].finish is None
    assert not store.search(user, "多云")
    with pytest.raises(InputError, match="still being written"):
        store.edit(user, name, turn.id, "x")
    store.finish(user, name, turn.id, Message("assistant", "多云转晴"), "stopped")
    assert store.tree(user, name).path()[-1].finish == "stopped"
    assert [found.turn for found in store.search(user, "多云")] == [turn.id]
    for write in (store.keep, store.finish):
        with pytest.raises(InputError, match="finished"):
            write(user, name, turn.id, ANSWER)


def test_ratings_are_of_assistants(store: Store, user: int) -> None:
    name = store.make(user, messages=(QUESTION, ANSWER))
    question, answer = store.tree(user, name).path()
    store.rate(user, name, answer.id, -1)
    assert store.tree(user, name).turn(answer.id).rating == -1
    with pytest.raises(InputError, match="only an assistant's"):
        store.rate(user, name, question.id, 1)
    with pytest.raises(InputError, match="1, 0 or -1"):
        store.rate(user, name, answer.id, 2)  # type: ignore[arg-type]


def test_lists_begin_with_what_changed_last(store: Store, user: int) -> None:
    names = [store.make(user, title=str(number)) for number in range(3)]
    store.add(user, names[0], QUESTION)
    assert [each.id for each in store.conversations(user)] == [names[0], names[2], names[1]]
    assert [each.id for each in store.conversations(user, limit=1, offset=1)] == [names[2]]
    store.rename(user, names[1], "x" * 999)
    assert store.conversation(user, names[1]).title == "x" * 200
    store.configure(user, names[1], {"model": "glm"}, "code")
    found = store.conversation(user, names[1])
    assert (found.settings, found.mode) == ({"model": "glm"}, "code")


def test_half_a_character_is_kept(store: Store, user: int) -> None:
    name = store.make(user, title="半\ud83d")
    store.add(user, name, Message("user", "半\ud83d个"))
    assert texts(store, user, name) == ["半\ud83d个"]
    assert store.search(user, "个\ud83d")


# Search


def test_words_of_one_two_and_three_characters(store: Store, user: int) -> None:
    name = store.make(user, title="问答", messages=(QUESTION, ANSWER, Message("user", "知识库在哪里？get_weather")))
    for words, count in (("天", 2), ("天气", 2), ("天气晴", 1), ("库", 1), ("知识库", 1), ("Weather", 1), ("气天", 0)):
        assert len(store.search(user, words)) == count, words
    (found,) = store.search(user, "晴朗")
    assert (found.conversation, found.title, found.role) == (name, "问答", "assistant")
    assert [found.snippet.text[start:end] for start, end in found.snippet.marks] == ["晴朗"]
    assert len(store.search(user, "天", limit=1)) == 1


def test_calls_are_found(store: Store, user: int) -> None:
    call = ToolCall("interpreter", {"code": "plt.plot(螺旋线)"})
    store.make(user, messages=(QUESTION, Message("assistant", "", (call,))))
    assert store.search(user, "螺旋")
    assert store.search(user, "plot")


def test_other_tokens_make_the_index_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "c.sqlite")
    user = store.users.local().id
    name = store.make(user, messages=(QUESTION, ANSWER))
    store.add(user, name, Message("assistant", "开着"), finish=None)
    store.close()
    monkeypatch.setattr("chatglm.conversation.store.TOKENS", 99)
    monkeypatch.setattr("chatglm.conversation.store.tokens_of", lambda text: tokens_of(f"{text} 另外"))
    store = Store(tmp_path / "c.sqlite")
    assert [len(store.search(user, words)) for words in ("天气", "另外", "开着")] == [2, 2, 0]
    store.delete(user, name)
    store._database.write("INSERT INTO words (words) VALUES ('integrity-check')")
    assert not store._database.read("SELECT rowid FROM words")
    store.close()


def test_deleting_leaves_nothing(store: Store, user: int, other: int, tmp_path: Path) -> None:
    kept = store.make(other, messages=(QUESTION,))
    name = store.make(user, messages=(QUESTION, Message("assistant", "紫水晶是秘密")))
    store.add(user, name, Message("assistant", "开着"), finish=None)
    store.add_file(user, name, "a.txt", "upload", 3, SHA)
    store.delete(user, name)
    assert not store.search(user, "紫水晶")
    assert store.used(user) == 0
    with pytest.raises(NotFoundError):
        store.tree(user, name)
    again = store.make(user, messages=(QUESTION,))
    store.delete_user(user)
    assert user not in [each.id for each in store.users.all()]
    for table in ("turns", "files", "conversations"):
        rows = store._database.read(f"SELECT * FROM {table}")
        assert {row["id" if table == "conversations" else "conversation"] for row in rows} <= {kept}, again
    # The index holds the other's turn and nothing else, and agrees with itself.
    store._database.write("INSERT INTO words (words) VALUES ('integrity-check')")
    assert [row[0] for row in store._database.read("SELECT rowid FROM words")] == [
        turn.id for turn in store.tree(other, kept).path()
    ]
    assert len(store.search(other, "天气")) == 1
    assert store.users.local().id not in (user, other)  # an id is never given again


def test_a_deleted_user_is_not_in_the_file(store: Store, user: int, other: int, tmp_path: Path) -> None:
    store.make(other, messages=(QUESTION,))
    store.make(user, title="zanzibar", settings={"system": "zanzibar"}, messages=[Message("user", "zanzibar")] * 3)
    store.delete_user(user)
    store.close()
    assert b"zanzibar" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


@pytest.mark.parametrize("spelling", ['{"code":"import os\\nprintsecret(1)","city":"\\u5317\\u4eac"}', None])
def test_calls_are_found_however_their_json_is_spelled(spelling: str | None, store: Store, user: int) -> None:
    """Endpoints send compact JSON. What is indexed must be known when it is deleted, without that spelling."""
    call = ToolCall("run", {"code": "import os\nprintsecret(1)", "city": "北京"}, text=spelling)
    store.make(user, messages=[QUESTION, Message("assistant", "", tool_calls=(call,))])
    for words in ("printsecret", "北京"):
        assert len(store.search(user, words)) == 1
    store.delete_user(user)
    store.close()
    with contextlib.closing(sqlite3.connect(store.file)) as connection:
        connection.execute("CREATE VIRTUAL TABLE temp.left_over USING fts5vocab(main, words, row)")
        assert connection.execute("SELECT term FROM temp.left_over").fetchall() == []


@pytest.mark.parametrize("name", ["Screenshot at 10.00\u202fAM.png", "报告\u3000终稿.csv", "a\u00a0b.txt"])
def test_names_with_every_space_that_people_have(name: str, store: Store, user: int) -> None:
    conversation = store.make(user)
    store.add_file(user, conversation, name, "upload", 1, SHA)
    assert [file.name for file in store.files(user, conversation)] == [name]


@pytest.mark.parametrize("name", ["a\u2028b", "a\u2029b", "a\u202eb", "a\u200bb", "a\tb", "a\0b"])
def test_names_that_steer_a_terminal(name: str, store: Store, user: int) -> None:
    with pytest.raises(InputError, match="must be a name"):
        store.add_file(user, store.make(user), name, "upload", 1, SHA)


def test_it_lies_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATGLM_HOME", str(tmp_path / "home"))
    Store().close()
    assert (tmp_path / "home" / "conversations.sqlite").is_file()


# Isolation

ARGUMENTS: dict[str, Any] = {
    "title": "t",
    "settings": {"a": 1},
    "message": Message("user", "x"),
    "finish": "stop",
    "rating": 1,
    "text": "x",
    "words": "天气",
    "name": "a.txt",
    "names": ["a.txt"],
    "kind": "upload",
    "size": 1,
    "sha256": SHA,
    "conversation": "0" * 32,
    "turn": 1,
    "file": 1,
    "drafts": [Draft("t")],
}
"""What a method is called with, by the names of its parameters. Whoever adds a parameter adds it here."""


def methods() -> list[tuple[str, Callable[..., Any]]]:
    return [
        (name, method)
        for name, method in inspect.getmembers(Store, inspect.isfunction)
        if not name.startswith("_") and name != "close"
    ]


def arguments(name: str) -> dict[str, Any]:
    _, _, *parameters = inspect.signature(getattr(Store, name)).parameters.values()
    return {each.name: ARGUMENTS[each.name] for each in parameters if each.default is each.empty}


def everything(store: Store) -> list[Any]:
    return [
        tuple(row)
        for table in ("conversations", "turns", "files")
        for row in store._database.read(f"SELECT * FROM {table}")
    ]


def test_every_method_has_a_user() -> None:
    assert len(methods()) > 15
    for name, method in methods():
        assert list(inspect.signature(method).parameters)[1] == "user", name


@pytest.mark.parametrize("name", [name for name, _ in methods()])
def test_anothers_conversation_is_none(store: Store, user: int, other: int, name: str) -> None:
    """Also another's turn or file in one's own conversation."""
    mine = store.make(other, messages=(QUESTION, ANSWER))
    his = store.make(user, title="秘密", messages=(QUESTION, ANSWER))
    turns = {user: store.tree(user, his).path()[-1].id, other: store.tree(other, mine).path()[-1].id}
    file = store.add_file(user, his, "his.txt", "upload", 1, SHA)
    before = everything(store)
    given = arguments(name)
    if "conversation" not in given:
        if name == "delete_user":
            store.delete_user(other)
            assert store.tree(user, his).path()
            assert store.search(user, "天气")
        else:
            result = getattr(store, name)(other, **given)
            assert his not in str(result)
            assert "秘密" not in str(result)
        return
    said = []
    for conversation in (his, "f" * 32, "../x", "\ud800"):
        for number in (turns[user], 1 << 70):
            ids = {"conversation": conversation, "turn": number, "file": number}
            with pytest.raises(NotFoundError) as error:
                getattr(store, name)(other, **{**given, **{key: ids[key] for key in ids if key in given}})
            said.append(str(error.value).replace(repr(conversation), "ID"))
    assert set(said) == {"conversation ID: no such conversation; it may have been deleted"}
    for key, number in {"turn": turns[user], "file": file.id, "parent": turns[user]}.items():
        if key in inspect.signature(getattr(Store, name)).parameters:
            own = {**given, "conversation": mine, **({"turn": turns[other]} if "turn" in given else {}), key: number}
            with pytest.raises(NotFoundError, match="in this conversation"):
                getattr(store, name)(other, **own)
    assert everything(store) == before


@pytest.mark.parametrize("nobody", [0, -1, 12_345, 1 << 70])
def test_nobody_has_nothing(store: Store, user: int, nobody: int) -> None:
    name = store.make(user, messages=(QUESTION, ANSWER))
    before = everything(store)
    for method, _ in methods():
        given = arguments(method)
        if "conversation" in given or method in ("make", "make_all", "delete_user"):
            with pytest.raises(NotFoundError):
                getattr(store, method)(
                    nobody, **{**given, **({"conversation": name} if "conversation" in given else {})}
                )
        else:
            assert not getattr(store, method)(nobody, **given), method
    assert everything(store) == before


def test_a_search_sees_ones_own(store: Store, user: int, other: int) -> None:
    store.make(user, messages=(QUESTION,))
    assert store.search(user, "天气")
    assert not store.search(other, "天气")
    assert not store.search(other, f"u{user}")


# Bounds


def test_bounds(tmp_path: Path) -> None:
    limits = StoreLimits(conversations=2, bytes=3000, turns=2, message=1000, settings=100, files=1)
    store = Store(tmp_path / "c.sqlite", limits)
    user = store.users.local().id
    name = store.make(user)
    refused: list[tuple[type[Exception], Callable[[], Any]]] = [
        (InputError, lambda: store.add(user, name, Message("user", "字" * 400))),
        (InputError, lambda: store.configure(user, name, {"system": "x" * 100})),
        (InputError, lambda: store.configure(user, name, {"a": float("nan")})),
        (InputError, lambda: store.make(user, messages=(QUESTION,) * 3)),
        (InputError, lambda: store.add_file(user, name, "../a", "upload", 1, SHA)),
        (InputError, lambda: store.add(user, name, QUESTION, finish="bored")),
        (QueueFullError, lambda: store.add_file(user, name, "a", "upload", 3001, SHA)),
    ]
    for kind, call in refused:
        with pytest.raises(kind):
            call()
    assert (len(store.conversations(user)), store.files(user, name), texts(store, user, name)) == (1, (), [])
    store.add(user, name, QUESTION)
    store.add(user, name, ANSWER)
    with pytest.raises(InputError, match="2 turns, which is the limit"):
        store.add(user, name, QUESTION)
    file = store.add_file(user, name, "图.png", "picture", 2000, SHA)
    with pytest.raises(QueueFullError, match="1 files"):
        store.add_file(user, name, "b", "upload", 1, SHA)
    second = store.make(user)
    with pytest.raises(QueueFullError, match="2 conversations"):
        store.make(user)
    with pytest.raises(QueueFullError, match="at most 3,000"):
        store.add(user, second, Message("user", "x" * 900))
    assert store.files(user, name) == (file,)
    store.remove_file(user, name, file.id)
    store.add(user, second, Message("user", "x" * 900))
    store.close()


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    newer = tmp_path / "newer.sqlite"
    connection = sqlite3.connect(newer)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(OutputError, match="newer chatglm"):
        Store(newer)
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"no database, however long it is " * 200)
    with pytest.raises(OutputError, match=r"damaged\.sqlite"):
        Store(damaged)
    assert damaged.read_bytes() == b"no database, however long it is " * 200


def test_a_damaged_turn_is_named(store: Store, user: int) -> None:
    name = store.make(user, messages=(QUESTION,))
    store._database.write("UPDATE turns SET message = '{'")
    with pytest.raises(OutputError, match="turn 1 is damaged"):
        store.tree(user, name)


def test_a_damaged_file_is_said_to_be(tmp_path: Path) -> None:
    file = tmp_path / "c.sqlite"
    store = Store(file)
    user = store.users.local().id
    store.make(user, messages=[QUESTION, ANSWER] * 100)
    store.close()
    data = bytearray(file.read_bytes())
    data[8192:] = os.urandom(len(data) - 8192)  # the first page tells what it is, and is left
    file.write_bytes(data)
    with pytest.raises(OutputError, match=r"c\.sqlite: database disk image is malformed"):
        Store(file)
    assert file.read_bytes() == data


# Several at once


def test_threads_and_stores(tmp_path: Path) -> None:
    stores = [Store(tmp_path / "c.sqlite") for _ in range(2)]
    user = stores[0].users.local().id
    name = stores[0].make(user)
    failed: list[BaseException] = []

    def write(store: Store) -> None:
        try:
            for _ in range(10):
                store.add(user, name, QUESTION)
                store.search(user, "天气")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(store,)) for store in stores for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(stores[0].tree(user, name).path()) == 40  # each was put behind the one before
    for store in stores:
        store.close()


WRITER = """
import sys
from pathlib import Path
from chatglm.chat.messages import Message
from chatglm.conversation.store import Store
store = Store(Path(sys.argv[1]))
user = store.users.local().id
name = store.make(user)
print(name, flush=True)
number = 0
while True:
    store.add(user, name, Message("user", f"问题{number}"))
    turn = store.add(user, name, Message("assistant"), finish=None)
    for length in range(1, 4):
        store.keep(user, name, turn.id, Message("assistant", "答" * length))
    store.finish(user, name, turn.id, Message("assistant", f"答案{number}"))
    print(number, flush=True)
    number += 1
"""


def test_a_kill_loses_the_open_answer_at_most(tmp_path: Path) -> None:
    file = tmp_path / "c.sqlite"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(file)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    name = process.stdout.readline().strip()
    for _ in range(5):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    last = int((process.stdout.read().split() or ["4"])[-1])
    process.wait()
    process.stdout.close()
    store = Store(file)
    user = store.users.local().id
    path = store.tree(user, name).path()
    whole = [turn.message.content for turn in path if turn.finish is not None]
    assert whole[: 2 * last + 2] == [text for number in range(last + 1) for text in (f"问题{number}", f"答案{number}")]
    assert sum(turn.finish is None for turn in path) <= 1
    assert store.search(user, f"答案{last}")
    store.add(user, name, QUESTION)
    store._database.write("INSERT INTO words (words) VALUES ('integrity-check')")
    store.close()


def test_one_answer_at_a_time(store: Store, user: int) -> None:
    """Of two processes, which two stores are like, one answers; what a dead one has left open is closed."""
    name = store.make(user, messages=(QUESTION,))
    second = Store(store.file)
    store.ask(user, name, QUESTION)
    store.ask(user, name, QUESTION)  # it is its own
    open_turn = store.add(user, name, Message("assistant", "多云"), finish=None)
    before = everything(store)
    with pytest.raises(BusyError):
        second.ask(user, name, QUESTION)
    with pytest.raises(BusyError):
        second.ask_again(user, name, store.tree(user, name).path()[0].id, "别的")
    assert everything(store) == before
    assert not second.recover(user, name)
    assert store.tree(user, name).turn(open_turn.id).finish is None
    store.end(user, name)
    assert store.tree(user, name).turn(open_turn.id).finish == "stopped"
    second.ask(user, name, QUESTION)
    left = second.add(user, name, Message("assistant", "转晴"), finish=None)
    assert not store.recover(user, name)
    second.close()
    assert store.recover(user, name)
    assert not store.recover(user, name)
    assert store.tree(user, name).turn(left.id).finish == "stopped"
    assert store.search(user, "转晴")
    # An answer ends with its last turn, too.
    store.ask(user, name, QUESTION)
    last = store.add(user, name, Message("assistant"), finish=None)
    store.finish(user, name, last.id, ANSWER, ends=True)
    third = Store(store.file)
    third.ask(user, name, QUESTION)
    third.close()


def test_a_question_is_asked_as_a_whole(store: Store, user: int) -> None:
    """With its uploads and the title that the conversation gets from it, or not at all."""
    name = store.make(user)
    store.add_file(user, name, "a.csv", "upload", 1, SHA)
    before = everything(store)
    with pytest.raises(InputError, match="no 'b\\.csv' was uploaded"):
        store.ask(user, name, QUESTION, files=["b.csv"], title="题")
    assert everything(store) == before
    asked = store.ask(user, name, QUESTION, title="题")
    assert (asked.conversation.title, asked.title) == ("", "题")
    assert asked.tree == store.tree(user, name)
    assert asked.tree.path() == (asked.turn,)
    assert [(file.name, file.turn) for file in asked.files] == [("a.csv", asked.turn.id)]
    store.end(user, name)
    again = store.ask_again(user, name, asked.turn.id, "改了")
    assert again.turn.message.content == "改了"
    assert again.tree.place(again.turn.id) == (2, 2)
    assert store.ask_again(user, name, asked.turn.id).turn == asked.turn
    assert store.ask(user, name, QUESTION, title="别的").title == ""
    assert store.conversation(user, name).title == "题"


def test_details_and_files(store: Store, user: int) -> None:
    name = store.make(user, messages=(QUESTION,))
    turn = store.add(user, name, Message("observation"), finish=None)
    details = {"seconds": 0.5, "failed": True, "whole": "全"}
    assert store.finish(user, name, turn.id, Message("observation", "x"), details=details).details == details
    assert store.tree(user, name).turn(turn.id).details == details
    second = store.add(user, name, Message("observation"), finish=None)
    with pytest.raises(InputError, match="details"):
        store.finish(user, name, second.id, Message("observation"), details={"a": float("nan")})
    # A file of the same name is another one; uploads wait for a question.
    store.add_file(user, name, "a.csv", "upload", 100, SHA)
    store.add_file(user, name, "a.csv", "upload", 7, SHA)
    used = store.used(user)
    store.add_file(user, name, "out/b.csv", "produced", 1, SHA, turn=turn.id)
    assert store.used(user) == used + 1
    first = store.ask(user, name, QUESTION).turn
    assert [(file.name, file.size, file.turn) for file in store.files(user, name)] == [
        ("a.csv", 7, first.id),
        ("out/b.csv", 1, turn.id),
    ]
    assert store.ask(user, name, QUESTION).files[0].turn == first.id
    last = store.ask(user, name, QUESTION, files=["a.csv"])
    assert last.files[0].turn == last.turn.id
    for bad in ("out/b.csv", "no.csv", "\ud800"):
        with pytest.raises(InputError, match="was uploaded"):
            store.ask(user, name, QUESTION, files=[bad])
    for kind, path in (("upload", "a/b"), ("produced", "../b"), ("produced", "a//b"), ("produced", "/b")):
        with pytest.raises(InputError, match="must be a name"):
            store.add_file(user, name, path, kind, 1, SHA)  # type: ignore[arg-type]


def test_the_beginning_is_a_place(store: Store, user: int) -> None:
    name = store.make(user, messages=(QUESTION, ANSWER))
    store.choose(user, name, 0)
    assert store.tree(user, name).path() == ()
    assert store.conversation(user, name).leaf is None
    first = store.add(user, name, Message("user", "别的"))
    assert store.tree(user, name).place(first.id) == (2, 2)
    second = store.add(user, name, QUESTION, parent=0)
    assert store.tree(user, name).place(second.id) == (3, 3)


# Users


def test_sign_in(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatglm.conversation.users._COST", (4, 1, 1))
    users = store.users
    made = users.add(" Ｌi明 ", "correct horse")
    assert made.name == "li明"
    token = users.sign_in("LI明", "correct horse")
    assert users.of_token(token) == made
    for name, password in (
        ("li明", "wrong horse"),
        ("nobody", "correct horse"),
        ("", ""),
        ("local", ""),
        ("li明", "x" * 9999),
    ):
        with pytest.raises(SignInError, match="name or the password"):
            users.sign_in(name, password)
    for name, password in (
        ("li明", "correct horse"),
        ("new", "short"),
        ("a\nb", "correct horse"),
        ("LOCAL", "correct horse"),
        ("x" * 99, "correct horse"),
    ):
        with pytest.raises(InputError):
            users.add(name, password)
    stored = b"".join(path.read_bytes() for path in store._database.file.parent.iterdir())
    assert token.encode() not in stored
    assert b"correct horse" not in stored
    users.sign_out(token)
    assert users.of_token(token) is None
    token = users.sign_in("li明", "correct horse")
    users.set_password(made.id, "battery staple")
    assert users.of_token(token) is None
    assert Users(store._database, login_seconds=-1).of_token("") is None
    ended = Users(store._database, login_seconds=-1).sign_in("li明", "battery staple")
    assert users.of_token(ended) is None
    tokens = [users.sign_in("li明", "battery staple") for _ in range(21)]
    assert [users.of_token(each) is not None for each in tokens] == [False, *[True] * 20]
    store.delete_user(made.id)
    assert users.of_token(tokens[-1]) is None


def test_the_local_user_cannot_sign_in(store: Store, user: int) -> None:
    assert store.users.local().id == user
    assert store.users.local().admin
    with pytest.raises(SignInError):
        store.users.sign_in("local", "")


def test_wrong_passwords_are_slowed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatglm.conversation.users._COST", (4, 1, 1))
    now = [1000.0]
    monkeypatch.setattr("chatglm.conversation.users.time.monotonic", lambda: now[0])
    users = store.users
    for name in ("ming", "hong"):
        users.add(name, "correct horse")
    for name in ("ming", "nobody", ""):  # it is not told who is there
        for _ in range(5):
            with pytest.raises(SignInError, match="name or the password"):
                users.sign_in(name, "wrong horse")
            now[0] += 1
        with pytest.raises(TooManyTriesError, match="in 55 s") as error:
            users.sign_in(name.upper(), "correct horse")
        assert error.value.retry_after == 55
        users.sign_in("hong", "correct horse")
    now[0] += 60
    for _ in range(9):  # right ones are not counted
        assert users.of_token(users.sign_in("ming", "correct horse"))
