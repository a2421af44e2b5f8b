"""Plans and reports of real Snakemake, by one warm service."""

from __future__ import annotations

import errno
import os
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from runner.errors import (
    InvalidSpec,
    InvalidTransition,
    ReportImpossible,
    ReportNotFound,
    StorageFull,
    WorkflowNotFound,
)
from runner.job_store import JobQuery
from runner.jobs import JobSpec, JobStatus
from runner.tasks import MissingInput, TaskStatus
from tests.support.engines import NEEDS_SNAKEMAKE, snakemake_command
from tests.support.runners import Hold, RunningRunner, settings_for
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from runner.plans import Plan

SNAKEMAKE = snakemake_command()
pytestmark = NEEDS_SNAKEMAKE

WORKFLOWS = {
    "letters": """
rule all:
    input: "all.txt"
rule letter:
    output: "letters/{name}.txt"
    log: "logs/{name}.log"
    threads: 2
    shell: "echo {wildcards.name} > {output}"
rule join:
    input: expand("letters/{name}.txt", name=config.get("names", ["a", "b"]))
    output: report("all.txt", category="letters")
    shell: "cat {input} > {output}"
rule gated:
    output: "gated.txt"
    params: gate=config.get("gate", "")
    shell: "cat {params.gate:q} > {output}"
""",
    "missing": """
rule all:
    input: "made.txt"
rule make:
    input: "a.txt", "b/c.txt"
    output: "made.txt"
    shell: "cat {input} > {output}"
""",
    "scattered": """
checkpoint split:
    output: directory("parts")
    shell: "mkdir {output}; touch {output}/1"
def parts(_):
    return glob_wildcards(checkpoints.split.get().output[0] + "/{n}").n
rule all:
    default_target: True
    input: lambda w: expand("done/{n}", n=parts(w))
rule one:
    output: "done/{n}"
    shell: "touch {output}"
""",
    "attached": """
rule all:
    input: "input/reads/a.fastq", "input/sheet.csv"
    output: "read.txt"
    shell: "cat {input} > {output}"
""",
    "broken": "rule all:\n    input: 'a'\n    otput: 'b'\n",
    "impolite": "raise ValueError('no sample sheet')\n",
    "endless": "import time\ntime.sleep(600)\n",
    "careless": "import sys\nsys.exit(0)\n",
    # Which file a report goes to can be guessed, so somebody may put another one there.
    "forger": """
import os
target = os.path.join(os.environ["HOME"], "report.html")
if "--report" in __import__("sys").argv:
    os.symlink("/etc/passwd", target)
    os._exit(0)
rule all:
    output: "forged.txt"
    shell: "touch {output}"
""",
}


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRunner]:
    folder = tmp_path_factory.mktemp("plans")
    for name, snakefile in WORKFLOWS.items():
        (folder / "workflows" / name).mkdir(parents=True)
        (folder / "workflows" / name / "Snakefile").write_text(snakefile)
    rules = '[attachments]\nmax_mb = 1\nmax_files = 2\nnames = "[a-z/]+[.](fastq|csv)"\n'
    (folder / "workflows" / "attached" / "snakeline.toml").write_text(rules)
    settings = settings_for(
        folder / "data",
        engine="snakemake",
        snakemake=SNAKEMAKE or "",
        workflows_dir=folder / "workflows",
    )
    with closing(RunningRunner(settings)) as runner:
        yield runner


def plan(
    runner: RunningRunner, workflow: str, *, limit: int = 500, attachments: Sequence[str] = (), **fields: Any
) -> Plan:
    spec = JobSpec(workflow=workflow, **fields)
    made = runner.service.plan(spec, limit=limit, attachments=attachments)
    data_dir = runner.settings.data_dir
    kept = {job.id for job in runner.service.list(JobQuery(limit=500)).items}
    assert set(os.listdir(data_dir / "jobs")) == kept
    assert not os.listdir(data_dir / "side")
    assert not os.listdir(data_dir / "trash")
    return made


