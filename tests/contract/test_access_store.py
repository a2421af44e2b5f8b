"""The contract of every `AccessStore`: keys, quotas and the record of changes."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner.access import (
    ALL_TENANTS,
    OPERATOR,
    Action,
    ApiKey,
    AuditQuery,
    AuditRecord,
    Caller,
    Quota,
    Scope,
    audit_of,
)
from runner.errors import Forbidden, InvalidAccess, StoreUnavailable
from runner.stores.access_records import EXAMINED_AT_MOST
from runner.stores.memory import MemoryStore
from runner.stores.sql import SqlStore
from tests.support.stores import KINDS, NOON, a_job, new_store, store_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Store = MemoryStore | SqlStore
ROOT = Path(__file__).parents[2]
HOUR = timedelta(hours=1)
ADMIN_OF_A = Caller("chief", "a", frozenset(Scope), address="192.0.2.7", request_id="r1")


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = MemoryStore() if request.param == "memory" else new_store(tmp_path)
    yield made
    made.close()


def a_key(prefix: str, tenant: str = "a", **changes: object) -> ApiKey:
    key = ApiKey(
        prefix=prefix,
        name=f"key {prefix}",
        tenant=tenant,
        scopes=frozenset({Scope.READ, Scope.SUBMIT}),
        secret_sha256=hashlib.sha256(prefix.encode()).digest(),
        created_at=NOON,
        created_by="operator",
    )
    return replace(key, **changes)  # type: ignore[arg-type]


def add(store: Store, *keys: ApiKey) -> None:
    for key in keys:
        store.add_key(key, OPERATOR).result(10)


def recorded(store: Store, **query: object) -> Sequence[AuditRecord]:
    return store.audit(AuditQuery(**query)).items  # type: ignore[arg-type]


# ---------------------------------------------------------------- keys


def test_a_key_is_read_back_as_it_was_made(store: Store) -> None:
    plain = a_key("p1")
    full = a_key(
        "p2",
        ALL_TENANTS,
        scopes=frozenset(Scope),
        created_at=NOON + HOUR,
        created_by="é",
        expires_at=NOON + 2 * HOUR,
        revoked_at=NOON + 3 * HOUR,
    )
    add(store, full, plain)
    assert store.key("p1") == plain
    assert store.keys() == [plain, full]
    assert store.keys(tenant="a") == [plain]
    assert store.key("p") is None
    assert store.key("\ud800") is None


def test_two_keys_never_have_one_prefix(store: Store) -> None:
    add(store, a_key("p1"))
    assert isinstance(store.add_key(a_key("p1", "b"), OPERATOR).exception(10), ValueError)
    assert store.keys() == [a_key("p1")]
    assert len(recorded(store)) == 1


def test_a_tenant_has_so_many_keys_and_ended_ones_make_room(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("runner.stores.memory_access", "runner.stores.sql.access"):
        monkeypatch.setattr(f"{module}.KEYS_AT_MOST", 3)
    add(store, a_key("p1"), a_key("p2", expires_at=NOON + HOUR), a_key("p3"), a_key("other", "b"))
    full = store.add_key(a_key("p4"), ADMIN_OF_A).exception(10)
    assert isinstance(full, InvalidAccess)
    assert isinstance(store.rotate_key("p1", a_key("p4"), NOON, OPERATOR).exception(10), InvalidAccess)
    assert [key.prefix for key in store.keys(tenant="a")] == ["p1", "p2", "p3"]
    assert len(recorded(store)) == 4
    add(store, a_key("p4", created_at=NOON + HOUR))
    assert [key.prefix for key in store.keys(tenant="a")] == ["p1", "p3", "p4"]
    store.revoke_key("p1", NOON, OPERATOR).result(10)
    assert store.rotate_key("p3", a_key("p5"), NOON, OPERATOR).result(10)
    assert sorted(map(attrgetter("prefix"), store.keys())) == ["other", "p3", "p4", "p5"]


def test_a_revoked_key_stays_on_the_list_and_is_revoked_once(store: Store) -> None:
    add(store, a_key("p1", expires_at=NOON + 9 * HOUR))
    assert store.revoke_key("p1", NOON + HOUR, OPERATOR).result(10) is True
    assert store.revoke_key("p1", NOON + 2 * HOUR, OPERATOR).result(10) is False
    assert store.revoke_key("p2", NOON, OPERATOR).result(10) is False
    assert store.key("p1") == a_key("p1", expires_at=NOON + 9 * HOUR, revoked_at=NOON + HOUR)
    assert [record.action for record in recorded(store)] == [Action.KEY_REVOKED, Action.KEY_CREATED]


def test_a_rotated_key_ends_at_once_or_after_a_while_and_never_later_than_before(store: Store) -> None:
    add(store, a_key("now"), a_key("later"), a_key("early", expires_at=NOON + HOUR))
    for old, until in (("now", None), ("later", NOON + 2 * HOUR), ("early", NOON + 2 * HOUR)):
        rotated = store.rotate_key(old, a_key(f"{old}2"), NOON, OPERATOR, old_expires_at=until)
        assert rotated.result(10) is True
        assert store.key(f"{old}2") == a_key(f"{old}2")
    assert store.key("now") == a_key("now", revoked_at=NOON)
    assert store.key("later") == a_key("later", expires_at=NOON + 2 * HOUR)
    assert store.key("early") == a_key("early", expires_at=NOON + HOUR)


def test_a_key_that_is_no_good_any_more_is_not_rotated(store: Store) -> None:
    add(store, a_key("revoked", revoked_at=NOON), a_key("expired", expires_at=NOON))
    for old in ("revoked", "expired", "unknown"):
        assert store.rotate_key(old, a_key("new"), NOON, OPERATOR).result(10) is False
    assert store.key("new") is None


def test_the_new_key_is_of_the_same_tenant(store: Store) -> None:
    add(store, a_key("p1"))
    refused = store.rotate_key("p1", a_key("p2", "b"), NOON, OPERATOR)
    assert isinstance(refused.exception(10), ValueError)
    assert store.keys() == [a_key("p1")]


def test_a_tenants_admin_makes_and_ends_the_keys_of_its_own_tenant_only(store: Store) -> None:
    add(store, a_key("of-b", "b"), a_key("of-all", ALL_TENANTS))
    store.add_key(a_key("of-a"), ADMIN_OF_A).result(10)
    for tenant in ("b", ALL_TENANTS):
        refused = store.add_key(a_key("more", tenant), ADMIN_OF_A)
        assert isinstance(refused.exception(10), Forbidden)
    for prefix in ("of-b", "of-all", "unknown"):  # what it can't see is not there
        assert store.revoke_key(prefix, NOON, ADMIN_OF_A).result(10) is False
        assert store.rotate_key(prefix, a_key("new", "b"), NOON, ADMIN_OF_A).result(10) is False
    assert store.rotate_key("of-a", a_key("of-a2"), NOON, ADMIN_OF_A).result(10) is True
    assert store.revoke_key("of-a2", NOON, ADMIN_OF_A).result(10) is True


def test_whoever_is_no_admin_changes_no_keys(store: Store) -> None:
    add(store, a_key("p1"))
    reader = Caller("r", "a", frozenset({Scope.READ, Scope.SUBMIT}), all_tenants=True)
    for refused in (
        store.add_key(a_key("p2"), reader),
        store.revoke_key("p1", NOON, reader),
        store.rotate_key("p1", a_key("p2"), NOON, reader),
        store.set_quota("a", Quota(max_cores=1), NOON, reader),
    ):
        assert isinstance(refused.exception(10), Forbidden)
    assert store.keys() == [a_key("p1")]
    assert store.quotas() == {}
    assert len(recorded(store)) == 1


def test_every_change_of_keys_and_quotas_changes_the_version_and_nothing_else_does(store: Store) -> None:
    seen = {store.keys_version()}
    for change in (
        partial(store.add_key, a_key("p1"), OPERATOR),
        partial(store.rotate_key, "p1", a_key("p2"), NOON, OPERATOR),
        partial(store.revoke_key, "p2", NOON, OPERATOR),
        partial(store.set_quota, "a", Quota(max_cores=1), NOON, OPERATOR),
    ):
        change().result(10)
        assert store.keys_version() not in seen
        seen.add(store.keys_version())
    before = store.keys_version()
    store.revoke_key("p2", NOON, OPERATOR).result(10)
    store.add(a_job()).result(10)
    assert store.keys_version() == before


# ---------------------------------------------------------------- quotas


def test_a_quota_is_read_back_and_an_empty_one_takes_it_away(store: Store) -> None:
    full = Quota(max_cores=3, max_pending=2**40, max_bytes=2**50)
    store.set_quota("a", full, NOON, OPERATOR).result(10)
    store.set_quota("b", Quota(max_pending=1), NOON, OPERATOR).result(10)
    assert store.quota("a") == full
    assert store.quotas() == {"a": full, "b": Quota(max_pending=1)}
    store.set_quota("a", Quota(max_bytes=1), NOON, OPERATOR).result(10)
    assert store.quota("a") == Quota(max_bytes=1)
    store.set_quota("a", Quota(), NOON, OPERATOR).result(10)
    assert store.quota("a") is None
    assert store.quotas() == {"b": Quota(max_pending=1)}


def test_a_tenant_does_not_set_its_own_quota(store: Store) -> None:
    refused = store.set_quota("a", Quota(max_cores=99), NOON, ADMIN_OF_A)
    assert isinstance(refused.exception(10), Forbidden)
    assert store.quotas() == {}
    assert recorded(store) == ()


def test_the_tenants_are_those_with_a_job_a_key_or_a_quota(store: Store) -> None:
    assert store.tenants() == []
    add(store, a_key("p1", "with-key"), a_key("p2", ALL_TENANTS))
    store.set_quota("with-quota", Quota(max_cores=1), NOON, OPERATOR).result(10)
    job = store.add(replace(a_job(), tenant="with-job")).result(10).job
    assert store.tenants() == ["with-job", "with-key", "with-quota"]
    store.delete(job).result(10)
    assert store.tenants() == ["with-key", "with-quota"]


# ---------------------------------------------------------------- the record


def test_a_record_says_who_did_what_to_whom_when_and_from_where(store: Store) -> None:
    store.add_key(a_key("p1", created_at=NOON + HOUR), ADMIN_OF_A).result(10)
    store.set_quota("a", Quota(max_cores=2), NOON, OPERATOR).result(10)
    by_operator, by_chief = recorded(store)
    assert by_chief == AuditRecord(
        at=NOON + HOUR,
        actor="chief",
        tenant="a",
        action=Action.KEY_CREATED,
        subject="p1",
        address="192.0.2.7",
        request_id="r1",
        data={"name": "key p1", "scopes": ["read", "submit"], "expires_at": None},
        seq=1,
    )
    told = {"max_cores": 2, "max_pending": None, "max_bytes": None, "actor_tenant": ALL_TENANTS}
    assert (by_operator.actor, by_operator.subject, by_operator.data) == ("operator", "a", told)


def test_no_record_holds_a_secret_or_what_is_kept_of_it(store: Store) -> None:
    key = a_key("p1")
    add(store, key)
    store.rotate_key("p1", a_key("p2"), NOON, OPERATOR).result(10)
    text = repr(recorded(store)) + repr(store.keys())
    assert key.secret_sha256.hex() not in text
    assert repr(key.secret_sha256) not in text


def test_records_are_filtered_and_paged_from_the_newest(store: Store) -> None:
    for number in range(12):
        by = ADMIN_OF_A if number % 3 == 0 else OPERATOR
        store.add_key(a_key(f"p{number}"), by).result(10)
    store.add_key(a_key("other", "b"), OPERATOR).result(10)
    assert [record.subject for record in recorded(store, actor="chief")] == ["p9", "p6", "p3", "p0"]
    assert recorded(store, action=Action.KEY_REVOKED) == ()
    assert [record.subject for record in recorded(store, subject="p5")] == ["p5"]
    assert recorded(store, subject="p5", tenant="b") == ()
    assert [record.subject for record in recorded(store, after_seq=11)] == ["other", "p11"]
    found: list[str] = []
    query = AuditQuery(tenant="a", limit=5)
    while True:
        page = store.audit(query)
        found += [record.subject for record in page.items]
        if page.next_before_seq is None:
            break
        assert len(page.items) == 5
        query = replace(query, before_seq=page.next_before_seq)
    assert found == [f"p{number}" for number in reversed(range(12))]


def test_a_search_looks_at_so_many_records_and_can_be_continued(store: Store) -> None:
    futures = []
    for number in range(EXAMINED_AT_MOST + 2):
        job = a_job()
        by = ADMIN_OF_A if number == 0 else OPERATOR
        audit = audit_of(by, Action.JOB_SUBMITTED, job.id, tenant="a", at=NOON)
        futures.append(store.add(job, audit=audit))
    for future in futures:
        future.result(10)
    first = store.audit(AuditQuery(actor="chief"))
    assert first.items == ()
    assert first.next_before_seq == 3
    rest = store.audit(AuditQuery(actor="chief", before_seq=first.next_before_seq))
    assert [record.actor for record in rest.items] == ["chief"]
    assert rest.next_before_seq is None


def test_old_records_are_forgotten_from_the_oldest_on_a_few_at_a_time(store: Store) -> None:
    for number in range(5):
        add(store, a_key(f"p{number}", created_at=NOON + number * HOUR))
    assert store.forget_audit(NOON + 3 * HOUR, limit=2).result(10) == 2
    assert store.forget_audit(NOON + 3 * HOUR, limit=2).result(10) == 1
    assert store.forget_audit(NOON + 3 * HOUR, limit=2).result(10) == 0
    assert [record.subject for record in recorded(store)] == ["p4", "p3"]
    add(store, a_key("p5"))
    assert recorded(store)[0].seq == 6


# ---------------------------------------------------------------- on the disk


def test_keys_quotas_and_records_are_there_after_opening_again(tmp_path: Path) -> None:
    with closing(SqlStore.open(store_url(tmp_path))) as store:
        add(store, a_key("p1"))
        store.set_quota("a", Quota(max_cores=1), NOON, OPERATOR).result(10)
        before = (store.keys(), store.quotas(), recorded(store), store.keys_version())
    with closing(SqlStore.open(store_url(tmp_path))) as store:
        assert (store.keys(), store.quotas(), recorded(store), store.keys_version()) == before


_CHANGE = """
import sys
from runner.access import OPERATOR, Quota
from runner.stores.sql import SqlStore
from tests.support.stores import NOON
store = SqlStore.open(sys.argv[1], may_upgrade=False)
store.revoke_key("p1", NOON, OPERATOR).result(10)
store.set_quota("a", Quota(max_pending=1), NOON, OPERATOR).result(10)
store.close()
"""


def test_a_change_by_another_process_is_seen_at_once(tmp_path: Path) -> None:
    with closing(SqlStore.open(store_url(tmp_path))) as service:
        add(service, a_key("p1"))
        before = service.keys_version()
        # As the command line does, beside the service.
        subprocess.run([sys.executable, "-c", _CHANGE, store_url(tmp_path)], check=True, cwd=ROOT)
        assert service.keys_version() != before
        key = service.key("p1")
        assert key is not None
        assert key.revoked_at == NOON
        added = [service.add(replace(a_job(), tenant="a"), quota=Quota()) for _ in range(2)]
        assert [future.exception(10) is None for future in added] == [True, False]


def test_two_processes_that_write_at_once_both_succeed(tmp_path: Path) -> None:
    with (
        closing(SqlStore.open(store_url(tmp_path))) as one,
        closing(SqlStore.open(store_url(tmp_path), may_upgrade=False)) as other,
        ThreadPoolExecutor(2) as threads,
    ):

        def write(store: SqlStore, letter: str) -> None:
            for number in range(100):
                store.add_key(a_key(f"{letter}{number}"), OPERATOR).result(30)

        list(threads.map(write, (one, other), "xy"))
        assert len(one.keys()) == len(other.keys()) == 200
        assert one.keys_version() == 200
        assert len({record.seq for record in recorded(one, limit=500)}) == 200


def test_a_store_that_is_in_use_is_neither_made_nor_upgraded(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        SqlStore.open(store_url(tmp_path), may_upgrade=False)
    assert list(tmp_path.iterdir()) == []
