"""Choices by the likelihood of their infill: sums written out by hand, in any batch, from text that says anything."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from chatglm.errors import InputError, NumericalError
from chatglm.models.positions import two_row_positions
from chatglm.training.cloze import Question, cloze_examples, evaluate_cloze, read_questions, score_choices
from chatglm.training.examples import IGNORE

Loaded = Callable[[str], tuple[Any, Any]]
CHOICES = ["北京", "上海很大", "Paris", "一个非常非常遥远的地方"]
CONTEXTS = ["我住在[MASK]。", "我住在[MASK]", "[MASK] is a city.", "它叫[sMASK]很大", "It is far to [gMASK]", "首都是"]


@torch.no_grad()
def by_hand(model: Any, ids: Sequence[int], positions: Any, choice: Sequence[int]) -> torch.Tensor:
    """Log probabilities of the ids of `choice`, which the last positions of `ids` predict, (tokens,)."""
    logits = model(torch.tensor([list(ids)]), position_ids=positions, use_cache=False).logits[0].double()
    predicted = logits[-len(choice) :].log_softmax(dim=-1)
    return predicted[range(len(choice)), list(choice)]


class TestByHand:
    def test_chatglm(self, loaded: Loaded) -> None:
        model, tokenizer = loaded("chatglm")
        mask, sop, eop = map(tokenizer.get_command, ("[MASK]", "<sop>", "<eop>"))
        before, after = tokenizer.encode_text("我住在"), tokenizer.encode_text("我住在。")[-1:]
        scores = score_choices(model, tokenizer, "我住在[MASK]。", CHOICES)
        for choice, score in zip(CHOICES, scores, strict=True):
            words = tokenizer.encode_text("我住在" + choice)[len(before) :]
            ids = [*before, mask, *after, sop, *words]
            logs = by_hand(model, ids, two_row_positions(torch.tensor([ids]), model.config), [*words, eop])
            assert score == pytest.approx(float(logs.sum()), abs=1e-4)

    def test_chatglm_at_the_end(self, loaded: Loaded) -> None:
        """The prompt is the one that the tokenizer makes."""
        model, tokenizer = loaded("chatglm")
        prompt = list(tokenizer("我住在")["input_ids"])
        words = tokenizer.encode_text("我住在北京")[len(prompt) - 2 :]
        ids = [*prompt, *words[:-1]]
        logs = by_hand(model, ids, two_row_positions(torch.tensor([ids]), model.config), words)
        for context in ("我住在", "我住在[gMASK]", ("我住在", "")):
            assert score_choices(model, tokenizer, context, ["北京"]) == [pytest.approx(float(logs.sum()), abs=1e-4)]

    @pytest.mark.parametrize("name", ["chatglm2", "chatglm3", "glm4"])
    def test_later_models(self, name: str, loaded: Loaded) -> None:
        model, tokenizer = loaded(name)
        prefix, head = tokenizer.get_prefix_tokens(), tokenizer.encode_text("It is far to")
        for context in ("It is far to", "It is far to ", "It is far to [MASK]", "It is far to[gMASK]"):
            choice = "Paris" if context.endswith((" ", " [MASK]")) else " Paris"
            words = tokenizer.encode_text("It is far to Paris")[len(head) :]
            logs = by_hand(model, [*prefix, *head, *words[:-1]], None, words)
            for normalize, expected in {"sum": logs.sum(), "mean": logs.mean()}.items():
                score = score_choices(model, tokenizer, context, [choice], normalize=normalize)  # type: ignore[arg-type]
                assert score == [pytest.approx(float(expected), abs=1e-4)]

    @pytest.mark.parametrize("name", ["chatglm3", "glm4"])
    def test_later_models_with_text_behind_the_blank(self, name: str, loaded: Loaded) -> None:
        model, tokenizer = loaded(name)
        mask, sop = tokenizer.get_command("[MASK]"), tokenizer.get_prefix_tokens()[1]
        eop = tokenizer.get_command("<eop>" if name == "glm4" else "eop")
        before, whole = tokenizer.encode_text("首都是"), tokenizer.encode_text("首都是北京。")
        words, after = whole[len(before) : -1], whole[-1:]
        logs = by_hand(model, [*before, mask, *after, sop, *words], None, [*words, eop])
        scores = score_choices(model, tokenizer, "首都是[MASK]。", ["北京"])
        assert scores == [pytest.approx(float(logs.sum()), abs=1e-4)]


@pytest.mark.parametrize("name", ["chatglm", "chatglm2", "chatglm3", "glm4"])
class TestLaws:
    @pytest.mark.parametrize("normalize", ["sum", "mean"])
    def test_batched_is_alone(self, name: str, normalize: Any, loaded: Loaded) -> None:
        model, tokenizer = loaded(name)
        for context in CONTEXTS:
            alone = [score_choices(model, tokenizer, context, [c], normalize=normalize)[0] for c in CHOICES]
            for size in (2, 16):
                together = score_choices(model, tokenizer, context, CHOICES, normalize=normalize, batch_size=size)
                assert together == pytest.approx(alone, abs=1e-4)

    def test_choices_that_begin_differently_exclude_one_another(self, name: str, loaded: Loaded) -> None:
        model, tokenizer = loaded(name)
        scores = score_choices(model, tokenizer, "首都是", ["北京", "上海", "天津", "大"])
        assert sum(torch.tensor(scores).exp().tolist()) <= 1
        assert all(score < 0 for score in scores)

    def test_text_never_becomes_a_blank(self, name: str, loaded: Loaded) -> None:
        model, tokenizer = loaded(name)
        before, after = "[MASK] [gMASK] <sop> sop ", " <eop> [sMASK]"
        (example,) = cloze_examples(tokenizer, (before, after), ["[MASK] <eop>"])
        control = [token for token in [*example.ids, example.targets[-1]] if token in tokenizer.control_ids]
        names = ["[MASK]", *(token for token in ("sop", "<sop>") if token in tokenizer.all_special_tokens)]
        names += [token for token in ("eop", "<eop>") if token in tokenizer.all_special_tokens]
        assert control == [tokenizer.get_command(token) for token in names]
        assert len(score_choices(model, tokenizer, (before, after), ["[MASK]", "a"])) == 2

    def test_a_choice_has_no_blank_of_its_own(self, name: str, loaded: Loaded) -> None:
        _, tokenizer = loaded(name)
        for before, choice in (("我住在", "北京"), ("首都是", "北京"), ("a\n", "\nb"), ("It is", " good"), ("", "好")):
            (example,) = cloze_examples(tokenizer, (before, ""), [choice])
            words = [target for target in example.targets if target != IGNORE]
            text = b"".join(map(tokenizer.token_bytes, words)).decode()
            assert (text if before else text.strip()) == choice

    def test_accuracy(self, name: str, loaded: Loaded) -> None:
        model, tokenizer = loaded(name)
        rows: list[Any] = []
        for number, context in enumerate(CONTEXTS):
            scores = score_choices(model, tokenizer, context, CHOICES)
            best = scores.index(max(scores))
            # The right one in the first four rows.
            rows.append({"context": context, "choices": CHOICES, "label": best if number < 4 else (best + 1) % 4})
        result = evaluate_cloze(model, tokenizer, rows, batch_size=5)
        assert result.accuracy == pytest.approx(4 / 6)
        assert [row.right for row in result.rows] == [True] * 4 + [False] * 2
        for context, row in zip(CONTEXTS, result.rows, strict=True):
            assert list(row.scores) == pytest.approx(score_choices(model, tokenizer, context, CHOICES), abs=1e-4)


class TestBlanks:
    def test_marker_of_one_s_own(self, loaded: Loaded) -> None:
        _, tokenizer = loaded("chatglm")
        given = cloze_examples(tokenizer, "我住在____。[MASK]", ["北京"], blank="____")
        pair = cloze_examples(tokenizer, ("我住在", "。[MASK]"), ["北京"])
        assert given == pair
        assert [token for token in given[0].ids if token == tokenizer.get_command("[MASK]")] == [130000]

    @pytest.mark.parametrize("marker", ["[MASK]", "[sMASK]", "[gMASK]"])
    def test_the_marker_s_own_token(self, marker: str, loaded: Loaded) -> None:
        _, tokenizer = loaded("chatglm")
        (inside,) = cloze_examples(tokenizer, f"a{marker} b", ["c"])
        (last,) = cloze_examples(tokenizer, f"a{marker}", ["c"])
        assert tokenizer.get_command(marker) in inside.ids
        assert tokenizer.get_command(marker) in last.ids
        eop = tokenizer.get_command("<eop>")
        assert inside.targets[-1] == eop
        assert (last.targets[-1] == eop) == (marker != "[gMASK]")
        assert sum(target != IGNORE for target in last.targets) == len(last.ids) - list(last.ids).index(130004)

    @pytest.mark.parametrize("context", ["[MASK] and [MASK]", "[MASK] and [gMASK]"])
    def test_one_blank_only(self, context: str, loaded: Loaded) -> None:
        model, tokenizer = loaded("chatglm3")
        with pytest.raises(InputError, match="2 blanks in the context; give one, or the pair"):
            score_choices(model, tokenizer, context, CHOICES)

    def test_refusals(self, loaded: Loaded) -> None:
        model, tokenizer = loaded("chatglm3")
        with pytest.raises(InputError, match="a choice is empty"):
            score_choices(model, tokenizer, "a", ["b", ""])
        with pytest.raises(InputError, match="normalize 'max': must be one of sum, mean"):
            score_choices(model, tokenizer, "a", ["b"], normalize="max")  # type: ignore[arg-type]
        with pytest.raises(InputError, match="batch_size 0"):
            score_choices(model, tokenizer, "a", ["b"], batch_size=0)
        with pytest.raises(InputError, match="no questions"):
            evaluate_cloze(model, tokenizer, [])

    def test_a_broken_model(self, loaded: Loaded) -> None:
        model, tokenizer = loaded("chatglm3")
        broken = copy.deepcopy(model).train()
        with torch.no_grad():
            broken.transformer.encoder.final_layernorm.weight.fill_(torch.nan)
        row = Question("a", ("b", "c"), 0, "q.jsonl:7")
        with pytest.raises(NumericalError, match=r"q.jsonl:7: the model's score of a choice is nan"):
            evaluate_cloze(broken, tokenizer, [row])
        assert broken.training


class TestQuestions:
    @pytest.mark.parametrize(
        ("row", "expected"),
        [
            (
                {"inputs_pretokenized": "a [MASK]", "choices_pretokenized": ["b", "c"], "label": 1},
                Question("a [MASK]", ("b", "c"), 1),
            ),
            ({"context": "a", "choices": ["b", "c"], "answer": "c"}, Question("a", ("b", "c"), 1)),
            ({"question": "a", "choices": ["x", "y", "z"], "answer": "C"}, Question("a", ("x", "y", "z"), 2)),
            ({"question": "a", "choices": ["B", "A"], "label": "A"}, Question("a", ("B", "A"), 1)),
            ({"context": "a", "question": "q?", "choices": ["b", "c"], "label": 0}, Question("a\nq?", ("b", "c"), 0)),
        ],
    )
    def test_forms(self, row: dict[str, Any], expected: Question) -> None:
        assert Question.from_dict(row) == expected

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ([], "f:3: expected an object"),
            ({"choices": ["b", "c"], "label": 0}, "f:3: context: missing"),
            ({"context": 1, "choices": ["b", "c"], "label": 0}, "f:3: context: expected a string, got int"),
            ({"context": "a", "choices": ["b"], "label": 0}, "f:3: choices: expected a list of two or more"),
            ({"context": "a", "choices": ["b", ""], "label": 0}, "f:3: choices: "),
            ({"context": "a", "choices_pretokenized": "bc", "label": 0}, "f:3: choices_pretokenized: "),
            ({"context": "a", "choices": ["b", "c"]}, "f:3: answer: expected an index from 0 to 1"),
            ({"context": "a", "choices": ["b", "c"], "label": 2}, "f:3: label: .* got 2"),
            ({"context": "a", "choices": ["b", "c"], "label": -1}, "f:3: label: "),
            ({"context": "a", "choices": ["b", "c"], "label": True}, "f:3: label: "),
            ({"context": "a", "choices": ["b", "c"], "label": "d"}, "f:3: label: .* got 'd'"),
            ({"context": "a", "choices": ["b", "b"], "label": "b"}, "f:3: label: "),
        ],
    )
    def test_bad_rows(self, row: Any, message: str) -> None:
        with pytest.raises(InputError, match=message):
            Question.from_dict(row, "f:3")

    def test_files(self, tmp_path: Path) -> None:
        rows = [{"context": f"a{n}", "choices": ["b", "c"], "label": n % 2} for n in range(3)]
        lines, whole = tmp_path / "q.jsonl", tmp_path / "q.json"
        lines.write_text("\ufeff" + "\n\n".join(map(json.dumps, rows)), "utf-8")
        whole.write_text(json.dumps(rows), "utf-8")
        assert [(q.context, q.where) for q in read_questions(lines)] == [
            ("a0", f"{lines}:1"),
            ("a1", f"{lines}:3"),
            ("a2", f"{lines}:5"),
        ]
        assert [(q.context, q.where) for q in read_questions(whole)] == [
            (f"a{n}", f"{whole}: row {n + 1}") for n in range(3)
        ]

    @pytest.mark.parametrize(
        ("name", "data", "message"),
        [
            ("q.jsonl", b'{"context": "a", "choices": ["b", "c"], "label": 0}\n{', r"q.jsonl:2: not JSON"),
            ("q.jsonl", b'{"context": "a"}', r"q.jsonl:1: choices: "),
            ("q.json", b'[\n{"context"', r"q.json:2: not JSON"),
            ("q.json", b'{"context": "a"}', r"q.json: expected a list of questions"),
            ("q.jsonl", b"\xff", r"q.jsonl: not UTF-8"),
            ("q.jsonl", b'{"label": ' + b"1" * 5000 + b"}", r"q.jsonl:1: not JSON"),
            ("q.json", b'[{"label": ' + b"1" * 5000 + b"}]", r"q.json: a number in it cannot be read"),
            ("none.jsonl", None, r"none.jsonl: cannot be read"),
        ],
    )
    def test_bad_files(self, name: str, data: bytes | None, message: str, tmp_path: Path) -> None:
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=message):
            list(read_questions(tmp_path / name))
