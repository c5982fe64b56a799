"""Summaries of long texts: how long they take, how much memory, and what a kill costs.

    python benchmarks/bench_summarise.py [--characters 1000000] [--model FOLDER] [--kills 2] [--unkilled] [--at-once 8]
    python benchmarks/bench_summarise.py --made-up [--context 2048]

A text of sentences of the demo model's world is summarised by a process that is killed (`kill -9`) so many times on its
way, each time by the next process that goes on. With --unkilled, another one that nobody kills does the same, and both
must say the same, with the same citations. --made-up: a stand-in for the model that says the first sentences of what it
is given, so that only the machinery is measured; its tokens are characters.

Prints a table for people and one JSON line for machines.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from pathlib import Path
from typing import Any

import chatglm
from chatglm.assistant import BaseAssistant, Delta, Finish, TextDelta, Usage
from chatglm.knowledge import FileTexts, Progress, Summary, SummaryRequest, summarise
from chatglm.knowledge.reading import read
from chatglm.params import SamplingParams

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "demo"


class First(BaseAssistant):
    """Says the first sentences of what it is given."""

    def __init__(self, context: int) -> None:
        self.context, self.defaults = context, SamplingParams()

    def count(self, messages: Any, **options: Any) -> int:
        return sum(len(message.content) + 4 for message in messages)

    async def astream(self, messages: Any, **options: Any) -> AsyncGenerator[Delta]:
        text = messages[-1].content.partition("\n\n")[2]
        said = text[: options["params"].max_new_tokens]
        for sentence in said.split("。"):
            await asyncio.sleep(0)
            yield TextDelta(sentence + "。")
        yield Finish("stop", Usage(len(text), len(said)))

    def stream(self, messages: Any, **options: Any) -> Generator[Delta]:
        raise NotImplementedError

    def stream_text(self, prompt: str | Sequence[int], **options: Any) -> Generator[Delta]:
        raise NotImplementedError

    def astream_text(self, prompt: str | Sequence[int], **options: Any) -> AsyncGenerator[Delta]:
        raise NotImplementedError

    def close(self) -> None: ...


def text_of(characters: int) -> str:
    """Paragraphs of sentences that the demo model has never seen."""
    sys.path.insert(0, str(RECIPE))
    from corpus.passages import text

    rng, paragraphs, length = random.Random(3), [], 0
    while length < characters:
        paragraphs.append(text(rng, "test", True, 12) + "\n\n")
        length += len(paragraphs[-1])
    return "".join(paragraphs)[:characters]


def memory() -> float:
    """MiB that this process has in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def child(arguments: argparse.Namespace) -> None:
    """One process: tells what happens, a JSON object a line."""

    def tell(**fields: Any) -> None:
        print(json.dumps(fields, ensure_ascii=False), flush=True)

    text = arguments.child.read_bytes()
    model = First(arguments.context) if arguments.made_up else chatglm.load(*filter(None, [arguments.model]))
    with model as assistant:
        texts = FileTexts(read(text, name="long.txt"), "long.txt", home=arguments.child.parent)
        begun, first = time.monotonic(), 0.0
        for event in summarise(texts, assistant, SummaryRequest(model="bench", at_once=arguments.at_once)):
            if isinstance(event, Progress):
                tell(stage=event.stage, done=event.done, total=event.total, kept=event.kept, memory=memory())
            elif isinstance(event, TextDelta):
                first = first or time.monotonic() - begun
            elif isinstance(event, Summary):
                tell(
                    stage="end",
                    text=event.text,
                    citations=[citation.to_dict() for citation in event.citations],
                    unsupported=len(event.unsupported),
                    parts=event.parts,
                    asked=event.asked,
                    kept=event.kept,
                    prompt_tokens=event.usage.prompt_tokens,
                    completion_tokens=event.usage.completion_tokens,
                    first=first,
                    seconds=time.monotonic() - begun,
                    memory=memory(),
                )


