"""load_parts() and load(): what is wrong with a folder is one clear line that names the file."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import chatglm
from chatglm import AutoConfig, AutoModel
from chatglm.chat.generations import OFFICIAL_SAMPLING, Generation
from chatglm.errors import ChatGLMError, CheckpointError, InputError, TokenizerError
from chatglm.kernels import native
from chatglm.loading import load_parts, load_to_answer
from chatglm.models import api
from chatglm.models.bare import BareModel
from chatglm.quantization.swap import quantize_module
from conftest import VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
def test_load(version: str, checkpoint) -> None:
    model, tokenizer, form = load_parts(checkpoint(version), dtype=torch.float32)
    assert not model.training
    assert model.dtype == torch.float32
    assert model.config.generation == tokenizer.generation == form.generation == version
    assert model.chat(tokenizer, "你好", max_new_tokens=2, do_sample=False)[0] is not None


@pytest.mark.parametrize("version", VERSIONS)
def test_saved_folder_loads_by_itself(version: str, checkpoint, tmp_path: Path) -> None:
    """save_pretrained of model and tokenizer makes a folder that needs no guessing, whatever it is called."""
    model, tokenizer, _ = load_parts(checkpoint(version), dtype=torch.float32)
    target = tmp_path / "chatglm2-looks-like"
    model.save_pretrained(target, max_shard_size="5MB")
    tokenizer.save_pretrained(target)
    again, other, _ = load_parts(target)
    assert again.config.generation == other.generation == version
    options = {"do_sample": False, "max_new_tokens": 5}
    assert again.chat(other, "你好", **options) == model.chat(tokenizer, "你好", **options)


def test_saving_over_the_files_that_a_model_is_mapped_from(checkpoint, tmp_path: Path) -> None:
    """Weight files are replaced, never written into: whoever has mapped them keeps what there was."""
    model, tokenizer, _ = load_parts(checkpoint("chatglm3"))
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path)
    mapped = load_parts(tmp_path).model
    before = {name: tensor.clone() for name, tensor in mapped.state_dict().items()}
    place = (tmp_path / "model.safetensors").stat().st_ino
    mapped.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_ino != place
    for kept in (mapped, load_parts(tmp_path).model):
        assert all(torch.equal(tensor, before[name]) for name, tensor in kept.state_dict().items())


def shard(folder: Path) -> Path:
    return next(iter(sorted([*folder.glob("*.bin"), *folder.glob("*.safetensors")])))


DAMAGE = {
    "no folder": (lambda f: [p.unlink() for p in f.iterdir()] and f.rmdir(), "no such folder"),
    "empty folder": (lambda f: [p.unlink() for p in f.iterdir()], "config.json: no such file"),
    "config cut": (lambda f: (f / "config.json").write_text('{"model_type": "chat'), "config.json: not valid JSON"),
    "config a list": (lambda f: (f / "config.json").write_text("[]"), "config.json: holds list"),
    "other model": (lambda f: (f / "config.json").write_text('{"model_type": "llama"}'), "model_type is 'llama'"),
    "native glm": (lambda f: (f / "config.json").write_text('{"model_type": "glm"}'), "transformers-native"),
    "shard missing": (lambda f: shard(f).unlink(), "1 of 2 weight files are missing"),
    "no weights": (
        lambda f: [p.unlink() for p in f.iterdir() if p.suffix in (".bin", ".safetensors") or "index" in p.name],
        "no weights: expected",
    ),
    "shard cut": (
        lambda f: shard(f).write_bytes(shard(f).read_bytes()[: shard(f).stat().st_size // 2]),
        "not a complete|bytes, but",
    ),
    "shard cut by one byte": (lambda f: shard(f).write_bytes(shard(f).read_bytes()[:-1]), "not a complete|bytes, but"),
    "shard empty": (lambda f: shard(f).write_bytes(b""), "not a complete"),
    "lfs pointer": (lambda f: shard(f).write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "not a complete"),
    "index damaged": (lambda f: next(f.glob("*.index.json")).write_text('{"weight_map": 3}'), "weight_map"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("version", ["chatglm3", "glm4"])
def test_damaged_folders(version: str, damage: str, copied) -> None:
    folder = copied(version)
    harm, said = DAMAGE[damage]
    harm(folder)
    attempts = [load_parts]
    if "folder" not in damage and damage != "other model":
        attempts.append(AutoModel.from_pretrained)
    for attempt in attempts:
        if damage in ("config cut", "config a list", "native glm") and attempt is not load_parts:
            continue  # transformers reads config.json before any class of ours is known
        with pytest.raises(CheckpointError, match=said) as caught:
            attempt(folder)
        message = str(caught.value)
        assert str(folder) in message
        assert "\n" not in message


def test_a_path_that_is_a_file(checkpoint) -> None:
    with pytest.raises(CheckpointError, match="is a file"):
        load_parts(checkpoint("chatglm3") / "config.json")


def test_tokenizer_that_does_not_fit(copied, checkpoint) -> None:
    folder = copied("chatglm3")
    (folder / "tokenizer.model").write_bytes((checkpoint("glm4") / "tokenizer.model").read_bytes())
    with pytest.raises(TokenizerError, match=r"tokenizer\.model"):
        load_parts(folder)
    folder = copied("glm4")
    (folder / "tokenizer.model").write_bytes((checkpoint("chatglm3") / "tokenizer.model").read_bytes())
    with pytest.raises(TokenizerError, match=r"tokenizer\.model"):
        load_parts(folder)
    folder = copied("chatglm2")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "padded_vocab_size": 30000}), "utf-8")
    with pytest.raises(CheckpointError, match=r"word_embeddings\.weight is 65024×64, .* 30000×64"):
        load_parts(folder)


@pytest.mark.parametrize("version", VERSIONS)
def test_adapters(version: str, checkpoint, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base, tokenizer, _ = load_parts(checkpoint(version), dtype=torch.float32)
    torch.manual_seed(0)
    lora = LoraConfig(
        task_type="CAUSAL_LM", r=2, lora_alpha=64, target_modules=["query_key_value"], init_lora_weights=False
    )
    adapted = get_peft_model(base, lora).eval()
    adapted.save_pretrained(tmp_path)
    options = {"do_sample": False, "max_new_tokens": 5}
    expected = adapted.chat(tokenizer, "你好", **options)
    assert (
        load_parts(checkpoint(version), adapter=tmp_path, dtype=torch.float32).model.chat(tokenizer, "你好", **options)
        == expected
    )
    # The adapter's own folder names its base.
    settings = json.loads((tmp_path / "adapter_config.json").read_text("utf-8"))
    settings["base_model_name_or_path"] = str(checkpoint(version))
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings), "utf-8")
    assert load_parts(tmp_path, dtype=torch.float32).model.chat(tokenizer, "你好", **options) == expected
    # transformers' own way to load an adapter folder
    direct = AutoModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert direct.chat(tokenizer, "你好", **options) == expected
    with pytest.raises(InputError, match="adapter itself"):
        load_parts(tmp_path, adapter=tmp_path)
    with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
        load_parts(checkpoint(version), adapter=checkpoint(version))


@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize("version", ["chatglm", "chatglm2"])
def test_official_prefix_states(version: str, projection: bool, checkpoint, tmp_path: Path) -> None:
    """What the official ptuning/ scripts save: a pytorch_model.bin of `transformer.prefix_encoder.*` alone."""
    from chatglm import AutoConfig

    config = AutoConfig.from_pretrained(checkpoint(version), pre_seq_len=3, prefix_projection=projection)
    torch.manual_seed(0)
    model = AutoModel.from_pretrained(checkpoint(version), config=config).float().eval()
    with torch.no_grad():
        for parameter in model.transformer.prefix_encoder.parameters():
            parameter.normal_()
    state = {k: v for k, v in model.state_dict().items() if "prefix_encoder" in k}
    assert {k for k, p in model.named_parameters() if p.requires_grad} == set(state)  # the rest is frozen
    expected_names = {"embedding.weight"} | (
        {"trans.0.weight", "trans.0.bias", "trans.2.weight", "trans.2.bias"} if projection else set()
    )
    assert {k.removeprefix("transformer.prefix_encoder.") for k in state} == expected_names
    torch.save(state, tmp_path / "pytorch_model.bin")
    tokenizer = chatglm.AutoTokenizer.from_pretrained(checkpoint(version))
    options = {"do_sample": False, "max_new_tokens": 5}
    expected = model.chat(tokenizer, "你好", **options)
    for where in (tmp_path, tmp_path / "pytorch_model.bin"):
        again = load_parts(checkpoint(version), prefix=where, dtype=torch.float32).model
        assert again.chat(tokenizer, "你好", **options) == expected
    # The lines of the official README
    fresh = AutoModel.from_pretrained(checkpoint(version), config=config, trust_remote_code=True)
    prefix_state = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    fresh.transformer.prefix_encoder.load_state_dict(
        {k[len("transformer.prefix_encoder.") :]: v for k, v in prefix_state.items()}
    )
    fresh = fresh.float().eval()
    fresh.transformer.prefix_encoder.float()
    assert fresh.chat(tokenizer, "你好", **options) == expected


def test_bad_prefix_states(checkpoint, tmp_path: Path) -> None:
    folder = checkpoint("chatglm2")
    with pytest.raises(CheckpointError, match="no such file"):
        load_parts(folder, prefix=tmp_path / "nothing.bin")
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.bin")
    with pytest.raises(CheckpointError, match="no P-tuning state"):
        load_parts(folder, prefix=tmp_path / "other.bin")
    torch.save({"transformer.prefix_encoder.embedding.weight": torch.zeros(3, 5)}, tmp_path / "small.bin")
    with pytest.raises(CheckpointError, match="another model"):
        load_parts(folder, prefix=tmp_path / "small.bin")
    name = "transformer.prefix_encoder.embedding.weight"
    projection = name.replace("embedding.weight", "trans.0.weight")
    for tensors, match in (
        ({name: torch.zeros(5)}, "has the shape"),
        ({name: torch.zeros(0, 5)}, "has the shape"),
        ({name: torch.zeros(3, 192, dtype=torch.int32)}, "does not belong"),
        ({name: torch.zeros(3, 192), name.replace("embedding", "other"): torch.zeros(1)}, "does not belong"),
        (
            {name: torch.zeros(3, 192), projection: torch.zeros(1, 192)},
            "made for another model",
        ),
        ({name: torch.zeros(3, 192), projection.replace("0.weight", "2.bias"): torch.zeros(192)}, "no .*is incomplete"),
    ):
        torch.save(tensors, tmp_path / "lie.bin")
        with pytest.raises(CheckpointError, match=match) as caught:
            load_parts(folder, prefix=tmp_path / "lie.bin")
        assert "\n" not in str(caught.value)
    (tmp_path / "cut.bin").write_bytes(b"PK\x03\x04")
    with pytest.raises(CheckpointError, match=r"cut\.bin"):
        load_parts(folder, prefix=tmp_path / "cut.bin")


def test_pickles_are_not_opened(checkpoint, tmp_path: Path) -> None:
    """A state that would run code when unpickled is refused, and does not run."""
    import pickle

    mark = tmp_path / "executed"

    class Bomb:
        def __reduce__(self):
            return Path.touch, (mark,)

    (tmp_path / "bomb.bin").write_bytes(pickle.dumps({"transformer.prefix_encoder.embedding.weight": Bomb()}))
    with pytest.raises(ChatGLMError):
        load_parts(checkpoint("chatglm2"), prefix=tmp_path / "bomb.bin")
    assert not mark.exists()


def test_weights_that_are_code_are_not_run(copied, tmp_path: Path) -> None:
    """A .bin shard, whole as an archive, whose pickle would run something."""
    mark = tmp_path / "executed"

    class Bomb:
        def __reduce__(self):
            return Path.touch, (mark,)

    folder = copied("chatglm3")
    torch.save({"transformer.output_layer.weight": Bomb()}, shard(folder))
    for attempt in (load_parts, AutoModel.from_pretrained):
        with pytest.raises(Exception, match=r"(?i)weights.only|unpickl|unsupported"):
            attempt(folder)
    assert not mark.exists()


def test_folders_that_only_say_they_are_quantised(copied) -> None:
    folder = copied("chatglm2")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    for changes, match in (
        ({"quantization_bit": 4}, "is not quantised .* though config.json says so"),
        ({"quantization_config": {"quant_method": "awq"}}, "'awq' in quantization_config is not supported"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, **changes}), "utf-8")
        with pytest.raises(ChatGLMError, match=match):
            load_parts(folder)


def test_device_argument(checkpoint) -> None:
    model = AutoModel.from_pretrained(checkpoint("chatglm3"), device="cpu", trust_remote_code=True)
    assert model.device.type == "cpu"
    assert AutoModel.from_pretrained(checkpoint("chatglm3"), device_map="auto").dtype == torch.float16
    with pytest.raises(InputError, match="twice"):
        AutoModel.from_pretrained(checkpoint("chatglm3"), device="cpu", device_map="auto")


# load(): an assistant of the parts


def test_load_gives_an_assistant(checkpoint) -> None:
    with chatglm.load(checkpoint("chatglm3"), dtype=torch.float32, max_running=3) as assistant:
        assert isinstance(assistant, chatglm.Assistant)
        assert assistant.format.tokenizer is assistant.tokenizer
        wanted, _ = load_parts(checkpoint("chatglm3"), dtype=torch.float32).model.chat(
            assistant.tokenizer, "你好", temperature=0, max_new_tokens=6
        )
        assert assistant.reply("你好", params={"temperature": 0, "max_new_tokens": 6}).content == wanted


needs_native = pytest.mark.skipif(native.library() is None, reason=f"native kernels: {native.info().reason}")


@pytest.fixture
def runnable(checkpoint: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A folder whose heads the native decoder takes: those of the tiny GLM-4 are narrower."""

    def get(version: str) -> Path:
        folder = checkpoint(version)
        if version != "glm4":
            return folder
        config = AutoConfig.from_pretrained(folder, kv_channels=16)
        AutoModel.from_config(config).save_pretrained(tmp_path / "wide")
        for name in ("tokenizer.model", "tokenizer_config.json"):
            shutil.copy(folder / name, tmp_path / "wide")
        return tmp_path / "wide"

    return get


