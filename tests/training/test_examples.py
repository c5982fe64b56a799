"""Laws of what is learned: of every format, and of packing and padding."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chatglm import AutoTokenizer
from chatglm.chat.formats import chat_format
from chatglm.chat.messages import Message, ToolCall
from chatglm.chat.personas import Persona
from chatglm.chat.tokenizers import ChatGLMTokenizer
from chatglm.errors import InputError, UnsupportedError
from chatglm.models.positions import two_row_positions
from chatglm.training.dialogues import Dialogue
from chatglm.training.examples import IGNORE, Collator, Example, Tally, encode, encode_files, pack
from conftest import VERSIONS

LAW = settings(max_examples=25, deadline=None)
GENERATIONS = [*VERSIONS, "characterglm"]
ROLES = ["chatglm3", "glm4"]
TEXT = st.lists(
    st.sampled_from(["你好", "北京", "，", " ", "\n", "The fox", "1+1=2", "😀", "<|user|>", "[gMASK]", "问：", "x"]),
    min_size=1,
    max_size=6,
).map(lambda words: "a" + "".join(words))


@pytest.fixture(scope="session")
def formats(checkpoint: Callable[[str], Path]) -> dict[str, Any]:
    made = {name: chat_format(AutoTokenizer.from_pretrained(checkpoint(name))) for name in VERSIONS}
    character = ChatGLMTokenizer.from_pretrained(checkpoint("chatglm2"), generation="characterglm")
    return {**made, "characterglm": chat_format(character)}


def dialogues(kind: str) -> st.SearchStrategy[Dialogue]:
    """One to four rounds, perhaps a system message, some with `loss`; with ChatGLM3 and GLM-4 also calls."""
    user = TEXT.map(lambda text: Message("user", text))
    loss = st.sampled_from([None, None, None, False, True])
    answer = st.builds(lambda text, loss: Message("assistant", text, loss=loss), TEXT, loss)
    rounds = st.tuples(user, answer)
    if kind in ROLES:
        call = st.builds(
            lambda text, loss: Message("assistant", "", (ToolCall("f", {"x": text}),), loss=loss), TEXT, loss
        )
        rounds |= st.tuples(user, call, TEXT.map(lambda text: Message("observation", text)), answer)
    system = st.lists(TEXT.map(lambda text: Message("system", text)), max_size=1)
    return st.builds(
        lambda front, parts: Dialogue((*front, *(m for part in parts for m in part)), where="d.jsonl:7"),
        system,
        st.lists(rounds, min_size=1, max_size=4),
    )


def learned(example: Example) -> list[int]:
    return [target for target in example.targets if target != IGNORE]


def runs(example: Example) -> list[list[int]]:
    """Targets of learned positions that stand together."""
    found: list[list[int]] = [[]]
    for target in example.targets:
        if target == IGNORE:
            found.append([])
        else:
            found[-1].append(target)
    return [run for run in found if run]


def is_learned(message: Message) -> bool:
    return message.role == "assistant" and message.loss is not False


@pytest.mark.parametrize("loss", ["all", "split"])
@pytest.mark.parametrize("kind", GENERATIONS)
def test_of_a_turn_its_reply_and_one_stop_id_are_learned(kind: str, loss: str, formats) -> None:
    """Each behind exactly the prompt that inference makes."""
    form = formats[kind]

    @LAW
    @given(dialogues(kind))
    def law(dialogue: Dialogue) -> None:
        made = encode(dialogue, form, loss=loss)
        wanted = [n for n, message in enumerate(dialogue.messages) if is_learned(message)]
        found = [(example, run) for example in made for run in runs(example)]
        assert len(found) == len(wanted)
        if loss == "split" or not form.extends:
            assert len(made) == len(wanted)
        for (example, run), turn in zip(found, wanted, strict=True):
            assert run[-1] in form.stop_ids
            assert not set(run[:-1]) & form.stop_ids
            reply = form.parse(run)
            assert reply == form.parse(run[:-1])
            assert reply.tool_calls == dialogue.messages[turn].tool_calls
            prompt = form.prompt(dialogue.messages[:turn])
            assert example.ids[: len(prompt)] == prompt
            assert example.targets[len(prompt) - 1] == run[0]
            assert [*example.ids[len(prompt) : len(prompt) + len(run) - 1]] == run[:-1]

    law()


@pytest.mark.parametrize("kind", GENERATIONS)
def test_targets_are_what_comes_next(kind: str, formats) -> None:
    form = formats[kind]

    @LAW
    @given(dialogues(kind), st.sampled_from(["all", "last", "split"]))
    def law(dialogue: Dialogue, loss: str) -> None:
        tally = Tally()
        made = encode(dialogue, form, loss=loss, tally=tally)
        for example in made:
            assert example.where == "d.jsonl:7"
            assert len(example.ids) == len(example.targets) == len(example)
            assert example.targets[-1] != IGNORE  # nothing stands behind what is learned
            for following, target in zip(example.ids[1:], example.targets[:-1], strict=True):
                assert target in (IGNORE, following)
        assert tally.tokens == sum(map(len, made))
        assert tally.learned == sum(len(learned(example)) for example in made)
        assert (tally.dialogues, tally.examples, tally.cut, tally.lost) == (1, len(made), 0, 0)
        assert tally.silent == (not made)

    law()


@pytest.mark.parametrize("kind", GENERATIONS)
def test_last(kind: str, formats) -> None:
    """Of a dialogue's turns only the last is learned, besides those that ask for it themselves."""
    form = formats[kind]
    a, b, c = Message("assistant", "甲"), Message("assistant", "乙"), Message("assistant", "丙")
    q = Message("user", "问")

    def said(*messages: Message) -> list[str]:
        made = encode(Dialogue(messages), form, loss="last")
        return [form.parse(run).content for example in made for run in runs(example)]

    assert said(q, a, q, b, q, c) == ["丙"]
    assert said(q, a, q, b, q, c, q) == ["丙"]
    assert said(q, a, q, b, q, Message("assistant", "丙", loss=False)) == ["乙"]
    assert said(q, Message("assistant", "甲", loss=True), q, b, q, c) == ["甲", "丙"]
    assert said(q, Message("assistant", "甲", loss=False)) == []


