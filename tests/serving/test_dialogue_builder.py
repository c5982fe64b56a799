"""Dialogues from pieces: which pieces become one message."""

from __future__ import annotations

from chatglm.chat.messages import Message, ToolCall
from chatglm.serving.messages import DialogueBuilder

CALL = ToolCall("f", {"a": 1})


def test_pieces_of_one_role_become_one_message() -> None:
    made = DialogueBuilder(join="\n")
    made.say("user", "a")
    made.say("user", "b")
    made.say("assistant", "c")
    made.call(CALL)
    made.call(CALL)
    made.result("1", "d")
    made.call(CALL)
    made.say("assistant", "e")
    made.say("assistant", "f")
    assert made.messages == [
        Message("user", "a\nb"),
        Message("assistant", "c", tool_calls=(CALL, CALL)),
        Message("observation", "d", tool_call_id="1"),
        Message("assistant", "", tool_calls=(CALL,)),
        Message("assistant", "e\nf"),
    ]


def test_without_a_joint_each_piece_is_a_message() -> None:
    made = DialogueBuilder()
    made.say("user", "a")
    made.say("user", "b")
    made.call(CALL)
    assert made.messages == [Message("user", "a"), Message("user", "b"), Message("assistant", "", tool_calls=(CALL,))]


def test_half_a_million_pieces_of_a_message() -> None:
    """Joining each to all before it took minutes, in which the server answered nobody."""
    made = DialogueBuilder(join="\n")
    for _ in range(500_000):
        made.say("assistant", "😀 four")
    for _ in range(100_000):
        made.call(CALL)
    [message] = made.messages
    assert len(message.content) == 7 * 500_000 - 1
    assert len(message.tool_calls) == 100_000
