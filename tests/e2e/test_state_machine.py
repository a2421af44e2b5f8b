"""One state machine over a real service: what it says is never contradicted by what was done or by /proc."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.service_machine import ServiceMachine

if TYPE_CHECKING:
    from pathlib import Path

Recorder = Callable[[str, object], None]

_EXAMPLES: Final = 2
_SEED: Final = 4
_SOAK_EXAMPLES: Final = 10
# No shrinking: processes do not repeat themselves to the letter, and each try takes seconds.
_COMMON: Final = settings(
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


def _run(directory: Path, seed: int, *, examples: int, steps: int) -> Counter[str]:
    class Machine(ServiceMachine):
        pass

    Machine.directory = directory
    Machine.done = Counter()
    Machine.failures = []
    profile = settings(_COMMON, max_examples=examples, stateful_step_count=steps)
    try:
        run_state_machine_as_test(hypothesis.seed(seed)(Machine), settings=profile)
    except Exception:
        if Machine.failures:  # hypothesis tells of its repetition, which may have gone another way
            raise Machine.failures[0] from None
        raise
    return Machine.done


def _tell(done: Counter[str], record_property: Recorder, *, seeds: str, examples: int) -> None:
    print(f"{seeds}:", ", ".join(f"{name}: {number}" for name, number in sorted(done.items())))  # noqa: T201
    for name in ("full disks", "clocks set"):
        if not done[name]:
            print(f"{name}: left out, nothing here can do that")  # noqa: T201
    for name, number in done.items():
        record_property(name, number)
    assert done["examples read to the end"] == examples
    assert done["kills of the service"] > 0


@pytest.mark.timeout(300)
def test_no_step_makes_the_service_contradict_what_was_done(
    tmp_path: Path, record_property: Recorder
) -> None:
    done = _run(tmp_path, _SEED, examples=_EXAMPLES, steps=24)
    _tell(done, record_property, seeds=f"seed {_SEED}", examples=_EXAMPLES)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_no_step_makes_the_service_contradict_what_was_done_over_a_long_time(
    tmp_path: Path, record_property: Recorder, pytestconfig: pytest.Config
) -> None:
    """Every round has another seed, which is printed: a failure is repeated by `--soak-seed`."""
    until = time.monotonic() + 60 * float(pytestconfig.getoption("--soak-minutes"))
    given = pytestconfig.getoption("--soak-seed")
    done: Counter[str] = Counter()
    rounds = 0
    while not rounds or (given is None and time.monotonic() < until):
        seed = random.randrange(2**32) if given is None else int(given)
        print(f"seed {seed}")  # noqa: T201 - to repeat it
        rounds += 1
        done += _run(tmp_path, seed, examples=_SOAK_EXAMPLES, steps=40)
    _tell(done, record_property, seeds=f"{rounds} seeds", examples=rounds * _SOAK_EXAMPLES)