def test_a_users_words_can_be_learned(formats) -> None:
    messages = (Message("user", "一", loss=True), Message("assistant", "甲"))
    (example,) = encode(Dialogue(messages), formats["chatglm3"])
    words = formats["chatglm3"].tokenizer.encode_text("一")
    assert runs(example)[0][-len(words) :] == words
    assert len(encode(Dialogue(messages), formats["chatglm3"], loss="split")) == 2
    for kind in ("chatglm", "chatglm2", "characterglm"):
        for loss in ("all", "last", "split"):
            with pytest.raises(UnsupportedError, match=r"^d\.json:3: loss: true on a user message"):
                encode(Dialogue(messages, where="d.json:3"), formats[kind], loss=loss)


def test_ids_of_the_official_finetuning_of_chatglm3(formats) -> None:
    """features 1.6: [gMASK] sop, build_single_message of every message, eos; the mask of each message's role moves on
    by one, so that `<|assistant|>` is no target, and the newline behind it, the text and the next header or eos are.
    """
    form = formats["chatglm3"]
    messages = [("system", "s"), ("user", "你好"), ("assistant", "早"), ("user", "再见"), ("assistant", "走好")]
    ids, masks = form.tokenizer.get_prefix_tokens(), [False, False]
    for role, text in messages:
        new = form.tokenizer.build_single_message(role, "", text)
        ids, masks = ids + new, masks + [role == "assistant"] * len(new)
    ids, masks = [*ids, form.tokenizer.get_command("<eos>")], [False, *masks]
    labels = [token if keep else IGNORE for token, keep in zip(ids, masks, strict=True)]
    (example,) = encode(Dialogue(tuple(Message(role, text) for role, text in messages)), form)
    assert example.ids == ids[:-1]
    assert example.targets == labels[1:]


