"""The quantisation settings in config.json.

A folder that we wrote has `"quantization_config": {"quant_method": "chatglm", "version": 1, "scheme": "groups", "bits":
4, "group_size": 128, "head": false, "embedding": false, "modules_to_not_convert": null}`. A folder in the official
layout has `quantization_bit` instead (ChatGLM-6B also `quantization_embeddings`); we read and write these fields
unchanged. A folder of AutoGPTQ or GPTQModel has a `quantization_config` of its own. The models' configuration converts
the latter two into our form, with the schemes `official` and `gptq`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from transformers.utils.quantization_config import QuantizationConfigMixin

from chatglm.errors import CheckpointError, ConfigError, InputError
from chatglm.quantization.gptq_format import check_gptq
from chatglm.quantization.schemes import Scheme
from chatglm.quantization.swap import Chosen, choose

__all__ = ["METHOD", "VERSION", "QuantizationConfig"]

METHOD = "chatglm"
"""Our name in `quantization_config`, field `quant_method`."""

VERSION = 1
"""Version of the packed layout (`kernels/packing.py`). Folders of another version are refused."""

_SCHEMES = ("groups", "official", "gptq")


# Fields of a folder's quantization_config that we read: names, type, and what the error says is expected.
_TYPES: tuple[tuple[tuple[str, ...], type, str], ...] = (
    (("bits", "group_size", "version"), int, "an integer"),
    (("head", "embedding", "lm_head", "desc_act", "sym", "static_groups", "true_sequential"), bool, "true or false"),
    (("scheme", "quant_method", "checkpoint_format"), str, "a string"),
    (("modules_to_not_convert",), list, "a list of names"),
    (("dynamic",), dict, "an object"),
)
_MAX_SKIPPED = 1_000


class QuantizationConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """The quantisation settings of a folder's config.json; also the argument of `from_pretrained(…,
    quantization_config=…)`.

    Args:
        bits, group_size: see `Scheme`; group size 0 is the official scheme.
        scheme: layout of the folder's tensors: `groups` (packed), `official`, or `gptq` (read only). Default:
            `official` for group size 0, else `groups`.
        head, embedding: whether the output head and the input embedding are quantised too.
        modules_to_not_convert: full names or last parts of names of modules that are not quantised.
        version: of the packed layout.
        others: further fields of a GPTQ folder; refused for other schemes.

    Raises:
        CheckpointError: the folder has another version, or a scheme that this release does not know.
        InputError: unsupported bits or group size, or an unknown field.
        UnsupportedError: a GPTQ folder of a kind that we do not read (`check_gptq`).
    """

    def __init__(
        self,
        bits: int = 4,
        group_size: int | None = None,
        *,
        scheme: str | None = None,
        head: bool = False,
        embedding: bool = False,
        modules_to_not_convert: Iterable[str] | None = None,
        version: int = VERSION,
        quant_method: str = METHOD,
        **others: Any,
    ) -> None:
        if quant_method != METHOD:
            raise InputError(f"quant_method is {quant_method!r}; this is the configuration of {METHOD!r}")
        if version != VERSION:
            raise CheckpointError(
                f"config.json: the weights are packed in layout version {version!r}, and this chatglm reads version "
                f"{VERSION}; quantise the original weights again with this release, or use the one that wrote them"
            )
        if scheme is None:
            scheme = "official" if group_size == 0 else "groups"
        if scheme not in _SCHEMES:
            raise CheckpointError(
                f"config.json: the weights are quantised in scheme {scheme!r}, which this chatglm does not know "
                f"({', '.join(_SCHEMES)}); use the release that wrote them"
            )
        if scheme == "gptq":
            check_gptq(bits, group_size, others)
            head = bool(others.get("lm_head", head))
        elif others:
            raise InputError(f"quantization_config: unknown field {sorted(others)[0]!r}")
        if group_size is None:
            group_size = 0 if scheme == "official" else 128
        if (scheme == "official") != (group_size == 0):
            raise InputError(
                f"scheme {scheme!r} cannot be used with group_size {group_size}; the official scheme needs 0"
            )
        Scheme(bits, group_size)  # checks both
        self.quant_method = METHOD
        self.version = version
        self.scheme = scheme
        self.bits = bits
        self.group_size = group_size
        self.head = bool(head)
        self.embedding = bool(embedding)
        self.modules_to_not_convert = list(modules_to_not_convert) if modules_to_not_convert is not None else None
        self.checkpoint_format = str(others.get("checkpoint_format") or "gptq") if scheme == "gptq" else None

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """Make the settings from a folder's config.json, or from the arguments of `model.quantize`, which have no
        `version`.

        Raises:
            ConfigError: a field of a folder has a wrong type or value.
            InputError: an argument has a wrong type or value.
            CheckpointError, UnsupportedError: see the class.
        """
        saved = "version" in config_dict
        try:
            for names, kind, right in _TYPES:
                for name in names:
                    value = config_dict.get(name)
                    if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
                        raise InputError(f"{name} is {value!r:.60}; it must be {right}")
            skipped = config_dict.get("modules_to_not_convert") or []
            if len(skipped) > _MAX_SKIPPED or not all(isinstance(name, str) for name in skipped):
                raise InputError(f"modules_to_not_convert must be at most {_MAX_SKIPPED:,} names of modules")
            return super().from_dict(dict(config_dict), return_unused_kwargs=return_unused_kwargs, **kwargs)
        except InputError as error:
            if not saved:
                raise
            raise ConfigError(f"config.json: quantization_config: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """The fields for `quantization_config` in config.json."""
        fields = {name: value for name, value in vars(self).items() if name != "checkpoint_format"}
        if self.scheme == "gptq":  # not after loading, which converts the weights to `groups`
            fields["checkpoint_format"] = self.checkpoint_format
        return fields

    def made(self) -> Scheme:
        """The scheme: bits and group size."""
        return Scheme(self.bits, self.group_size)

    def choose(self, model: nn.Module) -> Chosen:
        """The layers of a model that are quantised under these settings.

        Raises:
            InputError: a module to skip does not exist, or no layer is left to quantise.
        """
        return choose(model, head=self.head, embedding=self.embedding, skip=self.modules_to_not_convert or ())
