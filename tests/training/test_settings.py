"""Settings: the official files' keys, ours, overrides, and what is refused."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chatglm.errors import DependencyError, InputError, UnsupportedError
from chatglm.training.settings import METHODS, DataFiles, Lora, Prefix, Settings, assign, read_yaml
from chatglm.training.trainer import arguments_of

# The keys of ChatGLM3's finetune_demo/configs/lora.yaml; `5e-5` is a string to YAML.
CHATGLM3 = """
data_config:
  train_file: train.json
  val_file: dev.json
  test_file: dev.json
  num_proc: 16
max_input_length: 256
max_output_length: 512
training_args:
  output_dir: ./output
  max_steps: 3000
  learning_rate: 5e-5
  per_device_train_batch_size: 4
  dataloader_num_workers: 16
  remove_unused_columns: false
  save_strategy: steps
  save_steps: 500
  log_level: info
  logging_strategy: steps
  logging_steps: 10
  per_device_eval_batch_size: 16
  evaluation_strategy: steps
  eval_steps: 500
  predict_with_generate: true
  generation_config:
    max_new_tokens: 100
  use_cpu: true
"""
GLM4 = CHATGLM3.replace("evaluation_strategy", "eval_strategy") + "combine: True\nfreezeV: False\n"
LORA = "peft_config:\n  peft_type: LORA\n  task_type: CAUSAL_LM\n  r: 8\n  lora_alpha: 32\n  lora_dropout: 0.1\n"
PTUNING = "peft_config:\n  peft_type: PREFIX_TUNING\n  task_type: CAUSAL_LM\n  num_virtual_tokens: 64\n"


def loaded(tmp_path: Path, text: str) -> Settings:
    (tmp_path / "run.yaml").write_text(text, "utf-8")
    return Settings.load(tmp_path / "run.yaml")


def test_an_official_file_works(tmp_path: Path) -> None:
    made = loaded(tmp_path, CHATGLM3 + LORA)
    assert made.method == "lora"
    assert made.peft_config == Lora(8, 32, 0.1)
    assert made.max_length == 256 + 512 + 1
    assert made.data_config == DataFiles("train.json", "dev.json", "dev.json", num_proc=16)
    assert made.predict_with_generate
    assert made.max_new_tokens == 100
    assert made.training_args["learning_rate"] == 5e-5
    arguments = arguments_of(made)
    assert (arguments.eval_strategy, arguments.eval_steps) == ("steps", 500)
    assert (arguments.max_steps, arguments.per_device_eval_batch_size) == (3000, 16)
    assert arguments.label_names == ["shift_labels"]


def test_without_peft_config_all_weights_are_trained(tmp_path: Path) -> None:
    made = loaded(tmp_path, CHATGLM3)
    assert (made.method, made.peft_config) == ("full", None)


def test_prefix_tuning_is_p_tuning_v2(tmp_path: Path) -> None:
    made = loaded(tmp_path, CHATGLM3 + PTUNING + "  num_attention_heads: 2\n  token_dim: 256\n")
    assert (made.method, made.peft_config) == ("ptuning", Prefix(64))


def test_glm4_s_own_keys(tmp_path: Path) -> None:
    assert loaded(tmp_path, GLM4).loss == "last"
    assert loaded(tmp_path, GLM4.replace("combine: True", "combine: False")).loss == "all"
    with pytest.raises(InputError, match=r"run\.yaml: combine: True means loss: last, but loss is 'all'"):
        loaded(tmp_path, GLM4 + "loss: all\n")
    made = loaded(tmp_path, GLM4.replace("freezeV: False", "freezeV: True") + "swanlab: local\n")
    assert made == loaded(tmp_path, GLM4)
    assert [re.sub(r".*yaml: ", "", note).split()[0] for note in made.notes] == ["freezeV", "swanlab"]


def test_layers_of_the_hf_folders_are_the_official_ones(tmp_path: Path) -> None:
    """GLM-4's current lora.yaml names q_proj, k_proj, v_proj; together they are query_key_value."""

    def layers(*names: str) -> Any:
        made = loaded(tmp_path, f"{GLM4}{LORA}  target_modules: [{', '.join(names)}]\n")
        assert isinstance(made.peft_config, Lora)
        return made.peft_config.target_modules, len(made.notes)

    assert layers("q_proj", "k_proj", "v_proj") == (("query_key_value",), 1)
    assert layers("o_proj", "v_proj", "q_proj", "k_proj") == (("dense", "query_key_value"), 2)
    assert layers("query_key_value") == (("query_key_value",), 0)
    with pytest.raises(InputError, match="k_proj, q_proj, v_proj are one layer, query_key_value; name query_key_value"):
        layers("q_proj", "v_proj")


