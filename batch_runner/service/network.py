"""How to reach hosts: origins, this machine, proxies, and what to do if nothing gets through.

Hides the rules of NO_PROXY. Always holds: pure; this machine is never called through a proxy; a
proxy's password is in no repr.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from batch_runner.errors import AccessRefusedError, ServiceUnavailableError, UsageError

if TYPE_CHECKING:
    from yarl import URL

API_BASE = "https://model-api.runcomfy.net"
BALANCE_BASE = "https://api.runcomfy.net"

CERTIFICATE_HINT = (
    "behind a proxy or firewall with its own certificate, set SSL_CERT_FILE to a file with that"
    " certificate and the usual ones; otherwise set this machine's clock or update its certificates"
)
PROXY_HINT = (
    "check HTTPS_PROXY and NO_PROXY: the proxy needs a user and a password, as in"
    " http://USER:PASSWORD@HOST:PORT, or blocks this host"
)


def parse_origin(api_base: str) -> str:
    """Return the origin of an API base; raises UsageError unless it is https or loopback."""
    try:
        parts = urlsplit(api_base if "://" in api_base else f"https://{api_base}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    if not host or parts.scheme not in ("http", "https") or parts.username is not None:
        what, hint = "is not the address of a service", f"write it like {API_BASE}"
    elif parts.scheme == "http" and not is_loopback_host(host):
        what = "is not https: the token would be sent unencrypted"
        hint = "write https://; http works only for a service on this machine"
    else:
        shown = f"[{host}]" if ":" in host else host
        return f"{parts.scheme}://{shown}" + ("" if port is None else f":{port}")
    raise UsageError(f"'{api_base}' {what}", hint=hint)


def is_loopback(origin: str) -> bool:
    """Return whether an origin is on this machine."""
    return is_loopback_host(urlsplit(origin).hostname or "")


@lru_cache(maxsize=64)
def is_loopback_host(host: str) -> bool:
    """Return whether a host (a name, or an address without brackets) is this machine."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class Proxies(msgspec.Struct, frozen=True, kw_only=True):
    """The proxy for each scheme, and the hosts called without one, as in NO_PROXY."""

    http: str | None = None
    https: str | None = None
    exempt: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Proxies(http {bool(self.http)}, https {bool(self.https)}, {self.exempt})"

    def url_for(self, url: URL) -> str | None:
        """Return the proxy for an address; None: call it directly."""
        proxy = self.https if url.scheme == "https" else self.http
        if proxy is None:
            return None
        from urllib.request import (  # type: ignore[attr-defined]  # noqa: PLC0415 - few have a proxy
            proxy_bypass_environment,
        )

        host = (url.raw_host or "").lower().rstrip(".")
        rules = {"no": ",".join(rule.removeprefix("*.") for rule in self.exempt)}
        is_direct = is_loopback_host(host) or proxy_bypass_environment(f"{host}:{url.port}", rules)
        return None if is_direct else proxy


NO_PROXIES = Proxies()


def token_refused(detail: str) -> AccessRefusedError:
    """Return the error for a token that the service does not take."""
    return AccessRefusedError(
        f"the service refused the token: {detail}",
        hint="set RUNCOMFY_API_TOKEN to a valid token of the account that ran this batch, then run"
        " the same command again: nothing is lost",
    )


def unavailable(detail: str) -> ServiceUnavailableError:
    """Return the error for a service that is unreachable until something here is changed."""
    hint = PROXY_HINT if detail.startswith("the proxy") else CERTIFICATE_HINT
    return ServiceUnavailableError(f"the service cannot be reached: {detail}", hint=hint)
