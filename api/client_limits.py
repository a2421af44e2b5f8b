"""How much of the service one client may take: connections, and requests that stay open."""

from __future__ import annotations

import ipaddress
import resource
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import structlog

from api.problems import CREDENTIALS_INVALID, CREDENTIALS_MISSING, TOO_MANY_FAILURES, Kind, Problem
from api.request_counts import STREAMS, route_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from starlette.types import ASGIApp, Receive, Scope, Send

FULL = Kind(503, "too-many-clients", "All connections are taken")
TOO_MANY_CONNECTIONS = Kind(429, "too-many-connections", "This client has too many connections")
TOO_MANY_STREAMS = Kind(429, "too-many-streams", "This client has too many open streams")

# Every key of `Connections.refused`.
WHY_REFUSED = (
    "body-too-slow",
    CREDENTIALS_INVALID.slug,
    CREDENTIALS_MISSING.slug,
    "gave-way",
    "head-too-large",
    "head-too-slow",
    "malformed-request",
    FULL.slug,
    TOO_MANY_CONNECTIONS.slug,
    TOO_MANY_FAILURES.slug,
    TOO_MANY_STREAMS.slug,
)

_RETRY_AFTER = {"Retry-After": "5"}
_MOST_REFUSED = 64  # that are still told why
_LOOKED_AT = 32
_IPV6_CLIENT_BITS = 64  # one customer's usual share of addresses
_OWN_DESCRIPTORS = 256
_DESCRIPTORS_OF_A_JOB = 2
_LEAST_CONNECTIONS = 16

_log = structlog.get_logger(__name__)


def client_group(host: str) -> str:
    """What to count a client by: its IPv4 address, or its IPv6 network of 64 bits."""
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(
        ipaddress.IPv6Network((int(address) >> _IPV6_CLIENT_BITS << _IPV6_CLIENT_BITS, _IPV6_CLIENT_BITS))
    )


