"""A hypothesis state machine over a real service process, and what is checked after its every step."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, ClassVar, Final

import httpx2
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runner.attempt_files import AttemptFiles
from tests.support import faketime, job_processes, mounts
from tests.support.job_model import TERMINAL, ModelJob, check_events
from tests.support.machine_steps import Failed, told
from tests.support.planned_jobs import Plan, Starts, make_workflows
from tests.support.service_under_fire import ServiceUnderFire
from tests.support.wait import wait_until

_DISK: Final = "size=80m"  # the service wants 64 MiB free before it accepts a job
_DEADLINE_S: Final = 20.0
_STEPS_FULL: Final = 4
_MOST_OF_EACH: Final = 3
_SETTINGS: Final = {"MAX_CORES": "200", "STOP_GRACE_S": "1"}  # no job ever waits for a core

JOBS = st.integers(0, 63)
"""Which job a rule is about: the number is wrapped around those there are."""

WISHES = st.fixed_dictionaries(
    {
        "holds": st.booleans(),
        "exit_code": st.sampled_from([0, 0, 3, 255]),
        "output_bytes": st.sampled_from([64, 0, 160_000]),
        "children": st.sampled_from([0, 2]),
        "max_retries": st.sampled_from([0, 0, 2]),
        "retry_lost": st.booleans(),
    }
)
"""What a job shall do."""


class ServiceMachine(RuleBasedStateMachine):
    """Submits, cancels, retries, kills; one service at a time, on one data directory per example."""

    directory: ClassVar[Path]
    """Below it every example makes a folder of its own."""
    done: ClassVar[Counter[str]]
    """What all examples together did."""
    failures: ClassVar[list[Failed]]
    """The first thing that went wrong: after it every example ends at once, with the same."""

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

    # ------------------------------------------------------------ what callers do

    @initialize(wishes=st.lists(WISHES, min_size=3, max_size=3))
    @told
    def submit_the_first(self, wishes: list[dict[str, Any]]) -> None:
        self._start()
        self.submit(wishes=wishes, twice=True)

    @precondition(lambda self: self.is_up)
    @rule(wishes=st.lists(WISHES, min_size=1, max_size=3), twice=st.booleans())
    @told
    def submit(self, wishes: list[dict[str, Any]], *, twice: bool) -> None:
        for wish in wishes:
            key, plan = self._next(wish)
            self._sent(key, plan)
            if twice and not self.disk_is_full:
                again = self.service.submit(plan.body, key=key)
                assert again.json()["id"] == self.jobs[-1].id, "one key made two jobs"

    @precondition(lambda self: self.is_up and not self.disk_is_full)
    @rule(wish=WISHES, after_s=st.floats(0, 0.03))
    @told
    def kill_the_service_during_a_submission(self, wish: dict[str, Any], after_s: float) -> None:
        key, plan = self._next(wish)
        self.in_doubt[key] = plan
        answers: list[httpx2.Response] = []

        def send() -> None:
            with suppress(httpx2.TransportError):
                answers.append(httpx2.post(url, json=plan.body, headers={"Idempotency-Key": key}, timeout=30))

        url = f"{self.service.url}/jobs"
        sender = threading.Thread(target=send)
        sender.start()
        self.service.run_for(after_s)
        self._kill_service()
        sender.join()
        for answer in answers:
            self._acknowledged(key, plan, answer)

    @precondition(lambda self: self.is_up and self.jobs)
    @rule(number=JOBS, then=st.sampled_from(["wait", "go on", "kill the service"]))
    @told
    def cancel(self, number: int, then: str) -> None:
        job = self._job(number, "pending", "running")
        answer = self.service.client.post(f"/jobs/{job.id}/cancel")
        if then == "kill the service":
            self._kill_service()
        assert answer.status_code in self._possible(202, 409), answer.text
        if answer.status_code == 409:
            assert answer.json()["job_status"] in TERMINAL
        if answer.status_code == 202:
            job.cancelled.add(answer.json()["attempt"])
            if then == "wait" and not self.disk_is_full:
                self._until_ended(job)

    @precondition(lambda self: self.is_up and self.jobs)
    @rule(number=JOBS, callers=st.sampled_from([1, 4]))
    @told
    def retry(self, number: int, callers: int) -> None:
        """Several callers at once make one new attempt, unless one of them comes after that has ended."""
        job = self._job(number, "failed", "cancelled")
        before = self.service.job(job.id)
        self._hold_against(job, before)
        with ThreadPoolExecutor(callers) as pool:
            asked = [pool.submit(self.service.client.post, f"/jobs/{job.id}/retry") for _ in range(callers)]
        answers = [future.result() for future in asked]
        assert all(answer.status_code in self._possible(202, 409) for answer in answers), answers
        made = sorted(answer.json()["attempt"] for answer in answers if answer.status_code == 202)
        assert len(set(made)) == len(made), f"one new attempt was given to several: {made}"
        if made:
            has_ended = before["status"] in TERMINAL or job.will_end(before["attempt"])
            assert has_ended or before["attempt"] in job.short_of_space, f"it was still at work: {before}"
        job.retried |= {attempt - 1 for attempt in made}
        if self.disk_is_full:
            job.short_of_space |= set(made)

    @precondition(lambda self: self.jobs and self._may_wait())
    @rule(number=JOBS)
    @told
    def finish(self, number: int) -> None:
        """Let a held job run to its end, also while no service is there."""
        held = [job for job in self.jobs if self._waits_at_its_hold(job)]
        if held:
            self._release(held[number % len(held)])

    @precondition(lambda self: self.is_up and self.jobs and not self.disk_is_full)
    @rule(number=JOBS)
    @told
    def see_it_end(self, number: int) -> None:
        job = self._job(number)
        shown = self.service.job(job.id)
        if job.will_end(shown["attempt"]):
            self._until_ended(job)

    # ------------------------------------------------------------ what happens to processes

    @precondition(lambda self: self.is_up)
    @rule()
    @told
    def kill_the_service(self) -> None:
        self._kill_service()

    @precondition(lambda self: not self.is_up and not self.disk_is_full)
    @rule()
    @told
    def start_the_service(self) -> None:
        self._start()

    @precondition(lambda self: self.is_up and not self.disk_is_full)
    @rule()
    @told
    def restart(self) -> None:
        assert self.service.stop() == 0
        self.done["restarts"] += 1
        self._start()

    @precondition(lambda self: self.is_up)
    @rule()
    @told
    def kill_the_launcher(self) -> None:
        pid = self.service.launcher_pid()
        if pid is not None and job_processes.kill_and_wait(pid, job_processes.title_of(pid)):
            self.done["kills of the launcher"] += 1

    @precondition(lambda self: self.is_up and not self.disk_is_full)
    @rule(wish=WISHES)
    @told
    def kill_the_service_while_its_launcher_lags_behind(self, wish: dict[str, Any]) -> None:
        """The next service launches the job first; then the launcher comes to what it was asked for."""
        pid = wait_until(self.service.launcher_pid, what="the launcher")
        assert pid is not None
        with job_processes.stalled(pid):
            self._sent(*self._next(wish))
            job = self.jobs[-1]
            files = AttemptFiles.of(self.service.data_dir, job.id, 1)
            wait_until(lambda: os.path.exists(files.spec), what="the launch to be asked for")
            self._kill_service()
            self._start()
            wait_until(lambda: self._attempt_at_work(job), timeout_s=_DEADLINE_S, what=f"the start of {job}")
        wait_until(lambda: not job_processes.title_of(pid), what="the launcher to be gone")
        self.done["launchers left behind"] += 1

    @precondition(lambda self: self.jobs and self._may_wait())
    @rule(number=JOBS)
    @told
    def kill_a_shim(self, number: int) -> None:
        by_id = {job.id: job for job in self.jobs}
        ours = sorted((key, pid) for key, pid in job_processes.shims().items() if key[0] in by_id)
        if not ours:
            return
        (job_id, attempt), pid = ours[number % len(ours)]
        files = AttemptFiles.of(self.service.data_dir, job_id, attempt)
        found = job_processes.kill_frozen(
            pid,
            f"snakeline: shim of job {job_id}/{attempt}",
            lambda: (os.path.lexists(files.started), os.path.lexists(files.exit)),
        )
        self.done["kills of a shim"] += found is not None
        if found == (True, False):
            by_id[job_id].lost.add(attempt)

    # ------------------------------------------------------------ what happens to the machine

    @precondition(
        lambda self: self.disk is not None and self.jobs and self.fills_left and not self.disk_is_full
    )
    @rule()
    @told
    def fill_the_disk(self) -> None:
        assert self.disk is not None
        self.disk_is_full = True
        self.fills_left -= 1
        self.steps_full = 0
        self._note_short_of_space()
        self.filler = mounts.fill(self.disk)
        self.done["full disks"] += 1

    @precondition(lambda self: self.disk_is_full)
    @rule()
    @told
    def free_the_disk(self) -> None:
        self._note_short_of_space()
        self.filler.unlink()
        self.disk_is_full = False
        if self.is_up:
            self._until_ready()

    @precondition(lambda self: self.clock is not None and self.jumps_left and self._may_wait())
    @rule(days=st.sampled_from([-10.0, -0.5, 0.0, 0.5, 10.0]))
    @told
    def set_the_clock(self, days: float) -> None:
        assert self.clock is not None
        self.jumps_left -= 1
        self.clock.jump(days)
        self.done["clocks set"] += 1

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

    # ------------------------------------------------------------ the end of an example

    def teardown(self) -> None:
        with self.stack:
            try:
                error = sys.exc_info()[1]
                if error is None:
                    self._end_well()
            except Exception as trouble:
                error = trouble
                raise
            finally:
                if isinstance(error, Exception):
                    steps = "\n  ".join(self.steps)
                    self.failures.append(Failed(f"{type(error).__name__}: {error}\nAfter\n  {steps}"))
                self._leave_nothing_running()

    def _end_well(self) -> None:
        """Everything that is not held for ever ends, as it must; then all that was stored is read."""
        if self.disk_is_full:
            self.free_the_disk()
        if not self.is_up:
            self._start()
        for job in self.jobs:
            if self.service.job(job.id)["attempt"] in job.cancelled:
                self._until_ended(job)  # a cancel is not forgotten
        try:
            wait_until(self._all_ended, timeout_s=_DEADLINE_S, what="every job to end")
        except AssertionError as late:
            raise AssertionError(f"{late}: {self.active}; {self.jobs}") from None
        self.nothing_is_contradicted()
        for job in self.jobs:
            for attempt in range(1, self.service.job(job.id)["attempt"]):
                self._check_log(job, attempt)
        assert self.service.stop() == 0
        self.is_up = False
        check_events(self.jobs, self.service.data_dir / "snakeline.db")
        self.done["jobs"] += len(self.jobs)
        self.done["attempts"] += sum(max(job.seen) for job in self.jobs)
        self.done["lost as expected"] += sum(len(job.lost) for job in self.jobs)
        self.done["examples read to the end"] += 1

    def _all_ended(self) -> bool:
        self.active = [shown for shown in self.service.jobs() if shown["status"] not in TERMINAL]
        for job in self.jobs:
            self._released(job)
        return not self.active

    def _leave_nothing_running(self) -> None:
        if self.service.is_started:
            self.service.kill()
        ids = {job.id for job in self.jobs}

        def none_left() -> bool:
            left = [pid for job_id, pids in job_processes.by_job().items() if job_id in ids for pid in pids]
            for pid in left:
                job_processes.kill_and_wait(pid, job_processes.title_of(pid))
            return not left

        wait_until(none_left, what="the jobs' processes to be gone")

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
            timeout_s=_DEADLINE_S,
            what="the service to heal",
        )

    def _until_ended(self, job: ModelJob) -> None:
        """Until the job has ended, or is at an attempt that is held."""

        def over() -> bool:
            shown = self.service.job(job.id)
            self._hold_against(job, shown)
            return shown["status"] in TERMINAL or not job.will_end(shown["attempt"])

        wait_until(over, timeout_s=_DEADLINE_S, what=f"the end of {job}")

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
