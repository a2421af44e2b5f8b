"""`serve --restart`: a small process that starts the service again when it crashed. Jobs go on meanwhile.

A container ends with its first process, and its jobs with it: so that one must not be the service. This
one uses the standard library alone, and the interpreter without `site`: it is there for as long as the
service, and has next to nothing that could break.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_CANNOT_START: Final = 2
MAX_CRASHES: Final = 5
WITHIN_S: Final = 60.0
FIRST_PAUSE_S: Final = 0.25
RETRY_S: Final = 2.0
_STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_PASSED_ON: Final = (*_STOPPING, signal.SIGUSR1, signal.SIGUSR2)
_HELD_BACK: Final = frozenset((signal.SIGTERM, signal.SIGINT))
"""From a service that starts after a crash, until it can heed them: see api/held_stop.py."""
_STDERR: Final = 2
_PATIENCE_S: Final = 0.5
_RESET_BY_PYTHON: Final = (signal.SIGPIPE, signal.SIGXFSZ)


class _Log:
    """One line in the form of the service's own log (api/log_format.py); a sentence on a terminal."""

    def error(self, event: str, *, crashes: int, detail: str) -> None:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        fields = {"crashes": crashes, "detail": detail, "event": event, "level": "error", "timestamp": at}
        line = f"snakeline: {detail}" if os.isatty(_STDERR) else json.dumps(fields)
        writable = select.poll()
        writable.register(_STDERR, select.POLLOUT)
        if not writable.poll(_PATIENCE_S * 1000):
            return  # who reads it has stopped reading: no reason to stop, too
        try:
            os.write(_STDERR, f"{line}\n".encode())
        except OSError:
            return  # nobody reads it: no reason to end


_log = _Log()


def become_restarter() -> NoReturn:
    """Be the restarter of `snakeline serve` from here on, by exec: what was imported so far is let go."""
    service = [sys.executable, "-P", "-m", "snakeline", "serve"]
    os.execv(sys.executable, [sys.executable, "-I", "-S", os.path.abspath(__file__), *service])


class Restarter:
    """Runs `command` until it ends by itself or is told to stop, again after each crash.

    A crash is an end by a signal or with a code other than 0 and 2. A code 2 (it cannot start) is one only
    after a crash: it could start before, so what is in its way may pass. Where not even a process can be
    made for it, after a crash, that is tried for as long as it takes: jobs may have taken all there were.

    Told to stop while none runs, or by a signal that came too late for one that crashed, it starts one more
    that stops at once: jobs run, and what becomes of them is the service's to say.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        # Who starts us with a signal ignored (nohup) does not want it heeded.
        self._heeded = {s for s in _PASSED_ON if signal.getsignal(s) != signal.SIG_IGN} | {signal.SIGCHLD}
        self._crashes: list[float] = []
        self._crashed_before = False

    def run(self) -> int:
        """The service's exit code, 128 + N where signal N ended it; gives up after `MAX_CRASHES`."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # Blocked, and taken one by one: nothing is missed between two of them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self._heeded)
        try:
            return self._run(before)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _run(self, mask: set[int | signal.Signals]) -> int:
        stopping: int | None = None
        while True:
            pid = self._spawn(mask)
            if pid is None:
                if not self._crashed_before:
                    return EXIT_CANNOT_START
                if stopping is not None:
                    return 128 + stopping
                stopping = self._pause(RETRY_S)
                continue
            only_to_stop = stopping is not None
            code, told = self._wait_for(pid, stop_at_once=only_to_stop)
            if only_to_stop or code == 0 or (code == EXIT_CANNOT_START and not self._crashed_before):
                return _exit_code(code)
            if told is not None and (code > 0 or -code == told):
                return _exit_code(code)
            mask = mask | (self._heeded & _HELD_BACK)
            self._note_crash()
            crashes = len(self._crashes)
            if told is not None:
                stopping = told
                detail = f"The service ended {_how(code)} before it could stop. Another starts for that."
                _log.error("service.crashed", crashes=crashes, detail=detail)
                continue
            if crashes >= MAX_CRASHES:
                often = f"crashed {crashes} times within {WITHIN_S:.0f} s"
                detail = f"The service {often}, the last time {_how(code)}: it is given up."
                _log.error("service.given_up", crashes=crashes, detail=detail)
                return _exit_code(code)
            pause_s = FIRST_PAUSE_S * 2 ** (crashes - 1)
            detail = f"The service ended {_how(code)}. Another starts in {pause_s:g} s; jobs go on."
            _log.error("service.crashed", crashes=crashes, detail=detail)
            stopping = self._pause(pause_s)

    def _spawn(self, mask: set[int | signal.Signals]) -> int | None:
        """The service's pid; None where no process can be made."""
        try:
            return os.posix_spawn(
                self._command[0],
                self._command,
                os.environ,  # noqa: TID251 - handed on
                # A group of its own: Ctrl-C in a terminal is for us, who pass it on, once.
                setpgroup=0,
                setsigmask=mask,
                setsigdef=_RESET_BY_PYTHON,
            )
        except OSError as error:
            told = f"No process can be made for the service: {error.strerror}."
            _log.error("service.not_started", crashes=len(self._crashes), detail=told)
            return None

    def _wait_for(self, pid: int, *, stop_at_once: bool) -> tuple[int, int | None]:
        """Its exit code, or the negative of the signal that ended it, and the signal that told it to stop."""
        pidfd = os.pidfd_open(pid)  # nobody else waits for it: it is that process
        told: int | None = None
        try:
            if stop_at_once:
                signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            while True:
                arrived = signal.sigwait(self._heeded)
                if arrived == signal.SIGCHLD:
                    ended, status = os.waitpid(pid, os.WNOHANG)
                    if ended:
                        return os.waitstatus_to_exitcode(status), told
                else:
                    if arrived in _STOPPING:
                        told = arrived
                    signal.pidfd_send_signal(pidfd, arrived)
        finally:
            os.close(pidfd)

    def _note_crash(self) -> None:
        now = time.monotonic()
        self._crashes = [at for at in self._crashes if now - at < WITHIN_S] + [now]
        self._crashed_before = True

    def _pause(self, pause_s: float) -> int | None:
        """Wait before the next start; the number of a signal to stop, if one comes meanwhile."""
        until = time.monotonic() + pause_s
        while (left := until - time.monotonic()) > 0:
            arrived = signal.sigtimedwait(self._heeded, left)
            if arrived is not None and arrived.si_signo in _STOPPING:
                return arrived.si_signo
        return None


def _exit_code(code: int) -> int:
    return code if code >= 0 else 128 - code


def _how(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"


if __name__ == "__main__":
    sys.exit(Restarter(sys.argv[1:]).run())
