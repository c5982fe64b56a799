"""The official methods: every record of chat, stream_chat, stream_generate and process_response, and what they fix."""

from __future__ import annotations

import copy
import inspect
import pickle
import threading
from typing import Any

import pytest
import torch
from tiny import chatglm_model
from transformers import DynamicCache, LogitsProcessor
from transformers.generation.streamers import BaseStreamer

from chatglm.chat.tokenizers import ChatGLMTokenizer
from chatglm.errors import InputError, NumericalError, TokenizerError, UnsupportedError
from chatglm.kernels import native
from chatglm.models.api import DialogueCache, FiniteScores, NativeDialogueCache
from chatglm.models.native import decoder_of
from conftest import VERSIONS, Golden

ROLES = ("chatglm3", "glm4")
# GLM-4's chat methods are recorded from the earlier official code; the current one has none.
FILES = {"glm4": "golden_withchat.json"}


def records_of(golden, version: str) -> Golden:
    return golden(version, FILES.get(version, "golden.json"))


def history_of(version: str, history: Any) -> Any:
    return history if version in ROLES else [tuple(pair) for pair in history]


def plain(value: Any) -> Any:
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


class Force(LogitsProcessor):
    """Makes the model say given ids after a prompt, as the recording did."""

    def __init__(self, prompt_length: int, reply: list[int]) -> None:
        self.prompt_length, self.reply = prompt_length, reply

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        forced = torch.full_like(scores, -1e4)
        forced[:, self.reply[min(input_ids.shape[1] - self.prompt_length, len(self.reply) - 1)]] = 10.0
        return forced


def prompt_length(tokenizer: Any, version: str, query: str, history: Any, role: str = "user") -> int:
    if version in ROLES:
        return int(tokenizer.build_chat_input(query, history=history, role=role)["input_ids"].shape[1])
    return len(tokenizer.encode(tokenizer.build_prompt(query, history)))


def written(turn: dict) -> str:
    """What the model wrote, as one text."""
    return f"{turn['metadata']}\n{turn['content']}" if turn["metadata"] else turn["content"]


@pytest.mark.parametrize("version", VERSIONS)
def test_chat(version: str, golden, loaded) -> None:
    model, tokenizer = loaded(version)
    plain_records = [r for r in records_of(golden, version)["generation"]["chat"] if "max_length" in r]
    assert plain_records
    for record in plain_records:
        history = history_of(version, record["history"])
        before = copy.deepcopy(history)
        response, after = model.chat(
            tokenizer,
            record["query"],
            history=history,
            max_length=record["max_length"],
            num_beams=record["num_beams"],
            do_sample=False,
        )
        assert history == before  # differences: history-is-yours
        if version in ROLES:
            # differences: last-token. The official code cuts the last token off even where it ends no answer.
            ours, official = written(after[-1]), written(record["out"]["history"][-1])
            assert ours.startswith(official)
            assert ours != official
            assert plain(after[:-1]) == record["out"]["history"][:-1]
        else:
            assert response == record["out"]["response"]
            assert plain(after) == record["out"]["history"]


@pytest.mark.parametrize("version", ROLES)
def test_chat_with_a_system_message(version: str, golden, loaded) -> None:
    model, tokenizer = loaded(version)
    record = next(r for r in records_of(golden, version)["generation"]["chat"] if "random reply" in r.get("name", ""))
    official = record["out"]["response"]
    # differences: last-token. One token more is asked for, so that the official cut comes out.
    length = prompt_length(tokenizer, version, record["query"], record["history"])
    response, after = model.chat(
        tokenizer, record["query"], history=record["history"], do_sample=False, max_length=length + 12
    )
    assert response.startswith(official)
    assert after[:-1] == record["out"]["history"][:-1]


def forced_cases(golden, version: str) -> list[tuple[str, list[int], Any, str, dict]]:
    """(name, reply ids, history, role, recorded output)"""
    cases = []
    generation = records_of(golden, version)["generation"]
    forced = next(r["forced"] for r in generation["chat"] if "forced" in r)
    for record in forced:
        for kind, value in record.items():
            if kind in ("name", "reply_ids"):
                continue
            out = value.get("out", value)
            if "__error__" in out and "history" not in value:
                history = None
            elif "history" in value and "out" in value:
                history = value["history"]
            else:
                history = out["history"][:-1] if version not in ROLES else None
            cases.append((f"{record['name']}/{kind}", record["reply_ids"], history, kind, out))
    return cases


