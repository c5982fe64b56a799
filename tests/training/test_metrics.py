"""Rouge and BLEU of Chinese and English answers; a model's own answers."""

from __future__ import annotations

import builtins
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chatglm.chat.messages import Message, ToolCall
from chatglm.errors import DependencyError, InputError, UnsupportedError
from chatglm.loading import load_parts
from chatglm.training.dialogues import Dialogue, read_dialogues
from chatglm.training.examples import Tally
from chatglm.training.metrics import NAMES, Answers, compare, evaluate


def test_equal_answers_score_100_and_strangers_0() -> None:
    same = compare(["今天天气很好，我们去公园散步。"], ["今天天气很好，我们去公园散步。"])
    assert same == pytest.approx(dict.fromkeys(NAMES, 100))
    other = compare(["香蕉苹果橘子葡萄"], ["今天天气很好，我们去公园散步。"])
    assert other == pytest.approx(dict.fromkeys(NAMES, 0), abs=3)  # BLEU is smoothed


def test_known_values() -> None:
    """By hand. Words 我 | 喜欢 | 苹果 against 我 | 喜欢 | 香蕉: two of three, one of two pairs, two in a row."""
    found = compare(["我喜欢苹果"], ["我喜欢香蕉"])
    assert found["rouge-1"] == pytest.approx(100 * 2 / 3)
    assert found["rouge-2"] == pytest.approx(100 / 2)
    assert found["rouge-l"] == pytest.approx(100 * 2 / 3)
    # Characters 我喜欢苹果 against 我喜欢香蕉: 3/5, 2/4, 1/3, and 0/2 that smoothing makes 1/4.
    assert found["bleu-4"] == pytest.approx(100 * (3 / 5 * 2 / 4 * 1 / 3 * 1 / 4) ** 0.25, rel=1e-6)


def test_precision_and_recall_both_count() -> None:
    """One of one word right, and one of three found: F = 1/2."""
    assert compare(["苹果"], ["我 喜欢 苹果"])["rouge-1"] == pytest.approx(50)
    assert compare(["the cat sat"], ["The cat SAT"])["rouge-l"] == pytest.approx(100)


def test_the_mean_over_answers_and_empty_ones() -> None:
    one = compare(["我喜欢苹果"], ["我喜欢香蕉"])
    both = compare(["我喜欢苹果", ""], ["我喜欢香蕉", "你好"])
    for name in ("rouge-1", "rouge-2", "rouge-l"):
        assert both[name] == pytest.approx(one[name] / 2)
    assert compare([""], [""]) == pytest.approx(dict.fromkeys(NAMES, 0))
    long = "很长的一段话" * 400
    assert compare([long], [long])["rouge-l"] == pytest.approx(100)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), min_size=1, max_size=4))
def test_scores_are_shares(pairs: list[tuple[str, str]]) -> None:
    found = compare(*zip(*pairs, strict=True))
    assert set(found) == set(NAMES)
    assert all(0 <= value <= 100.0001 for value in found.values())


def test_what_cannot_be_compared() -> None:
    with pytest.raises(InputError, match="0 answers for 0 references"):
        compare([], [])
    with pytest.raises(InputError, match="1 answer for 2 references"):
        compare(["a"], ["a", "b"])


def test_a_missing_package_is_said_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "sacrebleu":
            raise ImportError(name=name)
        return inner(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DependencyError, match=r"need the package sacrebleu: pip install 'chatglm\[training\]'"):
        compare(["a"], ["a"])


def asked(question: str, answer: str, **changes: Any) -> Dialogue:
    return Dialogue((Message("user", question), Message("assistant", answer, **changes)))


