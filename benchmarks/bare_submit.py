"""`POST /jobs` with the same models on the same FastAPI and uvicorn settings, and nothing behind it."""

from __future__ import annotations

import socket
import sys
from datetime import UTC, datetime

import uuid_utils
import uvicorn
from fastapi import FastAPI

from api.schemas import Job, JobLinks, SubmitJob
from runner.jobs import JobStatus

app = FastAPI()


@app.post("/jobs", status_code=201)
async def submit(body: SubmitJob) -> Job:
    now = datetime.now(UTC)
    job_id = str(uuid_utils.uuid7())
    here = f"/jobs/{job_id}"
    return Job.model_construct(
        id=job_id,
        status=JobStatus.PENDING,
        reason=None,
        **body.model_dump(),
        attempt=1,
        created_at=now,
        updated_at=now,
        started_at=None,
        completed_at=None,
        cancel_requested_at=None,
        exit_code=None,
        exit_signal=None,
        error_message=None,
        progress=None,
        usage=None,
        engine="mock",
        links=JobLinks.model_construct(
            itself=here,
            logs=f"{here}/logs",
            tasks=f"{here}/tasks",
            graph=f"{here}/graph",
            usage=f"{here}/usage",
            events=f"{here}/events",
            outputs=f"{here}/outputs",
            report=f"{here}/report",
            ro_crate=f"{here}/ro-crate",
            cancel=f"{here}/cancel",
            retry=f"{here}/retry",
            workflow=f"/workflows/{body.workflow}",
        ),
    )


def main() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        config = uvicorn.Config(
            app,
            http="httptools",
            loop="uvloop",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