@pytest.mark.parametrize("version", VERSIONS)
def test_forced_replies(version: str, golden, loaded) -> None:
    """Replies of every kind, as the model might give them, are read as recorded."""
    model, tokenizer = loaded(version)
    checked = 0
    for name, reply, history, kind, out in forced_cases(golden, version):
        role = "observation" if kind == "observation_role" else "user"
        if version in ROLES:
            system = [{"role": "system", **m} for m in ()]
            query = "查询"
            if kind == "observation_role":
                query = '{"price": 1}'
                tools_history = next(
                    h for n, _, h, k, _ in forced_cases(golden, version) if k == "with_tools_history" and h is not None
                )
                system = tools_history
            given = system if history is None else history
        else:
            given = [tuple(pair) for pair in (history or [])]
            query = "再见" if given else "你好"
        if version in ROLES:
            length = prompt_length(tokenizer, version, query, given, role)
        else:
            length = len(tokenizer.encode(tokenizer.build_prompt(query, given)))
        options: dict[str, Any] = {
            "history": given,
            "do_sample": False,
            "max_length": length + len(reply),
            "logits_processor": [Force(length, reply)],
        }
        if version in ROLES:
            options["role"] = role
        response, after = model.chat(tokenizer, query, **options)
        streamed = list(model.stream_chat(tokenizer, query, **options))
        assert streamed[-1] == (response, after), name  # differences: stream-complete
        if "__error__" in out:
            # differences: no-eval. Officially SyntaxError or JSONDecodeError; what is no call stays text.
            assert isinstance(response, dict), name
            assert set(response) == {"name", "content"}, name
        elif isinstance(out["response"], dict) and out["response"].get("parameters", 0) is None:
            assert response["name"] == out["response"]["name"]  # differences: no-eval. Officially the code was RUN.
            assert "content" in response
        elif reply[-1] not in tokenizer.control_ids:
            official = out["response"]  # differences: last-token
            assert str(response).startswith(str(official)[:-2]), name
        else:
            assert response == out["response"], name
            assert plain(after) == out["history"], name
        checked += 1
    assert checked >= 6


@pytest.mark.parametrize("version", VERSIONS)
def test_stream_chat(version: str, golden, loaded) -> None:
    """differences: stream-complete. Each official yield is among ours; ours go on to the last token."""
    model, tokenizer = loaded(version)
    for record in records_of(golden, version)["generation"]["stream_chat"]:
        if "max_length" not in record:
            continue
        history = history_of(version, record["history"])
        before = copy.deepcopy(history)
        options = {"history": history, "max_length": record["max_length"], "do_sample": False}
        yields = list(model.stream_chat(tokenizer, record["query"], **options))
        responses = [response for response, _ in yields]
        for official in record["out"]["responses"]:
            assert official in responses or official == "", official
        assert history == before  # differences: history-is-yours
        assert yields[-1] == model.chat(tokenizer, record["query"], **options)
        official = record["out"]["last_history"]
        assert plain(yields[-1][1])[: len(official) - 1] == official[:-1]


def test_a_cache_is_used_whatever_the_folder_s_generation_config_says(loaded, monkeypatch) -> None:
    """A model that was saved by a trainer often says `use_cache: false`; a cache that is given is used all the same."""
    model, tokenizer = loaded("chatglm3")
    options: dict[str, Any] = {"history": [], "do_sample": False, "max_new_tokens": 12}
    without = list(model.stream_chat(tokenizer, "你好", **options))
    monkeypatch.setattr(model.generation_config, "use_cache", False)
    steps = list(model.stream_chat(tokenizer, "你好", return_past_key_values=True, **options))
    assert [step[:2] for step in steps] == without