def test_deepspeed_that_is_not_installed(tmp_path: Path, monkeypatch) -> None:
    """The official sft.yaml."""

    def missing(self: Any, **arguments: Any) -> None:
        raise PackageNotFoundError("deepspeed>=0.9.3")

    monkeypatch.setattr("chatglm.training.trainer.TrainingArguments.__init__", missing)
    with pytest.raises(DependencyError, match=r"training_args\.deepspeed: pip install deepspeed, or remove the line"):
        arguments_of(loaded(tmp_path, CHATGLM3.replace("use_cpu: true", "deepspeed: configs/ds_zero_3.json")))


@pytest.mark.parametrize("text", ["", CHATGLM3, CHATGLM3 + LORA, CHATGLM3 + PTUNING, GLM4, "method: freeze\n"])
def test_what_is_saved_gives_the_same_settings(text: str, tmp_path: Path) -> None:
    made = loaded(tmp_path, text)
    made.save(tmp_path / "settings.yaml")
    assert Settings.load(tmp_path / "settings.yaml") == made
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run.yaml", "settings.yaml"]


trees = st.fixed_dictionaries(
    {"method": st.sampled_from(METHODS)},
    optional={
        "loss": st.sampled_from(["all", "last", "split"]),
        "max_length": st.integers(2, 10**6),
        "packing": st.booleans(),
        "one_pass": st.booleans(),
        "model": st.text(max_size=9),
        "data_config": st.fixed_dictionaries(
            {}, optional={"train_file": st.text(max_size=9), "columns": st.just({"prompt": "问"})}
        ),
        "training_args": st.fixed_dictionaries(
            {},
            optional={
                "learning_rate": st.floats(1e-9, 1),
                "max_steps": st.integers(-1, 10**9).filter(bool),
                "gradient_checkpointing_kwargs": st.just({"use_reentrant": False}),
                "lr_scheduler_type": st.sampled_from(["cosine", "linear"]),
            },
        ),
        "infill": st.fixed_dictionaries({}, optional={"span_share": st.floats(0, 1), "max_span": st.integers(1, 99)}),
        "texts": st.fixed_dictionaries({}, optional={"split": st.sampled_from(["file", "blank", "line"])}),
    },
)


@settings(deadline=None, max_examples=60)
@example({"method": "full", "data_config": {"train_file": "a\x85b\u2028"}})
@given(trees)
def test_yaml_and_back(tree: dict[str, Any]) -> None:
    made = Settings.from_dict(tree)
    assert Settings.from_dict(yaml.safe_load(made.to_yaml())) == made


