"""PEFT adapters from folders: only known settings, and weights that match the model tensor by tensor; or one clear
error.

adapter_config.json is foreign input. PEFT matches its regular expressions against the name of every module without a
time limit, imports a module that the file names, makes matrices of any rank, and only warns if the weights do not fit
the settings. Here, only known settings are accepted. Expressions are matched in a process with a time limit, and
replaced by the names that they match. The weight file must have exactly the tensors that the settings need.

Adapters of layers are supported: LoRA, IA³, LoHa and LoKr. Prefix and prompt tuning of PEFT put virtual tokens in front
of every prompt, in a way that the engine's cache does not support; use P-tuning v2 (`prefix=`) instead.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatglm.chat.files import read_json, size_of
from chatglm.errors import CheckpointError, ConfigError, DependencyError, UnsupportedError
from chatglm.models.weights import About, tensors_of

__all__ = ["Adapter", "check_matches", "read_adapter", "remember_frozen", "take_off", "with_adapter", "without_adapter"]

CONFIG = "adapter_config.json"

_SUPPORTED = {"LORA": "LoRA", "IA3": "IA³", "LOHA": "LoHa", "LOKR": "LoKr"}
_TASKS = ("CAUSAL_LM", "SEQ_2_SEQ_LM", "SEQ_CLS", "FEATURE_EXTRACTION")

_MAX_NAMES = 10_000
_MAX_PATTERN = 2_000
_SECONDS = 10
"""Seconds for all expressions of an adapter together; those of real adapters take milliseconds."""

# Kinds of values, and the accepted settings of each kind, for each method.
_COUNT = ("r", "decompose_factor")
_NUMBER = ("lora_alpha", "alpha", "lora_dropout", "rank_dropout", "module_dropout")
_SWITCH = (
    "use_rslora",
    "use_dora",
    "lora_bias",
    "fan_in_fan_out",
    "use_effective_conv2d",
    "decompose_both",
    "rank_dropout_scale",
)
_TAKEN = {
    "LORA": {"r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "lora_bias", "fan_in_fan_out"},
    "IA3": {"fan_in_fan_out"},
    "LOHA": {"r", "alpha", "rank_dropout", "module_dropout", "use_effective_conv2d"},
    "LOKR": {
        "r",
        "alpha",
        "rank_dropout",
        "module_dropout",
        "use_effective_conv2d",
        "decompose_both",
        "decompose_factor",
        "rank_dropout_scale",
    },
}
# Settings that are read here. PEFT gets them in another form, or not at all.
_READ = frozenset(
    {
        "peft_type",
        "task_type",
        "bias",
        "target_modules",
        "exclude_modules",
        "feedforward_modules",
        "modules_to_save",
        "layers_to_transform",
        "layers_pattern",
        "rank_pattern",
        "alpha_pattern",
        "init_lora_weights",
        "init_ia3_weights",
        "init_weights",
    }
)
# Settings that do not change the answers: how the adapter was made, or how a process runs it.
_WITHOUT_EFFECT = frozenset(
    {
        "auto_mapping",
        "peft_version",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "megatron_core",
        "qalora_group_size",
        "runtime_config",
        "eva_config",
        "ensure_weight_tying",
    }
)
_NEUTRAL: tuple[Any, ...] = (None, False, [], {})

_TOGETHER = "load it together with the model (--adapter), or merge it"
_BESIDE = ("word_embeddings.", "output_layer.", "lm_head.")

# Methods of initialisation that do not change the base model. The others change its weights, so such an adapter does
# not fit the weights of the base model's folder.
_INITIAL = ("gaussian", "eva", "orthogonal", "lycoris")


@dataclass(frozen=True)
class Adapter:
    """An adapter of a folder.

    Attributes:
        folder: the adapter's folder.
        weights: the file with its tensors.
        config: PEFT's configuration, with full names of modules instead of expressions.
        tensors: shape and type of every tensor, by its name in the file.
    """

    folder: Path
    weights: Path
    config: Any
    tensors: Mapping[str, About]


def with_adapter(model: Any, folder: Path, name: str = "default", *, removable: bool = False) -> Any:
    """Put the adapter of a folder on a model's layers. Returns a PEFT model. After an error, the model is unchanged.

    Args:
        model: a model of `transformers`, or a PEFT model, which gets another adapter.
        name: name of the adapter.
        removable: the model is also used without the adapter. An adapter that has changed weights or biases of the base
            model is then refused: they would stay when it is off.

    Raises:
        DependencyError: `peft` is not installed.
        CheckpointError: a file is missing or damaged, or the adapter was made for another model; names the tensor.
        ConfigError: a setting has a wrong type or value.
        UnsupportedError: the kind of adapter or a setting is not supported, or it cannot be put on a quantised model.
    """
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    adapter = read_adapter(base, folder)
    if removable and (bias := getattr(adapter.config, "bias", "none")) != "none":
        raise UnsupportedError(
            f"{folder / CONFIG}: bias {bias!r} changes biases of the base model, and requests without the adapter use "
            f"them, too; {_TOGETHER}"
        )
    from peft import MODEL_TYPE_TO_PEFT_MODEL_MAPPING, PeftModel

    kind = MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(adapter.config.task_type, PeftModel)
    made, restore, put_back = model, remember_frozen(model), _remember_weights(base)
    try:  # without memory, until it is known that the tensors fit
        if base is model:
            made = kind(model, adapter.config, adapter_name=name, low_cpu_mem_usage=True)
        else:
            made.add_adapter(name, adapter.config, low_cpu_mem_usage=True)
    except BaseException as error:
        take_off(base, name)
        restore()
        if isinstance(error, ValueError):
            raise CheckpointError(f"{folder / CONFIG}: {' '.join(str(error).split()):.300}") from None
        raise
    try:
        check_matches(adapter, made, type(base).__name__, name)
        made.load_adapter(str(folder), name, torch_device=str(base.device), low_cpu_mem_usage=True)
        if removable and (changed := put_back()):
            raise UnsupportedError(
                f"{adapter.weights}: has a weight of the base model, with other values ({changed[0]:.200}); requests "
                f"without the adapter use it, too; {_TOGETHER}"
            )
    except BaseException:
        without_adapter(made, name)
        if removable:
            put_back()
        restore()
        raise
    return made.eval()


def remember_frozen(model: Any) -> Callable[[], None]:
    """Return a function that restores which parameters of a model require a gradient now. PEFT freezes parameters
    before it is known that an adapter fits.
    """
    held = [(parameter, parameter.requires_grad) for parameter in model.parameters()]

    def restore() -> None:
        for parameter, learned in held:
            parameter.requires_grad_(learned)

    return restore


def _remember_weights(model: Any) -> Callable[[], list[str]]:
    """Return a function that puts back weights that were replaced meanwhile, and returns the names of those that had
    other values. PEFT takes weights of the base model from an adapter's file if they are there, as with
    `save_embedding_layers`.
    """
    held = [
        (f"{path}.{name}", module, name, value)
        for path, module in model.named_modules()
        for name, value in module._parameters.items()
        if value is not None
    ]

    def put_back() -> list[str]:
        changed = []
        for full, module, name, value in held:
            other = module._parameters.get(name)
            if other is not None and other is not value:
                module._parameters[name] = value
                if other.shape != value.shape or not bool((other.to(value.device, value.dtype) == value).all()):
                    changed.append(full)
        return changed

    return put_back


def without_adapter(model: Any, name: str) -> Any:
    """Remove an adapter from a PEFT model. Returns the PEFT model, or the base model if it was the last adapter."""
    if len(model.peft_config) == 1:
        return model.unload()
    model.delete_adapter(name)
    take_off(model, name)
    return model


def take_off(model: Any, name: str) -> None:
    """Remove an adapter from all layers. A layer without another adapter becomes the base model's layer again."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for path, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.delete_adapter(name)
            if not any(len(getattr(module, part, ())) for part in module.adapter_layer_names):
                model.set_submodule(path, module.get_base_layer())