def test_the_shorter_of_the_folder_s_length_and_max_length_holds(loaded, monkeypatch) -> None:
    model, tokenizer = loaded("chatglm3")
    made: list[int] = []
    generate = model.generate

    def counting(**options: Any) -> Any:
        found = generate(**options)
        made.append(found.shape[1] - options["input_ids"].shape[1])
        return found

    monkeypatch.setattr(model, "generate", counting)
    length = prompt_length(tokenizer, "chatglm3", "你好", [])
    for own, most, expected in ((None, 7, 7), (4, 7, 4), (9, 7, 7)):
        monkeypatch.setattr(model.generation_config, "max_new_tokens", own)
        model.chat(tokenizer, "你好", history=[], do_sample=False, max_length=length + most, eos_token_id=-1)
        assert made.pop() == expected


@pytest.mark.parametrize("version", ["chatglm2", *ROLES])
def test_stream_chat_with_a_cache(version: str, golden, loaded) -> None:
    """differences: cache-is-exact. Two turns with a cache give what they give without; the first is as recorded."""
    model, tokenizer = loaded(version)
    for record in records_of(golden, version)["generation"]["stream_chat"]:
        if "max_length" in record:
            continue
        history: list[Any] = []
        cache = None
        for number, turn in enumerate(record["out"]):
            fresh = prompt_length(tokenizer, version, turn["query"], history)
            options: dict[str, Any] = {"history": history, "do_sample": False, "max_length": fresh + 10}
            if "yields" in turn:  # forced to say 我是助手 and stop
                reply = [tokenizer.get_command("<|assistant|>")] if False else []
                text = "我是助手" if version == "chatglm2" else "\n我是助手"
                reply = [*tokenizer.encode_text(text), sorted(model_stops(tokenizer))[0]]
                options["logits_processor"] = [Force(fresh, reply)]
            with_cache = list(
                model.stream_chat(
                    tokenizer, turn["query"], past_key_values=cache, return_past_key_values=True, **options
                )
            )
            without = list(model.stream_chat(tokenizer, turn["query"], **options))
            assert [step[:2] for step in with_cache] == without
            response, history, cache = with_cache[-1]
            if number == 0:
                recorded = turn.get("yields") or [{"response": r} for r in turn["responses"]]
                official = [step["response"] for step in recorded]
                assert [r for r, _ in without if r][: len(official)] == [
                    r for n, r in enumerate(official) if r and r not in official[:n]
                ] or response.startswith(official[-1])
            assert isinstance(cache, DialogueCache)
            assert cache.get_seq_length() == len(cache.token_ids)


@pytest.mark.skipif(native.library() is None, reason="no native library on this machine")
@pytest.mark.parametrize("version", ["chatglm2", *ROLES])
def test_a_quantised_dialogue_stays_in_the_native_decoder(version: str, loaded) -> None:
    """What a second turn finds in the cache gives the answer that all of it anew gives."""
    model, tokenizer = loaded(version)
    model = copy.deepcopy(model).quantize(8)
    kind = DialogueCache if decoder_of(model, torch.float16, packed=True) is None else NativeDialogueCache
    if version != "glm4":  # whose tiny heads are too narrow for the decoder
        assert kind is NativeDialogueCache
    history: list[Any] = []
    cache = None
    for query in ("你好", "晚上睡不着应该怎么办"):
        options = {"history": history, "do_sample": False, "max_new_tokens": 20}
        steps = list(model.stream_chat(tokenizer, query, past_key_values=cache, return_past_key_values=True, **options))
        assert [step[:2] for step in steps] == list(model.stream_chat(tokenizer, query, **options))
        _, history, cache = steps[-1]
        assert isinstance(cache, kind)
        assert cache.get_seq_length() == len(cache.token_ids) > 0


@pytest.mark.skipif(native.library() is None, reason="no native library on this machine")
def test_a_model_that_ran_natively_can_be_copied(loaded) -> None:
    model, tokenizer = loaded("chatglm2")
    model = copy.deepcopy(model).quantize(8)
    options = {"do_sample": False, "max_new_tokens": 8}
    answer = model.chat(tokenizer, "你好", **options)
    for same in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301 - our own
        assert decoder_of(same, torch.float16, packed=True) is not decoder_of(model, torch.float16, packed=True)
        assert same.chat(tokenizer, "你好", **options) == answer
    same.transformer.embedding.word_embeddings.weight.data.zero_()  # a copy shares nothing
    assert model.chat(tokenizer, "你好", **options) == answer


