"""What the demo model is trained on (`recipes/demo/corpus`): right answers, and values that stay whole."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import combinations, pairwise
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chatglm import AutoModel
from chatglm.chat.messages import Message, ToolSpec

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "demo"


@pytest.fixture(scope="module", autouse=True)
def recipe() -> Iterator[None]:
    sys.path.insert(0, str(RECIPE))
    try:
        yield
    finally:
        sys.path.remove(str(RECIPE))


def part(name: str) -> ModuleType:
    return importlib.import_module(f"corpus.{name}" if name else "corpus")


_STEP = re.compile(r"(?<![\d+×÷-])(\d+)([+×-])(\d+)([+-]1)?=(-?\d+)")


@settings(deadline=None)
@given(st.integers(0, 999), st.sampled_from("+-×÷"), st.integers(0, 999), st.booleans())
def test_sums_are_right(a: int, operator: str, b: int, english: bool) -> None:
    if operator == "×":
        a, b = a % 100, b % 10
    elif operator == "÷":
        a, b = a % 100, b % 50 + 1
    working, value = part("arithmetic").solve(a, operator, b, english)
    assert value == {"+": a + b, "-": a - b, "×": a * b}.get(operator, a // max(b, 1))
    for x, sign, y, carry, result in _STEP.findall(working):
        x, y = int(x), int(y)
        assert {"+": x + y, "-": x - y, "×": x * y}[sign] + int(carry or 0) == int(result), working
    last = working.rstrip("。.")
    rest = f"{a % b}" if operator == "÷" and a % b else ""
    assert last.endswith(
        f"{a}{operator}{b}={value}" + (("余" if not english else " remainder ") + rest if rest else "")
    )


@pytest.mark.parametrize(("number", "chinese", "english"), [
    (0, "零", "zero"), (10, "十", "ten"), (12, "十二", "twelve"), (30, "三十", "thirty"), (47, "四十七", "forty-seven"),
    (100, "一百", "a hundred"), (105, "一百零五", "a hundred and five"), (112, "一百一十二", "a hundred and twelve"),
    (120, "一百二十", "a hundred and twenty"),
])  # fmt: skip
def test_numbers_in_words(number: int, chinese: str, english: str) -> None:
    assert part("arithmetic").said(number, False) == chinese
    assert part("arithmetic").said(number, True) == english


@settings(deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["ask", "do", "tail", "say"]), st.booleans())
def test_wording_leaves_values_whole(seed: int, kind: Any, english: bool) -> None:
    core = "what is {a} of {b}" if english else "查一下{a}的{b}"
    values = {"a": "Xq 7的什么", "b": "{x}请你"}
    text = part("wording").dress(Random(seed), "train", core, english, kind, values)
    assert all(value in text for value in values.values())


def test_patterns() -> None:
    wording = part("wording")
    assert set(wording.spread("a(b|c(d|)|)")) == {"ab", "acd", "ac", "a"}
    assert wording.ways("a(b|c)|d|") == ["a(b|c)", "d"]
    assert {wording.choose(Random(n), "(a|b(c|d))") for n in range(40)} == {"a", "bc", "bd"}


def test_some_forms_are_kept_from_training() -> None:
    base = part("base")
    forms = [f"form {n}" for n in range(200)]
    rng = Random(1)
    learned = {base.form(rng, "train", forms) for _ in range(4000)}
    assert {base.form(rng, "test", forms) for _ in range(4000)} == learned
    with base.of_kept_forms():
        assert base.form(rng, "train", forms) in learned
        kept = {base.form(rng, "test", forms) for _ in range(4000)}
    assert kept == set(forms) - learned
    assert 10 < len(kept) < 50


def test_every_dialogue_can_be_learned() -> None:
    """In both splits: messages that the package reads, an answer last, and calls of tools that are on offer."""
    rng = Random(4)
    grammars = {**part("").SKILLS, **part("").PRACTICE, **part("").LAST}
    for name in grammars:
        for split in ("train", "test"):
            for _ in range(60):
                sample = part("").draw_sample(rng, split, name, grammars)
                messages = [Message.from_dict(message, n) for n, message in enumerate(sample.messages)]
                assert messages[-1].role == "assistant"
                offered = {tool["name"]: tool for tool in sample.tools}
                ToolSpec.list_from(sample.tools)
                for message in messages:
                    assert message.content.strip() or message.tool_calls, sample.messages
                    for call in message.tool_calls:
                        if call.name == "interpreter":
                            continue
                        parameters = offered[call.name]["parameters"]
                        assert set(call.arguments) <= set(parameters["properties"])
                        assert set(parameters.get("required", ())) <= set(call.arguments)


def test_code_prints_what_the_corpus_says() -> None:
    """Of the grammar's own programs, in one process. Plots and uploaded tables are left out."""
    rng = Random(5)
    programs = []
    while len(programs) < 120:
        cells = []
        for message in part("code").sample(rng, "train").messages:
            for call in message.get("tool_calls", ()):
                cells.append([call["arguments"]["code"], ""])
            if message["role"] == "tool":
                cells[-1][1] = message["content"].removeprefix("```result\n").removesuffix("\n```")
        if not any(word in str(cells) for word in ("matplotlib", "/mnt/data", "Error", "plt")) and cells:
            programs.append(cells)
    runner = (
        "import contextlib, io, json, sys\n"
        "for cells in json.load(sys.stdin):\n"
        "    names = {}\n"
        "    for code, wanted in cells:\n"
        "        out = io.StringIO()\n"
        "        with contextlib.redirect_stdout(out):\n"
        "            exec(code, names)\n"
        "        assert out.getvalue().rstrip('\\n') == wanted, (code, out.getvalue(), wanted)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", runner], input=json.dumps(programs), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr[-600:]


