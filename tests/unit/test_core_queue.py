"""Who starts next: within the free cores and the quotas, fairly, and nobody waits for ever."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.access import OPERATOR, Quota
from runner.core_queue import RESERVE_AFTER_S, CoreQueue
from runner.job_store import JobQuery, Update
from runner.jobs import Change, Job, Outcome, Reason, cancel_asked, claimed, ended
from runner.quotas import CoreQuotas
from runner.stores.memory import MemoryStore
from tests.support.stores import NOON, a_job, added

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Machine:
    """A queue with its store, whose jobs end when a test says so, and a clock that stands still."""

    def __init__(
        self, max_cores: int, quotas: Mapping[str, int] | None = None, default: int | None = None
    ) -> None:
        self.store = MemoryStore()
        self.max_cores = max_cores
        self.quotas = dict(quotas or {})
        self.default = default
        self.now_s = 0.0
        self.running: list[Job] = []
        self.started: list[str] = []  # names, in the order of their starts
        for tenant, cores in self.quotas.items():
            self.store.set_quota(tenant, Quota(max_cores=cores), NOON, OPERATOR).result()
        self.queue = CoreQueue(
            self.store,
            CoreQuotas(self.store, Quota(max_cores=default), max_cores),
            max_cores,
            clock=lambda: self.now_s,
        )

    def submit(self, tenant: str, cores: int = 1, *, name: str | None = None, priority: int = 0) -> Job:
        job = a_job(cores=cores, name=name or tenant, priority=priority)
        return added(self.store, replace(job, tenant=tenant))

    def start(self) -> list[str]:
        """Start what may, as the supervisor does; the names of what was started."""
        before = len(self.started)
        while chosen := self.queue.next():
            for job in chosen:
                after = claimed(job, NOON)
                assert self.store.update([Update(job, after, Change.CLAIMED)]).result()[0]
                self.queue.take(after)
                self.running.append(after)
                self.started.append(job.spec.name or "")
            self.check()
        return self.started[before:]

    def end(self, job: Job) -> None:
        self.running.remove(job)
        after = ended(job, Outcome(Reason.EXITED_ZERO, NOON))
        self.store.update([Update(job, after, Change.ENDED)]).result()
        self.queue.release(job)

    def end_one_of(self, name: str) -> None:
        self.end(next(job for job in self.running if job.spec.name == name))

    def cap(self, tenant: str) -> int:
        return min(self.max_cores, self.quotas.get(tenant, self.default or self.max_cores))

    def used_by(self) -> Counter[str]:
        used: Counter[str] = Counter()
        for job in self.running:
            used[job.tenant] += job.spec.cores
        return used

    def check(self) -> None:
        used = self.used_by()
        assert used.total() <= self.max_cores
        for tenant, cores in used.items():
            assert cores <= self.cap(tenant), tenant

    def waiting(self) -> tuple[Job, ...]:
        return tuple(self.store.pending(max_cores=10**6, limit=10**6))


def submit_all(machine: Machine, tenants: Iterable[str]) -> None:
    for tenant in tenants:
        machine.submit(tenant)


# ---------------------------------------------------------------- fair shares


def test_of_one_tenant_the_highest_priority_goes_first_and_then_the_oldest() -> None:
    machine = Machine(2)
    for name, priority in (("old", 0), ("new", 0), ("urgent", 1)):
        machine.submit("t", name=name, priority=priority)
    assert machine.start() == ["urgent", "old"]
    machine.end_one_of("old")
    assert machine.start() == ["new"]


def test_the_free_cores_are_shared_between_tenants_whoever_has_more_jobs_and_came_first() -> None:
    machine = Machine(4)
    submit_all(machine, ["big"] * 50 + ["small"] * 2)
    assert sorted(machine.start()) == ["big", "big", "small", "small"]


def test_a_tenants_first_job_waits_for_one_free_core_however_many_jobs_others_have() -> None:
    machine = Machine(4)
    submit_all(machine, ["big"] * 500)
    assert machine.start() == ["big"] * 4
    machine.submit("small")
    assert machine.start() == []
    machine.end_one_of("big")
    assert machine.start() == ["small"]
    machine.end_one_of("small")
    assert machine.start() == ["big"]


def test_who_may_have_more_gets_more_in_proportion() -> None:
    machine = Machine(9, quotas={"much": 8, "little": 4})
    submit_all(machine, ["much"] * 20 + ["little"] * 20)
    machine.start()
    assert machine.used_by() == {"much": 6, "little": 3}


def test_tenants_alike_take_turns() -> None:
    machine = Machine(1)
    submit_all(machine, ["a"] * 3 + ["b"] * 3 + ["c"] * 3)
    order = []
    for _ in range(9):
        [name] = machine.start()
        order.append(name)
        machine.end_one_of(name)
    assert [sorted(order[i : i + 3]) for i in (0, 3, 6)] == [["a", "b", "c"]] * 3


# ---------------------------------------------------------------- quotas


def test_a_tenant_at_its_quota_is_passed_over_and_others_go_on() -> None:
    machine = Machine(4, quotas={"limited": 1})
    submit_all(machine, ["limited"] * 3 + ["free"] * 5)
    machine.start()
    assert machine.used_by() == {"limited": 1, "free": 3}
    machine.end_one_of("limited")
    assert machine.start() == ["limited"]


def test_the_default_quota_holds_for_whoever_has_none_of_its_own() -> None:
    machine = Machine(8, quotas={"own": 3}, default=2)
    submit_all(machine, ["own"] * 5 + ["other"] * 5)
    machine.start()
    assert machine.used_by() == {"own": 3, "other": 2}


def test_a_changed_quota_holds_at_the_next_look() -> None:
    machine = Machine(4, quotas={"t": 1})
    submit_all(machine, ["t"] * 4)
    assert len(machine.start()) == 1
    machine.quotas["t"] = 3
    machine.store.set_quota("t", Quota(max_cores=3), NOON, OPERATOR).result()
    assert len(machine.start()) == 2


def test_a_job_that_waits_for_its_own_tenants_cores_keeps_none_of_others_free() -> None:
    machine = Machine(8, quotas={"t": 4})
    for cores in (3, 2):
        machine.submit("t", cores, name=f"t{cores}")
    machine.submit("t", 1, name="t1")
    assert machine.start() == ["t3", "t1"]  # the one that fits overtakes
    machine.now_s += RESERVE_AFTER_S + 1
    for _ in range(3):
        machine.submit("t", 1, name="late")
    submit_all(machine, ["other"] * 3)
    assert machine.start() == ["other"] * 3
    machine.end_one_of("t1")
    assert machine.start() == []  # the tenant's one free core is kept for the job of two
    machine.end_one_of("t3")
    assert machine.start() == ["t2", "late", "late"]


# ---------------------------------------------------------------- large jobs


def test_small_jobs_overtake_a_large_one_for_a_while_and_then_cores_are_kept_for_it() -> None:
    machine = Machine(4)
    machine.submit("t", 2, name="first")
    assert machine.start() == ["first"]
    machine.submit("t", 4, name="large")
    for _ in range(5):
        machine.submit("t", name="small")
    assert machine.start() == ["small", "small"]
    machine.now_s += RESERVE_AFTER_S
    machine.end_one_of("small")
    assert machine.start() == []
    machine.end_one_of("small")
    machine.end_one_of("first")
    assert machine.start() == ["large"]


def test_a_large_job_starts_although_others_always_have_small_ones() -> None:
    machine = Machine(4)
    machine.submit("a", 1, name="for days")
    machine.start()
    machine.submit("a", 3, name="large")
    submit_all(machine, ["b"] * 100)
    for _ in range(50):
        machine.start()
        machine.now_s += RESERVE_AFTER_S / 10
        if "large" in machine.started:
            break
        if any(job.spec.name == "b" for job in machine.running):
            machine.end_one_of("b")
    assert "large" in machine.started


def test_while_cores_are_kept_for_a_large_job_a_newcomers_first_job_still_gets_the_next_one() -> None:
    machine = Machine(3)
    submit_all(machine, ["a", "c", "c"])
    machine.start()
    machine.submit("a", 2, name="large")
    machine.end_one_of("c")
    assert machine.start() == []
    machine.now_s += RESERVE_AFTER_S
    submit_all(machine, ["b"] * 9)
    assert machine.start() == ["b"]
    machine.end_one_of("b")
    assert machine.start() == []  # one is enough: it would never get two cores
    machine.end_one_of("c")
    assert machine.start() == ["large"]


def test_a_large_job_waits_from_its_turn_on_also_while_there_is_nobody_to_overtake_it() -> None:
    machine = Machine(4)
    submit_all(machine, ["a", "b"])
    machine.start()
    machine.submit("a", 4, name="large")
    assert machine.start() == []
    machine.now_s += RESERVE_AFTER_S
    submit_all(machine, ["a"])
    assert machine.start() == []
    machine.end_one_of("a")
    submit_all(machine, ["b"])
    assert machine.start() == []
    machine.end_one_of("b")
    assert machine.start() == ["large"]


def test_jobs_that_can_never_start_stand_in_nobodys_way() -> None:
    machine = Machine(4)
    for tenant in "abcdefghijklm":
        machine.submit(tenant, 3)
        machine.quotas[tenant] = 2
        machine.store.set_quota(tenant, Quota(max_cores=2), NOON, OPERATOR).result()
    machine.submit("x", 2, name="first")
    assert machine.start() == ["first"]
    machine.submit("y", 4, name="large")
    assert machine.start() == []
    machine.now_s += RESERVE_AFTER_S
    submit_all(machine, ["x"] * 5)
    assert machine.start() == []
    machine.end_one_of("first")
    assert machine.start() == ["large"]


def test_nothing_is_kept_for_a_large_job_that_was_cancelled() -> None:
    machine = Machine(2)
    submit_all(machine, ["a"])
    machine.start()
    large = machine.submit("a", 2, name="large")
    assert machine.start() == []
    machine.now_s += RESERVE_AFTER_S
    machine.store.update([Update(large, cancel_asked(large, NOON), Change.CANCEL_REQUESTED)]).result()
    submit_all(machine, ["a"])
    assert machine.start() == ["a"]


def test_what_fits_is_found_behind_any_number_of_jobs_that_do_not() -> None:
    machine = Machine(4)
    machine.submit("a", 2, name="first")
    machine.start()
    for _ in range(200):
        machine.submit("a", 4, name="large")
    machine.submit("a", 2, name="fits")
    assert machine.start() == ["fits"]


# ---------------------------------------------------------------- anything


_JOBS = st.lists(
    st.tuples(st.sampled_from("abcde"), st.integers(1, 6), st.integers(-1, 1)), min_size=1, max_size=40
)


_MANY = settings(deadline=None, suppress_health_check=[HealthCheck.large_base_example, HealthCheck.too_slow])


@settings(_MANY, max_examples=300)
@given(
    jobs=_JOBS,
    max_cores=st.integers(1, 6),
    quotas=st.dictionaries(st.sampled_from("abc"), st.integers(1, 6)),
    default=st.none() | st.integers(1, 6),
    seed=st.integers(0, 2**32),
)
def test_no_limit_is_ever_passed_no_core_left_idle_and_every_job_starts(
    jobs: list[tuple[str, int, int]],
    max_cores: int,
    quotas: dict[str, int],
    default: int | None,
    seed: int,
) -> None:
    machine = Machine(max_cores, quotas, default)
    chance = Random(seed)
    later = [(tenant, min(cores, machine.cap(tenant)), priority) for tenant, cores, priority in jobs]
    turns = 0
    while later or machine.waiting() or machine.running:
        for _ in range(chance.randint(0, len(later))):
            tenant, cores, priority = later.pop()
            machine.submit(tenant, cores, priority=priority)
        machine.start()
        if machine.now_s == 0:  # nothing is kept free for anybody yet
            free = max_cores - machine.used_by().total()
            for job in machine.waiting():
                room = min(free, machine.cap(job.tenant) - machine.used_by()[job.tenant])
                assert job.spec.cores > room, (job.tenant, job.spec.cores, room)
        assert machine.running or later or not machine.waiting(), "every core is idle and jobs wait"
        if machine.running and chance.random() < 0.7:
            machine.end(chance.choice(machine.running))
        if chance.random() < 0.1:
            machine.now_s += RESERVE_AFTER_S
        turns += 1
        assert turns < 1000, "some wait for ever"
    assert len(machine.started) == len(jobs)


@settings(_MANY, max_examples=60)
@given(
    small=st.lists(st.sampled_from("bcd"), min_size=30, max_size=60),
    large=st.integers(2, 4),
    data=st.data(),
)
def test_a_large_job_starts_within_a_bounded_number_of_ends(
    small: list[str], large: int, data: st.DataObject
) -> None:
    machine = Machine(4)
    submit_all(machine, small[:6])
    machine.start()
    machine.submit("a", large, name="large")
    submit_all(machine, small[6:])
    ends = 0
    while "large" not in machine.started:
        machine.start()
        if "large" not in machine.started:
            machine.end(data.draw(st.sampled_from(machine.running)))
            machine.now_s += RESERVE_AFTER_S / 2
            ends += 1
        assert ends <= 4 + 3 + 3  # what runs, the wait itself, and one job of each other tenant


def test_a_look_at_a_long_queue_reads_few_jobs() -> None:
    machine = Machine(4)
    submit_all(machine, [f"t{number % 50}" for number in range(500)])
    read = 0
    fetch = machine.store.pending

    def counted(**arguments: object) -> object:
        nonlocal read
        found = fetch(**arguments)  # type: ignore[arg-type]
        read += len(found)
        return found

    machine.store.pending = counted  # type: ignore[method-assign, assignment]
    machine.queue.next()
    assert read <= 8
    assert machine.store.list(JobQuery(limit=1)).total == 500
