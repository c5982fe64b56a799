"""`chatglm keys`: the API keys of `chatglm serve`."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import os
import re
import shlex
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatglm.cli.models import print_json
from chatglm.cli.shown import print_table
from chatglm.errors import DependencyError, InputError, OutputError
from chatglm.home import home_path

if TYPE_CHECKING:
    from chatglm.serving.access.key_sources import KeyStore
    from chatglm.serving.access.keys import Key, Keyring

__all__ = ["add_arguments", "add_keyring_arguments", "keyring_of", "run"]

KEYS = "CHATGLM_API_KEYS"
"""Environment variable with API keys, separated by commas: everybody can read a command line."""
_ACTIONS = ("forward", "interpreter", "manage-adapters", "metrics", "tools")
_UNITS = {"h": 3600, "d": 86400, "w": 7 * 86400}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = actions.add_parser("add", help="make a key, and print it: it cannot be shown again")
    add.add_argument(
        "--name", required=True, help="name of the user or program that gets the key; logs and metrics show it"
    )
    add.add_argument("--models", metavar="A,B", help="models that it may use (default: all)")
    add.add_argument(
        "--expires", metavar="WHEN", help="90d, 12h or 4w from now, or a date such as 2030-12-31 (default: never)"
    )
    add.add_argument("--requests-per-minute", type=int, metavar="N", help="requests in a minute (default: no limit)")
    add.add_argument(
        "--tokens-per-minute",
        type=int,
        metavar="N",
        help="tokens of prompts and answers in a minute (default: no limit)",
    )
    add.add_argument("--concurrency", type=int, metavar="N", help="requests at a time (default: no limit)")
    add.add_argument(
        "--may",
        action="append",
        choices=_ACTIONS,
        default=[],
        help="what the key may do: use the server's tools (tools) or code interpreter (interpreter), load and unload "
        "adapters (manage-adapters), read /metrics (metrics), or name its own clients, who then share fairly (forward: "
        "for a server in front of this one); may be repeated",
    )
    listing = actions.add_parser("list", help="show the keys, without their secrets")
    listing.add_argument("--json", action="store_true", help="print one JSON object in each line")
    remove = actions.add_parser("remove", help="remove a key; running servers refuse it from then on")
    remove.add_argument("key", metavar="NAME", help="name or id of the key")
    for each in (add, listing, remove):
        each.add_argument(
            "--home", type=Path, metavar="FOLDER", help="folder of the keys (default: CHATGLM_HOME, else ~/.chatglm)"
        )


def run(arguments: argparse.Namespace) -> int:
    try:
        from chatglm.serving.access.key_sources import KeyStore
    except ImportError as error:
        raise DependencyError(f"{error.name} is needed for keys: pip install 'chatglm[serve]'") from None
    folder = arguments.home or home_path()
    store = KeyStore(folder)
    try:
        if arguments.action == "add":
            _add(arguments, store, folder)
        elif arguments.action == "list":
            _list(store.keys(), arguments.json)
        else:
            key = store.remove(arguments.key)
            print(f"removed {key.name} ({key.id})", file=sys.stderr)
    finally:
        store.close()
    return 0


def _add(arguments: argparse.Namespace, store: KeyStore, folder: Path) -> None:
    from chatglm.serving.access.key_sources import key_fields

    given = {
        "name": arguments.name,
        "models": None if arguments.models is None else [name.strip() for name in arguments.models.split(",")],
        "requests_per_minute": arguments.requests_per_minute,
        "tokens_per_minute": arguments.tokens_per_minute,
        "concurrency": arguments.concurrency,
        "may": arguments.may,
    }
    fields = key_fields(given, "", lambda name: f"--{name.replace('_', '-')}")
    key, text = store.add(**fields, expires=_expiry(arguments.expires))
    # The key alone goes to stdout: KEY=$(chatglm keys add --name NAME)
    print(
        f"This is the key of {key.name}. It is shown only now: {folder} has no copy. Running servers accept it at "
        "once; one that was started without keys must be started again.",
        file=sys.stderr,
    )
    print(text)


def _expiry(text: str | None) -> float | None:
    """A time of the command line, in Unix seconds."""
    from chatglm.serving.access.key_sources import key_fields

    if text is None:
        return None
    if found := re.fullmatch(r"(\d{1,6})([hdw])", text):
        return time.time() + int(found[1]) * _UNITS[found[2]]
    try:
        ends: float = key_fields({"expires": text}, "")["expires"]
    except InputError:
        raise InputError(f"--expires {text}: expected 90d, 12h or 4w, or a date such as 2030-12-31") from None
    if ends <= time.time():
        raise InputError(f"--expires {text}: is in the past")
    return ends


def _list(keys: list[Key], as_json: bool) -> None:
    now = time.time()
    if as_json:
        for key in keys:
            print_json(_as_json(key))
        return
    head = ("NAME", "ID", "CREATED", "EXPIRES", "MODELS", "REQUESTS/MIN", "TOKENS/MIN", "CONCURRENCY", "MAY")
    print_table(head, [_row(key, now) for key in keys])
    if not keys:
        print("There are no keys; `chatglm keys add --name NAME` makes one.", file=sys.stderr)


def _row(key: Key, now: float) -> tuple[str, ...]:
    expires = "never" if key.expires is None else _day(key.expires) + (" (over)" if key.expired(now) else "")
    limits = (key.requests_per_minute, key.tokens_per_minute, key.concurrency)
    return (
        key.name,
        key.id,
        _day(key.created),
        expires,
        "all" if key.models is None else ",".join(sorted(key.models)),
        *("-" if limit is None else str(limit) for limit in limits),
        ",".join(sorted(key.may)) or "-",
    )


def _day(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"{seconds:.0f}"


def _as_json(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "created": int(key.created),
        "expires": None if key.expires is None else int(key.expires),
        "models": None if key.models is None else sorted(key.models),
        "requests_per_minute": key.requests_per_minute,
        "tokens_per_minute": key.tokens_per_minute,
        "concurrency": key.concurrency,
        "may": sorted(key.may),
    }


# Of `chatglm serve`


def add_keyring_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a server the options that `keyring_of` reads."""
    parser.add_argument(
        "--keys",
        type=Path,
        metavar="FILE",
        help="accept the API keys of this file, besides those of `chatglm keys` and of the environment variable "
        f"{KEYS}: one key a line, which a name may follow, or YAML (see docs/serving.md)",
    )
    parser.add_argument("--no-keys", action="store_true", help="answer everybody who can reach the server")
    parser.add_argument(
        "--open-metrics", action="store_true", help="let /metrics be read without a key (default: a key that may)"
    )
    parser.add_argument(
        "--home",
        type=Path,
        metavar="FOLDER",
        help="folder of all that the server stores: keys, tasks, files, knowledge bases, the page's users and "
        "conversations (default: CHATGLM_HOME, else ~/.chatglm)",
    )
    parser.add_argument("--api-key", "--api_key", dest="api_key", help=argparse.SUPPRESS)


