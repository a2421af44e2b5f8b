"""Does a deployed Snakeline run jobs? `SNAKELINE_API_KEY=… python3 deploy/smoke_test.py https://snakeline.example.org`.

Submits one job through whatever stands before the service, follows its log to the end, looks at its result
and deletes it. The key needs the scopes `read` and `submit`. Prints a line for each step; the exit code is 0
when all went well and 1 with the reason when not. Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Mapping
    from email.message import Message

_LOOK_S = 2.0
_ONE_CALL_S = 45.0  # longer than the longest wait that is asked for
_LONG_POLL_S = 20
_TERMINAL = frozenset({"completed", "failed", "cancelled"})
_NOT_YET = frozenset({502, 503, 504})


class Failed(Exception):
    """The service does not do what it should; the text says what."""


class Answer:
    def __init__(self, status: int, headers: Message, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.text = body.decode(errors="replace")

    def json(self) -> dict[str, Any]:
        try:
            document = json.loads(self.text)
        except ValueError as error:
            raise Failed(f"an answer that is no JSON: {self.text[:200]!r}") from error
        if not isinstance(document, dict):
            raise Failed(f"an answer of another form: {self.text[:200]!r}")
        return document


class Service:
    """One deployed service, called with a key or without."""

    def __init__(self, url: str, key: str | None) -> None:
        if not url.startswith(("http://", "https://")):
            raise Failed(f"{url} is no http or https address")
        self.url = url.rstrip("/")
        self.key = key

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        with_key: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Whatever is answered, errors too. Raises Failed when nothing is."""
        request = urllib.request.Request(self.url + path, method=method)  # noqa: S310 - looked at above
        if self.key and with_key:
            request.add_header("Authorization", f"Bearer {self.key}")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, timeout=_ONE_CALL_S) as answer:  # noqa: S310
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"{method} {path}: {error}") from error

    def expect(
        self,
        status: int,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Raises Failed when the answer has another status."""
        answer = self.call(method, path, body, headers=headers)
        if answer.status != status:
            raise Failed(f"{method} {path}: {answer.status} instead of {status}: {answer.text[:500]}")
        return answer


def wait_until_ready(service: Service, timeout_s: float) -> Answer:
    """The answer of `/readyz` once it is 200; a balancer's 502 and 503 meanwhile are waited out."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            answer = service.call("GET", "/readyz")
        except Failed as error:
            trouble = str(error)
        else:
            if answer.status == 200:
                return answer
            trouble = f"GET /readyz: {answer.status}: {answer.text[:500]}"
            if answer.status not in _NOT_YET:
                raise Failed(trouble)
        if time.monotonic() > deadline:
            raise Failed(f"not ready after {timeout_s:g} s: {trouble}")
        time.sleep(_LOOK_S)  # noqa: TID251 - nothing tells that a service far away is ready


def check_door(service: Service) -> None:
    """Strangers are kept out, and the service believes the proxy that ends TLS before it."""
    if service.key:
        answer = service.call("GET", "/jobs", with_key=False)
        if answer.status != 401:
            raise Failed(f"GET /jobs without a key: {answer.status} instead of 401: the service is open")
    if service.url.startswith("https:"):
        answer = service.expect(200, "GET", "/healthz")
        if "Strict-Transport-Security" not in answer.headers:
            raise Failed("no Strict-Transport-Security: SNAKELINE_TRUSTED_PROXIES does not name the proxy")


def run_job(service: Service, parameters: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """Submit a job and follow it to its end. Deletes it again, whatever becomes of it."""
    wanted = {
        "workflow": "demo",
        "name": "smoke test",
        "labels": {"purpose": "smoke-test"},
        "parameters": parameters,
        "timeout_s": timeout_s,
    }
    once = {"Idempotency-Key": uuid4().hex}
    job = service.expect(201, "POST", "/jobs", wanted, headers=once).json()
    again = service.expect(201, "POST", "/jobs", wanted, headers=once).json()
    if again["id"] != job["id"]:
        raise Failed("the same Idempotency-Key made a second job")
    path = f"/jobs/{job['id']}"
    try:
        return _followed(service, path, job, timeout_s)
    finally:
        if service.call("DELETE", path).status != 204:
            service.call("POST", f"{path}/cancel")


def _followed(service: Service, path: str, job: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    deadline = time.monotonic() + timeout_s
    while job["status"] not in _TERMINAL:
        if time.monotonic() > deadline:
            raise Failed(f"the job is still {job['status']} after {timeout_s:g} s")
        job = service.expect(200, "GET", f"{path}?wait={_LONG_POLL_S}").json()
    if (job["status"], job["exit_code"]) != ("completed", 0):
        raise Failed(f"the job is {job['status']} ({job['reason']}): {job['error_message']}")
    # Now the stream is short, and ends by itself.
    followed = service.expect(200, "GET", f"{path}/logs?follow=true").text
    if not followed.strip() or followed != service.expect(200, "GET", f"{path}/logs").text:
        raise Failed("the followed log is not the job's log")
    tasks = service.expect(200, "GET", f"{path}/tasks").json()
    unfinished = [task["rule"] for task in tasks["items"] if task["status"] != "completed"]
    if not tasks["items"] or unfinished:
        raise Failed(f"tasks that are not completed: {', '.join(unfinished) or 'there are none at all'}")
    return job


def smoke_test(service: Service, *, ready_timeout_s: float, job_timeout_s: float) -> None:
    """Raises Failed at the first thing that is not as it should be."""
    readiness = wait_until_ready(service, ready_timeout_s).json()
    engine = readiness.get("engine") or {}
    print(f"ready: engine {engine.get('name', 'unknown')}, isolation {readiness.get('isolation', 'unknown')}")
    check_door(service)
    print("the door is closed to strangers" if service.key else "no key is used")
    # The stand-in would fail one job in five, to show what that looks like.
    parameters = {"mock": {"seconds": 0.2, "exit_code": 0}} if engine.get("is_mock") else {"count": 50}
    started = time.monotonic()
    job = run_job(service, parameters, job_timeout_s)
    print(f"job {job['id']}: completed, exit code 0, after {time.monotonic() - started:.1f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description="Run one job on a deployed Snakeline.")
    parser.add_argument("url", help="its address; the key is read from SNAKELINE_API_KEY")
    parser.add_argument("--ready-timeout", type=float, default=300, metavar="S", help="default: 300")
    parser.add_argument("--job-timeout", type=float, default=300, metavar="S", help="default: 300")
    options = parser.parse_args()
    key = os.environ.get("SNAKELINE_API_KEY") or None  # noqa: TID251 - a client's, no setting of the service
    try:
        smoke_test(
            Service(options.url, key),
            ready_timeout_s=options.ready_timeout,
            job_timeout_s=options.job_timeout,
        )
    except Failed as failure:
        print(f"smoke test failed: {failure}", file=sys.stderr)
        return 1
    print("smoke test passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
