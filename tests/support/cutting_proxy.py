"""A TCP proxy that breaks connections on purpose, as a restart or a bad line would."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable


class CuttingProxy:
    """Passes bytes on to `target`; cuts the first `cuts` connections once `after_bytes` have come back.

    A function as `after_bytes` is asked anew for each connection, before anything goes over it.
    """

    def __init__(self, target: str, *, after_bytes: int | Callable[[], int], cuts: int) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname, parts.port)
        self._after_bytes = after_bytes
        self._cuts_left = cuts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.cut = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            after_bytes = self._after_bytes() if callable(self._after_bytes) else self._after_bytes
            threading.Thread(target=self._pass, args=(client, server), daemon=True).start()
            threading.Thread(target=self._pass_back, args=(server, client, after_bytes), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        finally:
            _close(target)

    def _pass_back(self, source: socket.socket, target: socket.socket, after_bytes: int) -> None:
        passed = 0
        try:
            while data := source.recv(256):
                is_last = self._cuts_left > 0 and passed + len(data) >= after_bytes
                target.sendall(data[: max(0, after_bytes - passed)] if is_last else data)
                passed += len(data)
                if is_last:
                    self._cuts_left -= 1
                    self.cut += 1
                    break
        except OSError:
            pass
        finally:
            _close(target)
            _close(source)


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