@pytest.mark.parametrize("kind", ["chatglm2", "characterglm"])
def test_one_pass(kind: str, formats) -> None:
    messages = (Message("user", "一"), Message("assistant", "甲"), Message("user", "二"), Message("assistant", "乙"))
    (example,) = encode(Dialogue(messages), formats[kind], one_pass=True)
    ids, mask = formats[kind].example(messages)
    assert [*example.ids, example.targets[-1]] == ids
    assert learned(example) == [token for token, keep in zip(ids, mask, strict=True) if keep]
    assert [formats[kind].parse(run).content for run in runs(example)] == ["甲", "乙"]
    with pytest.raises(UnsupportedError, match="one_pass: ChatGLM-6B"):
        encode(Dialogue(messages), formats["chatglm"], one_pass=True)


def test_positions_of_chatglm_are_the_models(formats, loaded) -> None:
    model, _ = loaded("chatglm")

    @LAW
    @given(dialogues("chatglm"))
    def law(dialogue: Dialogue) -> None:
        for example in encode(dialogue, formats["chatglm"]):
            expected = two_row_positions(torch.tensor([list(example.ids)]), model.config)[0]
            assert torch.tensor([list(row) for row in example.positions]).equal(expected)

    law()


def test_persona(formats) -> None:
    messages = (Message("user", "你好"), Message("assistant", "嗨"))
    dialogue = Dialogue(messages, persona=Persona(bot_name="苏梦远", user_name="陆星辰"), where="d.json:1")
    (example,) = encode(dialogue, formats["characterglm"])
    assert "[陆星辰]你好\n[苏梦远]" in formats["characterglm"].tokenizer.decode(list(example.ids))
    (example,) = encode(dialogue, formats["chatglm3"])
    told = [Message("system", "请你扮演苏梦远。和你对话的是陆星辰。"), messages[0]]
    prompt = formats["chatglm3"].prompt(told)
    assert list(example.ids[: len(prompt)]) == prompt


# What is too long


@pytest.mark.parametrize("one_pass", [False, True])
@pytest.mark.parametrize("kind", GENERATIONS)
def test_what_is_cut_is_cut_between_rounds(kind: str, one_pass: bool, formats) -> None:
    """Every learned turn stands behind the prompt of its system messages and whole rounds; what fits is learned."""
    form = formats[kind]
    one_pass = one_pass and kind in ("chatglm2", "characterglm")

    @settings(max_examples=40, deadline=None)
    @given(dialogues(kind), st.integers(4, 120), st.sampled_from(["all", "last", "split"]))
    def law(dialogue: Dialogue, limit: int, loss: str) -> None:
        tally, free = Tally(), Tally()
        made = encode(dialogue, form, loss=loss, max_length=limit, one_pass=one_pass, tally=tally)
        whole = encode(dialogue, form, loss=loss, one_pass=one_pass, tally=free)
        assert all(len(example) <= limit for example in made)
        assert tally.cut == any(len(example) > limit for example in whole)
        if not tally.cut:
            assert made == whole
        kept = [run for example in made for run in runs(example)]
        every = [run for example in whole for run in runs(example)]
        assert len(kept) + tally.lost == len(every)
        replies = [run[:-1] for run in every]
        assert all(run[:-1] in replies for run in kept)

        messages = list(dialogue.messages)
        front = [m for m in messages[:1] if m.role == "system"]
        starts = [n for n, m in enumerate(messages) if m.role == "user"]
        if one_pass and loss == "all":
            return  # behind an approximation of the prompt, as without a limit
        prompts = [
            form.prompt([*front, *messages[s:t]]) for t, m in enumerate(messages) for s in starts if is_learned(m)
        ]
        for example in made:
            for place, target in enumerate(example.targets):
                if target != IGNORE and (place == 0 or example.targets[place - 1] == IGNORE):
                    assert list(example.ids[: place + 1]) in prompts

    law()


