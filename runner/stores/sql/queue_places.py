"""Places in a tenant's queue: how many of its pending jobs come before one, counted along one index.

The index has a job's cores before its priority, so what comes before a job is a range in each size. The
ranges of all jobs that are asked about lie behind each other: nothing is counted twice.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from runner.stores.sql.statements import Statements

_NEAR_THE_END: Final = 2000
_FIRST: Final = -(2**63)

# From one size to the next, each by one step down the index.
_SIZES: Final = (
    "WITH RECURSIVE sizes (cores) AS ("
    "SELECT (SELECT min(cores) FROM jobs INDEXED BY jobs_pending "
    "WHERE status = 'pending' AND tenant = :tenant) "
    "UNION ALL SELECT (SELECT min(jobs.cores) FROM jobs INDEXED BY jobs_pending "
    "WHERE status = 'pending' AND tenant = :tenant AND jobs.cores > sizes.cores) "
    "FROM sizes WHERE sizes.cores IS NOT NULL) "
)
_PENDING: Final = (
    "FROM sizes CROSS JOIN jobs INDEXED BY jobs_pending "
    "WHERE status = 'pending' AND tenant = :tenant AND jobs.cores = sizes.cores AND "
)
# Those behind the first that is asked about, itself included, as far as `most` of either kind.
_FROM_HERE_ON: Final = (
    # Every part of these texts is in this file.
    f"{_SIZES}SELECT (SELECT count(*) FROM (SELECT 1 "  # noqa: S608
    f"{_PENDING}priority < :priority LIMIT :most)), "
    f"(SELECT count(*) FROM (SELECT 1 {_PENDING}priority = :priority AND seq >= :seq LIMIT :most))"
)
_HIGHER: Final = f"{_SIZES}SELECT count(*) {_PENDING}priority > :priority"
# Of each range [priority, seq, priority, seq): three parts, for the index has priorities downwards.
_BETWEEN: Final = (
    f"{_SIZES}SELECT (SELECT count(*) {_PENDING}"  # noqa: S608 - as above
    "priority = a AND seq >= b AND seq < CASE WHEN a = c THEN d ELSE 9223372036854775807 END) "
    f"+ (SELECT count(*) {_PENDING}priority < a AND priority > c) "
    f"+ CASE WHEN a = c THEN 0 ELSE (SELECT count(*) {_PENDING}priority = c AND seq < d) END "
    "FROM (SELECT key, json_extract(value, '$[0]') AS a, json_extract(value, '$[1]') AS b, "
    "json_extract(value, '$[2]') AS c, json_extract(value, '$[3]') AS d FROM json_each(:ranges)) "
    "ORDER BY key"
)


def places_of(
    connection: sqlite3.Connection, statements: Statements, tenant: str, asked: Iterable[tuple[int, int]]
) -> dict[tuple[int, int], int]:
    """The place of each (priority, seq) among the tenant's pending jobs; 1 is the first."""
    order = sorted(set(asked), key=lambda job: (-job[0], job[1]))
    if not order:
        return {}
    before = _before(connection, statements, tenant, *order[0])
    places = {order[0]: before + 1}
    ranges = json.dumps([[*one, *other] for one, other in pairwise(order)])
    rows = connection.execute(_BETWEEN, {"tenant": tenant, "ranges": ranges})
    for job, (jobs,) in zip(order[1:], rows, strict=True):
        before += jobs
        places[job] = before + 1
    return places


def _before(
    connection: sqlite3.Connection, statements: Statements, tenant: str, priority: int, seq: int
) -> int:
    """How many come before this one. The newest of a long queue are counted from its end."""
    here = {"tenant": tenant, "priority": priority, "seq": seq}
    behind = connection.execute(_FROM_HERE_ON, {**here, "most": _NEAR_THE_END}).fetchone()
    if max(behind) < _NEAR_THE_END:
        total = connection.execute(statements.pending_count, {"tenant": tenant}).fetchone()[0]
        return max(0, int(total - sum(behind)))
    higher = connection.execute(_HIGHER, here).fetchone()[0]
    alike = {"tenant": tenant, "ranges": json.dumps([[priority, _FIRST, priority, seq]])}
    return int(higher) + int(connection.execute(_BETWEEN, alike).fetchone()[0])