def model_stops(tokenizer: Any) -> frozenset[int]:
    from chatglm.chat.formats import chat_format

    return chat_format(tokenizer).stop_ids


@pytest.mark.parametrize("version", ["chatglm2", *ROLES])
def test_a_cache_saves_work_and_survives_any_history(version: str, loaded) -> None:
    model, tokenizer = loaded(version)
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": 6}
    *_, (_response, history, cache) = model.stream_chat(
        tokenizer, "你好，请介绍一下北京。", return_past_key_values=True, **options
    )
    fed: list[int] = []
    handle = model.transformer.register_forward_pre_hook(
        lambda _, __, kwargs: fed.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    try:
        expected = model.chat(tokenizer, "再见", history=history, **options)
        whole = fed[0]
        fed.clear()
        *_, (again, turns, cache) = model.stream_chat(
            tokenizer, "再见", history=history, past_key_values=cache, return_past_key_values=True, **options
        )
        assert (again, turns) == expected
        # At least the first question is not read again (a random model's answer is tokenised in another way).
        shared = prompt_length(tokenizer, version, "你好，请介绍一下北京。", [])
        assert fed[0] <= whole - shared + (3 if version == "chatglm2" else 0)
    finally:
        handle.remove()
    # Another history altogether, and the same turn again: still exact.
    for other in ([], history[:-1] if version in ROLES else history):
        expected = model.chat(tokenizer, "换个话题", history=other, **options)
        *_, step = model.stream_chat(
            tokenizer, "换个话题", history=other, past_key_values=cache, return_past_key_values=True, **options
        )
        assert step[:2] == expected
    with pytest.raises(InputError, match="DynamicCache"):
        next(model.stream_chat(tokenizer, "x", past_key_values=DynamicCache(), **options))


def test_no_cache_between_turns_of_chatglm(loaded) -> None:
    model, tokenizer = loaded("chatglm")
    with pytest.raises(UnsupportedError, match="both directions"):
        next(model.stream_chat(tokenizer, "x", return_past_key_values=True))
    *_, (streamed, _) = model.stream_chat(tokenizer, "你好", [], 20, do_sample=False)  # max_length is the fourth
    assert streamed == model.chat(tokenizer, "你好", [], 20, do_sample=False)[0]


@pytest.mark.parametrize("version", VERSIONS)
def test_stream_generate(version: str, golden, loaded) -> None:
    """differences: stream-complete. Every official yield, and the last token where official v1 left it out."""
    g = records_of(golden, version)
    model, _ = loaded(version)
    ids = torch.tensor(golden(version)["model"]["prompts"][0]["inputs"]["input_ids"])
    length = ids.shape[1]

    def run(**options: Any) -> list[list[int]]:
        return [
            step[0, length:].tolist()
            for step in model.stream_generate(ids, do_sample=False, max_length=length + 6, **options)
        ]

    records = g["generation"]["stream_generate_yields_max_length_plus6"]
    yields = run(eos_token_id=None)
    assert yields[: len(records)] == records
    assert [len(step) for step in yields] == [1, 2, 3, 4, 5, 6]

    forced = g["generation"]["stream_generate_yields_eos_forced_at_3"]
    reply = [*forced[2], model_stop(version)]
    yields = run(eos_token_id=model_stop(version), logits_processor=[Force(length, reply)])
    assert yields[:3] == forced[:3]
    assert yields[3] == reply


def model_stop(version: str) -> int:
    return {"chatglm": 130005, "chatglm2": 2, "chatglm3": 2, "glm4": 151329}[version]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("number", range(5))
def test_stream_generate_samples_as_recorded(version: str, number: int, golden, loaded) -> None:
    g = records_of(golden, version)
    record = g["generation"]["sampling"][number]
    model, _ = loaded(version)
    ids = torch.tensor(golden(version)["model"]["prompts"][1]["inputs"]["input_ids"])
    torch.manual_seed(record["seed"])
    *_, last = model.stream_generate(ids, do_sample=True, max_new_tokens=16, eos_token_id=None, **record["kwargs"])
    assert last[0, ids.shape[1] :].tolist() == record["generate"]
    official = record["stream_generate"]["last"]
    assert record["generate"][: len(official)] == official


def test_stream_generate_in_batches_and_with_caches(loaded) -> None:
    model, tokenizer = loaded("chatglm3")
    batch = tokenizer(["你好", "The quick brown fox"], return_tensors="pt", padding=True)
    expected = model.generate(**batch, max_new_tokens=5, do_sample=False, eos_token_id=None)
    steps = list(
        model.stream_generate(
            **batch, max_new_tokens=5, do_sample=False, eos_token_id=None, return_past_key_values=True
        )
    )
    assert torch.equal(steps[-1][0], expected)
    lengths = [batch["input_ids"].shape[1] + n for n in range(1, 6)]
    assert [ids.shape[1] for ids, _ in steps] == lengths
    assert isinstance(steps[-1][1], DynamicCache)


def test_build_inputs_of_chatglm2(golden, loaded) -> None:
    """differences: cache-is-exact. `build_stream_inputs`, which drops a history, has no counterpart here."""
    model, tokenizer = loaded("chatglm2")
    for record in golden("chatglm2")["tokenizer"]["build_prompt"]:
        inputs = model.build_inputs(tokenizer, record["query"], record["history"])
        assert {name: tensor.tolist() for name, tensor in inputs.items()} == record["build_inputs"]


@pytest.mark.parametrize("version", ["chatglm", "chatglm2"])
def test_process_response_of_pairs(version: str, golden, loaded) -> None:
    model, _ = loaded(version)
    for record in golden(version)["generation"]["process_response"]:
        assert model.process_response(record["in"]) == record["out"]
    with pytest.raises(InputError, match="takes no history"):
        model.process_response("x", [])


@pytest.mark.parametrize("version", ROLES)
def test_process_response_of_roles(version: str, golden, loaded) -> None:
    model, _ = loaded(version)
    recorded = records_of(golden, version)["generation"]["process_response"]
    tools = next(r["out"]["history"][:1] for r in recorded if r["history"] == "tools" and "history" in r["out"])
    histories = {
        "empty": [],
        "user": [{"role": "user", "content": "q"}],
        "tools": [*tools, {"role": "user", "content": "q"}],
    }
    for record in recorded:
        history = histories[record["history"]]
        before = copy.deepcopy(history)
        response, after = model.process_response(record["in"], history)
        assert history == before
        out = record["out"]
        if "__error__" in out:
            if "IndexError" in out["__error__"]:
                continue  # differences: errors. The official code reads history[0] of an empty history.
            # differences: no-eval. Officially an exception; here what is no call stays text.
            assert set(response) == {"name", "content"}
            assert response["content"] == after[-1]["content"]
        elif isinstance(out["content"], dict) and out["content"].get("parameters", 0) is None:
            assert response == {"name": "interpreter", "content": after[-1]["content"]}  # differences: no-eval
            assert after == out["history"]
        else:
            assert response == out["content"], record["in"]
            assert after == out["history"], record["in"]
    with pytest.raises(InputError, match="needs the history"):
        model.process_response("x")


@pytest.mark.parametrize("version", VERSIONS)
def test_scores_that_are_no_numbers(version: str, golden, loaded) -> None:
    """differences: nan-raises. The official processor makes id 5 (198 in GLM-4) certain and says nothing."""
    for record in golden(version)["generation"]["InvalidScoreLogitsProcessor"]:
        scores = torch.arange(256.0)[None].repeat(2, 1)
        check = FiniteScores()
        if "nan" in record["in"]:
            scores[0, 7] = float("nan")
            with pytest.raises(NumericalError, match="row 0"):
                check(torch.zeros(2, 3, dtype=torch.long), scores)
        elif "-inf" in record["in"]:
            scores[1, 7] = -float("inf")  # a banned word is nothing wrong
            assert torch.equal(check(torch.zeros(2, 3, dtype=torch.long), scores), scores)
            scores[1] = -float("inf")
            with pytest.raises(NumericalError, match="row 1"):
                check(torch.zeros(2, 3, dtype=torch.long), scores)
        else:
            assert record["unchanged"]
            assert torch.equal(check(torch.zeros(2, 3, dtype=torch.long), scores), scores)
    model, tokenizer = loaded(version)
    head = model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _, __, out: out.clone().fill_(float("nan")))
    try:
        with pytest.raises(NumericalError, match="precision"):
            model.chat(tokenizer, "你好")
        with pytest.raises(NumericalError, match="precision"):
            list(model.stream_chat(tokenizer, "你好"))
    finally:
        handle.remove()


