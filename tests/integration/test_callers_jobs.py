"""The jobs as one caller may see and change them, over a whole runner that starts none of them."""

from __future__ import annotations

import inspect
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from runner.access import OPERATOR, Action, AuditQuery, Caller, Quota, Scope
from runner.bootstrap import build_runner, open_access
from runner.callers_jobs import CallersJobs
from runner.errors import (
    Forbidden,
    IdempotencyMismatch,
    InvalidSpec,
    InvalidTransition,
    JobNotFound,
    StoreUnavailable,
    TenantQueueFull,
)
from runner.file_listing import FileQuery
from runner.job_outputs import OutputQuery
from runner.job_store import JobQuery
from runner.jobs import JobSpec, JobStatus
from tests.support.runners import Hold, RunningRunner, settings_for
from tests.support.stores import NOON
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runner.bootstrap import Runner
    from runner.jobs import Job, JobEvent

READ, SUBMIT = Scope.READ, Scope.SUBMIT
ALICE = Caller("alice", "a", frozenset({READ, SUBMIT}), address="192.0.2.1", request_id="r1")
BOB = Caller("bob", "b", frozenset({READ, SUBMIT}))


@pytest.fixture(params=["memory", "sqlite"])
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runner]:
    changes = {"database_url": "memory://"} if request.param == "memory" else {}
    # Its thread is never started: what is submitted stays pending.
    with closing(build_runner(settings_for(tmp_path / "data", isolation="off", **changes))) as runner:
        yield runner


@pytest.fixture
def alice(runner: Runner) -> CallersJobs:
    return runner.service.acting_for(ALICE)


@pytest.fixture
def bob(runner: Runner) -> CallersJobs:
    return runner.service.acting_for(BOB)


@pytest.fixture
def operator(runner: Runner) -> CallersJobs:
    return runner.service.acting_for(replace(OPERATOR, address="192.0.2.9"))


def submit(jobs: CallersJobs, **spec: Any) -> Job:
    return jobs.submit(JobSpec(**spec)).result(10).job


def test_a_job_belongs_to_who_submits_it_and_is_put_on_record(runner: Runner, alice: CallersJobs) -> None:
    job = submit(alice, name="sample")
    assert (job.owner, job.tenant) == ("alice", "a")
    [record] = runner.access.audit(AuditQuery()).items
    assert record.at == job.created_at
    assert (record.actor, record.tenant, record.action, record.subject) == (
        "alice",
        "a",
        Action.JOB_SUBMITTED,
        job.id,
    )
    assert (record.address, record.request_id) == ("192.0.2.1", "r1")


def test_every_change_is_put_on_record_once_and_stays_when_the_job_is_gone(
    runner: Runner, alice: CallersJobs, operator: CallersJobs
) -> None:
    job = submit(alice)
    operator.cancel(job.id)
    with pytest.raises(InvalidTransition):
        alice.cancel(job.id)
    alice.retry(job.id)
    alice.cancel(job.id)
    alice.delete(job.id)
    records = runner.access.audit(AuditQuery(subject=job.id)).items
    assert [(r.actor, r.action.value) for r in reversed(records)] == [
        ("alice", "job.submitted"),
        ("operator", "job.cancelled"),
        ("alice", "job.retried"),
        ("alice", "job.cancelled"),
        ("alice", "job.deleted"),
    ]
    assert {r.tenant for r in records} == {"a"}
    assert [r.data.get("actor_tenant") for r in records] == [None, None, None, "*", None]


_CALLS: dict[str, Callable[[CallersJobs, str], object]] = {
    "get": lambda jobs, job_id: jobs.get(job_id),
    "cancel": lambda jobs, job_id: jobs.cancel(job_id),
    "retry": lambda jobs, job_id: jobs.retry(job_id),
    "delete": lambda jobs, job_id: jobs.delete(job_id),
    "log": lambda jobs, job_id: jobs.log(job_id),
    "log of an attempt": lambda jobs, job_id: jobs.log(job_id, 99),
    "outputs": lambda jobs, job_id: jobs.outputs(job_id, OutputQuery(FileQuery())),
    "every_output": lambda jobs, job_id: jobs.every_output(job_id, FileQuery()),
    "open_output": lambda jobs, job_id: jobs.open_output(job_id, b"x"),
}


