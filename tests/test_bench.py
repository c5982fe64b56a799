"""`chatglm bench` and what it stands on: measured at a scripted engine, at the demo model, and over HTTP."""

from __future__ import annotations

import json
import math
import struct
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chatglm.assistant import Assistant, BaseAssistant, Delta, Finish, TextDelta, Usage
from chatglm.chat.formats import chat_format
from chatglm.cli import main
from chatglm.errors import InputError
from chatglm.loading import AutoTokenizer, demo_folder
from chatglm.measure import Clients, Sample, Spread, Workload
from scripted import ScriptedEngine, Writer
from server import serving


@pytest.fixture(scope="module")
def write() -> Writer:
    return Writer(chat_format(AutoTokenizer.from_pretrained(demo_folder())))


@pytest.fixture
def scripted(write: Writer) -> Iterator[Callable[..., tuple[Assistant, ScriptedEngine]]]:
    """An assistant that always says the same, a token a step; and its engine."""
    with ExitStack() as stack:

        def get(**options: Any) -> tuple[Assistant, ScriptedEngine]:
            engine = ScriptedEngine(write.say("one two three four five six seven eight nine ten"), **options)
            return stack.enter_context(Assistant(write.form, engine)), engine  # type: ignore[arg-type]

        yield get


class Endpoint(BaseAssistant):
    """Says two pieces, counts no tokens, and refuses what OpenAI refuses."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def stream(self, messages: Any, **options: Any) -> Generator[Delta]:
        self.asked.append((messages, options["params"]))
        if "min_new_tokens" in options["params"]:
            raise InputError("min_tokens: unknown field")
        yield TextDelta("a")
        yield TextDelta("b")
        yield Finish("stop", Usage(0, 0))

    def astream(self, messages: Any, **options: Any) -> AsyncGenerator[Delta]:
        raise NotImplementedError

    def stream_text(self, prompt: Any, **options: Any) -> Generator[Delta]:
        raise NotImplementedError

    def astream_text(self, prompt: Any, **options: Any) -> AsyncGenerator[Delta]:
        raise NotImplementedError

    def close(self) -> None:
        pass


def test_spread() -> None:
    assert Spread.of([]) is None
    assert Spread.of([3.0]) == Spread(1, 3.0, 3.0, 3.0)
    found = Spread.of([float(n) for n in range(101)])
    assert found == Spread(101, 50.0, 90.0, 99.0)


def test_times_are_those_of_the_engine(scripted: Callable[..., tuple[Assistant, ScriptedEngine]]) -> None:
    """Steps of 20 ms: no token comes sooner, and the sums fit one another."""
    delay = 0.02
    assistant, engine = scripted(delay=delay)
    clients = Clients(assistant, Workload(prompt_tokens=64, max_new_tokens=5, hold=False))
    probes = len(engine.asked)
    level = clients.run(2, requests=4)
    assert [len(asked.ids) for asked in engine.asked[probes:]] == pytest.approx([64] * 4, abs=8)
    assert len({tuple(asked.ids) for asked in engine.asked}) == len(engine.asked)
    assert [sample.new_tokens for sample in level.good] == [5] * 4
    assert not level.failures
    assert all(sample.first >= delay for sample in level.good)
    assert level.seconds >= 2 * 5 * delay
    assert level.tokens_per_second == pytest.approx(20 / level.seconds)
    found = level.to_dict()
    assert delay <= found["first_token_s"]["median"] <= found["first_token_s"]["p90"] <= found["first_token_s"]["p99"]
    assert found["between_tokens_s"]["median"] >= delay * 0.9
    assert found["tokens_per_second_each"] <= 1 / delay
    assert found["new_tokens"] == {"total": 20, "least": 5, "most": 5}


def test_same_seed_same_texts(scripted: Callable[..., tuple[Assistant, ScriptedEngine]]) -> None:
    def asked(seed: int, **more: Any) -> set[tuple[int, ...]]:
        assistant, engine = scripted()
        Clients(assistant, Workload(prompt_tokens=60, max_new_tokens=2, seed=seed, **more)).run(1, requests=3)
        return {tuple(one.ids) for one in engine.asked[2:]}

    assert asked(1) == asked(1)
    assert not asked(1) & asked(2)
    assert not asked(1) & asked(1, turn_tokens=8)  # what one workload left in a cache is of no use to another


def test_every_client_has_a_dialogue(scripted: Callable[..., tuple[Assistant, ScriptedEngine]]) -> None:
    assistant, _ = scripted()
    level = Clients(assistant, Workload(prompt_tokens=60, max_new_tokens=2, turns=2)).run(3, requests=1)
    assert sorted(sample.turn for sample in level.samples) == [0, 0, 0, 1, 1, 1]


def test_seconds_end_it(scripted: Callable[..., tuple[Assistant, ScriptedEngine]]) -> None:
    assistant, _ = scripted(delay=0.005)
    level = Clients(assistant, Workload(max_new_tokens=4)).run(3, seconds=0.3)
    assert level.seconds >= 0.3
    assert len(level.samples) >= 3


def test_however_short_every_client_has_a_dialogue() -> None:
    level = Clients(Endpoint(), Workload(max_new_tokens=2)).run(3, seconds=1e-9)
    assert len(level.samples) == 3


def test_interrupted_clients_begin_no_other_dialogue() -> None:
    """As after Ctrl+C: an error ends all clients, not only the one that had it."""
    endpoint = Endpoint()
    clients = Clients(endpoint, Workload(max_new_tokens=2))
    before = len(endpoint.asked)

    def watch(sample: Sample) -> None:
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        clients.run(1, seconds=1e6, watch=watch)
    assert len(endpoint.asked) == before + 1

    def first(sample: Sample) -> None:
        if threading.current_thread().name.endswith("_0"):
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        Clients(endpoint, Workload(max_new_tokens=2)).run(4, seconds=1e6, watch=first)


def test_failures_are_counted(scripted: Callable[..., tuple[Assistant, ScriptedEngine]]) -> None:
    """Of four at once three are refused; the figures are of those that were not."""
    assistant, engine = scripted(delay=0.02, room=1)
    level = Clients(assistant, Workload(max_new_tokens=8, hold=False)).run(4, requests=4)
    refused = level.failures["QueueFullError"]
    assert 1 <= refused == 4 - len(level.good)
    assert len(level.samples) == 4
    assert "requests are waiting" in level.to_dict()["failure_words"]["QueueFullError"]

    level = Clients(assistant, Workload(prompt_tokens=engine.context + 200)).run(1, requests=2)
    assert level.failures == {"ContextError": 2}
    assert level.to_dict()["first_token_s"] is None
    assert level.tokens_per_second == 0


def test_nothing_answered(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "--prompt-tokens", "50000", "--requests", "2", "--concurrency", "1", "--warmup", "0"]
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert not out
    assert "none of 2 requests was answered; ContextError: This model's maximum context length is" in err


def test_endpoint_that_holds_and_counts_nothing() -> None:
    endpoint = Endpoint()
    clients = Clients(endpoint, Workload(prompt_tokens=9, max_new_tokens=7, turns=2, turn_tokens=3))
    assert not clients.workload.hold
    assert clients.workload.max_new_tokens == 7
    assert not clients.counted
    level = clients.run(1, requests=2)
    assert [sample.new_tokens for sample in level.good] == [2, 2]
    assert level.cached is None
    (first, params), (second, _) = endpoint.asked[-2:]
    assert params == {"temperature": 0, "max_new_tokens": 7}
    assert [len(message["content"].split()) for message in first] == [9]
    assert [message["role"] for message in second] == ["user", "assistant", "user"]
    assert second[0] == first[0]
    assert second[1]["content"] == "ab"
    assert len(second[2]["content"].split()) == 3


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"prompt_tokens": 0}, "prompt_tokens is 0"),
        ({"turns": 0}, "turns is 0"),
        ({"prompt_tokens": 10, "shared_prefix": 11}, "from 0 to prompt_tokens, 10"),
    ],
)
def test_wrong_workload(options: dict[str, int], word: str) -> None:
    with pytest.raises(InputError, match=word):
        Workload(**options)  # type: ignore[arg-type]


# The command

SMALL = ("--prompt-tokens", "150", "--max-new-tokens", "4", "--requests", "3")


def test_demo_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, picture = tmp_path / "speed.json", tmp_path / "speed.png"
    words = ["bench", *SMALL, "--concurrency", "1,2", "--shared-prefix", "130", "--warmup", "1", "--seed", "5"]
    assert main([*words, "--json", str(file), "--picture", str(picture)]) == 0
    table = capsys.readouterr().out
    assert "the first 130 the same for all" in table
    assert "kept from ending early" in table
    report = json.loads(file.read_text("utf-8"))
    assert report["model"] == "demo"
    assert report["machine"]["cpu"] in table
    assert [level["concurrency"] for level in report["levels"]] == [1, 2]
    for level in report["levels"]:
        assert level["requests"] == 3
        assert level["failures"] == {}
        assert level["new_tokens"] == {"total": 12, "least": 4, "most": 4}
        assert 120 <= level["prompt_tokens"]["least"] <= level["prompt_tokens"]["most"] <= 180
        # The warm-up has read what is the same for all; what is not is computed.
        assert 3 * 110 / level["prompt_tokens"]["total"] < level["cached_share"] < 0.99
        assert f"{level['tokens_per_second_total']:.1f}" in table
        assert 0 < level["first_token_s"]["median"] < level["seconds"]
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    assert width > height > 200


def test_server(capsys: pytest.CaptureFixture[str]) -> None:
    """Over HTTP: the second turns find the first ones in the cache."""
    with Assistant.load(dtype="float32") as assistant, serving({"demo": assistant}) as url:
        words = ["bench", "--remote", f"{url}/v1", *SMALL, "--concurrency", "2", "--turns", "2", "--text", "--json"]
        assert main([*words, "--seed", "7"]) == 0
        out, err = capsys.readouterr()
        assert not err
        report = json.loads(out)
        (level,) = report["levels"]
        assert report["remote"] == f"{url}/v1"
        assert report["workload"]["seed"] == 7
        assert report["counted"]
        assert level["requests"] == 4  # whole dialogues
        assert level["failures"] == {}
        assert level["new_tokens"] == {"total": 16, "least": 4, "most": 4}
        assert level["first_token_later_turns_s"]["count"] == 2
        assert level["guessed_tokens"] is None
        read = level["prompt_tokens"]
        assert read["most"] > read["least"] + 20
        # The first turns' prompts, of those and the second ones'.
        assert 2 * 128 / read["total"] < level["cached_share"] < 0.7
        assert math.isclose(level["tokens_per_second_total"], 16 / level["seconds"])

        # In dialogues, with a table; nothing of the texts above is in the way.
        assert main([*words[:-2], "--may-stop"]) == 0
        table = capsys.readouterr().out
        assert "later turns, s" in table
        assert "which may end early" in table


def test_nobody_there(capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--remote-model", "m"]):
        assert main(["bench", "--remote", "http://127.0.0.1:9/v1", *more]) == 1
        out, err = capsys.readouterr()
        assert not out
        (line,) = err.splitlines()
        assert line.startswith("chatglm: http://127.0.0.1:9/v1")
        assert "refused" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--concurrency", "1,x"], "--concurrency 1,x: expected numbers"),
        (["--concurrency", "0"], "--concurrency 0: expected numbers"),
        (["--requests", "0"], "--requests 0: must be at least 1"),
        (["--warmup", "-1"], "--warmup -1: must be at least 0"),
        (["--seconds", "0"], "--seconds 0: must be above 0"),
        (["--shared-prefix", "500"], "shared_prefix is 500"),
        (["--picture", "nowhere/speed.png"], "there is no folder nowhere"),
        (["--remote", "http://127.0.0.1:9/v1", "--threads", "1"], "--threads cannot be used with --remote"),
    ],
)
def test_wrong_options(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == 1
    assert message in capsys.readouterr().err
