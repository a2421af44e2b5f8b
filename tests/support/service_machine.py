"""A hypothesis state machine over a real service process: what is done to it, step by step."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx2
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from runner.attempt_files import AttemptFiles
from tests.support import job_processes, mounts
from tests.support.job_model import TERMINAL, check_events
from tests.support.machine_state import DEADLINE_S, MachineState
from tests.support.machine_steps import Failed, told
from tests.support.wait import wait_until

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


class ServiceMachine(MachineState):
    """Submits, cancels, retries, kills."""

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
            wait_until(lambda: self._attempt_at_work(job), timeout_s=DEADLINE_S, what=f"the start of {job}")
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

    @precondition(lambda self: self.clock is not None and self.jumps_left and self._may_wait())
    @rule(days=st.sampled_from([-10.0, -0.5, 0.0, 0.5, 10.0]))
    @told
    def set_the_clock(self, days: float) -> None:
        assert self.clock is not None
        self.jumps_left -= 1
        self.clock.jump(days)
        self.done["clocks set"] += 1

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
            wait_until(self._all_ended, timeout_s=DEADLINE_S, what="every job to end")
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
