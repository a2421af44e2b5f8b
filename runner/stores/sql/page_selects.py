"""The SQL of pages of jobs and of their counts, for each way to walk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import sqlalchemy as sa

from runner.jobs import JobStatus
from runner.stores.sql.schema import JOB_LABELS, JOBS
from runner.stores.sql.statements import hinted

if TYPE_CHECKING:
    from runner.job_store import Order

Walk = Literal["jobs", "created", "status", "workflow", "label", "name"]

EVERY_STATUS: Final = tuple(JobStatus)
_P: Final = sa.bindparam
_NAMES: Final = sa.table("job_names", sa.column("rowid"), sa.column("job_names"))


@dataclass(frozen=True, slots=True)
class Shape:
    """A query without its values: what its SQL depends on."""

    walk: Walk
    tenant: bool
    statuses: int
    workflow: bool
    labels: int
    name: Literal["part", "start"] | None
    id_prefix: bool
    created: bool
    order: Order


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
        case "status" | "workflow":
            index, equal = ("jobs_tenant", [_of_tenant(JOBS.c)]) if shape.tenant else ("jobs", [])
            if shape.walk == "workflow":
                index, equal = f"{index}_workflow", [*equal, JOBS.c.workflow == _P("workflow")]
            return [
                (hinted(f"{index}_status").where(*equal, JOBS.c.status == _P(f"status_{i}")), seq)
                for i in range(shape.statuses)
            ]
        case "label":
            labels = JOB_LABELS.c
            equal = [_of_tenant(labels)] if shape.tenant else []
            found = sa.select(labels.seq).where(
                *equal, labels.key == _P("key_0"), labels.value == _P("value_0")
            )
            if shape.tenant:
                found = found.with_hint(JOB_LABELS, "INDEXED BY job_labels_tenant", "sqlite")
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


def _of_tenant(columns: Any) -> Any:
    return columns.tenant == _P("tenant")


def _conditions(shape: Shape, name_length: int) -> list[Any]:
    """What the walk leaves open of a job's own row."""
    conditions: list[Any] = []
    if shape.tenant and shape.walk not in ("status", "workflow", "label"):
        conditions.append(_of_tenant(JOBS.c))
    if 0 < shape.statuses < len(EVERY_STATUS) and shape.walk not in ("status", "workflow"):
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
