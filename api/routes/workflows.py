"""`/workflows`: what can be run, and with which parameters."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from api import workflow_schemas
from api.callers import Reader
from api.documents import BAD_PARAMETER, example, problems
from api.query_names import no_query
from api.representations import json_response, whole_workflow_document, workflow_document
from api.state import in_thread, state_of
from runner.errors import WorkflowNotFound

router = APIRouter(tags=["workflows"])


@router.get(
    "/workflows",
    operation_id="list_workflows",
    summary="List the registered workflows",
    response_model=workflow_schemas.WorkflowPage,
    response_description="Every registered workflow.",
    responses=problems(422, examples=BAD_PARAMETER),
)
async def list_workflows(request: Request, jobs: Reader) -> Response:
    no_query(request)
    workflows = await in_thread(jobs.workflows)
    return json_response({"items": [workflow_document(w) for w in workflows], "total": len(workflows)})


@router.get(
    "/workflows/{name}",
    operation_id="get_workflow",
    summary="Get a workflow: its version, README and the JSON Schema of its parameters",
    response_model=workflow_schemas.Workflow,
    response_description="The workflow.",
    responses=problems(
        404, 422, examples={**BAD_PARAMETER, 404: example(WorkflowNotFound("dmeo", ("demo", "wordcount")))}
    ),
)
async def get_workflow(request: Request, jobs: Reader, name: str) -> Response:
    no_query(request)
    workflow = await in_thread(jobs.workflow, name)
    version = await state_of(request).pins.run(request, jobs, jobs.workflow_version, workflow)
    return json_response(whole_workflow_document(workflow, version))
