"""`/v1/embeddings` with real clients, over a tiny BERT folder."""

from __future__ import annotations

import asyncio
import base64
import struct
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
from langchain_openai import OpenAIEmbeddings

from chatglm.encoders import Embedder
from scripted import ScriptedEngine, Writer
from server import serving
from tiny_encoders import WIDTH, length, make_sentence


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedder]:
    folder = make_sentence(tmp_path_factory.mktemp("encoders") / "m", prompts={"query": "请介绍 "})
    with Embedder.load(folder, dimensions=(8,)) as made:
        yield made


@pytest.fixture(scope="module")
def url(encoder: Embedder) -> Iterator[str]:
    with serving({}, encoders={"tiny": encoder}) as address:
        yield f"{address}/v1"


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as made:
        yield made


def vectors_of(encoder: Embedder, *texts: Any, **options: Any) -> list[list[float]]:
    return [list(vector) for vector in asyncio.run(encoder.embed(texts, **options)).vectors]


def test_openai(client: openai.OpenAI, encoder: Embedder) -> None:
    texts = ["你好世界", "abc", "天气怎么样"]
    expected = vectors_of(encoder, *texts)
    for options in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
        found = client.embeddings.create(model="tiny", input=texts, user="me", **options)
        assert [one.index for one in found.data] == [0, 1, 2]
        assert found.model == "tiny"
        vectors = [one.embedding for one in found.data]
        if options.get("encoding_format") == "base64":  # asked for, so the client leaves it as it is
            vectors = [list(array("f", base64.b64decode(str(vector)))) for vector in vectors]
        for got, wanted in zip(vectors, expected, strict=True):
            assert got == pytest.approx(wanted, abs=1e-5)
        assert found.usage.prompt_tokens == found.usage.total_tokens == 6 + 5 + 7
    one = client.embeddings.create(model="tiny", input="你好世界").data
    assert [one[0].embedding] == [pytest.approx(expected[0], abs=1e-5)]


def test_token_ids(client: openai.OpenAI, encoder: Embedder) -> None:
    (expected,) = vectors_of(encoder, "你好世界")
    ids = encoder.tokenizer.encode("你好世界")
    for given in (ids, [ids], [ids, ids]):
        found = client.embeddings.create(model="tiny", input=given).data
        assert all(one.embedding == pytest.approx(expected, abs=1e-5) for one in found)
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        client.embeddings.create(model="tiny", input=[[57668, 53901, 3574, 244]])


def test_langchain(url: str, encoder: Embedder) -> None:
    options: dict[str, Any] = {"model": "tiny", "base_url": url, "api_key": "none", "max_retries": 0}
    lang = OpenAIEmbeddings(**options, check_embedding_ctx_length=False)
    expected = vectors_of(encoder, "你好", "天气")
    assert [pytest.approx(vector, abs=1e-5) for vector in lang.embed_documents(["你好", "天气"])] == expected
    assert lang.embed_query("你好") == pytest.approx(expected[0], abs=1e-5)

    # By default it sends token ids of OpenAI's vocabulary: refused, with what to do.
    class Encoding:
        def encode_ordinary(self, text: str) -> list[int]:
            return [57668, 53901]

        encode = encode_ordinary

    class Ids(OpenAIEmbeddings):
        def _tokenize(self, texts: list[str], chunk_size: int, **more: Any) -> Any:
            return range(0, len(texts), chunk_size), [[57668, 53901] for _ in texts], list(range(len(texts))), [2]

    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        Ids(**options).embed_documents(["你好"])


def test_options(client: openai.OpenAI, encoder: Embedder) -> None:
    short = client.embeddings.create(model="tiny", input="你好", dimensions=8).data[0].embedding
    assert short == pytest.approx(vectors_of(encoder, "你好", dimensions=8)[0], abs=1e-5)
    assert abs(length(short) - 1) < 1e-5
    with pytest.raises(openai.BadRequestError, match=r"dimensions: .*may be cut to 8") as refused:
        client.embeddings.create(model="tiny", input="你好", dimensions=16)
    assert refused.value.param == "dimensions"
    query = client.embeddings.create(model="tiny", input="你好", extra_body={"prompt_name": "query"})
    assert query.data[0].embedding == pytest.approx(vectors_of(encoder, "请介绍 你好")[0], abs=1e-5)


def test_what_is_cut_is_said(url: str) -> None:
    answer = httpx.post(f"{url}/embeddings", json={"input": ["x" * 90, "y"], "user": "me"})
    assert answer.json()["usage"]["prompt_tokens"] == 32 + 3
    assert answer.headers["X-Chatglm-Dropped"] == "input: beyond 32 tokens (1 of the texts)"
    assert answer.headers["X-Chatglm-Ignored"] == "user"


def test_base64_is_of_little_endian_floats(url: str) -> None:
    bodies = ({"input": "你好", "encoding_format": form} for form in ("base64", "float"))
    coded, plain = (httpx.post(f"{url}/embeddings", json=body).json()["data"][0]["embedding"] for body in bodies)
    assert list(struct.unpack(f"<{WIDTH}f", base64.b64decode(coded))) == pytest.approx(plain, abs=1e-6)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"input": []}, 400, "input: must not be empty"),
        ({"input": ""}, 400, "input: must not be empty"),
        ({"input": ["a", ""]}, 400, "input[1]: must not be empty"),
        ({"input": [[]]}, 400, "input[0]: must not be empty"),
        ({"input": ["a", 1]}, 400, "input[1]: must be a string"),
        ({"input": ["x"] * 2049}, 400, "input: too many items (2,049)"),
        ({"input": {"text": "a"}}, 400, "input: must be a string, a list of strings"),
        ({"input": "a", "encoding_format": "int8"}, 400, "encoding_format: must be one of: float, base64"),
        ({"input": "a", "dimensions": 0}, 400, "dimensions: must be at least 1"),
        ({"input": "a", "truncate": False}, 400, "truncate: only true is supported"),
        ({"input": "a", "model": "other"}, 404, "'other' is not served here; available: tiny"),
        ({"input": "a", "prompt_name": "x"}, 400, "prompt_name: the model has no prompt 'x' (it has query)"),
    ],
)
def test_what_is_refused(url: str, body: dict[str, Any], status: int, said: str) -> None:
    answer = httpx.post(f"{url}/embeddings", json=body)
    assert said in answer.json()["error"]["message"]
    assert answer.status_code == status


def test_without_an_encoder(over: Callable[..., tuple[str, ScriptedEngine]], write: Writer) -> None:
    url, _ = over([write.end])
    answer = httpx.post(f"{url}/v1/embeddings", json={"input": "a", "model": "demo"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert "`chatglm serve --embedding FOLDER`" in answer.json()["error"]["message"]


def test_usual_mistakes_in_the_path(url: str) -> None:
    base = url.removesuffix("/v1")
    for path in ("/embeddings", "/v1/v1/embeddings", "//v1/embeddings"):
        assert httpx.post(base + path, json={"input": "a"}).status_code == 200


def test_figures(url: str) -> None:
    def count() -> float:
        lines = httpx.get(f"{url.removesuffix('/v1')}/metrics").text.splitlines()
        found = [line for line in lines if line.startswith('chatglm_encoded_tokens_total{model="tiny"}')]
        return float(found[0].split()[-1]) if found else 0.0

    before = count()
    httpx.post(f"{url}/embeddings", json={"input": "你好"})
    assert count() == before + 4
