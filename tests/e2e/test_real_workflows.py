"""Workflows of every kind, bare and through the service, warm and cold: what comes out is the same."""

from __future__ import annotations

import datetime
import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import pytest

from snakeline.client import Client
from tests.support import workflow_cases
from tests.support.crates import PROVENANCE, UNKNOWN, WORKFLOW_RUN, Crate, ids, validated
from tests.support.engines import NEEDS_SNAKEMAKE, snakemake_command
from tests.support.server import running_server
from tests.support.workflow_cases import Case, Result

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.support.server import LiveServer

SNAKEMAKE = snakemake_command()
pytestmark = NEEDS_SNAKEMAKE
CASES: Final = workflow_cases.cases()
SHORT: Final = [case for case in CASES if not case.is_long]
CURIOUS: Final = "36-own-modules"
# Another one each day: all of them are compared in a soak.
TODAYS: Final = SHORT[datetime.datetime.now(datetime.UTC).toordinal() % len(SHORT)]
# What an event tells that is another in each run: when, Snakemake's numbers, how far the others had come.
UNSTEADY_FIELDS: Final = {"t", "jobid", "group", "done"}


def names(cases: Sequence[Case]) -> list[str]:
    return [case.name for case in cases]


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with server(tmp_path_factory.mktemp("warm")) as live:
        yield live


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with server(tmp_path_factory.mktemp("cold"), WARM_START="false") as live:
        yield live


def server(directory: Path, **settings: Any) -> AbstractContextManager[LiveServer]:
    return running_server(
        directory,
        ENGINE="snakemake",
        SNAKEMAKE=SNAKEMAKE or "",
        WORKFLOWS_DIR=str(workflow_cases.FOLDER),
        MAX_CORES="4",
        **settings,
    )


@pytest.fixture(scope="module")
def warm_jobs(warm: LiveServer) -> dict[str, str]:
    """All the short ones, submitted at once: the number of each one's job."""
    return {case.name: warm.client.submit(**case.body)["id"] for case in SHORT}


def ended(live: LiveServer, job_id: str, timeout_s: float = 100) -> dict[str, Any]:
    with Client(live.url) as waiting:  # by long polls: many jobs wait for few cores
        waiting.wait(job_id, timeout_s=timeout_s)
    return live.client.job(job_id)


def work_of(live: LiveServer, job_id: str) -> Path:
    return live.data_dir / "jobs" / job_id / "work"


def result_of(live: LiveServer, case: Case, job: dict[str, Any], told: Sequence[dict[str, Any]]) -> Result:
    """`told` are the job's tasks."""
    work = work_of(live, job["id"])
    log = live.client.get(f"/jobs/{job['id']}/logs").content.decode(errors="surrogateescape")
    return Result(
        job["exit_code"],
        workflow_cases.outputs(case, work),
        Counter(task["rule"] for task in told if task["status"] == "completed"),
        workflow_cases.log_lines(log, work),
    )


def tasks(live: LiveServer, job_id: str) -> list[dict[str, Any]]:
    url = f"/jobs/{job_id}/tasks?limit=500"
    page = live.client.get(url).json()
    found: list[dict[str, Any]] = page["items"]
    while page["next_cursor"]:
        page = live.client.get(f"{url}&cursor={page['next_cursor']}").json()
        found += page["items"]
    return found


def counted_by_the_graph(live: LiveServer, job_id: str) -> Counter[tuple[str, str]]:
    """How many tasks of each rule have each status."""
    nodes = live.client.get(f"/jobs/{job_id}/graph").json()["nodes"]
    return +Counter(
        {
            (n["rule"], status): count
            for n in nodes
            for status, count in n["counts"].items()
            if status != "total"
        }
    )


@pytest.mark.parametrize("case", SHORT, ids=names(SHORT))
def test_a_workflow_comes_to_what_it_comes_to_without_the_service(
    warm: LiveServer, warm_jobs: dict[str, str], case: Case
) -> None:
    job = ended(warm, warm_jobs[case.name])
    told = tasks(warm, job["id"])
    result = result_of(warm, case, job, told)
    assert result.recorded() == case.expected, "\n".join(result.log)
    assert (job["status"] == "completed") is (job["exit_code"] == 0)
    counts = Counter(task["status"] for task in told)
    assert set(counts) <= ({"completed"} if job["exit_code"] == 0 else {"completed", "failed", "cancelled"})
    progress = {"done": counts["completed"], "failed": counts["failed"], "running": 0, "up_to_date": 0}
    assert job["progress"] == ({"total": len(told), **progress} if told else None)
    assert counted_by_the_graph(warm, job["id"]) == Counter((task["rule"], task["status"]) for task in told)
    if case.error is None:
        assert job["error_message"] is None
        return
    message = job["error_message"]
    assert re.match(case.error["begins"], message.partition("\n")[0]), message
    assert [said for said in case.error["says"] if said not in message] == [], message
    assert "At least one job did not complete successfully" not in message
    roots = [task for task in told if task["error"] and task["error"]["is_root"]]
    assert sorted({task["rule"] for task in roots}) == case.error["rules"]


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(TODAYS, id="today's"),  # whatever the day: workers collect a second apart
        *(pytest.param(case, id=case.name, marks=pytest.mark.soak) for case in CASES),
    ],
)
def test_bare_cold_and_warm_runs_are_alike(
    warm: LiveServer, cold: LiveServer, tmp_path: Path, case: Case
) -> None:
    bare = workflow_cases.bare(case, tmp_path)
    assert bare.recorded() == case.expected, "run `python -m tests.support.workflow_cases` again"
    ends = {
        live: ended(live, live.client.submit(**case.body)["id"], workflow_cases.TIME_LIMIT_S)
        for live in (warm, cold)
    }
    for live, job in ends.items():
        result = result_of(live, case, job, tasks(live, job["id"]))
        assert result.recorded() == bare.recorded()
        assert difference(result.log, bare.log) == {}
    assert difference(*(events(live, job) for live, job in ends.items())) == {}
    messages = [
        workflow_cases.log_lines(job["error_message"] or "", work_of(live, job["id"]))
        for live, job in ends.items()
    ]
    assert difference(*messages) == {}


