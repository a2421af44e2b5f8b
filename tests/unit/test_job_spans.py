"""The spans of an attempt, from what the store has kept of it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from runner.job_spans import ended_attempt, spans_of
from runner.job_store import Update
from runner.jobs import Change, Job, JobSpec, JobStatus, Outcome, Reason, cancel_asked, claimed, retried
from runner.outcomes import launch_failed, update_for
from runner.stores.memory import MemoryStore
from runner.trace_context import JobTrace, TraceContext, environment_of, span_id_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.spans import Span

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ID = "019aa000-0000-7000-8000-000000000001"
CALLER = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1, "a=b")


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


class Story:
    """One job in a store, and what happens to it."""

    def __init__(self, store: MemoryStore, *, max_retries: int = 0) -> None:
        self._store = store
        spec = JobSpec(workflow="demo", parameters={"password": "hunter2"}, max_retries=max_retries)
        job = Job(ID, spec, JobStatus.PENDING, "mock", at(0), at(0), retries_left=max_retries)
        trace = JobTrace.begun(ID, CALLER, is_sampled=True, asked_at=at(-1))
        self.job = store.add(replace(job, trace=trace)).result().job

    def claimed(self, seconds: float) -> None:
        self._change(Update(self.job, claimed(self.job, at(seconds)), Change.CLAIMED))

    def cancelled(self, seconds: float) -> None:
        self._change(Update(self.job, cancel_asked(self.job, at(seconds)), Change.CANCEL_REQUESTED))

    def retried(self, seconds: float) -> None:
        self._change(Update(self.job, retried(self.job, at(seconds)), Change.RETRIED))

    def ended(self, outcome: Outcome) -> None:
        self._change(update_for(self.job, outcome))

    def _change(self, update: Update) -> None:
        stored = self._store.update([update]).result()[0]
        assert stored is not None
        self.job = stored

    def spans(self) -> dict[str, Span]:
        """Those of the attempt that has ended last, by name."""
        events = self._store.events(job_id=ID)
        brief = self._store.briefs([ID])[ID]
        assert brief.trace is not None
        end = [event for event in events if ended_attempt(event) is not None][-1]
        return {span.name: span for span in spans_of(brief, brief.trace, events, end)}


@pytest.fixture
def story() -> Iterator[Story]:
    with closing(MemoryStore()) as store:
        yield Story(store, max_retries=1)


def outcome(reason: Reason, start: float, end: float, **more: int | bool) -> Outcome:
    return Outcome(reason, at(end), at(start), **more)  # type: ignore[arg-type]


def lengths(spans: dict[str, Span]) -> dict[str, float]:
    return {name: (span.ended_at - span.started_at).total_seconds() for name, span in spans.items()}


def test_a_job_is_told_from_its_submission_to_its_end(story: Story) -> None:
    story.claimed(5)
    story.ended(outcome(Reason.EXITED_ZERO, 7, 17, exit_code=0))
    spans = story.spans()
    assert list(spans) == ["submit", "job demo", "queue", "launch", "run", "exit"]
    told = lengths(spans)
    assert (told["submit"], told["queue"], told["launch"], told["run"]) == (1, 5, 2, 10)
    assert spans["exit"].started_at == at(17)
    assert spans["exit"].ended_at == spans["job demo"].ended_at > at(17)  # when it was recorded: now
    submit, job = spans["submit"], spans["job demo"]
    assert (submit.parent_id, submit.is_entry) == (CALLER.span_id, True)
    assert job.parent_id == submit.context.span_id
    assert {spans[name].parent_id for name in ("queue", "launch", "run", "exit")} == {job.context.span_id}
    assert {(s.context.trace_id, s.context.state) for s in spans.values()} == {(CALLER.trace_id, "a=b")}
    assert len({span.context.span_id for span in spans.values()}) == 6
    assert spans["run"].attributes["snakeline.job.exit_code"] == 0
    assert spans["run"].error is None
    assert environment_of(story.job.trace, ID, 1)["TRACEPARENT"].split("-")[2] == spans["run"].context.span_id
    assert "hunter2" not in repr(spans)


def test_each_attempt_has_spans_of_its_own_below_the_same_submission(story: Story) -> None:
    story.claimed(1)
    story.ended(outcome(Reason.KILLED_BY_SIGNAL, 2, 3, exit_signal=9))
    assert story.job.status is JobStatus.PENDING  # retried by itself
    first = story.spans()
    assert (first["run"].error, first["job demo"].error) == ("killed_by_signal", "killed_by_signal")
    assert first["run"].attributes["snakeline.job.exit_signal"] == 9
    assert first["run"].attributes["snakeline.job.attempt"] == 1
    story.claimed(10)
    story.ended(outcome(Reason.EXITED_NONZERO, 11, 12, exit_code=1))
    second = story.spans()
    assert list(second) == ["job demo", "queue", "launch", "run", "exit"]
    assert second["job demo"].parent_id == first["submit"].context.span_id
    assert second["queue"].started_at == at(3)
    assert second["run"].attributes["snakeline.job.attempt"] == 2
    assert not {s.context.span_id for s in first.values()} & {s.context.span_id for s in second.values()}
    story.retried(100)
    story.claimed(101)
    story.ended(outcome(Reason.EXITED_ZERO, 102, 103, exit_code=0))
    third = story.spans()
    assert (third["queue"].started_at, lengths(third)["queue"]) == (at(100), 1)


def test_what_the_service_stopped_for_its_own_end_is_told_as_an_attempt(story: Story) -> None:
    story.claimed(1)
    story.ended(outcome(Reason.KILLED_BY_SIGNAL, 2, 3, exit_signal=15, interrupted=True))
    assert story.job.attempt == 2
    assert story.spans()["run"].attributes["snakeline.job.attempt"] == 1


def test_a_job_that_is_cancelled_in_the_queue_has_waited_and_nothing_else(story: Story) -> None:
    story.cancelled(4)
    spans = story.spans()
    assert list(spans) == ["submit", "job demo", "queue"]
    assert lengths(spans)["queue"] == 4
    assert spans["job demo"].attributes["snakeline.job.reason"] == "cancel_requested"
    assert spans["job demo"].error is None


def test_what_could_not_be_launched_has_not_run(story: Story) -> None:
    story.claimed(1)
    story.ended(launch_failed("no such engine: hunter2"))
    spans = story.spans()
    assert list(spans) == ["submit", "job demo", "queue", "launch", "exit"]
    assert spans["launch"].error == "launch_failed"


def test_no_span_ends_before_it_begins_whatever_the_clocks_say(story: Story) -> None:
    story.claimed(5)
    story.ended(outcome(Reason.EXITED_ZERO, 3, -50, exit_code=0))
    assert all(length >= 0 for length in lengths(story.spans()).values())


def test_the_same_attempt_has_the_same_ids_whenever_it_is_told(story: Story) -> None:
    story.claimed(1)
    story.ended(outcome(Reason.EXITED_ZERO, 2, 3, exit_code=0))
    assert story.spans() == story.spans()
    assert story.spans()["run"].context.span_id == span_id_of(ID, 1, "run")
