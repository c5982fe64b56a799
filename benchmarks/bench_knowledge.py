"""Bases of documents: how fast they are searched and filled, and what they survive.

    python benchmarks/bench_knowledge.py scale [--pieces 100000] [--questions 200] [--embedder SIZE]
    python benchmarks/bench_knowledge.py kill [--kills 50] [--files 200]
    python benchmarks/bench_knowledge.py processes [--processes 8] [--seconds 120]
    python benchmarks/bench_knowledge.py churn [--times 1000]
    python benchmarks/bench_knowledge.py resync [--files 10000]

scale: made-up texts of the sentences of FILES (--texts; else of characters drawn by their frequency) are indexed; then
questions, which are parts of sentences in another order, are asked one at a time by words, and, with --embedder, by
words and by random vectors of that size. Goals: 20 ms median and 50 ms p95 at 100,000 pieces; 50 and 120 ms at
1,000,000, which takes half an hour and 4 GB of disk; 1,000 pieces a second.
kill: a process that indexes files is killed at random moments while another one searches; at the end the base must be
equal to one that was never killed, with no piece indexed twice.
processes: so many add, search and remove in one base; no error, and no search waits for a writer.
churn: a file is added and removed again and again; the base must stay small.
resync: an unchanged folder is looked at again; nothing is written.

Each prints a table for people and one JSON line for machines.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chatglm.knowledge import Base, Upload, open_base

FREQUENT = (
    "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方后多"
    "定行学法所民得经十三之进着等部度家电力里如水化高自二理起小物现实加量都两体制机当使点从业本去把性好应开它合还"
    "因由其些然前外天政四日那社义事平形相全表间样与关各重新线内数正心反你明看原又么利比或但质气第向道命此变条只没"
)


def machine() -> str:
    python, load = sys.version.split()[0], os.getloadavg()[0]
    return f"{os.cpu_count()} CPUs, load {load:.1f}, Python {python}, SQLite {sqlite3.sqlite_version}"


# Scale


def sentences_of(files: Sequence[Path], count: int = 50_000) -> list[str]:
    """Sentences to make texts of: those of files, or made up."""
    text = "".join(file.read_text("utf-8", errors="replace") for file in files)
    found = [part for part in re.split("[。！？\n]", text) if len(part) > 5]
    if found:
        return found
    random_ = np.random.default_rng(0)
    often = 1 / np.arange(1, len(FREQUENT) + 1)
    usual = random_.choice(list(FREQUENT), (count, 40), p=often / often.sum())
    rare = random_.integers(0x4E00, 0x4E00 + 4000, (count, 40), dtype=np.uint32).view("<U1")
    characters = np.where(random_.random((count, 40)) < 0.7, usual, rare)
    lengths = random_.integers(8, 41, count)
    return ["".join(row[:length]) for row, length in zip(characters.tolist(), lengths, strict=True)]


class RandomEmbedder:
    """Vectors that depend on the text alone, for measuring how long they take to be compared."""

    def __init__(self, size: int) -> None:
        self.size, self.name = size, f"random-{size}"

    def questions(self, texts: Sequence[str]) -> Any:
        return self.passages(texts)

    def passages(self, texts: Sequence[str]) -> Any:
        rows = [np.random.default_rng(abs(hash(text)) % 2**32).standard_normal(self.size) for text in texts]
        matrix = np.asarray(rows, np.float32)
        return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def scale(home: Path, pieces: int, questions: int, texts: Sequence[Path], size: int) -> dict[str, Any]:
    random_ = random.Random(0)
    sentences = sentences_of(texts)
    per_file = 1000
    embedder = RandomEmbedder(size) if size else None
    with open_base("scale", create=True, home=home, embedder=embedder) as base:
        began, cpu = time.perf_counter(), time.process_time()
        for number in range(max(pieces // per_file, 1)):
            parts: list[str] = []
            length = 0
            while length < per_file * 400:
                parts.append(random_.choice(sentences) + "。")
                length += len(parts[-1])
                if len(parts) % 12 == 0:
                    parts.append("\n")
            base.add(Upload(f"文件{number}.txt", "".join(parts).encode()))
        indexed, cpu = time.perf_counter() - began, time.process_time() - cpu
        count = sum(file.pieces for file in base.files())
        result: dict[str, Any] = {
            "pieces": count,
            "index_pieces_per_s": round(count / indexed),
            "index_pieces_per_cpu_s": round(count / cpu),
            "megabytes": round(base.store.file.stat().st_size / 1e6, 1),
        }
    began = time.perf_counter()
    with open_base("scale", home=home, embedder=embedder) as base:
        result["open_ms"] = round((time.perf_counter() - began) * 1e3, 1)
        asked = []
        for _ in range(questions):
            sentence = random_.choice(sentences)
            start = random_.randrange(max(1, len(sentence) - 16))
            asked.append(f"{random_.choice(sentences)[:4]}的{sentence[start : start + 16]}是什么？")
        for mode in ("lexical", "auto") if size else ("lexical",):
            times, cpus = [], []
            for question in asked:
                began, cpu = time.perf_counter(), time.process_time()
                base.search(question, mode=mode)  # type: ignore[arg-type]
                times.append((time.perf_counter() - began) * 1e3)
                cpus.append((time.process_time() - cpu) * 1e3)
            result[f"{mode}_first_ms"] = round(times[0], 1)
            result[f"{mode}_median_ms"] = round(statistics.median(times), 1)
            result[f"{mode}_p95_ms"] = round(sorted(times)[int(len(times) * 0.95)], 1)
            result[f"{mode}_median_cpu_ms"] = round(statistics.median(cpus), 1)
            result[f"{mode}_p95_cpu_ms"] = round(sorted(cpus)[int(len(cpus) * 0.95)], 1)
    return result


# Kill


def state_of(base: Base) -> list[Any]:
    """All of a base that does not depend on when it was made."""
    with base.store.reading() as connection:
        pieces = connection.execute(
            'SELECT file.name, piece.n, piece.start, piece."end", piece.title, piece.folded FROM piece '
            "JOIN file ON file.id = piece.file WHERE piece.generation = file.generation ORDER BY file.name, piece.n"
        ).fetchall()
        grams = connection.execute("SELECT term, doc FROM gram_count").fetchall()
    hits = [(hit.file, hit.start, hit.score) for question in ("天下大势", "日月") for hit in base.search(question)]
    return [list(map(tuple, pieces)), list(map(tuple, grams)), hits]


def write_files(folder: Path, files: int, characters: int) -> None:
    random_ = random.Random(1)
    sentences = sentences_of((), 2_000)
    folder.mkdir()
    for number in range(files):
        text = "。\n".join(random_.choices(sentences, k=characters // 24))
        (folder / f"{number:04}.txt").write_text(text, "utf-8")


def killed(folder: Path, kills: int, files: int, seed: int | None = None, characters: int = 10_000) -> dict[str, Any]:
    """Index files in a process that is killed again and again, while this one searches.

    Raises:
        AssertionError: the base is another one than it would be.
    """
    random_ = random.Random(seed)
    write_files(folder / "files", files, characters)
    with open_base("whole", create=True, home=folder) as whole:
        began = time.perf_counter()
        whole.add(folder / "files")
        took = time.perf_counter() - began
        expected = state_of(whole)
    base = open_base("killed", create=True, home=folder)
    ending, searches, troubles = threading.Event(), [0], []

    def searching() -> None:
        while not ending.is_set():
            try:
                for hit in base.search("天下大势的日月"):
                    if hit.text != base.text(hit.file, hit.start, hit.end):
                        troubles.append(f"{hit.file}: a hit is not its text")
                searches[0] += 1
            except Exception as error:
                troubles.append(repr(error))
            time.sleep(0.01)

    thread = threading.Thread(target=searching)
    thread.start()
    in_work = 0
    try:
        for number in range(kills + 1):
            with _child("_add", folder, "killed", folder / "files") as process:
                assert process.stdout is not None
                process.stdout.readline()  # it begins to add
                if number < kills:
                    time.sleep(random_.uniform(0, min(took, 2.0 * took / kills)))
                    in_work += process.poll() is None
                    process.send_signal(signal.SIGKILL)
                else:
                    assert process.wait(600) == 0
    finally:
        ending.set()
        thread.join()
    with base:
        assert not troubles, troubles[:3]
        assert base.check() == []
        assert state_of(base) == expected
        with base.store.reading() as connection:
            highest, count = connection.execute("SELECT max(id), count(*) FROM piece").fetchone()
        # Ids are used once, and given back where a transaction did not end: a gap is a piece that was indexed twice.
        assert highest == count, f"{highest - count} pieces were indexed twice"
    return {"kills": kills, "while_it_worked": in_work, "files": files, "pieces": count, "searches": searches[0]}


def _child(action: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__).resolve()), action, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _add(home: Path, name: str, folder: Path) -> None:
    with open_base(name, home=home) as base:
        print("adding", flush=True)
        base.add(folder)


# Processes


def processes(folder: Path, count: int, seconds: float) -> dict[str, Any]:
    """Let processes add, search and remove in one base.

    Raises:
        AssertionError: one failed, or the base is not whole.
    """
    open_base("shared", create=True, home=folder).close()
    children = [_child("_use", folder, number, seconds) for number in range(count)]
    reports = []
    for child in children:
        output, _ = child.communicate(timeout=seconds + 300)
        assert child.returncode == 0, child.returncode
        reports.append(json.loads(output.splitlines()[-1]))
    with open_base("shared", home=folder) as base:
        base.wait()
        assert base.check() == []
        files = {file.name: base.text(file.name) for file in base.files()}
    for name, text in files.items():
        assert text.startswith(name), name
    slowest = sorted(wait for report in reports for wait in report["searches"])
    return {
        "processes": count,
        "seconds": seconds,
        "adds": sum(report["adds"] for report in reports),
        "removes": sum(report["removes"] for report in reports),
        "searches": len(slowest),
        "search_median_ms": round(statistics.median(slowest) * 1e3, 1),
        "search_p99_ms": round(slowest[int(len(slowest) * 0.99)] * 1e3, 1),
        "search_max_ms": round(slowest[-1] * 1e3, 1),
    }


def _use(home: Path, seed: int, seconds: float) -> None:
    random_ = random.Random(seed)
    sentences = sentences_of((), 500)
    report: dict[str, Any] = {"adds": 0, "removes": 0, "searches": []}
    with open_base("shared", home=home) as base:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            name = f"{random_.randrange(20)}.txt"
            what = random_.random()
            if what < 0.2:
                base.add(Upload(name, (name + "。".join(random_.choices(sentences, k=100))).encode()))
                report["adds"] += 1
            elif what < 0.3:
                report["removes"] += base.remove(name)
            else:
                began = time.monotonic()
                base.search(random_.choice(sentences)[:12])
                report["searches"].append(time.monotonic() - began)
    print(json.dumps(report))


# Churn, and folders


def churn(folder: Path, times: int) -> dict[str, Any]:
    """Sizes in bytes of a base while a file is added and removed."""
    random_ = random.Random(2)
    sentences = sentences_of((), 2_000)
    sizes = []
    with open_base("churn", create=True, home=folder) as base:
        base.add(Upload("stays.txt", "。".join(random_.choices(sentences, k=500)).encode()))
        for number in range(times):
            base.add(Upload("goes.txt", "。".join(random_.choices(sentences, k=500)).encode()))
            base.remove("goes.txt")
            if number in (times // 10, times - 1):
                with base.store.reading() as connection:
                    sizes.append(connection.execute("PRAGMA page_count").fetchone()[0] * 4096)
        assert base.check() == []
    return {"times": times, "bytes_after_a_tenth": sizes[0], "bytes_at_the_end": sizes[-1]}


def _bytes_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith("-shm")}


def resync(folder: Path, files: int) -> dict[str, Any]:
    write_files(folder / "files", files, 2_000)
    with open_base("resync", create=True, home=folder) as base:
        began = time.perf_counter()
        base.sync(folder / "files")
        first = time.perf_counter() - began
        before = _bytes_in(folder / "knowledge")
        began = time.perf_counter()
        report = base.sync(folder / "files")
        again = time.perf_counter() - began
        after = _bytes_in(folder / "knowledge")
        assert len(report.unchanged) == files
        assert after == before
    return {"files": files, "first_s": round(first, 2), "again_s": round(again, 2), "bytes_written": 0}


def main() -> None:
    match sys.argv[1:]:
        case ["_add", home, name, folder]:
            _add(Path(home), name, Path(folder))
        case ["_use", home, seed, seconds]:
            _use(Path(home), int(seed), float(seconds))
        case _:
            _main()


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("scale", "kill", "processes", "churn", "resync"))
    parser.add_argument("--pieces", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--texts", type=Path, nargs="*", default=[])
    parser.add_argument("--embedder", type=int, default=0, metavar="SIZE", help="numbers of a random vector")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--files", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--times", type=int, default=1000)
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        match arguments.what:
            case "scale":
                result = scale(home, arguments.pieces, arguments.questions, arguments.texts, arguments.embedder)
            case "kill":
                result = killed(home, arguments.kills, arguments.files or 200, arguments.seed)
            case "processes":
                result = processes(home, arguments.processes, arguments.seconds)
            case "churn":
                result = churn(home, arguments.times)
            case _:
                result = resync(home, arguments.files or 10_000)
    for figure, value in result.items():
        print(f"{figure:28} {value:>14,}")
    print(json.dumps({"machine": machine(), "what": arguments.what, **result}))


if __name__ == "__main__":
    main()
