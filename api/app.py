"""Builds the application: routes, errors, documentation. Nothing is built at import."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from functools import cached_property, partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from api import (
    access_schemas,
    event_schemas,
    plan_schemas,
    problems,
    schemas,
    sign_in_schemas,
    task_schemas,
    usage_schemas,
)
from api.access_log import AccessLog
from api.auth import Authenticator
from api.auth_settings import auth_mode, token_rules
from api.body_limit import BodyLimit
from api.checksums import Checksums
from api.client_limits import ClientRequests, Connections, OpenStreams, connections_within_descriptors
from api.cors import ListedOrigins
from api.documents import with_problems
from api.event_feed import EventFeed
from api.examples import PENDING_JOB
from api.head_requests import HeadAsGet
from api.metrics import Counted, scrape
from api.metrics_labels import WorkflowLabels
from api.origins import parse_origins
from api.paging import Cursors
from api.private_paths import PrivatePaths
from api.proxies import BehindProxies, TrustedProxies, parse_networks
from api.request_counts import CountedRequests, RequestCounts
from api.request_id import RequestId
from api.routes import (
    access,
    documentation,
    events,
    graph,
    health,
    jobs,
    logs,
    outputs,
    page,
    plans,
    reports,
    ro_crate,
    sign_in,
    tasks,
    usage,
    workflows,
)
from api.security_documents import with_security
from api.shared_look import SharedLook
from api.sign_in_settings import sign_in_rules
from api.state import AppState
from api.turns import ShortTurns, Turns
from api.upload_requests import BEYOND_FILES_BYTES
from api.waiting import StopSignal
from runner.access import OPERATOR
from runner.callers_access import CallersAccess
from runner.errors import RunnerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from starlette.types import ASGIApp

    from api.settings import ServiceSettings
    from runner.bootstrap import Runner

_ROUTES = (
    jobs,
    logs,
    tasks,
    graph,
    usage,
    events,
    outputs,
    reports,
    ro_crate,
    workflows,
    plans,
    access,
    sign_in,
    health,
    documentation,
    page,
)
_DESCRIPTION = """Run Snakemake pipelines as a service: submit a job, watch it, read its log.

