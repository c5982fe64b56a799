"""The parts of an encoder as torch modules: the transformer of `transformers`, and the parts of sentence-transformers
after it.

All weights come from checked files. A missing weight is an error; it is never replaced by random numbers.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chatglm.encoders.folder import EncoderFolder, Part, Shape
from chatglm.encoders.tokens import Row
from chatglm.errors import CheckpointError, UnsupportedError
from chatglm.models.checkpoint import weight_files
from chatglm.models.weights import headers, mapped

__all__ = ["Pooling", "behind", "classifier", "dtype_of", "pad", "transformer"]

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
"""Supported pooling methods."""

_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Fields of 1_Pooling/config.json that name the methods before sentence-transformers 6. If several are set, their
results are concatenated in this order.
"""

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "Identity": nn.Identity,
    "Tanh": nn.Tanh,
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
    "SiLU": nn.SiLU,
    "Sigmoid": nn.Sigmoid,
}


def transformer(folder: EncoderFolder, dtype: torch.dtype, device: str) -> Any:
    """Load the model that computes a vector for each token.

    Raises:
        CheckpointError: the weights are missing, damaged, or do not fit config.json.
    """
    import transformers

    kind = {"bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta"}[folder.shape.model_type]
    make = getattr(transformers, f"{kind}Model")
    return _model(folder, lambda config: make(config, add_pooling_layer=False), dtype, device)


def classifier(folder: EncoderFolder, dtype: torch.dtype, device: str) -> Any:
    """Load the model that computes a score for a pair of texts.

    Raises:
        CheckpointError: the weights are missing, damaged, or do not fit config.json.
    """
    import transformers

    kind = {"bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta"}[folder.shape.model_type]
    make = getattr(transformers, f"{kind}ForSequenceClassification")
    return _model(folder, make, dtype, device)


def _configuration(shape: Shape) -> Any:
    """The configuration for `transformers`. It has only known fields, so other fields of a foreign config.json have no
    effect.
    """
    import transformers

    kinds = {"bert": "BertConfig", "roberta": "RobertaConfig", "xlm-roberta": "XLMRobertaConfig"}
    fields = dataclasses.asdict(shape)
    make = getattr(transformers, kinds[fields.pop("model_type")])
    return make(**fields, num_labels=1, attn_implementation="sdpa", bos_token_id=None, eos_token_id=None)


def _model(folder: EncoderFolder, make: Callable[[Any], nn.Module], dtype: torch.dtype, device: str) -> Any:
    files = weight_files(folder.path)
    there = headers(files)
    if folder.shape.num_hidden_layers > len(there):
        raise CheckpointError(
            f"{folder.path}: config.json says {folder.shape.num_hidden_layers} layers, and the weights are "
            f"{len(there)} tensors; it describes another model"
        )
    with torch.device("meta"):
        model = make(_configuration(folder.shape))
    names = _names(model, {name: about[0] for name, (_, about) in there.items()}, folder.path)
    tensors = mapped(files)
    state = {own: tensors[name].to(dtype) for own, name in names.items()}
    model.load_state_dict(state, assign=True)
    for module in model.modules():
        for name, held in module.named_buffers(recurse=False):
            if held.is_meta:  # position ids and token types, which are not in the files
                places = torch.arange(held.shape[-1])
                setattr(module, name, (places if name == "position_ids" else places * 0).expand(held.shape))
    return model.eval().requires_grad_(False).to(device)


def _names(model: nn.Module, there: Mapping[str, tuple[int, ...]], folder: Path) -> dict[str, str]:
    """Map the names of the model's weights to their names in the files. There, the prefix of a model with a head
    (`bert.`, `roberta.`) may be present or missing, and LayerNorm may have TensorFlow's names (`gamma`, `beta`).

    Raises:
        CheckpointError: a weight is missing, or has another shape.
    """
    known: dict[str, str] = {}
    headless = re.compile(r"^(?:bert|roberta)\.")
    for name in there:
        plain = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))
        known.setdefault(headless.sub("", plain), name)
        known[plain] = name
    found: dict[str, str] = {}
    for own, held in model.state_dict().items():
        name = known.get(own) or known.get(headless.sub("", own), "")
        if not name:
            raise CheckpointError(
                f"{folder}: {own} is not in the weight files; they are incomplete, or of another kind of model"
            )
        if there[name] != tuple(held.shape):
            raise CheckpointError(
                f"{folder}: {name} has the shape {list(there[name])}, and config.json describes {list(held.shape)}"
            )
        found[own] = name
    return found