@pytest.mark.parametrize("kind", ROLES)
def test_a_long_dialogue_is_learned_in_several_passes(kind: str, formats) -> None:
    form = formats[kind]
    front = Message("system", "简短", loss=True)  # learned once, not in each pass
    messages = [Message(role, f"{role} {n}") for n in range(9) for role in ("user", "assistant")]
    dialogue = Dialogue((front, *messages))
    (whole,) = encode(dialogue, form)
    tally = Tally()
    parts = encode(dialogue, form, max_length=len(whole) // 2, tally=tally)
    assert 2 <= len(parts) <= 4
    said = [run for part in parts for run in runs(part)]
    assert form.parse(said.pop(0)).content == "简短"
    assert [form.parse(run).content for run in said] == [f"assistant {n}" for n in range(9)]
    front = Message("system", "简短")
    assert (tally.cut, tally.lost, tally.dialogues, tally.examples) == (1, 0, 1, len(parts))
    seen = 0
    for part in parts:
        end = seen + 2 * (len(runs(part)) - (seen == 0))
        assert [[*part.ids, part.targets[-1]]] == [
            [*example.ids, example.targets[-1]] for example in encode(Dialogue((front, *messages[seen:end])), form)
        ]
        seen = end


def test_of_a_round_that_is_too_long_its_first_turns_are_learned(formats) -> None:
    form = formats["chatglm3"]
    calls = [
        m
        for n in range(5)
        for m in (Message("assistant", "", (ToolCall("f", {"n": n}),)), Message("observation", "结果" * 9))
    ]
    messages = (Message("user", "问"), *calls, Message("assistant", "完"))
    (whole,) = encode(Dialogue(messages), form)
    learned_at = [target != IGNORE for target in whole.targets]
    ends = [n for n in range(1, len(whole) + 1) if learned_at[n - 1] and not any(learned_at[n : n + 1])]
    assert len(ends) == 6
    for limit in range(ends[0], len(whole)):
        tally = Tally()
        (part,) = encode(Dialogue(messages), form, max_length=limit, tally=tally)
        assert len(part) == max(end for end in ends if end <= limit)
        assert (part.ids, part.targets) == (whole.ids[: len(part)], whole.targets[: len(part)])
        assert tally.lost == len(runs(whole)) - len(runs(part)) > 0
        assert part.targets[-1] == form.tokenizer.get_command("<|observation|>")
    tally = Tally()
    assert encode(Dialogue(messages), form, max_length=3, tally=tally) == []
    assert (tally.lost, tally.silent) == (6, 1)


# Gradients


def loss_and_gradients(
    model: Any, rows: list[list[Example]], length: int | None = None
) -> tuple[float, dict[str, Any]]:
    model.zero_grad(set_to_none=True)
    loss = model(**Collator(0, length=length)(rows), num_items_in_batch=1).loss
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture(scope="session")
def double(formats, checkpoint: Callable[[str], Path]) -> Callable[[str], Any]:
    """Tiny models in float64, in training mode."""
    from chatglm import AutoModel

    made: dict[str, Any] = {}

    def get(kind: str) -> Any:
        if kind not in made:
            made[kind] = AutoModel.from_pretrained(checkpoint(kind)).double().train()
        return made[kind]

    return get


TOGETHER = (
    Message("system", "简短"),
    Message("user", "北京天气"),
    Message("assistant", "好的", (ToolCall("f", {"city": "北京"}),)),
    Message("observation", "晴"),
    Message("assistant", "晴天。"),
    Message("user", "谢谢", loss=None),
    Message("assistant", "不用谢！", loss=False),
    Message("user", "再见"),
    Message("assistant", "再见。"),
)


def assert_same(one: tuple[float, dict[str, Any]], other: tuple[float, dict[str, Any]]) -> None:
    # Scores are in float32 under the loss, and so are what differs between two ways to sum them.
    assert one[0] == pytest.approx(other[0], rel=1e-6)
    assert one[1].keys() == other[1].keys() != set()
    for name, gradient in one[1].items():
        assert (gradient - other[1][name]).norm() <= 2e-6 * gradient.norm(), name


@pytest.mark.parametrize("kind", ROLES)
def test_the_gradient_of_all_is_the_sum_of_its_turns(kind: str, formats, double) -> None:
    model, dialogue = double(kind), Dialogue(TOGETHER)
    (whole,) = encode(dialogue, formats[kind])
    turns = encode(dialogue, formats[kind], loss="split")
    assert len(turns) == 3
    each = [loss_and_gradients(model, [[turn]]) for turn in turns]
    summed = {name: sum(gradients[name] for _, gradients in each) for name in each[0][1]}
    assert_same(loss_and_gradients(model, [[whole]]), (sum(loss for loss, _ in each), summed))


@pytest.mark.parametrize("kind", VERSIONS)
def test_packed_is_unpacked(kind: str, formats, double) -> None:
    """Examples in one row, in any order and with any padding, are learned as if each stood alone."""
    model = double(kind)
    plain = [
        (
            Message("user", "你好"),
            Message("assistant", "你好！我是小智。"),
            Message("user", "你是谁"),
            Message("assistant", "机器人"),
        ),
        (Message("user", "1+1"), Message("assistant", "2")),
        (Message("user", "北京天气怎么样？"), Message("assistant", "晴。")),
    ]
    examples = [example for messages in plain for example in encode(Dialogue(messages), formats[kind])]
    alone = loss_and_gradients(model, [[example] for example in examples])
    total = sum(map(len, examples))
    assert_same(loss_and_gradients(model, [examples]), alone)
    assert_same(loss_and_gradients(model, [examples[::-1]], total + 13), alone)
    assert_same(loss_and_gradients(model, [examples[:1], examples[1:]]), alone)


# Rows and batches


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 30), max_size=60), st.integers(30, 64), st.integers(1, 20))
def test_pack(lengths: list[int], limit: int, window: int) -> None:
    rows = pack(lengths, limit, window)
    assert sorted(n for row in rows for n in row) == list(range(len(lengths)))
    assert all(row and sum(lengths[n] for n in row) <= limit for row in rows)
    assert rows == pack(np.array(lengths, dtype=np.int64), limit, window)
    for start in range(0, len(lengths), window):
        within = [row for row in rows if start <= row[0] < start + window]
        assert all(start <= n < start + window for row in within for n in row)
        # Best fit leaves no two rows that would go into one.
        sizes = sorted(sum(lengths[n] for n in row) for row in within)
        assert len(sizes) < 2 or sizes[0] + sizes[1] > limit