def read_adapter(model: Any, folder: Path) -> Adapter:
    """Read and check the adapter of a folder, and adjust it to a model. Errors are those of `with_adapter`."""
    try:
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    except ImportError:
        raise DependencyError("adapters need the peft package: pip install 'chatglm[peft]'") from None
    file = folder / CONFIG
    if not file.exists():
        raise CheckpointError(f"{folder}: no adapter_config.json; give the folder that PEFT saved")
    about = read_json(file)
    kind = about.get("peft_type")
    if not isinstance(kind, str) or kind not in _SUPPORTED:
        hint = (
            "; train P-tuning v2 instead (chatglm finetune), whose state is loaded with prefix="
            if str(kind) in ("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING", "CPT")
            else ""
        )
        raise UnsupportedError(
            f"{file}: peft_type {kind!r:.60} is not supported; supported are {', '.join(_SUPPORTED.values())}{hint}"
        )
    computed = "DoRA" if about.get("use_dora") is True else _SUPPORTED[kind] if kind in ("LOHA", "LOKR") else ""
    if computed and getattr(model.config, "quantization_config", None) is not None:
        raise UnsupportedError(
            f"{file}: {computed} computes with the base model's weights as floats, and these are quantised; put the "
            "adapter on the original model, or use LoRA or IA³"
        )
    settings = _Settings(file, about, kind)
    weights = _weights_of(folder)
    tensors = tensors_of(weights)
    if not tensors:
        raise CheckpointError(f"{weights}: holds no tensors; the adapter is incomplete")
    fields = settings.fields(_modules(model))
    _check_rank(file, about, tensors)
    try:
        config = PEFT_TYPE_TO_CONFIG_MAPPING[kind](**fields)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{file}: {str(error).splitlines()[0]:.300}") from None
    config.inference_mode = True
    return Adapter(folder, weights, config, tensors)


