"""
Where a delivery may go: public addresses only, so that nobody has the server knock at its own network.

A name is resolved once, every address that it has is checked, and the connection is made to the checked
address itself: an answer of the DNS that changes in between changes nothing.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import httpcore
from django.conf import settings

Address: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"
Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"
SETTING = "PAYGENT_WEBHOOK_NETWORKS"
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PORTS_BELOW_1024 = (80, 443)
_URL_LENGTH_MAX = 2000
_odd = re.compile(r"[\x00-\x20\x7f\\]").search


class TargetError(ValueError):
    """A delivery may not go there; the message says why, and is shown to whoever configures webhooks."""


def check_url(url: str) -> None:
    """
    Check what can be told from the text alone, when an address is configured.

    Raises:
        TargetError: Not an address of a web server, with credentials in it, or a private IP address.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        url.encode("ascii")
    except ValueError as error:
        raise TargetError("must be an address in ASCII, such as https://example.com/hooks") from error
    if parts.scheme not in ("http", "https") or not host or len(url) > _URL_LENGTH_MAX or _odd(url):
        raise TargetError("must be an address such as https://example.com/hooks")
    if parts.username is not None or parts.password is not None:
        raise TargetError("must hold no user name and no password")
    if port is not None and port < 1024 and port not in _PORTS_BELOW_1024:
        raise TargetError("must use port 80, 443, or one above 1023")
    given = _literal(host)
    if given is not None and not is_allowed(given):
        raise TargetError("must not be an address of a private network")
    if given is None and _is_private_name(host) and not _allowed_networks():
        raise TargetError("must not be an address of a private network")


def is_allowed(address: Address) -> bool:
    """Whether *address* is public, or in ``PAYGENT_WEBHOOK_NETWORKS``; one that wraps another is that one."""
    inner = _inner(address)
    if any(inner in network for network in _allowed_networks() if network.version == inner.version):
        return True
    is_odd = inner.is_multicast or inner.is_reserved or getattr(inner, "is_site_local", False)
    return inner.is_global and not is_odd


def resolve(host: str, port: int) -> list[str]:
    """
    The addresses of *host*, all of them checked.

    Raises:
        TargetError: It has none, or one of them is not public.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise TargetError(f"the name {host!r} has no address") from error
    addresses = list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))
    for address in addresses:
        if not is_allowed(ipaddress.ip_address(address)):
            raise TargetError(f"the name {host!r} leads to a private network")
    if not addresses:
        raise TargetError(f"the name {host!r} has no address")
    return addresses


class TimedStream(httpcore.NetworkStream):
    """A connection with one deadline for everything, so that nobody is kept by an answer that trickles."""

    def __init__(self, stream: httpcore.NetworkStream, ends_s: float) -> None:
        self._stream = stream
        self._ends_s = ends_s

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what is there."""
        return self._stream.read(max_bytes, self._left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of it."""
        self._stream.write(buffer, self._left(timeout))

    def close(self) -> None:
        """Close it."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Speak TLS from now on, by the same deadline."""
        stream = self._stream.start_tls(ssl_context, server_hostname, self._left(timeout))
        return TimedStream(stream, self._ends_s)

    def get_extra_info(self, info: str) -> Any:
        """What the connection knows of itself."""
        return self._stream.get_extra_info(info)

    def _left(self, timeout: float | None) -> float:
        left_s = self._ends_s - time.monotonic()
        if left_s <= 0:
            raise httpcore.ReadTimeout("the answer takes too long")
        return left_s if timeout is None else min(timeout, left_s)


class GuardedBackend(httpcore.SyncBackend):
    """Connects to checked addresses; TLS still proves the name, since that is what the caller asked for."""

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """
        Connect to the first address that answers.

        Raises:
            TargetError: The target is not public.
            httpcore.ConnectError: None of them answers.
        """
        ends_s = time.monotonic() + self._within_s
        stream = self._first_of(resolve(host, port), port, timeout, local_address, socket_options)
        return TimedStream(stream, ends_s)

    def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore.NetworkStream:
        """
        Never.

        Raises:
            TargetError: Always.
        """
        raise TargetError("a socket of this machine is no target")

    def _first_of(self, addresses: Sequence[str], port: int, *given: Any) -> httpcore.NetworkStream:
        for address in addresses[:-1]:
            try:
                return super().connect_tcp(address, port, *given)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return super().connect_tcp(addresses[-1], port, *given)


def _is_private_name(host: str) -> bool:
    return host == "localhost" or host.endswith((".localhost", ".local", ".internal"))


def _literal(host: str) -> Address | None:
    """The address that *host* is; also in the forms that only the C library reads, as in 127.1."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.ip_address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def _inner(address: Address) -> Address:
    """The IPv4 address within an IPv6 one that only carries it."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    carried = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
    return carried or address


def _allowed_networks() -> list[Network]:
    return [ipaddress.ip_network(network) for network in getattr(settings, SETTING, ())]
