"""`--config FILE.yaml` and the options of `chatglm serve` that name models."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from chatglm.cli.served import add_catalog_arguments, open_catalog
from chatglm.encoders import Embedder, Reranker
from chatglm.errors import InputError
from chatglm.serving.catalog import Catalog
from server import serving
from tiny_encoders import make_reranker, make_sentence


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_catalog_arguments(parser)
    return parser.parse_args(arguments)


@pytest.fixture
def folder(tmp_path: Path, checkpoint: Callable[[str], Path]) -> Path:
    """Models to name: `three`, `two`, `texts` and `ranks`."""
    (tmp_path / "three").symlink_to(checkpoint("chatglm3"))
    (tmp_path / "two").symlink_to(checkpoint("chatglm2"))
    make_sentence(tmp_path / "texts")
    make_reranker(tmp_path / "ranks")
    return tmp_path


@contextmanager
def catalog_of(folder: Path, text: str, *arguments: str) -> Iterator[Catalog]:
    file = folder / "serve.yaml"
    file.write_text(text, "utf-8")
    with open_catalog(parse("--config", str(file), *arguments)) as catalog:
        yield catalog


def loaded(catalog: Catalog) -> list[str]:
    return [holder.source.name for holder in catalog.models() if holder.model is not None]


WHOLE = """
memory: 2GiB
models:
  glm:
    path: three
    aliases: [gpt-4, chatglm]
    dtype: fp32
    kv-memory: 8MiB
    context: 512
    huge-pages: false
  small:
    path: ./two
    load: first-use
    idle: 10m
embeddings:
  texts: {path: texts, aliases: text-embedding-3-small, dimensions: [8, 16]}
rerank:
  ranks: ranks
