"""Settings of a training run: one tree, from a YAML file, from the command line, or from Python.

The keys include those of the official `finetune_hf.py` (ChatGLM3) and `finetune.py` (GLM-4), so that their files work:
`data_config`, `max_input_length`, `max_output_length`, `training_args` (the arguments of `transformers`), `peft_config`
and `combine`. Nothing in a file is ignored silently: an unknown key is an error that names the most similar known key.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import yaml

from chatglm import hub
from chatglm.errors import InputError, UnsupportedError
from chatglm.loading import demo_folder
from chatglm.models.fields import dtype_name
from chatglm.training.examples import Loss
from chatglm.training.infill import InfillSettings

__all__ = ["METHODS", "RENAMED", "DataFiles", "Lora", "Prefix", "Settings", "Texts", "assign", "read_yaml"]

METHODS = ("full", "lora", "ptuning", "freeze")

# Used if neither the file nor the command line sets them. Learning rates: for full and freeze, as is usual for models
# of billions of weights. Adapters start from zero and need higher ones; virtual tokens still higher ones (the official
# train_chat.sh has 1e-2).
_PRESETS: dict[str, dict[str, Any]] = {
    "full": {"learning_rate": 2e-5, "warmup_steps": 0.03},
    "freeze": {"learning_rate": 5e-5, "warmup_steps": 0.03},
    "lora": {"learning_rate": 1e-4, "warmup_steps": 0.03},
    "ptuning": {"learning_rate": 1e-2},
}
_FRESH = {"learning_rate": 2e-4, "warmup_steps": 0.03}  # a model with random weights; the rate is GLM-large's
_COMMON: dict[str, Any] = {"per_device_train_batch_size": 4, "logging_steps": 10, "seed": 42}

RENAMED = {"evaluation_strategy": "eval_strategy", "no_cuda": "use_cpu", "warmup_ratio": "warmup_steps"}
"""Arguments that transformers has renamed since the official files were written."""

# Arguments of generation during evaluation, which uses the model's own prompts.
_GENERATION = ("predict_with_generate", "generation_config", "generation_max_length", "generation_num_beams")
# Arguments that are fixed by what the trainer does, and the one value that each may have.
_FIXED: dict[str, Any] = {
    "remove_unused_columns": False,
    "label_names": ["shift_labels"],
    "overwrite_output_dir": False,
    "sortish_sampler": False,
    "save_safetensors": True,
    "label_smoothing_factor": 0.0,
    "use_liger_kernel": False,
    "average_tokens_across_devices": True,
}
_SAMPLING = ("random", "sequential")


@dataclass(frozen=True)
class DataFiles:
    """The files of dialogues or texts (`data_config`). Relative names are looked up in `folder`, if there is one.

    Attributes:
        num_proc: in official files, the number of processes that encode; accepted, but encoding uses one process.
        test_file: in official files; a run does not use it (`chatglm evaluate` does).
        columns: names of `prompt`, `response` and `history` in the data.
    """

    train_file: str | None = None
    val_file: str | None = None
    test_file: str | None = None
    folder: str | None = None
    num_proc: int | None = None
    columns: Mapping[str, str] | None = None

    def path(self, part: str) -> Path | None:
        """The file of `train`, `val` or `test`; None if it is not given."""
        name: str | None = getattr(self, f"{part}_file")
        if name is None:
            return None
        return Path(os.path.expanduser(self.folder or "")) / Path(os.path.expanduser(name))


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (`peft_config` with `peft_type: LORA`).

    Attributes:
        target_modules: names of linear layers, or `all-linear`; None: all four of a block.
    """

    r: int = 8
    lora_alpha: float = 32
    lora_dropout: float = 0.1
    target_modules: tuple[str, ...] | str | None = None
    use_rslora: bool = False
    use_dora: bool = False


@dataclass(frozen=True)
class Prefix:
    """P-tuning v2 (`peft_config` with `peft_type: PREFIX_TUNING`).

    Attributes:
        num_virtual_tokens: number of keys and values that are learned in every layer (official: `pre_seq_len`).
        prefix_projection: learn them through a network of two layers.
    """

    num_virtual_tokens: int = 128
    prefix_projection: bool = False