def test_a_plan_tells_each_task_with_its_reason_the_graph_and_the_version(runner: RunningRunner) -> None:
    found = plan(runner, "letters", parameters={"names": ["x", "y", "z"]}, cores=2)
    assert (found.ok, found.errors, found.missing_input) == (True, (), ())
    assert found.rules == {"letter": 3, "join": 1, "all": 1}
    assert set(found.graph.edges) == {("letter", "join"), ("join", "all")}
    assert found.tasks.total == 5
    assert {task.status for task in found.tasks.items} == {TaskStatus.PENDING}  # nothing has run
    tasks = {task.output[0] if task.output else task.rule: task for task in found.tasks.items}
    letter = tasks["letters/y.txt"]
    assert (letter.rule, letter.wildcards, letter.threads) == ("letter", {"name": "y"}, 2)
    assert letter.log == ("logs/y.log",)
    assert "Missing output files: letters/y.txt" in (letter.reason or "")
    assert sorted(tasks["all.txt"].input) == ["letters/x.txt", "letters/y.txt", "letters/z.txt"]
    assert found.version == runner.service.plan(JobSpec(workflow="letters"), limit=0).version


@pytest.mark.parametrize(
    ("fields", "total", "shown"),
    [
        ({"targets": ("letters/q.txt",)}, 1, 1),
        ({"options": {"dry_run": True, "force_all": True, "keep_going": True}}, 4, 4),
        ({"memory_mb": 1024, "limit": 2}, 4, 2),
    ],
)
def test_it_depends_on_what_a_job_would_be_given(
    runner: RunningRunner, fields: dict[str, Any], total: int, shown: int
) -> None:
    found = plan(runner, "letters", **fields)
    assert (found.ok, found.tasks.total, len(found.tasks.items)) == (True, total, shown)


@pytest.mark.parametrize(
    ("workflow", "fields", "said"),
    [
        ("missing", {}, "Missing input files for rule make"),
        ("broken", {}, "otput"),
        ("impolite", {}, "no sample sheet"),
        ("letters", {"targets": ("nobody/makes.this",)}, "nobody/makes.this"),
    ],
)
def test_what_cannot_be_planned_is_answered_in_snakemakes_own_words(
    runner: RunningRunner, workflow: str, fields: dict[str, Any], said: str
) -> None:
    found = plan(runner, workflow, **fields)
    assert not found.ok
    assert said in "\n".join(found.errors)
    assert "site-packages" not in "\n".join(found.errors)
    missing = (MissingInput("make", ("a.txt", "b/c.txt")),) if workflow == "missing" else ()
    assert (
        tuple(MissingInput(each.rule, tuple(sorted(each.files))) for each in found.missing_input) == missing
    )


def test_a_plan_stops_at_a_checkpoint_and_an_engine_that_ends_early_plans_nothing(
    runner: RunningRunner,
) -> None:
    found = plan(runner, "scattered")
    assert found.ok
    assert found.rules == {"split": 1, "all": 1}
    assert [node.rule for node in found.graph.nodes if node.is_checkpoint] == ["split"]
    assert plan(runner, "careless").tasks.total == 0


def test_a_plan_that_takes_too_long_is_stopped_and_says_which_setting_decides(runner: RunningRunner) -> None:
    short = runner.settings.model_copy(update={"plan_timeout_s": 0.5})
    plans = runner.service._plans
    before, plans._settings = plans._settings, short
    try:
        found = plan(runner, "endless")
    finally:
        plans._settings = before
    assert not found.ok
    assert found.errors == ("It took longer than 0.5 s (SNAKELINE_PLAN_TIMEOUT_S) and was stopped.",)


def test_files_that_would_come_with_the_job_are_there_if_they_are_named(runner: RunningRunner) -> None:
    found = plan(runner, "attached", attachments=["sheet.csv"])
    assert found.missing_input == (MissingInput("all", ("input/reads/a.fastq",)),)
    assert plan(runner, "attached", attachments=["sheet.csv", "reads/a.fastq"]).ok
    for names, pointer in (
        (["../../x.csv"], "/attachments/0"),
        (["sheet.csv", "Sheet.csv"], "/attachments/1"),
        (["sheet.txt"], "/attachments/0"),
        (["a.csv", "b.csv", "c.csv"], "/attachments/2"),
    ):
        with pytest.raises(InvalidSpec, match=pointer):
            plan(runner, "attached", attachments=names)
    with pytest.raises(InvalidSpec, match="takes no files"):
        plan(runner, "letters", attachments=["sheet.csv"])


