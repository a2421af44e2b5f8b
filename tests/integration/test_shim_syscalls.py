"""The shim ended before each of its calls, and each of them failing: no wrong result, no second start."""

from __future__ import annotations

import contextlib
import errno
import os
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import pytest

from runner.ports import Ended, Lost, NotStarted
from tests.support import tracing
from tests.support.attempts import Attempts
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runner.ports import Handle, Observation

EXIT_CODE = 7
NEVER_FAIL = ("getpid", "sigreturn", "exit_group")


@dataclass
class Seen:
    """One attempt, followed until its shim was gone."""

    handle: Handle
    spoilt: tracing.Call | None = None  # the call that was not made, or failed
    made: list[tracing.Call] = field(default_factory=list)

    def has(self, name: str, file: str) -> bool:
        return any(call.name == name and call.path.endswith(f"/attempts/1/{file}") for call in self.made)

    @property
    def is_marked(self) -> bool:
        return self.has("openat", "started")

    @property
    def is_recorded(self) -> bool:
        return self.has("rename", "exit.json")


class Laboratory:
    """Runs one attempt after another under the tracer, each a job that counts its starts and exits with 7."""

    def __init__(self, folder: Path, *, warm: bool) -> None:
        self.counts = folder / "counts"
        self.counts.mkdir()
        self._traced = folder / "traced"
        (folder / "data").mkdir()
        self._warm = warm
        self.attempts = Attempts(folder / "data", warm=True, preload=f"support.tracing:{self._traced}")

    def close(self) -> None:
        self.attempts.close()

    def run(self, name: str, spoil: Callable[[tracing.Tracee, tracing.Call, int], bool]) -> Seen:
        """`spoil` is asked before each call, by its number from 0, and says whether it did anything."""
        self._traced.touch()
        seen = Seen(self.launch(name))
        tracee = tracing.Tracee(self.attempts.until_running(seen.handle))
        self._traced.unlink()
        for number, call in enumerate(tracee.calls()):
            if spoil(tracee, call, number):
                seen.spoilt = call
            else:
                seen.made.append(call)
        return seen

    def launch(self, name: str) -> Handle:
        if self._warm:
            return self.attempts.launch(
                f"count={self.counts / name}", "out=hello", f"exit={EXIT_CODE}", job_id=name
            )
        script = f"echo $$ >> {self.counts / name}; echo hello; exit {EXIT_CODE}"
        return self.attempts.launch_argv(("/bin/sh", "-c", script), job_id=name)

    def starts(self, name: str) -> int:
        try:
            return len((self.counts / name).read_text().splitlines())
        except FileNotFoundError:
            return 0

    def again(self, name: str) -> Observation:
        return self.attempts.end(self.launch(name))


@pytest.fixture(params=["cold"])
def laboratory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Laboratory]:
    obstacle = tracing.obstacle()
    if obstacle:
        pytest.skip(obstacle)
    with contextlib.closing(Laboratory(tmp_path, warm=request.param == "warm")) as laboratory:
        yield laboratory


def is_gone(handle: Handle) -> bool:
    """Whether no process of the job is left, its shim among them, told by environment or title."""
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit():
                about = b""
                for part in ("environ", "cmdline"):
                    with open(f"/proc/{name}/{part}", "rb") as file:
                        about += file.read()
                if handle.job_id.encode() in about:
                    return False
    return True


def is_result(observation: Observation) -> bool:
    """Whether it is the job's own exit code, told as such."""
    if not isinstance(observation, Ended):
        return False
    record = observation.record
    return (record.exit_code, record.exit_signal, record.launch_error, record.stopped) == (
        EXIT_CODE,
        None,
        None,
        None,
    )