def assert_same_weights(folder: Path, **options: Any) -> None:
    """Names, bytes and defaults, so whatever is computed of them is the same too."""
    bare, whole = load_to_answer(folder, **options).model, load_parts(folder, **options).model
    assert isinstance(bare, BareModel)
    wanted = {name: tensor for name, tensor in whole.state_dict().items() if "prefix_encoder" not in name}
    made = bare.state_dict()
    assert made.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert made[name].dtype == tensor.dtype, name
        assert torch.equal(made[name], tensor), name
    said, same_said = (
        {name: value for name, value in model.generation_config.to_diff_dict().items() if value not in (None, False)}
        for model in (bare, whole)
    )
    assert said == same_said
    shape, blocks, norm, head = bare.decoder_parts()
    names = {module: name for name, module in bare.named_modules()}
    same = whole.decoder_parts()
    places = {module: name for name, module in whole.named_modules()}
    assert shape == same[0]
    assert [[names[part] for part in block] for block in blocks] == [[places[part] for part in b] for b in same[1]]
    assert (names[norm], names[head]) == (places[same[2]], places[same[3]])
    tokens = torch.arange(20)
    table, other = bare.get_input_embeddings(), whole.get_input_embeddings()
    assert torch.equal(table(tokens), other(tokens))
    assert table(tokens).dtype == other(tokens).dtype


