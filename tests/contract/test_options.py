"""What each option does to a run, of Snakemake and, as far as it makes sense, of the stand-in."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from runner import checkup
from runner.jobs import JobSpec
from tests.support import engines, eventful

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.ports import Engine

REAL = pytest.param("snakemake", marks=engines.NEEDS_SNAKEMAKE)

SNAKEFILE = """
rule all:
    input: "c.txt", "d.txt"

rule a:
    output: "a.txt"
    threads: 3
    resources: mem_mb=7
    shell: "echo {threads} {resources.mem_mb} > {output}"

rule b:
    input: "a.txt"
    output: "b.txt"
    params: word=config.get("word", "none")
    shell: "echo {params.word} > {output}"

rule c:
    input: "b.txt"
    output: "c.txt"
    shell: "cp {input} {output}"

rule d:
    output: "d.txt"
    resources: slots=1
    shell: "mkdir busy; sleep 0.1; rmdir busy; touch {output}"

rule e:
    output: "e.txt"
    resources: slots=1
    shell: "mkdir busy; sleep 0.1; rmdir busy; touch {output}"

rule weigh:
    output: "weight.txt"
    shell: "echo {resources.weight} > {output}"

rule gather:
    input: expand("part{n}.txt", n=range(4))
    output: "gathered.txt"
    shell: "cat {input} > {output}"

rule part:
    output: "part{n}.txt"
    shell: "touch {output}"

rule flaky:
    output: "flaky.txt"
    shell: "mkdir tried || {{ touch {output}; exit 0; }}; exit 3"

rule moody:
    output: "moody.txt"
    envmodules: "tool/1.0"
    shell: "echo $LOADED > {output}"
