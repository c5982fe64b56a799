"""LangChain's streams: how soon does a summary begin to come, and what is left of streams that nobody reads on?

    python benchmarks/bench_langchain.py [--documents 8] [--runs 5] [--streams 1000] [--json FILE]

Summaries: `stream_summary(model, documents, chain_type="map_reduce")` with the demo model. The map phase is from the
call to the last document's summary; the first token of the reduce phase must come before 1.2 times that. The streamed
text is compared with that of the chain as LangChain runs it.

Streams that are left: chat models, completions, chains and summaries, in threads and coroutines, in this process and
over HTTP, with documents and without; each is left after 0 to 8 pieces. Then no request may run, and threads, tasks and
open files must be as many as before.

Prints a table for people and one JSON line for machines. Needs langchain-classic.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import Any

from common import machine
from langchain_core._api import LangChainDeprecationWarning
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.prompts import PromptTemplate

from chatglm.assistant import Assistant
from chatglm.knowledge import Bases, Upload, open_base
from chatglm.langchain import (
    ChatChatGLM,
    ChatGLM,
    astream_predict,
    astream_summary,
    stream_predict,
    stream_summary,
)

GOAL = 1.2
QUESTIONS = ["你好", "计算128*46", "北京的天气怎么样？", "图书馆的馆长叫什么？"]
FACTS = "小镇的图书馆建于1962年。图书馆的馆长叫王芳。港口的灯塔高32米。灯塔的看守人叫李强。"
PROMPT = PromptTemplate.from_template("{text}\n计算128*46")
OPTIONS: dict[str, Any] = {"map_prompt": PROMPT, "combine_prompt": PROMPT}


# How soon a summary begins


class Ends(BaseCallbackHandler):
    """When answers have ended."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_llm_end(self, *arguments: Any, **named: Any) -> None:
        self.at.append(time.perf_counter())


def summaries(count: int, runs: int) -> dict[str, Any]:
    from langchain_classic.chains.summarize import load_summarize_chain

    documents = [Document(page_content=f"第{n}天，小明有{n}个苹果。") for n in range(1, count + 1)]
    ratios, maps, ends, same = [], [], [], True
    with Assistant.load() as assistant:
        plain = ChatChatGLM(assistant=assistant, temperature=0, max_tokens=60)
        chain = load_summarize_chain(plain, chain_type="map_reduce", **OPTIONS)
        whole = chain.invoke({"input_documents": documents})["output_text"]
        for _ in range(runs):
            heard = Ends()
            model = ChatChatGLM(assistant=assistant, temperature=0, max_tokens=60, callbacks=[heard])
            begin = time.perf_counter()
            pieces, first = [], 0.0
            for piece in stream_summary(model, documents, **OPTIONS):
                first = first or time.perf_counter() - begin
                pieces.append(piece)
            same = same and "".join(pieces) == whole
            maps.append(heard.at[count - 1] - begin)
            ratios.append(first / maps[-1])
            ends.append(time.perf_counter() - begin)
    return {
        "documents": count,
        "runs": runs,
        "map_seconds": statistics.median(maps),
        "whole_seconds": statistics.median(ends),
        "first_of_reduce_over_map": statistics.median(ratios),
        "worst": max(ratios),
        "same_text": same,
    }


# Streams that are left


def kinds(assistant: Assistant, url: str, bases: Bases) -> dict[str, Callable[[str], Any]]:
    """Streams of every kind, for a question."""
    from langchain_classic.chains import LLMChain

    warnings.simplefilter("ignore", LangChainDeprecationWarning)  # classic chains say that they are
    chat = ChatChatGLM(assistant=assistant)
    text = ChatGLM(assistant=assistant)
    remote = ChatChatGLM(base_url=url, model="demo")
    documents = ChatChatGLM(assistant=assistant, knowledge=bases)
    prompt = PromptTemplate.from_template("{question}")
    parts = [Document(page_content=FACTS)] * 2
    return {
        "chat": chat.stream,
        "chat, coroutine": chat.astream,
        "completion": text.stream,
        "completion, coroutine": text.astream,
        "over HTTP": remote.stream,
        "over HTTP, coroutine": remote.astream,
        "from documents": documents.stream,
        "from documents, coroutine": documents.astream,
        "LLMChain": lambda asked: stream_predict(LLMChain(llm=chat, prompt=prompt), question=asked),
        "LLMChain, coroutine": lambda asked: astream_predict(LLMChain(llm=text, prompt=prompt), question=asked),
        "summary": lambda asked: stream_summary(chat, parts, **OPTIONS),
        "summary, coroutine": lambda asked: astream_summary(chat, parts, **OPTIONS),
    }


