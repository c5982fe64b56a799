"""A real server, in a thread, on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn

from chatglm.assistant import BaseAssistant
from chatglm.serving.app import create_app


@contextlib.contextmanager
def serving(assistants: dict[str, BaseAssistant]) -> Iterator[str]:
    """The address of a server that has these models."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(assistants), log_level="warning", timeout_graceful_shutdown=5, ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
    thread.start()
    end = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < end
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
