"""`serve`: the whole service in this process, from the settings to the exit code."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
from typing import TYPE_CHECKING

import structlog
import uvicorn

from api.app import create_app
from api.http_limits import LimitedHttpProtocol
from api.log_format import configure_logging
from runner.bootstrap import build_runner
from runner.errors import RunnerError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from api.app import Application
    from api.settings import ServiceSettings
    from runner.bootstrap import Runner

EXIT_CANNOT_START = 2
KEEP_ALIVE_S = 75  # longer than the idle time of common load balancers, so that they close first
_LAST_ANSWERS_S = 3
_LOOK_EVERY_S = 0.05
_BACKLOG = 2048

_log = structlog.get_logger(__name__)


class Server(uvicorn.Server):
    """Ends jobs, streams and long-polls in order when it is told to stop: uvicorn would wait for streams.

    From the first SIGTERM or SIGINT on no new job is accepted. While running jobs are waited for or
    stopped (`SNAKELINE_ON_SHUTDOWN`) everything else is answered as ever, and who follows a log sees its
    end. Then streams end, what is being answered is finished within seconds, and `run` returns: the
    signal is not raised again, the exit code is ours. A second signal lets the jobs go at once.
    """

    def __init__(self, app: Application, runner: Runner, *, started: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=LimitedHttpProtocol,
                loop="uvloop",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=_BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=_LAST_ANSWERS_S,
            )
        )
        self._app = app
        self._runner = runner
        self._on_started = started
        self._told_to_stop = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            # What is there now stays: a full collection need not walk over it again, tens of
            # milliseconds each time.
            gc.collect()
            gc.freeze()
            self._on_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler's form
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        if self._loop is None:  # nothing has been started yet
            self.should_exit = True
            return
        self._loop.call_soon_threadsafe(self._wind_down, self._told_to_stop)
        self._told_to_stop = True

    def _wind_down(self, hurry: bool) -> None:  # noqa: FBT001 - a callback's form
        if self._runner.wind_down() or hurry:
            self.should_exit = True
            self._app.stop.set()
        elif not self.should_exit and self._loop is not None:
            self._loop.call_later(_LOOK_EVERY_S, self._wind_down, False)


def serve(settings: ServiceSettings) -> int:
    """Run the service until SIGTERM or SIGINT; the exit code.

    0 after an orderly stop; 2, with one line on stderr, when it cannot start: the address is taken, or
    open to others without authentication, or the data directory or the store cannot be used.
    """
    if (refusal := settings.exposure()) is not None:
        return _cannot_start(refusal)
    configure_logging(settings.log_level)
    try:
        listener = _listen(settings.host, settings.port)
    except OSError as error:
        address, reason = f"{settings.host}:{settings.port}", error.strerror or str(error)
        return _cannot_start(
            f"cannot listen on {address}: {reason}; set SNAKELINE_PORT or SNAKELINE_HOST to another"
        )
    with listener:
        try:
            runner = build_runner(settings.runner())
        except (RunnerError, OSError) as error:
            return _cannot_start(" ".join(str(error).split()))
        try:
            try:
                runner.start()
            except RunnerError as error:
                return _cannot_start(" ".join(str(error).split()))
            server = Server(
                create_app(runner, settings), runner, started=lambda: _announce(settings, runner, listener)
            )
            server.run(sockets=[listener])
        finally:
            runner.close()
    _log.info("stopped")
    return 0


def _cannot_start(reason: str) -> int:
    sys.stderr.write(f"snakeline: {reason}\n")
    return EXIT_CANNOT_START


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket; raises OSError. Bound before anything else, so that a taken port touches no data."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # SO_REUSEADDR lets two sockets bind one port until one listens.
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _announce(settings: ServiceSettings, runner: Runner, listener: socket.socket) -> None:
    """The start-up line: where it is, what runs the jobs, where the data is."""
    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    name = runner.service.engine_name
    engine = "mock — a stand-in, no real pipelines run" if name == "mock" else name
    line = f"Snakeline is at {address} · engine: {engine} · data: {settings.data_dir.absolute()}\n"
    sys.stdout.buffer.write(line.encode())
    sys.stdout.flush()
