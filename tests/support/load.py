"""Continuous load: several callers who submit, and repeat what was not answered."""

from __future__ import annotations

import random
import threading
from functools import partial
from typing import TYPE_CHECKING, Final, Self

import httpx2

from tests.support.planned_jobs import Plan
from tests.support.server import START_TIMEOUT_S
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from tests.support.service_under_fire import ServiceUnderFire

_CALLERS: Final = 3
_LONGEST_JOB_S: Final = 0.3


class Load:
    """Submits planned jobs until told to finish; each has an Idempotency-Key and is repeated until answered.

    `acknowledged` is the plan of each job that was answered 201, by its id. Only the death of the service
    excuses a request without an answer; everything else is a failure, raised by `finish`.
    """

    def __init__(self, service: ServiceUnderFire, count: Path, *, seed: int, pace_s: float) -> None:
        self.acknowledged: dict[str, Plan] = {}
        self.broken_off = 0
        self._service = service
        self._count = count
        self._pace_s = pace_s
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._abandoned = False
        self._failures: list[str] = []
        self._threads = [
            threading.Thread(target=self._call, args=(n, f"{seed}/{n}")) for n in range(_CALLERS)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._abandoned = True
        self._end()

    def finish(self) -> None:
        """Let every caller get the answer it waits for, and end."""
        self._end()
        assert not self._failures, self._failures

    def _end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _call(self, number: int, seed: str) -> None:
        dice = random.Random(seed)
        sent = 0
        try:
            while not self._over.wait(self._pace_s):
                sent += 1
                plan = Plan(
                    exit_code=dice.choice([0, 0, 0, 1, 3, 77, 255]),
                    output_bytes=16 * dice.choice([0, 1, 50, 3000]),
                    seconds=round(dice.uniform(0, _LONGEST_JOB_S), 3),
                    count=self._count,
                )
                self._until_answered(plan, key=f"caller-{number}-{sent}")
        except AssertionError as failure:
            self._failures.append(str(failure))

    def _until_answered(self, plan: Plan, *, key: str) -> None:
        tried = ""
        while not self._abandoned:
            url = wait_until(
                partial(self._next_url, tried),
                timeout_s=START_TIMEOUT_S,
                what=f"a service after {tried or 'the start'}",
            )
            if self._abandoned:
                return
            try:
                answer = httpx2.post(
                    f"{url}/jobs",
                    json=plan.body,
                    headers={"Idempotency-Key": key},
                    timeout=30,
                    trust_env=False,
                )
            except httpx2.TransportError:
                self.broken_off += 1
                tried = url
                continue
            assert answer.status_code == 201, answer.text
            with self._lock:
                self.acknowledged[answer.json()["id"]] = plan
            return

    def _next_url(self, tried: str) -> str:
        """Where a service is that has not been tried yet; anything once nobody cares any more."""
        url = self._service.url
        return "abandoned" if self._abandoned else "" if url == tried else url
