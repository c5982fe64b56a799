"""Hooks of `transformers`: the Auto classes load a quantised folder, or quantise any other folder while it loads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.core_model_loading import ConversionOps
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer

from chatglm.errors import CheckpointError, InputError, UnsupportedError
from chatglm.models.weights import tensors_of
from chatglm.quantization.gptq_format import GPTQTensors
from chatglm.quantization.linear import QuantizedEmbedding, QuantizedLinear
from chatglm.quantization.schemes import Scheme, quantize
from chatglm.quantization.settings import METHOD, QuantizationConfig
from chatglm.quantization.swap import Chosen, dequantize_module, pack, quantize_module, swap

__all__ = ["Quantizer"]

register_quantization_config(METHOD)(QuantizationConfig)


@register_quantizer(METHOD)
class Quantizer(HfQuantizer):  # type: ignore[misc]
    """Puts quantised layers into a model before its weights are loaded, then packs the loaded weights."""

    quantization_config: QuantizationConfig
    chosen: Chosen
    damaged: dict[str, InputError]
    """Weights of the checkpoint that cannot be quantised, by their names in the model, and why."""

    def quantize_(self, model: nn.Module, device: Any = None) -> nn.Module:
        """Quantise a model that is already loaded (`model.quantize(4)`), in place; returns the model.

        Raises:
            InputError: see `quantize_module`.
        """
        config = self.quantization_config
        return quantize_module(
            model,
            config.bits,
            config.group_size,
            head=config.head,
            embedding=config.embedding,
            skip=config.modules_to_not_convert or (),
            device=device,
        )

    def validate_environment(self, *args: Any, device_map: Any = None, **kwargs: Any) -> None:
        if self.quantization_config.scheme == "gptq":
            if not self.pre_quantized:
                raise UnsupportedError(
                    "GPTQ needs calibration data: use `chatglm quantize MODEL --method gptq --calibration DATA`"
                )
            if isinstance(device_map, dict) and "disk" in device_map.values():
                raise UnsupportedError("a GPTQ folder cannot be left on disk: its weights are repacked when loaded")

    def _process_model_before_weight_loading(
        self, model: Any, checkpoint_files: list[str] | None = None, **kwargs: Any
    ) -> None:
        config = self.quantization_config
        self.damaged, self._files = {}, checkpoint_files or []
        try:
            self.chosen = config.choose(model)
        except InputError as error:
            if not self.pre_quantized:
                raise
            raise CheckpointError(f"config.json: quantization_config: {error}") from None
        if config.scheme == "gptq":
            for name in self.chosen.linears:
                model.set_submodule(name, GPTQTensors(model.get_submodule(name), name, config.group_size))
            # A file may lack g_idx. Then input k is in group k // group_size.
            held = {name for file in self._files for name in tensors_of(file)}
            for name in self.chosen.linears:
                if f"{name}.g_idx" not in held:
                    model.get_submodule(name).g_idx = None
        else:
            swap(model, self.chosen, config.made())
        if self.pre_quantized and checkpoint_files:
            _check_tensors(model, self.chosen, checkpoint_files)

    def param_needs_quantization(self, model: Any, param_name: str, **kwargs: Any) -> bool:
        if self.pre_quantized:
            return False
        module, _, kind = param_name.rpartition(".")
        return kind in ("weight", "weight_scale") and isinstance(
            model.get_submodule(module), (QuantizedLinear, QuantizedEmbedding)
        )

    def get_quantize_ops(self) -> ConversionOps:
        return _Quantize(self.quantization_config.made(), self.chosen, self.damaged)

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> None:
        config = self.quantization_config
        for name, error in self.damaged.items():
            file = next((f"{file}: " for file in self._files if name in tensors_of(file)), "")
            raise CheckpointError(f"{file}{name}: {error}") from None
        with torch.no_grad():
            for name in self.chosen.linears:
                if isinstance(layer := model.get_submodule(name), GPTQTensors):
                    model.set_submodule(name, layer.to_quantized(config.checkpoint_format or "gptq"))
            pack(model, self.chosen)
        if config.scheme == "gptq":
            config.scheme = "groups"  # the layout in memory now, and the one that is saved
        self.attach(model)

    def attach(self, model: Any) -> None:
        """Mark a `PreTrainedModel` as quantised, so that `save_pretrained` writes a folder that loads again."""
        config = self.quantization_config
        model.hf_quantizer = self
        model.quantization_method = METHOD
        # transformers forbids .half() and .float() if `is_quantized` is set. Our models allow both.
        model.is_quantized = False
        for module in model.modules():
            own: Any = getattr(module, "config", None)
            if hasattr(own, "save_pretrained"):
                own.quantization_config = config
                if hasattr(own, "quantization_bit"):
                    own.quantization_bit = config.bits if config.scheme == "official" else 0
                    if config.scheme == "official" and config.embedding:
                        own.quantization_embeddings = True
                    elif hasattr(own, "quantization_embeddings"):
                        del own.quantization_embeddings

    def _dequantize(self, model: Any, dtype: Any = None) -> Any:
        return dequantize_module(model, dtype)

    def remove_quantization_config(self, model: Any) -> None:
        super().remove_quantization_config(model)
        if hasattr(model.config, "quantization_bit"):
            model.config.quantization_bit = 0

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return True

    @property
    def is_qat_trainable(self) -> bool:
        return True  # other parameters than the integers are trained: a P-tuning prefix or an adapter


class _Quantize(ConversionOps):  # type: ignore[misc]
    """Quantises one weight of a checkpoint while it is loaded into the model.

    A weight that cannot be quantised is remembered in `damaged`: `transformers` prints an error that is raised here,
    and raises another one, which does not say what is wrong.
    """

    def __init__(self, scheme: Scheme, chosen: Chosen, damaged: dict[str, InputError]) -> None:
        self.scheme, self.chosen, self.damaged = scheme, chosen, damaged

    def convert(
        self, input_dict: dict[str, Any], full_layer_name: str, missing_keys: set[str] | None = None, **kwargs: Any
    ) -> dict[str, Tensor]:
        ((_, value),) = input_dict.items()
        weight = value[0] if isinstance(value, list) else value
        try:
            packed = quantize(weight, self.scheme)
        except InputError as error:
            self.damaged[full_layer_name] = error
            packed = quantize(torch.zeros_like(weight), self.scheme)
        if missing_keys is not None:
            module = full_layer_name.removesuffix(".weight")
            tied = self.chosen.tied or ()
            # If two names share one weight, a file may hold only one of them. `share` then gives the other its scales.
            missing_keys -= {f"{name}.weight_scale" for name in (module, *(tied if module in tied else ()))}
        return {full_layer_name: packed.data, f"{full_layer_name}_scale": packed.scales}


def _check_tensors(model: Any, chosen: Chosen, files: list[str]) -> None:
    """Raise `CheckpointError` unless the quantised tensors in the files are exactly those that our model needs."""
    from chatglm.models.pretrained import FamilyModel

    if not isinstance(model, FamilyModel):
        return  # transformers renames the tensors that it loads
    found = {name: (file, about) for file in files for name, about in tensors_of(file).items()}
    tied = set(chosen.tied or ())
    for module in (*chosen.linears, *chosen.embeddings):
        for kind, wanted in model.get_submodule(module).state_dict().items():
            name = f"{module}.{kind}"
            if kind == "bias":
                continue
            file, (_, plain) = found.get(f"{module}.weight", (files[0], ((), None)))
            if plain is not None and plain.is_floating_point:
                raise CheckpointError(
                    f"{file}: {module}.weight is not quantised ({plain}), though config.json says so; remove "
                    "quantization_bit or quantization_config from it, or use the folder that it belongs to"
                )
            if name not in found:
                if module in tied and any(f"{other}.{kind}" in found for other in tied):
                    continue
                raise CheckpointError(
                    f"{file}: {name} is missing; the folder is incomplete, or was made for another model"
                )
            file, (shape, dtype) = found[name]
            alike = dtype == wanted.dtype or (dtype.is_floating_point and wanted.is_floating_point())
            if shape != tuple(wanted.shape) or not alike:
                raise CheckpointError(
                    f"{file}: {name} is {shape} of {dtype}, but {tuple(wanted.shape)} of {wanted.dtype} in the model "
                    "that config.json describes; the folder was made for another model or scheme"
                )
