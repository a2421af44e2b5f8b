"""The service with named points at which it kills itself: `python -m tests.support.service_failpoints FILE`.

It is the whole service, unchanged, until a point's name stands in FILE; then it sends itself SIGKILL when
it next comes to that point.
"""

from __future__ import annotations

import signal
import sys
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.jobs import JobEvent

POINTS: Final = (
    "write-before-begin",
    "write-before-commit",
    "write-after-commit",
    "answer-before-sending",
    "claim-before-write",
    "launch-before-files",
    "launch-after-files",
    "launch-after-request",
    "launch-after-answer",
    "exit-before-write",
    "exit-after-write",
    "cancel-before-signal",
)


def _always(*_: object) -> bool:
    return True


class Failpoints:
    """Whether a point is armed, and the end of the process where it is."""

    def __init__(self, file: str) -> None:
        self._file = file

    def reach(self, name: str) -> None:
        assert name in POINTS
        try:
            with open(self._file, encoding="ascii") as armed:
                hit = armed.read() == name
        except FileNotFoundError:
            return
        if hit:
            signal.raise_signal(signal.SIGKILL)

    def before(self, owner: Any, function: str, name: str, when: Callable[..., bool] = _always) -> None:
        """Come to the point when the function is called; `when` is given its arguments."""
        original = getattr(owner, function)

        @wraps(original)
        def reaching(*args: Any, **named: Any) -> Any:
            if when(*args):
                self.reach(name)
            return original(*args, **named)

        setattr(owner, function, reaching)

    def after(self, owner: Any, function: str, name: str, when: Callable[..., bool] = _always) -> None:
        """Come to the point when the function returns; `when` is given its answer and its arguments."""
        original = getattr(owner, function)

        @wraps(original)
        def reaching(*args: Any, **named: Any) -> Any:
            answer = original(*args, **named)
            if when(answer, *args):
                self.reach(name)
            return answer

        setattr(owner, function, reaching)


def _tell_of_a_change(events: Sequence[JobEvent]) -> bool:
    """Whether more is written than figures of running jobs, which come when they like."""
    return any(event.kind != "progressed" for event in events)


def install(points: Failpoints) -> None:
    """Put every point in its place. A name that is gone from the product is an AttributeError."""
    from api.routes import jobs as routes  # noqa: PLC0415 - what `serve` imports, when it does
    from runner import recorder  # noqa: PLC0415
    from runner.backends.launches import Launches  # noqa: PLC0415
    from runner.backends.local import LocalBackend  # noqa: PLC0415
    from runner.recorder import Recorder  # noqa: PLC0415
    from runner.stores.sql.batch import Batch  # noqa: PLC0415
    from runner.stores.sql.writer import Writer  # noqa: PLC0415
    from runner.supervisor import Supervisor  # noqa: PLC0415

    points.before(Writer, "_transaction", "write-before-begin")
    points.after(Batch, "finish", "write-before-commit", lambda _, batch: _tell_of_a_change(batch.events))
    points.after(Writer, "_transaction", "write-after-commit", lambda told, *_: _tell_of_a_change(told[0]))
    points.before(routes, "job_response", "answer-before-sending")
    points.before(Supervisor, "_claim", "claim-before-write")
    points.before(LocalBackend, "launch", "launch-before-files")
    points.before(Launches, "request", "launch-after-files")
    points.after(Launches, "request", "launch-after-request")
    points.before(LocalBackend, "_keep", "launch-after-answer")
    points.before(Recorder, "write", "exit-before-write", lambda self: bool(self._outcomes))
    points.before(recorder, "log_end", "exit-after-write")
    points.before(Supervisor, "_stop_cancelled", "cancel-before-signal", lambda self: bool(self._asked))


def main(file: str) -> None:
    from snakeline import cli  # noqa: PLC0415

    install(Failpoints(file))
    sys.argv = ["snakeline", "serve"]
    cli.main()


if __name__ == "__main__":
    main(sys.argv[1])
