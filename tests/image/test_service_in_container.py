"""The service in a container, with as little as it gets in production."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

from snakeline.client import Problem
from tests.image.docker import HARDENED, SERVICE_USER, Container
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from snakeline.client import Client, Job
    from tests.image.docker import Docker

pytestmark = pytest.mark.image
ROOTS_POWERS = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID")
STOP_WITHIN_S = 10


def submit_held(container: Container, client: Client, exit_code: int = 0) -> tuple[Job, str]:
    """A job that has begun, and the FIFO it waits at."""
    hold = container.make_hold()
    job = client.submit("demo", parameters={"mock": {"hold": hold, "exit_code": exit_code}})
    # It is called running a moment before, and would then be launched again.
    begun = f"/data/jobs/{job.id}/attempts/1/started"
    wait_until(lambda: container.has_file(begun), what="the job to begin")
    return job, hold


def test_it_becomes_healthy_and_its_first_key_opens_it(docker: Docker, image: str, volume: str) -> None:
    with Container(docker, image, volume, *HARDENED, settings={"AUTH": "keys"}) as container:
        container.until_started(1)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{container.url}/jobs", timeout=10)
        refused.value.close()
        assert refused.value.code == 401
        [key] = re.findall(r"^  (\S+)$", container.log, re.MULTILINE)
        with container.client(api_key=key) as client:
            assert client.ready()["status"] == "ready"
        wait_until(
            lambda: container.state["Health"]["Status"] == "healthy",
            timeout_s=60,
            what="Docker to call it healthy",
        )
        assert {(p.uid, p.capabilities) for p in container.processes()} == {(SERVICE_USER, 0)}


def test_a_killed_service_is_started_again_inside_and_jobs_end_as_if_nothing_had_been(
    docker: Docker, service_image: str, volume: str
) -> None:
    with Container(docker, service_image, volume, *HARDENED) as container, container.client() as client:
        begun = container.state["StartedAt"]
        jobs = {code: submit_held(container, client, code) for code in (0, 23)}
        container.kill_the("-m snakeline serve")
        container.release(jobs[23][1])  # perhaps while nobody is there to see it end
        container.until_started(2)
        container.release(jobs[0][1])
        for code, (job, _) in jobs.items():
            ended = client.wait(job.id, timeout_s=30)
            assert (ended.exit_code, ended.attempt) == (code, 1)
        assert '"service.crashed"' in container.log
        assert (container.state["StartedAt"], container.state["Running"]) == (begun, True)
        # tini, the restarter, the service and its launcher: no zombie, and nothing left of the first service.
        wait_until(lambda: len(container.processes()) == 4, what="all others to be gone")


def test_a_stop_records_what_ran_and_the_same_volume_goes_on_with_it(
    docker: Docker, service_image: str, volume: str
) -> None:
    with Container(docker, service_image, volume, *HARDENED) as container, container.client() as client:
        done = client.wait(client.submit("demo", parameters={"mock": {"exit_code": 3}}).id, timeout_s=30)
        held, _ = submit_held(container, client)
        took_s = container.stop(STOP_WITHIN_S)
        assert took_s < STOP_WITHIN_S
        assert container.state["ExitCode"] == 0
    with Container(docker, service_image, volume, *HARDENED) as container, container.client() as client:
        again = client.get(done.id)
        assert (again.status, again.exit_code, again.completed_at) == ("failed", 3, done.completed_at)
        wait_until(lambda: client.get(held.id).status == "running", what="the job to run again")
        assert client.get(held.id).attempt == 2
        client.cancel(held.id)
        assert client.wait(held.id, timeout_s=30).status == "cancelled"


def test_a_container_that_is_killed_leaves_a_history_that_says_so(
    docker: Docker, service_image: str, volume: str
) -> None:
    with Container(docker, service_image, volume, *HARDENED) as container, container.client() as client:
        held, _ = submit_held(container, client)
        container.kill()
    with Container(docker, service_image, volume, *HARDENED) as container, container.client() as client:
        lost = client.wait(held.id, timeout_s=30)
        assert (lost.status, lost.reason, lost.exit_code) == ("failed", "lost", None)


def test_a_job_that_takes_all_memory_ends_and_the_service_does_not(
    docker: Docker, service_image: str, volume: str
) -> None:
    with Container(docker, service_image, volume, *HARDENED) as container, container.client() as client:
        job = client.submit("demo", parameters={"mock": {"memory_mb": 4096}})
        ended = client.wait(job.id, timeout_s=60)
        assert ended.status == "failed"
        assert ended.reason in ("killed_by_signal", "out_of_memory"), ended
        assert ended.exit_signal in (9, None)
        assert not container.state["OOMKilled"] or container.state["Running"]
        assert container.log.count("Snakeline is at ") == 1
        after = client.submit("demo", parameters={"mock": {"exit_code": 0}})
        assert client.wait(after.id, timeout_s=30).status == "completed"


def test_as_root_every_job_has_a_user_of_its_own_also_after_a_crash(
    docker: Docker, service_image: str, volume: str
) -> None:
    options = [*HARDENED, "--user=0:0", *(f"--cap-add={power}" for power in ROOTS_POWERS)]
    settings = {"ISOLATION": "require:uid"}
    with (
        Container(docker, service_image, volume, *options, settings=settings) as container,
        container.client() as client,
    ):
        job, hold = submit_held(container, client, 23)
        other, _ = submit_held(container, client)

        there = container.processes()
        assert len({p.uid for p in there} - {0, SERVICE_USER}) == 2, there
        services = sorted(p.uid for p in there if "-m snakeline serve" in p.title)
        assert services == [0, SERVICE_USER]  # the restarter and the service
        container.kill_the("-m snakeline serve")
        container.until_started(2)
        container.release(hold)
        ended = client.wait(job.id, timeout_s=30)
        assert (ended.exit_code, ended.attempt) == (23, 1)
        client.cancel(other.id)
        assert client.wait(other.id, timeout_s=30).status == "cancelled"
        assert "uid" in client.ready()["isolation_protections"]
        assert container.stop(STOP_WITHIN_S) < STOP_WITHIN_S
        assert container.state["ExitCode"] == 0
    # What root has handed over is the service's user's, so the other variant takes the same volume.
    with Container(docker, service_image, volume, *HARDENED) as container, container.client() as client:
        assert client.get(job.id).exit_code == 23
        with pytest.raises(Problem):
            client.get("0" * 8)
