"""Encoders of texts: compared with plain `transformers`, on tiny folders of both layouts."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import pickle
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from chatglm.encoders import Embedder, Reranker, folder_kind
from chatglm.encoders.batches import WAITING_TOKENS, Batches
from chatglm.encoders.tokens import Row
from chatglm.errors import (
    ChatGLMError,
    CheckpointError,
    EngineError,
    InputError,
    NumericalError,
    QueueFullError,
    TokenizerError,
    UnsupportedError,
)
from tiny_encoders import WIDTH, length, make_bare, make_reranker, make_sentence, tokenizer, write

TEXTS = ["你好世界", "abc def 天气怎么样", "x", "北京是中国的首都" * 9, "Hello WORLD 你好", "  空 "]
KINDS = ("bert", "xlm-roberta")


def embed(encoder: Embedder, texts: Sequence[Any], **options: Any) -> torch.Tensor:
    return torch.tensor([list(vector) for vector in asyncio.run(encoder.embed(texts, **options)).vectors])


@functools.cache
def plain(folder: Path) -> tuple[Any, Any]:
    """Tokenizer and model of `transformers`."""
    return transformers.AutoTokenizer.from_pretrained(folder), transformers.AutoModel.from_pretrained(folder).eval()


def hidden_of(folder: Path, text: str, longest: int) -> torch.Tensor:
    """(tokens, width) of one text, by `transformers` alone."""
    own, model = plain(folder)
    given = own(text, return_tensors="pt", truncation=True, max_length=longest)
    with torch.no_grad():
        return model(**given).last_hidden_state[0]


POOLINGS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "pooling_mode_cls_token": lambda hidden: hidden[0],
    "pooling_mode_max_tokens": lambda hidden: hidden.max(0).values,
    "pooling_mode_mean_tokens": lambda hidden: hidden.mean(0),
    "pooling_mode_mean_sqrt_len_tokens": lambda hidden: hidden.sum(0) / len(hidden) ** 0.5,
    "pooling_mode_weightedmean_tokens": lambda hidden: (
        (hidden * torch.arange(1, len(hidden) + 1)[:, None]).sum(0) / sum(range(1, len(hidden) + 1))
    ),
    "pooling_mode_lasttoken": lambda hidden: hidden[-1],
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_of_pooling(tmp_path: Path, kind: str) -> None:
    make_sentence(tmp_path / "m", kind, normalize=False)
    expected = {
        flag: torch.stack([pool(hidden_of(tmp_path / "m", text, 32)) for text in TEXTS])
        for flag, pool in POOLINGS.items()
    }
    for flag in POOLINGS:
        write(tmp_path / "m" / "1_Pooling" / "config.json", {"word_embedding_dimension": WIDTH, flag: True})
        with Embedder.load(tmp_path / "m") as encoder:
            torch.testing.assert_close(embed(encoder, TEXTS), expected[flag], rtol=1e-4, atol=1e-5)
    # All of them joined; and by today's names, in the order that they are given in.
    write(tmp_path / "m" / "1_Pooling" / "config.json", dict.fromkeys(POOLINGS, True))
    with Embedder.load(tmp_path / "m") as encoder:
        assert encoder.dimensions == 6 * WIDTH
        torch.testing.assert_close(embed(encoder, TEXTS), torch.cat([*expected.values()], 1), rtol=1e-4, atol=1e-5)
    write(tmp_path / "m" / "1_Pooling" / "config.json", {"pooling_mode": ["lasttoken", "cls"]})
    two = torch.cat([expected["pooling_mode_lasttoken"], expected["pooling_mode_cls_token"]], 1)
    with Embedder.load(tmp_path / "m") as encoder:
        torch.testing.assert_close(embed(encoder, TEXTS), two, rtol=1e-4, atol=1e-5)


def test_parts_behind_pooling(tmp_path: Path) -> None:
    folder = make_sentence(tmp_path / "m", dense=8)
    state = torch.load(folder / "2_Dense" / "pytorch_model.bin", weights_only=True)
    pooled = torch.stack([hidden_of(folder, text, 32).mean(0) for text in TEXTS])
    dense = torch.tanh(pooled @ state["linear.weight"].T + state["linear.bias"])
    with Embedder.load(folder) as encoder:
        assert encoder.dimensions == 8
        got = embed(encoder, TEXTS)
    torch.testing.assert_close(got, torch.nn.functional.normalize(dense, dim=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bare_folder_gives_the_mean(tmp_path: Path, kind: str) -> None:
    folder = make_bare(tmp_path / "m", kind)
    longest = 64 if kind == "bert" else 62  # RoBERTa's positions begin behind padding's
    expected = torch.stack([hidden_of(folder, text, longest).mean(0) for text in TEXTS])
    with Embedder.load(folder) as encoder:
        assert encoder.max_tokens == longest
        found = asyncio.run(encoder.embed(TEXTS))
        torch.testing.assert_close(embed(encoder, TEXTS), expected, rtol=1e-4, atol=1e-5)
    own = transformers.AutoTokenizer.from_pretrained(folder)
    assert found.tokens == tuple(len(own(t, truncation=True, max_length=longest)["input_ids"]) for t in TEXTS)
    assert found.cut == (3,)
    assert folder_kind(folder) == "embedding"


def test_positions_bound_texts_whatever_the_tokenizer_says(tmp_path: Path) -> None:
    folder = make_bare(tmp_path / "m", "xlm-roberta")
    about = json.loads((folder / "tokenizer_config.json").read_text())
    write(folder / "tokenizer_config.json", {**about, "model_max_length": 10**30})
    with Embedder.load(folder) as encoder:
        assert encoder.max_tokens == 62
        assert asyncio.run(encoder.embed(["x" * 500])).tokens == (62,)


def test_prompts(tmp_path: Path) -> None:
    folder = make_sentence(tmp_path / "m", prompts={"query": "请介绍 ", "none": ""})
    with Embedder.load(folder) as encoder:
        assert encoder.prompts == ("query", "none")
        torch.testing.assert_close(embed(encoder, ["你好"], prompt_name="query"), embed(encoder, ["请介绍 你好"]))
        torch.testing.assert_close(embed(encoder, ["你好"], prompt_name="none"), embed(encoder, ["你好"]))
        with pytest.raises(InputError, match=r"prompt_name: .*'x' \(it has query, none\)"):
            embed(encoder, ["你好"], prompt_name="x")
        bare = embed(encoder, ["你好"])
    file = folder / "config_sentence_transformers.json"
    write(file, {"prompts": {"query": "请介绍 "}, "default_prompt_name": "query"})
    with Embedder.load(folder) as encoder:
        assert not torch.allclose(embed(encoder, ["你好"]), bare)
    # A prompt whose tokens do not count in the vector.
    write(folder / "1_Pooling" / "config.json", {"pooling_mode": "mean", "include_prompt": False})
    with Embedder.load(folder) as encoder:
        hidden = hidden_of(folder, "请介绍 你好", 32)
        expected = torch.nn.functional.normalize(hidden[4:].mean(0), dim=0)  # [CLS] 请 介 绍
        torch.testing.assert_close(embed(encoder, ["你好"])[0], expected, rtol=1e-4, atol=1e-5)


def test_texts_that_look_like_control_tokens_are_text(tmp_path: Path) -> None:
    for kind, word in (("bert", "[SEP]"), ("xlm-roberta", "</s>")):
        with Embedder.load(make_bare(tmp_path / kind, kind)) as encoder:
            (row,) = encoder.tokenizer.texts([word])
            end = tokenizer(kind).sep_token_id
            assert row.ids.count(end) == 1
            assert len(row.ids) > 3


def test_token_ids(tmp_path: Path) -> None:
    with Embedder.load(make_sentence(tmp_path / "m")) as encoder:
        ids = encoder.tokenizer.encode("你好世界")
        torch.testing.assert_close(embed(encoder, [ids]), embed(encoder, ["你好世界"]))
        assert encoder.tokenizer.decode(ids[1:-1]) == "你 好 世 界"
        long = encoder.tokenizer.encode("你" * 90)
        assert len(long) == 92
        torch.testing.assert_close(embed(encoder, [long]), embed(encoder, ["你" * 90]))
        # Ids of another vocabulary, as LangChain sends them, would give a vector without meaning.
        for wrong in ([57668, 53901], [5, 6], [], ids[:-1], [*ids[:-1], 10**9]):
            with pytest.raises(InputError, match=r"input\[1\]: these token ids are not this model's"):
                embed(encoder, [ids, wrong])


def test_dimensions(tmp_path: Path) -> None:
    folder = make_sentence(tmp_path / "m")
    with Embedder.load(folder) as encoder:
        whole = embed(encoder, TEXTS, dimensions=WIDTH)
        with pytest.raises(UnsupportedError, match="not trained for shorter ones"):
            embed(encoder, TEXTS, dimensions=8)
        with pytest.raises(InputError, match="dimensions: is 33"):
            embed(encoder, TEXTS, dimensions=33)
    with Embedder.load(folder, dimensions=None) as encoder:
        cut = embed(encoder, TEXTS, dimensions=8)
        torch.testing.assert_close(cut, torch.nn.functional.normalize(whole[:, :8], dim=1))
        assert all(abs(length(vector) - 1) < 1e-5 for vector in cut.tolist())
    config = json.loads((folder / "config.json").read_text())
    write(folder / "config.json", {**config, "matryoshka_dimensions": [8, 16]})
    with Embedder.load(folder) as encoder:
        torch.testing.assert_close(embed(encoder, TEXTS, dimensions=8), cut)
        with pytest.raises(UnsupportedError, match="may be cut to 8, 16"):
            embed(encoder, TEXTS, dimensions=9)


def test_limits_of_a_request(tmp_path: Path) -> None:
    with Embedder.load(make_sentence(tmp_path / "m")) as encoder:
        for texts, said in (([], "0 texts"), (["x"] * 2049, "2049 texts"), (["x", ""], r"input\[1\]: is empty")):
            with pytest.raises(InputError, match=said):
                embed(encoder, texts)
        encoder.tokenizer.longest = 1000
        encoder.tokenizer._tokenizer.enable_truncation(1000)
        with pytest.raises(InputError, match="has more than 300,000 tokens"):
            embed(encoder, ["x " * 900] * 400)


def test_long_texts_are_bounded_before_they_are_tokenised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Embedder.load(make_sentence(tmp_path / "m")) as encoder:
        short, long = "你好 " * 40, "你好 " * 40 + "x" * 5000
        found = asyncio.run(encoder.embed([long, "a", short]))
        assert found.vectors[0] == found.vectors[2]
        assert found.cut == (0, 2)
        with pytest.raises(InputError, match="prompt: has 2,000,000 characters"):
            encoder.tokenizer.encode("x" * 2_000_000)
        # What is tokenised together does not matter.
        whole = asyncio.run(encoder.embed(TEXTS))
        monkeypatch.setattr("chatglm.encoders.tokens._AT_A_TIME", 5)
        assert asyncio.run(encoder.embed(TEXTS)) == whole


@pytest.mark.parametrize("kind", KINDS)
def test_rerank(tmp_path: Path, kind: str) -> None:
    folder = make_reranker(tmp_path / "m", kind)
    assert folder_kind(folder) == "rerank"
    documents = ["你好", "北京是中国的首都" * 9, "天气", "abc 苹果"]
    own = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    expected, tokens = [], 0
    for document in documents:
        longest = 64 if kind == "bert" else 62
        given = own("首都是哪", document, return_tensors="pt", truncation="longest_first", max_length=longest)
        tokens += given["input_ids"].shape[1]
        with torch.no_grad():
            expected.append(torch.sigmoid(model(**given).logits)[0, 0].item())
    with Reranker.load(folder) as encoder:
        found = asyncio.run(encoder.score("首都是哪", documents))
        assert found.values == pytest.approx(expected, abs=1e-5)
        assert (found.tokens, found.cut) == (tokens, (1,))
        with pytest.raises(InputError, match="query: is empty"):
            asyncio.run(encoder.score("", documents))


# Folders that are not as they should be


def change(file: Path, **fields: Any) -> None:
    about = json.loads(file.read_text("utf-8"))
    about |= fields
    write(file, {name: value for name, value in about.items() if value is not ...})


def modules(folder: Path, number: int, **fields: Any) -> None:
    listed = json.loads((folder / "modules.json").read_text())
    listed[number] |= fields
    write(folder / "modules.json", listed)


class Trap:
    def __reduce__(self) -> Any:
        return os.mkdir, ("sprung",)


DAMAGE: dict[str, tuple[Callable[[Path], Any], type[ChatGLMError], str]] = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), CheckpointError, "no weights"),
    "cut": (lambda f: os.truncate(f / "model.safetensors", 5000), CheckpointError, "but its header says"),
    "pickle": (
        lambda f: ((f / "model.safetensors").unlink(), (f / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(), 2))),
        CheckpointError,
        "pytorch_model.bin",
    ),
    "remote code": (
        lambda f: change(f / "config.json", model_type="new", auto_map={"AutoModel": "x.Y"}),
        UnsupportedError,
        "model_type is 'new', which is not supported .it needs code of its own",
    ),
    "wide": (lambda f: change(f / "config.json", intermediate_size=1 << 14), CheckpointError, "has the shape"),
    "words": (lambda f: change(f / "config.json", vocab_size=1 << 20), CheckpointError, "has the shape"),
    "deep": (lambda f: change(f / "config.json", num_hidden_layers=1000), CheckpointError, "says 1000 layers"),
    "more layers": (lambda f: change(f / "config.json", num_hidden_layers=3), CheckpointError, "layer.2"),
    "negative": (lambda f: change(f / "config.json", num_attention_heads=-4), CheckpointError, "num_attention_heads"),
    "text": (lambda f: change(f / "config.json", intermediate_size="64"), CheckpointError, "intermediate_size is '64'"),
    "act": (lambda f: change(f / "config.json", hidden_act="os.system"), UnsupportedError, "hidden_act"),
    "decoder": (lambda f: change(f / "config.json", is_decoder=True), UnsupportedError, "is_decoder"),
    "positions": (
        lambda f: change(f / "config.json", position_embedding_type="relative_key"),
        UnsupportedError,
        "position_embedding_type",
    ),
    "fifo": (
        lambda f: ((f / "tokenizer_config.json").unlink(), os.mkfifo(f / "tokenizer_config.json")),
        CheckpointError,
        "is a pipe",
    ),
    "tokenizer": (lambda f: (f / "tokenizer.json").write_text("{"), TokenizerError, "cannot be loaded"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), TokenizerError, "cannot be loaded"),
    "tokenizer class": (
        lambda f: change(
            f / "tokenizer_config.json", tokenizer_class="EvilTokenizer", auto_map={"AutoTokenizer": "x.Y"}
        ),
        TokenizerError,
        "'EvilTokenizer' is not supported",
    ),
    "part": (lambda f: modules(f, 1, type="evil.module.Pooling"), UnsupportedError, "evil.module.Pooling"),
    "unknown part": (
        lambda f: modules(f, 1, type="sentence_transformers.models.LSTM"),
        UnsupportedError,
        "models.LSTM is not supported",
    ),
    "outside": (lambda f: modules(f, 1, path="../1_Pooling"), CheckpointError, "must be the name of a folder"),
    "absolute": (lambda f: modules(f, 1, path="/etc"), CheckpointError, "must be the name of a folder"),
    "two transformers": (
        lambda f: modules(f, 2, type="sentence_transformers.models.Transformer"),
        UnsupportedError,
        "a Transformer must come first",
    ),
    "no list": (lambda f: (f / "modules.json").write_text('{"a": 1}'), CheckpointError, "does not hold a list"),
    "hidden field": (lambda f: (f / "modules.json").write_text('[], "x": 1'), CheckpointError, "not hold a list"),
    "pooling": (
        lambda f: write(f / "1_Pooling" / "config.json", {"pooling_mode": "attention"}),
        UnsupportedError,
        "pooling_mode 'attention' is not supported",
    ),
    "width": (
        lambda f: write(f / "1_Pooling" / "config.json", {"word_embedding_dimension": 7}),
        CheckpointError,
        "word_embedding_dimension is 7",
    ),
    "no pooling": (lambda f: shutil.rmtree(f / "1_Pooling"), CheckpointError, "1_Pooling/config.json: no such file"),
    "activation": (
        lambda f: change(f / "2_Dense" / "config.json", activation_function="os.system"),
        UnsupportedError,
        "activation_function 'os.system'",
    ),
    "dense width": (lambda f: change(f / "2_Dense" / "config.json", out_features=9), CheckpointError, "of the shape"),
    "tokens": (lambda f: write(f / "sentence_bert_config.json", {"max_seq_length": -1}), CheckpointError, "max_seq"),
    "prompts": (
        lambda f: write(f / "config_sentence_transformers.json", {"prompts": {"query": 5}}),
        CheckpointError,
        "the prompt 'query'",
    ),
}


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sentence(tmp_path_factory.mktemp("encoders") / "m", dense=8)


@pytest.mark.parametrize("name", DAMAGE)
def test_a_folder_that_is_not_as_it_should_be(
    tmp_path: Path, dense: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path(shutil.copytree(dense, tmp_path / "m"))
    damage, error, said = DAMAGE[name]
    damage(folder)
    with pytest.raises(error, match=said):
        Embedder.load(folder)
    assert not Path("sprung").exists()


def test_folders_of_the_other_kind(tmp_path: Path) -> None:
    bare, ranks = make_bare(tmp_path / "bare"), make_reranker(tmp_path / "ranks")
    with pytest.raises(CheckpointError, match="not a cross-encoder"):
        Reranker.load(bare)
    with pytest.raises(CheckpointError, match="use a cross-encoder as `rerank`"):
        Embedder.load(ranks)
    with pytest.raises(CheckpointError, match="no such folder"):
        Embedder.load(tmp_path / "nothing")
    two = make_bare(tmp_path / "two", labels=2)
    with pytest.raises(CheckpointError, match="with one label"):
        Reranker.load(two)


# The thread


def row(size: int) -> Row:
    return Row([1] * size, [0] * size)


@pytest.fixture
def gate() -> threading.Event:
    return threading.Event()


def test_rows_of_several_requests_share_a_batch_in_turn(gate: threading.Event) -> None:
    seen: list[list[int]] = []

    def run(rows: Sequence[Row]) -> torch.Tensor:
        gate.wait(60)
        seen.append([len(row.ids) for row in rows])
        return torch.tensor([[float(len(row.ids))] for row in rows])

    batches = Batches(run, "test")
    try:
        first = batches.submit([row(1)], "a")
        many = batches.submit([row(100)] * 300, "a")
        few = batches.submit([row(90), row(3)], "b")
        gate.set()
        assert few.result(60).flatten().tolist() == [90, 3]
        assert many.result(60).flatten().tolist() == [100.0] * 300
        assert first.result(60).tolist() == [[1.0]]
    finally:
        batches.stop()
    assert {100, 90} == {*seen[1][:2]}
    assert [3] in seen[:4]  # the long request of another client was not waited for
    assert all(max(sizes) * len(sizes) <= 4096 and min(sizes) * 2 >= max(sizes) for sizes in seen)
    assert len(seen) < 20
    with pytest.raises(EngineError, match="closed"):
        batches.submit([row(1)], "a")


def test_a_request_that_breaks_harms_itself_alone(gate: threading.Event) -> None:
    def run(rows: Sequence[Row]) -> torch.Tensor:
        gate.wait(60)
        if any(len(row.ids) == 13 for row in rows):
            raise RuntimeError("thirteen")
        return torch.tensor([[float("nan") if len(row.ids) == 14 else 1.0] for row in rows])

    batches = Batches(run, "test")
    try:
        batches.submit([row(1)], "z")
        bad, good = batches.submit([row(13), row(12)], "a"), batches.submit([row(12)], "b")
        odd = batches.submit([row(14)], "c")
        gone = batches.submit([row(12)] * 500, "d")
        gone.cancel()
        gate.set()
        assert good.result(60).tolist() == [[1.0]]
        with pytest.raises(EngineError, match="thirteen"):
            bad.result(60)
        with pytest.raises(NumericalError):
            odd.result(60)
        assert batches.submit([row(2)], "a").result(60).tolist() == [[1.0]]
        assert batches.stats().waiting == 0
        assert batches.stats().rows < 100
    finally:
        batches.stop()


def test_a_full_queue(gate: threading.Event) -> None:
    def run(rows: Sequence[Row]) -> torch.Tensor:
        gate.wait(60)
        return torch.zeros(len(rows), 1)

    batches = Batches(run, "test")
    try:
        large = [row(4096)] * (WAITING_TOKENS // 4096)
        batches.submit(large, "a")
        with pytest.raises(QueueFullError) as full:
            batches.submit([row(5)], "a")
        assert full.value.retry_after > 0
        batches.submit([row(5)], "b")  # another client still has its share
    finally:
        threading.Timer(0.2, gate.set).start()
        batches.stop()
