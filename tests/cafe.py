"""What a model must have learned from `recipes/finetune/cafe.jsonl`: thirty dialogues of a café's assistant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from chatglm.chat.messages import Message
from chatglm.training.dialogues import read_dialogues

CAFE = Path(__file__).resolve().parent.parent / "recipes" / "finetune" / "cafe.jsonl"


def answers(model: Any, form: Any, messages: list[Message], tools: Any = ()) -> Message:
    ids = form.prompt(messages, tools)
    made = model.generate(
        torch.tensor([ids]), do_sample=False, max_new_tokens=200, eos_token_id=list(form.stop_ids), pad_token_id=0
    )
    return form.parse(made[0, len(ids) :].tolist())


def check_what_it_learned(model: Any, form: Any, *, reads_orders: bool) -> None:
    """From thirty dialogues: who it is now, in words that it was not taught; a new tool, for an order never heard."""
    told = list(read_dialogues(CAFE))
    right = 0
    for dialogue in told:
        right += answers(model, form, list(dialogue.messages[:1]), dialogue.tools) == Message(
            "assistant", dialogue.messages[1].content, dialogue.messages[1].tool_calls
        )
    assert right >= len(told) - 2
    for question in ("请问你是谁", "你叫什么"):
        assert "小豆" in answers(model, form, [Message("user", question)]).content
    tools = next(dialogue.tools for dialogue in told if dialogue.tools)
    (call,) = answers(model, form, [Message("user", "我要3杯拿铁")], tools).tool_calls
    assert call.name == "order_drink"
    if reads_orders:
        assert call.arguments == {"drink": "拿铁", "cups": 3}