def kill_before_each_call(laboratory: Laboratory, rounds: int = 1) -> Counter[str]:
    """Every call of an attempt's shim, from birth to end, is once the one it does not live to make."""
    tally: Counter[str] = Counter()
    for turn in range(rounds):
        number = 0
        while True:
            name = f"{turn}-{number}"

            def kill(tracee: tracing.Tracee, _: tracing.Call, at: int, number: int = number) -> bool:
                if at == number:
                    tracee.kill()
                return at == number

            seen = laboratory.run(name, kill)
            observed = laboratory.attempts.end(seen.handle)
            if seen.spoilt is None:
                assert is_result(observed)
                break
            where = f"killed before call {number}, {seen.spoilt}: {observed}"
            # What its calls have left says exactly what must be told.
            if seen.is_recorded:
                assert is_result(observed), where
            elif seen.is_marked:
                assert isinstance(observed, Lost), where
            else:
                assert isinstance(observed, NotStarted), where
                assert laboratory.starts(name) == 0, where
            tally[type(observed).__name__] += 1
            wait_until(partial(is_gone, seen.handle), what=f"nothing is left: {where}")
            again = laboratory.again(name)
            if isinstance(observed, Lost):
                assert isinstance(again, Lost), where
            else:
                assert is_result(again), where
            started = laboratory.starts(name)
            assert started <= 1, where
            assert started == 1 or isinstance(observed, Lost), where
            number += 1
        tally["cases"] += number
    return tally


def told(tally: Counter[str], record_property: Callable[[str, object], None], what: str) -> None:
    line = f"{what}: " + ", ".join(f"{count} {name}" for name, count in sorted(tally.items()))
    record_property(what, line)
    print(line + ", 0 wrong, 0 started twice")  # noqa: T201 - quoted in the promises


@pytest.mark.timeout(400)
def test_a_shim_killed_before_any_one_of_its_calls_costs_no_result_and_starts_nothing_twice(
    laboratory: Laboratory, record_property: Callable[[str, object], None]
) -> None:
    tally = kill_before_each_call(laboratory)
    told(tally, record_property, "shim killed at every call")
    assert tally["cases"] > 80
    assert min(tally["NotStarted"], tally["Lost"], tally["Ended"]) > 0


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("laboratory", ["warm", "cold"], indirect=True)
def test_a_shim_killed_before_its_calls_again_and_again_costs_no_result(
    laboratory: Laboratory, record_property: Callable[[str, object], None]
) -> None:
    told(kill_before_each_call(laboratory, rounds=20), record_property, "shim killed at every call, 20 times")


# ---------------------------------------------------------------- calls that fail


def fail_each_call(laboratory: Laboratory, error: int) -> Counter[str]:
    """Every call of an attempt's shim fails once; whatever is made of it, it is true."""
    tally: Counter[str] = Counter()
    number = 0
    while True:
        name = f"{errno.errorcode[error]}-{number}"

        def fail(tracee: tracing.Tracee, call: tracing.Call, at: int, number: int = number) -> bool:
            if at == number and call.name not in NEVER_FAIL:
                tracee.fail(error)
            return at == number

        seen = laboratory.run(name, fail)
        observed = laboratory.attempts.end(seen.handle)
        if seen.spoilt is None:
            return tally
        where = f"{errno.errorcode[error]} from call {number}, {seen.spoilt}: {observed}"
        wait_until(partial(is_gone, seen.handle), what=f"nothing is left: {where}")
        match observed:
            case NotStarted():
                assert laboratory.starts(name) == 0, where
                observed = laboratory.again(name)
                assert is_result(observed), where
            case Ended(record) if record.launch_error is not None:
                assert laboratory.starts(name) == 0, where
                tally["launch failed"] += 1
            case Ended():
                assert is_result(observed), where
                assert laboratory.starts(name) == 1, where
            case _:
                assert isinstance(observed, Lost), where
        assert laboratory.starts(name) <= 1, where
        tally[type(observed).__name__] += 1
        tally["cases"] += 1
        number += 1


def soak(number: int) -> object:
    return pytest.param(number, marks=pytest.mark.soak)


@pytest.mark.parametrize(
    "error", [errno.EIO, *map(soak, (errno.ENOSPC, errno.EROFS, errno.EMFILE, errno.ENOMEM, errno.EAGAIN))]
)
@pytest.mark.timeout(400)
def test_whichever_call_of_the_shim_fails_no_result_is_invented_and_nothing_starts_twice(
    laboratory: Laboratory, record_property: Callable[[str, object], None], error: int
) -> None:
    tally = fail_each_call(laboratory, error)
    told(tally, record_property, f"{errno.errorcode[error]} from every call")
    assert tally["cases"] > 80