@needs_native
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_to_answer_are_loaded_the_same_weights(version: str, dtype: str, runnable) -> None:
    assert_same_weights(runnable(version), dtype=dtype)


@needs_native
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "options",
    [
        {"bits": 4, "group_size": 32, "head": True, "embedding": True},
        {"bits": 8, "group_size": 0},
        {"bits": 4, "group_size": 32, "skip": ("mlp",)},
    ],
    ids=str,
)
def test_to_answer_are_loaded_the_same_integers(
    version: str, options: dict[str, Any], runnable, tmp_path: Path
) -> None:
    model, tokenizer, _ = load_parts(runnable(version))
    for part in (quantize_module(model, **options), tokenizer):
        part.save_pretrained(tmp_path / "integers")
    assert_same_weights(tmp_path / "integers")


@needs_native
def test_what_the_native_decoder_cannot_run_is_a_whole_model(checkpoint) -> None:
    folder = checkpoint("chatglm3")
    assert isinstance(load_to_answer(folder, store=torch.int8).model, BareModel)
    for options in ({"store": torch.bfloat16}, {"attn_implementation": "eager"}, {"device_map": "cpu"}):
        model = load_to_answer(folder, **options).model
        assert model.chat(load_parts(folder).tokenizer, "你好", max_new_tokens=2)
    model = load_to_answer(folder).model
    with chatglm.load(folder) as assistant:
        assert isinstance(assistant.model, BareModel)
        assert [name for name, _ in assistant.model.named_parameters()] == [
            name for name, _ in model.named_parameters()
        ]


