"""Whatever has ended an attempt on real Snakemake, the next goes on from the finished rules, and is alone."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.support import job_processes
from tests.support.engines import snakemake_command
from tests.support.levels import INSIDE_OPEN_HOUSE, isolating_server
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.server import LiveServer

SNAKEMAKE = snakemake_command()
pytestmark = [
    pytest.mark.snakemake,
    pytest.mark.skipif(SNAKEMAKE is None, reason="real Snakemake is not installed: make snakemake-env"),
]

# Each task leaves a line when it starts. `gate` has begun its outputs, among them a folder, when it waits for
# the word; it and Snakemake hold locks that tell whether anything of another attempt is still there.
SNAKEFILE: Final = """
import fcntl

alone = open("snakemake.lock", "a")
try:
    fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("another Snakemake", file=open("overlap.txt", "a"))

def parts(wildcards):
    folder = checkpoints.split.get().output[0]
    return expand("parts/{part}.txt", part=glob_wildcards(folder + "/{part}.part").part)

rule all:
    input: "last.txt", parts

rule first:
    output: "first.txt"
    params: size=lambda wildcards: config["size"]
    shell: "echo first >> starts.txt; echo {params.size} > {output}"

rule passing:
    input: "first.txt"
    output: temp("passing.txt")
    shell: "echo passing >> starts.txt; cp {input} {output}"

rule scripted:
    input: "passing.txt"
    output: protected("scripted.txt")
    script: "scripted.py"

checkpoint split:
    input: "scripted.txt"
    output: directory("split")
    shell: "echo split >> starts.txt; mkdir split; touch split/a.part split/b.part"

rule part:
    input: "split/{part}.part"
    output: "parts/{part}.txt"
    group: "parts"
    shell: "echo part-{wildcards.part} >> starts.txt; echo {wildcards.part} > {output}"

rule gate:
    input: parts
    output: folder=directory("gated"), text="gate.txt"
    params: word=config["word"]
    shell:
        '''
        exec 9>> gate.lock; flock -n 9 || echo another gate >> overlap.txt
        mkdir {output.folder}; touch {output.folder}/$$; echo half > {output.text}
        echo gate >> starts.txt
        read -r word < {params.word:q}
        test "$word" = go
        echo whole > {output.text}
        '''

rule last:
    input: "gate.txt"
    output: "last.txt"
    shell: "echo last >> starts.txt; cat {input} > {output}"
"""
SCRIPT: Final = """
with open("starts.txt", "a") as starts:
    print("scripted", file=starts)
with open(snakemake.input[0]) as source, open(snakemake.output[0], "w") as target:
    target.write(source.read())
"""
ONCE: Final = dict.fromkeys(["first", "passing", "scripted", "split", "part-a", "part-b"], 1)


class Place:
    """A service with one workflow, and the FIFO that the workflow's gate reads its word from."""

    def __init__(self, folder: Path, stack: ExitStack, **more: Any) -> None:
        self.workflow = folder / "workflows" / "resuming"
        self.workflow.mkdir(parents=True)
        (self.workflow / "Snakefile").write_text(SNAKEFILE)
        (self.workflow / "scripted.py").write_text(SCRIPT)
        self.service: LiveServer = stack.enter_context(
            isolating_server(
                folder,
                ENGINE="snakemake",
                SNAKEMAKE=SNAKEMAKE or "",
                WORKFLOWS_DIR=str(self.workflow.parent),
                STOP_GRACE_S="10",
                **more,
            )
        )

    def work(self, job_id: str) -> Path:
        return self.service.data_dir / "jobs" / job_id / "work"

    def is_locked(self, job_id: str) -> bool:
        return any((self.work(job_id) / ".snakemake" / "locks").glob("*"))

    def starts(self, job_id: str) -> Counter[str]:
        path = self.work(job_id) / "starts.txt"
        return Counter(path.read_text().split() if path.exists() else [])

    def until_started(self, job_id: str, starts: dict[str, int]) -> None:
        try:
            wait_until(lambda: self.starts(job_id) == starts, timeout_s=60, what="the tasks to have started")
        except AssertionError:
            log = self.service.client.get(f"/jobs/{job_id}/logs").text
            pytest.fail(f"{self.starts(job_id)} and not {starts}: {log}")

    def say(self, job_id: str, word: str) -> None:
        """To the gate, once it waits."""
        fifo = self.work(job_id) / "word"

        def waits() -> int | None:
            try:
                return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                return None

        fd = wait_until(waits, timeout_s=30, what="the gate to wait") or 0
        os.write(fd, f"{word}\n".encode())
        os.close(fd)


