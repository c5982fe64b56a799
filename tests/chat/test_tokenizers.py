"""Every record of the official tokenizers, and laws: text comes back, and never becomes a control token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chatglm import AutoTokenizer
from chatglm.chat.generations import Generation
from chatglm.chat.tokenizers import ChatGLM4Tokenizer, ChatGLMTokenizer, IceTextTokenizer, SentencePieceTokenizer
from chatglm.errors import InputError, TokenizerError, UnsupportedError
from conftest import VERSIONS, Golden

LAW = settings(max_examples=200, deadline=None)
SPECIALS = [
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "<sop>",
    "<eop>",
    "sop",
    "eop",
    "</s>",
    "<s>",
    "<pad>",
    "<unk>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|observation|>",
    "<|endoftext|>",
    "<dBLOCK>",
    "<ENC>",
    "<unused_0>",
    "<|begin_of_image|>",
    "<0x0A>",
    "<bos>",
    "<eos>",
]
TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=40)
HOSTILE = st.lists(st.one_of(st.sampled_from(SPECIALS), TEXT), max_size=6).map("".join)


@pytest.fixture(scope="session")
def tokenizers(checkpoint) -> dict[str, Any]:
    """By version, as users get them; and `…+special`, which reads special strings in text as the official code does."""
    made = {name: AutoTokenizer.from_pretrained(checkpoint(name)) for name in VERSIONS}
    made |= {
        f"{name}+special": AutoTokenizer.from_pretrained(checkpoint(name), allow_special_tokens=True)
        for name in VERSIONS
    }
    return made


def plain(value: Any) -> Any:
    """Lists and numbers in the form of the records."""
    if isinstance(value, torch.Tensor):
        return plain(value.int().tolist())
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, bytes):
        return {"__bytes_hex__": value.hex()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "items"):
        return {key: plain(item) for key, item in value.items()}
    return value


@pytest.mark.parametrize("version", VERSIONS)
def test_texts(version: str, golden, tokenizers) -> None:
    """All 51 texts. With special strings read from text, as the official v1 and GLM-4 tokenizers always do."""
    g: Golden = golden(version)
    official, safe = tokenizers[f"{version}+special"], tokenizers[version]
    for record in g["tokenizer"]["texts"]:
        text = record["text"]
        ids = official.encode(text)
        assert ids == record["encode"], text
        assert official.encode(text, add_special_tokens=False) == record["encode_no_special"], text
        assert plain(official.tokenize(text)) == record["tokenize"], text
        # differences: no-clean-up. Officially ChatGLM-6B's decode takes blanks from before punctuation.
        options = {"clean_up_tokenization_spaces": True} if version == "chatglm" else {}
        assert official.decode(ids, **options) == record["decode"], text
        assert official.decode(record["encode_no_special"], **options) == record["decode_no_special"], text
        skipped = official.decode(ids, skip_special_tokens=True, **options)
        if version in ("chatglm2", "chatglm3"):
            # differences: skip-special-tokens. Officially nothing is skipped, as nothing is registered as special.
            prefix = "" if version == "chatglm2" else "[gMASK]sop"
            assert record["decode_skip_special_tokens"].removeprefix(prefix).lstrip(" ") == skipped.lstrip(" "), text
        else:
            assert skipped == record["decode_skip_special_tokens"], text
        # differences: user-text-never-control. By default only texts with special strings in them are read otherwise.
        if not set(record["encode_no_special"]) & safe.control_ids:
            assert safe.encode(text) == record["encode"], text


@pytest.mark.parametrize("version", VERSIONS)
def test_names_and_numbers(version: str, golden, tokenizers) -> None:
    records, tokenizer = golden(version)["tokenizer"], tokenizers[version]
    assert tokenizer.padding_side == records["padding_side"]
    assert tokenizer.model_input_names == records["model_input_names"]
    assert tokenizer.vocab_size == records["vocab_size"]
    # differences: len. The official ChatGLM3 says 64796, counting two names of its four role tokens twice.
    assert len(tokenizer) == (64798 if version == "chatglm3" else records["len"])
    for name in ("bos", "eos", "pad", "unk"):
        if records[f"{name}_token"] is not None:
            assert getattr(tokenizer, f"{name}_token") == records[f"{name}_token"]
        if records[f"{name}_token_id"] is not None:
            assert getattr(tokenizer, f"{name}_token_id") == records[f"{name}_token_id"]
    # differences: skip-special-tokens. Officially incomplete (v1) or empty (v2, v3).
    assert set(records["all_special_tokens"]) <= set(tokenizer.all_special_tokens)
    assert set(records["all_special_ids"]) <= set(tokenizer.all_special_ids) == set(tokenizer.control_ids)
    for name in ("gmask_token_id", "mask_token_id", "end_token_id", "num_image_tokens"):
        if name in records:
            assert getattr(tokenizer, name) == records[name]
    for name, token_id in records.get("get_command", {}).items():
        assert tokenizer.get_command(name) == token_id
    for name, token_id in records.get("special_ids", {}).items():
        assert tokenizer.convert_tokens_to_ids(name) == token_id
    if "prefix_tokens" in records:
        assert tokenizer.get_prefix_tokens() == records["prefix_tokens"]
    with pytest.raises(InputError, match="nope") as caught:  # differences: errors (officially an AssertionError)
        tokenizer.get_command("<nope>")
    assert "known:" in str(caught.value)


@pytest.mark.parametrize("version", VERSIONS)
def test_single_ids(version: str, golden, tokenizers) -> None:
    records, tokenizer = golden(version)["tokenizer"], tokenizers[version]
    for number, expected in records["id_to_token_samples"].items():
        token = tokenizer.convert_ids_to_tokens(int(number))
        if isinstance(expected, dict) and "__error__" in expected:
            assert token == ""  # differences: ids-beyond (officially an IndexError)
        else:
            assert plain(token) == expected
    for number, expected in records["single_id_decode"].items():
        text = tokenizer.decode([int(number)])
        assert text == ("" if isinstance(expected, dict) else expected)  # differences: ids-beyond
    for record in records["decode_partial_utf8"]:
        ids = record["ids"]
        assert [tokenizer.decode(ids[: n + 1]) for n in range(len(ids))] == record["prefix_decodes"]


@pytest.mark.parametrize("version", VERSIONS)
def test_batches(version: str, golden, tokenizers) -> None:
    records, tokenizer = golden(version)["tokenizer"], tokenizers[version]
    ways = {
        "batch_padding_longest": {"padding": True},
        "batch_padding_max_length_16": {"padding": "max_length", "max_length": 16},
        "batch_padding_multiple_of_8": {"padding": True, "pad_to_multiple_of": 8},
    }
    for name, options in ways.items():
        texts, expected = records[name]["texts"], records[name]["out"]
        assert plain(tokenizer(texts, return_tensors="pt", **options)) == expected
        assert plain(tokenizer(texts, **options)) == expected
        rows = {"input_ids": [tokenizer(text)["input_ids"] for text in texts]}
        padding = {"padding": options["padding"], **{k: v for k, v in options.items() if k != "padding"}}
        assert plain(tokenizer.pad(rows, return_tensors="pt", **padding)) == expected
    text = records["batch_padding_longest"]["texts"][0]
    assert plain(tokenizer(text)) == records["single_call_keys"]
    assert plain(tokenizer(text, return_tensors="pt")) == records["single_call_pt_keys"]
    long = records["batch_padding_longest"]["texts"][2]
    cut = tokenizer([long], truncation=True, max_length=6)["input_ids"]
    assert cut == records["truncation_max_length_6"]


@pytest.mark.parametrize("version", VERSIONS)
def test_pairs_and_right_padding(version: str, golden, tokenizers) -> None:
    records, tokenizer = golden(version)["tokenizer"], tokenizers[version]
    if version == "glm4":  # differences: errors (officially KeyError '<eos>')
        with pytest.raises(UnsupportedError, match="text_pair"):
            tokenizer("你好", "hello")
    else:
        assert tokenizer("你好", "hello")["input_ids"] == records["pair"]
    assert "AssertionError" in records["padding_side_right"]["__error__"]
    if version == "chatglm":  # differences: errors
        with pytest.raises(UnsupportedError, match="padding_side"):
            tokenizer(["a", "b c d"], padding=True, padding_side="right")
    else:  # differences: right-padding. Officially an assertion; here it works.
        batch = tokenizer(["a", "b c d e f"], padding=True, padding_side="right")
        count = len(tokenizer("a")["input_ids"])
        assert batch["input_ids"][0][:count] == tokenizer("a")["input_ids"]
        assert batch["attention_mask"][0] == [1] * count + [0] * (len(batch["input_ids"][0]) - count)
        assert batch["position_ids"][0][:count] == list(range(count))


def test_masks_of_chatglm_in_any_layout(golden, tokenizers) -> None:
    tokenizer = tokenizers["chatglm"]
    for record in golden("chatglm")["model"]["v1_masks_positions"]:
        padded = tokenizer.pad({"input_ids": [record["input_ids"]]}, padding=True)
        # differences: mask-and-gmask. Where both stand in a prompt, the official tokenizer fills [MASK] and the
        # official model [gMASK]; here both fill [gMASK].
        official = (
            record["position_ids"][0]
            if record["name"] == "mask_and_gmask"
            else (record["tokenizer__pad"]["position_ids"])
        )
        assert padded["position_ids"][0] == official, record["name"]
        assert plain(padded["attention_mask"][0]) == record["tokenizer__pad"]["attention_mask"], record["name"]


def test_encode_special_tokens_of_chatglm3(golden, checkpoint) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint("chatglm3"), encode_special_tokens=True)
    for record in golden("chatglm3")["tokenizer"]["encode_special_tokens_True"]:
        assert tokenizer.encode(record["text"], add_special_tokens=False) == record["ids"]
        assert tokenizer.tokenize(record["text"]) == record["tokens"]


def test_build_prompt_of_chatglm2(golden, tokenizers) -> None:
    tokenizer = tokenizers["chatglm2"]
    for record in golden("chatglm2")["tokenizer"]["build_prompt"]:
        history = record["history"] and [tuple(pair) for pair in record["history"]]
        prompt = tokenizer.build_prompt(record["query"], history)
        assert prompt == record["prompt"]
        assert tokenizer.encode(prompt) == record["input_ids"]
        assert plain(tokenizer([prompt], return_tensors="pt")) == record["build_inputs"]


def test_prompts_of_chatglm(golden, tokenizers) -> None:
    tokenizer = tokenizers["chatglm"]
    for record in golden("chatglm")["tokenizer"]["prompts"]:
        prompt = tokenizer.build_prompt(record["query"], [tuple(pair) for pair in record["history"]])
        assert prompt == record["prompt"]
        assert tokenizer.encode(prompt) == record["input_ids"]


def test_build_chat_input_of_chatglm3(golden, tokenizers) -> None:
    records, tokenizer = golden("chatglm3")["tokenizer"], tokenizers["chatglm3"]
    for record in records["build_chat_input"]:
        inputs = tokenizer.build_chat_input(record["query"], history=record["history"], role=record["role"])
        assert plain(inputs) == record["out"], record["name"]
        assert tokenizer.decode(inputs["input_ids"][0]) == record["decoded"], record["name"]
    assert plain(tokenizer.build_chat_input("你好")) == records["build_chat_input_no_history"]
    with pytest.raises(InputError, match="'tool'"):  # differences: errors (officially an AssertionError)
        tokenizer.build_chat_input("x", role="tool")


@pytest.mark.parametrize("version", ["chatglm3", "glm4"])
def test_build_single_message(version: str, golden, tokenizers) -> None:
    for record in golden(version)["tokenizer"]["build_single_message"]:
        ids = tokenizers[version].build_single_message(record["role"], record["metadata"], record["message"])
        assert ids == record["ids"]


def has_special(value: Any) -> bool:
    return any(name in json.dumps(value, ensure_ascii=False) for name in SPECIALS if name not in ("sop", "eop"))


def test_chat_template_of_glm4(golden, tokenizers) -> None:
    tokenizer = tokenizers["glm4"]
    for record in golden("glm4")["tokenizer"]["apply_chat_template"]["cases"]:
        messages = record["messages"]
        for prompt in (True, False):
            if f"text_agp_{prompt}" not in record:
                continue
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
            assert text == record[f"text_agp_{prompt}"], record["name"]
            ids = tokenizer.apply_chat_template(messages, add_generation_prompt=prompt, return_dict=False)
            if has_special(messages):
                # differences: user-text-never-control
                assert tokenizer.decode(ids, spaces_between_special_tokens=False) == text
                assert ids != record[f"ids_agp_{prompt}"]
            else:
                assert ids == record[f"ids_agp_{prompt}"], record["name"]
        if "return_dict_pt" in record and not has_special(messages):
            batch = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            assert plain(batch) == record["return_dict_pt"]


def test_chat_template_of_glm4_under_older_transformers(golden, tokenizers) -> None:
    """differences: tojson. Recorded under 4.41, whose `tojson` sorted keys and escaped Chinese; the rest is equal."""
    tokenizer = tokenizers["glm4"]
    for record in golden("glm4", "golden_withchat.json")["tokenizer"]["apply_chat_template"]["cases"]:
        messages = record["messages"]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        if not any("tools" in message for message in messages):
            assert text == record["text_agp_True"]
            if not has_special(messages):
                ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
                assert ids == record["ids_agp_True"]
        else:
            assert text.split("# 可用工具")[0] == record["text_agp_True"].split("# 可用工具")[0]


def test_chat_template_of_chatglm3(golden, tokenizers) -> None:
    """differences: chat-template. The later official template, read as plain text, gives ids that the model never saw
    in training; ours are those of build_chat_input."""
    recorded = golden("chatglm3")["tokenizer"]["apply_chat_template"]
    tokenizer = tokenizers["chatglm3"]
    for record in recorded["cases"]:
        text = tokenizer.apply_chat_template(
            record["messages"], chat_template=recorded["chat_template"], tokenize=False, add_generation_prompt=True
        )
        assert text == record["text_agp_True"]
        last = record["messages"][-1]
        if last["role"] in ("user", "observation"):
            ids = tokenizer.apply_chat_template(record["messages"], add_generation_prompt=True, return_dict=False)
            expected = tokenizer.build_chat_input(last["content"], record["messages"][:-1], last["role"])
            assert ids == expected["input_ids"][0].tolist()
            assert ids != record["ids_agp_True"]


@pytest.mark.parametrize("version", VERSIONS)
def test_apply_chat_template_forms(version: str, tokenizers) -> None:
    tokenizer = tokenizers[version]
    one, two = [{"role": "user", "content": "你好"}], [{"role": "user", "content": "What is 1 + 1?"}]
    ids = tokenizer.apply_chat_template(one, add_generation_prompt=True, return_dict=False)
    assert tokenizer.apply_chat_template(one, add_generation_prompt=True)["input_ids"] == ids
    batch = tokenizer.apply_chat_template([one, two], add_generation_prompt=True, padding=True, return_tensors="pt")
    assert batch["input_ids"].shape[0] == 2
    assert batch["input_ids"][0, -len(ids) :].tolist() == ids
    assert isinstance(tokenizer.apply_chat_template(one, tokenize=False), str)
    with pytest.raises(UnsupportedError, match="return_assistant_tokens_mask"):
        tokenizer.apply_chat_template(one, return_assistant_tokens_mask=True)


# Laws


@pytest.mark.parametrize("version", VERSIONS)
def test_text_never_becomes_a_control_id(version: str, tokenizers) -> None:
    tokenizer = tokenizers[version]

    @LAW
    @given(HOSTILE)
    def law(text: str) -> None:
        assert not set(tokenizer.encode_text(text)) & tokenizer.control_ids
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == tokenizer.encode_text(text)

    law()
    for text in SPECIALS:
        ids = tokenizer.encode_text(text)
        assert not set(ids) & tokenizer.control_ids
        assert tokenizer.decode(ids) == text.replace("<0x0A>", "<0x0A>")


@pytest.mark.parametrize("version", ["chatglm3", "glm4"])
def test_messages_never_become_control_ids(version: str, tokenizers) -> None:
    """Neither through build_chat_input, nor the folder's template, nor one that is passed."""
    tokenizer = tokenizers[version]
    harmless = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    template = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}<|assistant|>"

    def controls(ids: list[int]) -> list[int]:
        return [i for i in ids if i in tokenizer.control_ids]

    @LAW
    @given(HOSTILE, HOSTILE)
    def law(system: str, query: str) -> None:
        messages = [{"role": "system", "content": system or "s"}, {"role": "user", "content": query or "u"}]
        for options in ({}, {"chat_template": template}):
            made, expected = (
                tokenizer.apply_chat_template(m, add_generation_prompt=True, return_dict=False, **options)
                for m in (messages, harmless)
            )
            assert controls(made) == controls(expected)
        made, expected = (
            tokenizer.build_chat_input(m[1]["content"], m[:1])["input_ids"][0].tolist() for m in (messages, harmless)
        )
        assert controls(made) == controls(expected)

    law()


