"""`chatglm chat` on a terminal, by prompt_toolkit and rich (extra `chat`)."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from chatglm.errors import ChatGLMError

if TYPE_CHECKING:
    from chatglm.assistant import BaseAssistant
    from chatglm.conversation.settings import Settings

__all__ = ["run_terminal"]


def run_terminal(
    arguments: argparse.Namespace,
    settings: Callable[[Settings], Settings],
    check: Callable[[BaseAssistant], None],
) -> int:
    """Talk, or answer the one question of the command line; returns the exit status.

    Args:
        settings: applies the command line to the settings of a conversation.
        check: checks the model before it is used.

    Raises:
        ChatGLMError: it cannot begin, or the model cannot be loaded; says why in the person's language.
    """
    from chatglm.cli.terminal.models import Models
    from chatglm.cli.terminal.words import Words, language_of

    models = Models(arguments, check)
    try:
        status = asyncio.run(_run(arguments, settings, models))
    except ChatGLMError as error:
        if len(error.args) == 1:
            error.args = (Words(arguments.language or language_of()).said(str(error)),)
        raise
    if models.working:
        # A thread still loads a model that nobody waits for. When Python ends, it would remove memory that native
        # libraries still use, and may crash; all that is to be kept is kept.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


async def _run(arguments: argparse.Namespace, settings: Callable[[Settings], Settings], models: object) -> int:
    from chatglm.cli.dialogue import open_dialogue
    from chatglm.cli.terminal.app import App
    from chatglm.cli.terminal.models import Models
    from chatglm.cli.terminal.words import Words, language_of

    assert isinstance(models, Models)
    kept = not arguments.no_store and (arguments.question is None or arguments.resume is not None)
    try:
        async with open_dialogue(arguments, models, settings, kept=kept) as dialogue:
            if arguments.model is None and arguments.remote is None:
                arguments.model = dialogue.model
            app = App(arguments, dialogue, models, Words(arguments.language or language_of()))
            if arguments.question is not None:
                return await app.once(arguments.question)
            return await app.run()
    finally:
        models.close()
