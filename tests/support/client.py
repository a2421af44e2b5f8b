"""An HTTP client that holds every answer it sees against the service's own OpenAPI document."""

from __future__ import annotations

import re
from typing import Any

import httpx2
from jsonschema import Draft202012Validator

from tests.support.wait import wait_until

_PROBLEM = "application/problem+json"
_UNDOCUMENTED: dict[str, Any] = {_PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_FIRST_PAUSE_S = 0.02
"""No job takes less, and each look costs the test and the service 2 ms."""


class Promises:
    """What an OpenAPI document says about answers."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._components = {"components": document["components"]}
        # With the schemas, or the number of one that is gone could be another's.
        self._validators: dict[int, tuple[Any, Draft202012Validator]] = {}
        self._operations: list[tuple[re.Pattern[str], dict[str, Any]]] = []
        for template, operations in document["paths"].items():
            pattern = re.escape(template).replace(r"\{path\}", "(?s:.*)")
            self._operations.append((re.compile(re.sub(r"\\{\w+\\}", "[^/]+", pattern)), operations))

    def operation(self, method: str, path: str) -> dict[str, Any] | None:
        operations = next((found for pattern, found in self._operations if pattern.fullmatch(path)), {})
        return operations.get(method)

    def validate(self, value: Any, schema: dict[str, Any]) -> None:
        if id(schema) not in self._validators:
            validator = Draft202012Validator({**self._components, **schema})
            self._validators[id(schema)] = schema, validator
        self._validators[id(schema)][1].validate(value)


_shared: dict[str, Promises] = {}


class ContractClient(httpx2.Client):
    """Fails the test on an answer that the document does not promise: status, content type or body.

    Services that are `alike` have the same document, and only one of them has to make it: that takes as long
    as ten jobs.
    """

    def __init__(self, base_url: str, *, alike: str | None = None) -> None:
        super().__init__(
            base_url=base_url,
            timeout=30,
            trust_env=False,
            verify=False,  # there is no TLS: certificates to check it with would take 30 ms to load
            event_hooks={"response": [self._check]},
        )
        self.alike = alike
        self._document: dict[str, Any] | None = None
        self._own: Promises | None = None

    def submit(self, **body: Any) -> dict[str, Any]:
        answer = self.post("/jobs", json=body)
        assert answer.status_code == 201, answer.text
        job: dict[str, Any] = answer.json()
        return job

    def job(self, job_id: str) -> dict[str, Any]:
        answer = self.get(f"/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        job: dict[str, Any] = answer.json()
        return job

    def wait_for(self, job_id: str, *statuses: str, timeout_s: float = 30) -> dict[str, Any]:
        """The job once it has one of these statuses; without any, once it has ended."""
        wanted = statuses or ("completed", "failed", "cancelled")

        def reached() -> dict[str, Any]:
            job = self.job(job_id)
            return job if job["status"] in wanted else {}

        what = f"job {job_id} to be {' or '.join(wanted)}"
        return wait_until(reached, timeout_s=timeout_s, what=what, first_pause_s=_FIRST_PAUSE_S)

    def run(self, **body: Any) -> dict[str, Any]:
        """Submit and wait for the end."""
        return self.wait_for(self.submit(**body)["id"])

    def _check(self, answer: httpx2.Response) -> None:
        path = answer.request.url.path
        if path == "/openapi.json" or path.startswith("/docs"):
            return
        assert re.fullmatch(r"[\w.-]{1,128}", answer.headers.get("x-request-id", ""))
        assert answer.headers["x-content-type-options"] == "nosniff"
        content_type = answer.headers.get("content-type", "").partition(";")[0]
        method = "get" if answer.request.method == "HEAD" else answer.request.method.lower()
        operation = self._promises.operation(method, path)
        if operation is None:
            assert answer.status_code in (404, 405, 413), f"{method} {path} answered {answer.status_code}"
            promised = _UNDOCUMENTED
        else:
            response = operation["responses"].get(str(answer.status_code))
            assert response is not None, f"{method} {path} does not document {answer.status_code}"
            promised = response.get("content", {})
        if not promised:
            assert not content_type, f"{method} {path} {answer.status_code}: a body that is not documented"
            return
        assert content_type in promised, f"{method} {path} {answer.status_code}: {content_type!r}"
        if content_type.endswith("json") and answer.request.method != "HEAD":
            answer.read()
            self.validate(answer.json(), promised[content_type]["schema"])
        if answer.status_code >= 400:
            assert content_type == _PROBLEM

    def validate(self, value: Any, schema: dict[str, Any]) -> None:
        self._promises.validate(value, schema)

    @property
    def _promises(self) -> Promises:
        if self._own is None:
            shared = _shared.get(self.alike) if self.alike is not None else None
            self._own = shared or Promises(self.document)
            if self.alike is not None:
                _shared[self.alike] = self._own
        return self._own

    @property
    def document(self) -> dict[str, Any]:
        """This very service's."""
        if self._document is None:
            document: dict[str, Any] = self.get("/openapi.json").json()
            self._document = document
        return self._document