async def leave(count: int, make: dict[str, Callable[[str], Any]], seed: int) -> Counter[str]:
    chance = random.Random(seed)
    told: Counter[str] = Counter()
    for _ in range(count):
        name = chance.choice(list(make))
        stream = make[name](chance.choice(QUESTIONS))
        pieces = chance.randrange(9)
        if isinstance(stream, AsyncGenerator):
            for _ in range(pieces):
                if await anext(stream, None) is None:
                    break
            await stream.aclose()
        else:
            assert isinstance(stream, Generator)
            await asyncio.to_thread(read, stream, pieces)
        told[name] += 1
    return told


def read(stream: Generator[Any], pieces: int) -> None:
    for _ in range(pieces):
        if next(stream, None) is None:
            break
    stream.close()


def what_is_there() -> dict[str, int]:
    return {
        "threads": sum(not thread.name.startswith("asyncio_") for thread in threading.enumerate()),
        "tasks": len(asyncio.all_tasks()),
        "files": len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0,
    }


async def left(count: int, make: dict[str, Callable[[str], Any]], assistants: list[Assistant]) -> dict[str, Any]:
    await leave(2 * len(make), make, 0)  # connections and threads that stay
    gc.collect()
    before, begin = what_is_there(), time.perf_counter()
    told = await leave(count, make, 1)
    seconds = time.perf_counter() - begin
    deadline = time.perf_counter() + 10
    running = -1
    while running and time.perf_counter() < deadline:
        await asyncio.sleep(0.05)
        running = sum(stats.running for each in assistants if (stats := each.stats()) is not None)
    gc.collect()
    return {
        "streams": count,
        "kinds": dict(sorted(told.items())),
        "seconds": seconds,
        "requests_running": running,
        "before": before,
        "after": what_is_there(),
    }


def streams(count: int) -> dict[str, Any]:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from server import serving

    with (
        Assistant.load() as here,
        Assistant.load() as there,
        serving({"demo": there}) as url,
        tempfile.TemporaryDirectory() as home,
        open_base("town", create=True, home=Path(home)) as base,
    ):
        base.add(Upload("town.txt", FACTS.encode()))
        return asyncio.run(left(count, kinds(here, f"{url}/v1", Bases([base])), [here, there]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=8)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {"machine": machine()}
    found["summary"] = one = summaries(arguments.documents, arguments.runs)
    print(
        f"summary of {one['documents']} documents: map phase {one['map_seconds']:.2f} s; the first token of the reduce "
        f"phase after {one['first_of_reduce_over_map']:.3f} times that (worst {one['worst']:.3f}; goal {GOAL}); "
        f"streamed text {'the same' if one['same_text'] else 'ANOTHER'}"
    )
    found["streams"] = two = streams(arguments.streams)
    print(
        f"{two['streams']} streams left in {two['seconds']:.0f} s: {two['requests_running']} requests run; "
        f"before {two['before']}, after {two['after']}"
    )
    line = json.dumps(found, ensure_ascii=False)
    print(line)
    if arguments.json is not None:
        arguments.json.write_text(line + "\n", "utf-8")
    clean = not two["requests_running"] and all(two["after"][key] <= two["before"][key] for key in two["before"])
    return 0 if one["worst"] < GOAL and one["same_text"] and clean else 1


if __name__ == "__main__":
    sys.exit(main())
