"""`chatglm web`: the page in a browser, and the accounts of people who use it."""

from __future__ import annotations

import argparse
import contextlib
import gc
import getpass
import os
import secrets
import shlex
import socket
import sys
import webbrowser
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatglm.cli.models import add_assistant_arguments, note
from chatglm.cli.served import open_catalog
from chatglm.cli.server_tools import only_here, open_kernels
from chatglm.errors import ChatGLMError, DependencyError, InputError, SandboxError
from chatglm.home import home_folder

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from chatglm.assistant import BaseAssistant
    from chatglm.conversation.settings import Settings
    from chatglm.params import SamplingParams
    from chatglm.serving.catalog import Catalog
    from chatglm.tools.interpreter.pool import Kernels
    from chatglm.tools.toolbox import Toolbox
    from chatglm.web.app import Models, Page

__all__ = ["PASSWORD", "PATH", "add_access_arguments", "add_arguments", "models_of", "page_beside", "run"]

PASSWORD = "CHATGLM_PASSWORD"
"""Environment variable with a password: everybody can read a command line."""
PATH = "/ui"
"""Path of the page."""
_PATIENCE = 2  # seconds that requests have to end


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        nargs="*",
        metavar="users …",
        help="accounts instead of the page: `users add NAME`, `users list`, `users remove NAME` (with all of the "
        f"user's conversations and files), `users password NAME`; a password is asked for, or read from {PASSWORD}",
    )
    add_assistant_arguments(parser, several=True)
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="YAML file that names models and their options, as for `chatglm serve` (docs/serving.md)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; 0.0.0.0: all. If other machines can reach the page, people must sign in "
        "(default: %(default)s)",
    )
    parser.add_argument("--port", type=int, default=7860, help="0: any free port (default: %(default)s)")
    add_access_arguments(parser)
    add_host_argument(parser)
    parser.add_argument(
        "--tools",
        action="append",
        default=[],
        metavar="FILE",
        help="tools that models may call: a Python file, which is run with this program's rights; an OpenAPI document; "
        "a YAML file with MCP servers; `examples` for the built-in ones (the default); `none`; may be repeated",
    )
    parser.add_argument(
        "--interpreter",
        nargs="?",
        const="auto",
        choices=("auto", "full", "confined", "off"),
        help="sandbox of the model's Python code. auto: the best of this machine; if other machines can reach the "
        "page, it must be full. confined: a sandbox without namespaces is enough (default: auto if this machine has a "
        "sandbox, else off)",
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="speak HTTPS with this certificate (PEM)")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key (PEM; default: in --tls-cert)")
    # Options that `open_catalog` also reads, but that a page does not have.
    parser.set_defaults(name=None, adapters_from=None, embedding=[], rerank=[])


def add_access_arguments(parser: argparse._ActionsContainer) -> None:
    """Who may use the page, for every command that serves it; see `page_beside`."""
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    access = parser.add_mutually_exclusive_group()
    access.add_argument(
        "--login", action="store_true", help="require signing in, even if only this machine can reach the page"
    )
    access.add_argument(
        "--no-login",
        action="store_true",
        help="let everybody who can reach the page use it; each browser is one user",
    )


