"""Folders that lie: whatever is wrong in a file, each way to load says so in one typed line that names it, soon."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import chatglm
from chatglm.errors import ChatGLMError, CheckpointError, ConfigError, InputError, UnsupportedError
from chatglm.loading import load_parts, load_to_answer

Harm = Callable[[Path], Any]
WAYS: dict[str, Callable[[Path], Any]] = {
    "load_parts": load_parts,
    "load_to_answer": load_to_answer,
    "AutoModel": lambda folder: chatglm.AutoModel.from_pretrained(folder),
}


@pytest.fixture(scope="module")
def plain(checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ChatGLM3 in one safetensors file."""
    folder = Path(shutil.copytree(checkpoint("chatglm3"), tmp_path_factory.mktemp("plain") / "chatglm3"))
    tensors: dict[str, torch.Tensor] = {}
    for shard in sorted(folder.glob("*.bin")):
        tensors |= torch.load(shard, weights_only=True)
        shard.unlink()
    (folder / "pytorch_model.bin.index.json").unlink()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


@pytest.fixture
def folder(plain: Path, tmp_path: Path) -> Path:
    """A copy to harm; files are replaced there, never written into."""
    copy = tmp_path / "chatglm3"
    copy.mkdir()
    for file in plain.iterdir():
        os.link(file, copy / file.name)
    return copy


def put(file: Path, data: bytes | str) -> None:
    file.unlink(missing_ok=True)
    file.write_bytes(data.encode() if isinstance(data, str) else data)


def change(name: str, **fields: Any) -> Harm:
    def harm(folder: Path) -> None:
        file = folder / name
        found = json.loads(file.read_text("utf-8")) if file.exists() else {}
        put(file, json.dumps({**found, **fields}))

    return harm


def config(**fields: Any) -> Harm:
    return change("config.json", **fields)


def refused(harm: Harm, folder: Path, match: str, ways: tuple[str, ...] = tuple(WAYS)) -> None:
    harm(folder)
    for way in ways:
        with pytest.raises(ChatGLMError, match=match) as caught:
            WAYS[way](folder)
        message = str(caught.value)
        assert "\n" not in message, way
        assert len(message) < 900, way


# Files that are no files, and JSON that is none


def fifo(file: Path) -> None:
    file.unlink(missing_ok=True)
    os.mkfifo(file)