def connections_within_descriptors(wanted: int, jobs: int) -> int:
    """At most `wanted`, and so few that the store and `jobs` running jobs never lack a descriptor."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return wanted
    most = max(_LEAST_CONNECTIONS, limit - _OWN_DESCRIPTORS - _DESCRIPTORS_OF_A_JOB * jobs)
    if most < wanted:
        _log.warning("connections_limited", wanted=wanted, most=most, open_files=limit)
    return min(wanted, most)


class Connection(Protocol):
    """One connection, as far as its limits are concerned."""

    def give_way(self) -> bool:
        """Close it now, for a new one; False if it has to stay because an answer is still on its way."""
        ...


@dataclass(slots=True)
class _Client:
    open: int = 0
    waiting: dict[Connection, None] = field(default_factory=dict)  # the longest waiting first


class Connections:
    """The open connections. One that has sent no whole request gives way, the oldest first, to a new one.

    So clients that open connections and say nothing, or say it slowly, keep nobody out. Connections of
    `exempt` addresses are counted in all alone: those are proxies, whose clients are counted by
    `ClientRequests`.
    """

    def __init__(
        self, most: int, most_per_client: int, *, exempt: Callable[[str], bool] = lambda _host: False
    ) -> None:
        self.refused: Counter[str] = Counter()  # so far, by why
        self._most = most
        self._most_per_client = most_per_client
        self._exempt = exempt
        self._clients: dict[str, _Client] = {}
        self._open: dict[Connection, str] = {}
        self._waiting: dict[Connection, None] = {}
        self._turned_away: set[Connection] = set()

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: Connection, host: str) -> Problem | None:
        """Take a new connection in; or the problem to answer its request with, after which it must go.

        It is closed without an answer when too many others are being told.
        """
        group = "" if self._exempt(host) else client_group(host)
        client = self._clients.get(group) or _Client()
        problem = None
        if group and client.open >= self._most_per_client and not self._make_room(client.waiting):
            detail = f"{host} has {client.open} connections, all of them busy."
            problem = Problem(TOO_MANY_CONNECTIONS, detail, headers=_RETRY_AFTER)
        elif len(self._open) >= self._most and not self._make_room(self._waiting):
            problem = Problem(FULL, "Every connection is busy.", headers=_RETRY_AFTER)
        if problem is None:
            client = self._clients.setdefault(group, client)  # it may have gone with its last connection
            client.open += 1
            self._open[connection] = group
            self.waits(connection)
            return None
        self.refused[problem.kind.slug] += 1
        if len(self._turned_away) < _MOST_REFUSED:
            self._turned_away.add(connection)
        else:
            connection.give_way()
        return problem

    def waits(self, connection: Connection) -> None:
        """It has no request that is whole and unanswered."""
        group = self._open.get(connection)
        if group is not None:
            self._waiting[connection] = self._clients[group].waiting[connection] = None

    def works(self, connection: Connection) -> None:
        """It has sent a whole request."""
        group = self._open.get(connection)
        if group is not None:
            self._waiting.pop(connection, None)
            self._clients[group].waiting.pop(connection, None)

    def leave(self, connection: Connection) -> None:
        """It is closed."""
        self._turned_away.discard(connection)
        self.works(connection)
        group = self._open.pop(connection, None)
        if group is None:
            return
        client = self._clients[group]
        client.open -= 1
        if client.open == 0:
            del self._clients[group]

    def _make_room(self, waiting: dict[Connection, None]) -> bool:
        for connection in list(islice(waiting, _LOOKED_AT)):
            if connection.give_way():
                self.refused["gave-way"] += 1
                self.leave(connection)
                return True
        return False


class OpenStreams:
    """Requests that stay open: followed logs, long-polls, event streams; archives, checksums."""

    def __init__(self, most_per_client: int, refused: Counter[str]) -> None:
        self._most = most_per_client
        self._refused = refused
        self._of_clients: Counter[str] = Counter()
        self._of_routes: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._of_clients.total()

    def by_route(self) -> Mapping[str, int]:
        """How many are open now; a route that once had some stays, at 0."""
        return dict(self._of_routes)

    @contextmanager
    def open(self, scope: Scope) -> Iterator[None]:
        """Count a stream of this request's client as long as this lasts. Raises Problem (429)."""
        group = client_group(scope["client"][0]) if scope.get("client") else ""
        if self._of_clients[group] >= self._most:
            self._refused[TOO_MANY_STREAMS.slug] += 1
            raise Problem(
                TOO_MANY_STREAMS,
                f"{self._most} are open; close one, or see SNAKELINE_MAX_STREAMS_PER_CLIENT.",
                headers=_RETRY_AFTER,
            )
        route = route_of(scope)
        scope[STREAMS] = True
        self._of_clients[group] += 1
        self._of_routes[route] += 1
        try:
            yield
        finally:
            self._of_routes[route] -= 1
            self._of_clients[group] -= 1
            if not self._of_clients[group]:
                del self._of_clients[group]


class ClientRequests:
    """Bounds the requests that clients behind proxies have open at once, as connections bound others'.

    Stands inside `BehindProxies`, whose mark tells them.
    """

    def __init__(self, app: ASGIApp, most_per_client: int, refused: Counter[str]) -> None:
        self._app = app
        self._most = most_per_client
        self._refused = refused
        self._of_clients: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        if not client or "snakeline.behind_proxy" not in scope:
            await self._app(scope, receive, send)
            return
        group = client_group(client[0])
        if self._of_clients[group] >= self._most:
            self._refused[TOO_MANY_CONNECTIONS.slug] += 1
            detail = f"{client[0]} has {self._most} requests open."
            await Problem(TOO_MANY_CONNECTIONS, detail, headers=_RETRY_AFTER).response()(scope, receive, send)
            return
        self._of_clients[group] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._of_clients[group] -= 1
            if not self._of_clients[group]:
                del self._of_clients[group]
