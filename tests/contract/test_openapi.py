"""The OpenAPI document: what clients are generated from, and what the pages say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.client import ContractClient

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
OPERATIONS = {
    ("post", "/jobs"): "submit_job",
    ("get", "/jobs"): "list_jobs",
    ("get", "/jobs/{job_id}"): "get_job",
    ("delete", "/jobs/{job_id}"): "delete_job",
    ("post", "/jobs/{job_id}/cancel"): "cancel_job",
    ("post", "/jobs/{job_id}/retry"): "retry_job",
    ("get", "/jobs/{job_id}/logs"): "get_job_log",
    ("get", "/jobs/{job_id}/tasks"): "list_job_tasks",
    ("get", "/jobs/{job_id}/tasks/{number}"): "get_job_task",
    ("get", "/jobs/{job_id}/tasks/{number}/logs"): "get_job_task_log",
    ("get", "/jobs/{job_id}/graph"): "get_job_graph",
    ("get", "/jobs/{job_id}/usage"): "get_job_usage",
    ("get", "/jobs/{job_id}/events"): "follow_job_events",
    ("get", "/events"): "follow_events",
    ("get", "/jobs/{job_id}/outputs"): "list_job_outputs",
    ("get", "/jobs/{job_id}/outputs/{path}"): "get_job_output",
    ("get", "/jobs/{job_id}/ro-crate"): "get_job_ro_crate",
    ("post", "/jobs/{job_id}/report"): "make_job_report",
    ("get", "/jobs/{job_id}/report"): "get_job_report",
    ("post", "/workflows/{name}/plan"): "plan_workflow",
    ("get", "/workflows"): "list_workflows",
    ("get", "/workflows/{name}"): "get_workflow",
    ("get", "/healthz"): "get_health",
    ("get", "/readyz"): "get_readiness",
    ("get", "/metrics"): "get_metrics",
    ("get", "/sign-in"): "get_sign_in",
    ("get", "/keys"): "list_keys",
    ("post", "/keys"): "create_key",
    ("post", "/keys/{prefix}/rotate"): "rotate_key",
    ("delete", "/keys/{prefix}"): "revoke_key",
    ("get", "/tenants"): "list_tenants",
    ("put", "/tenants/{name}"): "set_quota",
    ("get", "/audit"): "list_audit",
}
# What any call may be answered with that is not open to everybody; the page says it once.
REFUSALS = {"400", "401", "403", "429", "503"}


@pytest.fixture
def document(client: ContractClient) -> dict[str, Any]:
    return client.document


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def test_it_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    assert document["info"]["title"] == "Snakeline"


def test_the_operation_ids_are_stable(document: dict[str, Any]) -> None:
    assert {(m, p): o["operationId"] for m, p, o in operations(document)} == OPERATIONS


def test_every_operation_has_a_summary_and_says_what_it_answers(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        assert operation["summary"], (method, path)
        assert operation["tags"], (method, path)
        assert all(response["description"] for response in operation["responses"].values()), (method, path)


def test_every_error_answer_is_a_problem_document_with_an_example_of_its_own(
    client: ContractClient, document: dict[str, Any]
) -> None:
    for method, path, operation in operations(document):
        errors = {status: r for status, r in operation["responses"].items() if status >= "400"}
        assert "500" in errors, (method, path)
        for status, response in errors.items():
            assert list(response["content"]) == ["application/problem+json"], (method, path)
            content = response["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            assert content["example"]["status"] == int(status), (method, path)
            client.validate(content["example"], content["schema"])


def test_every_answer_with_a_body_has_an_example(document: dict[str, Any]) -> None:
    models = document["components"]["schemas"]
    for method, path, operation in operations(document):
        body = operation.get("requestBody", {}).get("content", {})
        for answer in [{"content": body}, *operation["responses"].values()]:
            for media_type, content in answer.get("content", {}).items():
                model = content["schema"].get("$ref", "").rpartition("/")[2]
                has_one = "example" in content or models.get(model, {}).get("examples")
                assert has_one, (method, path, media_type)


def test_every_answer_promises_its_request_id(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        for status, response in operation["responses"].items():
            assert "X-Request-ID" in response["headers"], (method, path, status)


def test_overload_promises_when_to_try_again(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        for status in {"429", "503"} & set(operation["responses"]):
            assert "Retry-After" in operation["responses"][status]["headers"], (method, path)


def test_a_job_is_what_was_designed_and_its_links(document: dict[str, Any]) -> None:
    assert " ".join(document["components"]["schemas"]["Job"]["properties"]) == (
        "id status reason name workflow workflow_version workflow_commit parameters targets options cores "
        "priority timeout_s memory_mb "
        "max_retries retry_lost labels attachments attempt queue_position created_at updated_at started_at "
        "completed_at "
        "cancel_requested_at exit_code exit_signal error_message progress usage engine owner tenant "
        "isolation links"
    )


def test_what_a_filter_means_is_said(document: dict[str, Any]) -> None:
    said = {p["name"]: p["description"] for p in document["paths"]["/jobs"]["get"]["parameters"]}
    page = document["components"]["schemas"]["JobPage"]["properties"]
    assert "beginning of a name" in said["q"]
    assert "From 8 characters on" in said["q"]
    assert all("left out" in said[name] for name in ("created_after", "created_before"))
    assert "lower bound" in page["total_is_exact"]["description"]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    names = set(re.findall(r"'#/components/schemas/(\w+)'", repr(document)))
    assert names == set(document["components"]["schemas"])


@pytest.mark.parametrize(
    "name",
    [
        *(
            "SubmitJob",
            "SubmitJobWithFiles",
            "PlanWorkflow",
            "Plan",
            "Report",
            "Job",
            "JobPage",
            "Workflow",
            "WorkflowPage",
            "Health",
            "Readiness",
            "Problem",
        ),
        *("CreateKey", "RotateKey", "Key", "CreatedKey", "KeyPage", "SetQuota", "Tenant", "TenantPage"),
        *("OutputPage", "OutputChecksum", "TextPreview", "TablePreview"),
        *("SignIn", "SignInRedirect"),
        *("Audited", "AuditPage", "Task", "TaskPage", "RuleGraph", "UsageHistory", "JobChange"),
    ],
)
def test_the_models_people_write_and_read_have_examples_that_are_valid(
    client: ContractClient, name: str
) -> None:
    schema = client.document["components"]["schemas"][name]
    assert schema["examples"]
    for example in schema["examples"]:
        client.validate(example, schema)


def test_the_example_of_a_submitted_job_is_pending(client: ContractClient) -> None:
    answer = client.document["paths"]["/jobs"]["post"]["responses"]["201"]["content"]["application/json"]
    assert answer["example"]["status"] == "pending"
    client.validate(answer["example"], answer["schema"])


def test_the_examples_of_a_submission_are_accepted(client: ContractClient) -> None:
    for example in client.document["components"]["schemas"]["SubmitJob"]["examples"]:
        client.submit(**example)


def test_the_documentation_has_every_route_with_its_answers(document: dict[str, Any]) -> None:
    page = PAGE.read_text()
    sections = dict(re.findall(r"^## `(\w+ /\S*)`\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    assert set(sections) == {f"{m.upper()} {p.replace('job_id', 'id')}" for m, p, _ in operations(document)}
    for method, path, operation in operations(document):
        section = sections[f"{method.upper()} {path.replace('job_id', 'id')}"]
        assert "curl" in section
        told = set(re.findall(r"^- \*\*(\d{3})\*\*", section, re.MULTILINE))
        anywhere = {"500"} | (REFUSALS if operation["security"] else set())
        assert told | anywhere == set(operation["responses"]) | anywhere, (method, path)
        query = {p["name"] for p in operation.get("parameters", []) if p["in"] == "query"}
        assert {name for name in query if f"`{name}`" not in section} == set(), (method, path)


class TestDocsPage:
    def test_it_runs_no_inline_script_and_asks_nobody_else(self, client: ContractClient) -> None:
        answer = client.get("/docs")
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "http" not in answer.text + policy
        assert not re.search(r"<script>|<style|\son\w+=", answer.text)

    def test_everything_it_names_is_there(self, client: ContractClient) -> None:
        page = client.get("/docs").text
        names = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert len(names) == 4
        for name in names:
            answer = client.get(name)
            assert answer.status_code == 200, name
            assert answer.headers["x-content-type-options"] == "nosniff"
        assert "/openapi.json" in client.get("/docs/start.js").text

    @pytest.mark.parametrize("name", ["", "nope.js", "..%2Fapp.py", "LICENSE-swagger-ui.txt%00"])
    def test_nothing_else_is_served(self, client: ContractClient, name: str) -> None:
        assert client.get(f"/docs/{name}").status_code == 404
