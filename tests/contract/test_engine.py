"""What every engine promises: one suite for the stand-in and for real Snakemake, cold and warm."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runner.jobs import JobSpec, Progress
from tests.support import engines
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.ports import Engine, Workflow

ENGINES = ["mock", pytest.param("snakemake", marks=engines.NEEDS_SNAKEMAKE)]
SLOW_RULE = """
rule all:
    input: "last.txt"

rule first:
    output: "first.txt"
    shell: "echo first > {output}"

rule second:
    input: "first.txt"
    output: "second.txt"
    params: fifo=config["fifo"]
    shell: "cat {params.fifo} > {output}"

rule last:
    input: "second.txt"
    output: "last.txt"
    shell: "cp {input} {output}"
"""


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return engines.make_engine(request.param, tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def driver(engine: Engine) -> Iterator[engines.WarmDriver]:
    with engines.warm_driver(engine) as driver:
        yield driver


@pytest.fixture
def cold(engine: Engine, tmp_path: Path) -> Iterator[engines.Bench]:
    with engines.Bench(engine, tmp_path / "cold") as bench:
        yield bench


@pytest.fixture
def warm(engine: Engine, driver: engines.WarmDriver, tmp_path: Path) -> Iterator[engines.Bench]:
    with engines.Bench(engine, tmp_path / "warm", driver) as bench:
        yield bench


@pytest.fixture(params=["cold", "warm"])
def bench(
    request: pytest.FixtureRequest, engine: Engine, driver: engines.WarmDriver, tmp_path: Path
) -> Iterator[engines.Bench]:
    with engines.Bench(engine, tmp_path / "data", driver if request.param == "warm" else None) as bench:
        yield bench


def bundled(name: str) -> Workflow:
    return engines.workflow_of(engines.BUNDLED / name)


def written(tmp_path: Path, snakefile: str) -> Workflow:
    folder = tmp_path / "written"
    folder.mkdir()
    (folder / "Snakefile").write_text(snakefile)
    return engines.workflow_of(folder)


def spec(workflow: str = "demo", **fields: Any) -> JobSpec:
    mock = {"seconds": 0, **fields.pop("mock", {})}
    return JobSpec(workflow=workflow, parameters={**fields.pop("parameters", {}), "mock": mock}, **fields)


def is_locked(bench: engines.Bench, wanted: JobSpec) -> bool:
    """Whether the next attempt would have to take a lock away first."""
    return bench.engine.command(engines.make_job(wanted), bundled("demo"), bench.files()).prepare != ()


def made(work: Path) -> dict[str, int]:
    return {str(path.relative_to(work)): path.stat().st_size for path in sorted(work.rglob("results/*"))}


def test_it_says_which_engine_it_is(engine: Engine) -> None:
    info = engine.check()
    assert info.name == engine.name
    assert info.is_mock == (engine.name == "mock")
    assert info.version == "mock" or info.version[0].isdigit()


def test_a_run_makes_its_files_and_tells_its_progress(bench: engines.Bench) -> None:
    finished = bench.run(bundled("demo"), spec())
    assert finished.exit_code == 0, finished.log.decode()
    assert finished.state.progress == Progress(total=5, done=5, running=0, failed=0)
    assert finished.state.error_message is None
    assert (bench.work / "results/report.txt").stat().st_size > 0
    assert b"5 of 5 steps (100%) done" in finished.log


def test_cold_and_warm_runs_make_the_same_files(cold: engines.Bench, warm: engines.Bench) -> None:
    assert cold.run(bundled("demo"), spec()).exit_code == 0
    assert warm.run(bundled("demo"), spec()).exit_code == 0
    assert made(cold.work) == made(warm.work)
    assert "results/report.txt" in made(cold.work)


def test_a_warm_interpreter_has_one_thread(driver: engines.WarmDriver) -> None:
    assert driver.threads == 1


def test_a_failing_rule_is_named_with_the_message_in_its_log(bench: engines.Bench) -> None:
    mock = {"fail_rule": "check", "stderr_text": "ERROR: a sample is missing"}
    finished = bench.run(bundled("failing"), spec("failing", mock=mock))
    assert finished.exit_code == 1
    assert finished.state.progress == Progress(total=4, done=1, running=0, failed=1)
    assert finished.explanation is not None
    first, *others = finished.explanation.splitlines()
    assert first.startswith("Rule check failed")
    assert "ERROR: a sample is missing" in others[-1]
    assert "At least one job" not in finished.explanation


def test_a_failing_rule_without_a_log_is_explained_by_what_it_wrote(
    warm: engines.Bench, tmp_path: Path
) -> None:
    workflow = written(
        tmp_path,
        """
