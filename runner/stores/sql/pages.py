"""Pages of jobs: which index to walk, and what a count may cost.

A page comes in two steps: the seqs of its jobs, found by walking one index in order and checking the
other conditions on each candidate, then their rows. Which index to walk is decided by counting: job_counts
knows the statuses and workflows exactly, labels and names are counted up to a limit.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal

from runner.access import ALL_TENANTS
from runner.job_store import JobPage
from runner.stores.names import (
    COMBINED_STOPS_AT,
    NAMED_STOPS_AT,
    SUBSTRING_MIN_CHARS,
    TOTAL_STOPS_AT,
    folded,
    id_prefix,
)
from runner.stores.sql.page_selects import (
    EVERY_STATUS,
    Shape,
    Walk,
    examined_select,
    matched_select,
    page_select,
)
from runner.stores.sql.rows import JOB_COLUMNS, job_of, micros
from runner.stores.sql.schema import CREATED_LAG, JOB_SPECS
from runner.stores.sql.statements import sql_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine.interfaces import Dialect

    from runner.job_store import JobQuery
    from runner.jobs import Job
    from runner.stores.sql.statements import Statements

_LOWEST: Final = -(2**63)
_HIGHEST: Final = 2**63 - 1
_MANY_NAMES: Final = 20_000  # up to here a tenant's own jobs are looked through in less than 20 ms
_PAGE_CHARS: Final = 4 * 2**20  # a spec may have a million: a page of those would fill the memory
_SPEC: Final = JOB_COLUMNS.index(JOB_SPECS.c.spec)


@dataclass(slots=True)
class _Plan:
    """A query with its values, while its walk is being decided."""

    shape: Shape
    name_length: int
    values: dict[str, Any]
    labels: list[tuple[str, str]] = field(default_factory=list)

    def with_walk(self, walk: Walk, label: tuple[str, str] | None = None) -> _Plan:
        labels = self.labels
        if label is not None:  # the label that is walked comes first
            labels = [label, *(other for other in labels if other != label)]
        values = dict(self.values)
        for i, (key, value) in enumerate(labels):
            values[f"key_{i}"], values[f"value_{i}"] = key, value
        return replace(self, shape=replace(self.shape, walk=walk), values=values, labels=labels)


class Pages:
    """Answers list queries on a reader's connection, in one snapshot."""

    def __init__(self, dialect: Dialect, statements: Statements) -> None:
        self._statements = statements

        @cache
        def compiled(select: Callable[[Shape, int], Any], shape: Shape, name_length: int) -> str:
            return sql_of(select(shape, name_length), dialect)

        self._compiled = compiled

    def page(self, connection: sqlite3.Connection, query: JobQuery) -> JobPage:
        counted = self._counted(connection, query)
        plan = _plan_of(query)
        if counted == 0 or plan is None:
            return JobPage((), 0, total_is_exact=True, has_more=False)
        if plan.shape.created and not self._narrow(connection, plan) and not plan.shape.tenant:
            # A tenant's answer must not tell whether others have jobs of that time.
            return JobPage((), 0, total_is_exact=True, has_more=False)
        plan, total, exact = self._decide(connection, plan, counted)
        if total == 0 and exact:
            return JobPage((), 0, total_is_exact=True, has_more=False)
        values = dict(plan.values, n=query.limit + 1)
        if query.after_seq is not None:
            behind = "seq_high" if query.order == "desc" else "seq_low"
            closer = min if query.order == "desc" else max
            values[behind] = closer(values[behind], max(_LOWEST, min(query.after_seq, _HIGHEST)))
        seqs = [row[0] for row in self._run(connection, page_select, plan, values)]
        has_more = len(seqs) > query.limit
        items = self._first_jobs(connection, seqs[: query.limit])
        has_more = has_more or len(items) < len(seqs)
        if not (exact or has_more) and query.after_seq is None:
            total, exact = len(seqs), True  # this page is all there is
        return JobPage(tuple(items), max(total, len(items)), exact, has_more)

    def jobs(self, connection: sqlite3.Connection, seqs: list[int]) -> list[Job]:
        """The jobs with these seqs, in the order given; one deleted meanwhile is left out."""
        found = {row[0]: job_of(row) for row in self._rows(connection, seqs)}
        return [found[seq] for seq in seqs if seq in found]

    def _first_jobs(self, connection: sqlite3.Connection, seqs: list[int]) -> list[Job]:
        """As `jobs`, up to `_PAGE_CHARS` of specs together; one job at least. No list shows traces."""
        found: dict[int, Job] = {}
        size = 0
        for row in self._rows(connection, seqs):
            size += len(row[_SPEC])
            if size > _PAGE_CHARS and len(seqs) > 1:
                break
            found[row[0]] = job_of(row, with_trace=False)
        else:
            return [found[seq] for seq in seqs if seq in found]
        # Those came in no order: now one by one, the first ones alone.
        items: list[Job] = []
        size = 0
        for seq in seqs:
            for row in self._rows(connection, [seq]):
                size += len(row[_SPEC])
                if items and size > _PAGE_CHARS:
                    return items
                items.append(job_of(row, with_trace=False))
        return items

    def _rows(self, connection: sqlite3.Connection, seqs: list[int]) -> Iterator[Any]:
        for start in range(0, len(seqs), 512):
            sql, values = self._statements.by_seqs(seqs[start : start + 512])
            with closing(connection.execute(sql, values)) as found:
                yield from found

    def _run(self, connection: sqlite3.Connection, select: Any, plan: _Plan, values: dict[str, Any]) -> Any:
        return connection.execute(self._compiled(select, plan.shape, plan.name_length), values)

    def _counted(self, connection: sqlite3.Connection, query: JobQuery) -> int:
        """Jobs with the query's tenant, statuses and workflow, whatever else it asks for."""
        tenant = ALL_TENANTS if query.tenant is None else query.tenant
        wanted = {status.value for status in query.statuses or EVERY_STATUS}
        return sum(
            jobs
            for workflow, status, jobs in connection.execute(self._statements.counts, {"tenant": tenant})
            if status in wanted and query.workflow in (None, workflow)
        )

    def _narrow(self, connection: sqlite3.Connection, plan: _Plan) -> bool:
        """Turn the range of times into one of seqs; False when it is empty."""
        values = plan.values
        row = connection.execute(self._statements.fact, {"name": CREATED_LAG}).fetchone()
        lag = row[0] if row else 0
        values["ceiling_high"] = min(values["created_before"] + lag, _HIGHEST)

        def first_above(at: int) -> int:
            found = connection.execute(self._statements.first_above, {"at": at}).fetchone()
            return _HIGHEST if found is None else int(found[0])

        values["seq_low"] = first_above(values["created_after"]) - 1
        last = connection.execute(self._statements.last_seq).fetchone()
        values["seq_high"] = min(first_above(values["ceiling_high"] - 1), (last[0] if last else 0) + 1)
        # Where even the most belated job lies within the range.
        values["sure_low"] = first_above(min(values["created_after"] + lag, _HIGHEST)) - 1
        values["sure_high"] = first_above(max(values["created_before"] - 1, _LOWEST))
        return bool(values["seq_high"] - values["seq_low"] > 1)

    def _decide(self, connection: sqlite3.Connection, plan: _Plan, counted: int) -> tuple[_Plan, int, bool]:
        """The walk with the fewest candidates, the total, and whether that is exact."""
        shape = plan.shape
        by_counts: Walk = "workflow" if shape.workflow else "status" if shape.statuses else "jobs"
        others = shape.labels + (shape.name is not None) + shape.created
        if others == 0:
            return plan.with_walk(by_counts), counted, True
        choices: list[tuple[int, _Plan]] = []
        alone_in_tenant = shape.tenant and by_counts == "status" and shape.statuses == len(EVERY_STATUS)
        if others == 1 and (by_counts == "jobs" or (alone_in_tenant and shape.name is None)):
            return self._decide_alone(connection, plan)
        if by_counts != "jobs":
            choices.append((counted, plan.with_walk(by_counts)))
        # What each walk would have to look at, were it alone.
        bare = replace(shape, statuses=0, workflow=False, labels=0, name=None, id_prefix=False, created=False)
        for label in plan.labels:
            alone = replace(plan, shape=bare, labels=[label]).with_walk("label", label)
            choices.append(
                (self._matched(connection, alone, COMBINED_STOPS_AT), plan.with_walk("label", label))
            )
        if shape.name is not None:
            named = replace(bare, tenant=False, name=shape.name, id_prefix=shape.id_prefix)
            alone = replace(plan, shape=named, labels=[]).with_walk("name")
            matched = self._matched(connection, alone, COMBINED_STOPS_AT)
            if shape.tenant and matched > COMBINED_STOPS_AT:
                matched = _MANY_NAMES  # of others, perhaps, and then the walk is as long as they are many
            choices.append((matched, plan.with_walk("name")))
        if shape.created and not shape.tenant:  # else that walk would meet with the jobs of others
            choices.append((plan.values["seq_high"] - plan.values["seq_low"], plan.with_walk("jobs")))
        chosen = min(choices, key=lambda choice: choice[0])[1]
        if shape.tenant:
            # The page may walk the names of others as well; its total must not tell how many those are.
            choices = [choice for choice in choices if choice[1].shape.walk != "name"]
        fewest, examined = min(choices, key=lambda choice: choice[0])
        values = dict(examined.values, n=COMBINED_STOPS_AT)
        total = self._run(connection, examined_select, examined, values).fetchone()[0]
        return chosen, total, fewest <= COMBINED_STOPS_AT

    def _decide_alone(self, connection: sqlite3.Connection, plan: _Plan) -> tuple[_Plan, int, bool]:
        shape = plan.shape
        if shape.created and shape.tenant:
            counted = chosen = plan.with_walk("status")
        elif shape.created:
            counted, chosen = plan.with_walk("created"), plan.with_walk("jobs")
        else:
            counted = chosen = (
                plan.with_walk("label", plan.labels[0]) if shape.labels else plan.with_walk("name")
            )
        limit = NAMED_STOPS_AT if shape.name is not None else TOTAL_STOPS_AT
        total = self._matched(connection, counted, limit)
        return chosen, min(total, limit), total <= limit

    def _matched(self, connection: sqlite3.Connection, plan: _Plan, limit: int) -> int:
        """How many match; one more than `limit` when it is more."""
        values = dict(plan.values, n=limit + 1)
        return int(self._run(connection, matched_select, plan, values).fetchone()[0])