Every error is `application/problem+json` (RFC 9457) with a stable `type`. Every answer has an `X-Request-ID`.
"""
_TAGS = [
    {"name": "jobs", "description": "Submit, watch, cancel and retry."},
    {"name": "logs", "description": "What a job wrote."},
    {"name": "tasks", "description": "What a job's run consists of."},
    {"name": "events", "description": "Changes of jobs, as they happen."},
    {"name": "outputs", "description": "A job's files."},
    {"name": "workflows", "description": "What can be run."},
    {"name": "access", "description": "API keys, tenants, the record of changes."},
    {"name": "health", "description": "For load balancers and people on call."},
]


class Application(FastAPI):
    """FastAPI, with what must stand outside its own error handling, and one way to stop its streams."""

    def __init__(self, runner: Runner, settings: ServiceSettings) -> None:
        self.settings = settings
        self.stop = StopSignal()
        self.private_paths = PrivatePaths(settings)
        self.proxies = TrustedProxies(parse_networks(settings.trusted_proxies or ""))
        self.connections = Connections(
            connections_within_descriptors(settings.max_connections, settings.max_cores),
            settings.max_connections_per_client,
            exempt=self.proxies.trusts,
        )
        streams = OpenStreams(settings.max_streams_per_client, self.connections.refused)
        self.requests = RequestCounts()
        service = runner.service
        self.is_open = auth_mode(settings) == "none"
        tokens = token_rules(settings)
        authenticator = Authenticator(
            auth_mode(settings),
            runner.access,
            tokens,
            sign_in=sign_in_rules(settings, tokens),
            own_names_only=settings.auth == "auto",
            origins=parse_origins(settings.cors_origins or ""),
            refused=self.connections.refused,
        )
        feed = EventFeed(service.acting_for(OPERATOR))
        counted = Counted(
            measurements=service.measurements,
            workflows=WorkflowLabels(service.workflow_names),
            requests=self.requests,
            connections=self.connections,
            streams=streams,
        )
        state = AppState(
            authenticator=authenticator,
            jobs_of=service.acting_for,
            access_of=partial(CallersAccess, runner.access),
            readiness=SharedLook(service.readiness),
            metrics=SharedLook(partial(scrape, service, counted)),
            cursors=Cursors(runner.access.cursor_secret()),
            feed=feed,
            metrics_are_public=settings.metrics_public,
            stop=self.stop,
            connections=self.connections,
            streams=streams,
            # More at once would keep the interpreter from the requests that take no time.
            file_walks=Turns(2),
            tail_searches=Turns(2),
            making=Turns(2),
            crates=Turns(1),
            checksums=Checksums(Turns(2)),
            run_reads=Turns(3, of_tenant=2),
            changes=Turns(24, of_tenant=12),
            pins=Turns(4, of_tenant=2),
            uploads=Turns(4, of_tenant=2),
            # Fewer than the store has connections for readers: who is let in is asked there, too.
            lists=Turns(3, of_tenant=2),
            side_runs=ShortTurns(3, of_tenant=2, waiting=8),
        )

        @asynccontextmanager
        async def lifespan(_app: FastAPI) -> AsyncIterator[Mapping[str, AppState]]:
            async with authenticator.running(), feed.running():
                yield {"snakeline": state}

        super().__init__(
            title="Snakeline",
            version=version("snakeline"),
            description=_DESCRIPTION,
            openapi_tags=_TAGS,
            lifespan=lifespan,
            docs_url=None,
            redoc_url=None,
            openapi_url=None,
            redirect_slashes=False,
            # Its own spans would have addresses and queries in them, its own logs what went wrong inside.
            telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        )
        for group in _ROUTES:
            # Not include_router: that one matches every path twice, once for the router and once in it.
            self.router.routes.extend(group.router.routes)
        self.add_exception_handler(RunnerError, problems.on_runner_error)
        self.add_exception_handler(problems.Problem, problems.on_problem)
        self.add_exception_handler(HTTPException, problems.on_http_exception)
        self.add_exception_handler(RequestValidationError, problems.on_invalid_request)
        self.add_exception_handler(Exception, problems.on_unexpected)

    def build_middleware_stack(self) -> ASGIApp:
        files_bytes = math.ceil(self.settings.max_attachments_mb * 2**20)
        app: ASGIApp = BodyLimit(
            super().build_middleware_stack(), upload_limit_bytes=files_bytes + BEYOND_FILES_BYTES
        )
        if self.proxies:
            most = self.settings.max_connections_per_client
            app = ClientRequests(app, most, self.connections.refused)
        if origins := parse_origins(self.settings.cors_origins or ""):
            app = ListedOrigins(app, origins)
        log = AccessLog(self.settings.access_log_share, self.settings.access_log_slow_s)
        app = HeadAsGet(CountedRequests(RequestId(app, log), self.requests))
        return BehindProxies(app, self.proxies) if self.proxies else app

    def allowed_methods(self, path: str) -> list[str]:
        """The methods that some route answers at `path`."""
        found = {
            method
            for route in self.routes
            if isinstance(route, APIRoute) and route.path_regex.match(path)
            for method in route.methods or ()
        }
        return sorted(found | ({"HEAD"} if "GET" in found else set()))

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = get_openapi(
                title=self.title,
                version=self.version,
                openapi_version="3.1.0",
                description=self.description,
                routes=self.routes,
                tags=self.openapi_tags,
            )
            # The models that routes name without FastAPI's knowing: bodies are parsed and problems
            # written by us.
            _, models = models_json_schema(
                [(model, "validation") for model in (*access_schemas.READ_BY_US, *event_schemas.READ_BY_US)],
                ref_template="#/components/schemas/{model}",
            )
            document["components"]["schemas"].update(models["$defs"])
            # FastAPI drops every null, also those of examples.
            for model in (
                *schemas.SHOWN,
                *task_schemas.SHOWN,
                *usage_schemas.SHOWN,
                *plan_schemas.SHOWN,
                *access_schemas.SHOWN,
                *sign_in_schemas.SHOWN,
            ):
                document["components"]["schemas"][model.__name__].update(examples=schemas.examples(model))
            submitted = document["paths"]["/jobs"]["post"]["responses"]["201"]["content"]
            submitted["application/json"]["example"] = PENDING_JOB
            issuer = self.settings.oidc_issuer
            with_security(document, self.routes, is_open=self.is_open, issuer=issuer)
            self.openapi_schema = with_problems(document)
        return self.openapi_schema

    @cached_property
    def openapi_json(self) -> bytes:
        return to_json(self.openapi())


def create_app(runner: Runner, settings: ServiceSettings) -> Application:
    """The application over one runner, which its caller starts before and closes after it."""
    return Application(runner, settings)
