"""The model of a dialogue, which is loaded while the user already types."""

from __future__ import annotations

import argparse
import asyncio
import copy
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from chatglm.cli.models import open_assistant

if TYPE_CHECKING:
    from chatglm.assistant import BaseAssistant
    from chatglm.conversation.settings import Settings

__all__ = ["Models"]


class Models:
    """One model at a time.

    Args:
        arguments: of `add_assistant_arguments`.
        check: called with the model before it is used; raises an error if it does not fit.
    """

    def __init__(self, arguments: argparse.Namespace, check: Callable[[BaseAssistant], None]) -> None:
        self._arguments, self._check = arguments, check
        self._loading: asyncio.Future[BaseAssistant] | None = None
        self._threads: list[threading.Thread] = []
        self.now: BaseAssistant | None = None

    @property
    def name(self) -> str:
        """Its name for people."""
        from chatglm.cli.models import model_name

        return model_name(self._arguments)

    @property
    def loading(self) -> bool:
        """Whether it is being loaded."""
        return self._loading is not None and not self._loading.done()

    @property
    def error(self) -> BaseException | None:
        """What went wrong when it was loaded."""
        done = self._loading is not None and self._loading.done() and not self._loading.cancelled()
        return self._loading.exception() if done and self._loading is not None else None

    @property
    def quiet(self) -> bool:
        """Whether loading writes nothing to the terminal; a download does."""
        return self._arguments.model is None or os.path.isdir(self._arguments.model)

    def begin(self, told: Callable[[BaseException | None], None]) -> None:
        """Begin to load it.

        Args:
            told: called in the event loop when it is loaded or has failed.
        """
        self._loading = self._load(self._arguments)

        def done(loading: asyncio.Future[BaseAssistant]) -> None:
            if loading.cancelled():
                return
            error = loading.exception()
            if self._loading is loading:
                self.now = None if error else loading.result()
                told(error)
            elif error is None:  # another model has replaced it meanwhile
                loading.result().close()

        self._loading.add_done_callback(done)

    def _load(self, arguments: argparse.Namespace) -> asyncio.Future[BaseAssistant]:
        loop = asyncio.get_running_loop()
        loading: asyncio.Future[BaseAssistant] = loop.create_future()

        def tell(assistant: BaseAssistant | None, error: BaseException | None) -> None:
            if loading.cancelled():
                if assistant is not None:
                    assistant.close()
            elif error is not None:
                loading.set_exception(error)
            elif assistant is not None:
                loading.set_result(assistant)

        def work() -> None:
            assistant, error = None, None
            try:
                assistant = open_assistant(arguments)
                self._check(assistant)
            except BaseException as raised:
                if assistant is not None:
                    assistant.close()
                assistant, error = None, raised
            try:
                loop.call_soon_threadsafe(tell, assistant, error)
            except RuntimeError:  # the event loop is closed
                if assistant is not None:
                    assistant.close()

        thread = threading.Thread(target=work, name="chatglm loading", daemon=True)
        self._threads.append(thread)
        thread.start()
        return loading

    async def __call__(self, settings: Settings) -> BaseAssistant:
        """The model for a conversation: the present one, when it is loaded."""
        if self._loading is None:
            raise RuntimeError("Models: begin() first")
        return await asyncio.shield(self._loading)

    async def change(self, named: str) -> BaseAssistant:
        """Load another model, which replaces the present one when it is complete.

        Raises:
            ChatGLMError: it cannot be loaded; the old one stays.
        """
        arguments = copy.copy(self._arguments)
        if arguments.remote is not None:
            arguments.remote_model = named
        else:
            arguments.model, arguments.adapter, arguments.prefix = named, None, None
        loading = self._load(arguments)
        try:
            made = await asyncio.shield(loading)
        except asyncio.CancelledError:
            loading.cancel()
            raise
        if self._loading is not None:
            self._loading.cancel()  # if it still loads, it closes what it has loaded
        old, self.now, self._loading, self._arguments = self.now, made, loading, arguments
        if old is not None:
            await asyncio.to_thread(old.close)
        return made

    def close(self) -> None:
        """End it."""
        if self._loading is not None:
            self._loading.cancel()
        if self.now is not None:
            self.now.close()

    @property
    def working(self) -> bool:
        """Whether a thread still loads a model that nobody waits for."""
        return any(thread.is_alive() for thread in self._threads)