"""


def test_a_whole_file(folder: Path) -> None:
    with catalog_of(folder, WHOLE) as catalog:
        assert list(catalog.offers) == ["glm", "gpt-4", "chatglm", "small", "texts", "text-embedding-3-small", "ranks"]
        assert loaded(catalog) == ["glm", "texts", "ranks"]
        small = catalog.offers["small"].holder
        assert (small.source.idle, small.source.at_start, small.source.root) == (600, False, "chatglm2")
        glm = catalog.offers["gpt-4"].holder
        assert (glm.context, glm.source.name) == (512, "glm")
        # The estimate is what is taken, to the pages and what is not a weight.
        assert glm.source.size() == pytest.approx(glm.bytes, rel=0.1)
        assert glm.bytes <= (8 << 20) + sum(file.stat().st_size for file in (folder / "three").iterdir()) * 2.1
        with serving(catalog) as url:  # type: ignore[arg-type]
            body: dict[str, Any] = {
                "model": "small",
                "messages": [{"role": "user", "content": "你好"}],
                "max_tokens": 2,
            }
            assert httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()["model"] == "small"
            assert loaded(catalog) == ["glm", "small", "texts", "ranks"]
            given = {"input": "你好", "model": "text-embedding-3-small", "dimensions": 8}
            vectors = httpx.post(f"{url}/v1/embeddings", json=given).json()["data"]
            assert len(vectors[0]["embedding"]) == 8
            ranked = httpx.post(f"{url}/v1/rerank", json={"query": "a", "documents": ["b", "c"]}).json()
            assert (ranked["model"], len(ranked["results"])) == ("ranks", 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("models: [", "line 1: not valid YAML"),
        ("- a", "line 1: .*expected names with values"),
        ("model: {a: three}", "line 1: unknown key 'model'; known: models, embeddings, rerank, memory, threads"),
        ("memory: 1GiB", "names no models"),
        ("models:\n  a: nothing-here", "line 2: a: 'nothing-here': no such folder"),
        ("models:\n  a:\n    path: three\n    dtpe: fp16", "line 4: unknown key 'dtpe'; known: path, aliases, load"),
        ("models:\n  a:\n    path: three\n    path: two", "line 4: path is given twice"),
        ("models:\n  a: three\n  a: two", "line 3: models: a is given twice"),
        ("models:\n  a: {dtype: fp16}", "line 2: a: needs `path`"),
        ("models:\n  a: {path: three, remote: 'http://x/v1'}", "line 2: a: has `path` and `remote`"),
        ("models:\n  a: {path: three, dtype: fp7}", "line 2: dtype: 'fp7' must be one of auto, float32"),
        ("models:\n  a: {path: three, load: later}", "line 2: load: 'later' must be one of start, first-use"),
        ("models:\n  a: {path: three, idle: soon}", "line 2: idle: 'soon' must be an amount such as 10m"),
        ("models:\n  a: {path: three, kv-memory: -1}", "line 2: kv-memory: '-1' must be an amount such as 12GiB"),
        ("models:\n  a: {path: three, context: 1.5}", "line 2: context: '1.5' must be a whole number"),
        ("models:\n  a: {path: three, huge-pages: maybe}", "line 2: huge-pages: 'maybe' must be true or false"),
        ("models:\n  a: {path: [three]}", "line 2: path: expected one value"),
        ("models:\n  a b: three", "line 2: models: 'a b' is not a valid name for a model"),
        ("models:\n  ? [a]\n  : three", "line 2: models: a name must be a word"),
        ("memory: 1KiB\nmodels:\n  a: three", "a: needs .*of the memory budget are left"),
        ("memory: much\nmodels: {a: three}", "line 1: memory: 'much' must be an amount"),
        ("models: {a: three}\nembeddings: {a: texts}", "a: two models have this name"),
        ("models: {a: !!python/object/apply:os.mkdir [sprung]}", "line 1: a: expected names with values"),
        ("models: {a: !!python/name:os.mkdir x}", "line 1: "),
        ("x: " + "[" * 5000, "not valid YAML|unknown key"),
    ],
)
def test_what_is_wrong_with_a_file(folder: Path, text: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match=said), catalog_of(folder, text):
        pass
    assert not (folder / "sprung").exists()


def test_options_that_do_not_go_with_a_file(folder: Path) -> None:
    for option in (
        ["--model", "three"],
        ["--name", "x"],
        ["--embedding", "texts"],
        ["--dtype", "fp32"],
        ["--huge-pages"],
    ):
        with (
            pytest.raises(InputError, match=f"{option[0]} cannot be used with --config"),
            catalog_of(folder, "models: {a: three}", *option),
        ):
            pass
    with pytest.raises(InputError, match="cannot be read"):
        open_catalog(parse("--config", str(folder / "none.yaml")))


def test_several_models_on_the_command_line(folder: Path) -> None:
    arguments = ["--model", f"a={folder / 'three'}", "--model", str(folder / "two")]
    texts = ["--embedding", f"e={folder / 'texts'}", "--rerank", str(folder / "ranks")]
    with open_catalog(parse(*arguments, *texts)) as catalog:
        assert list(catalog.offers) == ["a", "chatglm2", "e", "ranks"]
        assert loaded(catalog) == ["a", "chatglm2", "e", "ranks"]
    for option in (["--name", "x"], ["--adapter", "y"], ["--prefix", "y"], ["--draft", "y"], ["--remote", "http://z"]):
        with pytest.raises(InputError, match=f"{option[0]}: belongs to one model, but --model is given 2 times"):
            open_catalog(parse(*arguments, *option))


def test_one_model_on_the_command_line(folder: Path) -> None:
    with open_catalog(parse("--model", str(folder / "three"), "--name", "x", "--name", "y")) as catalog:
        assert list(catalog.offers) == ["x", "y"]
        assert catalog.offers["y"].holder is catalog.offers["x"].holder
    with open_catalog(parse("--model", f"mine={folder / 'three'}")) as catalog:
        assert list(catalog.offers) == ["mine"]
    with open_catalog(parse()) as catalog:
        assert list(catalog.offers) == ["demo"]
    with pytest.raises(InputError, match="the name 'mine' already"):
        open_catalog(parse("--model", f"mine={folder / 'three'}", "--name", "x"))


PAGE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"


def section(title: str, language: str) -> list[str]:
    """The blocks of a language in a section of docs/serving.md."""
    text = PAGE.read_text("utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_documented_file(folder: Path) -> None:
    (text,) = section("Several models", "yaml")
    replaced = {"/models/glm-4-9b-chat": "three", "THUDM/chatglm3-6b": "two"}
    replaced |= {"BAAI/bge-small-zh-v1.5": "texts", "BAAI/bge-reranker-base": "ranks"}
    for name, own in replaced.items():
        assert name in text
        text = text.replace(name, own)
    with catalog_of(folder, text.replace("threads: 8", "threads: 1")) as catalog:
        assert list(catalog.offers) == [
            "glm",
            "gpt-4",
            "chatglm",
            "small",
            "far",
            "bge",
            "text-embedding-3-small",
            "ranker",
        ]
        assert loaded(catalog) == ["glm", "far", "ranker"]


def test_the_documented_examples(folder: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    with (
        Embedder.load(folder / "texts") as texts,
        Reranker.load(folder / "ranks") as ranks,
        serving({}, encoders={"bge": texts, "ranker": ranks}) as url,
    ):
        examples = [text for text in section("Embeddings and rerank", "sh") if "tokenize" not in text]
        assert len(examples) == 2
        for text in examples:
            command = text.replace("http://127.0.0.1:8000", url).replace("curl ", "curl -sS --fail-with-body ")
            done = subprocess.run(["sh", "-euc", command], capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            assert '"index"' in done.stdout
