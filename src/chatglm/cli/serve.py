"""`chatglm serve`: a model behind OpenAI's HTTP interface and `api.py`'s."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import sys
import webbrowser
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from chatglm.cli.keys import add_keyring_arguments, keyring_of
from chatglm.cli.served import add_catalog_arguments, open_catalog
from chatglm.cli.server_tools import add_tool_arguments, only_here, open_tools
from chatglm.cli.web import PATH, add_access_arguments, add_host_argument, page_beside
from chatglm.errors import DependencyError, InputError
from chatglm.home import home_folder

if TYPE_CHECKING:
    import ssl

    from fastapi import FastAPI

    from chatglm.knowledge import Shelf
    from chatglm.serving.bodies import Limits
    from chatglm.serving.logs import LineWriter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_catalog_arguments(parser)
    parser.add_argument(
        "--any-model",
        action="store_true",
        help="accept every model name in requests, such as gpt-3.5-turbo (default: unknown names get status 404)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; 0.0.0.0: all. Other machines need API keys (default: %(default)s)",
    )
    parser.add_argument("--port", type=int, default=8000, help="0: any free port (default: %(default)s)")
    parser.add_argument(
        "--drain",
        type=float,
        default=30,
        metavar="SECONDS",
        help="seconds to wait for running requests after SIGTERM or Ctrl-C (default: %(default)g)",
    )
    parser.add_argument(
        "--drain-delay",
        type=float,
        default=0,
        metavar="SECONDS",
        help="seconds before --drain: new requests are still answered, but /health already has status 503, so that a "
        "load balancer can notice (default: %(default)g)",
    )
    parser.add_argument("--quiet", action="store_true", help="do not show base URLs and examples when ready")
    parser.add_argument(
        "--cors",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="allow web pages of this origin (https://chat.example, or * for all) to use the server; may be repeated "
        "(default: none)",
    )
    parser.add_argument(
        "--max-body",
        type=float,
        metavar="MIB",
        help="largest request body (default: 1 MiB plus 16 bytes per token of the model's context)",
    )
    parser.add_argument(
        "--max-connections",
        type=int,
        default=1000,
        metavar="N",
        help="connections at a time; more get status 503 (default: %(default)s)",
    )
    add_host_argument(parser)
    page = parser.add_argument_group("page", "The page of `chatglm web`, beside the interfaces.")
    page.add_argument(
        "--page",
        action="store_true",
        help="serve the page under /ui/. If API keys are needed, or other machines can reach the server, people must "
        "sign in (`chatglm web users add NAME`)",
    )
    add_access_arguments(page)
    parser.add_argument(
        "--knowledge",
        action="store_true",
        help="also serve the bases of `chatglm knowledge`: /v1/knowledge, and answers from them (model "
        "knowledge:NAME). A key can read the bases that it has made, and those that are shared with its id (`chatglm "
        "knowledge share`). Without API keys, everybody who can reach the server can read, change and delete all bases",
    )
    parser.add_argument(
        "--dialect",
        action="append",
        default=[],
        choices=("chatchat",),
        help="also speak this dialect. chatchat: the routes of Langchain-Chatchat 0.3 (/knowledge_base, /chat/kb_chat) "
        "and langchain-ChatGLM 0.1 (/local_doc_qa), over the bases of --knowledge",
    )
    add_keyring_arguments(parser)
    add_tool_arguments(parser)
    parser.add_argument(
        "--tls-cert",
        type=Path,
        metavar="FILE",
        help="speak HTTPS with this certificate (PEM, followed by those of its issuers); a renewed file is loaded "
        "again",
    )
    parser.add_argument(
        "--tls-key", type=Path, metavar="FILE", help="its private key (PEM, without a password; default: in --tls-cert)"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="end a request that takes longer, including its time in the queue (default: no limit)",
    )
    parser.add_argument(
        "--body-timeout",
        type=float,
        default=30,
        metavar="SECONDS",
        help="seconds that a client may take to send a body, plus one for each 8 KiB (default: %(default)g)",
    )
    parser.add_argument(
        "--keep-alive",
        type=float,
        default=60,
        metavar="SECONDS",
        help="seconds that a connection stays open between two requests (default: %(default)g)",
    )
    parser.add_argument(
        "--log-format",
        choices=("text", "json"),
        default="text",
        help="format of the log, which has a line for each request (default: %(default)s)",
    )
    parser.add_argument(
        "--log-text",
        action="store_true",
        help="log the beginning of each request and answer (default: the log has no text of users)",
    )


def _shelf(home: Path | None) -> Shelf:
    from chatglm.knowledge import Shelf

    return Shelf(home)


def run(arguments: argparse.Namespace) -> int:
    try:
        from chatglm.serving import connections, logs
        from chatglm.serving.app import create_app
    except ImportError as error:
        raise DependencyError(f"{error.name} is needed to serve: pip install 'chatglm[serve]'") from None
    if not 0 <= arguments.port < 65536:
        raise InputError(f"--port {arguments.port}: must be from 0 to 65535")
    if not 0 <= arguments.drain < 1e6:
        raise InputError(f"--drain {arguments.drain:g}: must be from 0 to 1000000")
    if not 0 <= arguments.drain_delay < 1e6:
        raise InputError(f"--drain-delay {arguments.drain_delay:g}: must be from 0 to 1000000")
    if arguments.max_connections < 1:
        raise InputError(f"--max-connections {arguments.max_connections}: must be at least 1")
    for option in ("login", "no_login", "open"):
        if getattr(arguments, option) and not arguments.page:
            raise InputError(f"--{option.replace('_', '-')}: is an option of the page; add --page")
    for origin in arguments.cors:
        if origin != "*" and ("://" not in origin or origin.endswith("/")):
            raise InputError(f"--cors {origin}: expected an origin such as https://chat.example, without a path, or *")
    for option in ("timeout", "body_timeout", "keep_alive"):
        if (seconds := getattr(arguments, option)) is not None and not 0 < seconds < 1e6:
            raise InputError(f"--{option.replace('_', '-')} {seconds:g}: must be more than 0 and less than 1000000")
    if arguments.max_body is not None and not 0 < arguments.max_body <= 4096:
        raise InputError(f"--max-body {arguments.max_body:g}: must be more than 0 and at most 4096 MiB")
    if arguments.dialect and not arguments.knowledge:
        raise InputError(f"--dialect {arguments.dialect[0]}: needs --knowledge, whose bases it serves")
    if arguments.dialect and importlib.util.find_spec("websockets") is None:
        raise DependencyError("websockets is needed for --dialect chatchat: pip install 'chatglm[serve]'")
    tls = _tls(arguments)
    sockets = connections.bind(arguments.host, arguments.port)  # before the model, which may take minutes to load
    try:
        keys = keyring_of(arguments, sockets)
        kept = home_folder(arguments.home) / "interpreter" if arguments.page else None
        with (
            open_tools(arguments, sockets, kept) as (toolbox, kernels),
            open_catalog(arguments) as catalog,
            contextlib.ExitStack() as stack,
        ):
            shelf = stack.enter_context(_shelf(arguments.home)) if arguments.knowledge else None
            app = create_app(
                catalog,
                origins=arguments.cors,
                hosts=_hosts(arguments, local=only_here(sockets), keyed=keys is not None),
                limits=_body_limits(arguments, catalog.context),
                any_model=arguments.any_model,
                keys=keys,
                open_metrics=arguments.open_metrics,
                home=arguments.home,
                adapters_from=_adapters_folder(arguments.adapters_from),
                log_text=arguments.log_text,
                timeout=arguments.timeout,
                toolbox=toolbox,
                kernels=kernels,
                tools_without_asking=arguments.tools_without_asking,
                page=PATH if arguments.page else "",
                knowledge=shelf,
                dialects=arguments.dialect,
            )
            own = ""
            if arguments.page:
                _, own = stack.enter_context(
                    page_beside(
                        app,
                        catalog,
                        toolbox,
                        kernels,
                        arguments,
                        local=only_here(sockets),
                        keyed=keys is not None,
                        home=arguments.home,
                    )
                )
            show = arguments.log_format == "text" and not arguments.quiet
            log = logs.configure(arguments.log_format)
            try:
                server = connections.Server(
                    app,
                    drain=arguments.drain,
                    drain_delay=arguments.drain_delay,
                    ready=partial(_ready, app, log, arguments, own, show),
                    limits=connections.ConnectionLimits(arguments.max_connections, idle=arguments.keep_alive),
                    tls=tls,
                )
                connections.run(server, sockets)
            finally:
                log.close()
    finally:
        for one in sockets:
            one.close()
    return 0


def _hosts(arguments: argparse.Namespace, *, local: bool, keyed: bool) -> Sequence[str]:
    """Names under which the server may be asked for; none: all. Where no key is needed, a page of another site could
    otherwise ask in the name of whoever looks at it.
    """
    return [*arguments.allow_host, "localhost"] if arguments.allow_host or (local and not keyed) else ()


def _adapters_folder(given: str | None) -> Path | None:
    if given is None:
        return None
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise InputError(f"--adapters-from {given}: no such folder")
    return folder


def _ready(app: FastAPI, log: LineWriter, arguments: argparse.Namespace, own: str, show: bool, url: str) -> None:
    """
    Args:
        own: path of the page with this machine's own conversations; "": there is none.
        show: whether the interfaces are listed for the user.
    """
    if show:
        _show(app, log, f"{url}{own or f'{PATH}/'}" if arguments.page else "", url)
    if arguments.open:
        webbrowser.open(f"{url}{own or f'{PATH}/'}")


def _show(app: FastAPI, log: LineWriter, page: str, url: str) -> None:
    """List the interfaces for the user, and how to try each.

    Args:
        page: its address; "": there is none.
    """
    from chatglm.serving.dialect import spoken

    service = app.state.service
    known = spoken(app.state.dialects, service)
    width = max((len(dialect.title) for dialect, _ in known), default=0)
    lines = [f"  {dialect.title:{width}}  {url}{dialect.base}" for dialect, _ in known]
    log.flush()  # the line with the address comes first
    if page:
        lines += ["", f"  page: {page}"]
    if names := service.server_tools.names:
        lines += ["", f"  server_tools: {', '.join(names)}"]
    lines += ["", *(f"  {dialect.curl(url, model, key=service.keys is not None)}" for dialect, model in known), ""]
    print("\n".join(lines), file=sys.stderr, flush=True)


def _tls(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    from chatglm.serving.tls import tls_context

    if arguments.tls_cert is None:
        if arguments.tls_key is not None:
            raise InputError("--tls-key: needs --tls-cert FILE, too")
        return None
    return tls_context(arguments.tls_cert, arguments.tls_key)


def _body_limits(arguments: argparse.Namespace, context: int | None) -> Limits:
    """
    Args:
        context: longest of the models, in tokens, if all are known.
    """
    from chatglm.serving.bodies import Limits

    limits = Limits() if context is None else Limits.of_context(context)
    size = limits.body if arguments.max_body is None else int(arguments.max_body * (1 << 20))
    return dataclasses.replace(limits, body=size, seconds=arguments.body_timeout)
