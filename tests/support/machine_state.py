"""What a state machine over a service knows: what was done to it, and what must hold after every step."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support import faketime, job_processes, mounts
from tests.support.job_model import TERMINAL, ModelJob
from tests.support.machine_steps import Failed, told
from tests.support.planned_jobs import Plan, Starts, make_workflows
from tests.support.service_under_fire import ServiceUnderFire
from tests.support.wait import wait_until

if TYPE_CHECKING:
    import httpx2

DEADLINE_S: Final = 20.0
_DISK: Final = "size=80m"  # the service wants 64 MiB free before it accepts a job
_STEPS_FULL: Final = 4
_MOST_OF_EACH: Final = 3
_SETTINGS: Final = {"MAX_CORES": "200", "STOP_GRACE_S": "1"}  # no job ever waits for a core


class MachineState(RuleBasedStateMachine):
    """One service at a time, on one data directory per example, and a model of each job."""

    directory: ClassVar[Path]
    """Below it every example makes a folder of its own."""
    done: ClassVar[Counter[str]]
    """What all examples together did."""
    failures: ClassVar[list[Failed]]
    """The first thing that went wrong: after it every example ends at once, with the same."""

    filler: Path
    """What fills the disk while it is full."""

    def __init__(self) -> None:
        super().__init__()
        if self.failures:
            raise self.failures[0]
        self.steps: list[str] = []
        self.stack = ExitStack()
        folder = Path(tempfile.mkdtemp(dir=self.directory))
        self.folder = folder
        self.disk: Path | None = None
        with suppress(pytest.skip.Exception):  # then disks never fill up
            self.disk = self.stack.enter_context(mounts.small_disk(folder / "data", options=_DISK))
        self.clock: faketime.SetClock | None = None
        if faketime.compiler() is not None:
            self.clock = faketime.SetClock(folder)
            self.stack.callback(self.clock.close)
        self.service = self.stack.enter_context(
            ServiceUnderFire(
                folder,
                _SETTINGS | {"WORKFLOWS_DIR": str(make_workflows(folder))},
                environment=self.clock.environment if self.clock else {},
            )
        )
        self.starts = Starts(folder / "starts")
        self.jobs: list[ModelJob] = []  # in the order of their acknowledgement
        self.in_doubt: dict[str, Plan] = {}  # by key: sent, and not answered
        self.sent = 0
        self.disk_is_full = False
        self.active: list[dict[str, Any]] = []
        self.is_up = False
        self.steps_away = 0
        self.steps_full = 0
        self.fills_left = self.jumps_left = _MOST_OF_EACH
        self.done["examples"] += 1

    # ------------------------------------------------------------ what is checked after every step

    @invariant()
    def nothing_is_contradicted(self) -> None:
        self.done["steps"] += 1
        counted = self.starts.counted()
        assert not [key for key, times in counted.items() if times > 1], counted
        if not self.is_up:
            self.steps_away += 1
        else:
            self._ask_the_service(counted)
        self._pass_the_time()

    def _pass_the_time(self) -> None:
        """A disk does not stay full for long."""
        self.steps_full += self.disk_is_full
        if self.disk_is_full and self.steps_full >= _STEPS_FULL:
            self.free_the_disk()

    @precondition(lambda self: self.disk_is_full)
    @rule()
    @told
    def free_the_disk(self) -> None:
        self._note_short_of_space()
        self.filler.unlink()
        self.disk_is_full = False
        if self.is_up:
            self._until_ready()

    def _ask_the_service(self, counted: Counter[tuple[str, int]]) -> None:
        stored = {shown["id"]: shown for shown in self.service.jobs()}
        processes = job_processes.by_job()
        ids = [job.id for job in self.jobs]
        assert [job_id for job_id in stored if job_id in set(ids)] == ids, "lost, or out of order"
        assert len(stored) <= len(ids) + len(self.in_doubt), "more jobs than were asked for"
        for job in self.jobs:
            shown = stored[job.id]
            self._hold_against(job, shown)
            attempts = {attempt for job_id, attempt in counted if job_id == job.id}
            assert max(attempts, default=1) <= shown["attempt"], "an attempt runs that nobody knows of"
            if shown["status"] in TERMINAL:
                assert job.id not in processes, f"it has ended and has processes: {shown}"
                self._check_log(job, shown["attempt"])
            elif shown["status"] == "running" and shown["attempt"] in attempts:
                alive = job.id in processes or job.will_end(shown["attempt"])
                assert alive or shown["attempt"] in job.short_of_space, f"it runs without a process: {shown}"

    def _hold_against(self, job: ModelJob, shown: dict[str, Any]) -> None:
        if self.disk_is_full and shown["status"] not in TERMINAL:
            job.short_of_space |= {shown["attempt"], shown["attempt"] + 1}
        job.hold_against(shown)

    def _check_log(self, job: ModelJob, attempt: int) -> None:
        if attempt not in job.log_checked:
            log = self.service.log_of(job.id, attempt)
            assert job.log_may_be(attempt, log), f"{log[-500:]!r}: {job}"
            job.log_checked.add(attempt)

    # ------------------------------------------------------------ how it is done

    def _may_wait(self) -> bool:
        """Whether a rule that goes without a service may be next: most steps are for when there is one."""
        return self.is_up or self.steps_away < 3

    def _next(self, wish: dict[str, Any]) -> tuple[str, Plan]:
        """The key and the plan of the next submission."""
        self.sent += 1
        wish = dict(wish)
        hold = None
        if wish.pop("holds"):
            hold = self.folder / f"hold-{self.sent}"
            os.mkfifo(hold)
        return f"key-{self.sent}", Plan(count=self.starts.path, hold=hold, **wish)

    def _sent(self, key: str, plan: Plan) -> None:
        answer = self.service.submit(plan.body, key=key)
        if self.disk_is_full:
            assert answer.status_code == 507, answer.text
        else:
            self._acknowledged(key, plan, answer)

    def _acknowledged(self, key: str, plan: Plan, answer: httpx2.Response) -> None:
        assert answer.status_code == 201, answer.text
        self.in_doubt.pop(key, None)
        self.jobs.append(ModelJob(answer.json()["id"], plan))

    def _possible(self, *codes: int) -> tuple[int, ...]:
        return (*codes, 507) if self.disk_is_full else codes

    def _job(self, number: int, *rather: str) -> ModelJob:
        """Rather one that has such a status, if any has."""
        has = {shown["id"] for shown in self.service.jobs() if shown["status"] in rather} if rather else set()
        choice = [job for job in self.jobs if job.id in has] or self.jobs
        return choice[number % len(choice)]

    def _kill_service(self) -> None:
        self.service.kill()
        self.is_up = False
        self.done["kills of the service"] += 1

    def _start(self) -> None:
        self.service.start().until_up()
        self.is_up = True
        self.steps_away = 0
        for key, plan in list(self.in_doubt.items()):
            self._sent(key, plan)  # the caller repeats what was not answered

    def _until_ready(self) -> None:
        wait_until(
            lambda: self.service.client.get("/readyz").status_code == 200,
            timeout_s=DEADLINE_S,
            what="the service to heal",
        )

    def _until_ended(self, job: ModelJob) -> None:
        """Until the job has ended, or is at an attempt that is held."""

        def over() -> bool:
            shown = self.service.job(job.id)
            self._hold_against(job, shown)
            return shown["status"] in TERMINAL or not job.will_end(shown["attempt"])

        wait_until(over, timeout_s=DEADLINE_S, what=f"the end of {job}")

    def _attempt_at_work(self, job: ModelJob) -> int:
        """The newest attempt that has counted its start; 0 before any has."""
        return max((attempt for job_id, attempt in self.starts.counted() if job_id == job.id), default=0)

    def _waits_at_its_hold(self, job: ModelJob) -> bool:
        attempt = self._attempt_at_work(job)
        if job.plan.hold is None or not attempt or job.will_end(attempt):
            return False
        return attempt not in job.seen and attempt not in job.short_of_space

    def _release(self, job: ModelJob) -> None:
        """Open the hold for the attempt that waits there, or will in a moment."""
        wait_until(lambda: self._released(job), what=f"an attempt to be at its hold: {job}")

    def _released(self, job: ModelJob) -> bool:
        """Open the hold if an attempt waits there."""
        try:
            os.close(os.open(job.plan.hold or "", os.O_WRONLY | os.O_NONBLOCK))
        except OSError:  # nobody reads
            return False
        job.released.add(self._attempt_at_work(job))
        self.done["holds released"] += 1
        return True

    def _note_short_of_space(self) -> None:
        for job in self.jobs:
            newest = max(self._attempt_at_work(job), max(job.seen, default=0), 1)
            if newest not in job.seen:
                job.short_of_space |= {newest, newest + 1}