rule broken:
    output: "x.txt"
    shell: "printf 'no space\\\\033[31m for \\\\033[0mmore\\\\n' >&2; exit 7"
""",
    )
    mock = {"fail_rule": "broken", "stderr_text": "no space\x1b[31m for \x1b[0mmore"}
    finished = warm.run(workflow, spec(mock=mock))
    assert finished.exit_code == 1
    assert finished.explanation is not None
    told = finished.explanation.splitlines()
    assert told[0].startswith("Rule broken failed")
    assert told[-1] == "no space for more"


def test_an_error_before_any_rule_is_told_as_it_is(bench: engines.Bench) -> None:
    finished = bench.run(bundled("demo"), spec(targets=("nowhere.txt",)))
    assert finished.exit_code == 1
    assert finished.state.error_message is not None
    assert finished.explanation is not None
    assert "No rule to produce nowhere.txt" in finished.explanation


def test_a_missing_snakefile_is_told_from_the_log(warm: engines.Bench, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "README.md").write_text("nothing here")
    finished = warm.run(engines.workflow_of(folder), spec())
    assert finished.exit_code == 1
    assert finished.explanation is not None
    assert "Snakefile" in finished.explanation
    assert "not found" in finished.explanation


def test_only_what_the_targets_need_is_made(warm: engines.Bench) -> None:
    finished = warm.run(bundled("demo"), spec(targets=("results/shuffled.txt",)))
    assert finished.exit_code == 0
    assert sorted(made(warm.work)) == ["results/numbers.txt", "results/shuffled.txt"]
    assert finished.state.progress == Progress(total=2, done=2)


def test_a_dry_run_makes_nothing(warm: engines.Bench) -> None:
    finished = warm.run(bundled("demo"), spec(options={"dry_run": True}))
    assert finished.exit_code == 0
    assert made(warm.work) == {}
    assert b"dry-run" in finished.log


def test_keep_going_runs_what_does_not_depend_on_the_failure(warm: engines.Bench, tmp_path: Path) -> None:
    workflow = written(
        tmp_path,
        """
rule all:
    input: "results/a.txt", "results/b.txt", "results/c.txt"

rule a:
    output: "results/a.txt"
    shell: "echo a > {output}"

rule b:
    output: "results/b.txt"
    shell: "exit 1"

rule c:
    output: "results/c.txt"
    shell: "echo c > {output}"