def add_host_argument(parser: argparse.ArgumentParser) -> None:
    """By which names a server may be asked for, for every command that has one."""
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="accept requests for this host name, such as chat.example behind a proxy; may be repeated (default: all, "
        "or this machine's own names if only this machine can reach the server and no API key is needed)",
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.what:
        return _users(arguments.what)
    try:
        from starlette.applications import Starlette
        from starlette.responses import RedirectResponse, Response

        from chatglm.serving import connections, logs
        from chatglm.serving.tls import tls_context
    except ImportError as error:
        raise DependencyError(f"{error.name} is needed for the page: pip install 'chatglm[web]'") from None
    if not 0 <= arguments.port < 65536:
        raise InputError(f"--port {arguments.port}: must be from 0 to 65535")
    if arguments.tls_key is not None and arguments.tls_cert is None:
        raise InputError("--tls-key: needs --tls-cert FILE, too")
    tls = None if arguments.tls_cert is None else tls_context(arguments.tls_cert, arguments.tls_key)
    sockets = connections.bind(arguments.host, arguments.port)  # before the model, which may take minutes to load
    with contextlib.ExitStack() as stack:
        for one in sockets:
            stack.callback(one.close)
        local = only_here(sockets)
        toolbox = None
        if arguments.tools != ["none"]:
            from chatglm.tools.toolbox import Toolbox

            toolbox = stack.enter_context(Toolbox.open(arguments.tools or ["examples"]))
        kernels = _kernels(arguments.interpreter, sockets)
        catalog = stack.enter_context(open_catalog(arguments))

        @contextlib.asynccontextmanager
        async def lifespan(app: Any) -> AsyncIterator[None]:
            catalog.begin()
            async with contextlib.AsyncExitStack() as running:
                if kernels is not None:
                    await running.enter_async_context(kernels)
                yield

        async def start(request: Any) -> Response:
            return RedirectResponse(f"{PATH}/")

        app = Starlette(lifespan=lifespan)
        app.add_route("/", start)
        page, own = stack.enter_context(page_beside(app, catalog, toolbox, kernels, arguments, local=local))

        def ready(url: str) -> None:
            note(f"the page is at {url}/ ({', '.join(page.models.names())}); Ctrl-C ends it")
            if own:
                note(f"your own conversations, with those of chatglm chat: {url}{own}")
            if arguments.open:
                webbrowser.open(f"{url}{own or '/'}")

        _prepare(catalog)
        gc.collect()
        gc.freeze()  # present objects stay, so the garbage collector need not look at them while requests wait
        # While models compute in threads, the thread for browsers must run more often than every 5 ms.
        sys.setswitchinterval(0.001)
        log = logs.configure("text")
        stack.callback(log.close)
        server = connections.BareServer(
            app, log_level="warning", tls=tls, patience=_PATIENCE, ready=ready, last=page.close
        )
        connections.run(server, sockets)
    return 0


def _prepare(catalog: Catalog) -> None:
    """Prepare loaded models for their first answer with tools."""
    from chatglm.assistant import Assistant
    from chatglm.tools.interpreter.tool import Interpreter

    for offer in catalog.of("chat").values():
        if isinstance(offer.holder.model, Assistant):
            with contextlib.suppress(ChatGLMError):
                offer.holder.model.prepare([Interpreter.spec])


def _interpreter() -> Path:
    """The folder that holds the folders of conversations with code."""
    return home_folder() / "interpreter"


def _kernels(wanted: str | None, sockets: Sequence[socket.socket]) -> Kernels | None:
    if wanted == "off":
        return None
    try:
        return open_kernels(wanted or "auto", sockets, _interpreter())
    except (SandboxError, DependencyError) as error:
        if wanted is not None:
            raise
        note(f"no code is run on this page: {str(error).removeprefix('--interpreter auto: ')}")
        return None


@contextlib.contextmanager
def page_beside(
    app: Starlette,
    catalog: Catalog,
    toolbox: Toolbox | None,
    kernels: Kernels | None,
    arguments: argparse.Namespace,
    *,
    local: bool,
    keyed: bool = False,
    home: Path | None = None,
) -> Iterator[tuple[Page, str]]:
    """Put the page, over this user's stored conversations, under `PATH` of an app, for as long as the context lasts.

    Args:
        arguments: of `add_access_arguments`.
        local: whether only this machine reaches the app.
        keyed: whether API keys are needed for the interfaces beside the page.
        home: folder of the conversations, users and knowledge bases; None: `chatglm.home.home_path()`.

    Returns:
        The page, and the path that opens the conversations of this machine's own user; "": people sign in.

    Raises:
        DependencyError: a package that the page needs is missing.
    """
    login = arguments.login or not ((local and not keyed) or arguments.no_login)
    key = secrets.token_urlsafe(16) if local and not login else ""
    try:
        from chatglm.conversation.documents import Documents
        from chatglm.conversation.store import Store
        from chatglm.knowledge import Shelf
        from chatglm.web.app import add_page
    except ImportError as error:
        raise DependencyError(f"{error.name} is needed for the page: pip install 'chatglm[web]'") from None
    kept = home_folder(home) / "conversations.sqlite"
    with contextlib.closing(Store(kept)) as store, Shelf(home) as shelf:
        if login and not store.users.all(guests=False):
            there = "" if home is None else f"CHATGLM_HOME={shlex.quote(str(home))} "
            note(f"nobody can sign in to the page yet; add somebody with `{there}chatglm web users add NAME`")
        documents = Documents(shelf, None if local and not login else store.users.name)
        page = add_page(
            app,
            models_of(catalog),
            store,
            toolbox=toolbox,
            kernels=kernels,
            login=login,
            hosts=[*arguments.allow_host, "localhost"] if local or arguments.allow_host else (),
            key=key,
            facts=_facts,
            knowledge=documents,
        )
        yield page, f"{PATH}/mine?key={key}" if key else ""