def test_a_run_cannot_tell_that_it_was_started_warm_and_shares_nothing_with_others(
    warm: LiveServer, cold: LiveServer, warm_jobs: dict[str, str]
) -> None:
    body = {"workflow": CURIOUS, "cores": 1}
    works = [
        work_of(live, ended(live, job_id)["id"])
        for live, job_id in (
            (warm, warm_jobs[CURIOUS]),
            (warm, warm.client.submit(**body)["id"]),
            (cold, cold.client.submit(**body)["id"]),
        )
    ]
    modules = [(work / "modules.txt").read_text().split() for work in works]
    assert set(modules[0]) ^ set(modules[2]) == {"gc"}  # built in: nothing can hide it
    secrets = [secret for work in works for secret in (work / "random.txt").read_text().split()]
    assert len(secrets) == len(set(secrets)) == 2 * len(works)


def test_a_crate_tells_what_came_of_what(warm: LiveServer, warm_jobs: dict[str, str]) -> None:
    def crate(name: str) -> Crate:
        return Crate(warm.client, ended(warm, warm_jobs[name])["id"])

    checkpoint = crate("02-checkpoint").entities
    assert ids(checkpoint["#run"]["object"]) == ["work/words.txt", "config.json"]
    assert ids(checkpoint["#run"]["result"]) == ["work/joined.txt"]  # of files in a folder that a task made
    assert checkpoint["work/parts/"]["@type"] == "Dataset"
    [language] = [each for each in checkpoint.values() if each["@type"] == "ComputerLanguage"]
    assert language["version"] == warm.client.get("/readyz").json()["engine"]["version"]
    temporary = crate("22-temp-and-protected").entities
    assert temporary["#absent/begin.txt"]["@type"] == "CreativeWork"
    assert ids(temporary["#run"]["result"]) == ["work/final.txt"]


@pytest.mark.soak
def test_every_runs_crate_is_valid(warm: LiveServer, warm_jobs: dict[str, str], tmp_path: Path) -> None:
    crates = []
    for name, job_id in warm_jobs.items():
        crate = Crate(warm.client, ended(warm, job_id, workflow_cases.TIME_LIMIT_S)["id"])
        has_tasks = len(crate.of_type("CreateAction")) > 1
        crates.append((crate.saved(tmp_path / f"{name}.zip"), PROVENANCE if has_tasks else WORKFLOW_RUN))
    issues = [issue for found in validated(*crates) for issue in found["issues"]]
    assert [issue for issue in issues if issue[2] not in UNKNOWN] == []


def difference(ours: Counter[str], theirs: Counter[str]) -> dict[str, int]:
    """What one has more often (above 0) or less often (below) than the other."""
    return {line: ours[line] - theirs[line] for line in ours | theirs if ours[line] != theirs[line]}


def events(live: LiveServer, job: dict[str, Any]) -> Counter[str]:
    """A run's events as a multiset, without what is another in each run."""
    directory = live.data_dir / "jobs" / job["id"]
    text = (directory / "attempts" / str(job["attempt"]) / "events.jsonl").read_text()
    told = [json.loads(line) for line in text.replace(str(directory), "JOB").splitlines()]
    return Counter(line for event in told for line in _steady(event))


def _steady(event: dict[str, Any]) -> Iterator[str]:
    """One line for the event, or for each task where it tells of as many as there were at the time."""
    match event["event"]:
        case "tasks_planned":
            yield from (json.dumps(["planned", rule, wildcards]) for _, rule, wildcards in event["tasks"])
        case "progress" if event["done"] < event["total"]:
            return  # as often as the plugin finds it worth telling
        case "job_started":
            yield from ("started" for _ in event["jobids"])
        case _:
            kept = {name: value for name, value in event.items() if name not in UNSTEADY_FIELDS}
            if "reason" in kept:
                kept["reason"] = workflow_cases.steady_reason(kept["reason"])
            yield workflow_cases.steady_line(json.dumps(kept, sort_keys=True)) or ""
