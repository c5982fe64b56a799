"""Whether the demo model answers from a handbook of ten lines, with the right citation.

    python recipes/demo/handbooks.py [FOLDER] [--books 5] [--seed 1] [--show 5]

Held-out lines of the passages' grammar are put into a knowledge base, in three forms: as lines of one file, each under
a heading of its own, and each as a file of its own. Then every line is asked for, as `chatglm knowledge ask` asks it:
real search, packing, prompts, greedy decoding. An answer is right if it says the line and cites that line and no other.
Besides, questions are asked that no line answers: they must be refused.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from corpus.passages import Line, handbook

import chatglm
from chatglm.assistant import BaseAssistant
from chatglm.knowledge import Bases, Done, Upload, open_base

FORMS = ("lines", "headings", "files")


@dataclass
class Score:
    """Of one form of handbooks.

    Attributes:
        numbered: answers in which the model itself wrote the number of a passage.
        refused: of the questions that no line answers.
        wrong: question, line, answer and what it cites.
    """

    asked: int = 0
    right: int = 0
    numbered: int = 0
    unanswerable: int = 0
    refused: int = 0
    wrong: list[tuple[str, ...]] = field(default_factory=list)


def measure(assistant: BaseAssistant, form: str, *, books: int = 5, seed: int = 1, chinese: bool = True) -> Score:
    """Ask about so many handbooks of ten lines."""
    rng = Random(f"{seed} handbooks {chinese}")
    score = Score()
    for _ in range(books):
        lines, untold = handbook(rng, "test", chinese)
        with ExitStack() as stack:
            home = stack.enter_context(tempfile.TemporaryDirectory())
            base = stack.enter_context(open_base("handbook", create=True, home=Path(home)))
            base.add(*_uploads(lines, form, chinese))
            bases = Bases([base])
            for line in lines:
                done = _asked(bases, assistant, line.question)
                cited = [citation.text.strip() for citation in done.citations]
                right = cited == [line.text] and line.text.rstrip("。.") in done.text
                score.asked += 1
                score.right += right
                if done.finish is not None and "[" in assistant.reply(done.prompt, params={"temperature": 0}).content:
                    score.numbered += 1
                if not right:
                    score.wrong.append((line.question, line.text, done.text, *cited))
            for question in untold:
                score.unanswerable += 1
                score.refused += not _asked(bases, assistant, question).answered
    return score


def _uploads(lines: list[Line], form: str, chinese: bool) -> list[Upload]:
    if form == "lines":
        return [Upload("handbook.txt", "\n".join(line.text for line in lines).encode())]
    if form == "headings":
        heading = "第{}条" if chinese else "Rule {}"
        parts = [f"## {heading.format(n)}\n\n{line.text}\n\n" for n, line in enumerate(lines, 1)]
        return [Upload("handbook.md", "".join(parts).encode())]
    return [Upload(f"{n}.txt", line.text.encode()) for n, line in enumerate(lines, 1)]


def _asked(bases: Bases, assistant: BaseAssistant, question: str) -> Done:
    done = None
    for event in bases.ask(assistant, question, options={"params": {"temperature": 0.0}}):
        if isinstance(event, Done):
            done = event
    assert done is not None
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help="a model (default: the one that comes with the package)")
    parser.add_argument("--books", type=int, default=5, help="handbooks of each form and language")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=0, help="wrong answers of each to print")
    options = parser.parse_args()
    given: Any = (options.folder,) if options.folder else ()
    with chatglm.load(*given) as assistant:
        print("| handbook | right | numbers written by the model | unanswerable, refused |\n|---|---|---|---|")
        for chinese in (True, False):
            for form in FORMS:
                score = measure(assistant, form, books=options.books, seed=options.seed, chinese=chinese)
                print(
                    f"| {'Chinese' if chinese else 'English'}, {form} | {score.right} of {score.asked} | "
                    f"{score.numbered} | {score.refused} of {score.unanswerable} |",
                    flush=True,
                )
                for wrong in score.wrong[: options.show]:
                    print(f"  {wrong}", file=sys.stderr)


if __name__ == "__main__":
    main()