def test_pack_fills_rows_and_refuses_what_does_not_fit() -> None:
    lengths = np.random.default_rng(0).integers(20, 400, 5000)
    rows = pack(lengths, 1024)
    assert lengths.sum() / (len(rows) * 1024) > 0.98
    with pytest.raises(InputError, match="example 2 has 9 tokens and a row holds 8; encode with max_length=8"):
        pack([1, 8, 9, 3], 8)


def example_of(*ids: int, rows: int = 1) -> Example:
    return Example(ids, [*ids[1:], IGNORE], tuple(range(len(ids)) for _ in range(rows)))


def test_collator() -> None:
    batch = Collator(3, multiple=4)([[example_of(5, 6, 7), example_of(8, 9)], example_of(1)])
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[5, 6, 7, 8, 9, 3, 3, 3], [1, 3, 3, 3, 3, 3, 3, 3]],
        "position_ids": [[0, 1, 2, 0, 1, 2, 3, 4], [*range(8)]],  # padding goes on from the last example
        "shift_labels": [[6, 7, -100, 9, -100, -100, -100, -100], [-100] * 8],
    }
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())
    two = Collator(3, length=5)([example_of(5, 6, rows=2)])
    assert two["position_ids"].tolist() == [[[0, 1, 1, 1, 1], [0, 1, 2, 3, 4]]]
    assert two["input_ids"].shape == (1, 5)