@pytest.mark.parametrize("version", VERSIONS)
def test_temperature_zero_is_greedy(version: str, loaded) -> None:
    """differences: temperature-zero."""
    model, tokenizer = loaded(version)
    expected = model.chat(tokenizer, "你好", do_sample=False, max_new_tokens=5)
    assert model.chat(tokenizer, "你好", temperature=0, max_new_tokens=5) == expected
    assert model.chat(tokenizer, "你好", temperature=0.0, top_p=0.5, max_new_tokens=5) == expected
    with pytest.raises(InputError, match="temperature"):
        model.chat(tokenizer, "你好", temperature=-1)


@pytest.mark.parametrize("version", VERSIONS)
def test_seeds_repeat(version: str, loaded) -> None:
    model, tokenizer = loaded(version)
    answers = []
    for _ in range(2):
        torch.manual_seed(7)
        answers.append(model.chat(tokenizer, "你好", max_new_tokens=8))
    torch.manual_seed(7)
    *_, streamed = model.stream_chat(tokenizer, "你好", max_new_tokens=8)
    assert answers[0] == answers[1] == streamed


def test_room_for_an_answer(loaded) -> None:
    for version in VERSIONS:
        model, tokenizer = loaded(version)
        with pytest.raises(InputError, match="max_length"):
            model.chat(tokenizer, "很长的问题" * 30, max_length=30)
        assert model.chat(tokenizer, "很长的问题" * 30, max_new_tokens=2)
    with pytest.raises(InputError, match="num_return_sequences"):
        model.chat(tokenizer, "x", num_return_sequences=2)


