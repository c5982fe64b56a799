"""Rerank in Jina's and Cohere's shape, over a tiny XLM-R folder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from chatglm.encoders import Embedder, Reranker
from scripted import ScriptedEngine, Writer
from server import serving
from tiny_encoders import make_bare, make_reranker

DOCUMENTS = ["你好", "北京是中国的首都", "天气怎么样", "abc 苹果"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reranker]:
    with Reranker.load(make_reranker(tmp_path_factory.mktemp("encoders") / "m")) as made:
        yield made


@pytest.fixture(scope="module")
def url(encoder: Reranker) -> Iterator[str]:
    with serving({}, encoders={"ranks": encoder}) as address:
        yield address


def ask(url: str, path: str = "/v1/rerank", **body: Any) -> Any:
    answer = httpx.post(url + path, json={"query": "首都是哪", "documents": DOCUMENTS, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_best_come_first(url: str, encoder: Reranker) -> None:
    scores = asyncio.run(encoder.score("首都是哪", DOCUMENTS))
    order = sorted(range(4), key=lambda number: -scores.values[number])
    found = ask(url, model="ranks")
    assert [one["index"] for one in found["results"]] == order
    for one in found["results"]:
        assert one["relevance_score"] == pytest.approx(scores.values[one["index"]], abs=1e-5)
        assert 0 <= one["relevance_score"] <= 1
        assert one["document"] == {"text": DOCUMENTS[one["index"]]}
    assert found["usage"] == {"prompt_tokens": scores.tokens, "total_tokens": scores.tokens}
    assert found["model"] == "ranks"
    assert found["meta"]["billed_units"] == {"search_units": 1}


def test_paths_and_options(url: str) -> None:
    whole = ask(url)["results"]
    assert ask(url, "/rerank")["results"] == whole
    bare = [{name: one[name] for name in ("index", "relevance_score")} for one in whole]
    assert ask(url, "/v2/rerank")["results"] == bare
    assert ask(url, return_documents=False)["results"] == bare
    assert ask(url, "/v2/rerank", return_documents=True)["results"] == whole
    assert ask(url, top_n=2)["results"] == whole[:2]
    assert ask(url, top_n=99)["results"] == whole
    assert ask(url, rank_fields=["text"], max_chunks_per_doc=1, max_tokens_per_doc=4096)["results"] == whole
    assert ask(url, query={"text": "首都是哪"})["results"] == whole


def test_documents_as_objects(url: str) -> None:
    given = [{"text": text, "id": number, "tags": ["x"]} for number, text in enumerate(DOCUMENTS)]
    found = ask(url, documents=given)["results"]
    assert [one["document"] for one in found] == [given[one["index"]] for one in found]
    assert [one["index"] for one in found] == [one["index"] for one in ask(url)["results"]]


def test_what_is_cut(url: str) -> None:
    long = ["x" * 500, "y"]
    answer = httpx.post(f"{url}/v1/rerank", json={"query": "q", "documents": long})
    assert answer.headers["X-Chatglm-Dropped"] == "documents: beyond 62 tokens (1 of them)"
    refused = httpx.post(f"{url}/v1/rerank", json={"query": "q", "documents": long, "truncation": False})
    assert refused.status_code == 400
    assert refused.json()["detail"].startswith("documents[0]: has, with the query, more than the 62 tokens")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"documents": []}, 400, "documents: must not be empty"),
        ({"documents": [5]}, 400, "documents[0]: must be a string, or an object with `text`"),
        ({"documents": [{"title": "a"}]}, 400, "documents[0].text: required"),
        ({"documents": "a"}, 400, "documents: must be a list"),
        ({"query": ""}, 400, "query: is empty"),
        ({"query": None}, 400, "query: required"),
        ({"top_n": 0}, 400, "top_n: must be at least 1"),
        ({"rank_fields": ["title"]}, 400, "rank_fields: only"),
        ({"max_tokens_per_doc": 5}, 400, "max_tokens_per_doc: at least 62 is supported"),
        ({"model": "other"}, 404, "'other' is not served here; available: ranks"),
    ],
)
def test_what_is_refused(url: str, body: dict[str, Any], status: int, said: str) -> None:
    for path in ("/v1/rerank", "/rerank", "/v2/rerank"):
        answer = httpx.post(url + path, json={"query": "a", "documents": ["b"], **body})
        assert (answer.status_code, said in answer.json()["message"]) == (status, True), answer.text
        assert answer.json()["detail"] == answer.json()["message"]


def test_without_an_encoder(over: Callable[..., tuple[str, ScriptedEngine]], write: Writer) -> None:
    url, _ = over([write.end])
    answer = httpx.post(f"{url}/v1/rerank", json={"query": "a", "documents": ["b"]})
    assert answer.status_code == 404
    assert "`chatglm serve --rerank FOLDER`" in answer.json()["message"]


def test_one_kind_is_not_the_other(tmp_path: Any, encoder: Reranker) -> None:
    with (
        Embedder.load(make_bare(tmp_path / "m")) as texts,
        serving({}, encoders={"ranks": encoder, "texts": texts}) as url,
    ):
        answer = httpx.post(f"{url}/v1/embeddings", json={"input": "a", "model": "ranks"})
        assert answer.status_code == 404
        assert "available: texts" in answer.json()["error"]["message"]
        assert httpx.post(f"{url}/v1/embeddings", json={"input": "a"}).json()["model"] == "texts"
        assert ask(url)["model"] == "ranks"