def check_matches(adapter: Adapter, made: Any, model: str, name: str = "default", *, removable: bool = False) -> None:
    """Check that the tensors of an adapter's file fit a model.

    Args:
        made: the model with the adapter on its layers.
        model: name of the base model.
        name: name of the adapter in `made`.

    Raises:
        CheckpointError: the file lacks tensors, has others, or has other shapes; names file and tensor.
    """
    from peft import get_peft_model_state_dict

    wanted = get_peft_model_state_dict(made, adapter_name=name, save_embedding_layers=False)
    held = {_short(name): about for name, about in adapter.tensors.items()}
    needed = {_short(name): tuple(tensor.shape) for name, tensor in wanted.items()}
    # PEFT may save the embedding and the output head beside an adapter.
    beside = {_short(name): tuple(tensor.shape) for name, tensor in made.state_dict().items() if _is_beside(name)}
    shapes = {**beside, **needed}
    for name in sorted(shapes.keys() & held.keys()):
        if held[name][0] != shapes[name]:
            raise CheckpointError(
                f"{adapter.weights}: made for another model: its tensor {name} is {_shape(held[name][0])}, this "
                f"model's is {_shape(shapes[name])}"
            )
    missing = sorted(needed.keys() - held.keys())
    unexpected = sorted(name for name in held.keys() - needed.keys() if not _is_beside(name))
    if missing or unexpected:
        parts = [
            f"{what}: {len(names)} (first: {names[0]:.200})"
            for names, what in ((missing, "missing tensors"), (unexpected, "tensors that do not fit its settings"))
            if names
        ]
        raise CheckpointError(
            f"{adapter.weights}: {' and '.join(parts)}; the adapter is incomplete, or was made for another model than "
            f"this {model}"
        )


def _is_beside(name: str) -> bool:
    return any(part in name for part in _BESIDE)