def test_tokenizer_of_another_model(loaded) -> None:
    model, _ = loaded("chatglm3")
    for other in ("chatglm", "glm4"):
        with pytest.raises(TokenizerError, match="same folder"):
            model.chat(loaded(other)[1], "x")
    with pytest.raises(TokenizerError, match="not a tokenizer of this family"):
        model.chat(object(), "x")


@pytest.mark.parametrize("version", VERSIONS)
def test_assisted_decoding_streams_the_same(version: str, loaded) -> None:
    """Prompt lookup accepts several tokens at a time; the stream and its cache are none the worse for it."""
    model, tokenizer = loaded(version)
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": 12}
    expected = model.chat(tokenizer, "你好你好你好", **options)
    assert model.chat(tokenizer, "你好你好你好", prompt_lookup_num_tokens=3, **options) == expected
    *_, last = model.stream_chat(tokenizer, "你好你好你好", prompt_lookup_num_tokens=3, **options)
    assert last == expected
    if version == "chatglm":
        return
    *_, (_, history, cache) = model.stream_chat(
        tokenizer, "你好你好你好", prompt_lookup_num_tokens=3, return_past_key_values=True, **options
    )
    *_, (*step, _) = model.stream_chat(
        tokenizer, "再见", history, past_key_values=cache, return_past_key_values=True, **options
    )
    assert tuple(step) == model.chat(tokenizer, "再见", history, **options)


