"""Several models in one server: loaded on first use, unloaded when idle or when memory is short."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from websockets.sync.client import connect

from chatglm.assistant import Assistant, BaseAssistant
from chatglm.encoders import Embedder
from chatglm.errors import CheckpointError, InputError
from chatglm.knowledge import Shelf as Documents
from chatglm.knowledge import Upload
from chatglm.serving.access.callers import Caller
from chatglm.serving.app import create_app
from chatglm.serving.catalog import Catalog, Source
from scripted import ScriptedEngine, Writer
from server import serving
from tiny_encoders import make_bare
from waiting import auntil, until

MIB = 1 << 20
QUESTION = {"messages": [{"role": "user", "content": "你好"}]}


class Shelf:
    """Models that can be loaded, and what became of them."""

    def __init__(self, write: Writer) -> None:
        self.write = write
        self.events: list[str] = []
        self.broken: set[str] = set()
        self.gates: dict[str, threading.Event] = {}
        self.engines: dict[str, ScriptedEngine] = {}
        self.closing: Callable[[Assistant], None] = lambda assistant: None
        self.gone: list[str] = []

    def source(self, name: str, text: str | None = None, **options: Any) -> Source:
        def load() -> BaseAssistant:
            self.events.append(f"load {name}")
            if name in self.gates:
                assert self.gates[name].wait(60)
            if name in self.broken:
                raise CheckpointError(f"/models/{name}: no such folder")
            engine = ScriptedEngine(self.write.say(text or name), context=512, delay=options.get("delay", 0.0))
            self.engines[name] = engine
            assistant = Assistant(self.write.form, engine)  # type: ignore[arg-type]
            weakref.finalize(assistant, self.gone.append, name)
            close = assistant.close

            def closed() -> None:
                self.events.append(f"close {name}")
                self.closing(assistant)
                close()

            assistant.close = closed  # type: ignore[method-assign]
            return assistant

        given = {"at_start": False, "size": lambda: MIB, **options}
        given.pop("delay", None)
        return Source(name, "chat", load, **given)


@pytest.fixture
def shelf(write: Writer) -> Shelf:
    return Shelf(write)


@contextlib.contextmanager
def served(*sources: Source, memory: int | None = None, **options: Any) -> Iterator[str]:
    with Catalog(sources, memory=memory) as catalog:
        catalog.start()
        with serving(catalog, **options) as url:
            yield url


def ask(url: str, model: str | None, **more: Any) -> httpx.Response:
    body = {**QUESTION, **({} if model is None else {"model": model}), **more}
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)


def said(url: str, model: str | None) -> str:
    answer = ask(url, model)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def test_models_are_loaded_on_first_use(shelf: Shelf) -> None:
    with served(shelf.source("a", at_start=True), shelf.source("b", aliases=("gpt-4", "b2"))) as url:
        assert shelf.events == ["load a"]
        assert httpx.get(f"{url}/health").json() == {"status": "ok"}
        assert "chatglm_engine_running" in httpx.get(f"{url}/metrics").text
        listed = httpx.get(f"{url}/v1/models").json()["data"]
        assert [(one["id"], one["max_model_len"]) for one in listed] == [
            ("a", 512),
            ("b", None),
            ("gpt-4", None),
            ("b2", None),
        ]
        assert httpx.get(f"{url}/v1/models/b").json()["id"] == "b"
        assert shelf.events == ["load a"]  # to list models loads none
        assert said(url, "a") == said(url, None) == "a"
        assert said(url, "gpt-4") == said(url, "b") == "b"
        assert shelf.events == ["load a", "load b"]
        assert {one["max_model_len"] for one in httpx.get(f"{url}/v1/models").json()["data"]} == {512}
    assert sorted(shelf.events[2:]) == ["close a", "close b"]


def test_requests_wait_for_their_model_and_others_do_not(shelf: Shelf) -> None:
    shelf.gates["b"] = threading.Event()
    answers: list[str] = []
    with served(shelf.source("a", at_start=True), shelf.source("b")) as url:
        threads = [threading.Thread(target=lambda: answers.append(said(url, "b"))) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: "load b" in shelf.events)
        assert said(url, "a") == "a"
        assert not answers
        shelf.gates["b"].set()
        for thread in threads:
            thread.join(60)
        assert answers == ["b"] * 3
        assert shelf.events.count("load b") == 1


def test_a_model_that_cannot_be_loaded_harms_no_other(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.broken.add("b")
    with served(shelf.source("a", at_start=True), shelf.source("b")) as url:
        refused = ask(url, "b")
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "model_not_loaded"
        assert "model 'b' cannot be loaded: /models/b: no such folder" in refused.json()["error"]["message"]
        assert int(refused.headers["Retry-After"]) > 0
        assert said(url, "a") == "a"
        assert ask(url, "b").status_code == 503
        assert shelf.events.count("load b") == 1  # it is not tried at every request
        assert httpx.get(f"{url}/health").status_code == 200
        shelf.broken.clear()
        monkeypatch.setattr("chatglm.serving.catalog._TRY_AGAIN", 0.0)
        assert said(url, "b") == "b"


def test_a_model_is_unloaded_while_a_websocket_waits_for_a_question(shelf: Shelf, tmp_path: Path) -> None:
    with Documents(tmp_path) as documents:
        documents.make("base", None).add(Upload("a.txt", b"The valve is at the door."))
        source = shelf.source("a", "It is at the door.", idle=0.05)
        with (
            served(source, knowledge=documents, dialects=("chatchat",)) as url,
            connect(f"ws{url[4:]}/local_doc_qa/stream_chat/base") as socket,
        ):
            for _ in range(2):
                socket.send(json.dumps({"question": "Where is the valve?", "knowledge_base_id": "base"}))
                while '"flag": "end"' not in str(socket.recv(60)):
                    pass
                until(lambda: shelf.events and shelf.events[-1] == "close a")
        assert shelf.events == ["load a", "close a"] * 2


def test_an_idle_model_is_unloaded_and_comes_back(shelf: Shelf) -> None:
    with served(shelf.source("a", at_start=True, idle=0.2), shelf.source("b", idle=0.2), shelf.source("c")) as url:
        assert said(url, "c") == "c"
        assert said(url, "b") == "b"
        until(lambda: {"close a", "close b"} <= {*shelf.events})
        until(lambda: {"a", "b"} <= {*shelf.gone})  # nothing keeps them
        assert httpx.get(f"{url}/health").json() == {"status": "ok"}
        assert "chatglm_engine_running{" in httpx.get(f"{url}/metrics").text
        assert said(url, "b") == "b"
        assert shelf.events.count("load b") == 2
        assert "close c" not in shelf.events


def test_a_model_that_somebody_looks_at_while_it_is_unloaded_goes_all_the_same(shelf: Shelf) -> None:
    looked: list[Assistant] = []

    def collected(phase: str, what: dict[str, int]) -> None:
        if phase == "stop" and what["generation"] == 2:
            looked.clear()

    shelf.closing = looked.append
    gc.callbacks.append(collected)
    try:
        with served(shelf.source("a", idle=0.05)) as url:
            assert said(url, "a") == "a"
            until(lambda: shelf.gone == ["a"])
    finally:
        gc.callbacks.remove(collected)


def test_timers_that_end_at_once_unload_a_model_once(shelf: Shelf) -> None:
    async def run() -> list[str]:
        with Catalog([shelf.source("a", idle=0.05)]) as catalog:
            catalog.begin()
            offer = catalog.offers["a"]
            for _ in range(3):  # each use begins to wait anew
                await asyncio.create_task(catalog.acquire(offer))
                await asyncio.sleep(0)
            time.sleep(0.1)
            for _ in range(2):
                await asyncio.sleep(0)
            model = await catalog.acquire(offer)  # comes before the one that is unloaded is closed
            (holder,) = catalog.models()
            assert holder.model is model
            await auntil(lambda: "close a" in shelf.events)
            assert sorted(shelf.events) == ["close a", "load a", "load a"]
            assert holder.model is model
        return shelf.events

    assert asyncio.run(run())[-1] == "close a"


def test_a_model_in_use_is_not_unloaded(shelf: Shelf) -> None:
    with served(shelf.source("a", "一二三四五六七八九十" * 4, idle=0.05, delay=0.03)) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
        with client, client.chat.completions.create(model="a", messages=QUESTION["messages"], stream=True) as stream:
            pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
        assert "".join(pieces) == "一二三四五六七八九十" * 4
        assert shelf.events[0] == "load a"
        until(lambda: shelf.events[-1] == "close a")
        assert shelf.events == ["load a", "close a"]


def test_a_client_that_leaves_lets_the_model_go(shelf: Shelf) -> None:
    with served(shelf.source("a", "一二三四五六七八九十" * 20, idle=0.1, delay=0.05)) as url:
        for stream in (True, False):
            with (
                contextlib.suppress(httpx.TimeoutException),
                httpx.Client(timeout=0.6) as client,
                client.stream("POST", f"{url}/v1/chat/completions", json={**QUESTION, "stream": stream}) as answer,
            ):
                next(answer.iter_bytes())
            until(lambda: shelf.events[-1] == "close a")
        assert shelf.events == ["load a", "close a"] * 2


def test_the_memory_budget(shelf: Shelf) -> None:
    """Of the models that nobody uses, the one used least recently goes first."""
    with served(*(shelf.source(name) for name in "abc"), memory=2 * MIB) as url:
        for name in "ab":
            assert said(url, name) == name
        assert said(url, "a") == "a"
        assert said(url, "c") == "c"
        assert shelf.events == ["load a", "load b", "close b", "load c"]
        assert said(url, "b") == "b"
        assert shelf.events[4:] == ["close a", "load b"]


def test_a_model_that_is_in_use_keeps_its_memory(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    long = shelf.source("a", "一二三四五六七八九十" * 4, delay=0.03)
    with served(long, shelf.source("b"), memory=MIB) as url:
        answers: list[str] = []
        first = threading.Thread(target=lambda: answers.append(said(url, "a")))
        first.start()
        until(lambda: bool(shelf.engines) and bool(shelf.engines["a"].asked))
        assert said(url, "b") == "b"  # it has waited
        first.join(60)
        assert answers == ["一二三四五六七八九十" * 4]
        assert shelf.events == ["load a", "close a", "load b"]
        # Not for ever.
        monkeypatch.setattr("chatglm.serving.catalog._LONGEST_WAIT", 0.2)
        first = threading.Thread(target=lambda: ask(url, "a"))
        monkeypatch.setattr("chatglm.serving.catalog._LONGEST_WAIT", 60.0)
        first.start()
        until(lambda: shelf.events.count("load a") == 2 and bool(shelf.engines["a"].asked))
        monkeypatch.setattr("chatglm.serving.catalog._LONGEST_WAIT", 0.1)
        refused = ask(url, "b")
        first.join(60)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "model_not_loaded"


def test_a_model_that_waits_for_memory_keeps_no_other_away(shelf: Shelf) -> None:
    long = shelf.source("a", "一二三四五六七八九十" * 20, delay=0.03)
    sources = [long, shelf.source("b", size=lambda: 2 * MIB), shelf.source("c")]
    with served(*sources, memory=2 * MIB) as url, ThreadPoolExecutor(2) as pool:
        first = pool.submit(said, url, "a")
        until(lambda: bool(shelf.engines) and bool(shelf.engines["a"].asked))
        second = pool.submit(said, url, "b")
        time.sleep(0.3)  # so that it waits already
        assert said(url, "c") == "c"
        assert not first.done()
        assert not second.done()
        assert first.result(60)
        assert second.result(60) == "b"
        assert shelf.events[:2] == ["load a", "load c"]
        assert shelf.events[-1] == "load b"


def test_a_model_that_is_larger_than_the_budget(shelf: Shelf) -> None:
    with served(shelf.source("a"), shelf.source("b", size=lambda: 5 * MIB), memory=2 * MIB) as url:
        assert said(url, "a") == "a"
        refused = ask(url, "b")
        assert refused.status_code == 503
        assert "it needs 5.0 MiB, and the memory budget is 2.0 MiB" in refused.json()["error"]["message"]
        assert shelf.events == ["load a"]
    with (
        pytest.raises(InputError, match=r"a: needs 5.0 MiB, and 2.0 MiB of the memory budget are left"),
        served(shelf.source("a", size=lambda: 5 * MIB, at_start=True), memory=2 * MIB),
    ):
        pass


def test_requests_of_the_server_to_itself_hold_their_model(shelf: Shelf) -> None:
    async def run() -> list[str]:
        with Catalog([shelf.source("a")]) as catalog:
            app = create_app(catalog)
            service = app.state.service
            status, answer = await service.call(Caller("", "x"), "/v1/chat/completions", {**QUESTION, "model": "a"})
            assert (status, answer["choices"][0]["message"]["content"]) == (200, "a")
            (holder,) = catalog.models()
            assert holder.users == 0

            async def outside() -> None:  # a dialect that asks outside of a request
                await service.find("a", Caller("", "x"))
                assert holder.users == 1

            await asyncio.create_task(outside())
            await asyncio.sleep(0)
            assert holder.users == 0
        return shelf.events

    assert asyncio.run(run()) == ["load a", "close a"]


def test_names_must_differ(shelf: Shelf) -> None:
    with pytest.raises(InputError, match="b: two models have this name"):
        Catalog([shelf.source("a", aliases=("b",)), shelf.source("b")])
    with pytest.raises(InputError, match="no models given"):
        create_app({})


def test_what_is_listed(shelf: Shelf, tmp_path: Path) -> None:
    texts = Source("texts", "embedding", lambda: Embedder.load(make_bare(tmp_path / "m")), root="org/texts")
    with served(shelf.source("a", aliases=("other",)), texts) as url:
        listed = httpx.get(f"{url}/v1/models").json()["data"]
        assert [one["id"] for one in listed] == ["a", "other", "texts"]
        assert [one["root"] for one in listed] == ["a", "other", "org/texts"]
        assert listed[2]["max_model_len"] == 64
        assert all(one["parent"] is None and one["permission"][0]["allow_sampling"] for one in listed)
        assert httpx.get(f"{url}/v1/models/texts").json() == listed[2]
        # An encoder does not answer, and no route takes another kind for it.
        refused = ask(url, "texts")
        assert refused.status_code == 404
        assert "'texts' is not a model for chat; available: a, other" in refused.json()["error"]["message"]
        assert httpx.post(f"{url}/v1/embeddings", json={"input": "a", "model": "texts"}).status_code == 200
        assert shelf.events == []