@needs_native
def test_to_answer_no_compiler_is_imported(checkpoint) -> None:
    """`transformers`' model classes and torch's compiler take longer to import than a model to load."""
    program = """
import sys, chatglm
with chatglm.load(sys.argv[1]) as assistant:
    assistant.reply("你好", params={"max_new_tokens": 2})
print(sorted({"transformers.modeling_utils", "torch._dynamo", "chatglm.models.chatglm"} & sys.modules.keys()))
from transformers import AutoModel
print(type(AutoModel.from_pretrained(sys.argv[1])).__name__)
"""
    folder = str(checkpoint("chatglm3"))
    done = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "ChatGLMForConditionalGeneration"]


def test_off_a_terminal_it_is_quiet(checkpoint, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    logging.enable_progress_bar()
    try:
        load_parts(checkpoint("chatglm3"))
        assert capfd.readouterr().err == ""
        assert logging.is_progress_bar_enabled()
    finally:
        if not enabled:
            logging.disable_progress_bar()


def test_an_adapter_that_was_asked_for_answers(checkpoint, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    folder = checkpoint("chatglm3")
    torch.manual_seed(1)
    options = {"r": 4, "task_type": "CAUSAL_LM", "target_modules": ["query_key_value"], "init_lora_weights": False}
    get_peft_model(load_parts(folder, dtype=torch.float32).model, LoraConfig(**options)).save_pretrained(tmp_path)
    answers = []
    for given in ({}, {"adapter": tmp_path}):
        model, tokenizer, _ = load_parts(folder, dtype=torch.float32, **given)
        wanted, _ = model.chat(tokenizer, "你好", temperature=0, max_new_tokens=6)
        with chatglm.load(folder, dtype=torch.float32, **given) as assistant:
            answers.append(assistant.reply("你好", params={"temperature": 0, "max_new_tokens": 6}).content)
            assert answers[-1] == wanted
            (*text, _) = assistant.stream_text("你好", params={"temperature": 0, "max_new_tokens": 6})
            answers.append("".join(delta.text for delta in text))
    assert answers[0] != answers[2]
    assert answers[1] != answers[3]


@pytest.mark.parametrize(
    ("version", "config", "wanted"),
    [
        ("chatglm", None, {"temperature": 0.95, "top_p": 0.7, "top_k": 50}),
        ("chatglm2", None, {"temperature": 0.8, "top_p": 0.8, "top_k": 50}),
        ("chatglm3", {"top_k": 7, "max_new_tokens": 9}, {"temperature": 0.8, "top_p": 0.8, "top_k": 7}),
        ("chatglm3", {"do_sample": False, "top_p": 0.5}, {"temperature": 0, "top_p": 1, "top_k": 0}),
        ("glm4", {"do_sample": True, "temperature": 0.3, "eos_token_id": 5}, {"temperature": 0.3, "top_k": 50}),
    ],
)
def test_what_holds_where_nothing_is_said(version: str, config: object, wanted: dict, copied) -> None:
    """generation_config.json, and where it does not say whether to sample, the official chat."""
    folder = copied(version)
    if config is not None:
        (folder / "generation_config.json").write_text(json.dumps(config))
    with chatglm.load(folder) as assistant:
        assert {name: getattr(assistant.defaults, name) for name in wanted} == wanted
        assert assistant.defaults.stop_ids == ()


@pytest.mark.parametrize("generation", ["chatglm3", "glm4", "characterglm"])
def test_official_sampling_is_that_of_the_official_methods(generation: str) -> None:
    methods = api._Character if generation == "characterglm" else api._Roles
    for method in (methods.chat, methods.stream_chat):
        for name, value in OFFICIAL_SAMPLING[Generation(generation)].items():
            assert inspect.signature(method).parameters[name].default == value


@pytest.mark.parametrize("load", [load_parts, chatglm.load, chatglm.AutoModel.from_pretrained])
def test_an_option_that_does_not_exist_is_named(load: Any, checkpoint) -> None:
    with pytest.raises(InputError, match=r"no option 'quantize'.*model\.quantize\(4\)"):
        load(checkpoint("chatglm3"), quantize=4)