def test_a_sum_without_words_is_answered_in_chinese() -> None:
    """Nothing tells in which language else; where there were English words before, in English."""
    rng, bare = Random(2), 0
    for _ in range(400):
        messages = part("arithmetic").sample(rng, "train").messages
        asked = [message["content"] for message in messages if message["role"] == "user"]
        if re.search("[A-Za-z]{2}|[\u4e00-\u9fff]", asked[0]) is None:
            bare += 1
            assert not re.search("so |That is", messages[1]["content"]), messages
    assert bare > 10


def test_a_recap_keeps_the_order_of_the_telling() -> None:
    rng = Random(4)
    for _ in range(200):
        asked, recap = (message["content"] for message in part("memory").recap(rng, "train").messages)
        assert not re.search("user (live|work|want|put the user)\\b", recap), recap
        _, _, dialogue = asked.partition("\n\n")
        told = [line for line in dialogue.splitlines() if line.startswith("助手：")]
        places = []
        for sentence in re.split("(?<=。)|(?<=[.]) ", recap.strip()):
            value = re.sub("^.*(叫|是|在|住在|喜欢|打算| is called | is (at|on)? ?)", "", sentence.rstrip("。."))
            lines = [n for n, line in enumerate(told) if value in line]
            if lines and value not in asked.partition("\n\n")[0]:
                places.append(lines[0])
        # What is corrected stays where it was first told, with its new value, which is told later.
        if not any("明白了" in line or "I see" in line for line in told):
            assert places == sorted(places), (asked, recap)


def test_two_notices_of_one_thing_are_known_as_such() -> None:
    """However their questions are worded. Else one would be told, and of the other asked as if nothing were told."""
    practice = part("practice")
    rng = Random(7)
    rules = [rule for rule in practice._RULES if rule.startswith(("(保修|退货", "(系统|网站"))]
    assert len(rules) == 2
    for rule in rules:
        shared = 0
        for _ in range(300):
            one, two = (practice._rule(rng, True, rule) for _ in range(2))
            first, second = (set(re.match("(..)(?:期|的(..))", made.sentence).groups()) - {None} for made in (one, two))
            assert bool(one.subjects & two.subjects) == bool(first & second), (one, two)
            shared += bool(first & second)
        assert 20 < shared < 200