def run(text: str, kills: Sequence[float], options: Sequence[str]) -> dict[str, Any]:
    """Summarise it in processes that are killed when these shares of the parts are done; the last one is not."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "long.txt"
        file.write_text(text, "utf-8")
        begun, seen, asked, lost = time.monotonic(), list[tuple[float, float]](), 0, 0
        for share in [*sorted(kills), 2.0]:
            process = subprocess.Popen(
                [sys.executable, __file__, "--child", str(file), *options], stdout=subprocess.PIPE, text=True
            )
            assert process.stdout is not None
            done = 0
            with process.stdout:
                for line in process.stdout:
                    told = json.loads(line)
                    if told["stage"] == "map":
                        done = told["done"] - told["kept"]
                        seen.append((told["done"] / told["total"], told["memory"]))
                        if told["done"] >= share * told["total"]:
                            process.send_signal(signal.SIGKILL)
                            break
            process.wait()
            if process.returncode == -signal.SIGKILL:
                asked += done
            elif process.returncode:
                raise SystemExit(f"a process ended with {process.returncode}")
        lost = told["asked"] + asked
        again = time.monotonic()
        process = subprocess.run(
            [sys.executable, __file__, "--child", str(file), *options], capture_output=True, text=True, check=True
        )
        same = json.loads(process.stdout.splitlines()[-1])
        assert (same["asked"], same["text"]) == (0, told["text"])
        near = {name: min(seen, key=lambda each: abs(each[0] - at))[1] for name, at in (("10 %", 0.1), ("100 %", 1.0))}
        return {
            "text": told.pop("text"),
            "citations": told.pop("citations"),
            "parts": told["parts"],
            "answers of the model, all processes": lost,
            "first text of the summary, s": round(told["first"], 2),
            "last process, s": round(told["seconds"], 1),
            "all, s": round(again - begun, 1),
            "the same again, s": round(same["seconds"], 2),
            "the same again with loading, s": round(time.monotonic() - again, 1),
            "memory at 10 % of the parts, MiB": round(near["10 %"]),
            "memory at all parts, MiB": round(near["100 %"]),
            "memory at the end, MiB": round(told["memory"]),
            "prompt tokens of the last process": told["prompt_tokens"],
            "answer tokens of the last process": told["completion_tokens"],
            "unsupported paragraphs": told["unsupported"],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--characters", type=int, default=1_000_000)
    parser.add_argument("--model", help="folder (default: the demo model)")
    parser.add_argument("--made-up", action="store_true", help="a stand-in for a model")
    parser.add_argument("--context", type=int, default=2048, help="of the stand-in, in characters")
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--unkilled", action="store_true", help="compare with a run that nobody kills")
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        child(arguments)
        return
    text = text_of(arguments.characters)
    options = ["--at-once", str(arguments.at_once), "--context", str(arguments.context)]
    options += ["--made-up"] if arguments.made_up else []
    options += ["--model", arguments.model] if arguments.model else []
    kills = [(number + 1) / (arguments.kills + 1) for number in range(arguments.kills)]
    found = run(text, kills, options)
    if arguments.unkilled:
        other = run(text, [], options)
        same = (found["text"], found["citations"]) == (other["text"], other["citations"])
        found["same as without kills"] = same
        found["all without kills, s"] = other["all, s"]
    summary, citations = found.pop("text"), found.pop("citations")
    found = {"characters": len(text), "kills": arguments.kills, **found, "citations": len(citations)}
    print(f"{summary[:200]}\n", file=sys.stderr)
    print("| | |\n|---|---|")
    for name, value in found.items():
        print(f"| {name} | {value:,} |" if isinstance(value, int | float) else f"| {name} | {value} |")
    print(json.dumps({"machine": f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}", **found}, ensure_ascii=False))
    if not found.get("same as without kills", True):
        raise SystemExit("the killed run says something else")


if __name__ == "__main__":
    main()
