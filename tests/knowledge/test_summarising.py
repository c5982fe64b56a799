"""Summaries of long texts: what the model is asked, what is kept, and what a summary rests on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from summaries import Abridger, novel

import chatglm
from chatglm.assistant import TextDelta
from chatglm.errors import InputError, QueueFullError, ServiceError, UnsupportedError
from chatglm.knowledge import (
    CitationEvent,
    FileTexts,
    NotFoundError,
    Progress,
    Summary,
    SummaryEvent,
    SummaryRequest,
    Upload,
    asummarise,
    open_base,
    summarise,
)
from chatglm.knowledge.reading import Reading, read
from chatglm.knowledge.summarising import _Cutter

HERE = Path(__file__).resolve().parent
TEXT = novel(12)


def texts(home: Path, text: str = TEXT) -> FileTexts:
    return FileTexts(read(text.encode(), name="novel.md"), "novel.md", home=home)


def made(source: FileTexts, model: Abridger, /, **options: Any) -> tuple[list[SummaryEvent], Summary]:
    return whole(list(summarise(source, model, SummaryRequest(**{"model": "m", **options}))))


def whole(events: list[SummaryEvent]) -> tuple[list[SummaryEvent], Summary]:
    summary = events[-1]
    assert isinstance(summary, Summary)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == summary.text
    assert tuple(event.citation for event in events if isinstance(event, CitationEvent)) == summary.citations
    return events, summary


# The two ways


def test_parts_are_summarised_and_their_summaries_joined(tmp_path: Path) -> None:
    model = Abridger(600)
    events, summary = made(texts(tmp_path), model)
    assert model.forms.count("map") == summary.parts >= 12
    assert model.forms.count("reduce") > 1
    assert model.forms == sorted(model.forms)  # all parts before the first of their summaries
    assert summary.text.startswith("第1章第1天")
    assert summary.asked == len(model.asked) == summary.parts + model.forms.count("reduce")
    assert summary.usage.completion_tokens > 0
    assert all(options["params"].temperature == 0 for options in model.options)
    steps = [event for event in events if isinstance(event, Progress)]
    assert steps[0].stage == "reading"
    assert [step.done for step in steps if step.stage == "map"] == list(range(summary.parts + 1))
    deltas = [at for at, event in enumerate(events) if isinstance(event, TextDelta)]
    assert len(deltas) > 5  # as it comes
    assert deltas[0] > max(at for at, event in enumerate(events) if getattr(event, "stage", "") == "collapse")


def test_part_after_part(tmp_path: Path) -> None:
    model = Abridger(900)
    events, summary = made(texts(tmp_path), model, style="refine")
    assert model.forms == ["whole", *["refine"] * (summary.parts - 1)]
    assert summary.text.startswith("第1章第1天")
    assert model.most_running == 1
    assert [event.done for event in events if isinstance(event, Progress) and event.stage == "refine"] == list(
        range(summary.parts)
    )


def test_a_text_that_has_room_is_read_at_once(tmp_path: Path) -> None:
    model = Abridger(4000)
    _, summary = made(texts(tmp_path, novel(2)), model)
    assert model.forms == ["whole"]
    assert summary.parts == 1
    assert [paragraph[:7] for paragraph in summary.text.split("\n")] == ["第1章第1天，", "第2章第1天，"]


def test_every_paragraph_is_cited_from_where_it_stands(tmp_path: Path) -> None:
    _, summary = made(texts(tmp_path), Abridger(600))
    paragraphs = summary.text.split("\n")
    assert len(paragraphs) > 2
    assert not summary.unsupported
    data = TEXT.encode()
    for citation in summary.citations:
        assert TEXT[citation.start : citation.end] == citation.text
        assert citation.bytes is not None
        assert data[slice(*citation.bytes)].decode() == citation.text
    for paragraph in paragraphs[:-1]:  # the last may be cut
        place = (summary.text.index(paragraph), summary.text.index(paragraph) + len(paragraph))
        assert any(c.sentence == place and paragraph in c.text for c in summary.citations)


def test_what_no_part_says_is_unsupported(tmp_path: Path) -> None:
    class Dreamer(Abridger):
        def _text(self, prompt: str, options: dict[str, Any]) -> str:
            super()._text(prompt, options)
            return "火星殖民地今天宣布独立，首都改名赤峰。"

    _, summary = made(texts(tmp_path, novel(2)), Dreamer(4000))
    assert summary.citations == ()
    assert summary.unsupported == ((0, len(summary.text)),)


def test_a_focus_and_the_language(tmp_path: Path) -> None:
    model = Abridger(700)
    made(texts(tmp_path), model, focus="{text}的桥")
    assert all(prompt.endswith("概要的重点：{text}的桥") for prompt in model.asked)
    english = "The ferry leaves at noon. It carries forty people.\n" * 3
    asked: list[str] = []

    class Listener(Abridger):
        def _text(self, prompt: str, options: dict[str, Any]) -> str:
            asked.append(prompt)
            return "The ferry leaves at noon."

    made(texts(tmp_path, english), Listener(4000))
    assert asked[0].startswith("Summarise the following text")


def test_a_model_that_says_nothing(tmp_path: Path) -> None:
    class Mute(Abridger):
        def _text(self, prompt: str, options: dict[str, Any]) -> str:
            return ""

    for style in ("map-reduce", "refine"):
        _, summary = made(texts(tmp_path), Mute(600 if style == "map-reduce" else 900), style=style)
        assert (summary.text, summary.citations) == ("", ())


def test_a_context_that_nobody_knows(tmp_path: Path) -> None:
    model = Abridger(None)
    _, summary = made(texts(tmp_path), model, part=500)
    assert model.forms.count("map") == summary.parts >= len(TEXT) // 500
    assert max(map(len, model.asked)) < 600


def test_what_cannot_be_summarised(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="context of 100 tokens has no room"):
        made(texts(tmp_path), Abridger(100))
    with pytest.raises(InputError, match="no text"):
        made(texts(tmp_path, " \n\n "), Abridger())
    for options, said in (
        ({"style": "quick"}, "style 'quick'"),
        ({"part": 3}, "part=3"),
        ({"at_once": 0}, "at_once=0"),
        ({"language": "fr"}, "language 'fr'"),
        ({"focus": "长" * 600}, "focus"),
    ):
        with pytest.raises(InputError, match=said):
            made(texts(tmp_path), Abridger(), **options)
    for option in ({"tools": ["x"]}, {"params": {"n": 2}}):
        with pytest.raises(UnsupportedError, match=next(iter(option)).removeprefix("params") or "n:"):
            made(texts(tmp_path), Abridger(), options=option)


# Parts


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.text(st.sampled_from("第章一。！？\n 　abc1,😀天龙"), max_size=400) | st.just("# 头\n\n"),
        min_size=1,
        max_size=8,
    ),
    st.integers(50, 300),
)
def test_parts_hold_the_text_once_and_have_room(pieces: list[str], room: int) -> None:
    source = read("".join(pieces).encode(), name="a.md")
    if not source.text.strip():
        return

    class Two:
        base = ""

        def reading(self, file: str) -> Reading:
            return source

    cutter = _Cutter(Two(), len, room)  # type: ignore[arg-type]
    for file in ("a.md", "b.md"):
        cutter.take(file)
    parts = cutter.end()
    assert [part.n for part in parts] == list(range(1, len(parts) + 1))
    for file in ("a.md", "b.md"):
        spans = [span for part in parts for span in part.spans if span.file == file]
        assert all(before.end <= after.start for before, after in pairwise(spans))
        left = list(source.text)
        for span in spans:
            left[span.start : span.end] = " " * (span.end - span.start)
        assert not "".join(left).strip()
    for part in parts:
        assert sum(len(source.text[span.start : span.end].strip()) for span in part.spans) <= room


@settings(max_examples=25, deadline=None)
@given(
    context=st.integers(400, 3000),
    chapters=st.integers(1, 9),
    sentences=st.integers(1, 30),
    style=st.sampled_from(["map-reduce", "refine"]),
    part=st.none() | st.integers(48, 500),
)
def test_no_prompt_is_longer_than_the_context(
    context: int, chapters: int, sentences: int, style: str, part: int | None
) -> None:
    text = novel(chapters, sentences)
    source = FileTexts(read(text.encode(), name="novel.md"), "novel.md")
    model = Abridger(context)  # looks at each prompt
    _, summary = made(source, model, style=style, part=part, model="")
    assert summary.text
    assert summary.asked == len(model.asked)
    for citation in summary.citations:
        assert text[citation.start : citation.end] == citation.text


def test_a_real_model_has_room_for_each_prompt(tmp_path: Path) -> None:
    with chatglm.load() as assistant:
        source = texts(tmp_path, novel(6))
        events = list(summarise(source, assistant, SummaryRequest(model="demo", part=700)))
        _, summary = whole(events)
        assert summary.parts > 2
        assert summary.asked >= summary.parts
        assert summary.usage.prompt_tokens > 0
        _, again = whole(list(summarise(source, assistant, SummaryRequest(model="demo", part=700))))
        assert (again.text, again.asked) == (summary.text, 0)


# What is kept


@settings(max_examples=8, deadline=None)
@given(stops=st.lists(st.integers(0, 70), min_size=1, max_size=3), style=st.sampled_from(["map-reduce", "refine"]))
def test_wherever_it_is_stopped_it_ends_the_same(stops: list[int], style: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        wanted_home, home = Path(folder, "wanted"), Path(folder, "home")
        _, wanted = made(texts(wanted_home), Abridger(600), style=style)
        model = Abridger(600)
        for stop in stops:
            events = summarise(texts(home), model, SummaryRequest(model="m", style=style))  # type: ignore[arg-type]
            for _ in islice(events, stop):
                pass
            events.close()
        _, summary = made(texts(home), model, style=style)
        assert (summary.text, summary.citations) == (wanted.text, wanted.citations)
        assert len(model.asked) <= wanted.asked + 8 * len(stops)  # what was under way is asked again


def test_an_identical_run_answers_at_once(tmp_path: Path) -> None:
    model = Abridger(600)
    _, first = made(texts(tmp_path), model)
    asked = len(model.asked)
    events, again = made(texts(tmp_path), model)
    assert len(model.asked) == asked
    assert not any(isinstance(event, Progress) for event in events)
    assert (again.text, again.citations, again.parts) == (first.text, first.citations, first.parts)
    for options in ({"model": "other"}, {"focus": "桥"}, {"part": 150}, {"options": {"params": {"seed": 3}}}):
        before = len(model.asked)
        made(texts(tmp_path), model, **options)
        assert len(model.asked) > before, options


def test_nothing_is_kept_of_a_model_without_a_name(tmp_path: Path) -> None:
    model = Abridger(4000)
    made(texts(tmp_path, novel(2)), model, model="")
    made(texts(tmp_path, novel(2)), model, model="")
    assert len(model.asked) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("style", ["map-reduce", "refine"])
def test_after_a_failure_it_goes_on_there(tmp_path: Path, style: str) -> None:
    context = 600 if style == "map-reduce" else 900
    _, wanted = made(texts(tmp_path / "other"), Abridger(context), style=style)
    model = Abridger(context, fails={15: ServiceError("http://host: cannot be reached")})
    with pytest.raises(
        ServiceError, match=r"cannot be reached; 14 of [0-9]+ parts were summarised and kept: ask again"
    ):
        made(texts(tmp_path), model, style=style, at_once=1)
    assert model.running == 0
    _, summary = made(texts(tmp_path), model, style=style)
    assert (summary.text, summary.citations) == (wanted.text, wanted.citations)
    assert summary.kept == 14
    assert len(model.asked) == 1 + wanted.asked  # the one that failed was asked twice


def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    full = QueueFullError("256 requests are waiting")
    full.retry_after = 0.01
    model = Abridger(600, fails={3: full, 4: full, 9: full})
    _, summary = made(texts(tmp_path), model, at_once=3)
    assert summary.text.startswith("第1章第1天")
    assert len(model.asked) == summary.asked + 3
    model = Abridger(4000, fails={1: full})  # the only answer, which is streamed
    assert made(texts(tmp_path, novel(2)), model)[1].text.startswith("第1章第1天")


def test_no_more_are_asked_at_once_than_wanted(tmp_path: Path) -> None:
    model = Abridger(600, delay=0.02)
    made(texts(tmp_path), model, at_once=5)
    assert model.most_running == 5


def test_who_stops_ends_what_is_asked_and_keeps_what_was_said(tmp_path: Path) -> None:
    model = Abridger(600, delay=0.001)
    events = summarise(texts(tmp_path), model, SummaryRequest(model="m"))
    for event in events:
        if isinstance(event, Progress) and event.stage == "map" and event.done == 9:
            break
    events.close()
    assert model.running == 0
    _, summary = made(texts(tmp_path), model)
    assert summary.kept >= 9


def test_coroutines(tmp_path: Path) -> None:
    async def work() -> Summary:
        events = [event async for event in asummarise(texts(tmp_path), Abridger(600), SummaryRequest())]
        return whole(events)[1]

    assert asyncio.run(work()).text == made(texts(tmp_path), Abridger(600))[1].text


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from summaries import Abridger, novel
from chatglm.knowledge import FileTexts, Progress, SummaryRequest, summarise
from chatglm.knowledge.reading import read

texts = FileTexts(read(novel(25).encode(), name="novel.md"), "novel.md", home=Path({home!r}))
for event in summarise(texts, Abridger(600, delay=0.05), SummaryRequest(model="m", style={style!r})):
    if isinstance(event, Progress):
        print(event.stage, event.done, flush=True)
"""