@pytest.mark.parametrize("version", ["chatglm", "chatglm2", "chatglm3", "glm4"])
def test_answers_are_those_of_greedy_generation_whatever_the_batch(version: str, checkpoint) -> None:
    """Prompts of different lengths, padded on the left, against one prompt after another."""
    model, _, form = load_parts(checkpoint(version), dtype=torch.float32)
    dialogues = [asked("你好", "好"), asked("今天晚上睡不着，应该怎么办呢？", "数羊"), asked("hi", "hello there")]
    expected = []
    for dialogue in dialogues:
        ids = torch.tensor([form.prompt(dialogue.messages[:1])])
        made = model.generate(
            ids, do_sample=False, max_new_tokens=6, eos_token_id=sorted(form.stop_ids), pad_token_id=0
        )
        expected.append((form.parse(made[0, ids.shape[1] :].tolist()).content.strip(), dialogue.messages[1].content))
    answers = Answers(form, dialogues, max_new_tokens=6, batch_size=3)
    assert answers.pairs(model) == expected
    assert set(answers(model)) == set(NAMES)


def test_which_turns_are_asked(checkpoint) -> None:
    _, _, form = load_parts(checkpoint("chatglm3"), dtype=torch.float32)
    call = Message("assistant", "", (ToolCall("weather", {"city": "北京"}),))
    several = Dialogue((Message("user", "a"), Message("assistant", "b"), Message("user", "c"), call))
    silent = asked("q", "a", loss=False)
    first = Answers(form, [silent, several], samples=5)._asked
    assert first == [(form.prompt(several.messages[:3]), json.dumps(["weather", {"city": "北京"}], ensure_ascii=False))]
    many = [asked(f"问{n}", f"答{n}") for n in range(40)]
    drawn = [{reference for _, reference in Answers(form, many, samples=7, seed=seed)._asked} for seed in (0, 0, 1)]
    assert len(drawn[0]) == 7
    assert drawn[0] == drawn[1] != drawn[2]
    with pytest.raises(InputError, match="no assistant turn whose prompt fits"):
        Answers(form, many, max_length=3)


def test_rows_that_the_format_has_no_place_for_are_left_out_and_listed(checkpoint, tmp_path: Path) -> None:
    """ChatGLM-6B knows no tools: neither the loss nor the generated answers may stumble over such a row."""
    loaded = load_parts(checkpoint("chatglm"), dtype=torch.float32)
    tools = [{"name": "weather", "description": "d", "parameters": {}}]
    rows = [{"prompt": "a", "response": "b"}, {"prompt": "a", "response": "b", "tools": tools}]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UnsupportedError, match=r"data\.jsonl:2: chatglm does not support tools"):
        evaluate(loaded, data, samples=2, max_new_tokens=2)
    with pytest.raises(UnsupportedError, match=r"data\.jsonl:2: chatglm does not support tools"):
        Answers(loaded.format, read_dialogues(data))
    tally = Tally()
    assert set(NAMES) < set(evaluate(loaded, data, samples=2, max_new_tokens=2, skip_bad_rows=True, tally=tally))
    assert [bad.where for bad in tally.skipped] == [f"{data}:2"]
    for wrong in ({"samples": -1}, {"batch_size": 0}, {"max_new_tokens": 0}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))} is .*; must be at least"):
            evaluate(loaded, data, skip_bad_rows=True, **wrong)


def test_evaluate_counts_every_learned_token_once(checkpoint, tmp_path: Path) -> None:
    loaded = load_parts(checkpoint("glm4"), dtype=torch.float32)
    texts = [("user", "你"), ("assistant", "好")]
    rows = [{"messages": [{"role": role, "content": text * n} for role, text in texts]} for n in (1, 9, 4)]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    total, count = 0.0, 0
    for row in rows:
        ids, mask = loaded.format.example([Message.from_dict(m) for m in row["messages"]])
        with torch.no_grad():
            logs = loaded.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        total -= sum(float(logs[n - 1, ids[n]]) for n in range(1, len(ids)) if mask[n])
        count += sum(mask)
    for batch in (1, 2):
        found = evaluate(loaded, data, samples=0, batch_size=batch)
        assert found["learned_tokens"] == count
        assert found["loss"] == pytest.approx(total / count, rel=1e-5)
        assert found["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)
    assert set(NAMES) < set(evaluate(loaded, data, samples=2, max_new_tokens=2))