@pytest.mark.parametrize("version", VERSIONS)
def test_stop_strings(version: str, loaded) -> None:
    """Also a text that takes several tokens, of which none has a whole character."""
    model, tokenizer = loaded(version)
    for stop in ("。", "😀", "a. b"):
        reply = tokenizer.encode_text(f"好{stop}你好你好")
        forced = {"logits_processor": Force(prompt_length(tokenizer, version, "你好", []), reply)}
        options: dict[str, Any] = {**forced, "stop_strings": [stop, "never"], "max_new_tokens": len(reply)}
        text, history = model.chat(tokenizer, "你好", do_sample=False, **options)
        *_, last = model.stream_chat(tokenizer, "你好", do_sample=False, **options)
        assert last == (text, history)
        whole = model.chat(tokenizer, "你好", do_sample=False, **forced, max_new_tokens=len(reply))[0]
        assert whole.startswith(text)
        assert len(text) < len(whole)
        assert model.process_response(f"好{stop}", *([[]] * (version in ROLES))) in (text, (text, history[1:]))
        # The tokenizer may be given once more, as generate wants it; one text needs no list; beams stop too.
        assert model.chat(tokenizer, "你好", do_sample=False, tokenizer=tokenizer, **{**options, "stop_strings": stop})[
            0
        ] == (text)
        assert model.chat(tokenizer=tokenizer, query="你好", do_sample=False, num_beams=2, **options)[0] == text


def test_stop_strings_and_tokenizers_that_are_none(loaded) -> None:
    model, tokenizer = loaded("chatglm3")
    for wrong in ("", [""], [3]):
        if wrong:
            with pytest.raises(InputError, match="stop_strings"):
                model.chat(tokenizer, "你好", stop_strings=wrong)
    with pytest.raises(InputError, match="first argument"):
        model.chat()
    with pytest.raises(InputError, match="two different ones"):
        model.chat(tokenizer, "你好", tokenizer=copy.copy(tokenizer))
    for version in VERSIONS:
        model, tokenizer = loaded(version)
        with pytest.raises(InputError, match="query: expected a string, got NoneType"):
            model.chat(tokenizer, None)


class Noted(BaseStreamer):
    def __init__(self) -> None:
        self.ids: list[int] = []
        self.ended = 0

    def put(self, value: torch.Tensor) -> None:
        self.ids += value.flatten().tolist()

    def end(self) -> None:
        self.ended += 1


@pytest.mark.parametrize("version", VERSIONS)
def test_a_streamer_in_a_stream(version: str, loaded) -> None:
    """It gets prompt and tokens as generate gives them, and its end also where the reader leaves early."""
    model, tokenizer = loaded(version)
    streamer = Noted()
    model.chat(tokenizer, "你好", do_sample=False, max_new_tokens=4, streamer=streamer)
    again = Noted()
    list(model.stream_chat(tokenizer, "你好", do_sample=False, max_new_tokens=4, streamer=again))
    assert (again.ids, again.ended) == (streamer.ids, 1)
    left = Noted()
    stream = model.stream_generate(torch.tensor([streamer.ids[:-4]]), do_sample=False, max_new_tokens=4, streamer=left)
    next(stream)
    stream.close()
    assert (left.ids, left.ended) == (streamer.ids[:-3], 1)
    with pytest.raises(UnsupportedError, match="num_beams=2: beam search cannot be streamed"):
        next(model.stream_chat(tokenizer, "你好", do_sample=False, num_beams=2))


def test_no_stop_id_at_all(loaded) -> None:
    model, tokenizer = loaded("chatglm2")
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": 4, "eos_token_id": None}
    *_, last = model.stream_chat(tokenizer, "你好", **options)
    assert last == model.chat(tokenizer, "你好", **options)
    with pytest.raises(InputError, match="return_dict_in_generate"):
        model.chat(tokenizer, "你好", return_dict_in_generate=True)


def test_leaving_a_stream_ends_its_thread(loaded) -> None:
    model, tokenizer = loaded("chatglm3")
    before = threading.active_count()
    stream = model.stream_chat(tokenizer, "你好", do_sample=False, max_new_tokens=500)
    next(stream)
    next(stream)
    stream.close()
    assert threading.active_count() == before
    # Never started: nothing runs, wrong arguments are still said at once.
    model.stream_chat(tokenizer, "你好").close()
    with pytest.raises(TypeError, match="query"):
        model.stream_chat(tokenizer)


