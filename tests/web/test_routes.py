"""The page's routes over HTTP, with a model that says what a script has."""

from __future__ import annotations

import contextlib
import html.parser
import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from attacks import ATTACKS
from browser import Site

from chatglm.characters import Character
from chatglm.chat.messages import Message, ToolSpec
from chatglm.conversation.events import Source
from chatglm.conversation.store import StoreLimits
from chatglm.tools import Consent, Outcome, Toolbox
from chatglm.web.render import render

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001a5f645"
    "400000000049454e44ae426082"
)


class Visitor(httpx.Client):
    """A browser, as far as a server sees one."""

    def __init__(self, url: str, language: str = "en", **options: Any) -> None:
        self.origin = url.removesuffix("/ui")
        headers = {"Origin": self.origin, "Accept-Language": language, **options.pop("headers", {})}
        super().__init__(base_url=url, headers=headers, timeout=60, **options)

    def new(self, **settings: Any) -> str:
        response = self.post("/conversations", json={"settings": settings} if settings else {})
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    def ask(self, conversation: str, text: str, **more: Any) -> list[tuple[str, dict[str, Any]]]:
        """Ask, and wait for the answer: its events."""
        response = self.post(f"/c/{conversation}/send", json={"text": text, **more})
        assert response.status_code == 202, response.text
        return self.events(conversation, response.json()["after"])

    def events(self, conversation: str, after: int = 0, most: int = 10_000) -> list[tuple[str, dict[str, Any]]]:
        found: list[tuple[str, dict[str, Any]]] = []
        with self.stream("GET", f"/c/{conversation}/events", params={"after": after}) as response:
            if response.status_code == 204:
                return []
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            kind = ""
            for line in response.iter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "data":
                    found.append((kind, json.loads(value)))
                    if len(found) >= most:
                        break
        return found


def kinds(events: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Without texts that follow one another."""
    return [
        kind for index, (kind, _) in enumerate(events) if index == 0 or (kind, events[index - 1][0]) != ("text",) * 2
    ]


def final(events: list[tuple[str, dict[str, Any]]]) -> list[str]:
    return [data["html"] for kind, data in events if kind == "turn"]


class _Look(html.parser.HTMLParser):
    """What a page loads, and scripts and styles that stand in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.inline: list[str] = []
        self._script: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.loads += [str(given[name]) for name in ("src", "href", "action") if name in given]
        self.inline += [f"{tag} {name}" for name in given if name.startswith("on") or name == "style"]
        if tag == "style" or (tag == "script" and "src" not in given and given.get("type") != "application/json"):
            self.inline.append(f"<{tag}>")


class _Asker:
    """A tool that a person is asked about."""

    spec = ToolSpec({"name": "send_mail", "description": "Send a mail.", "parameters": {"type": "object"}})
    consent = Consent.ALWAYS

    def __init__(self) -> None:
        self.ran: list[Any] = []

    async def run(self, arguments: Any) -> Outcome:
        self.ran.append(dict(arguments))
        return Outcome("sent", whole="It was sent <b>today</b>.")


@pytest.fixture(scope="module")
def asker() -> _Asker:
    return _Asker()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, asker: _Asker) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"), toolbox=Toolbox([asker]))  # type: ignore[list-item]
    made.say("Hello", "Hello there.")
    yield made
    made.close()


@pytest.fixture
def visitor(site: Site) -> Iterator[Visitor]:
    with Visitor(site.url) as made:
        yield made


# Pages


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize(
    "path", ["/", "/new", "/new?mode=tools", "/new?mode=code", "/new?mode=character", "/new?mode=documents", "/login"]
)
def test_pages_load_nothing_from_elsewhere_and_have_no_script_in_them(site: Site, path: str, language: str) -> None:
    with Visitor(site.url, language, headers={"Accept": "text/html"}) as visitor:
        response = visitor.get(path)
        assert response.status_code == 200
        look = _Look(response.text)
        assert look.inline == []
        assert all(one.startswith(("/ui/", "#")) for one in look.loads), look.loads
        assert (f'lang="{"zh-CN" if language == "zh" else "en"}"') in response.text
        policy = response.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "same-origin"
        assert response.headers["cache-control"] == "no-store"
        for one in set(look.loads):
            if "/static/" in one:
                assert visitor.get(one.removeprefix("/ui")).status_code == 200, one


