"""A vocabulary of one's own: any text comes back, and the folder is one that the Auto classes read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatglm import AutoTokenizer
from chatglm.chat.formats import chat_format
from chatglm.chat.messages import Message
from chatglm.chat.tokenizers import SentencePieceTokenizer
from chatglm.cli import main
from chatglm.errors import InputError
from chatglm.training.tokenizer import train_tokenizer

TEXTS = [
    "今天天气很好，我们去公园散步。",
    "The weather is fine today, so we walk in the park.",
    "公园里有很多人，也有 12 只狗。\n    缩进的一行",
    "tool_call(city='北京')",
] * 20


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> SentencePieceTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    return train_tokenizer(TEXTS, folder, size=400, symbols=["tool_call(", "\n▁▁▁▁"], characters="鑫")


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(blacklist_categories=("Cs",)), max_size=40).filter(lambda t: "▁" not in t))
def test_any_text_comes_back(tokenizer: SentencePieceTokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode_text(text)) == text
    assert not set(tokenizer.encode_text(text)) & set(tokenizer.control_ids)


def test_the_official_layout(tokenizer: SentencePieceTokenizer) -> None:
    assert [tokenizer.get_command(name) for name in ("<bos>", "<eos>", "<pad>")] == [1, 2, 0]
    names = ["[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]
    assert [tokenizer.get_command(name) for name in names] == list(range(400, 409))
    assert tokenizer.vocab_size == 409
    form = chat_format(tokenizer)
    messages = [Message("user", "你好"), Message("assistant", "好")]
    assert form.prompt(messages[:1])[:3] == [401, 403, 406]
    assert form.parse(form.example(messages)[0][len(form.prompt(messages[:1])) :]) == messages[1]


def test_what_is_asked_for_has_a_piece(tokenizer: SentencePieceTokenizer) -> None:
    pieces = [tokenizer.convert_ids_to_tokens(i) for i in tokenizer.encode_text("a鑫tool_call(\n    2112")]
    assert {"鑫", "tool_call(", "\n▁▁▁▁", "1", "2"} <= set(pieces)  # and digits stand alone
    unknown = tokenizer.encode_text("龘")  # is spelled in bytes
    assert len(unknown) >= 3
    assert tokenizer.decode(unknown) == "龘"


def test_same_texts_same_vocabulary(tokenizer: SentencePieceTokenizer, tmp_path: Path) -> None:
    again = train_tokenizer(TEXTS, tmp_path, size=400, symbols=["tool_call(", "\n▁▁▁▁"], characters="鑫")
    assert again.get_vocab() == tokenizer.get_vocab()
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == tokenizer.get_vocab()


def test_what_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no text"):
        train_tokenizer(["", "\n"], tmp_path / "new", size=400)
    with pytest.raises(InputError, match="size=100"):
        train_tokenizer(TEXTS, tmp_path / "new", size=100)
    with pytest.raises(InputError, match=r"size=90000: .*\(lines: \d+; "):
        train_tokenizer(TEXTS, tmp_path / "new", size=90000)
    with pytest.raises(InputError, match="chatglm2 or chatglm3"):
        train_tokenizer(TEXTS, tmp_path / "new", size=400, generation="glm4")
    assert not (tmp_path / "new").exists()
    (tmp_path / "tokenizer.model").write_bytes(b"mine")
    with pytest.raises(InputError, match="exists already"):
        train_tokenizer(TEXTS, tmp_path, size=400)
    assert (tmp_path / "tokenizer.model").read_bytes() == b"mine"


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("\n".join(TEXTS), "utf-8")
    command = ["tokenizer", "train", str(tmp_path / "a.txt"), "--output", str(tmp_path / "out"), "--size", "380"]
    assert main([*command, "--generation", "chatglm2", "--symbol", "tool_call("]) == 0
    assert "385 ids" in capsys.readouterr().out
    assert "tool_call(" in SentencePieceTokenizer.from_pretrained(tmp_path / "out").get_vocab()
    assert main(command) == 1
    assert "exists already" in capsys.readouterr().err


def test_what_sentencepiece_does_not_take_is_said_by_name(tmp_path: Path) -> None:
    for options, said in (
        ({"coverage": 0.5}, "coverage=0.5: "),
        ({"coverage": 2}, "coverage=2: "),
        ({"longest_piece": 0}, "longest_piece=0: "),
        ({"symbols": ["a", ""]}, "symbols: '' cannot be a symbol; it is empty"),
        ({"symbols": ["<unk>"]}, "symbols: '<unk>' cannot be a symbol; it is a control piece"),
    ):
        with pytest.raises(InputError, match=said):
            train_tokenizer(TEXTS, tmp_path / "out", size=400, **options)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        train_tokenizer(TEXTS, tmp_path / "file" / "out", size=400)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file"]