def test_a_missing_field_is_said_to_be_missing_only_where_no_line_has_it() -> None:
    practice = part("practice")
    rng, missing = Random(6), 0
    names = [re.split("/", field.partition("#")[0]) for field in (*practice._FIELDS, *practice._FIELDS_EN)]
    for _ in range(600):
        messages = practice.fields(rng, "train").messages
        for question, answer in pairwise(messages):
            if answer["role"] == "assistant" and answer["content"] in practice._UNTOLD:
                missing += 1
                lines = [line for line in messages[0]["content"].splitlines() if re.search("[：:] ?\\S", line)]
                for group in names:  # it may be asked for by its name, and no line has one that means the same
                    if any(re.search(rf"(?<![A-Za-z]){name}[？?。]*$", question["content"].strip()) for name in group):
                        assert not any(re.match(rf"(..)?{name}[：:]", line) for line in lines for name in group), (
                            messages
                        )
    assert missing > 60


def test_no_two_rules_of_a_text_answer_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would be asked as if nothing told it, or either of two sentences would be right."""
    practice = part("practice")
    drawn: list[str] = []
    make = practice._rule

    def noted(rng: Random, chinese: bool, rule: str) -> Any:
        drawn.append(rule)
        return make(rng, chinese, rule)

    def clash(rules: Iterable[str]) -> bool:
        return any(practice._asks(one) & practice._asks(two) for one, two in combinations(dict.fromkeys(rules), 2))

    assert clash(practice._RULES)
    assert clash(practice._RULES_EN)  # when the gym opens, and from when to when it is open
    monkeypatch.setattr(practice, "_rule", noted)
    for seed in range(300):
        drawn.clear()
        practice._quoting(Random(seed), "train")
        assert not clash(drawn)


def test_answers_about_a_short_text_are_told_in_it() -> None:
    plain = part("plain")
    rng, told = Random(8), 0
    for _ in range(800):
        messages = plain.plain(rng, "train").messages
        for message in messages:
            answer = message["content"]
            if message["role"] == "assistant" and not re.search("没有说|无法回答|not given|do not answer", answer):
                words = re.sub(r"[.。](\[\d+\])?$", "", answer)
                # What stands behind the subject: another sentence may have a pronoun, or nothing, in its place.
                rests = [words[start:] for start in range(max(1, min(24, len(words) - 2)))]
                context = messages[0]["content"].lower()
                assert any(rest.lower().strip() in context for rest in rests), (answer, context)
                told += 1
    assert told > 600


def test_what_is_said_to_be_untold_is_told_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A near miss asks of another one, or for another part, or with another value than what is told."""
    plain = part("plain")
    asked: list[Any] = []
    question, untold = plain._Texts.question, plain._untold

    def noted(self: Any, fact: Any, name: str, values: Any = None, subject: Any = None) -> str:
        asked[:] = [fact.rule.tag, fact.subject if subject is None else subject, name, values or fact.values]
        return str(question(self, fact, name, values, subject))

    kinds = 0

    def checked(rng: Random, texts: Any, told: Any, others: Any, subjects: Any) -> str | None:
        nonlocal kinds
        made = untold(rng, texts, told, others, subjects)
        if made is not None:
            tag, subject, name, values = asked
            kinds += 1
            for fact in told:
                if fact.subject == subject and plain._near(fact.rule.tag, tag):
                    assert fact.rule.tag == tag
                    assert f"[{name}]" not in fact.text or values != fact.values, (made, fact)
        return None if made is None else str(made)

    monkeypatch.setattr(plain._Texts, "question", noted)
    monkeypatch.setattr(plain, "_untold", checked)
    for seed in range(600):
        plain._plain(Random(seed), "train")
    assert kinds > 200


def test_questions_have_words_for_every_part() -> None:
    """No mark of the patterns is left in a question or a text, and each part that can be asked for has its question."""
    plain = part("plain")
    for chinese in (True, False):
        texts = plain._Texts(Random(3), chinese)
        for kind, rules in texts.rules.items():
            for rule in rules:
                for _ in range(12):
                    fact = texts.fact(rule, texts.subject(kind))
                    questions = [texts.question(fact, name) for name in texts.told_parts(fact)]
                    for text in (fact.said(), *questions):
                        assert not re.search(r"[][@<>(){}|#;]", text), (rule, text)
                names = {name for name, _ in rule.asks} - {"@"}
                assert names <= {name for name, _ in plain._SLOT.findall(rule.says)}, rule
                assert texts.told_parts(plain._Fact(rule, "x", rule.says, rule.says, {})), rule