@dataclass(frozen=True)
class Texts:
    """How plain texts are read for pre-training.

    Attributes:
        split: where a .txt file's documents end: `file`, `blank` (at an empty line) or `line`.
        field: the name of the text in a row of a .jsonl file.
        hold_out: share of the documents that is kept for evaluation if there is no `val_file`.
    """

    split: str = "file"
    field: str = "text"
    hold_out: float = 0.0


_PEFT: dict[str, type[Lora] | type[Prefix]] = {"LORA": Lora, "PREFIX_TUNING": Prefix}
_OF_METHOD: dict[str, type[Lora] | type[Prefix]] = {"lora": Lora, "ptuning": Prefix}
# Settings that PEFT's own prefix tuning needs. Here they are known from the model.
_FOLLOWS = ("task_type", "num_attention_heads", "token_dim", "num_layers", "inference_mode")


@dataclass(frozen=True)
class Settings:
    """All settings of a run. Make them with `Settings.from_dict` or `Settings.load`, which check them and fill in
    defaults.

    Attributes:
        model: the checkpoint's folder or repository id; default: the bundled demo model.
        config: config.json of a new model, instead of `model` (only for pre-training).
        tokenizer: folder or repository id of a new model's tokenizer (only for pre-training).
        method: full, lora, ptuning or freeze.
        loss: `all` learns every assistant turn, in one pass if the format allows it; `last` only the last one; `split`
            learns every turn in a separate pass.
        one_pass: use one pass for ChatGLM2 and CharacterGLM, too (see `examples.encode`).
        max_length: longest example in tokens; default: `max_input_length + max_output_length + 1`, else 1024.
        packing: short examples share a row, but do not attend to one another.
        skip_bad_rows: leave rows out that cannot be read, and list them.
        trainable_layers: with `freeze`: number of blocks at the end that are trained.
        dtype: type of the frozen weights; auto: with adapters the type of the computation (bf16, fp16), else float32.
        save_dtype: type of the weights written at the end; auto: the checkpoint's own.
        predict_with_generate: at every evaluation, also generate answers and score them (Rouge, BLEU).
        generation_samples: number of generated answers.
        max_new_tokens: longest generated answer.
        infill, texts: settings of pre-training.
        training_args: arguments of `transformers.TrainingArguments`, with defaults such as `learning_rate` filled in.
        notes: messages for the user about keys of an official file that have no effect here, or were read as something
            else.
    """

    model: str | None = None
    config: str | None = None
    tokenizer: str | None = None
    method: str = "lora"
    data_config: DataFiles = field(default_factory=DataFiles)
    loss: str = "all"
    one_pass: bool = False
    max_length: int = 1024
    packing: bool = True
    skip_bad_rows: bool = False
    trainable_layers: int = 3
    dtype: str = "auto"
    save_dtype: str = "auto"
    predict_with_generate: bool = False
    generation_samples: int = 50
    max_new_tokens: int = 512
    peft_config: Lora | Prefix | None = field(default_factory=Lora)
    infill: InfillSettings = field(default_factory=InfillSettings)
    texts: Texts = field(default_factory=Texts)
    training_args: Mapping[str, Any] = field(default_factory=lambda: {**_COMMON, **_PRESETS["lora"]})
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def base(self) -> Path:
        """The folder of `model`, downloaded if needed; without a name, the bundled demo model."""
        return demo_folder() if self.model is None else hub.folder(self.model)

    @property
    def output(self) -> Path:
        """The folder of the result (`training_args.output_dir`)."""
        return Path(os.path.expanduser(str(self.training_args["output_dir"])))

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> Settings:
        """Read a YAML file: an official one or a saved `settings.yaml`.

        Raises:
            InputError: it is not YAML, or a value does not fit; names file and key.
            UnsupportedError: it asks for something that is not supported.
        """
        return cls.from_dict(read_yaml(file), where=str(file))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "settings") -> Settings:
        """Make settings from the tree of a YAML file, and fill in defaults.

        Without `method`, `peft_config` determines it; without both it is `full`, as in the official script.

        Raises:
            InputError, UnsupportedError: see `load`.
        """
        raw = dict(data)
        values: dict[str, Any] = {}
        peft = raw.pop("peft_config", None)
        method = raw.pop("method", None)
        notes: list[str] = []
        for name in ("dtype", "save_dtype"):
            if isinstance(given := raw.get(name), str):
                raw[name] = dtype_name(given)
        values["method"], values["peft_config"] = _method(method, peft, where, notes)
        for name, kind in (("data_config", DataFiles), ("infill", InfillSettings), ("texts", Texts)):
            values[name] = _build(kind, raw.pop(name, None), f"{where}: {name}")
        if (combine := raw.pop("combine", None)) is not None:  # its name in GLM-4's files
            said = "last" if _to_bool(combine, f"{where}: combine") else "all"
            if raw.setdefault("loss", said) != said:
                raise InputError(f"{where}: combine: {combine} means loss: {said}, but loss is {raw['loss']!r}")
        if raw.pop("freezeV", False):
            notes.append(f"{where}: freezeV has no effect: these models have no image encoder")
        if raw.pop("swanlab", None) not in (None, False, "disabled"):
            notes.append(f"{where}: swanlab has no effect; logs are train_log.jsonl, loss.png and TensorBoard's")
        lengths = [raw.pop(f"max_{part}_length", None) for part in ("input", "output")]
        if raw.get("max_length") is None:
            raw.pop("max_length", None)
            if None not in lengths:
                raw["max_length"] = sum(_to_int(n, f"{where}: max_*_length") for n in lengths) + 1
            elif lengths != [None, None]:
                raise InputError(f"{where}: give max_input_length and max_output_length together, or only max_length")
        arguments = _arguments(
            raw.pop("training_args", None),
            _FRESH if raw.get("config") else _PRESETS[values["method"]],
            f"{where}: training_args",
        )
        for name in ("predict_with_generate", "max_new_tokens"):
            if (given := arguments.pop(f"_{name}", None)) is not None:
                raw.setdefault(name, given)
        values["training_args"] = arguments
        settings = dataclasses.replace(_build(cls, {**raw, **values}, where), notes=tuple(notes))
        _check(settings, where)
        return settings

    def to_dict(self) -> dict[str, Any]:
        """The tree for YAML; `from_dict` reads it again."""
        data = dataclasses.asdict(self)
        del data["notes"]
        if self.peft_config is not None:
            kind = next(name for name, made in _PEFT.items() if isinstance(self.peft_config, made))
            data["peft_config"] = {"peft_type": kind, **data["peft_config"]}
            if isinstance(targets := data["peft_config"].get("target_modules"), tuple):
                data["peft_config"]["target_modules"] = list(targets)
        data["training_args"] = {name: _plain(value) for name, value in sorted(self.training_args.items())}
        return data

    def to_yaml(self) -> str:
        """`to_dict` as YAML, for people to read."""
        data = self.to_dict()
        text = yaml.safe_dump(data, allow_unicode=True, sort_keys=False)
        # PyYAML writes some Unicode line ends unchanged, but reads them as spaces.
        return text if yaml.safe_load(text) == data else yaml.safe_dump(data, sort_keys=False)

    def save(self, file: Path) -> None:
        """Write `to_yaml`."""
        draft = file.with_name(f".{file.name}.partial")
        draft.write_text(self.to_yaml(), "utf-8")
        draft.replace(file)