def test_stream_takes_over_the_reader_s_settings(loaded) -> None:
    model, tokenizer = loaded("chatglm3")
    seen: list[tuple[bool, bool]] = []
    handle = model.register_forward_pre_hook(
        lambda *_: seen.append((torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")))
    )
    try:
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            list(model.stream_chat(tokenizer, "你好", do_sample=False, max_new_tokens=2))
        list(model.stream_chat(tokenizer, "你好", do_sample=False, max_new_tokens=2))
    finally:
        handle.remove()
    assert seen == [(True, True)] * 2 + [(False, False)] * 2


def test_two_streams_at_once(loaded) -> None:
    model, tokenizer = loaded("chatglm3")
    options = {"do_sample": False, "max_new_tokens": 6}
    expected = [list(model.stream_chat(tokenizer, q, **options)) for q in ("你好", "再见")]
    streams = [model.stream_chat(tokenizer, q, **options) for q in ("你好", "再见")]
    steps: list[list[Any]] = [[], []]
    for pair in zip(*streams, strict=True):
        for kept, step in zip(steps, pair, strict=True):
            kept.append(step)
    assert steps == expected


def test_characterglm(copied) -> None:
    from chatglm import AutoModel

    folder = copied("chatglm2")
    model = AutoModel.from_pretrained(folder, chatglm_generation="characterglm").float().eval()
    tokenizer = ChatGLMTokenizer.from_pretrained(folder, generation="characterglm")
    meta = {"user_info": "陆星辰", "bot_info": "苏梦远\n歌手", "bot_name": "苏梦远", "user_name": "陆星辰"}
    options = {"do_sample": False, "max_new_tokens": 6}
    response, history = model.chat(tokenizer, meta, "你好", history=[("", "来了")], **options)
    assert history == [("", "来了"), ("你好", response)]
    *_, step = model.stream_chat(tokenizer, meta, "你好", history=[("", "来了")], **options)
    assert step == (response, history)
    with pytest.raises(TypeError, match="mood"):
        model.chat(tokenizer, {"mood": "x"}, "你好")


@pytest.mark.parametrize("version", ["chatglm2", "chatglm3"])
def test_with_a_prefix(version: str, checkpoint, loaded) -> None:
    """A P-tuning prefix under chat and a cached dialogue: cached = uncached here too."""
    from chatglm import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(checkpoint(version), pre_seq_len=4)
    torch.manual_seed(0)
    model = AutoModel.from_pretrained(checkpoint(version), config=config).float().eval()
    torch.nn.init.normal_(model.transformer.prefix_encoder.embedding.weight)
    _, tokenizer = loaded(version)
    options = {"do_sample": False, "max_new_tokens": 6}
    assert model.chat(tokenizer, "你好", **options) != loaded(version)[0].chat(tokenizer, "你好", **options)
    *_, (_, history, cache) = model.stream_chat(tokenizer, "你好", return_past_key_values=True, **options)
    *_, (response, turns, _) = model.stream_chat(
        tokenizer, "再见", history, past_key_values=cache, return_past_key_values=True, **options
    )
    assert (response, turns) == model.chat(tokenizer, "再见", history, **options)


def test_a_prefix_and_the_tokenizer_s_batches_of_chatglm(checkpoint, loaded) -> None:
    """The official four-dimensional mask says nothing of the virtual tokens; they are visible all the same."""
    from chatglm import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(checkpoint("chatglm"), pre_seq_len=4)
    model = AutoModel.from_pretrained(checkpoint("chatglm"), config=config).float().eval()
    torch.nn.init.normal_(model.transformer.prefix_encoder.embedding.weight)
    _, tokenizer = loaded("chatglm")
    batch = tokenizer(["你好", "The quick brown fox"], return_tensors="pt", padding=True)
    with torch.no_grad():
        logits = model(**batch).logits
        for row, text in enumerate(["你好", "The quick brown fox"]):
            alone = model(**tokenizer(text, return_tensors="pt")).logits[0]
            torch.testing.assert_close(logits[row, -alone.shape[0] :], alone, atol=2e-4, rtol=0)
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    together = model.generate(**batch, **options)[:, batch["input_ids"].shape[1] :]
    single = tokenizer("你好", return_tensors="pt")
    assert together[0].tolist() == model.generate(**single, **options)[0, single["input_ids"].shape[1] :].tolist()


def test_the_methods_are_on_every_model() -> None:
    model = chatglm_model()
    for name in ("chat", "stream_chat", "stream_generate", "process_response", "generate"):
        assert inspect.ismethod(getattr(model, name))
