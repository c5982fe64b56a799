"""How long a search takes among many turns, and how long a turn takes to be stored.

    python benchmarks/bench_store.py [--turns 50000] [--users 1] [--times 5] [--json FILE]

Turns are of made-up Chinese and English words, as many to each user. A search is that of `Store.search`: the twenty
newest turns with snippets; each figure is the median of so many. The goal is 30 ms, for words of one, two and three
characters.

Prints a table for people and one JSON line for machines.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from common import machine

from chatglm.chat.messages import Message
from chatglm.conversation.store import Store

GOAL_MS = 30.0
COMMON = "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方后"
RARE = "天气知识库城市旅行数据模型训练代码函数变量错误文件图片音乐历史地理物理化学生物数学语言翻译写作诗词故事角色"
QUERIES = ("的", "库", "天气", "一是", "知识库", "天气预报", "weather", "get_w", "天气 weather", "没有这个词组")


def text_of(random_: random.Random, number: int) -> str:
    sentences = []
    for _ in range(random_.randint(1, 8)):
        run = "".join(random_.choices(COMMON, k=random_.randint(3, 12)))
        place = random_.randrange(0, len(RARE) - 4)
        sentences.append(run + RARE[place : place + random_.randint(1, 4)] + random_.choice("的了吗"))
    words = ("weather", "get_weather(city)", "import numpy", "ChatGLM3-6B", "hello")
    known = ("知识库", "天气") if number % 50 == 0 else ()
    return "，".join((*sentences, *known, *random_.choices(words, k=1))) + "。"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=50_000)
    parser.add_argument("--users", type=int, default=1)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    random_ = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "conversations.sqlite")
        local = store.users.local().id
        users = [local, *(store.users.add(f"user{number}", "a long password").id for number in range(1, given.users))]
        began = time.perf_counter()
        each = 100
        for start in range(0, given.turns, each):
            messages = [
                Message(("user", "assistant")[number % 2], text_of(random_, number))
                for number in range(start, min(start + each, given.turns))
            ]
            store.make(users[start // each % len(users)], title=f"对话 {start}", messages=messages)
        filled = time.perf_counter() - began
        name = store.make(local)
        stored = median(given.times, lambda: store.add(local, name, Message("user", text_of(random_, 1))))
        figures: dict[str, Any] = {}
        for query in QUERIES:
            took = median(given.times, lambda query=query: store.search(local, query))
            figures[query] = {"ms": round(took * 1000, 2), "found": len(store.search(local, query, limit=100))}
        shown = median(given.times, lambda: store.conversations(local))
        store.close()
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
    result = {
        "turns": given.turns,
        "users": given.users,
        "filling, µs a turn": round(filled / given.turns * 1e6, 1),
        "one turn stored, ms": round(stored * 1000, 2),
        "a list of 50 conversations, ms": round(shown * 1000, 2),
        "file, MiB": round(size / 2**20, 1),
        "search": figures,
        "machine": machine(),
    }
    for key in ("filling, µs a turn", "one turn stored, ms", "a list of 50 conversations, ms", "file, MiB"):
        print(f"{key:34} {result[key]:>9}")
    for query, figure in figures.items():
        missed = "" if figure["ms"] <= GOAL_MS else f"   over {GOAL_MS:g}"
        print(f"search {query}".ljust(30), f"{figure['ms']:>9} ms {figure['found']:>5} found{missed}")
    line = json.dumps(result, ensure_ascii=False)
    print(line)
    if given.json:
        given.json.write_text(line + "\n", "utf-8")


def median(times: int, work: Any) -> float:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


if __name__ == "__main__":
    main()
