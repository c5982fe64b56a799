"""By which name a server is asked for: the header `Host`.

A page of any site may let its name point to 127.0.0.1 (DNS rebinding). A browser then takes the server of this machine
for a part of that site, and lets the page read what it answers; but it sends the site's name as `Host`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

__all__ = ["check_host"]


def check_host(given: str, names: Collection[str]) -> str:
    """What is wrong with the name that a request asks for; "": nothing.

    Args:
        given: the header `Host`, with or without a port.
        names: in lower case, under which the server may be asked for; empty: all. `localhost` and addresses of this
            machine itself are always right.
    """
    name = given[1:].partition("]")[0] if given.startswith("[") else given.partition(":")[0].rstrip(".")
    if not names or name.lower() in names or _is_here(name.lower()):
        return ""
    return f"Host {given[:80]!r}: this host name is not allowed; `--allow-host NAME` allows one"


def _is_here(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