class _Settings:
    """The settings in an adapter_config.json."""

    def __init__(self, file: Path, about: dict[str, Any], kind: str) -> None:
        self._file, self._about, self._kind = file, about, kind

    def fields(self, modules: Mapping[str, bool]) -> dict[str, Any]:
        """Check the settings, and make the fields of PEFT's configuration.

        Args:
            modules: the name of each of the model's modules, and whether it is a linear layer.

        Raises:
            ConfigError: a setting has a wrong type or value.
            CheckpointError: the settings name no layer of the model.
            UnsupportedError: a setting is not supported.
        """
        about, names = self._about, list(modules)
        made: dict[str, Any] = {"task_type": self._task()}
        for name, value in about.items():
            if name in _TAKEN[self._kind]:
                made[name] = self._plain(name, value)
            elif name not in _READ and name not in _WITHOUT_EFFECT and value not in _NEUTRAL:
                raise UnsupportedError(f"{self._file}: {name} is {value!r:.60}, which is not supported; remove it")
        self._check_initial()
        if self._kind == "LORA":
            made["bias"] = self._one_of("bias", ("none", "all", "lora_only"), "none")
        patterns = _Patterns(self._file, names)
        targets = self._targets(modules, patterns)
        excluded = patterns.ask("exclude_modules", about.get("exclude_modules"))
        forward = patterns.ask("feedforward_modules", about.get("feedforward_modules"))
        by_key = {
            name: {key: patterns.ask_end(name, key) for key in self._numbers(name)}
            for name in ("rank_pattern", "alpha_pattern")
        }
        patterns.match()
        layers = self._layers()
        chosen = [name for name in names if name in targets() and name not in excluded() and layers(name)]
        if not chosen:
            raise CheckpointError(
                f"{self._file}: target_modules {str(about.get('target_modules'))!s:.100} names no layer of this model; "
                "the adapter was made for another one"
            )
        made["target_modules"] = chosen
        if self._kind == "IA3":
            made["feedforward_modules"] = [name for name in chosen if name in forward()]
        elif self._kind != "IA3":
            for name, keys in by_key.items():
                numbers = self._numbers(name)
                found: dict[str, Any] = {}
                for key, matched in keys.items():  # the first key that matches is used
                    for module in chosen:
                        if module in matched():
                            found.setdefault(re.escape(module), numbers[key])
                if found:
                    made[name] = found
        if saved := self._names("modules_to_save"):
            made["modules_to_save"] = saved
        return made

    def _wrong(self, name: str, right: str) -> ConfigError:
        return ConfigError(f"{self._file}: {name} is {self._about.get(name)!r:.60}; it must be {right}")

    def _task(self) -> Any:
        return self._one_of("task_type", (None, *_TASKS), None)

    def _one_of(self, name: str, values: Sequence[Any], default: Any) -> Any:
        value = self._about.get(name, default)
        if value not in values:
            raise self._wrong(name, " or ".join(str(item) for item in values if item is not None))
        return value

    def _plain(self, name: str, value: Any) -> Any:
        if name in _COUNT:
            low = -1 if name == "decompose_factor" else 1
            if type(value) is not int or not low <= value <= 1 << 16 or value == 0:
                raise self._wrong(name, "a positive integer of at most 65,536")
        elif name in _NUMBER:
            if not _number(value) or ("dropout" in name and not 0 <= value < 1):
                raise self._wrong(name, "a number" + (" from 0 to 1" if "dropout" in name else ""))
        elif name in _SWITCH and not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def _check_initial(self) -> None:
        for name in ("init_lora_weights", "init_ia3_weights", "init_weights"):
            value = self._about.get(name, True)
            if not isinstance(value, bool) and value not in _INITIAL:
                raise UnsupportedError(
                    f"{self._file}: {name} is {value!r:.60}, which changes the base model's weights too; convert the "
                    "adapter to plain LoRA (PEFT: save_pretrained with path_initial_model_for_weight_conversion)"
                )

    def _numbers(self, name: str) -> dict[str, Any]:
        value = self._about.get(name) or {}
        whole = name == "rank_pattern"
        if not isinstance(value, dict) or len(value) > _MAX_NAMES:
            raise self._wrong(name, "an object of numbers")
        for number in value.values():
            if not _number(number) or (whole and (type(number) is not int or not 1 <= number <= 1 << 16)):
                raise self._wrong(name, "an object of numbers")
        return value

    def _names(self, name: str) -> list[str]:
        """The value of a setting that must be a list of module names."""
        value = self._about.get(name) or []
        if not isinstance(value, list) or len(value) > _MAX_NAMES or not all(_plain_name(item) for item in value):
            raise self._wrong(name, "a list of names of modules")
        return value

    def _targets(self, modules: Mapping[str, bool], patterns: _Patterns) -> Callable[[], set[str]]:
        given = self._about.get("target_modules")
        if given is None:
            raise self._wrong("target_modules", "a list of names of layers")
        if isinstance(given, str) and given.lower() == "all-linear":
            linear = {name for name, is_linear in modules.items() if is_linear}
            return lambda: {name for name in linear if name.rpartition(".")[2] not in ("output_layer", "lm_head")}
        return patterns.ask("target_modules", given)

    def _layers(self) -> Callable[[str], bool]:
        """A function that tells whether a module is in one of the layers of `layers_to_transform`."""
        given = self._about.get("layers_to_transform")
        if given is None:
            return lambda name: True
        numbers = given if isinstance(given, list) else [given]
        if len(numbers) > _MAX_NAMES or not all(type(item) is int and item >= 0 for item in numbers):
            raise self._wrong("layers_to_transform", "a number of a layer, or a list of them")
        pattern = self._about.get("layers_pattern") or []
        parts = [pattern] if isinstance(pattern, str) else pattern
        if not isinstance(parts, list) or len(parts) > 100 or not all(_plain_name(item) for item in parts):
            raise self._wrong("layers_pattern", "a name, or a list of names")
        wanted = set(numbers)
        found = [re.compile(rf"(?:^|.*?\.){re.escape(part)}\.(\d+)\.") for part in parts]
        found = found or [re.compile(r".*?\.[^.]*\.(\d+)\.")]

        def inside(name: str) -> bool:
            numbers = [match[1] for pattern in found if (match := pattern.match(name))]
            return bool(numbers) and int(numbers[0]) in wanted

        return inside