"""


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profiles")
    (folder / "lab").mkdir()
    (folder / "lab/config.yaml").write_text("set-threads:\n  a: 2\n")
    return folder


@pytest.fixture(scope="module")
def drivers(
    profiles: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, tuple[Engine, engines.WarmDriver]]]:
    started: dict[str, tuple[Engine, engines.WarmDriver]] = {}
    for name in ["mock", *(["snakemake"] if engines.snakemake_command() else [])]:
        data = tmp_path_factory.mktemp(name)
        engine = engines.make_engine(name, data, profiles_dir=profiles, software_deployment=("env-modules",))
        spec = engine.warm_spec()
        assert spec is not None
        started[name] = engine, engines.WarmDriver(spec)
    yield started
    for _, driver in started.values():
        driver.close()


class Runs:
    """Runs of one workflow in one working directory."""

    def __init__(self, bench: engines.Bench, folder: Path) -> None:
        self.bench = bench
        self._workflow = engines.workflow_of(folder)

    @property
    def work(self) -> Path:
        return self.bench.work

    def run(self, *targets: str, word: str = "none", fail: str | None = None, **given: Any) -> set[str]:
        """Which rules a run has done; its options are looked at as the service does."""
        mock = {"seconds": 0} if fail is None else {"seconds": 0, "fail_rule": fail}
        spec = JobSpec(targets=targets, options=given, cores=4, parameters={"word": word, "mock": mock})
        assert self.bench.engine.validate(spec) == []
        finished = eventful.run(self.bench, self._workflow, spec)
        self.log = finished.log
        self.exit_code = finished.exit_code
        rules = {event["jobid"]: event["rule"] for event in finished.of("job_info")}
        self.tried = len(finished.of("job_info"))
        return {rules[event["jobid"]] for event in finished.of("job_finished")}


@pytest.fixture(params=["mock", REAL])
def runs(
    request: pytest.FixtureRequest,
    drivers: dict[str, tuple[Engine, engines.WarmDriver]],
    tmp_path: Path,
) -> Iterator[Runs]:
    folder = tmp_path / "written"
    folder.mkdir()
    (folder / "Snakefile").write_text(SNAKEFILE)
    engine, driver = drivers[request.param]
    with engines.Bench(engine, tmp_path / "data", driver) as bench:
        yield Runs(bench, folder)


only_real = pytest.mark.parametrize("runs", [REAL], indirect=True)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"until": ["b"]}, {"a", "b"}),
        ({"until": ["a.txt"]}, {"a"}),
        ({"omit_from": ["b"]}, {"a", "d"}),
        ({"dry_run": True}, set()),
        ({"executor": "local"}, {"a", "b", "c", "d", "all"}),
    ],
)
def test_a_part_of_a_workflow_is_run(runs: Runs, given: dict[str, Any], expected: set[str]) -> None:
    assert runs.run("all", **given) == expected
    assert runs.exit_code == 0, runs.log.decode()


def test_what_is_there_is_made_again_where_it_is_forced_or_touched(runs: Runs) -> None:
    target = "c.txt"
    assert runs.run(target) == {"a", "b", "c"}
    assert runs.run(target) == set()
    assert runs.run(target, force_rules=["b"]) == {"b", "c"}
    assert runs.run(target, force_all=True) == {"a", "b", "c"}
    before = (runs.work / "b.txt").read_text()
    os.utime(runs.work / "b.txt", (1, 1))
    os.utime(runs.work / "a.txt", (2, 2))
    runs.run(target, force_all=True, touch=True)
    assert (runs.work / "b.txt").stat().st_mtime > 2
    assert (runs.work / "b.txt").read_text() == before
    assert runs.exit_code == 0, runs.log.decode()


def test_others_go_on_when_one_fails_and_that_is_wanted(runs: Runs) -> None:
    assert "d" in runs.run("flaky", "d", fail="flaky", keep_going=True)
    assert runs.exit_code == 1


@only_real
def test_a_changed_parameter_is_a_reason_unless_only_times_are(runs: Runs) -> None:
    runs.run("c.txt", word="one")
    assert runs.run("c.txt", word="two", rerun_triggers=["mtime", "code"]) == set()
    assert runs.run("c.txt", word="two", rerun_triggers=["params"]) >= {"b"}


@only_real
def test_a_task_is_tried_as_often_as_it_is_told(runs: Runs) -> None:
    assert runs.run("flaky", retries=1) == {"flaky"}
    assert runs.tried == 2


@only_real
@pytest.mark.parametrize(
    ("given", "target", "expected"),
    [
        ({"set_threads": {"a": 1}}, "a.txt", "1 7"),
        ({"set_resources": {"a": {"mem": "5 GB"}}}, "a.txt", "3 5000"),
        ({"set_resources": {"a": {"mem_mb": 9}}, "profile": "lab"}, "a.txt", "2 9"),
        ({"default_resources": {"weight": 2}}, "weight.txt", "2"),
    ],
)
def test_rules_get_other_resources_than_they_name(
    runs: Runs, given: dict[str, Any], target: str, expected: str
) -> None:
    runs.run(target, **given)
    assert runs.exit_code == 0, runs.log.decode()
    assert (runs.work / target).read_text() == expected + "\n"


@only_real
def test_tasks_share_a_resource(runs: Runs) -> None:
    assert runs.run("d", "e", resources={"slots": 1}) == {"d", "e"}, runs.log.decode()


@only_real
def test_a_part_of_many_inputs_is_made(runs: Runs) -> None:
    runs.run("gathered.txt", batch={"rule": "gather", "part": 1, "of": 2})
    assert len(list(runs.work.glob("part*.txt"))) == 2
    assert not (runs.work / "gathered.txt").exists()


@only_real
def test_a_rule_gets_its_software_from_a_module(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init = tmp_path / "modules.sh"
    init.write_text('module() { if [ "$1" = load ]; then export LOADED=$2; fi; }\nexport -f module\n')
    monkeypatch.setattr("runner.engines.offer._MODULE_INITS", (str(init),))
    runs.run("moody.txt", software_deployment=["env-modules"])
    assert runs.exit_code == 0, runs.log.decode()
    assert (runs.work / "moody.txt").read_text() == "tool/1.0\n"


@pytest.mark.parametrize("name", ["mock", REAL])
def test_what_is_allowed_and_missing_is_told_before_a_job_asks_for_it(name: str, tmp_path: Path) -> None:
    settings = engines.settings(tmp_path, executors=("local", "no-such"), software_deployment=("apptainer",))
    engine = engines.make_engine(
        name, tmp_path, executors=settings.executors, software_deployment=settings.software_deployment
    )
    engine.check()
    check = checkup.check_options(settings, engine, ())
    if name == "mock":
        assert (check.ok, check.detail) == (
            True,
            "executors: local no-such, software: apptainer, profiles: none",
        )
    else:
        assert not check.ok
        assert "snakemake-executor-plugin-no-such" in check.detail


def test_a_cluster_that_would_not_know_the_users_of_jobs_is_told_of_beforehand(tmp_path: Path) -> None:
    settings = engines.settings(tmp_path, executors=("local", "slurm"))
    engine = engines.make_engine("mock", tmp_path, executors=settings.executors)
    found = {
        protection: checkup.check_options(settings, engine, (protection,))
        for protection in ("uid", "landlock")
    }
    assert not found["uid"].ok
    assert "start the service as an account of the cluster" in found["uid"].detail
    assert found["landlock"].ok