@pytest.mark.parametrize("call", _CALLS)
def test_another_tenants_job_is_answered_as_one_that_does_not_exist(
    runner: Runner, alice: CallersJobs, bob: CallersJobs, call: str
) -> None:
    mine = submit(alice)
    before = len(runner.access.audit(AuditQuery()).items)
    missing = "0" * len(mine.id)
    told = []
    for job_id in (mine.id, missing):
        with pytest.raises(JobNotFound) as caught:
            _CALLS[call](bob, job_id)
        told.append(str(caught.value).replace(job_id, "ID"))
    assert told[0] == told[1]
    assert alice.get(mine.id) == mine
    assert len(runner.access.audit(AuditQuery()).items) == before


def test_whoever_takes_all_files_of_a_job_hears_that_it_was_deleted_meanwhile(
    runner: Runner, alice: CallersJobs
) -> None:
    job = submit(alice)
    files = alice.every_output(job.id, FileQuery())
    kept = alice.every_output(job.id, FileQuery())
    assert list(kept) == []
    alice.cancel(job.id)
    alice.delete(job.id)
    with pytest.raises(JobNotFound):
        list(files)


def test_pages_and_counts_are_of_the_callers_tenant_whatever_it_asks_for(
    alice: CallersJobs, bob: CallersJobs, operator: CallersJobs
) -> None:
    mine, other = submit(alice), submit(bob)
    assert bob.list(JobQuery()).items == bob.list(JobQuery(tenant="b")).items == (other,)
    assert bob.list(JobQuery(tenant="a")) == bob.list(JobQuery(tenant="nobody"))
    assert bob.list(JobQuery(tenant="a")).items == ()
    assert alice.list(JobQuery()).items == (mine,)
    assert alice.counts()[JobStatus.PENDING] == 1
    assert operator.list(JobQuery()).total == operator.counts()[JobStatus.PENDING] == 2
    assert operator.list(JobQuery(tenant="a")).items == (mine,)


def test_an_idempotency_key_is_the_tenants_own(alice: CallersJobs, bob: CallersJobs) -> None:
    job = alice.submit(JobSpec(), idempotency_key="k").result(10).job
    other = bob.submit(JobSpec(name="another body"), idempotency_key="k").result(10)
    assert other.replayed is False
    assert alice.submit(JobSpec(), idempotency_key="k").result(10).job == job
    assert isinstance(alice.submit(JobSpec(name="x"), idempotency_key="k").exception(10), IdempotencyMismatch)


def test_only_changes_of_the_callers_jobs_are_heard_of(
    alice: CallersJobs, bob: CallersJobs, operator: CallersJobs
) -> None:
    heard: dict[str, list[JobEvent]] = {"alice": [], "bob": [], "bob, of one": [], "operator": []}
    mine = submit(alice)
    ends = [
        alice.watch(heard["alice"].append),
        bob.watch(heard["bob"].append),
        bob.watch(heard["bob, of one"].append, job_id=mine.id),
        operator.watch(heard["operator"].append),
    ]
    submit(bob)
    alice.cancel(mine.id)
    wait_until(lambda: len(heard["operator"]) == 2, what="both events")
    for end in ends:
        end()
    assert [event.tenant for event in heard["alice"]] == ["a"]
    assert [event.tenant for event in heard["bob"]] == ["b"]
    assert heard["bob, of one"] == []