class Pooling(nn.Module):
    """Makes one vector for a text from the vectors of its tokens.

    Args:
        modes: names from `MODES`; the results of several are concatenated in this order.
        with_prompt: whether the tokens of a prompt are included.
    """

    def __init__(self, modes: tuple[str, ...], with_prompt: bool = True) -> None:
        super().__init__()
        self.modes, self.with_prompt = modes, with_prompt

    @classmethod
    def read(cls, part: Part, width: int) -> Pooling:
        """Make it from the settings in 1_Pooling/config.json.

        Args:
            width: length of a token's vector.

        Raises:
            UnsupportedError: a pooling method is not supported.
            CheckpointError: the settings have another width.
        """
        file, settings = part.folder / "config.json", part.settings
        given = settings.get("pooling_mode")
        if given is None:
            modes = tuple(mode for flag, mode in _FLAGS.items() if settings.get(flag) is True) or ("mean",)
        else:
            modes = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list) else ()
        if not modes or len(modes) > len(MODES) or any(mode not in MODES for mode in modes):
            raise UnsupportedError(f"{file}: pooling_mode {given!r:.80} is not supported; known are {', '.join(MODES)}")
        for name in ("word_embedding_dimension", "embedding_dimension"):
            if settings.get(name) not in (None, width):
                raise CheckpointError(f"{file}: {name} is {settings[name]!r:.40}; the model's vectors have {width}")
        return cls(modes, settings.get("include_prompt") is not False)

    def forward(self, hidden: Tensor, mask: Tensor, prompt: Tensor) -> Tensor:
        """Pool the vectors of each text.

        Args:
            hidden: (texts, tokens, width), padded on the right.
            mask: (texts, tokens), 1 for tokens and 0 for padding.
            prompt: (texts,), the number of tokens of the prompt at the beginning, see `Row.prompt`.

        Returns:
            (texts, width · number of modes), float32.
        """
        hidden = hidden.float()
        places = torch.arange(mask.shape[1], device=mask.device)
        if not self.with_prompt:
            mask = mask * (places >= prompt[:, None])
        weights = mask.to(hidden.dtype)[:, :, None]
        rows = torch.arange(len(mask), device=mask.device)
        found = []
        for mode in self.modes:
            if mode == "cls":
                found.append(hidden[rows, mask.argmax(1)])
            elif mode == "lasttoken":
                found.append(hidden[rows, (mask * (places + 1)).argmax(1)])
            elif mode == "max":
                found.append(hidden.masked_fill(weights == 0, -torch.inf).amax(1))
            elif mode == "weightedmean":
                counted = weights * (places + 1)[None, :, None]
                found.append((hidden * counted).sum(1) / counted.sum(1).clamp(min=1e-9))
            else:
                count = weights.sum(1).clamp(min=1e-9)
                found.append((hidden * weights).sum(1) / (count if mode == "mean" else count.sqrt()))
        return torch.cat(found, 1)


class _Normalize(nn.Module):
    def forward(self, vectors: Tensor) -> Tensor:
        return nn.functional.normalize(vectors, dim=-1)