def test_stories_are_worked_out_right() -> None:
    otherwise = part("otherwise")
    rng = Random(2)
    for _ in range(400):
        text, answer = otherwise._story(rng, "train", rng.random() < 0.4)
        a, operator, b, result = re.findall(r"(\d+)([-+×÷])(\d+)=(\d+)", answer)[-1]
        assert int(result) == {
            "+": int(a) + int(b), "-": int(a) - int(b), "×": int(a) * int(b), "÷": int(a) // int(b)
        }[operator]  # fmt: skip
        if operator == "÷":
            assert int(a) % int(b) == 0, text
        if re.search(r"\d", text) and "一周" not in text:
            assert sorted(re.findall(r"\d+", text.replace("年后", ""))) == sorted((a, b)), (text, answer)


def test_only_sums_that_are_too_much_are_refused() -> None:
    otherwise, arithmetic = part("otherwise"), part("arithmetic")
    rng = Random(5)
    for _ in range(400):
        english = rng.random() < 0.4
        text = otherwise._several(rng, "train", english)
        simple = re.fullmatch(r"[^\d(（]*(\d+)(?: ?[-+] ?(\d+)| ?[*×x乘/÷] ?(\d))(?![\d.]|\s?[-+*×x/÷]).{0,6}", text)
        assert simple is None or re.search("[./^%]", text), text
    assert "心算不了" in arithmetic.TOO_LARGE_ZH


def test_counting_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    otherwise = part("otherwise")
    plainly = lambda rng, split, core, english, kind, values, calm: core.format_map(values)  # noqa: E731
    monkeypatch.setattr(otherwise, "dress", plainly)
    rng = Random(1)
    down = 0
    for _ in range(300):
        text, answer = otherwise._count(rng, "train", rng.random() < 0.4)
        numbers = [int(number) for number in re.findall(r"\d+", answer)]
        steps = {two - one for one, two in pairwise(numbers)}
        assert len(steps) == 1, (text, answer)
        if re.search("倒|往|back|down|from .* backwards", text.lower()):
            assert steps == {-1}
            down += 1
        elif re.search("偶|双|even", text):
            assert (steps, numbers[0] % 2) == ({2}, 0)
        elif re.search("奇|单|odd", text):
            assert (steps, numbers[0] % 2) == ({2}, 1)
        else:
            assert str(*steps) in re.findall(r"\d+", text.replace("twos", "2"))
    assert down > 80


def test_an_answer_is_in_the_language_that_is_asked_for() -> None:
    otherwise = part("otherwise")
    rng = Random(1)
    for _ in range(200):
        messages = otherwise.languages(rng, "train").messages
        for question, answer in zip(messages[::2], messages[1::2], strict=True):
            english = re.search(
                "英文|英语|english", question["content"].lower().replace("会说英", "").replace("会英", "")
            )
            chinese = re.search("[\u4e00-\u9fff]", answer["content"])
            if not re.search("中文|汉语|chinese", question["content"].lower()):
                assert english, question
                assert not chinese, (question, answer)


def test_a_persona_of_one_sentence_answers_from_it() -> None:
    otherwise = part("otherwise")
    rng, told = Random(4), 0
    for _ in range(300):
        messages = otherwise.personas(rng, "train").messages
        for message in messages[1:]:
            said = message["content"]
            if message["role"] == "assistant" and not re.search("没想好|not thought", said):
                words = re.sub("^(我叫|我是|我的?|I am |My name is |I )", "", said).rstrip("。.")
                rest = re.sub("^(love|hate|live in|work at|have|can|dream of) ", "", words)
                parts = re.split("，|, ", rest)
                assert all(part_ in messages[0]["content"] for part_ in parts), messages
                told += 1
    assert told > 200