def _plan_of(query: JobQuery) -> _Plan | None:
    """The query as parameters; None when nothing can match it."""
    values: dict[str, Any] = {"seq_low": _LOWEST, "seq_high": _HIGHEST}
    statuses = tuple(dict.fromkeys(query.statuses))
    if not statuses and (query.workflow is not None or query.tenant is not None):
        statuses = EVERY_STATUS  # the index has a status in its middle: one walk for each
    elif len(statuses) == len(EVERY_STATUS) and query.workflow is None and query.tenant is None:
        statuses = ()
    values.update((f"status_{i}", status.value) for i, status in enumerate(statuses))
    values["workflow"] = query.workflow
    values["tenant"] = query.tenant
    created = query.created_after is not None or query.created_before is not None
    values["created_after"] = _LOWEST if query.created_after is None else micros(query.created_after)
    values["created_before"] = _HIGHEST if query.created_before is None else micros(query.created_before)
    labels = list(dict.fromkeys(query.labels))
    if len({key for key, _ in labels}) < len(labels):
        return None  # one label can't have two values
    name: Literal["part", "start"] | None = None
    part = folded(query.q) if query.q else ""
    prefix = id_prefix(query.q) if query.q else None
    if part:
        if "\0" in part:
            return None
        name = "part" if len(part) >= SUBSTRING_MIN_CHARS else "start"
        values["name"] = part
        values["match"] = '"' + part.replace('"', '""') + '"'
    if prefix is not None:
        values["id_low"], values["id_high"] = prefix, prefix + "\U0010ffff"
    shape = Shape(
        walk="jobs",
        tenant=query.tenant is not None,
        statuses=len(statuses),
        workflow=query.workflow is not None,
        labels=len(labels),
        name=name,
        id_prefix=prefix is not None,
        created=created,
        order=query.order,
    )
    return _Plan(shape, len(part) if name == "start" else 0, values, labels)