def read_yaml(file: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a YAML file that contains a mapping.

    Raises:
        InputError: there is no such file, or it is not YAML, or not a mapping.
    """
    path = Path(os.path.expanduser(file))
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a YAML file") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: also a date such as 2024-02-30
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a mapping of settings, found a {type(data).__name__}")
    return data


def assign(data: dict[str, Any], assignment: str) -> None:
    """Set one value in a tree of settings, given as `a.b=value`; the value is read as YAML.

    Raises:
        InputError: there is no `=`, or a name before the last one is not a mapping.
    """
    name, equals, text = assignment.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise InputError(f"--set {assignment}: expected KEY=VALUE, as in training_args.learning_rate=1e-4")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # a text; ValueError: as a date such as 2024-02-30
        value = text
    except RecursionError:
        raise InputError(f"--set {name}: the value is nested too deeply") from None
    place = data
    for key in keys[:-1]:
        if place.get(key) is None:
            place[key] = {}
        place = place[key]
        if not isinstance(place, dict):
            raise InputError(f"--set {assignment}: {key} is not a group of settings")
    place[keys[-1]] = value


# Layers of the GLM of `transformers` (the "-hf" folders, to which GLM-4's current files belong), and the official layer
# that has the same weights.
_COUNTERPARTS = {
    "query_key_value": {"q_proj", "k_proj", "v_proj"},
    "dense": {"o_proj"},
    "dense_h_to_4h": {"gate_up_proj"},
    "dense_4h_to_h": {"down_proj"},
}


def _official_layers(lora: Lora, where: str, notes: list[str]) -> Lora:
    """Replace the names of LoRA's layers by the official names.

    Raises:
        InputError: only a part of an official layer is named.
    """
    if lora.target_modules is None or isinstance(lora.target_modules, str):
        return lora
    names = list(lora.target_modules)
    for official, parts in _COUNTERPARTS.items():
        if not parts & set(names):
            continue
        if missing := sorted(parts - set(names)):
            raise InputError(
                f"{where}: target_modules: in this model, {', '.join(sorted(parts))} are one layer, {official}; name "
                f"{official} instead, or add {missing[0]}"
            )
        place = min(names.index(part) for part in parts)
        names = [official if n == place else name for n, name in enumerate(names) if n == place or name not in parts]
        notes.append(f"{where}: target_modules: {', '.join(sorted(parts))} are the layer {official} here")
    return dataclasses.replace(lora, target_modules=tuple(dict.fromkeys(names)))


def _method(method: Any, peft: Any, where: str, notes: list[str]) -> tuple[str, Lora | Prefix | None]:
    """The method, and the adapter's settings if it has an adapter."""
    kind = None
    if peft is not None:
        if not isinstance(peft, Mapping):
            raise InputError(f"{where}: peft_config: expected a mapping, got {peft!r:.80}")
        peft = {name: value for name, value in peft.items() if name not in _FOLLOWS}
        kind = peft.pop("peft_type", None)
        if kind is None and method in _OF_METHOD:
            kind = next(name for name, made in _PEFT.items() if made is _OF_METHOD[method])
        if str(kind).upper() not in _PEFT:
            raise UnsupportedError(f"{where}: peft_config.peft_type is {kind!r}; supported are {', '.join(_PEFT)}")
        kind = str(kind).upper()
    implied = {"LORA": "lora", "PREFIX_TUNING": "ptuning", None: "full"}[kind]
    method = implied if method is None else method
    if method not in METHODS:
        raise InputError(f"{where}: method is {method!r}; must be one of {', '.join(METHODS)}")
    if kind is not None and method != implied:
        raise InputError(f"{where}: method is {method}, but peft_config is for {implied}; remove one of them")
    made = _OF_METHOD.get(method)
    if made is None:
        return method, None
    built = _build(made, peft, f"{where}: peft_config")
    return method, _official_layers(built, f"{where}: peft_config", notes) if isinstance(built, Lora) else built


def _build(kind: type[Any], data: Any, where: str) -> Any:
    """Make a dataclass from a mapping, and check that every key is known and every value has its type."""
    if data is None:
        data = {}
    if not isinstance(data, Mapping):
        raise InputError(f"{where}: expected a mapping, got {data!r:.80}")
    types = {f.name: str(f.type) for f in dataclasses.fields(kind) if f.name != "notes"}
    extra = ("combine", "max_input_length", "max_output_length") if kind is Settings else ()
    values = {}
    for name, value in data.items():
        if name not in types:
            raise InputError(f"{where}: unknown key {name!r}{_meant(name, [*types, *extra])}")
        if value is None and "None" not in types[name]:
            continue  # a key without a value counts as missing
        values[name] = _coerce(value, types[name], f"{where}: {name}")
    return kind(**values)


def _meant(name: Any, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(known))}"