@pytest.fixture(
    scope="module",
    params=[
        "auto",
        pytest.param(
            "require:uid",
            marks=[
                pytest.mark.soak,
                pytest.mark.root,
                pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
            ],
        ),
    ],
)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        folder.chmod(0o755)
        inside = [INSIDE_OPEN_HOUSE] if request.param == "require:uid" else []
        place = Place(folder, stack, isolation=request.param, inside=inside)
        yield place
        assert "engine_runs_cold" not in place.service.log


def cancel(place: Place, job_id: str) -> None:
    assert place.service.client.post(f"/jobs/{job_id}/cancel").status_code == 202


def kill_snakemake(_: Place, job_id: str) -> None:
    engine = next(
        pid
        for pid in job_processes.by_job()[job_id]
        if job_processes.title_of(pid).startswith("snakeline: snakemake resuming")
    )
    job_processes.kill_and_wait(engine, job_processes.title_of(engine))


def kill_all_of_it(_: Place, job_id: str) -> None:
    job_processes.kill_family([], [job_id])


def fail(place: Place, job_id: str) -> None:
    place.say(job_id, "fail")


# How it is ended, what becomes of the job, and whether Snakemake's lock stays behind.
ENDS: Final[list[tuple[Callable[[Place, str], None], str, str, bool]]] = [
    (cancel, "cancelled", "cancel_requested", False),
    (kill_snakemake, "failed", "killed_by_signal", True),
    (kill_all_of_it, "failed", "lost", True),
    (fail, "failed", "exited_nonzero", False),
]


def test_a_retry_after_any_end_runs_what_is_missing_and_nothing_else(place: Place) -> None:
    client = place.service.client
    job_id = client.submit(workflow="resuming", parameters={"word": "word", "size": 3}, cores=1)["id"]
    wait_until(lambda: place.work(job_id).exists(), timeout_s=30, what="the working directory")
    os.mkfifo(place.work(job_id) / "word")
    (place.work(job_id) / "word").chmod(0o666)
    for attempt, (end, status, reason, is_locked) in enumerate(ENDS, start=1):
        place.until_started(job_id, {**ONCE, "gate": attempt})
        assert client.post(f"/jobs/{job_id}/retry").status_code == 409
        end(place, job_id)
        job = client.wait_for(job_id, "failed", "cancelled", timeout_s=30)
        assert (job["status"], job["reason"], job["attempt"]) == (status, reason, attempt)
        assert job_id not in job_processes.by_job()
        assert place.is_locked(job_id) is is_locked
        # What the registry has now is for other jobs.
        (place.workflow / "Snakefile").write_text(SNAKEFILE.replace("first >> ", f"first-{attempt} >> "))
        with ThreadPoolExecutor(2) as both:
            retries = both.map(lambda _: client.post(f"/jobs/{job_id}/retry").status_code, range(2))
            assert sorted(retries) == [202, 409]
    place.until_started(job_id, {**ONCE, "gate": len(ENDS) + 1})
    place.say(job_id, "go")
    job = client.wait_for(job_id, "completed", "failed", timeout_s=60)
    log = client.get(f"/jobs/{job_id}/logs").text
    assert (job["status"], job["attempt"]) == ("completed", len(ENDS) + 1), log
    work = place.work(job_id)
    assert place.starts(job_id) == {**ONCE, "gate": len(ENDS) + 1, "last": 1}, log
    assert (work / "last.txt").read_text() == "whole\n"
    assert len(list((work / "gated").glob("[0-9]*"))) == 1
    assert not (work / "overlap.txt").exists()
    assert not place.is_locked(job_id)
