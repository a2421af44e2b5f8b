"""Who the client is behind proxies: `X-Forwarded-…` counts only from addresses that the operator trusts."""

from __future__ import annotations

import functools
import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Receive, Scope, Send

    Network = ipaddress.IPv4Network | ipaddress.IPv6Network
    Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_MOST_HOPS = 16
_LONGEST_ADDRESS = 64


def parse_networks(text: str) -> tuple[Network, ...]:
    """Addresses and networks, separated by commas. Raises ValueError that names the one it cannot read."""
    return tuple(ipaddress.ip_network(item.strip()) for item in text.split(",") if item.strip())


def parse_address(text: str) -> Address | None:
    """An IP address, alone or with a port (`192.0.2.1:80`, `[2001:db8::1]:443`); None for anything else."""
    text = text.strip()
    if len(text) > _LONGEST_ADDRESS:
        return None
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class TrustedProxies:
    """The networks whose word about the client is taken."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = tuple(networks)
        self.trusts = functools.lru_cache(maxsize=1024)(self._trusts)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def _trusts(self, host: str) -> bool:
        """Whether `host` is the address of a trusted proxy."""
        address = parse_address(host)
        return address is not None and self._includes(address)

    def client_behind(self, peer: str, forwarded_for: str) -> str:
        """The client's address, when the trusted proxy `peer` says `forwarded_for`.

        Each proxy appends the address it was called from. So it is read from the right, as far as the
        addresses are those of trusted proxies: the first other one is the client, and what stands left of
        it is the client's own word. An entry that is no address ends it at the proxy that wrote it.
        """
        client = peer
        for entry in reversed(forwarded_for.rsplit(",", _MOST_HOPS)[-_MOST_HOPS:]):
            address = parse_address(entry)
            if address is None:
                break
            client = str(address)
            if not self._includes(address):
                break
        return client

    def _includes(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


class BehindProxies:
    """Puts the client's address and scheme into the scope, where a trusted proxy tells them."""

    def __init__(self, app: ASGIApp, proxies: TrustedProxies) -> None:
        self._app = app
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        peer = scope.get("client")
        if scope["type"] == "http" and peer and self._proxies.trusts(peer[0]):
            forwarded_for = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
            client = self._proxies.client_behind(peer[0], forwarded_for.decode("latin-1"))
            scope["client"] = (client, 0)
            scope["snakeline.behind_proxy"] = True
            # The last one is of the proxy that called us.
            schemes = [value for name, value in scope["headers"] if name == b"x-forwarded-proto"]
            scheme = schemes[-1].rpartition(b",")[2].strip().lower() if schemes else b""
            if scheme in (b"http", b"https"):
                scope["scheme"] = scheme.decode()
        await self._app(scope, receive, send)