def _coerce(value: Any, annotation: str, where: str) -> Any:
    """Convert a YAML value to the annotated type. YAML reads `5e-5` as a string; it is accepted as a number."""
    if value is None or dataclasses.is_dataclass(value):
        return value
    names = set(re.findall(r"[A-Za-z]\w*", annotation))
    if isinstance(value, Mapping):
        if names & {"Mapping", "dict"}:
            return value
        raise InputError(f"{where}: expected {_said(annotation)}, got a mapping")
    if "tuple" in names or "list" in names:
        if isinstance(value, list | tuple):
            return tuple(str(item) for item in value) if "tuple" in names else list(value)
        if "str" in names and isinstance(value, str):
            return value
    elif isinstance(value, list | tuple):
        raise InputError(f"{where}: expected {_said(annotation)}, got a list")
    if "bool" in names and isinstance(value, bool):
        return value
    if "int" in names and "float" not in names and not isinstance(value, bool):
        return _to_int(value, where) if "str" not in names or isinstance(value, int | float) else value
    if "float" in names and not isinstance(value, bool):
        return _to_float(value, where) if "str" not in names or not isinstance(value, str) else value
    if "bool" in names:
        return value if "str" in names else _to_bool(value, where)
    if isinstance(value, str):
        return value
    if "str" in names and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if "Any" in names:
        return value
    raise InputError(f"{where}: expected {_said(annotation)}, got {value!r:.80}")