@pytest.mark.parametrize("method", METHODS)
def test_learning_rates_follow_the_method_unless_given(method: str) -> None:
    usual = {"full": 2e-5, "freeze": 5e-5, "lora": 1e-4, "ptuning": 1e-2}[method]
    assert Settings.from_dict({"method": method}).training_args["learning_rate"] == usual
    given = Settings.from_dict({"method": method, "training_args": {"learning_rate": "3e-3"}})
    assert given.training_args["learning_rate"] == 3e-3


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"max_lenght": 9}, "unknown key 'max_lenght'; did you mean 'max_length'"),
        ({"training_arg": {}}, "unknown key 'training_arg'; did you mean 'training_args'"),
        (
            {"training_args": {"learning_rat": 1}},
            "training_args.learning_rat: unknown key; did you mean 'learning_rate'",
        ),
        ({"training_args": {"zzz": 1}}, "training_args.zzz: unknown key; known are"),
        ({"data_config": {"train": "x"}}, "data_config: unknown key 'train'"),
        ({"peft_config": {"peft_type": "LORA", "rank": 4}}, "peft_config: unknown key 'rank'"),
        ({"infill": {"span_rate": 1}}, "infill: unknown key 'span_rate'; did you mean 'span_ratio'"),
        ({"max_length": "long"}, "max_length: expected a number, got 'long'"),
        ({"max_length": 1.5}, "max_length: expected a whole number, got 1.5"),
        ({"max_length": [1]}, "max_length: expected int, got a list"),
        ({"max_length": 1}, "one token leaves nothing to learn"),
        ({"max_length": 0}, "max_length is 0; must be at least 1"),
        ({"max_input_length": 4}, "give max_input_length and max_output_length together"),
        ({"packing": "maybe"}, "packing: expected true or false, got 'maybe'"),
        ({"loss": "first"}, "loss is 'first'; must be one of all, last, split"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"method": "adapter"}, "method is 'adapter'; must be one of full, lora"),
        ({"method": "full", "peft_config": {"peft_type": "LORA"}}, "method is full, but peft_config is for lora"),
        ({"peft_config": {"peft_type": "LORA", "r": 0}}, "peft_config.r is 0; must be at least 1"),
        ({"peft_config": 3}, "peft_config: expected a mapping, got 3"),
        ({"training_args": {"bf16": True, "fp16": True}}, "bf16 and fp16 cannot be used together"),
        ({"training_args": {"warmup_ratio": 0.1, "warmup_steps": 3}}, "says the same as warmup_steps"),
        ({"training_args": {"eval_strategy": "steps"}}, "there is no data_config.val_file to evaluate on"),
        ({"training_args": {"per_device_train_batch_size": 0}}, "must be at least 1"),
        ({"training_args": {"learning_rate": [1]}}, "learning_rate: expected float, got a list"),
        ({"model": "a", "config": "b"}, "a run starts from a checkpoint"),
        ({"max_length": float("inf")}, "max_length: expected a whole number, got inf"),
        ({"max_length": ".nan"}, "max_length: expected a number, got '.nan'"),
        ({"training_args": {"max_steps": 0}}, "max_steps is 0"),
        ({"training_args": {"num_train_epochs": 0}}, "num_train_epochs is 0.0; must be above 0"),
        ({"training_args": {"num_train_epochs": float("nan")}}, "num_train_epochs is nan; must be above 0"),
        ({"training_args": {"learning_rate": -1}}, "learning_rate is -1.0; must be 0 or more"),
        ({"training_args": {"learning_rate": "inf"}}, "learning_rate is inf"),
        ({"training_args": {"seed": -1}}, "training_args.seed is -1; must be from 0 to 4294967295"),
        ({"training_args": {"data_seed": 1 << 32}}, "training_args.data_seed is 4294967296"),
        ({"predict_with_generate": True}, "scores answers to data_config.val_file (--val-file), and there is none"),
        ({"texts": {"split": "page"}}, "texts.split is 'page'"),
        ({"texts": {"hold_out": 1.0}}, "texts.hold_out is 1.0"),
        ({"method": "full", "dtype": "float16"}, "float16 weights cannot be trained"),
    ],
)
def test_what_does_not_fit_is_said_with_its_place(tree: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        Settings.from_dict(tree, where="run.yaml")
    assert said in str(caught.value)
    assert str(caught.value).startswith(("run.yaml: ", "infill."))


def test_a_strategy_that_yaml_takes_for_false() -> None:
    tree = yaml.safe_load("{training_args: {save_strategy: no, logging_strategy: off, eval_strategy: no}}")
    given = Settings.from_dict(tree).training_args
    assert {given[f"{name}_strategy"] for name in ("save", "logging", "eval")} == {"no"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"remove_unused_columns": True}, "remove_unused_columns: is always False here"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor: is always 0.0 here"),
        ({"average_tokens_across_devices": False}, "average_tokens_across_devices: is always True here"),
        ({"generation_num_beams": 4}, "answers are generated greedily"),
        ({"generation_config": {"do_sample": True}}, "only max_new_tokens can be given"),
        ({"train_sampling_strategy": "group_by_length"}, "packing does better"),
    ],
)
def test_what_is_recognised_and_not_done_is_refused_by_name(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        Settings.from_dict({"training_args": arguments}, where="run.yaml")
    assert said in str(caught.value)
    with pytest.raises(UnsupportedError, match="peft_type is 'IA3'; supported are LORA, PREFIX_TUNING"):
        Settings.from_dict({"peft_config": {"peft_type": "IA3"}})


def test_assignments() -> None:
    tree: dict[str, Any] = {"training_args": {"seed": 1}, "peft_config": None}
    for assignment in ("training_args.learning_rate=1e-4", "peft_config.peft_type=LORA", "loss=last", "model=a=b"):
        assign(tree, assignment)
    assert tree == {
        "training_args": {"seed": 1, "learning_rate": "1e-4"},
        "peft_config": {"peft_type": "LORA"},
        "loss": "last",
        "model": "a=b",
    }
    assert Settings.from_dict(tree).training_args["learning_rate"] == 1e-4
    assign(tree, "training_args.run_name=2024-02-30")
    assert tree["training_args"]["run_name"] == "2024-02-30"
    for wrong in ("loss", "=3", "training_args..seed=1", "loss.x=1"):
        with pytest.raises(InputError, match="--set"):
            assign(tree, wrong)


def test_files_that_are_no_settings(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml: cannot be read"):
        read_yaml(tmp_path / "nowhere.yaml")
    for text, said in (
        ("a: [1", "not YAML"),
        ("- 1", "found a list"),
        ("!!python/object:os.system {}", "not YAML"),
        ("run_name: 2024-02-30", "not YAML"),
        ("a: " + "[" * 9999, "not YAML"),
    ):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(InputError, match=rf"bad\.yaml: .*{said}"):
            read_yaml(tmp_path / "bad.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert read_yaml(tmp_path / "empty.yaml") == {}


def test_paths_of_data(tmp_path: Path) -> None:
    files = DataFiles("a.json", val_file="/b.json", folder="/data")
    assert files.path("train") == Path("/data/a.json")
    assert files.path("val") == Path("/b.json")
    assert files.path("test") is None


@pytest.mark.parametrize(
    ("said", "meant"),
    [("fp16", "float16"), ("half", "float16"), ("bf16", "bfloat16"), ("fp32", "float32"), ("torch.float16", "float16")],
)
def test_names_of_data_types(said: str, meant: str) -> None:
    made = Settings.from_dict({"method": "lora", "dtype": said, "save_dtype": said})
    assert (made.dtype, made.save_dtype) == (meant, meant)
