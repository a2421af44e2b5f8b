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
from api.auth_settings import auth_mode
from api.first_key import make_first_key
from api.held_stop import HeldStop
from api.http_limits import protocol_with
from api.listener import BACKLOG, listen
from api.log_format import configure_logging, log_crashes
from runner.bootstrap import build_runner
from runner.errors import RunnerError
from runner.isolation.restraints import hide_memory
from runner.isolation_choice import isolate

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from api.app import Application
    from api.settings import ServiceSettings
    from runner.bootstrap import Runner

EXIT_CANNOT_START = 2
EXIT_MONITOR_ENDED = 1
KEEP_ALIVE_S = 75  # longer than the idle time of common load balancers, so that they close first
_LAST_ANSWERS_S = 3
_LOOK_EVERY_S = 0.05

_log = structlog.get_logger(__name__)


class Server(uvicorn.Server):
    """Ends jobs, streams and long-polls in order when it is told to stop: uvicorn would wait for streams.

    From the first SIGTERM or SIGINT on no new job is accepted. While running jobs are waited for or
    stopped (`SNAKELINE_ON_SHUTDOWN`) everything else is answered as ever, and who follows a log sees its
    end. Then streams end, what is being answered is finished within seconds, and `run` returns: the
    signal is not raised again, the exit code is ours. A second signal lets the jobs go at once.
    """

    def __init__(
        self, app: Application, runner: Runner, held_stop: HeldStop, *, started: Callable[[], None]
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol_with(app.connections),
                loop="uvloop",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=_LAST_ANSWERS_S,
            )
        )
        self._app = app
        self._runner = runner
        self._held_stop = held_stop
        self._on_started = started
        self._told_to_stop = False
        self.exit_code = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            # What is there now stays: a full collection need not walk over it again, tens of
            # milliseconds each time.
            gc.collect()
            gc.freeze()
            if self._runner.monitor is not None:
                self._loop.add_reader(self._runner.monitor.pidfd, self._monitor_gone)
            self._on_started()
            if self._held_stop.came:
                self.handle_exit(signal.SIGTERM, None)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        if self._loop is None:  # jobs run already, and nobody could wind that down yet
            self._held_stop.note(sig, frame)
            return
        self._loop.call_soon_threadsafe(self._wind_down, self._told_to_stop)
        self._told_to_stop = True

    def _monitor_gone(self) -> None:
        """Without it no job can be started, or ended for certain, and only a start as root gets another."""
        assert self._loop is not None
        assert self._runner.monitor is not None
        self._loop.remove_reader(self._runner.monitor.pidfd)
        _log.error("monitor.ended", detail="The service has to be started again; jobs go on meanwhile.")
        self.exit_code = EXIT_MONITOR_ENDED
        self.should_exit = True
        self._app.stop.set()

    def _wind_down(self, hurry: bool) -> None:  # noqa: FBT001 - a callback's form
        if self._runner.wind_down() or hurry:
            self.should_exit = True
            self._app.stop.set()
        elif not self.should_exit and self._loop is not None:
            self._loop.call_later(_LOOK_EVERY_S, self._wind_down, False)


def serve(settings: ServiceSettings) -> int:
    """Run the service until SIGTERM or SIGINT; the exit code.

    0 after an orderly stop; 1 when the privileged monitor has ended, to be started again; 2, with one line
    on stderr, when it cannot start: the address is taken, or the data directory or the store cannot be used.
    """
    held_stop = HeldStop()
    held_stop.heed()
    hide_memory()
    configure_logging(settings.log_level, settings.log_format)
    log_crashes()
    try:
        listener = listen(settings.host, settings.port)
    except OSError as error:
        address, reason = f"{settings.host}:{settings.port}", error.strerror or str(error)
        return _cannot_start(
            f"cannot listen on {address}: {reason}; set SNAKELINE_PORT or SNAKELINE_HOST to another"
        )
    with listener:
        try:
            wanted = settings.runner()
            runner = build_runner(wanted, isolate(wanted))
        except (RunnerError, OSError) as error:
            return _cannot_start(" ".join(str(error).split()))
        try:
            try:
                first_key = make_first_key(runner.access) if auth_mode(settings) == "keys" else None
                runner.start()
            except RunnerError as error:
                return _cannot_start(" ".join(str(error).split()))
            server = Server(
                create_app(runner, settings),
                runner,
                held_stop,
                started=lambda: _announce(settings, runner, listener, first_key),
            )
            server.run(sockets=[listener])
        finally:
            runner.close()
    _log.info("stopped")
    return server.exit_code


def _cannot_start(reason: str) -> int:
    sys.stderr.write(f"snakeline: {reason}\n")
    return EXIT_CANNOT_START


def _announce(
    settings: ServiceSettings, runner: Runner, listener: socket.socket, first_key: str | None
) -> None:
    """The start-up line: where it is, what runs the jobs, where the data is. And the first key, if made."""
    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    name = runner.service.engine_name
    engine = "mock — a stand-in, no real pipelines run" if name == "mock" else name
    line = f"Snakeline is at {address} · engine: {engine} · data: {settings.data_dir.absolute()}\n"
    if first_key is not None:
        # On standard output alone, where whoever starts the service looks; never in the log.
        line += (
            "There was no good API key, so here is one for everything. It is shown this once:\n"
            f"  {first_key}\n"
            "Make others with `snakeline keys create`, then revoke this one.\n"
        )
    _log.info("authentication", mode=auth_mode(settings))
    sys.stdout.buffer.write(line.encode())
    sys.stdout.flush()