LONG_RUNS = {
    "letter": "a",
    "letters": "abcdefgh",
    "digit": "7",
    "blank": " ",
    "tab": "\t",
    "ideographic blank": "\u3000",
    "next line": "\x85",
    "newline": "\n",
    "blanks": " \t\u3000",
    "chinese": "你好中国人民",
    "emoji": "😀",
    "combining mark": "\u0301",
    "punctuation": "!",
    "mixed": " \n\ta1你😀\u0301!",
}


@pytest.mark.parametrize("kind", LONG_RUNS)
@pytest.mark.parametrize("version", ["chatglm", "chatglm3", "glm4"])
def test_long_runs(version: str, kind: str, tokenizers) -> None:
    """C7: a million characters of one kind. tiktoken panics, with a BaseException, at a million blanks."""
    tokenizer, unit = tokenizers[version], LONG_RUNS[kind]
    text = (unit * (1_000_001 // len(unit) + 1))[:1_000_001] + "x"
    ids = tokenizer.encode_text(text)
    assert 0 < len(ids) < 3_000_002
    if version == "glm4":
        assert b"".join(map(tokenizer.token_bytes, ids)).decode() == text


def test_runs_that_are_cut_have_the_ids_of_the_whole(checkpoint) -> None:
    """C7: runs of blanks are encoded apart where they are long; here from two on."""
    tokenizer = ChatGLMTokenizer.from_pretrained(checkpoint("glm4"))
    tokenizer.LONG_RUN = 2
    blanks = " \t\v\f\x85\xa0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000"
    others = ["\r", "\n", "\r\n", "a", "'s", "1", "!", "你", "😀", "\u0301", "\x1c", "\u200b", "\ufeff", "\ud800"]

    @settings(max_examples=400, deadline=None)
    @given(st.lists(st.one_of(st.sampled_from(blanks), st.sampled_from(others)), max_size=16).map("".join))
    def law(text: str) -> None:
        assert tokenizer.encode_text(text) == tokenizer._encoding.encode_ordinary(text)

    law()
    for count in (99_999, 300_001):  # whole, by tiktoken alone
        for text in (" " * count, " " * count + "x", "x" + "\t" * count + "\n ", "!\n" + "\u3000" * count + "!"):
            assert tokenizer.encode_text(text) == tokenizer._encoding.encode_ordinary(text)


def test_glm4_gives_any_text_back(tokenizers) -> None:
    tokenizer = tokenizers["glm4"]

    @LAW
    @given(HOSTILE)
    def law(text: str) -> None:
        assert tokenizer.decode(tokenizer.encode_text(text)) == text

    law()


@pytest.mark.parametrize("version", ["chatglm2", "chatglm3"])
def test_sentencepiece_gives_text_back(version: str, tokenizers) -> None:
    """Lossless but for what its normalisation drops: the blanks in front of a text."""
    tokenizer = tokenizers[version]
    processor = tokenizer._processor

    @LAW
    @given(HOSTILE)
    def law(text: str) -> None:
        normal = processor.normalize(text).replace("▁", " ").removeprefix(" ")
        assert tokenizer.decode(tokenizer.encode_text(text)) == normal

    law()
    for text in ("你好，世界！\n\n  code()\t# 注释", "a  b   c", "😀𠮷 ｆｕｌｌ", "line\r\nline"):
        assert tokenizer.decode(tokenizer.encode_text(text)) == text


def test_chatglm_gives_normal_text_back(tokenizers) -> None:
    """ice_text normalises (full width → half width, as recorded); text that is normal already comes back whole."""
    tokenizer = tokenizers["chatglm"]
    for text in ("你好,世界!\n\n  code()\t# 注释", "def f(x):\n    return x  +  1\n", "a" + " " * 200 + "b", "😀𠮷"):
        ids = tokenizer.encode_text(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.encode_text(tokenizer.decode(ids)) == ids


@pytest.mark.parametrize(("version", "file"), [("chatglm", "ice_text.model"), ("chatglm2", "chatglm2-3.model")])
def test_decoding_is_sentencepiece_s_own(version: str, file: str, shared: Path, tokenizers) -> None:
    """Any ids at all, cut characters and doubled blanks included, decode as the library decodes them."""
    processor = sentencepiece.SentencePieceProcessor(str(shared / "tokenizers" / file))
    tokenizer = tokenizers[version]
    literal = {i for i in tokenizer.literal_ids if i != 0}
    odd = [i for i in range(processor.get_piece_size()) if processor.is_byte(i)] + [5, 0, 1, 2]
    blanks = [processor.piece_to_id(p) for p in ("▁", "▁▁", "▁a", "a")]
    ordinary = st.integers(0, processor.get_piece_size() - 1)
    ids = st.lists(st.one_of(st.sampled_from(odd), st.sampled_from(blanks), ordinary), max_size=12)

    @settings(max_examples=500, deadline=None)
    @given(ids)
    def law(chosen: list[int]) -> None:
        chosen = [i for i in chosen if i not in literal and not (version != "chatglm" and i < 3)]
        assert tokenizer.decode(chosen) == processor.decode(chosen)

    law()


@pytest.mark.parametrize("version", VERSIONS)
def test_token_bytes_make_up_the_text(version: str, tokenizers) -> None:
    tokenizer = tokenizers[version]

    @LAW
    @given(TEXT)
    def law(text: str) -> None:
        ids = tokenizer.encode_text(text)
        joined = b"".join(tokenizer.token_bytes(i) for i in ids).decode("utf-8")
        assert joined.lstrip(" ") == tokenizer.decode(ids).lstrip(" ")

    law()


# Files


@pytest.mark.parametrize("version", VERSIONS)
def test_saved_and_loaded_again(version: str, tokenizers, tmp_path: Path) -> None:
    tokenizer = tokenizers[f"{version}+special"]
    tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text("utf-8"))
    assert config["tokenizer_class"] == ("ChatGLM4Tokenizer" if version == "glm4" else "ChatGLMTokenizer")
    assert "auto_map" not in config
    again = ChatGLMTokenizer.from_pretrained(tmp_path)
    assert type(again) is type(tokenizer)
    assert again.generation == tokenizer.generation
    assert again.allow_special_tokens
    for text in ("你好 [MASK] <|user|>", "", "  a\n"):
        assert again.encode(text) == tokenizer.encode(text)
    again.save_pretrained(tmp_path)  # over itself
    assert ChatGLMTokenizer.from_pretrained(tmp_path).encode("你好") == tokenizer.encode("你好")


def test_kinds_by_folder(checkpoint) -> None:
    kinds = [type(ChatGLMTokenizer.from_pretrained(checkpoint(name))) for name in VERSIONS]
    assert kinds == [IceTextTokenizer, SentencePieceTokenizer, SentencePieceTokenizer, ChatGLM4Tokenizer]


def test_first_release_of_chatglm(copied) -> None:
    """Its text ids stand 20,000 higher, behind image tokens; its tokenizer_config.json may not say so."""
    folder = copied("chatglm")
    now = ChatGLMTokenizer.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config |= {"vocab_size": 150528, "bos_token_id": 150004, "eos_token_id": 150005}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    settings_file = folder / "tokenizer_config.json"
    saved = json.loads(settings_file.read_text("utf-8"))
    del saved["num_image_tokens"]
    settings_file.write_text(json.dumps(saved), "utf-8")
    first = ChatGLMTokenizer.from_pretrained(folder)
    ids = first.encode("你好\n  [MASK]")
    assert ids == [i + 20_000 for i in now.encode("你好\n  [MASK]")]
    assert first.decode(ids) == now.decode(now.encode("你好\n  [MASK]"))
    assert (first.pad_token_id, first.gmask_token_id, first.bos_token_id, len(first)) == (20003, 150001, 150004, 150344)
    assert first.convert_ids_to_tokens(7) == "<image_7>"
    assert first.convert_tokens_to_ids("<image_7>") == 7


def test_codegeex_and_character_folders(copied) -> None:
    folder = copied("chatglm2")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    for name, generation in (
        ("THUDM/codegeex2-6b", Generation.CHATGLM2),
        ("thu-coai/CharacterGLM-6B", Generation.CHARACTERGLM),
        ("/models/my-chatglm3-finetuned", Generation.CHATGLM3),
    ):
        (folder / "config.json").write_text(json.dumps({**config, "_name_or_path": name}), "utf-8")
        assert ChatGLMTokenizer.from_pretrained(folder).generation == generation


@pytest.mark.parametrize("version", VERSIONS)
def test_damaged_files(version: str, copied) -> None:
    folder = copied(version)
    file = folder / ("ice_text.model" if version == "chatglm" else "tokenizer.model")
    whole = file.read_bytes()
    for damage in (
        b"",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
        whole[: len(whole) // 3],
        b"\x00" * 100,
    ):
        file.write_bytes(damage)
        with pytest.raises(TokenizerError, match=file.name):
            ChatGLMTokenizer.from_pretrained(folder)
    file.unlink()
    with pytest.raises(TokenizerError, match=f"{file.name}: no such file"):
        ChatGLMTokenizer.from_pretrained(folder)


def test_damaged_line_of_ranks_is_named(copied) -> None:
    folder = copied("glm4")
    file = folder / "tokenizer.model"
    lines = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join([*lines[:99], b"not base64!", *lines[100:]]))
    with pytest.raises(TokenizerError, match="line 100"):
        ChatGLMTokenizer.from_pretrained(folder)
    file.write_bytes(b"\n".join([*lines[:99], lines[98], *lines[100:]]))
    with pytest.raises(TokenizerError, match="missing or given twice"):
        ChatGLMTokenizer.from_pretrained(folder)


def test_wrong_requests(tokenizers) -> None:
    with pytest.raises(UnsupportedError, match="build_chat_input"):
        tokenizers["chatglm2"].build_chat_input("x")
    for version in ("chatglm3", "glm4"):
        for history in ([("q", "a")], [{"role": "user"}], [{"role": "user", "content": None}]):
            with pytest.raises(InputError, match=r"history\[0\]"):
                tokenizers[version].build_chat_input("x", history)
        with pytest.raises(InputError, match="query"):
            tokenizers[version].build_chat_input(None)
    with pytest.raises(TokenizerError, match="no such folder"):
        ChatGLMTokenizer.from_pretrained("/no/such/folder")


@pytest.mark.parametrize("version", VERSIONS)
def test_broken_unicode_is_text_too(version: str, tokenizers) -> None:
    """JSON can spell half a surrogate pair, so a request can: it is one unreadable character, and no error."""
    tokenizer = tokenizers[version]
    assert tokenizer.encode_text("a\ud800b") == tokenizer.encode_text("a\ufffdb")
    assert tokenizer.encode_text("\ud83d\ude00") == tokenizer.encode_text("😀")
