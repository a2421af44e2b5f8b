"""Builds the application: routes, errors, documentation. Nothing is built at import."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from api import problems, schemas
from api.body_limit import BodyLimit
from api.documents import with_problems
from api.examples import PENDING_JOB
from api.head_requests import HeadAsGet
from api.request_id import RequestId
from api.routes import documentation, health, jobs, logs, workflows
from api.state import AppState
from api.waiting import StopSignal
from runner.errors import RunnerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from starlette.types import ASGIApp

    from api.settings import ServiceSettings
    from runner.bootstrap import Runner

_DESCRIPTION = """Run Snakemake pipelines as a service: submit a job, watch it, read its log.

Every error is `application/problem+json` (RFC 9457) with a stable `type`. Every answer has an `X-Request-ID`.
"""
_TAGS = [
    {"name": "jobs", "description": "Submit, watch, cancel and retry."},
    {"name": "logs", "description": "What a job wrote."},
    {"name": "workflows", "description": "What can be run."},
    {"name": "health", "description": "For load balancers and people on call."},
]


class Application(FastAPI):
    """FastAPI, with what must stand outside its own error handling, and one way to stop its streams."""

    def __init__(self, runner: Runner, settings: ServiceSettings) -> None:
        self.settings = settings
        self.stop = StopSignal()
        state = AppState(runner.service, self.stop)

        @asynccontextmanager
        async def lifespan(_app: FastAPI) -> AsyncIterator[Mapping[str, AppState]]:
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
        )
        for group in (jobs, logs, workflows, health, documentation):
            # Not include_router: that one matches every path twice, once for the router and once in it.
            self.router.routes.extend(group.router.routes)
        self.add_exception_handler(RunnerError, problems.on_runner_error)
        self.add_exception_handler(problems.Problem, problems.on_problem)
        self.add_exception_handler(HTTPException, problems.on_http_exception)
        self.add_exception_handler(RequestValidationError, problems.on_invalid_request)
        self.add_exception_handler(Exception, problems.on_unexpected)

    def build_middleware_stack(self) -> ASGIApp:
        return HeadAsGet(RequestId(BodyLimit(super().build_middleware_stack())))

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
                [(schemas.Problem, "validation"), (schemas.SubmitJob, "validation")],
                ref_template="#/components/schemas/{model}",
            )
            document["components"]["schemas"].update(models["$defs"])
            # FastAPI drops every null, also those of examples.
            for model in schemas.SHOWN:
                document["components"]["schemas"][model.__name__].update(examples=schemas.examples(model))
            submitted = document["paths"]["/jobs"]["post"]["responses"]["201"]["content"]
            submitted["application/json"]["example"] = PENDING_JOB
            self.openapi_schema = with_problems(document)
        return self.openapi_schema

    @cached_property
    def openapi_json(self) -> bytes:
        return to_json(self.openapi())


def create_app(runner: Runner, settings: ServiceSettings) -> Application:
    """The application over one runner, which its caller starts before and closes after it."""
    return Application(runner, settings)
