"""Pages of jobs: which index to walk, and what a count may cost.

A page comes in two steps: the seqs of its jobs, found by walking one index in order and checking the
other conditions on each candidate, then their rows. Which index to walk is decided by counting: job_counts
knows the statuses and workflows exactly, labels and names are counted up to a limit.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal

import sqlalchemy as sa

from runner.jobs import JobStatus
from runner.ports import JobPage
from runner.stores.names import (
    COMBINED_STOPS_AT,
    NAMED_STOPS_AT,
    SUBSTRING_MIN_CHARS,
    TOTAL_STOPS_AT,
    folded,
    id_prefix,
)
from runner.stores.sql.rows import job_of, micros
from runner.stores.sql.schema import CREATED_LAG, JOB_LABELS, JOBS
from runner.stores.sql.statements import hinted, sql_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from sqlalchemy.engine.interfaces import Dialect

    from runner.jobs import Job
    from runner.ports import JobQuery, Order
    from runner.stores.sql.statements import Statements

Walk = Literal["jobs", "created", "status", "workflow", "label", "name"]

_P: Final = sa.bindparam
_EVERY_STATUS: Final = tuple(JobStatus)
_LOWEST: Final = -(2**63)
_HIGHEST: Final = 2**63 - 1
_NAMES: Final = sa.table("job_names", sa.column("rowid"), sa.column("job_names"))


@dataclass(frozen=True, slots=True)
class Shape:
    """A query without its values: what its SQL depends on."""

    walk: Walk
    statuses: int
    workflow: bool
    labels: int
    name: Literal["part", "start"] | None
    id_prefix: bool
    created: bool
    order: Order


# ---------------------------------------------------------------- the SQL of a shape


def _bounded(select: Any, seq: Any) -> Any:
    return select.where(seq > _P("seq_low"), seq < _P("seq_high"))


def _id_range() -> Any:
    return sa.and_(JOBS.c.id >= _P("id_low"), JOBS.c.id < _P("id_high"))


def _name_start(length: int) -> Any:
    return sa.literal_column(f"substr(name_folded, 1, {length})") == _P("name")


def _sources(shape: Shape, name_length: int) -> list[tuple[Any, Any]]:
    """What is walked: selects of seqs, and the seq column of each. A union when there are several."""
    seq = JOBS.c.seq
    match shape.walk:
        case "jobs":
            return [(sa.select(seq).with_hint(JOBS, "NOT INDEXED", "sqlite"), seq)]
        case "created":
            ceiling = JOBS.c.created_ceiling
            between = (ceiling > _P("created_after"), ceiling < _P("ceiling_high"))
            return [(hinted("jobs_created").where(*between), seq)]
        case "status":
            return [
                (hinted("jobs_status").where(JOBS.c.status == _P(f"status_{i}")), seq)
                for i in range(shape.statuses)
            ]
        case "workflow":
            return [
                (
                    hinted("jobs_workflow_status").where(
                        JOBS.c.workflow == _P("workflow"), JOBS.c.status == _P(f"status_{i}")
                    ),
                    seq,
                )
                for i in range(shape.statuses)
            ]
        case "label":
            labels = JOB_LABELS.c
            found = sa.select(labels.seq).where(labels.key == _P("key_0"), labels.value == _P("value_0"))
            return [(found, labels.seq)]
        case "name":
            sources: list[tuple[Any, Any]] = []
            if shape.name == "part":
                rowid = _NAMES.c.rowid
                matching = _NAMES.c.job_names.op("MATCH")(_P("match"))
                sources.append((sa.select(rowid.label("seq")).where(matching), rowid))
            else:
                index = f"jobs_name_start_{name_length}"
                has_name = sa.text("name_folded IS NOT NULL")
                sources.append((hinted(index).where(has_name, _name_start(name_length)), seq))
            if shape.id_prefix:
                sources.append((hinted("jobs_id").where(_id_range()), seq))
            return sources


def _conditions(shape: Shape, name_length: int) -> list[Any]:
    """What the walk leaves open of a job's own row."""
    conditions: list[Any] = []
    if 0 < shape.statuses < len(_EVERY_STATUS) and shape.walk not in ("status", "workflow"):
        conditions.append(JOBS.c.status.in_([_P(f"status_{i}") for i in range(shape.statuses)]))
    if shape.workflow and shape.walk != "workflow":
        conditions.append(JOBS.c.workflow == _P("workflow"))
    if shape.name and shape.walk != "name":
        named = (
            sa.func.instr(JOBS.c.name_folded, _P("name")) > sa.literal_column("0")
            if shape.name == "part"
            else _name_start(name_length)
        )
        conditions.append(sa.or_(named, _id_range()) if shape.id_prefix else named)
    return conditions


def _open_conditions(shape: Shape, seq: Any, name_length: int, *, on_jobs: bool) -> list[Any]:
    def of_the_row(*conditions: Any) -> Any:
        return sa.and_(*conditions) if on_jobs else sa.exists().where(JOBS.c.seq == seq, *conditions)

    own = _conditions(shape, name_length)
    conditions = [of_the_row(*own)] if own else []
    if shape.created:
        created = JOBS.c.created_at
        within = of_the_row(created > _P("created_after"), created < _P("created_before"))
        # Away from the ends of the range there is no need to look at the row.
        conditions.insert(0, sa.or_(sa.and_(seq > _P("sure_low"), seq < _P("sure_high")), within))
    for i in range(1 if shape.walk == "label" else 0, shape.labels):
        other = JOB_LABELS.alias(f"label_{i}")
        conditions.append(
            sa.exists().where(
                other.c.key == _P(f"key_{i}"), other.c.value == _P(f"value_{i}"), other.c.seq == seq
            )
        )
    return conditions