""",
    )
    finished = warm.run(workflow, spec(mock={"fail_rule": "b"}, options={"keep_going": True}))
    assert finished.exit_code == 1
    assert sorted(made(warm.work)) == ["results/a.txt", "results/c.txt"]
    assert finished.state.progress == Progress(total=4, done=2, running=0, failed=1)


def test_a_second_run_has_nothing_to_do_unless_forced(warm: engines.Bench) -> None:
    target = ("results/report.txt",)
    assert warm.run(bundled("demo"), spec(targets=target)).exit_code == 0
    again = warm.run(bundled("demo"), spec(targets=target))
    assert again.exit_code == 0
    assert b"Nothing to be done" in again.log
    forced = warm.run(bundled("demo"), spec(targets=target, options={"force_all": True}))
    assert forced.exit_code == 0
    assert forced.state.progress == Progress(total=4, done=4)


def test_a_cancelled_run_ends_itself_and_leaves_no_lock(bench: engines.Bench, tmp_path: Path) -> None:
    hold = engines.Fifo(tmp_path / "hold")
    wanted = spec(parameters={"fifo": hold.path}, mock={"hold": hold.path})
    run = bench.start(written(tmp_path, SLOW_RULE), wanted)
    writer = hold.wait_for_reader()
    run.signal_group(signal.SIGTERM)
    finished = run.wait()
    os.close(writer)
    assert finished.exit_code == 1
    assert not is_locked(bench, wanted)
    assert not (bench.work / "last.txt").exists()


def test_a_killed_run_is_resumed_by_the_next_attempt(bench: engines.Bench, tmp_path: Path) -> None:
    hold = engines.Fifo(tmp_path / "hold")
    workflow = written(tmp_path, SLOW_RULE)
    wanted = spec(parameters={"fifo": hold.path}, mock={"hold": hold.path})
    run = bench.start(workflow, wanted)
    writer = hold.wait_for_reader()
    assert is_locked(bench, wanted)
    run.signal_group(signal.SIGKILL)
    assert run.wait().exit_code == -signal.SIGKILL
    os.close(writer)
    second = bench.start(workflow, wanted)
    hold.release()
    finished = second.wait()
    assert finished.exit_code == 0, finished.log.decode()
    assert (bench.work / "last.txt").exists()
    assert not is_locked(bench, wanted)


def test_a_run_whose_events_cannot_be_written_succeeds(bench: engines.Bench) -> None:
    command = bench.command(bundled("demo"), spec())
    Path(bench.files().events).mkdir()
    finished = bench.start_command(command, command.argv).wait()
    assert finished.exit_code == 0, finished.log.decode()
    assert finished.state.progress is None


def test_a_run_sees_nothing_of_the_services_environment(engine: Engine, cold: engines.Bench) -> None:
    environment = cold.command(bundled("demo"), spec()).environment
    assert set(environment) - {
        "MOCK_SNAKEMAKE_MIN_S",
        "MOCK_SNAKEMAKE_MAX_S",
        "MOCK_SNAKEMAKE_SUCCESS_RATE",
    } == {
        *("PATH", "LANG", "LC_ALL", "HOME", "TMPDIR", "USER", "LOGNAME", "XDG_CACHE_HOME"),
        *("PYTHONUNBUFFERED", "PYTHONNOUSERSITE", "SNAKELINE_JOB_ID", "SNAKELINE_ATTEMPT"),
    }
    assert environment["HOME"] == cold.files().home


def test_the_configuration_keeps_every_type(engine: Engine, cold: engines.Bench) -> None:
    parameters = {
        "zeros": "007",
        "text": "1e3",
        "word": "Größe 日本",
        "number": 1e3,
        "no": False,
        "none": None,
    }
    command = cold.command(bundled("demo"), JobSpec(parameters=parameters))
    assert json.loads(command.files[cold.files().config]) == parameters


def test_what_cannot_be_run_is_told_with_pointers(engine: Engine) -> None:
    wrong = JobSpec(
        targets=("--snakefile=x", "a/../b", "ok.txt", "a;touch x"),
        options={"nolock": True, "dry_run": 1},
        parameters={"-x": 1, "a/b": 1, "deep": {"-y": "\0"}, "big": [float("nan")]},
    )
    assert [error.pointer for error in engine.validate(wrong)] == [
        *("/targets/0", "/targets/1", "/targets/3"),
        *("/options/nolock", "/options/dry_run"),
        *(
            "/parameters/-x",
            "/parameters/a~1b",
            "/parameters/deep/-y",
            "/parameters/deep/-y",
            "/parameters/big/0",
        ),
    ]
    assert engine.validate(JobSpec(targets=("results/a-1.txt", "all"), options={"dry_run": True})) == []


@pytest.mark.snakemake
@pytest.mark.skipif(engines.snakemake_command() is None, reason="no Snakemake")
def test_both_engines_take_the_same_arguments(tmp_path: Path) -> None:
    wanted = spec(
        targets=("all",),
        options={"keep_going": True, "force_all": True, "dry_run": False},
        cores=2,
        memory_mb=512,
    )
    seen = []
    for name in ("mock", "snakemake"):
        with engines.Bench(engines.make_engine(name, tmp_path), tmp_path / "data") as bench:
            argv = bench.command(bundled("demo"), wanted).argv
        seen.append(argv[argv.index("--snakefile") :])
    assert seen[0] == seen[1]
    assert "--keep-going" in seen[0]
    assert seen[0][seen[0].index("--resources") + 1] == "mem_mb=512"
    assert "--dry-run" not in seen[0]


def test_the_run_waits_where_it_is_held(warm: engines.Bench, tmp_path: Path) -> None:
    hold = engines.Fifo(tmp_path / "hold")
    run = warm.start(
        written(tmp_path, SLOW_RULE), spec(parameters={"fifo": hold.path}, mock={"hold": hold.path})
    )
    reader = warm.engine.reader(run.files)
    writer = hold.wait_for_reader()

    def told() -> Progress | None:
        reader.advance()
        return reader.progress

    progress = wait_until(told, what="the run has told something")
    os.write(writer, b"go\n")
    os.close(writer)
    assert run.wait().exit_code == 0
    assert progress is not None
    assert progress.total == 4
    assert progress.done < 4
    assert told() == Progress(total=4, done=4)
