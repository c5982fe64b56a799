"""Registers this family with the Auto classes of `transformers`, without importing `transformers` before the user does.

`AutoConfig` must know the configuration before a folder is opened; the models are needed once a configuration of the
family exists. So an import hook registers the configuration when `transformers.models.auto` is imported, and the first
configuration that is made registers the models (`when_made`). Explicitly registered local code has
priority over `trust_remote_code=True` (transformers, `auto_factory.py`): the Python files in an official folder's
`auto_map` are never used. If other files of a folder name code, `transformers` is prevented from running it.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["after_import", "install", "register_models", "without_models"]

MODEL_TYPE = "chatglm"


def install() -> None:
    """Register with `transformers` now if its Auto classes are imported, otherwise as soon as they are."""
    after_import("chatglm.models.configuration", _register_with_first_configuration)
    after_import("transformers.models.auto.configuration_auto", _register_config)
    after_import("transformers.models.auto.tokenization_auto", _register_tokenizers)
    after_import("transformers.models.auto.processing_auto", _register_processor)
    after_import("transformers.dynamic_module_utils", _refuse_code)


def after_import(name: str, callback: Callable[[], None]) -> None:
    """Call a function after the import of a module: now if it is imported already, otherwise as soon as it is."""
    # A module that is still being imported is in sys.modules, too; its hook runs when the import has finished.
    spec = getattr(sys.modules.get(name), "__spec__", None)
    if spec is not None and not getattr(spec, "_initializing", False):
        callback()
    elif not any(isinstance(finder, _AfterImport) and finder.name == name for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport(name, callback))


_wanted: ContextVar[bool] = ContextVar("wanted", default=True)


@contextmanager
def without_models() -> Iterator[None]:
    """Inside this context, configurations do not register the models: their import takes longer than loading one."""
    before = _wanted.set(False)
    try:
        yield
    finally:
        _wanted.reset(before)


def register_models() -> None:
    """Register the models, unless inside `without_models`."""
    if _wanted.get():
        _register_models()


@functools.cache
def _register_models() -> None:
    from transformers import (
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoModelForSequenceClassification,
    )

    from chatglm.models.chatglm import ChatGLMForConditionalGeneration, ChatGLMForSequenceClassification
    from chatglm.models.configuration import ChatGLMConfig, GLMConfig
    from chatglm.models.glm import GLMForConditionalGeneration

    for auto in (AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM):
        auto.register(ChatGLMConfig, ChatGLMForConditionalGeneration, exist_ok=True)
        auto.register(GLMConfig, GLMForConditionalGeneration, exist_ok=True)
    AutoModelForSequenceClassification.register(ChatGLMConfig, ChatGLMForSequenceClassification, exist_ok=True)


def _register_with_first_configuration() -> None:
    from chatglm.models.configuration import ChatGLMConfig

    ChatGLMConfig.when_made.append(register_models)


@functools.cache
def _register_config() -> None:
    from transformers import AutoConfig

    from chatglm.models.configuration import ChatGLMConfig

    AutoConfig.register(MODEL_TYPE, ChatGLMConfig, exist_ok=True)


@functools.cache
def _register_tokenizers() -> None:
    from transformers import AutoTokenizer, PreTrainedConfig

    from chatglm.chat.tokenizers import ChatGLM4Tokenizer, ChatGLMTokenizer

    # Tokenizers are found by the class name in tokenizer_config.json. If they were registered for the models'
    # configuration, transformers would prefer the folder's auto_map. So each is registered for a configuration that no
    # folder has.
    for tokenizer in (ChatGLMTokenizer, ChatGLM4Tokenizer):
        placeholder = type(f"{tokenizer.__name__}Config", (PreTrainedConfig,), {"model_type": tokenizer.__name__})
        AutoTokenizer.register(placeholder, tokenizer_class=tokenizer, exist_ok=True)


@functools.cache
def _register_processor() -> None:
    from transformers import AutoProcessor

    from chatglm.chat.tokenizers import ChatGLMTokenizer
    from chatglm.models.configuration import ChatGLMConfig, GLMConfig

    # These models read only text, so their tokenizer is their processor.
    for config in (ChatGLMConfig, GLMConfig):
        AutoProcessor.register(config, ChatGLMTokenizer, exist_ok=True)


@functools.cache
def _refuse_code() -> None:
    """Keep `transformers` from running code of a folder of this family, with or without `trust_remote_code`.

    All Auto classes and `pipeline` use one function to get a class from a folder's Python files. Several files of a
    folder can cause its use (tokenizer_config.json, preprocessor_config.json, processor_config.json), even if classes
    are registered. Here this function is replaced. For folders of other families, nothing changes.
    """
    from transformers import dynamic_module_utils

    original = dynamic_module_utils.get_class_from_dynamic_module

    @functools.wraps(original)
    def guarded(class_reference: str, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        from chatglm.errors import UnsupportedError

        if _of_this_family(pretrained_model_name_or_path, kwargs):
            raise UnsupportedError(
                f"{pretrained_model_name_or_path}: its files name the class {class_reference!s:.100}, whose code would "
                "be run; chatglm runs no code of a ChatGLM folder, use chatglm.AutoModel and chatglm.AutoTokenizer"
            )
        return original(class_reference, pretrained_model_name_or_path, *args, **kwargs)

    for module in list(sys.modules.values()):
        if getattr(module, "__dict__", {}).get("get_class_from_dynamic_module") is original:
            vars(module)["get_class_from_dynamic_module"] = guarded


def _of_this_family(name: Any, asked: dict[str, Any]) -> bool:
    """Whether a folder or a repository of the hub has a config.json of this family."""
    from transformers.utils import cached_file

    from chatglm.chat.files import read_json
    from chatglm.errors import CheckpointError

    options = {key: asked[key] for key in ("cache_dir", "revision", "token", "subfolder") if key in asked}
    missing = {
        f"_raise_exceptions_for_{what}": False for what in ("missing_entries", "gated_repo", "connection_errors")
    }
    try:
        file = cached_file(name, "config.json", **options, **missing)
        return file is not None and read_json(Path(file)).get("model_type") == MODEL_TYPE
    except (CheckpointError, OSError, ValueError):
        return False


class _AfterImport(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module as usual, then calls a function."""

    def __init__(self, name: str, callback: Callable[[], None]) -> None:
        self.name, self.callback = name, callback
        self.loader: importlib.abc.Loader | None = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return None
        self.loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec) if self.loader else None

    def exec_module(self, module: ModuleType) -> None:
        if self.loader is not None:
            self.loader.exec_module(module)
            if module.__spec__ is not None:
                module.__spec__.loader = module.__loader__ = self.loader
        self.callback()