def behind(parts: tuple[Part, ...], width: int, device: str) -> tuple[Pooling, nn.Sequential, int]:
    """Load what follows the transformer.

    Args:
        width: length of a token's vector.

    Returns:
        Pooling, the parts after it, and the length of the resulting vectors.

    Raises:
        UnsupportedError: a setting of a part is not supported.
        CheckpointError: a part's settings or weights are missing, damaged, or do not fit together.
    """
    if not parts:
        return Pooling(("mean",)), nn.Sequential(), width
    pooling = Pooling.read(parts[0], width)
    width *= len(pooling.modes)
    made: list[nn.Module] = []
    for part in parts[1:]:
        if part.kind == "Normalize":
            made.append(_Normalize())
        elif part.kind == "Dense":
            layer, width = _dense(part, width)
            made.append(layer)
        elif part.kind == "LayerNorm":
            made.append(_filled(part, nn.LayerNorm(width, device="meta"), "norm."))
    return pooling, nn.Sequential(*made).eval().requires_grad_(False).to(device), width


def _dense(part: Part, width: int) -> tuple[nn.Module, int]:
    file, settings = part.folder / "config.json", part.settings
    out, named = settings.get("out_features"), settings.get("activation_function", "torch.nn.modules.activation.Tanh")
    if settings.get("in_features") != width or type(out) is not int or not 1 <= out <= 1 << 16:
        raise CheckpointError(f"{file}: in_features must be {width}, and out_features from 1 to 65536")
    activation = str(named).rpartition(".")[2]
    if not str(named).startswith("torch.nn.modules.") or activation not in _ACTIVATIONS:
        raise UnsupportedError(
            f"{file}: activation_function {named!r:.80} is not supported; known are {', '.join(_ACTIVATIONS)}"
        )
    if settings.get("use_residual"):
        raise UnsupportedError(f"{file}: use_residual is not supported")
    for name in ("module_input_name", "module_output_name"):
        if settings.get(name) not in (None, "sentence_embedding"):
            raise UnsupportedError(f"{file}: {name} {settings[name]!r:.60} is not supported")
    layer = nn.Linear(width, out, bias=settings.get("bias") is not False, device="meta")
    return nn.Sequential(_filled(part, layer, "linear."), _ACTIVATIONS[activation]()), out


def _filled(part: Part, layer: nn.Module, prefix: str) -> nn.Module:
    files = weight_files(part.folder)
    headers(files)
    tensors = mapped(files)
    state = {}
    for name, held in layer.state_dict().items():
        tensor = tensors.get(prefix + name)
        if tensor is None or tensor.shape != held.shape:
            raise CheckpointError(f"{part.folder}: holds no {prefix}{name} of the shape {list(held.shape)}")
        state[name] = tensor.float()
    layer.load_state_dict(state, assign=True)
    return layer


def dtype_of(name: str, device: str) -> torch.dtype:
    """A data type by its name; "auto": float32 on a CPU, float16 on other devices."""
    if name == "auto":
        return torch.float32 if torch.device(device).type == "cpu" else torch.float16
    found: torch.dtype = getattr(torch, name)
    return found


def pad(rows: Sequence[Row], model: Any) -> tuple[dict[str, Tensor], Tensor]:
    """Pad rows to the longest one; returns the model's arguments, each (rows, tokens), and the lengths of the prompts,
    (rows,).
    """
    longest = max(len(row.ids) for row in rows)
    device, config = model.device, model.config
    ids = [[*row.ids, *[config.pad_token_id] * (longest - len(row.ids))] for row in rows]
    mask = [[1] * len(row.ids) + [0] * (longest - len(row.ids)) for row in rows]
    kinds = [[*row.kinds, *[0] * (longest - len(row.ids))] for row in rows]
    inputs = {
        "input_ids": torch.tensor(ids, device=device),
        "attention_mask": torch.tensor(mask, device=device),
        "token_type_ids": torch.tensor(kinds, device=device).clamp(max=config.type_vocab_size - 1),
    }
    if config.model_type == "bert":
        inputs["position_ids"] = torch.arange(longest, device=device).expand(len(rows), -1)
    else:  # they begin after the padding token's id, even if a text contains this id
        inputs["position_ids"] = inputs["attention_mask"].cumsum(1) * inputs["attention_mask"] + config.pad_token_id
    return inputs, torch.tensor([row.prompt for row in rows], device=device)
