"""A real server, in a thread, on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from typing import Any

from chatglm.assistant import BaseAssistant
from chatglm.serving.app import create_app
from chatglm.serving.bodies import Limits
from chatglm.serving.connections import ConnectionLimits, Server, bind
from waiting import until


@contextlib.contextmanager
def serving(
    assistants: dict[str, BaseAssistant],
    *,
    drain: float = 5,
    limits: ConnectionLimits | None = None,
    body: Limits | None = None,
    servers: list[Server] | None = None,
    tls: ssl.SSLContext | None = None,
    **options: Any,
) -> Iterator[str]:
    """The address of a server that has these models.

    Args:
        body: limits of request bodies.
        servers: gets the server.
        options: of `create_app`.
    """
    (listening,) = bind("127.0.0.1", 0)
    port = listening.getsockname()[1]
    server = Server(
        create_app(assistants, limits=body, **options), drain=drain, limits=limits, log_level="warning", tls=tls
    )
    if servers is not None:
        servers.append(server)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
    thread.start()
    until(lambda: server.started or not thread.is_alive())
    assert server.started
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