def _together(parts: list[Any], shape: Shape) -> Any:
    if len(parts) == 1:
        return parts[0].subquery("found")
    selects = [sa.select(part.subquery(f"part_{i}").c.seq) for i, part in enumerate(parts)]
    # Only a job found both by its name and by its id can come twice.
    union = sa.union(*selects) if shape.walk == "name" else sa.union_all(*selects)
    return union.subquery("found")


def page_select(shape: Shape, name_length: int = 0) -> Any:
    """The seqs of one page, in order."""

    def ordered(seq: Any) -> Any:
        return seq.desc() if shape.order == "desc" else seq.asc()

    parts = []
    for select, seq in _sources(shape, name_length):
        on_jobs = seq is JOBS.c.seq
        part = _bounded(select, seq).where(*_open_conditions(shape, seq, name_length, on_jobs=on_jobs))
        parts.append(part.order_by(ordered(seq)).limit(_P("n")))
    if len(parts) == 1:
        return parts[0]
    found = _together(parts, shape)
    return sa.select(found.c.seq).order_by(ordered(found.c.seq)).limit(_P("n"))


def matched_select(shape: Shape, name_length: int = 0) -> Any:
    """How many jobs match; stops at `n` of them."""
    parts = []
    for select, seq in _sources(shape, name_length):
        on_jobs = seq is JOBS.c.seq
        part = _bounded(select, seq).where(*_open_conditions(shape, seq, name_length, on_jobs=on_jobs))
        parts.append(part.limit(_P("n")))
    found = _together(parts, shape)
    return sa.select(sa.func.count()).select_from(sa.select(found.c.seq).limit(_P("n")).subquery("counted"))


def examined_select(shape: Shape, name_length: int = 0) -> Any:
    """How many of the first `n` candidates of the walk match."""
    parts = [_bounded(select, seq).limit(_P("n")) for select, seq in _sources(shape, name_length)]
    found = _together(parts, shape)
    candidates = sa.select(found.c.seq).limit(_P("n")).subquery("candidates")
    conditions = _open_conditions(shape, candidates.c.seq, name_length, on_jobs=False)
    return sa.select(sa.func.count()).select_from(candidates).where(*conditions)


# ---------------------------------------------------------------- answering a query


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
        if counted == 0 or plan is None or (plan.shape.created and not self._narrow(connection, plan)):
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
        items = self.jobs(connection, seqs[: query.limit])
        return JobPage(tuple(items), max(total, len(items)), exact, has_more)

    def jobs(self, connection: sqlite3.Connection, seqs: list[int]) -> list[Job]:
        """The jobs with these seqs, in the order given; one deleted meanwhile is left out."""
        found: dict[int, Job] = {}
        for start in range(0, len(seqs), 512):
            sql, values = self._statements.by_seqs(seqs[start : start + 512])
            for row in connection.execute(sql, values):
                found[row[0]] = job_of(row)
        return [found[seq] for seq in seqs if seq in found]

    def _run(self, connection: sqlite3.Connection, select: Any, plan: _Plan, values: dict[str, Any]) -> Any:
        return connection.execute(self._compiled(select, plan.shape, plan.name_length), values)

    def _counted(self, connection: sqlite3.Connection, query: JobQuery) -> int:
        """Jobs with the query's statuses and workflow, whatever else it asks for."""
        wanted = {status.value for status in query.statuses or _EVERY_STATUS}
        return sum(
            jobs
            for workflow, status, jobs in connection.execute(self._statements.counts)
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
        if by_counts != "jobs":
            choices.append((counted, plan.with_walk(by_counts)))
        elif others == 1:
            return self._decide_alone(connection, plan)
        # What each walk would have to look at, were it alone.
        bare = replace(shape, statuses=0, workflow=False, labels=0, name=None, id_prefix=False, created=False)
        for label in plan.labels:
            alone = replace(plan, shape=bare, labels=[label]).with_walk("label", label)
            choices.append(
                (self._matched(connection, alone, COMBINED_STOPS_AT), plan.with_walk("label", label))
            )
        if shape.name is not None:
            named = replace(bare, name=shape.name, id_prefix=shape.id_prefix)
            alone = replace(plan, shape=named, labels=[]).with_walk("name")
            choices.append((self._matched(connection, alone, COMBINED_STOPS_AT), plan.with_walk("name")))
        if shape.created:
            choices.append((plan.values["seq_high"] - plan.values["seq_low"], plan.with_walk("jobs")))
        fewest, chosen = min(choices, key=lambda choice: choice[0])
        values = dict(chosen.values, n=COMBINED_STOPS_AT)
        total = self._run(connection, examined_select, chosen, values).fetchone()[0]
        return chosen, total, fewest <= COMBINED_STOPS_AT

    def _decide_alone(self, connection: sqlite3.Connection, plan: _Plan) -> tuple[_Plan, int, bool]:
        shape = plan.shape
        if shape.created:
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
    if not statuses and query.workflow is not None:
        statuses = _EVERY_STATUS  # the index has a status in its middle: one walk for each
    elif len(statuses) == len(_EVERY_STATUS) and query.workflow is None:
        statuses = ()
    values.update((f"status_{i}", status.value) for i, status in enumerate(statuses))
    values["workflow"] = query.workflow
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
        statuses=len(statuses),
        workflow=query.workflow is not None,
        labels=len(labels),
        name=name,
        id_prefix=prefix is not None,
        created=created,
        order=query.order,
    )
    return _Plan(shape, len(part) if name == "start" else 0, values, labels)