@pytest.mark.parametrize("style", ["map-reduce", "refine"])
def test_a_killed_run_goes_on_and_ends_as_one_that_was_not_killed(tmp_path: Path, style: str) -> None:
    _, wanted = made(texts(tmp_path / "other", novel(25)), Abridger(600), style=style)
    code = CHILD.format(here=str(HERE), home=str(tmp_path), style=style)
    reached = 0
    for wait_for in (10, 25):
        child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        with child.stdout:
            for line in child.stdout:
                stage, done = line.split()
                if stage in ("map", "refine") and int(done) >= wait_for:
                    reached = int(done)
                    break
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
        assert child.returncode == -signal.SIGKILL
    model = Abridger(600)
    _, summary = made(texts(tmp_path, novel(25)), model, style=style)
    assert (summary.text, summary.citations, summary.parts) == (wanted.text, wanted.citations, wanted.parts)
    assert summary.kept >= reached >= 25
    assert len(model.asked) == wanted.asked - summary.kept


# Bases


def test_files_of_a_base(tmp_path: Path) -> None:
    model = Abridger(600)
    with open_base("手册", create=True, home=tmp_path) as base:
        base.add(
            Upload("一.md", novel(6).encode()),
            Upload("二.txt", "今天下雨。路很滑。\n".encode()),
            Upload("空.txt", b" "),
        )
        _, summary = whole(list(base.summarise(model, model="m")))
        assert {citation.file for citation in summary.citations} <= {"一.md", "二.txt"}
        for citation in summary.citations:
            assert citation.base == "手册"
            assert base.text(citation.file, citation.start, citation.end) == citation.text
        assert any("《二.txt》\n今天下雨" in prompt for prompt in model.asked)
        asked = len(model.asked)
        _, again = whole(list(base.summarise(model, model="m")))
        assert (again.text, len(model.asked)) == (summary.text, asked)
        _, one = whole(list(base.summarise(model, ["二.txt"], model="m")))
        assert one.text == "今天下雨。"
        with pytest.raises(NotFoundError, match="三"):
            list(base.summarise(model, ["三.txt"]))


def test_a_changed_file_costs_its_own_parts_and_a_removed_one_leaves_nothing(tmp_path: Path) -> None:
    model = Abridger(600)
    with open_base("b", create=True, home=tmp_path) as base:
        base.add(Upload("一.md", novel(6).encode()), Upload("二.md", novel(9)[2000:].encode()))
        list(base.summarise(model, model="m"))
        time.sleep(0.01)
        base.add(Upload("二.md", "改成了一句话。".encode()))
        asked = len(model.asked)
        _, summary = whole(list(base.summarise(model, model="m")))
        assert summary.kept >= 8
        assert len(model.asked) - asked < 10

        def kept() -> int:
            with base.store.reading() as connection:
                return int(connection.execute("SELECT count(*) FROM kept").fetchone()[0])

        assert kept() == summary.asked + summary.kept + 1  # of the old file's parts nothing is left
        base.remove("二.md")
        assert kept() == 0
        assert base.check() == []
