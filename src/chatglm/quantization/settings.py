"""What config.json says of a quantised folder.

config.json says `"quantization_config": {"quant_method": "chatglm", "version": 1, "scheme": "groups", "bits": 4,
"group_size": 128, "head": false, "embedding": false, "modules_to_not_convert": null}`. Folders in the official layout
have the official `quantization_bit` (and ChatGLM-6B's `quantization_embeddings`) instead, read and written as such, and
so have folders of AutoGPTQ and GPTQModel their own `quantization_config`; the models' configuration hands both on in
this form, as schemes `official` and `gptq`.
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
"""What this quantiser is called in `quantization_config`."""

VERSION = 1
"""Of the packed layout (`kernels/packing.py`); a folder of another one is refused."""

_SCHEMES = ("groups", "official", "gptq")


# Fields of a folder's quantization_config that are read, and what they are.
_TYPES: tuple[tuple[tuple[str, ...], type, str], ...] = (
    (("bits", "group_size", "version"), int, "an integer"),
    (("head", "embedding", "lm_head", "desc_act", "sym", "static_groups", "true_sequential"), bool, "true or false"),
    (("scheme", "quant_method", "checkpoint_format"), str, "a string"),
    (("modules_to_not_convert",), list, "a list of names"),
    (("dynamic",), dict, "an object"),
)
_MAX_SKIPPED = 1_000


class QuantizationConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """What config.json says of a quantised folder, and what `from_pretrained(…, quantization_config=…)` takes.

    Args:
        bits, group_size: see `Scheme`; group size 0 is the official scheme.
        scheme: how the folder's tensors lie: `groups` packed, `official`, `gptq` (only read). Default: by group size.
        head, embedding: whether the output head and the input embedding are quantised too.
        modules_to_not_convert: names of modules, or their ends, that are left as they are.
        version: of the packed layout.
        others: a GPTQ folder's own fields; otherwise refused.

    Raises:
        CheckpointError: a folder of another version, or of a scheme that this release does not know.
        InputError: bits or group sizes that there are not; a field of no meaning.
        UnsupportedError: a GPTQ folder of a kind that is not read (`check_gptq`).
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
        Scheme(bits, group_size)  # judges both
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
        """From a folder's config.json, or from the arguments of `model.quantize`, which have no `version`.

        Raises:
            ConfigError: a field of a folder has a wrong type or value.
            InputError: an argument has.
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
        fields = {name: value for name, value in vars(self).items() if name != "checkpoint_format"}
        if self.scheme == "gptq":  # only between reading config.json and reading the weights
            fields["checkpoint_format"] = self.checkpoint_format
        return fields

    def made(self) -> Scheme:
        return Scheme(self.bits, self.group_size)

    def choose(self, model: nn.Module) -> Chosen:
        """The layers of a model that this says are quantised."""
        return choose(model, head=self.head, embedding=self.embedding, skip=self.modules_to_not_convert or ())