def test_nothing_is_done_without_its_scope(runner: Runner) -> None:
    """Every method there is: one that is added has to ask for a scope, too."""
    changing = {
        "begin_upload",
        "cancel",
        "delete",
        "make_report",
        "plan",
        "pin",
        "pinned",
        "retry",
        "submit",
        "submit_upload",
    }
    methods = [name for name, _ in inspect.getmembers(CallersJobs, inspect.isfunction) if name[0] != "_"]
    assert changing < set(methods)
    for name in methods:
        others = frozenset(Scope) - {SUBMIT if name in changing else READ}
        jobs = runner.service.acting_for(replace(OPERATOR, scopes=others))
        arguments: list[Any] = [
            parameter.default if parameter.default is not inspect.Parameter.empty else None
            for parameter in inspect.signature(getattr(jobs, name)).parameters.values()
            if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        ]
        with pytest.raises(Forbidden):
            getattr(jobs, name)(*arguments)
    assert runner.service.list(JobQuery()).total == 0


def test_the_quotas_of_a_tenant_hold_for_its_submissions(
    runner: Runner, alice: CallersJobs, bob: CallersJobs
) -> None:
    runner.access.set_quota("a", Quota(max_cores=2, max_pending=1), NOON, OPERATOR).result(10)
    too_large = alice.submit(JobSpec(cores=3)).exception(10)
    assert isinstance(too_large, InvalidSpec)
    submit(alice, cores=2)
    assert isinstance(alice.submit(JobSpec()).exception(10), TenantQueueFull)
    submit(bob, cores=3)


def test_jobs_cannot_be_cancelled_and_retried_past_the_quota(runner: Runner, alice: CallersJobs) -> None:
    runner.access.set_quota("a", Quota(max_pending=1), NOON, OPERATOR).result(10)
    first = submit(alice)
    alice.cancel(first.id)
    second = submit(alice)
    with pytest.raises(TenantQueueFull):
        alice.retry(first.id)
    assert alice.get(first.id).status is JobStatus.CANCELLED
    alice.cancel(second.id)
    assert alice.retry(first.id).status is JobStatus.PENDING


def test_a_tenants_first_job_gets_the_next_free_core_before_the_many_of_another(tmp_path: Path) -> None:
    running = RunningRunner(settings_for(tmp_path / "data", isolation="off", max_cores=2))
    try:
        alice, bob = (running.service.acting_for(caller) for caller in (ALICE, BOB))
        holds = [Hold(tmp_path, f"hold{number}") for number in range(3)]
        held = [submit(alice, parameters={"mock": {"hold": hold.path}}) for hold in holds[:2]]
        for job in held:
            running.wait_for(job, JobStatus.RUNNING)
        waiting = [submit(alice) for _ in range(5)]
        first = submit(bob, parameters={"mock": {"hold": holds[2].path}})
        holds[0].release()
        running.wait_for(first, JobStatus.RUNNING)
        assert {alice.get(job.id).status for job in waiting} == {JobStatus.PENDING}
        for hold in holds[1:]:
            hold.release()
        for job in (*held, first, *waiting):
            assert running.ended(job).status is JobStatus.COMPLETED
    finally:
        running.close()


# ---------------------------------------------------------------- beside a service


def test_keys_and_quotas_can_be_looked_after_beside_a_service_and_without_one(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "data", isolation="off")
    with closing(open_access(settings)) as access:  # before the first start
        access.set_quota("a", Quota(max_pending=7), NOON, OPERATOR).result(10)
    with closing(build_runner(settings)) as runner:
        before = runner.access.keys_version()
        with closing(open_access(settings)) as access:
            assert access.quotas() == {"a": Quota(max_pending=7)}
            access.set_quota("a", Quota(max_pending=1), NOON, OPERATOR).result(10)
        assert runner.access.keys_version() != before
        alice = runner.service.acting_for(ALICE)
        submit(alice)
        assert isinstance(alice.submit(JobSpec()).exception(10), TenantQueueFull)


def test_a_service_that_starts_meanwhile_is_not_kept_out(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "data", isolation="off")
    with closing(open_access(settings)), closing(build_runner(settings)) as runner:
        submit(runner.service.acting_for(ALICE))


def test_a_store_that_forgets_everything_has_no_keys_to_look_after(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "data", database_url="memory://")
    with pytest.raises(StoreUnavailable, match="SNAKELINE_DATABASE_URL"):
        open_access(settings)
    assert not settings.data_dir.exists()
