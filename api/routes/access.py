"""`/keys`, `/tenants` and `/audit`: for callers with the scope `admin`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from api import access_schemas as schemas
from api.access_documents import audit_document, key_document, quota_document, quota_of
from api.callers import Admin
from api.documents import BAD_PARAMETER, example, header, problems
from api.paging import next_link
from api.problems import INVALID_CURSOR, KEYS_NOT_USED, Problem
from api.query_names import each_once, no_query
from api.representations import json_response
from api.request_body import read_model
from api.state import in_thread, state_of
from runner.access import AuditQuery
from runner.errors import FieldError, InvalidAccess, KeyNotActive, KeyNotFound

router = APIRouter(tags=["access"])

_NO_SUCH_KEY = {404: example(KeyNotFound("snk_4k2v9m0q1x")), **BAD_PARAMETER}
_INVALID = {422: example(InvalidAccess((FieldError("/expires_at", "must be in the future"),)))}
_SECRET = {"Cache-Control": "no-store"}


def _body(model: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{model}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _require_use(request: Request) -> None:
    """Raises Problem (403) while nobody has to log in.

    Whoever can reach the service then could make a key that is good later, when keys are wanted.
    """
    if state_of(request).authenticator.is_open:
        raise Problem(
            KEYS_NOT_USED,
            "Nobody needs a key here (SNAKELINE_AUTH), so anybody could make one: use `snakeline keys` on "
            "the machine of the service.",
        )


@router.get(
    "/keys",
    operation_id="list_keys",
    summary="List API keys",
    response_model=schemas.KeyPage,
    response_description="The keys you administer, the earliest first; revoked and expired ones as well.",
    responses=problems(422, 503, examples=BAD_PARAMETER),
)
async def list_keys(request: Request, access: Admin) -> Response:
    """Those of your own tenant; an operator's call lists those of every tenant. Secrets are not stored."""
    no_query(request)
    keys = await in_thread(access.keys)
    now = datetime.now(UTC)
    return json_response({"items": [key_document(key, now) for key in keys], "total": len(keys)})


@router.post(
    "/keys",
    operation_id="create_key",
    summary="Create an API key",
    status_code=201,
    response_model=schemas.CreatedKey,
    response_description="The key. Its text, `key`, is shown here and never again.",
    responses=problems(400, 408, 413, 415, 422, 503, 507, examples=_INVALID),
    openapi_extra=_body("CreateKey"),
)
async def create_key(request: Request, access: Admin) -> Response:
    """For your own tenant; an operator may name another, or `*`."""
    no_query(request)
    _require_use(request)
    asked = await read_model(request, schemas.CreateKey, state_of(request).stop)
    key, text = await in_thread(
        access.create_key,
        name=asked.name,
        scopes=asked.scopes,
        tenant=asked.tenant,
        expires_at=asked.expires_at,
    )
    return json_response({**key_document(key, datetime.now(UTC)), "key": text}, 201, _SECRET)


@router.post(
    "/keys/{prefix}/rotate",
    operation_id="rotate_key",
    summary="Replace an API key",
    status_code=201,
    response_model=schemas.CreatedKey,
    response_description="The new key. Its text, `key`, is shown here and never again.",
    responses=problems(
        400, 404, 408, 409, 413, 415, 422, 503, 507,
        examples={**_NO_SUCH_KEY, 409: example(KeyNotActive("snk_4k2v9m0q1x"))},
    ),
    openapi_extra=_body("RotateKey"),
)  # fmt: skip
async def rotate_key(request: Request, access: Admin, prefix: str) -> Response:
    """A new key with the same name, tenant, scopes and length of time; the old one ends, at once or later."""
    no_query(request)
    _require_use(request)
    asked = await read_model(request, schemas.RotateKey, state_of(request).stop)
    key, text = await in_thread(access.rotate_key, prefix, overlap_s=asked.overlap_s)
    return json_response({**key_document(key, datetime.now(UTC)), "key": text}, 201, _SECRET)


@router.delete(
    "/keys/{prefix}",
    operation_id="revoke_key",
    summary="Revoke an API key",
    status_code=204,
    response_class=Response,
    response_description="It is refused from the next request on. It stays in the list.",
    responses=problems(404, 413, 422, 503, 507, examples=_NO_SUCH_KEY),
)
async def revoke_key(request: Request, access: Admin, prefix: str) -> Response:
    """Revoking twice is no error."""
    no_query(request)
    await in_thread(access.revoke_key, prefix)
    return Response(status_code=204)


@router.get(
    "/tenants",
    operation_id="list_tenants",
    summary="List tenants and their quotas",
    response_model=schemas.TenantPage,
    response_description="Every tenant that has a job, a key or a quota; for all but an operator their own.",
    responses=problems(422, 503, examples=BAD_PARAMETER),
)
async def list_tenants(request: Request, access: Admin) -> Response:
    """A null means that what the settings say for every tenant (`SNAKELINE_TENANT_…`) holds."""
    no_query(request)
    quotas = await in_thread(access.quotas)
    items = [quota_document(tenant, quota) for tenant, quota in quotas]
    return json_response({"items": items, "total": len(items)})


@router.put(
    "/tenants/{name}",
    operation_id="set_quota",
    summary="Set a tenant's quota",
    response_model=schemas.Tenant,
    response_description="The tenant as it is now.",
    responses=problems(400, 408, 413, 415, 422, 503, 507),
    openapi_extra=_body("SetQuota"),
)
async def set_quota(request: Request, access: Admin, name: Annotated[schemas.Name, Path()]) -> Response:
    """Replaces the whole quota. Only for an operator; the tenant need not have been heard of before."""
    no_query(request)
    quota = quota_of(await read_model(request, schemas.SetQuota, state_of(request).stop))
    await in_thread(access.set_quota, name, quota)
    return json_response(quota_document(name, quota))


@router.get(
    "/audit",
    operation_id="list_audit",
    summary="Read the record of changes",
    response_model=schemas.AuditPage,
    response_description="A page of records, the newest first.",
    responses={
        200: {"headers": {"Link": header('`rel="next"`: the next page (RFC 8288).')}},
        **problems(
            400, 422, 503,
            examples={
                **BAD_PARAMETER,
                400: example(Problem(INVALID_CURSOR, "Use the next_cursor of an earlier answer as it is.")),
            },
        ),
    },
)  # fmt: skip
async def list_audit(
    request: Request, access: Admin, filters: Annotated[schemas.ReadAudit, Query()]
) -> Response:
    """Who changed what of your tenant, when, and from where; for an operator, of every tenant."""
    each_once(request)
    cursors = state_of(request).cursors
    page = await in_thread(
        access.audit,
        AuditQuery(
            tenant=filters.tenant,
            actor=filters.actor,
            action=filters.action,
            subject=filters.subject,
            before_seq=None if filters.cursor is None else cursors.decode(filters.cursor, filters),
            limit=filters.limit,
        ),
    )
    following = page.next_before_seq
    cursor = None if following is None else cursors.encode(following, filters)
    return json_response(
        {"items": [audit_document(record) for record in page.items], "next_cursor": cursor},
        headers={"Link": next_link(cursor, filters, "/audit")} if cursor else None,
    )