def device(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.symlink_to("/dev/zero")


def circle(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.symlink_to(file.name)


def nowhere(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.symlink_to("/nonexistent/file")


def directory(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.mkdir()


def a_socket(file: Path) -> None:
    file.unlink(missing_ok=True)
    here = os.getcwd()
    os.chdir(file.parent)  # the whole path would be too long a name
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(file.name)
    finally:
        os.chdir(here)


NO_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "pipe": (fifo, "is a pipe"),
    "device": (device, "is a device"),
    "circle of links": (circle, "cannot be read|cannot be reached"),
    "link to nowhere": (nowhere, "no such file"),
    "folder": (directory, "is a folder"),
    "socket": (a_socket, "is a socket"),
}
NO_JSON: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not valid JSON"),
    "cut": (b'{"a": [1, 2', "not valid JSON"),
    "a list": (b"[]", "holds list"),
    "nested": (b"[" * 100_000, "nested too deeply|not valid JSON"),
    "nested within bounds": (b'{"a":' * 200 + b"1" + b"}" * 200, "levels deep"),
    "long integer": (b'{"a": ' + b"9" * 5_000 + b"}", "not valid JSON"),
    "NaN": (b'{"a": NaN}', "not a finite number"),
    "infinite": (b'{"a": 1e999}', "not a finite number"),
    "half a character": (b'{"a": "\\ud800"}', "half a character"),
    "not UTF-8": (b'{"a": "\xff\xfe"}', "not valid JSON"),
    "twice": (b'{"model_type": "chatglm", "model_type": "llama"}', "twice"),
    "large": (b'{"a": "' + b"x" * (9 << 20) + b'"}', "larger than"),
}
JSON_FILES = ("config.json", "generation_config.json", "tokenizer_config.json", "model.safetensors.index.json")


def without_single(folder: Path, name: str) -> None:
    if "index" in name:
        (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("name", JSON_FILES)
@pytest.mark.parametrize("lie", NO_FILES)
def test_files_that_are_no_files(lie: str, name: str, folder: Path) -> None:
    without_single(folder, name)
    harm, match = NO_FILES[lie]
    ways = ("load_parts", "load_to_answer") if name == "tokenizer_config.json" else tuple(WAYS)
    refused(lambda folder: harm(folder / name), folder, match, ways)


@pytest.mark.parametrize("name", JSON_FILES)
@pytest.mark.parametrize("lie", NO_JSON)
def test_json_that_is_none(lie: str, name: str, folder: Path) -> None:
    without_single(folder, name)
    data, match = NO_JSON[lie]
    ways = ("load_parts", "load_to_answer") if name == "tokenizer_config.json" else tuple(WAYS)
    refused(lambda folder: put(folder / name, data), folder, f"{name}.*({match})", ways)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.model"])
@pytest.mark.parametrize("lie", NO_FILES)
def test_weights_and_vocabulary_that_are_no_files(lie: str, name: str, folder: Path) -> None:
    harm, match = NO_FILES[lie]
    ways = ("load_parts", "load_to_answer") if name == "tokenizer.model" else tuple(WAYS)
    refused(lambda folder: harm(folder / name), folder, match, ways)


# config.json

SIZES = ("num_layers", "hidden_size", "ffn_hidden_size", "kv_channels", "num_attention_heads", "padded_vocab_size")
NO_SIZES: tuple[Any, ...] = (0, -1, 2.5, "3", True, None, [3], {}, 1 << 62, 10**30)
CONFIGS: dict[str, tuple[Harm, str]] = {
    **{f"{name}={value!r}": (config(**{name: value}), name) for name in SIZES for value in NO_SIZES},
    "seq_length": (config(seq_length="long"), "seq_length"),
    "layers": (config(num_layers=9_999), "num_layers"),
    "one layer more": (config(num_layers=4), "layers.3.*not in the weight files"),
    "other hidden size": (config(hidden_size=68), "word_embeddings.*65024×64.*65024×68"),
    "other vocabulary": (config(padded_vocab_size=65_025), "65024×64.*65025×64"),
    "other heads": (config(kv_channels=32), "query_key_value"),
    "other ffn": (config(ffn_hidden_size=97), "dense_h_to_4h"),
    "large heads": (config(kv_channels=1 << 16), "query_key_value"),
    "large vocabulary": (config(padded_vocab_size=1 << 24), "word_embeddings"),
    "many groups": (config(multi_query_group_num=3), "multiple of"),
    "labels": (config(num_labels=10**8), "num_labels"),
    "no labels": (config(num_labels=0), "num_labels"),
    "labels a list": (config(id2label=[1, 2]), "id2label"),
    "labels without numbers": (config(id2label={"a": "b"}), "id2label"),
    "labels without names": (config(id2label={"0": 5}), "id2label"),
    "label numbers": (config(label2id=[1]), "label2id"),
    "problem": (config(problem_type="regress"), "problem_type"),
    "prefix": (config(pre_seq_len="x"), "pre_seq_len"),
    "prefix of none": (config(pre_seq_len=0), "pre_seq_len"),
    "long prefix": (config(pre_seq_len=10**9), "pre_seq_len"),
    "projection": (config(prefix_projection="yes"), "prefix_projection"),
    **{f"rope_ratio={value!r}": (config(rope_ratio=value), "rope_ratio") for value in (0, -1, "a", None, True, 1e300)},
    **{f"epsilon={value!r}": (config(layernorm_epsilon=value), "layernorm_epsilon") for value in ("x", 0, -1, 1e30)},
    **{f"dtype={value!r}": (config(torch_dtype=value), "dtype") for value in ("int8", "complex64", "nn", "float8", 5)},
    "new dtype": (config(dtype="float17"), "dtype"),
    "dropout": (config(hidden_dropout=2), "hidden_dropout"),
    "switch": (config(rmsnorm="true"), "rmsnorm"),
    "switch off": (config(original_rope=False), "original_rope"),
    "cache": (config(use_cache=1), "use_cache"),
    "stop id": (config(eos_token_id="2"), "eos_token_id"),
    "stop ids": (config(eos_token_id=[[2]]), "eos_token_id"),
    "negative id": (config(pad_token_id=-1), "pad_token_id"),
    "many stop ids": (config(eos_token_id=list(range(5_000))), "eos_token_id"),
    "architectures": (config(architectures="ChatGLMModel"), "architectures"),
    "generation": (config(chatglm_generation="chatglm9"), "chatglm_generation"),
    "generation a list": (config(chatglm_generation=[]), "chatglm_generation"),
    "encoder": (config(is_encoder_decoder=True), "is_encoder_decoder"),
    "attentions": (config(output_attentions="all"), "output_attentions"),
    "version": (config(transformers_version=4), "transformers_version"),
    "classes": (config(auto_map=5), "auto_map"),
    "classes of numbers": (config(auto_map={"AutoConfig": 5}), "auto_map"),
    "another file": (config(configuration_files=["config.4.json"]), "configuration_files"),
    "model_type": (config(model_type=["chatglm"]), "model_type"),
    "bits": (config(quantization_bit=5), "quantization_bit"),
    "bits a string": (config(quantization_bit="4"), "quantization_bit"),
}
OWN = {"quant_method": "chatglm", "version": 1, "scheme": "groups", "bits": 4, "group_size": 32}
CONFIGS |= {
    f"quantization {changes}": (config(quantization_config={**OWN, **changes}), match)
    for changes, match in (
        ({}, "is not quantised"),
        ({"bits": 4.0}, "bits"),
        ({"bits": "4"}, "bits"),
        ({"bits": 3}, "bits"),
        ({"group_size": 7}, "group_size"),
        ({"group_size": [32]}, "group_size"),
        ({"scheme": []}, "scheme"),
        ({"scheme": "magic"}, "scheme"),
        ({"version": True}, "version"),
        ({"version": 9}, "version"),
        ({"head": "yes"}, "head"),
        ({"modules_to_not_convert": 5}, "modules_to_not_convert"),
        ({"modules_to_not_convert": [5]}, "modules_to_not_convert"),
        ({"modules_to_not_convert": ["nothing"]}, "modules_to_not_convert"),
        ({"unheard": 1}, "unheard"),
        ({"quant_method": "awq"}, "awq"),
        ({"quant_method": ["gptq"]}, "not supported"),
        ({"quant_method": "gptq", "bits": "4"}, "bits"),
        ({"quant_method": "gptq", "desc_act": "no"}, "desc_act"),
        ({"quant_method": "gptq", "sym": False, "group_size": 128}, "sym"),
    )
}


@pytest.mark.parametrize("lie", CONFIGS)
def test_configurations_that_lie(lie: str, folder: Path) -> None:
    harm, match = CONFIGS[lie]
    refused(harm, folder, match)


GENERATION: dict[str, tuple[dict[str, Any], str]] = {
    f"{name}={str(value)[:20]}": ({name: value}, name)
    for name, value in (
        ("temperature", "hot"),
        ("temperature", -1),
        ("top_p", 2),
        ("top_k", 1.5),
        ("top_k", -1),
        ("do_sample", "yes"),
        ("max_length", "all"),
        ("max_new_tokens", -5),
        ("num_beams", 10**9),
        ("eos_token_id", {"a": 1}),
        ("bad_words_ids", [[n] for n in range(60_000)]),
        ("bad_words_ids", [[]]),
        ("bad_words_ids", 5),
        ("stop_strings", [5]),
        ("suppress_tokens", ["a"]),
        ("sequence_bias", {"a": 1}),
        ("repetition_penalty", 0),
        ("watermarking_config", 5),
        ("watermarking_config", {"nothing": 1}),
        ("penalty_alpha", 0.6),
        ("constraints", [1]),
        ("early_stopping", "now"),
        ("exponential_decay_length_penalty", [1]),
    )
}


@pytest.mark.parametrize("lie", GENERATION)
def test_generation_configs_that_lie(lie: str, folder: Path) -> None:
    fields, match = GENERATION[lie]
    if match == "watermarking_config" and isinstance(fields[match], dict):
        match = "generation_config.json"
    refused(change("generation_config.json", **fields), folder, match)


def test_of_a_generation_config_only_known_fields_are_taken(folder: Path) -> None:
    change("generation_config.json", to_dict=5, validate=1, compile_config={}, cache_implementation="static")(folder)
    model = load_parts(folder).model
    assert model.generation_config.to_diff_dict().get("cache_implementation") is None


TOKENIZERS: dict[str, dict[str, Any]] = {
    f"{name}={str(value)[:30]}": {name: value}
    for name, value in (
        ("padding_side", "up"),
        ("chatglm_generation", {}),
        ("chatglm_generation", "chatglm9"),
        ("added_tokens_decoder", [1]),
        ("added_tokens_decoder", 5),
        ("added_tokens_decoder", {"1": 5}),
        ("added_tokens_decoder", {"x": {"content": "y"}}),
        ("num_image_tokens", 10**18),
        ("model_max_length", "long"),
        ("model_max_length", -1),
        ("chat_template", 5),
        ("eos_token", 5),
        ("eos_token", "x" * 100_000),
        ("do_lower_case", "no"),
        ("encode_special_tokens", 3),
        ("additional_special_tokens", {"a": 1}),
        ("additional_special_tokens", [5]),
        ("encode_text", 5),
        ("tokenize", True),
    )
}


@pytest.mark.parametrize("lie", TOKENIZERS)
def test_tokenizer_configs_that_lie(lie: str, folder: Path) -> None:
    refused(change("tokenizer_config.json", **TOKENIZERS[lie]), folder, "tokenizer_config.json", ("load_parts",))
    with pytest.raises(CheckpointError):
        chatglm.AutoTokenizer.from_pretrained(folder)


def test_a_folder_names_no_vocabulary_of_another(folder: Path, checkpoint) -> None:
    change("tokenizer_config.json", vocab_file="/etc/hostname", special_tokens_map_file="/etc/hostname")(folder)
    tokenizer = chatglm.AutoTokenizer.from_pretrained(folder)
    assert Path(tokenizer.vocab_file) == folder / "tokenizer.model"


@pytest.mark.parametrize(
    ("tokens", "match"),
    [
        ({"0": "<|user|>"}, "the id 0, which belongs to ordinary text"),
        ({"151336": "<|user|>"}, "no "),
        ({"5": "extra"}, "the id 5, which belongs to ordinary text"),
    ],
)
def test_control_tokens_of_a_folder_are_no_texts(tokens: dict[str, str], match: str, copied) -> None:
    folder = copied("glm4")
    saved = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    added = {number: {"content": text} for number, text in tokens.items()}
    decoder = {**saved["added_tokens_decoder"], **added} if "5" in tokens else added
    put(folder / "tokenizer_config.json", json.dumps({**saved, "added_tokens_decoder": decoder}))
    with pytest.raises(CheckpointError, match=match):
        load_parts(folder)


# Headers of safetensors


def header(change: Callable[[dict[str, Any]], Any]) -> Harm:
    def harm(folder: Path) -> None:
        file = folder / "model.safetensors"
        data = file.read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        found = json.loads(data[8 : 8 + length])
        text = change(found) or json.dumps(found)
        text = text.encode() if isinstance(text, str) else text
        put(file, struct.pack("<Q", len(text)) + text + data[8 + length :])

    return harm


HEAD = "transformer.output_layer.weight"


def sized(length: int, size: int = 4096) -> Harm:
    """A sparse file that says its header has so many bytes."""

    def harm(folder: Path) -> None:
        file = folder / "model.safetensors"
        put(file, struct.pack("<Q", length))
        os.truncate(file, size)

    return harm


HEADERS: dict[str, tuple[Harm, str]] = {
    "8 bytes": (lambda folder: put(folder / "model.safetensors", b"12345678"), "not a complete"),
    "empty": (lambda folder: put(folder / "model.safetensors", b""), r"not a complete.*\(empty\)"),
    "pointer": (
        lambda folder: put(folder / "model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0"),
        "a Git LFS pointer",
    ),
    "6 GiB header": (sized(6 << 30, 8 << 30), "a header of"),
    "1 TiB header": (sized(1 << 40), "unreadable header"),
    "all ones": (sized((1 << 64) - 1), "unreadable header"),
    "nested": (header(lambda _: "[" * 100_000), "unreadable header"),
    "metadata": (header(lambda found: found.update(__metadata__=5)), "__metadata__"),
    "metadata of numbers": (header(lambda found: found.update(__metadata__={"a": 5})), "__metadata__"),
    "no shape": (header(lambda found: found[HEAD].pop("shape") and None), "no valid shape"),
    "shape a string": (header(lambda found: found[HEAD].update(shape="64")), "no valid shape"),
    "negative shape": (header(lambda found: found[HEAD].update(shape=[-65024, -64])), "no valid shape"),
    "shape of floats": (header(lambda found: found[HEAD].update(shape=[65024.0, 64])), "no valid shape"),
    "shape of bools": (header(lambda found: found[HEAD].update(shape=[True, 65024])), "no valid shape"),
    "product overflows": (header(lambda found: found[HEAD].update(shape=[1 << 33, 1 << 33])), "bytes, and its shape"),
    "many dimensions": (header(lambda found: found[HEAD].update(shape=[1] * 100)), "no valid shape"),
    "unknown type": (header(lambda found: found[HEAD].update(dtype="F17")), "F17"),
    "type a list": (header(lambda found: found[HEAD].update(dtype=["F16"])), "type"),
    "other type": (header(lambda found: found[HEAD].update(dtype="F32")), "bytes, and its shape"),
    "integers": (header(lambda found: found[HEAD].update(dtype="I16")), "torch.int16"),
    "negative offsets": (header(lambda found: found[HEAD].update(data_offsets=[-8, 8])), "no valid shape"),
    "one offset": (header(lambda found: found[HEAD].update(data_offsets=[0])), "no valid shape"),
    "offsets turned round": (
        header(lambda found: found[HEAD].update(data_offsets=found[HEAD]["data_offsets"][::-1])),
        "bytes, and its shape",
    ),
    "offsets beyond": (
        header(lambda found: found[HEAD].update(data_offsets=[n + 10**12 for n in found[HEAD]["data_offsets"]])),
        "the header puts",
    ),
    "overlapping": (
        header(lambda found: found.update({"other": dict(found[HEAD])})),
        "the header puts",
    ),
    "a number": (header(lambda found: found.update({HEAD: 5})), "no valid shape"),
    "twice": (header(lambda found: json.dumps(found)[:-1] + f', "{HEAD}": 5}}'), "twice"),
    "bytes behind": (
        lambda folder: put(folder / "model.safetensors", (folder / "model.safetensors").read_bytes() + b"0123456789"),
        "bytes, but its header says",
    ),
}


@pytest.mark.parametrize("lie", HEADERS)
def test_headers_that_lie(lie: str, folder: Path) -> None:
    harm, match = HEADERS[lie]
    refused(harm, folder, match)


def weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Harm:
    def harm(folder: Path) -> None:
        file = folder / "model.safetensors"
        found = load_file(file)
        change(found)
        file.unlink()
        save_file(found, file)

    return harm


NORM = "transformer.encoder.layers.1.input_layernorm.weight"
TENSORS: dict[str, tuple[Harm, str]] = {
    "one missing": (weights(lambda found: found.pop(NORM)), f"{NORM} is not in the weight files"),
    "a short norm": (weights(lambda found: found.update({NORM: torch.ones(32)})), "is 32, but 64 in the model"),
    "a vector for a matrix": (weights(lambda found: found.update({HEAD: torch.ones(64)})), "output_layer.* is 64"),
    "left empty": (weights(lambda found: found.update({HEAD: torch.ones(0)})), "zero_to_fp32.py"),
    "turned": (weights(lambda found: found.update({HEAD: found[HEAD].T.contiguous()})), "64×65024"),
    "nothing": (weights(lambda found: found.clear()), "hold only 0"),
}


@pytest.mark.parametrize("lie", TENSORS)
def test_tensors_that_do_not_fit(lie: str, folder: Path) -> None:
    harm, match = TENSORS[lie]
    refused(harm, folder, match)


def test_releases_of_chatglm_6b_are_told_apart(copied) -> None:
    folder = copied("chatglm")
    change("config.json", vocab_size=150_528, bos_token_id=150_004, eos_token_id=150_005)(folder)
    with pytest.raises(CheckpointError, match="first release"):
        chatglm.AutoModel.from_pretrained(folder)


def test_mismatched_sizes_are_ignored_only_where_something_new_is_trained(folder: Path) -> None:
    weights(lambda found: found.update({HEAD: found[HEAD][:100].contiguous()}))(folder)
    with pytest.raises(CheckpointError, match="output_layer"):
        chatglm.AutoModel.from_pretrained(folder, ignore_mismatched_sizes=True)


# Indexes, and .bin files


def sharded(**index: Any) -> Harm:
    def harm(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "model-1.safetensors")
        put(folder / "model.safetensors.index.json", json.dumps(index))

    return harm


INDEXES: dict[str, tuple[Harm, str]] = {
    "no map": (sharded(), "weight_map"),
    "empty map": (sharded(weight_map={}), "weight_map"),
    "null": (sharded(weight_map=None), "weight_map"),
    "a list": (sharded(weight_map=["model-1.safetensors"]), "weight_map"),
    "metadata": (sharded(metadata=5, weight_map={HEAD: "model-1.safetensors"}), "metadata"),
    "a number": (sharded(weight_map={HEAD: 5}), "names 5"),
    "up": (sharded(weight_map={HEAD: "../model-1.safetensors"}), "it may name only"),
    "absolute": (sharded(weight_map={HEAD: "/tmp/model-1.safetensors"}), "it may name only"),
    "below": (sharded(weight_map={HEAD: "a/model-1.safetensors"}), "it may name only"),
    "backslash": (sharded(weight_map={HEAD: "..\\model-1.safetensors"}), "it may name only"),
    "long": (sharded(weight_map={HEAD: "a" * 5_000 + ".safetensors"}), "it may name only"),
    "NUL": (sharded(weight_map={HEAD: "a\0.safetensors"}), "it may name only"),
    "dots": (sharded(weight_map={HEAD: ".."}), "it may name only"),
    "other kind": (sharded(weight_map={HEAD: "model-1.bin"}), "it may name only"),
    "missing": (sharded(weight_map={HEAD: "model-2.safetensors"}), "1 of 1 weight files are missing"),
}


@pytest.mark.parametrize("lie", INDEXES)
def test_indexes_that_lie(lie: str, folder: Path) -> None:
    harm, match = INDEXES[lie]
    refused(harm, folder, match)


def test_a_tensor_in_two_shards(folder: Path) -> None:
    sharded(metadata={}, weight_map={HEAD: "model-1.safetensors", NORM: "model-2.safetensors"})(folder)
    save_file({NORM: torch.ones(64)}, folder / "model-2.safetensors")
    refused(lambda _: None, folder, "and so does")


def test_links_into_a_cache_are_followed(folder: Path) -> None:
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    for file in list(folder.iterdir()):
        file.rename(blobs / f"{file.name}-blob")
        file.symlink_to(Path("..") / "blobs" / f"{file.name}-blob")
    assert load_parts(folder).model.config.num_layers == 3


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


class Large:
    def __reduce__(self) -> Any:
        return bytearray, (1 << 40,)


def test_bin_files_that_are_not_tensors(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    file, mark = folder / "pytorch_model.bin", tmp_path / "executed"
    cases: list[tuple[Any, str]] = [
        (b"", r"not a complete torch file \(empty\)"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"PK", "cut short or damaged"),
        (b"\x80\x02", "damaged pickle"),
        (b"\x80\x02" + b"(" * 100_000, "damaged pickle"),
        ({HEAD: Bomb(mark)}, "might be code"),
        ({HEAD: Large()}, "might be code"),
        ([torch.ones(2)], "holds list"),
        ({HEAD: torch.ones(1).expand(65024, 64)}, "fewer numbers"),
    ]
    for case, match in cases:
        file.unlink(missing_ok=True)
        if isinstance(case, bytes):
            file.write_bytes(case)
        else:
            torch.save(case, file)
        refused(lambda _: None, folder, match)
    assert not mark.exists()


# Attention implementations, and options of callers


def test_a_folder_asks_for_no_kernel_of_the_hub(folder: Path) -> None:
    for name, value in (
        ("attn_implementation", "kernels-community/flash-attn"),
        ("_attn_implementation", "owner/name"),
        ("attn_implementation", {"": "owner/name"}),
        ("_attn_implementation_internal", "owner/name"),
        ("experts_implementation", "owner/name"),
        ("kernel_config", {"a": "owner/name"}),
        ("fusion_config", {"a": True}),
        ("transformers_weights", "../other.safetensors"),
        ("per_layer_config", {"0": {"_attn_implementation": "owner/name"}}),
        ("attn_implementation", "unheard"),
        ("auto_map", {"AutoModel": "evil.X"}),
        ("to_dict", 5),
        ("text_config", {"a": 1}),
    ):
        put(folder / "config.json", json.dumps({**json.loads((folder / "config.json").read_text()), name: value}))
        model = load_parts(folder).model
        assert model.config._attn_implementation in ("sdpa", "eager"), name


def test_callers_ask_for_no_code_either(folder: Path) -> None:
    for options in (
        {"attn_implementation": "kernels-community/flash-attn"},
        {"attn_implementation": {"": "owner/name"}},
        {"use_kernels": True},
        {"allow_all_kernels": True},
        {"weights_only": False},
        {"gguf_file": "model.gguf"},
    ):
        with pytest.raises(UnsupportedError):
            load_parts(folder, **options)
    model = load_parts(folder, attn_implementation="eager").model
    with pytest.raises(UnsupportedError):
        model.set_attn_implementation("owner/name")
    for dtype in ("int8", torch.int8, "complex64", "nn", torch.complex64):
        with pytest.raises((InputError, ConfigError), match="dtype is"):
            load_parts(folder, dtype=dtype)
        with pytest.raises((InputError, ConfigError), match="dtype is"):
            chatglm.AutoModel.from_pretrained(folder, dtype=dtype)


def test_unknown_fields_are_kept_and_saved_again(folder: Path, tmp_path: Path) -> None:
    config(note="mine", transformers_weights="x.safetensors")(folder)
    found = chatglm.AutoConfig.from_pretrained(folder)
    assert not hasattr(found, "note")
    found.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "config.json").read_text("utf-8"))
    assert saved["note"] == "mine"
    assert "transformers_weights" not in saved


def test_configurations_may_use_both_names_of_a_size(folder: Path) -> None:
    config(num_hidden_layers=3, vocab_size=64_789)(folder)  # the official name is the one that counts
    assert load_parts(folder).model.config.padded_vocab_size == 65_024