class _Patterns:
    """Matches all names and expressions of an adapter's settings against the model's modules at once."""

    def __init__(self, file: Path, names: list[str]) -> None:
        self._file, self._names = file, names
        self._asked: list[str] = []
        self._found: list[set[str]] = []

    def ask(self, setting: str, given: Any) -> Callable[[], set[str]]:
        """The modules that a list of names or an expression means. Call the result after `match`."""
        if given is None or given == []:
            return set
        if isinstance(given, str):
            return self._expression(setting, given)
        if not isinstance(given, list) or len(given) > _MAX_NAMES or not all(isinstance(item, str) for item in given):
            raise ConfigError(f"{self._file}: {setting} is {given!r:.60}; it must be names of modules or an expression")
        ends = set(given)
        return lambda: {name for name in self._names if not ends.isdisjoint(_ends(name))}

    def ask_end(self, setting: str, key: str) -> Callable[[], set[str]]:
        """The modules whose name, or the end of it, matches a key of `rank_pattern` or `alpha_pattern`."""
        if _plain_name(key):
            return lambda: {name for name in self._names if key in _ends(name)}
        return self._expression(setting, rf"(.*\.)?({key})$")

    def _expression(self, setting: str, text: str) -> Callable[[], set[str]]:
        if len(text) > _MAX_PATTERN or len(self._asked) >= _MAX_NAMES:
            raise ConfigError(f"{self._file}: {setting} is an expression of more than {_MAX_PATTERN:,} characters")
        self._asked.append(text)
        place = len(self._asked) - 1
        return lambda: self._found[place]

    def match(self) -> None:
        """Match in a separate process, because an expression may take for ever, and would hold Python's lock.

        Raises:
            ConfigError: an expression is not valid, or takes too long.
        """
        if not self._asked:
            return
        data = json.dumps([self._asked, self._names]).encode()
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", "-c", _MATCH],
                input=data,
                capture_output=True,
                timeout=_SECONDS,
                check=False,
            )
            answer = json.loads(done.stdout) if done.returncode == 0 else None
        except subprocess.TimeoutExpired:
            raise ConfigError(
                f"{self._file}: an expression ({self._asked[0]:.60} …) takes more than {_SECONDS} seconds to match; "
                "name the modules instead"
            ) from None
        except ValueError:
            answer = None
        if answer is None:
            raise ConfigError(f"{self._file}: not a valid expression: {self._asked[0]:.100}; name the modules instead")
        self._found = [set(names) for names in answer]


_MATCH = """
import json, re, sys
patterns, names = json.load(sys.stdin.buffer)
json.dump([[n for n in names if p.fullmatch(n)] for p in map(re.compile, patterns)], sys.stdout)
"""


def _weights_of(folder: Path) -> Path:
    for name in ("adapter_model.safetensors", "adapter_model.bin"):
        file = folder / name
        if file.is_symlink() or file.exists():
            size_of(file)
            return file
    raise CheckpointError(f"{folder}: no adapter_model.safetensors or adapter_model.bin; copy the whole adapter")


def _modules(model: Any) -> dict[str, bool]:
    from torch import nn

    found: dict[str, bool] = {}
    for name, module in model.named_modules():
        layer = getattr(module, "base_layer", module)  # if the layer has an adapter already
        if name and ".base_layer" not in name and ".lora_" not in name:
            found[name] = isinstance(layer, nn.Linear)
    return found


def _check_rank(file: Path, about: dict[str, Any], tensors: Mapping[str, About]) -> None:
    """For LoRA, check that settings and tensors have the same rank. The error is clearer than one about shapes."""
    ranks = {shape[0] for name, (shape, _) in tensors.items() if name.endswith(".lora_A.weight") and shape}
    if about.get("peft_type") == "LORA" and not about.get("rank_pattern") and len(ranks) == 1:
        (found,) = ranks
        if found != about.get("r", 8):
            raise CheckpointError(
                f"{file}: r is {about.get('r', 8)!r:.60}, and the adapter's tensors have rank {found}"
            )


def _ends(name: str) -> Iterable[str]:
    """A module's name and all ends of it: `a.b.c`, `b.c`, `c`."""
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def _short(name: str) -> str:
    return name.removeprefix("base_model.model.")


def _plain_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) < 300 and re.fullmatch(r"[A-Za-z0-9_.]+", value) is not None


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e6 <= value <= 1e6


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) if shape else "a single number"
