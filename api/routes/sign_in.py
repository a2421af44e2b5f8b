"""`/sign-in`: what a page has to know before it knows who is in front of it."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from api import sign_in_schemas as schemas
from api.auth_rules import IssuerUnavailable
from api.documents import BAD_PARAMETER, example, problems
from api.problems import ISSUER_UNAVAILABLE, Problem
from api.query_names import no_query
from api.representations import json_response
from api.state import state_of

router = APIRouter(tags=["access"])


@router.get(
    "/sign-in",
    operation_id="get_sign_in",
    summary="How people say who they are",
    response_model=schemas.SignIn,
    response_description="Whether they have to, and where the page leads them for it.",
    responses=problems(
        422,
        503,
        examples={
            **BAD_PARAMETER,
            503: example(
                Problem(ISSUER_UNAVAILABLE, "Nobody can be led to the issuer now. It does not answer.")
            ),
        },
    ),
)
async def get_sign_in(request: Request) -> Response:
    """Open to everybody: nothing of it is secret. The addresses are those of the issuer's own document."""
    no_query(request)
    authenticator = state_of(request).authenticator
    offer = authenticator.sign_in
    if offer is None:
        return json_response({"mode": authenticator.mode, "redirect": None})
    try:
        redirect = await offer.redirect()
    except IssuerUnavailable as error:
        raise Problem(
            ISSUER_UNAVAILABLE,
            f"Nobody can be led to the issuer now. {error} API keys are not affected.",
            headers={"Retry-After": str(error.retry_after_s)},
        ) from None
    return json_response({"mode": authenticator.mode, "redirect": redirect})
