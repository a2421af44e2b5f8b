"""A job of the stand-in that runs until it is let go."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.client import ContractClient


@contextmanager
def held_job(client: ContractClient, directory: Path, **mock: Any) -> Iterator[tuple[str, Path]]:
    """A job that has printed its `lines`, if it has any, and runs until its gate is written to."""
    gate = directory / f"gate-{uuid4().hex}"
    job_id = client.submit(parameters={"mock": {"hold": str(gate), **mock}})["id"]
    try:
        client.wait_for(job_id, "running")
        if lines := mock.get("lines"):
            wait_until(
                lambda: f"line {lines}\n" in client.get(f"/jobs/{job_id}/logs").text,
                what="all lines to be printed",
            )
        yield job_id, gate
    finally:
        gate.write_text("go")
