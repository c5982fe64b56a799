"""`pretrain`: trains on plain texts by GLM's blank infilling, from a checkpoint or from random weights.

The folder of a run and the training loop are those of `finetune`.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainingArguments

from chatglm import hub
from chatglm.chat.formats import chat_format
from chatglm.chat.generations import read_json
from chatglm.chat.tokenizers import ChatGLMTokenizer
from chatglm.errors import CheckpointError, InputError
from chatglm.loading import AutoConfig, AutoModelForCausalLM, Loaded
from chatglm.models.checkpoint import check_folder
from chatglm.training.examples import counted
from chatglm.training.finetune import DATA, Result, Say, opened, refuse, train
from chatglm.training.infill import Infiller
from chatglm.training.methods import fitting_tokenizer, prepare
from chatglm.training.settings import Settings
from chatglm.training.texts import Documents, InfillRows
from chatglm.training.trainer import precision

__all__ = ["pretrain"]


def pretrain(
    settings: Settings,
    *,
    resume: bool | str | Path = False,
    overwrite: bool = False,
    say: Say | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Result:
    """Train `settings.model`, or a fresh model of `settings.config`, to fill blanks in `data_config.train_file`.

    Arguments, result and errors are those of `finetune`. Also:

    Raises:
        CheckpointError: the configuration or the tokenizer of a fresh model is missing, or they do not fit together.
    """
    if settings.data_config.train_file is None:
        raise InputError("data_config.train_file: no texts are given")
    refuse(settings, ("loss", "one_pass", "packing", "skip_bad_rows", "predict_with_generate"), "pre-training")
    with opened(settings, resume, overwrite, say) as (args, start, say):
        return _pretrain(settings, args, start, overwrite and not resume, say, callbacks)


def _pretrain(
    settings: Settings,
    args: TrainingArguments,
    start: Path | None,
    overwrite: bool,
    say: Say,
    callbacks: Sequence[TrainerCallback],
) -> Result:
    base, tokenizer = _base(settings)

    def documents(part: str) -> Documents:
        file = settings.data_config.path(part)
        assert file is not None
        with args.main_process_first(desc="reading texts"):
            texts = settings.texts
            return Documents.prepare(file, tokenizer, settings.output / DATA, split=texts.split, field=texts.field)  # type: ignore[arg-type]

    learned, held_out = documents("train"), None
    if settings.data_config.val_file is not None:
        held_out = documents("val")
    elif settings.texts.hold_out:
        learned, held_out = learned.hold_out(settings.texts.hold_out, args.seed)
    infiller = Infiller.of(tokenizer, settings.infill)

    def rows(of: Documents) -> InfillRows:
        return InfillRows(of, infiller, settings.max_length, args.seed)

    taught = rows(learned)
    read = f"{counted(len(learned), 'document')}, {counted(learned.tokens, 'token')}"
    say(f"{read}, {counted(len(taught), 'row')} of up to {settings.max_length}")
    return train(
        settings,
        args,
        lambda: (
            _fresh(settings, tokenizer) if settings.config else prepare(settings, low_precision=precision(settings))
        ),
        taught,
        base=base,
        data=f"{len(learned)} documents, {learned.tokens} tokens, {zlib.crc32(learned.lengths.tobytes()):08x}",
        held_out=None if held_out is None else rows(held_out),
        start=start,
        overwrite=overwrite,
        say=say,
        callbacks=callbacks,
    )


def _base(settings: Settings) -> tuple[Path, ChatGLMTokenizer]:
    """The folder that holds config.json, and the tokenizer.

    Raises:
        CheckpointError: one of them is missing, or they do not fit together (TokenizerError).
        InputError: `method` is not `full` for a new model.
    """
    if settings.config is None:
        base = settings.base
        check_folder(base)
        return base, fitting_tokenizer(base, base)
    if settings.method != "full":
        raise InputError(f"method is {settings.method}: all weights of a new model are trained; use full")
    file = Path(os.path.expanduser(settings.config))
    base = file if file.is_dir() else file.parent
    if not (base / "config.json").is_file() or (file.is_file() and file.name != "config.json"):
        raise CheckpointError(f"{file}: no config.json; give the file, or its folder")
    if (kind := read_json(base / "config.json").get("model_type")) != "chatglm":
        raise CheckpointError(f"{base / 'config.json'}: model_type is {kind!r}, not 'chatglm'")
    return base, fitting_tokenizer(
        base if settings.tokenizer is None else hub.folder(settings.tokenizer, "tokenizer"), base
    )


def _fresh(settings: Settings, tokenizer: ChatGLMTokenizer) -> Loaded:
    """A model of the configuration with random weights, in float32."""
    assert settings.config is not None
    config: Any = AutoConfig.from_pretrained(settings.config)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return Loaded(model, tokenizer, chat_format(tokenizer))