def test_it_is_refused_as_a_submission_would_be(runner: RunningRunner) -> None:
    with pytest.raises(WorkflowNotFound):
        plan(runner, "nothing")
    with pytest.raises(InvalidSpec, match="/targets/0"):
        plan(runner, "letters", targets=("--report",))


# ---------------------------------------------------------------- reports


def report_of(runner: RunningRunner, job_id: str) -> bytes:
    with runner.service.reports.make(job_id) as made:
        return made.read(0, made.size_bytes)


def test_a_report_is_made_of_what_is_there_and_made_anew(runner: RunningRunner) -> None:
    job = runner.ended(runner.submit(JobSpec(workflow="letters")), timeout_s=30)
    with pytest.raises(ReportNotFound):
        runner.service.reports.open(job.id)
    before = (
        set(os.listdir(runner.work_dir(job))),
        runner.work_dir(job).joinpath("all.txt").stat().st_mtime_ns,
    )
    assert b"Snakemake Report" in report_of(runner, job.id)[:2000]
    with runner.service.reports.open(job.id) as first:
        assert first.size_bytes > 100_000  # with all the scripts it needs
        assert b"all.txt" in first.read(0, first.size_bytes)
        report_of(runner, job.id)
        with runner.service.reports.open(job.id) as second:
            assert second.identity != first.identity
    after = set(os.listdir(runner.work_dir(job))), runner.work_dir(job).joinpath("all.txt").stat().st_mtime_ns
    assert before == after
    assert os.listdir(runner.job_dir(job) / "attempts") == ["1"]
    assert "report.html" not in os.listdir(runner.job_dir(job) / "home")

    (runner.work_dir(job) / "all.txt").unlink()
    with pytest.raises(ReportImpossible, match=r"File all\.txt marked for report but does not exist"):
        runner.service.reports.make(job.id)
    with runner.service.reports.open(job.id) as kept:
        assert kept.size_bytes == second.size_bytes
    assert not os.listdir(runner.settings.data_dir / "side")


def test_no_report_is_made_of_a_job_that_runs_or_never_ran(runner: RunningRunner, tmp_path: Path) -> None:
    hold = Hold(tmp_path)
    spec = JobSpec(workflow="letters", targets=("gated.txt",), parameters={"gate": hold.path}, cores=4)
    running = runner.submit(spec)
    gated = runner.work_dir(running) / "gated.txt"
    wait_until(gated.exists, what="the rule to wait", timeout_s=30)
    waiting = runner.submit(spec)
    for job in (running, waiting):
        with pytest.raises(InvalidTransition, match="once it has ended"):
            runner.service.reports.make(job.id)
    runner.service.cancel(waiting.id)
    with pytest.raises(ReportImpossible, match="never ran"):
        runner.service.reports.make(waiting.id)
    runner.service.cancel(running.id)
    runner.ended(running)
    assert b"Snakemake Report" in report_of(runner, running.id)  # also of what a cancelled job has left


def test_what_a_job_puts_in_the_reports_place_is_not_served(runner: RunningRunner) -> None:
    job = runner.ended(runner.submit(JobSpec(workflow="forger")))
    assert job.status is JobStatus.COMPLETED
    (runner.job_dir(job) / "home" / "report.html").write_text("planted before")
    with pytest.raises(ReportImpossible, match="without having written a report"):
        runner.service.reports.make(job.id)
    with pytest.raises(ReportNotFound):
        runner.service.reports.open(job.id)


def test_a_report_for_which_there_is_no_room_leaves_nothing(
    runner: RunningRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = runner.ended(runner.submit(JobSpec(workflow="letters")), timeout_s=30)
    made, there = runner.service.reports, runner.job_dir(job)

    def full(_draft: object, to: int) -> None:
        os.write(to, b"a part")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = os.listdir(there)
    with monkeypatch.context() as patched:
        patched.setattr("runner.reports._copy", full)
        with pytest.raises(StorageFull, match="no room for the report"):
            made.make(job.id)
    little = runner.settings.model_copy(update={"min_free_bytes": 2**60})
    monkeypatch.setattr(made, "_settings", little)
    with pytest.raises(StorageFull, match="no room for the report"):
        made.make(job.id)
    assert sorted(os.listdir(there)) == sorted(before)
