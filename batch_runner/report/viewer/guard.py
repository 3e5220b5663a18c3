"""Who may use the live page: pure functions over addresses and headers.

What always holds: the page of another site may not, whatever its name resolves to (DNS rebinding):
its browser sends that name in the Host header, and nobody can register the names accepted here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit


def is_own_host(header: str | None, names: Collection[str], *, loopback_only: bool) -> bool:
    """Tell whether a Host header names this machine: by number, as localhost, or by a given name.

    The port may be any: a tunnel (ssh -L) may have another one at its far end.
    """
    host = _host_of(header)
    if host is None:
        return False
    if host in ("localhost", *names):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # Nobody can point a number elsewhere, as they could a name.
    return address.is_loopback or not loopback_only


def is_own_origin(origin: str | None, host_header: str | None) -> bool:
    """Tell whether a request comes from the page itself, or from no page at all."""
    return origin is None or origin.lower() == f"http://{host_header}".lower()


def _host_of(header: str | None) -> str | None:
    if not header or any(character in header for character in "/\\@?# "):
        return None
    try:
        host = urlsplit(f"//{header}").hostname
    except ValueError:
        return None
    return host.lower() if host else None
