"""The socket that the service listens on, and what every connection inherits from it."""

from __future__ import annotations

import socket
from contextlib import suppress

BACKLOG = 2048
TAKES_NOTHING_S = 60.0  # how long a client may take nothing of an answer
_UNSENT_BYTES = 128 * 2**10
_SILENT_S, _PROBE_EVERY_S, _PROBES = 60, 15, 4


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; raises OSError. Bound before anything else, so that a taken port touches no data."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _limit_clients(listener)
        listener.bind(address)
        # SO_REUSEADDR lets two sockets bind one port until one listens.
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _limit_clients(listener: socket.socket) -> None:
    """Let the kernel end connections whose client takes nothing of an answer, or is no longer there.

    Connections inherit this. Data that a client has no room for counts as not taken: a reader may be slow,
    but not stand still. And the kernel takes little more than it can send, so that many slow readers cost
    little. See tcp(7).
    """
    for level, option, value in (
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(TAKES_NOTHING_S * 1000)),
        (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _SILENT_S),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_EVERY_S),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES),
    ):
        with suppress(OSError):  # a kernel without it serves all the same
            listener.setsockopt(level, option, value)
