"""Checks the header `Host`: the name under which a client asks for a server.

The owner of any web site can let its name point to 127.0.0.1 (DNS rebinding). A browser then takes the server on this
machine for a part of that site, and lets the site's pages read its answers. But the browser sends the site's name as
`Host`, so the server can refuse the request.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

__all__ = ["check_host"]


def check_host(given: str, names: Collection[str]) -> str:
    """Check the name that a request asks for; returns what is wrong with it, or "".

    Args:
        given: the header `Host`, with or without a port.
        names: allowed names, in lower case; empty: all names. `localhost` and addresses of this machine itself are
            always allowed.
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