def test_collator_refuses() -> None:
    with pytest.raises(InputError, match="one row of positions and some have two"):
        Collator(0)([example_of(1), example_of(1, rows=2)])
    with pytest.raises(InputError, match="no examples"):
        Collator(0)([])
    with pytest.raises(InputError, match="a row of 3 positions in a batch of length 2"):
        Collator(0, length=2)([example_of(1, 2, 3)])
    with pytest.raises(InputError, match="multiple 0"):
        Collator(0, multiple=0)


def test_options_are_checked_before_data_is_read(formats, tmp_path: Path) -> None:
    for wrong, reason in (
        ({"loss": "first"}, "loss 'first': must be one of all, last, split"),
        ({"max_length": 0}, "max_length 0"),
    ):
        with pytest.raises(InputError, match=reason):
            encode(Dialogue(TOGETHER), formats["chatglm3"], **wrong)
        with pytest.raises(InputError, match=reason):
            list(encode_files(tmp_path / "missing.json", formats["chatglm3"], skip_bad_rows=True, **wrong))


def test_encode_files(formats, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    roles = ("user", "assistant", "system")
    late = json.dumps({"messages": [{"role": role, "content": "a"} for role in roles]})
    good = '{"prompt": "a", "response": "b"}'
    file.write_text(f"{good}\n{late}\n[]\n{good}\n")
    with pytest.raises(InputError, match=r"a\.jsonl:2: a system message cannot follow"):
        list(encode_files(file, formats["chatglm3"]))
    tally = Tally()
    made = list(encode_files(file, formats["chatglm3"], skip_bad_rows=True, tally=tally))
    assert [dialogue.where for dialogue, _ in made] == [f"{file}:1", f"{file}:4"]
    assert [examples[0].where for _, examples in made] == [f"{file}:1", f"{file}:4"]
    assert [where for where, _ in tally.skipped] == [f"{file}:2", f"{file}:3"]
    assert tally.skipped[0].reason.startswith("a system message cannot follow")
    assert (tally.dialogues, tally.forms) == (2, {"pairs": 2})
    lines = tally.lines(most=1)
    assert lines[0].startswith("2 dialogues (2 pairs): 2 examples, ")
    assert lines[1:] == ["skipped: 2 bad rows", f"  {file}:2: {tally.skipped[0].reason}", "  … and 1 more"]


class PanicException(BaseException):
    """Named as what tiktoken raises, which is no Exception."""


@pytest.mark.parametrize("error", [PanicException("explicit"), RecursionError("too deep"), ValueError("surrogates")])
def test_a_text_that_cannot_be_tokenized_is_a_bad_row(error: BaseException, checkpoint, tmp_path, monkeypatch) -> None:
    form = chat_format(AutoTokenizer.from_pretrained(checkpoint("chatglm3")))
    file = tmp_path / "data.jsonl"
    rows = [{"prompt": question, "response": "a"} for question in ("one", "bad", "two")]
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    encode_text = type(form.tokenizer).encode_text

    def breaking(self: Any, text: str) -> list[int]:
        if "bad" in text:
            raise error
        return encode_text(self, text)

    monkeypatch.setattr(type(form.tokenizer), "encode_text", breaking)
    tally = Tally()
    assert len(list(encode_files(file, form, skip_bad_rows=True, tally=tally))) == 2
    assert [bad.where for bad in tally.skipped] == [f"{file}:2"]
    with pytest.raises(InputError, match=r"data\.jsonl:2: its text cannot become tokens"):
        list(encode_files(file, form))