def test_a_search_asks_for_what_was_typed() -> None:
    """Whatever errors it has: nothing tells what was meant, and a search engine is told no more than the user was."""
    rng, typed = Random(8), 0
    for _ in range(300):
        messages = part("passages").knowledge(rng, "train").messages
        for question, answer in pairwise(messages):
            for call in answer.get("tool_calls", ()):
                typed += 1
                assert next(iter(call["arguments"].values())) in question["content"]
    assert typed > 40


def test_results_may_come_without_their_call() -> None:
    """LangChain's ChatZhipuAI sends them so."""
    rng = Random(9)
    found = 0
    for _ in range(600):
        messages = part("tools").sample(rng, "train").messages
        found += any(one["role"] == "user" and two["role"] == "tool" for one, two in pairwise(messages))
    assert 5 < found < 60


def test_more_layers_change_no_answer_until_they_learn() -> None:
    make = importlib.import_module("make")
    sizes = {**make.SIZES, "num_layers": 4, "hidden_size": 64, "ffn_hidden_size": 96, "padded_vocab_size": 128}
    torch.manual_seed(0)
    model = make.Tied(make.ChatGLMConfig(**sizes, attn_implementation="eager")).eval()
    grown = make.deeper(model).eval()
    assert grown.config.num_layers == len(grown.transformer.encoder.layers) == 6
    ids = torch.randint(3, 128, (2, 20))
    assert torch.allclose(model(ids).logits, grown(ids).logits, atol=1e-6)
    grown.train()(input_ids=ids, labels=ids).loss.backward()
    new = [layer.self_attention.dense.weight for layer in (grown.transformer.encoder.layers[n] for n in (2, 5))]
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in new)


def test_matrices_of_one_byte_are_loaded_as_any_other(tmp_path: Path) -> None:
    """What `make.py` keeps: the file is half as large, and the model is the one that was rounded."""
    make = importlib.import_module("make")
    sizes = {**make.SIZES, "num_layers": 1, "hidden_size": 64, "ffn_hidden_size": 64, "padded_vocab_size": 128}
    model = make.ChatGLMForConditionalGeneration(make.ChatGLMConfig(**sizes)).half()
    model.save_pretrained(tmp_path)
    whole = (tmp_path / "model.safetensors").stat().st_size
    make.pack(tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").stat().st_size < whole * 0.6
    loaded = AutoModel.from_pretrained(tmp_path)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float16}
    for (name, got), wanted in zip(loaded.named_parameters(), make.rounded(model).parameters(), strict=True):
        assert torch.equal(got, wanted), name


def test_training_goes_on_with_a_finished_model(tmp_path: Path) -> None:
    """As it is in its folder: matrices of one byte, and a table of words that is learned once."""
    make = importlib.import_module("make")
    sizes = {**make.SIZES, "num_layers": 1, "hidden_size": 64, "ffn_hidden_size": 64, "padded_vocab_size": 128}
    torch.manual_seed(0)
    finished = make.rounded(make.Tied(make.ChatGLMConfig(**sizes)).untie()).eval()
    finished.save_pretrained(tmp_path)
    make.pack(tmp_path / "model.safetensors")
    model = make.finished_model(tmp_path)
    ids = torch.randint(3, 128, (2, 20))
    assert torch.allclose(model.eval()(ids).logits, finished(ids).logits, atol=1e-5)
    model.train()(input_ids=ids, labels=ids).loss.backward()
    learned = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    assert "transformer.embedding.word_embeddings.weight" in learned
    assert "transformer.output_layer.weight" not in learned


def test_the_table_of_held_out_answers() -> None:
    evaluate = importlib.import_module("evaluate")
    scores = {"tools": evaluate.Score(4, 3, 2, 1, 5, 4), "chat": evaluate.Score(4, 4)}
    assert evaluate.report(scores).splitlines()[2:] == [
        "| tools | 4 | 75.0% | 50.0% of 2 | 80.0% of 5 |",
        "| chat | 4 | 100.0% |  |  |",
        "| all | 8 | 87.5% | 50.0% of 2 | 80.0% of 5 |",
    ]