def _said(annotation: str) -> str:
    return annotation.replace(" | None", "")


def _to_float(value: Any, where: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"{where}: expected a number, got {value!r:.80}") from None


def _to_int(value: Any, where: str) -> int:
    number = _to_float(value, where)
    if isinstance(value, bool) or not number.is_integer():
        raise InputError(f"{where}: expected a whole number, got {value!r:.80}")
    return int(number)


def _to_bool(value: Any, where: str) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    if str(value).lower() in words:
        return words[str(value).lower()]
    raise InputError(f"{where}: expected true or false, got {value!r:.80}")


def _arguments(data: Any, presets: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`training_args` with presets filled in, checked against the arguments of the installed transformers.

    Settings that chatglm handles instead of the Trainer get names that begin with an underscore.
    """
    from transformers import Seq2SeqTrainingArguments

    if data is not None and not isinstance(data, Mapping):
        raise InputError(f"{where}: expected a mapping, got {data!r:.80}")
    types = {
        f.name: f.type.__name__ if isinstance(f.type, type) else str(f.type)
        for f in dataclasses.fields(Seq2SeqTrainingArguments)
        if f.init
    }
    values: dict[str, Any] = {}
    for key, value in dict(data or {}).items():
        name = RENAMED.get(str(key), str(key))
        here = f"{where}.{key}"
        if value is None:
            continue
        if value is False and name.endswith("_strategy"):
            value = "no"  # YAML reads "no" as false
        if name in values:
            raise InputError(f"{here}: says the same as {name}; give one of them")
        if name == "generation_config":
            values |= {"_max_new_tokens": _longest_answer(value, here)}
        elif name == "generation_max_length":
            raise UnsupportedError(f"{here}: give generation_config.max_new_tokens")
        elif name == "generation_num_beams":
            if _to_int(value, here) != 1:
                raise UnsupportedError(f"{here}: answers are generated greedily; remove the line")
        elif name == "predict_with_generate":
            values["_predict_with_generate"] = _to_bool(value, here)
        elif name in _FIXED:
            if value != _FIXED[name]:
                raise UnsupportedError(f"{here}: is always {_FIXED[name]!r} here; remove the line")
        elif name == "train_sampling_strategy" and value not in _SAMPLING:
            raise UnsupportedError(
                f"{here}: {value!r} is not supported, because packing does better; give {' or '.join(_SAMPLING)}"
            )
        elif name not in types:
            raise InputError(f"{here}: unknown key{_meant(name, [*types, *_GENERATION])}")
        else:
            values[name] = _coerce(value, types[name], here)
    return {**_COMMON, **presets, **values}


def _longest_answer(value: Any, where: str) -> int | None:
    if not isinstance(value, Mapping) or set(value) - {"max_new_tokens"}:
        raise UnsupportedError(f"{where}: only max_new_tokens can be given; answers are generated greedily")
    return _to_int(value["max_new_tokens"], f"{where}.max_new_tokens") if "max_new_tokens" in value else None


def _plain(value: Any) -> Any:
    return value.value if hasattr(value, "value") and not isinstance(value, str) else value


def _check(settings: Settings, where: str) -> None:
    """Check values beyond their types."""
    if settings.loss not in get_args(Loss):
        raise InputError(f"{where}: loss is {settings.loss!r}; must be one of {', '.join(get_args(Loss))}")
    if settings.texts.split not in ("file", "blank", "line"):
        raise InputError(f"{where}: texts.split is {settings.texts.split!r}; must be file, blank or line")
    if not 0 <= settings.texts.hold_out < 1:
        raise InputError(f"{where}: texts.hold_out is {settings.texts.hold_out}; must be a share below 1")
    if settings.model is not None and settings.config is not None:
        raise InputError(
            f"{where}: model and config: a run starts from a checkpoint (model) or from nothing (config); give one"
        )
    for name in ("dtype", "save_dtype"):
        if (value := getattr(settings, name)) not in ("auto", "float32", "float16", "bfloat16"):
            raise InputError(f"{where}: {name} is {value!r}; must be auto, float32, float16 or bfloat16")
    positive = {name: getattr(settings, name) for name in ("max_length", "trainable_layers", "generation_samples")}
    positive["max_new_tokens"] = settings.max_new_tokens
    if isinstance(settings.peft_config, Lora):
        positive["peft_config.r"] = settings.peft_config.r
        if not 0 <= settings.peft_config.lora_dropout < 1:
            raise InputError(
                f"{where}: peft_config.lora_dropout is {settings.peft_config.lora_dropout}; must be a share below 1"
            )
    if isinstance(settings.peft_config, Prefix):
        positive["peft_config.num_virtual_tokens"] = settings.peft_config.num_virtual_tokens
    for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
        positive[f"training_args.{name}"] = settings.training_args.get(name, 1)
    for name, value in positive.items():
        if value < 1:
            raise InputError(f"{where}: {name} is {value}; must be at least 1")
    arguments = settings.training_args
    if arguments.get("max_steps") == 0:
        raise InputError(
            f"{where}: training_args.max_steps is 0; give a number of steps, or -1 to use num_train_epochs"
        )
    if not 0 < arguments.get("num_train_epochs", 1) < math.inf:
        raise InputError(
            f"{where}: training_args.num_train_epochs is {arguments['num_train_epochs']}; must be above 0, and finite"
        )
    if not 0 <= arguments["learning_rate"] < math.inf:
        raise InputError(f"{where}: training_args.learning_rate is {arguments['learning_rate']}; must be 0 or more")
    for name in ("seed", "data_seed"):
        if not 0 <= (arguments.get(name) or 0) < 1 << 32:
            raise InputError(f"{where}: training_args.{name} is {arguments[name]}; must be from 0 to {(1 << 32) - 1}")
    if settings.predict_with_generate and not settings.data_config.val_file:
        raise InputError(
            f"{where}: predict_with_generate (--generate) scores answers to data_config.val_file (--val-file), and "
            "there is none"
        )
    if settings.max_length < 2:
        raise InputError(f"{where}: max_length is {settings.max_length}; one token leaves nothing to learn")
    if settings.method == "full" and settings.dtype == "float16":
        raise InputError(f"{where}: dtype: float16 weights cannot be trained; use bf16 or fp16 in training_args")
    if settings.training_args.get("bf16") and settings.training_args.get("fp16"):
        raise InputError(f"{where}: training_args: bf16 and fp16 cannot be used together; remove one")
    if settings.training_args.get("eval_strategy", "no") != "no" and not (
        settings.data_config.val_file or settings.texts.hold_out
    ):
        raise InputError(
            f"{where}: training_args.eval_strategy is {settings.training_args['eval_strategy']!r}, but there is no "
            "data_config.val_file to evaluate on"
        )