def models_of(catalog: Catalog) -> Models:
    """The chat models of a catalog, for a page. A model is loaded when it is first asked, and held while it answers."""
    from chatglm.web.app import Models

    def names() -> Mapping[str, Sequence[str]]:
        found = {}
        for name, offer in catalog.of("chat").items():
            if offer.parent is None and name == offer.holder.source.name:
                found[name] = getattr(offer.holder.model, "adapters", ())
        return found

    def called(model: str) -> str:
        from chatglm.hub import folder_name

        if not model or model in catalog.of("chat"):
            return model
        roots = {offer.holder.source.root: name for name, offer in catalog.of("chat").items() if offer.parent is None}
        return roots.get(model) or roots.get(folder_name(model)) or model

    async def get(settings: Settings) -> BaseAssistant:
        offers = catalog.of("chat")
        name = called(settings.model)
        name = name if name in offers else next(iter(offers), "")
        if not name:
            raise InputError("model: there are no models")
        model: Any = await catalog.hold(offers[name])
        return model  # type: ignore[no-any-return]

    def defaults(name: str) -> SamplingParams | None:
        model = catalog.of("chat")[name].holder.model
        return getattr(model, "defaults", None)

    return Models(names, get, defaults, called)


def _facts() -> list[tuple[str, str]]:
    """Lines of the about box about models and kernels."""
    import torch

    from chatglm.kernels import native

    found = native.info()
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"
    return [("device", device), ("kernels", f"{found.variant}: {found.reason}")]


# Accounts


def _users(words: Sequence[str]) -> int:
    from chatglm.conversation.documents import Documents
    from chatglm.conversation.files import Files, folder_beside
    from chatglm.conversation.store import Store
    from chatglm.knowledge import Shelf

    match words:
        case ["users", "list"] | ["users", "add" | "remove" | "password", _]:
            pass
        case _:
            raise InputError(
                f"{' '.join(words)!r:.80}: expected `users add NAME`, `users list`, `users remove NAME` or `users "
                "password NAME`"
            )
    with contextlib.closing(Store()) as store:
        match words[1:]:
            case ["list"]:
                for user in store.users.all(guests=False):
                    print(user.name)
            case ["add", name]:
                made = store.users.add(name, _password())
                print(f"{made.name} can sign in")
            case ["password", name]:
                store.users.set_password(store.users.named(name).id, _password())
                print(f"{name} has a new password, and is signed out everywhere")
            case ["remove", name]:
                number, files = store.users.named(name).id, Files(folder_beside(store.file), None)
                with Shelf() as shelf:
                    left = Documents(shelf, store.users.name).forget(number)
                for conversation in store.delete_user(number):
                    files.clear(number, conversation, _interpreter())
                print(f"{name} is removed, with all conversations, files and knowledge bases")
                for warning in left:
                    note(f"but {warning}")
    return 0


def _password() -> str:
    if given := os.environ.get(PASSWORD):
        return given
    if not sys.stdin.isatty():
        raise InputError(f"a password is needed: set {PASSWORD}, or run this in a terminal")
    first = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != first:
        raise InputError("the two passwords are not the same")
    return first