def test_static_files_are_kept_for_ever_under_the_hash_of_all(visitor: Visitor) -> None:
    page = visitor.get("/new").text
    address = re.search(r"/ui(/static/\w+/page\.js)", page)
    assert address is not None
    found = visitor.get(address[1])
    assert found.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert found.headers["content-encoding"] == "gzip"
    assert found.headers["content-type"].startswith("text/javascript")
    plain = visitor.get(address[1], headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == found.content
    assert visitor.get("/static/other/page.js").headers["cache-control"] == "no-store"
    assert visitor.get("/static/other/../app.py").status_code == 404
    assert visitor.get("/static/other/nothing.js").status_code == 404


def test_a_browser_keeps_its_language_and_colours(visitor: Visitor) -> None:
    assert 'lang="en"' in visitor.get("/new").text
    assert visitor.post("/preferences", json={"language": "zh", "theme": "dark"}).status_code == 204
    page = visitor.get("/new").text
    assert 'lang="zh-CN"' in page
    assert 'data-theme="dark"' in page
    refused = visitor.post("/preferences", json={"language": "fr"})
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == "请求有误：language: must be one of zh, en"


def test_the_about_box_names_model_version_sandbox_and_storage(visitor: Visitor) -> None:
    text = visitor.get("/about").text
    for word in ("Version", "chatglm 0.", "Model", "demo", "Sandbox", "Storage", "0 B of 1.0 GiB", "not signed in"):
        assert word in text


# A conversation


def test_a_conversation_with_a_model_that_is_not_here_goes_on(site: Site, visitor: Visitor) -> None:
    conversation = visitor.new()
    site.say("Still there?", "Yes.")
    owner = next(user.id for user in site.store.users.all() if site.store.conversations(user.id, limit=1))
    stored = {"model": "/models/chatglm3-6b", "adapter": "poems"}
    site.store.configure(owner, conversation, stored)
    page = visitor.get(f"/c/{conversation}").text
    assert "This conversation’s model, “chatglm3-6b”, is not here. “demo” answers from now on" in page
    events = visitor.ask(conversation, "Still there?")
    assert "".join(data["text"] for kind, data in events if kind == "text") == "Yes."
    (noted,) = [data["html"] for kind, data in events if kind == "note"]
    assert "does not have the adapter" in noted
    path = f"/conversations/{conversation}"
    assert visitor.patch(path, json={"settings": {"params": {"temperature": 0}}}).status_code == 200
    assert site.store.conversation(owner, conversation).settings == {**stored, "params": {"temperature": 0}}
    assert visitor.patch(path, json={"settings": {"model": "gpt"}}).status_code == 400
    assert visitor.patch(path, json={"settings": {"model": "demo", "adapter": ""}}).status_code == 200
    assert "is not here" not in visitor.get(f"/c/{conversation}").text


def test_a_question_is_answered_and_stays(site: Site, visitor: Visitor) -> None:
    text = "First **bold**.\n\n```python\nx = 1\n```\n\nLast $x^2$."
    question = site.say("What is bold?", text)
    conversation = visitor.new()
    events = visitor.ask(conversation, question)
    assert kinds(events) == ["began", "title", "began", "text", "block", "text", "block", "text", "turn", "done"]
    assert "".join(data["text"] for kind, data in events if kind == "text") == text
    assert final(events) == [render(text, f"/ui/c/{conversation}/files/")]
    blocks = [data for kind, data in events if kind == "block"]
    assert [data["index"] for data in blocks] == [0, 1]
    assert final(events)[0].startswith("".join(data["html"] for data in blocks))
    for data in blocks:
        before = "".join(told["text"] for kind, told in events[: events.index(("block", data))] if kind == "text")
        assert before.endswith(data["rest"])
    numbers = [data["number"] for _, data in events if "number" in data]
    assert numbers == sorted(set(numbers))
    page = visitor.get(f"/c/{conversation}").text
    assert final(events)[0] in page
    assert "What is bold?" in page
    done = events[-1][1]
    seconds = f"{done['seconds']:.1f} s · " if done["seconds"] >= 0.05 else ""
    tokens = f"{done['completion_tokens']} tokens</span>"
    assert f"{seconds}{tokens}" in page or tokens in page.partition('class="meta">')[2]
    assert "data-running" not in page
    assert visitor.get(f"/c/{conversation}/events", params={"after": numbers[-1]}).status_code == 204


def test_an_answer_that_ended_long_ago_is_read_on_the_page(
    site: Site, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its events are forgotten, and who asks for them is told that there are none."""
    monkeypatch.setattr("chatglm.conversation.answering._KEPT_SECONDS", 0.0)
    conversation = visitor.new()
    visitor.post(f"/c/{conversation}/send", json={"text": site.say("Long ago?", "Yes.")})
    while visitor.get(f"/c/{conversation}/events").status_code != 204:
        time.sleep(0.02)
    assert "Yes." in visitor.get(f"/c/{conversation}").text


def test_who_comes_back_in_the_midst_gets_the_whole_turn(site: Site, visitor: Visitor) -> None:
    text = "One.\n\nTwo **two**.\n\n- three\n- four\n\nFive."
    question = site.say("Count to five", text)
    conversation = visitor.new()
    events = visitor.ask(conversation, question)
    last = events[-1][1]["number"]
    for after in range(last):
        again = visitor.events(conversation, after)
        assert again[-1] == events[-1]
        assert final(again) == final(events) or kinds(again) == ["done"]
        told = [data["number"] for _, data in again if "number" in data]
        assert told[-1] == last
        assert told == list(range(told[0], last + 1))
        assert told[0] <= after + 1
    assert visitor.events(conversation, last) == []


def test_a_refresh_while_the_answer_is_made_shows_what_follows(site: Site, visitor: Visitor) -> None:
    question = site.say("A slow one", "slow " * 200, delay=0.005)
    conversation = visitor.new()
    visitor.post(f"/c/{conversation}/send", json={"text": question})
    first = visitor.events(conversation, most=20)
    assert first[-1][0] == "text"
    page = visitor.get(f"/c/{conversation}").text
    assert 'data-running="0"' in page
    assert "A slow one" in page
    assert 'class="answer"' not in page  # its turns come as events
    rest = visitor.events(conversation, 0)
    assert rest[: len(first)] == first
    assert rest[-1][0] == "done"
    assert "slow slow" in visitor.get(f"/c/{conversation}").text
    site.engine.delay = 0.0


def test_an_answer_can_be_stopped(site: Site, visitor: Visitor) -> None:
    question = site.say("Without end", "more " * 2000, delay=0.005)
    conversation = visitor.new()
    visitor.post(f"/c/{conversation}/send", json={"text": question})
    visitor.events(conversation, most=10)
    busy = visitor.post(f"/c/{conversation}/send", json={"text": question})
    assert (busy.status_code, busy.json()["error"]["code"]) == (409, "busy")
    assert visitor.post(f"/c/{conversation}/stop").status_code == 200
    events = visitor.events(conversation)
    assert events[-1][0] == "done"
    assert events[-1][1]["finish"] == "stopped"
    assert "Stopped" in visitor.get(f"/c/{conversation}").text
    site.engine.delay = 0.0


def test_questions_are_asked_again_edited_chosen_and_answers_rated(site: Site, visitor: Visitor) -> None:
    site.say("Name a colour", "Red.")
    site.say("Name a fruit", "Apple.")
    conversation = visitor.new()
    first = visitor.ask(conversation, "Name a colour")
    question, answer = (data["turn"] for kind, data in first if kind == "began")
    after = visitor.post(f"/c/{conversation}/again", json={"turn": answer}).json()["after"]
    again = visitor.events(conversation, after)
    began = next(data for kind, data in again if kind == "began")
    assert began["place"] == [2, 2]
    assert f'data-turn="{answer}"' in began["html"]  # the neighbour to go to
    assert "2/2" in visitor.get(f"/c/{conversation}").text
    after = visitor.post(f"/c/{conversation}/again", json={"turn": question, "text": "Name a fruit"}).json()["after"]
    visitor.events(conversation, after)
    page = visitor.get(f"/c/{conversation}").text
    assert "Apple." in page
    assert "Red." not in page
    assert visitor.post(f"/c/{conversation}/choose", json={"turn": question}).status_code == 200
    page = visitor.get(f"/c/{conversation}").text
    assert "Red." in page
    assert "Apple." not in page
    assert visitor.post(f"/c/{conversation}/rate", json={"turn": answer, "rating": -1}).status_code == 200
    visitor.post(f"/c/{conversation}/choose", json={"turn": answer})
    assert 'data-rating="-1"' in visitor.get(f"/c/{conversation}").text
    for wrong in ({"turn": 99999}, {"turn": "1"}, {}, {"turn": True}, {"turn": 1.5}):
        assert visitor.post(f"/c/{conversation}/choose", json=wrong).status_code in (400, 404)
    assert visitor.post(f"/c/{conversation}/rate", json={"turn": question, "rating": 1}).status_code == 400
    assert visitor.post(f"/c/{conversation}/rate", json={"turn": answer, "rating": 7}).status_code == 400


def test_lists_titles_search_and_deleting(site: Site, visitor: Visitor) -> None:
    site.say("天气如何", "今天是晴天。")
    one, two = visitor.new(), visitor.new()
    visitor.ask(one, "天气如何")
    visitor.ask(two, "Hello")
    assert visitor.patch(f"/conversations/{two}", json={"title": "  My   <b>title</b> "}).json()["title"] == (
        "My <b>title</b>"
    )
    shown = visitor.get("/conversations").text
    assert shown.index(two) < shown.index(one)
    assert "My &lt;b&gt;title&lt;/b&gt;" in shown
    for words in ("晴", "晴天", "天气 如何"):
        found = visitor.get("/conversations", params={"search": words}).text
        assert one in found
        assert two not in found
        assert "<mark>" in found
    assert "Nothing was found" in visitor.get("/conversations", params={"search": "nowhere"}).text
    assert visitor.delete(f"/conversations/{one}").status_code == 204
    assert visitor.get(f"/c/{one}").status_code == 404
    assert visitor.delete(f"/conversations/{one}").status_code == 404
    assert one not in visitor.get("/conversations").text
    assert "My &lt;b&gt;title" in visitor.get("/").text  # the newest


def test_long_lists_and_long_conversations_come_in_pieces(site: Site, visitor: Visitor) -> None:
    conversation = visitor.new()
    user = site.store.users.all()[-1].id
    owner = next(
        u.id for u in site.store.users.all() if any(c.id == conversation for c in site.store.conversations(u.id))
    )
    assert user
    for number in range(100):
        site.store.add(owner, conversation, Message("user", f"question {number};"))
        site.store.add(owner, conversation, Message("assistant", f"answer {number};"))
    page = visitor.get(f"/c/{conversation}").text
    assert "question 99;" in page
    assert "question 10;" not in page
    seen, before = "", re.search(r'data-before="(\d+)"', page)
    while before is not None:
        piece = visitor.get(f"/c/{conversation}/turns", params={"before": before[1]}).text
        seen, before = piece + seen, re.search(r'data-before="(\d+)"', piece)
    assert [int(n) for n in re.findall(r"question (\d+);", seen + page)] == list(range(100))
    large = site.store.make(owner)
    for number in range(8):
        site.store.add(owner, large, Message("user", f"large {number};"))
        site.store.add(owner, large, Message("assistant", "word " * 20_000))
    page = visitor.get(f"/c/{large}").text
    assert re.findall(r"large (\d);", page) == ["5", "6", "7"]
    assert 'data-before="' in page
    for _ in range(41):
        site.store.make(owner)
    more = re.search(r'data-before="(\d+)"', visitor.get("/conversations").text)
    assert more is not None
    assert conversation in visitor.get("/conversations", params={"before": more[1]}).text


def test_settings_are_kept_and_checked(visitor: Visitor) -> None:
    conversation = visitor.new()
    address = f"/conversations/{conversation}"
    good = {"mode": "tools", "system": "Be brief.", "params": {"temperature": 0.5, "stop": ["END"]}, "tools": []}
    assert visitor.patch(address, json={"settings": good}).json()["mode"] == "tools"
    page = visitor.get(f"/c/{conversation}").text
    assert "Be brief." in page
    assert 'value="0.5"' in page
    assert re.search(r'name="tools" value="send_mail"(?! checked)', page)
    assert visitor.patch(address, json={"settings": {"tools": None}}).status_code == 200
    assert "Be brief." in visitor.get(f"/c/{conversation}").text  # what was not sent stays
    for wrong in (
        {"temperature": 1},
        {"params": {"temperature": "hot"}},
        {"params": {"nonsense": 1}},
        {"mode": "nonsense"},
        {"model": "nonsense"},
        {"adapter": "nonsense"},
        {"system": 5},
        {"manual": "- {"},
        {"character": "nonsense: ["},
        {"tools": "send_mail"},
    ):
        refused = visitor.patch(address, json={"settings": wrong})
        assert refused.status_code == 400, wrong
        assert refused.json()["error"]["code"] == "invalid"
        assert next(iter(wrong)) in refused.json()["error"]["message"] or wrong.get("params")
    assert "Be brief." in visitor.get(f"/c/{conversation}").text


def test_every_option_of_generation_is_offered_with_its_range(visitor: Visitor) -> None:
    page = visitor.get("/new").text
    for name in ("temperature", "top_p", "top_k", "repetition_penalty", "max_new_tokens", "max_length", "seed", "stop"):
        assert f'name="params.{name}"' in page
    assert 'name="params.logprobs"' not in page
    assert 'name="params.n"' not in page


# Tools


def test_a_person_permits_a_call(site: Site, visitor: Visitor, asker: _Asker) -> None:
    question = site.say("Mail me", site.write.call(("send_mail", {"to": "<script>alert(1)</script>"})), "It was sent.")
    for yes, ran in ((False, 0), (True, 1)):
        asker.ran.clear()
        conversation = visitor.new(mode="tools")
        visitor.post(f"/c/{conversation}/send", json={"text": question})
        events = _until(visitor, conversation, "asked")
        asked = events[-1][1]
        assert asked["wants"] == "permission"
        assert 'data-do="permit"' in asked["html"]
        assert "&lt;script&gt;" in asked["html"]
        assert "<script>" not in asked["html"]
        other = visitor.post(f"/c/{conversation}/permit", json={"call": "nonsense", "yes": True})
        assert other.status_code == 400
        assert visitor.post(f"/c/{conversation}/permit", json={"call": asked["call"], "yes": yes}).status_code == 200
        events = visitor.events(conversation)
        assert len(asker.ran) == ran
        answered = next(data for kind, data in events if kind == "answered")
        assert answered["failed"] is not yes
        if yes:
            assert "It was sent &lt;b&gt;today&lt;/b&gt;." in answered["html"]
        assert events[-1][0] == "done"
        page = visitor.get(f"/c/{conversation}").text
        assert f'data-state="{"done" if yes else "failed"}"' in page
        assert ("&lt;b&gt;today" in page) is yes


def test_a_person_answers_in_the_place_of_a_tool(site: Site, visitor: Visitor) -> None:
    question = site.say("How many?", site.write.call(("count", {"what": "apples"})), "There are 7.")
    manual = "- name: count\n  description: Count things.\n  parameters: {type: object}\n"
    conversation = visitor.new(mode="tools", manual=manual)
    visitor.post(f"/c/{conversation}/send", json={"text": question})
    asked = _until(visitor, conversation, "asked")[-1][1]
    assert asked["wants"] == "observation"
    assert 'data-do="observe"' in asked["html"]
    sent = visitor.post(f"/c/{conversation}/observe", json={"call": asked["call"], "text": "7 <i>apples</i>"})
    assert sent.status_code == 200
    events = visitor.events(conversation)
    assert events[-1][0] == "done"
    assert "7 &lt;i&gt;apples&lt;/i&gt;" in visitor.get(f"/c/{conversation}").text


def _until(visitor: Visitor, conversation: str, kind: str) -> list[tuple[str, dict[str, Any]]]:
    """The events up to the first of a kind."""
    most = 1
    while True:
        events = visitor.events(conversation, most=most)
        if events[-1][0] == kind:
            return events
        assert events[-1][0] not in ("done", "failed"), events[-1]
        most += 1


class _Library:
    """Answers from one document."""

    def known(self, user: int | None) -> list[tuple[str, int]]:
        return [("notes", 3)]

    async def answer(self, assistant: Any, question: str, *, history: Any, options: Any, **more: Any) -> Any:
        yield (Source(n=1, base="notes", file="a.txt", start=0, end=9, title="<b>A</b>", text="<i>apples</i>"),)
        async with contextlib.aclosing(assistant.astream([*history, Message("user", question)], **options)) as deltas:
            async for delta in deltas:
                yield delta


def test_passages_of_documents_are_shown_with_the_answer(tmp_path: Path) -> None:
    site = Site(tmp_path, knowledge=_Library())
    try:
        site.say("What is there?", "Apples.")
        with Visitor(site.url) as visitor:
            page = visitor.get("/new?mode=documents").text
            assert 'name="knowledge" value="notes"' in page
            assert "3 documents" in page
            conversation = visitor.new(mode="documents", knowledge=["notes"])
            events = visitor.ask(conversation, "What is there?")
            assert events[-1][0] == "done"
            shown = next(data["html"] for kind, data in events if kind == "sources")
            for text in (shown, visitor.get(f"/c/{conversation}").text):
                assert "&lt;b&gt;A&lt;/b&gt;" in text
                assert "&lt;i&gt;apples&lt;/i&gt;" in text
    finally:
        site.close()


# Characters, files


def test_characters_greet_and_cards_are_imported(visitor: Visitor) -> None:
    conversation = visitor.new(mode="character", character="tea-house")
    character = Character.named("tea-house")
    page = visitor.get(f"/c/{conversation}").text
    assert character.name in page
    assert character.greeting() in page
    card = {"name": "<img src=x onerror=alert(1)>", "bot_info": "A test.", "greetings": ["Hi <b>there</b>"]}
    made = visitor.post("/import", params={"name": "card.json"}, content=json.dumps(card).encode())
    assert made.status_code == 201, made.text
    page = visitor.get(f"/c/{made.json()['id']}").text
    assert "<img src=x" not in page
    assert "Hi &lt;b&gt;there&lt;/b&gt;" in page
    refused = visitor.post("/import", params={"name": "card.png"}, content=b"\x89PNG nothing")
    assert refused.status_code == 400
    assert "card.png" in refused.json()["error"]["message"]


def test_what_is_exported_is_imported_again(site: Site, visitor: Visitor) -> None:
    conversation = visitor.new(system="Be brief.")
    visitor.ask(conversation, "Hello")
    lines = visitor.get(f"/c/{conversation}/export", params={"form": "jsonl"})
    assert lines.headers["content-disposition"] == "attachment; filename*=UTF-8''Hello.jsonl"
    row = json.loads(lines.content)
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]
    made = visitor.post("/import", params={"name": "x.jsonl"}, content=lines.content)
    assert made.status_code == 201
    again = visitor.get(f"/c/{made.json()['id']}/export", params={"form": "jsonl"})
    assert json.loads(again.content) == row
    played = visitor.new(mode="character", character="tea-house")
    visitor.ask(played, "Hello")
    row = visitor.get(f"/c/{played}/export", params={"form": "jsonl"}).content
    made = visitor.post("/import", params={"name": "x.jsonl"}, content=row)
    assert visitor.get(f"/c/{made.json()['id']}/export", params={"form": "jsonl"}).content == row
    text = visitor.get(f"/c/{conversation}/export", params={"form": "md"})
    assert text.text.startswith("# Hello\n\n**You**\n\nHello\n\n**Assistant**\n\nHello there.")
    assert visitor.get(f"/c/{conversation}/export", params={"form": "pdf"}).status_code == 400
    history = [{"role": "user", "content": "你好"}, {"role": "assistant", "metadata": "", "content": "您好"}]
    made = visitor.post("/import", params={"name": "history.json"}, content=json.dumps(history).encode())
    assert "您好" in visitor.get(f"/c/{made.json()['id']}").text


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("cut.json", b'[{"role": "user", "content": "cut \\ud83d"}, {"role": "assistant", "content": "so \\ude00"}]'),
        (
            "cut.jsonl",
            b'{"title": "\\ud83d", "messages": [{"role": "assistant", "content": "cut `\\ud83d` $\\ud83d$"}]}',
        ),
    ],
)
def test_text_that_was_cut_within_a_character_is_shown(visitor: Visitor, name: str, data: bytes) -> None:
    """Programs in JavaScript cut texts between the halves of a surrogate pair; such a conversation is the newest one,
    and so the first that its owner sees."""
    made = visitor.post("/import", params={"name": name}, content=data)
    assert made.status_code == 201, made.text
    conversation = made.json()["id"]
    for path in ("/", f"/c/{conversation}", "/conversations", "/conversations?search=cut", f"/c/{conversation}/export"):
        page = visitor.get(path)
        assert page.status_code == 200, path
    assert visitor.ask(conversation, "Hello")[-1][0] == "done"
    character = {"character": 'name: "cut \\ud83d"\nbot_info: "\\ud83d"'}
    assert visitor.patch(f"/conversations/{conversation}", json={"settings": character}).status_code == 200
    assert visitor.get("/").status_code == 200


def test_files_come_back_as_what_they_are(visitor: Visitor) -> None:
    conversation = visitor.new()
    page = b"<script>window.pwned=1</script>"
    for name, data in (("图 1.png", PNG), ("page.html", page), ("fake.png", page), ("a.svg", b"<svg onload=x>")):
        sent = visitor.put(f"/c/{conversation}/files/{name}", content=data)
        assert sent.status_code == 201, sent.text
        assert sent.json()["name"] == name
        got = visitor.get(sent.json()["url"].removeprefix("/ui"))
        assert got.content == data
        assert got.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in got.headers["content-security-policy"]
        picture = data == PNG
        assert got.headers["content-type"] == ("image/png" if picture else "application/octet-stream")
        assert got.headers["content-disposition"].startswith("inline" if picture else "attachment")
    for name in ("..%2F..%2Fconversations.sqlite", "nothing.txt", "%2Fetc%2Fpasswd"):
        assert visitor.get(f"/c/{conversation}/files/{name}").status_code == 404
    for name in ("a%00b", "%2e%2e", "a%2Fb", "CON", "x" * 300, ".hidden"):
        assert visitor.put(f"/c/{conversation}/files/{name}", content=b"x").status_code in (400, 404, 405), name


def test_files_go_with_a_question(site: Site, visitor: Visitor) -> None:
    question = site.say("Look at this", "I see.")
    conversation = visitor.new()
    visitor.put(f"/c/{conversation}/files/data.csv", content=b"a,b\n1,2\n")
    events = visitor.ask(conversation, question, files=["data.csv"])
    assert "data.csv" in events[0][1]["html"]
    assert "data.csv" in visitor.get(f"/c/{conversation}").text
    assert visitor.post(f"/c/{conversation}/send", json={"text": "x", "files": ["other.csv"]}).status_code in (400, 404)
    assert visitor.post(f"/c/{conversation}/send", json={"text": "x", "files": [1]}).status_code == 400


# What is wrong


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"nonsense", 400),
        (b"\xff", 400),
        (b'{"text": 5}', 400),
        (b'{"text": "  "}', 400),
        (b'{"text": "a", "more": 1}', 400),
        (b'{"text": "\\ud800"}', 400),
        (b'{"text": NaN}', 400),
        (b'{"text": ' + b"[" * 100_000, 400),
        (b'{"text": "' + b"a" * (6 << 20) + b'"}', 413),
        (b'{"text": "' + b"a" * (4 << 20) + b'"}', 400),
    ],
    ids=lambda value: str(value)[:20],
)
def test_wrong_bodies_are_refused_in_both_languages(site: Site, body: bytes, status: int) -> None:
    for language, sign in (("zh", r"[\u4e00-\u9fff]"), ("en", r"^[\x00-\x7f]+$")):
        with Visitor(site.url, language) as visitor:
            conversation = visitor.new()
            response = visitor.post(f"/c/{conversation}/send", content=body)
            assert response.status_code == status, response.text
            assert set(response.json()) == {"error"}
            assert re.search(sign, response.json()["error"]["message"])
            assert visitor.ask(conversation, "Hello")[-1][0] == "done"  # nothing has changed


def test_a_body_of_a_million_lists_is_not_read(visitor: Visitor) -> None:
    """Python reads it in one piece, in which no answer goes on."""
    body = b'{"files": [' + b"[]," * 1_000_000 + b"[]]}"
    refused = visitor.post(f"/c/{visitor.new()}/send", content=body)
    assert refused.status_code == 400
    assert "more than 200,000 lists and objects" in refused.json()["error"]["message"]


def test_errors_are_pages_for_people_and_json_for_scripts(visitor: Visitor) -> None:
    page = visitor.get("/c/nonsense", headers={"Accept": "text/html"})
    assert page.status_code == 404
    assert "<h1>" in page.text
    assert "Back to the page" in page.text
    for path in ("/c/nonsense", "/nothing", "/c/nonsense/events"):
        response = visitor.get(path)
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "not_found"
    assert visitor.post("/about").json()["error"]["code"] == "method"
    assert visitor.get(f"/c/{visitor.new()}/basis/{'9' * 5000}").json()["error"]["code"] == "invalid"


def test_an_error_of_the_model_ends_that_answer_alone(site: Site, visitor: Visitor) -> None:
    from chatglm.errors import QueueFullError

    conversation = visitor.new()
    site.engine.fails = QueueFullError("too many <requests> are waiting")
    try:
        events = visitor.ask(conversation, "Hello")
    finally:
        site.engine.fails = None
    assert events[-1][0] == "failed"
    assert "too many &lt;requests&gt;" in events[-1][1]["html"]
    assert visitor.ask(conversation, "Hello")[-1][0] == "done"


def test_an_import_is_stored_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    """And the browser that tried it is known afterwards: it is the same user when it tries again."""
    site = Site(tmp_path)
    site.store.limits = StoreLimits(conversations=2)
    one = {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}]}

    def send(visitor: Visitor, count: int) -> int:
        rows = "\n".join([json.dumps(one)] * count).encode()
        return visitor.post("/import", params={"name": "x.jsonl"}, content=rows).status_code

    try:
        with Visitor(site.url) as visitor:
            assert send(visitor, 3) == 429
            known = dict(visitor.cookies)
            assert known
            assert visitor.get("/conversations").text.count("/c/") == 0
            assert send(visitor, 2) == 201
            assert dict(visitor.cookies) == known
            assert send(visitor, 1) == 429
    finally:
        site.close()


def test_a_user_has_bounds(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.store.limits = StoreLimits(conversations=3, bytes=100_000)
    try:
        site.say("Hello", "Hi.")
        with Visitor(site.url) as visitor, Visitor(site.url) as other:
            made = [visitor.new() for _ in range(3)]
            full = visitor.post("/conversations", json={})
            assert (full.status_code, full.json()["error"]["code"]) == (429, "limit")
            assert full.headers["retry-after"]
            assert visitor.put(f"/c/{made[0]}/files/a.bin", content=b"x" * 200_000).status_code in (413, 429)
            assert visitor.ask(made[0], "Hello")[-1][0] == "done"
            assert other.new()
            site.store.limits = StoreLimits()
            codes = [visitor.post("/conversations", json={}).status_code for _ in range(70)]
            assert 429 in codes
            assert other.new()
    finally:
        site.close()


def test_a_user_has_so_many_answers_at_a_time(site: Site, visitor: Visitor) -> None:
    question = site.say("A long one", "long " * 1000, delay=0.02)
    conversations = [visitor.new() for _ in range(10)]
    codes = [visitor.post(f"/c/{one}/send", json={"text": question}).status_code for one in conversations]
    assert codes == [202] * 8 + [429] * 2
    for one in conversations:
        visitor.post(f"/c/{one}/stop")
    site.engine.delay = 0.0
    assert visitor.post(f"/c/{conversations[9]}/send", json={"text": "Hello"}).status_code == 202


def test_a_user_has_no_more_answers_by_asking_for_all_at_once(site: Site, visitor: Visitor) -> None:
    question = site.say("A long one", "long " * 1000, delay=0.02)
    conversations = [visitor.new() for _ in range(20)]

    def ask(one: str) -> int:
        with Visitor(site.url, cookies=visitor.cookies) as each:
            return int(each.post(f"/c/{one}/send", json={"text": question}).status_code)

    with ThreadPoolExecutor(len(conversations)) as pool:
        codes = sorted(pool.map(ask, conversations))
    assert codes == [202] * 8 + [429] * 12
    for one in conversations:
        visitor.post(f"/c/{one}/stop")
    site.engine.delay = 0.0


def test_a_server_that_ends_ends_its_streams(tmp_path: Path) -> None:
    site = Site(tmp_path)
    question = site.say("Without end", "more " * 5000, delay=0.01)
    with Visitor(site.url) as visitor:
        conversation = visitor.new()
        visitor.post(f"/c/{conversation}/send", json={"text": question})
        seen: list[list[Any]] = []
        reader = threading.Thread(target=lambda: seen.append(visitor.events(conversation)))
        reader.start()
        time.sleep(0.3)
        begun = time.monotonic()
        site.stop()
        reader.join(60)
        assert seen, "the stream did not end"
        assert time.monotonic() - begun < 40  # the answer would take 50 seconds
        site.start()
        with Visitor(site.url, cookies=visitor.cookies) as again:
            assert "more more" in again.get(f"/c/{conversation}").text
    site.close()


# Attacks


@pytest.mark.parametrize("attack", ATTACKS[:: len(ATTACKS) // 12])
def test_attacks_stay_text_wherever_they_stand(site: Site, visitor: Visitor, attack: str) -> None:
    """A few through all of the server; `test_render.py` has them all."""
    question = site.say(f"q {attack}", f"a {attack}")
    conversation = visitor.new(system=attack)
    events = visitor.ask(conversation, question)
    visitor.patch(f"/conversations/{conversation}", json={"title": attack})
    shown = [data["html"] for _, data in events if "html" in data]
    shown += [visitor.get(path).text for path in (f"/c/{conversation}", "/conversations")]
    for text in shown:
        look = _Look(text)
        assert look.inline == []
        assert all(one.startswith(("/ui/", "#", "http://a.example", "http://evil.example")) for one in look.loads)
        loaded = re.findall(r"<(?:img|script|iframe|object|embed|svg|link|base)[^>]*>", text)
        assert not any("evil" in one or "pwned" in one or "javascript" in one for one in loaded), loaded
