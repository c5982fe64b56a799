"""Tokens that a caller adds: ids in the free rows, text cut at them, folders, models; and names of special tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AddedToken

import chatglm
from chatglm.chat.formats import chat_format
from chatglm.chat.messages import Message
from chatglm.chat.tokenizers import ChatGLMTokenizer
from chatglm.errors import InputError, TokenizerError, UnsupportedError
from chatglm.params import SamplingParams
from conftest import VERSIONS

LAW = settings(max_examples=100, deadline=None)


def extended(folder: Path, **options: Any) -> Any:
    tokenizer = ChatGLMTokenizer.from_pretrained(folder, **options)
    assert tokenizer.add_tokens(["<新词>", "abcXYZ", "<新词>"]) == 2
    assert tokenizer.add_special_tokens({"additional_special_tokens": ["<|ext|>"]}) == 1
    assert tokenizer.add_tokens(["<新词>", "abcXYZ"]) == 0
    return tokenizer


@pytest.mark.parametrize("version", VERSIONS)
def test_added_tokens(version: str, checkpoint, tmp_path: Path) -> None:
    """P9."""
    before = ChatGLMTokenizer.from_pretrained(checkpoint(version))
    size = len(before)
    tokenizer = extended(checkpoint(version))
    assert len(tokenizer) == size + 3
    assert tokenizer.get_added_vocab() == {"<新词>": size, "abcXYZ": size + 1, "<|ext|>": size + 2}
    assert tokenizer.convert_tokens_to_ids(["<新词>", "abcXYZ", "<|ext|>"]) == [size, size + 1, size + 2]
    assert tokenizer.convert_ids_to_tokens([size, size + 1, size + 2]) == ["<新词>", "abcXYZ", "<|ext|>"]
    assert tokenizer.get_command("<|ext|>") == size + 2
    assert tokenizer.control_ids == before.control_ids | {size + 2}
    assert tokenizer.tokenize("<新词>x")[0] == "<新词>"

    for text in (
        "你好<新词>吃 abcXYZ , b",
        "<新词>",
        "  <新词>  x\n<新词>\n",
        "a abcXYZ b",
        "<新词><新词>",
        "x<新词> ",
    ):
        ids = tokenizer.encode_text(text)
        assert ids.count(size) == text.count("<新词>")
        assert ids.count(size + 1) == text.count("abcXYZ")
        # ChatGLM-6B's normalisation drops a blank at the end of any text.
        assert tokenizer.decode(ids) == (text.rstrip(" ") if version == "chatglm" else text)
        assert b"".join(map(tokenizer.token_bytes, ids)).decode().strip(" ") == text.strip(" ")
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids
    assert tokenizer.encode_text("你好, a b\n") == before.encode_text("你好, a b\n")

    prompt = chat_format(tokenizer).prompt([Message("user", "<新词>是什么？<|ext|>")])
    assert size in prompt
    assert size + 2 not in prompt
    ids = tokenizer("a<|ext|>b", allow_special_tokens=True, add_special_tokens=False)["input_ids"]
    assert size + 2 in ids
    assert "<|ext|>" in tokenizer.decode(ids)
    assert "<|ext|>" not in tokenizer.decode(ids, skip_special_tokens=True)

    tokenizer.save_pretrained(tmp_path)
    again = ChatGLMTokenizer.from_pretrained(tmp_path)
    assert len(again) == len(tokenizer)
    assert again.control_ids == tokenizer.control_ids
    assert again.encode_text("你好<新词>吃<|ext|>") == tokenizer.encode_text("你好<新词>吃<|ext|>")
    assert again.add_tokens(["<more>"]) == 1
    assert again.convert_tokens_to_ids("<more>") == size + 3

    # As transformers 4 saved them: added_tokens.json, and what is special in special_tokens_map.json.
    config = json.loads((tmp_path / "tokenizer_config.json").read_text("utf-8"))
    if version != "glm4":
        del config["added_tokens_decoder"]
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
        about = {"additional_special_tokens": ["<|ext|>"]}
        (tmp_path / "special_tokens_map.json").write_text(json.dumps(about), "utf-8")
        older = ChatGLMTokenizer.from_pretrained(tmp_path)
        assert older.get_added_vocab() == tokenizer.get_added_vocab()
        assert older.control_ids == tokenizer.control_ids


@pytest.mark.parametrize("version", VERSIONS)
def test_no_text_becomes_an_added_control_token(version: str, checkpoint) -> None:
    """differences: user-text-never-control. In transformers any text becomes an added special token."""
    tokenizer = extended(checkpoint(version))
    words = st.sampled_from(["<|ext|>", "<|", "ext|>", "<新词>", "abcXYZ", " ", "\n", "x", "你"])

    @LAW
    @given(st.lists(words, max_size=6).map("".join))
    def law(text: str) -> None:
        ids = tokenizer.encode_text(text)
        assert not set(ids) & tokenizer.control_ids
        assert tokenizer.decode(ids).replace(" ", "") == text.replace(" ", "")
        if text:
            prompt = tokenizer.apply_chat_template([{"role": "user", "content": text}], return_dict=False)
            assert tokenizer.get_command("<|ext|>") not in prompt

    law()


@pytest.mark.parametrize("version", ["chatglm", "chatglm3", "glm4"])
def test_models_with_added_tokens(version: str, checkpoint, tmp_path: Path) -> None:
    """P9: in the free rows, and beyond them with a table that is resized; saved, loaded, generating."""
    tokenizer = extended(checkpoint(version))
    model = chatglm.AutoModel.from_pretrained(checkpoint(version)).float()
    rows = model.config.vocab_size
    assert len(tokenizer) <= rows
    ids = tokenizer("<新词>", return_tensors="pt")
    wanted = model(**ids).logits
    assert torch.isfinite(wanted).all()
    model.resize_token_embeddings(len(tokenizer))
    assert model.config.vocab_size == len(tokenizer)
    torch.testing.assert_close(model(**ids).logits, wanted[..., : len(tokenizer)], rtol=0, atol=1e-5)
    model.resize_token_embeddings(rows + 5)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with chatglm.load(tmp_path) as assistant:
        assert len(assistant.tokenizer) == len(tokenizer)
        assert isinstance(
            assistant.reply("<新词>", params=SamplingParams(max_new_tokens=3, temperature=0)).content, str
        )
    model.resize_token_embeddings(len(tokenizer) - 2)  # fewer rows than tokens
    model.save_pretrained(tmp_path)
    with pytest.raises(TokenizerError, match="ids up to"):
        chatglm.load(tmp_path)


def test_tokens_that_cannot_be_added(checkpoint) -> None:
    for version in VERSIONS:
        tokenizer = ChatGLMTokenizer.from_pretrained(checkpoint(version))
        size = len(tokenizer)
        for token in (" ", "\n"):
            with pytest.raises(InputError, match="spaces only"):
                tokenizer.add_tokens([token] if version != "glm4" else ["  \n  \t"])
        with pytest.raises(InputError, match="int"):
            tokenizer.add_tokens([3])
        with pytest.raises(UnsupportedError, match="lstrip"):
            tokenizer.add_tokens([AddedToken("<new>", lstrip=True)])
        with pytest.raises(InputError, match="nope_token"):
            tokenizer.add_special_tokens({"nope_token": "x"})
        assert tokenizer.add_tokens(["", "[gMASK]"]) == 0
        assert len(tokenizer) == size


@pytest.mark.parametrize("version", VERSIONS)
def test_names_of_special_tokens(version: str, checkpoint, tmp_path: Path) -> None:
    """P12: `pad_token_id = eos_token_id` works, and a name that no token has fails at once."""
    tokenizer = ChatGLMTokenizer.from_pretrained(checkpoint(version))
    pad = tokenizer.pad_token_id
    tokenizer.pad_token_id = tokenizer.eos_token_id
    assert tokenizer.pad_token_id == tokenizer.eos_token_id != (pad if version != "glm4" else None)
    assert tokenizer.pad_token == tokenizer.eos_token
    batch = tokenizer(["a", "b c d e"], padding=True)
    assert batch["input_ids"][0][0] == tokenizer.eos_token_id
    tokenizer.save_pretrained(tmp_path)
    assert ChatGLMTokenizer.from_pretrained(tmp_path).pad_token_id == tokenizer.eos_token_id
    for wrong in (10**9, -1, "x", True):
        with pytest.raises(InputError, match="pad_token_id"):
            tokenizer.pad_token_id = wrong
    with pytest.raises(InputError, match=r"eos_token.*add_special_tokens"):
        tokenizer.eos_token = "</nothing>"
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert tokenizer.add_special_tokens({"pad_token": "[PAD]"}) == 1
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("[PAD]", len(tokenizer) - 1)
    tokenizer.save_pretrained(tmp_path)
    assert ChatGLMTokenizer.from_pretrained(tmp_path).pad_token_id == tokenizer.pad_token_id


LIES: list[dict[str, Any]] = [
    {"added_tokens_decoder": [1, 2]},
    {"added_tokens_decoder": 5},
    {"added_tokens_decoder": {"x": {"content": "y"}}},
    {"added_tokens_decoder": {"9" * 50: {"content": "y"}}},
    {"added_tokens_decoder": {"-1": {"content": "y"}}},
    {"added_tokens_decoder": {"99999999": "y"}},
    {"added_tokens_decoder": {"99999999": {"content": 5}}},
    {"added_tokens_decoder": {"99999999": {"content": "<y>"}}},
    {"chatglm_generation": {}},
    {"chatglm_generation": ["glm4"]},
    {"chatglm_generation": "gpt"},
    {"padding_side": "up"},
    {"padding_side": 3},
]


@pytest.mark.parametrize("version", VERSIONS)
def test_lies_of_tokenizer_config(version: str, copied) -> None:
    folder = copied(version)
    file = folder / "tokenizer_config.json"
    saved = json.loads(file.read_text("utf-8"))
    lies = [*LIES]
    if version == "chatglm":
        lies += [{"num_image_tokens": number} for number in (10**18, -1, "x", None, 1.5)]
    if version == "glm4":
        lies += [{"added_tokens_decoder": {"151329": {"content": "<|endoftext|>", "special": True}}}]
        lies += [{"eos_token": "</nothing>"}, {"pad_token": "[PAD]"}]
    for lie in lies:
        file.write_text(json.dumps({**saved, **lie}), "utf-8")
        with pytest.raises(TokenizerError, match=r"tokenizer_config\.json"):
            ChatGLMTokenizer.from_pretrained(folder)


def test_official_attributes(checkpoint) -> None:
    """P15."""
    for version in ("chatglm2", "chatglm3"):
        tokenizer = ChatGLMTokenizer.from_pretrained(checkpoint(version))
        inner = tokenizer.tokenizer
        assert (inner.bos_id, inner.eos_id, inner.pad_id, inner.n_words) == (1, 2, 0, len(tokenizer))
        assert inner.special_tokens["[gMASK]"] == 64790
        assert inner.index_special_tokens[64792] == "sop"
        ids = inner.encode("你好 <|user|>", bos=True, eos=True)
        assert ids == [1, *tokenizer.encode_text("你好 <|user|>"), 2]
        assert inner.decode(inner.encode("你好")) == "你好"
        assert inner.decode_tokens(inner.tokenize("你好")) == "你好"
        assert inner.convert_id_to_token(inner.convert_token_to_id("▁")) == "▁"
    first = ChatGLMTokenizer.from_pretrained(checkpoint("chatglm"))
    inner = first.sp_tokenizer
    assert inner.decode(inner.encode("你好\n  x")) == "你好\n  x"
    assert (inner.num_tokens, inner[inner["[gMASK]"]], inner["[gMASK]"]) == (len(first), "[gMASK]", 130001)
    last = ChatGLMTokenizer.from_pretrained(checkpoint("glm4"))
    assert last.special_tokens["<|user|>"] == 151336
    assert len(last.mergeable_ranks) == len(last.decoder) == last.vocab_size
    assert last.decoder[last.mergeable_ranks["你".encode()]] == "你".encode()
    assert last.tokenizer.decode(last.encode_text("你好")) == "你好"
    for version in VERSIONS:
        tokenizer = ChatGLMTokenizer.from_pretrained(checkpoint(version))
        assert tokenizer.encode_plus("你好", return_tensors="pt")["input_ids"].shape[0] == 1
        batch = tokenizer.batch_encode_plus(["你好", "hello there"], padding=True)
        assert dict(batch) == dict(tokenizer(["你好", "hello there"], padding=True))


@pytest.mark.parametrize("version", VERSIONS)
def test_official_class_names(version: str, checkpoint) -> None:
    """P15: `from modeling_chatglm import …` becomes `from chatglm import …`."""
    model = chatglm.ChatGLMForConditionalGeneration.from_pretrained(checkpoint(version), trust_remote_code=True)
    assert type(model).__module__ == ("chatglm.models.glm" if version == "chatglm" else "chatglm.models.chatglm")
    assert chatglm.ChatGLMConfig.from_pretrained(checkpoint(version)).generation == version
    assert chatglm.ChatGLMTokenizer.from_pretrained(checkpoint(version)).generation == version