def keyring_of(arguments: argparse.Namespace, addresses: Sequence[socket.socket]) -> Keyring | None:
    """The keys that a server accepts; None: it needs none.

    Args:
        addresses: where it will listen.

    Raises:
        InputError: a source of keys is wrong, or there are no keys and other machines can reach the server.
    """
    from chatglm.serving.access.key_sources import KeyFile, KeyStore, Texts
    from chatglm.serving.access.keys import Keyring, Source

    if arguments.api_key is not None:
        raise InputError(
            f"--api-key: every user of this machine can read arguments; set {KEYS}=KEY, or use `chatglm keys add`"
        )
    texts = [text.strip() for text in os.environ.get(KEYS, "").split(",") if text.strip()]
    if arguments.no_keys:
        if arguments.keys is not None:
            raise InputError("--no-keys: contradicts --keys; leave one out")
        return None
    sources: list[Source] = []
    with contextlib.suppress(OutputError):  # a user without a home folder has no keys there
        sources.append(KeyStore(arguments.home or home_path()))
    if texts:
        sources.append(Texts(texts, "environment"))
    if arguments.keys is not None:
        sources.append(KeyFile(arguments.keys))
    keyring = Keyring(sources)
    if arguments.keys is not None and not sources[-1].credentials():
        raise InputError(f"--keys {arguments.keys}: has no keys")
    if keyring.keys:
        return keyring
    there = "" if arguments.home is None else f" --home {shlex.quote(str(arguments.home))}"
    for one in addresses:
        if not ipaddress.ip_address(one.getsockname()[0].partition("%")[0]).is_loopback:
            raise InputError(
                f"--host {arguments.host}: others can reach the server there, and it has no API keys; make one with "
                f"`chatglm keys add --name NAME{there}`, or add --no-keys if everybody may use it"
            )
    return None
