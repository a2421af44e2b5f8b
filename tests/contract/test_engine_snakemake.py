"""What only real Snakemake can show: its start, its checks, and that a warm start changes nothing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runner.engines.snakemake import SnakemakeEngine
from runner.errors import EngineUnavailable
from runner.jobs import JobSpec, Progress
from tests.support import engines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.ports import Engine

SNAKEMAKE = engines.snakemake_command() or ""
CURIOUS = """
import os, sys, tempfile, threading
sys.path.insert(0, workflow.basedir)
import runner

print("from the Snakefile")
json_text = __import__("json").dumps({
    "values": config["values"],
    "runner": runner.WHOSE,
    "argv0": os.path.basename(sys.argv[0]),
    "rundir": workflow.rundir,
    "cwd": os.getcwd(),
    "temporary": tempfile.gettempdir(),
    "environment": dict(os.environ),
    "descriptors": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
})
def waited_for():
    timers = [t for t in threading.enumerate() if isinstance(t, threading.Timer) and not t.finished.is_set()]
    open("waited_for.txt", "w").write("".join(str(timer) for timer in timers))

if not os.path.exists("seen.json"):  # an inner process reads the Snakefile again
    open("seen.json", "w").write(json_text)
    threading._register_atexit(waited_for)  # called when the interpreter begins to wait for its threads

rule all:
    input: "results/inner.txt", "results/shadowed.txt", "results/script.txt"

rule inner:
    output: "results/inner.txt"
    run:
        import socket
        open(output[0], "w").write("made by a run block")

rule shadowed:
    output: "results/shadowed.txt"
    shadow: "minimal"
    shell: "env > env.txt; cp env.txt {output}"

rule script:
    output: "results/script.txt"
    script: "script.py"
"""

# Each of the two rules asks for most of the job's memory; the third for more than there is.
HUNGRY = """
rule all:
    input: "a.txt", "b.txt", "much.txt"

rule part:
    output: "{name}.txt"
    wildcard_constraints: name="[ab]"
    resources: mem_mb=300
    shell: "mkdir busy && sleep 0.2 && rmdir busy && touch {output}"

rule much:
    output: "much.txt"
    resources: mem_mb=8000
    shell: "echo {resources.mem_mb} > {output}"
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return engines.make_engine("snakemake", tmp_path_factory.mktemp("engine"))


@pytest.fixture
def curious(tmp_path: Path) -> Path:
    folder = tmp_path / "curious"
    folder.mkdir()
    (folder / "Snakefile").write_text(CURIOUS)
    (folder / "runner.py").write_text("WHOSE = 'the workflow'\n")
    (folder / "script.py").write_text("import sys\nopen(snakemake.output[0], 'w').write(sys.executable)\n")
    return folder


@pytest.fixture(scope="module")
def driver(engine: Engine) -> Iterator[engines.WarmDriver]:
    with engines.warm_driver(engine) as driver:
        yield driver


@pytest.fixture
def warm(engine: Engine, driver: engines.WarmDriver, tmp_path: Path) -> Iterator[engines.Bench]:
    with engines.Bench(engine, tmp_path / "data", driver) as bench:
        yield bench


@pytest.fixture(params=["cold", "warm"])
def bench(
    request: pytest.FixtureRequest, engine: Engine, driver: engines.WarmDriver, tmp_path: Path
) -> Iterator[engines.Bench]:
    with engines.Bench(engine, tmp_path / "data", driver if request.param == "warm" else None) as bench:
        yield bench


class TestRuns:
    pytestmark = engines.NEEDS_SNAKEMAKE

    def test_rules_share_the_memory_of_the_job_as_they_share_its_cores(
        self, warm: engines.Bench, tmp_path: Path
    ) -> None:
        folder = tmp_path / "hungry"
        folder.mkdir()
        (folder / "Snakefile").write_text(HUNGRY)
        finished = warm.run(engines.workflow_of(folder), JobSpec(cores=4, memory_mb=512))
        assert finished.exit_code == 0, finished.log.decode()
        assert (warm.work / "much.txt").read_text() == "512\n"

    def test_a_workflow_cannot_tell_how_it_was_started(self, bench: engines.Bench, curious: Path) -> None:
        values = {
            "zeros": "007",
            "text": "1e3",
            "word": "Größe 日本",
            "number": 1e3,
            "no": False,
            "none": None,
        }
        spec = JobSpec(parameters={"values": values}, cores=2)
        finished = bench.run(engines.workflow_of(curious), spec)
        assert finished.exit_code == 0, finished.log.decode()
        assert finished.state.progress == Progress(total=4, done=4)
        seen: dict[str, Any] = json.loads((bench.work / "seen.json").read_text())
        assert seen["values"] == values
        assert seen["runner"] == "the workflow"
        assert (seen["rundir"], seen["cwd"]) == (str(bench.work), str(bench.work))
        assert seen["temporary"] == bench.files().tmp
        assert set(seen["descriptors"]) >= {0, 1, 2}
        assert (bench.work / "waited_for.txt").read_text() == ""
        assert seen["environment"].pop("PATH").split(":")[0] == os.path.dirname(SNAKEMAKE)
        assert {name for name in seen["environment"] if name.startswith(("SNAKELINE", "OPENBLAS"))} == {
            "SNAKELINE_JOB_ID",
            "SNAKELINE_ATTEMPT",
        }
        shell_environment = (bench.work / "results/shadowed.txt").read_text()
        assert "PYTHONPATH" not in shell_environment
        assert (bench.work / "results/script.txt").read_text().startswith(os.path.dirname(SNAKEMAKE))
        assert (bench.work / "results/inner.txt").read_text() == "made by a run block"
        log = finished.log.decode()
        assert log.index("from the Snakefile") < log.index("Building DAG of jobs")

    def test_the_snakefiles_own_exit_code_is_kept(self, bench: engines.Bench, tmp_path: Path) -> None:
        folder = tmp_path / "exits"
        folder.mkdir()
        (folder / "Snakefile").write_text("import sys\nsys.exit(42)\n")
        assert bench.run(engines.workflow_of(folder), JobSpec()).exit_code == 42

    def test_a_rule_that_recovers_by_its_own_retries_is_no_failure(
        self, warm: engines.Bench, tmp_path: Path
    ) -> None:
        folder = tmp_path / "flaky"
        folder.mkdir()
        (folder / "Snakefile").write_text(
            'rule a:\n    output: "a.txt"\n    retries: 1\n'
            '    shell: "mkdir tried || {{ touch a.txt; exit 0; }}; exit 1"\n'
        )
        finished = warm.run(engines.workflow_of(folder), JobSpec())
        assert finished.exit_code == 0, finished.log.decode()
        assert finished.state.progress == Progress(total=1, done=1)
        assert finished.state.error_message is None

    def test_an_output_that_is_not_as_promised_is_explained(
        self, warm: engines.Bench, tmp_path: Path
    ) -> None:
        folder = tmp_path / "missing"
        folder.mkdir()
        (folder / "Snakefile").write_text(
            'rule a:\n    output: ensure("a.txt", non_empty=True)\n    shell: "touch {output}"\n'
        )
        finished = warm.run(engines.workflow_of(folder), JobSpec())
        assert finished.exit_code == 1
        assert "a.txt" in (finished.explanation or "")
        assert "empty" in (finished.explanation or "")

    def test_wordcount_makes_a_table_and_a_chart(self, warm: engines.Bench) -> None:
        spec = JobSpec(workflow="wordcount", parameters={"texts": ["harbour", "winter"], "top_n": 3})
        finished = warm.run(engines.workflow_of(engines.BUNDLED / "wordcount"), spec)
        assert finished.exit_code == 0, finished.log.decode()
        assert finished.state.progress == Progress(total=6, done=6)
        table = (warm.work / "results/words.tsv").read_text().splitlines()
        assert table[0] == "word\tharbour\twinter\ttotal"
        assert table[1:] == ["boats\t5\t1\t6", "water\t4\t1\t5", "every\t0\t4\t4"]
        assert (warm.work / "results/words.svg").read_text().startswith("<svg ")

    def test_a_command_that_is_no_python_script_runs_without_events(
        self, tmp_path: Path, engine: Engine
    ) -> None:
        wrapper = engines.python_program(tmp_path / "wrapped", f'#!/bin/sh\nexec "{SNAKEMAKE}" "$@"\n')
        wrapped = SnakemakeEngine(engines.settings(tmp_path, snakemake=str(wrapper)))
        assert wrapped.warm_spec() is None
        assert wrapped.check() == engine.check()
        with engines.Bench(wrapped, tmp_path / "data") as bench:
            finished = bench.run(engines.workflow_of(engines.BUNDLED / "demo"), JobSpec())
        assert finished.exit_code == 0, finished.log.decode()
        assert finished.state.progress is None

    @pytest.mark.parametrize(
        "head",
        [
            "#!{python}\n",
            "#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n",
            "#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"\n' '''\n",
        ],
    )
    def test_the_interpreter_is_found_in_every_form_installers_write(self, tmp_path: Path, head: str) -> None:
        real = SnakemakeEngine(engines.settings(tmp_path))
        spec = real.warm_spec()
        assert spec is not None
        script = engines.python_program(tmp_path / "snakemake", head.format(python=spec.python) + "pass\n")
        found = SnakemakeEngine(engines.settings(tmp_path, snakemake=str(script))).warm_spec()
        assert found is not None
        assert found.python == spec.python


def trouble_with(snakemake: str | Path, tmp_path: Path) -> str:
    engine = SnakemakeEngine(engines.settings(tmp_path, snakemake=str(snakemake)))
    with pytest.raises(EngineUnavailable) as caught:
        engine.check()
    message = str(caught.value)
    assert "\n" not in message
    assert "make snakemake-env" in message
    assert "SNAKELINE_SNAKEMAKE" in message
    return message


def test_a_missing_snakemake_is_told_with_what_to_do(tmp_path: Path) -> None:
    assert "was not found" in trouble_with(tmp_path / "nowhere", tmp_path)
    assert "was not found" in trouble_with("no-such-snakemake-anywhere", tmp_path)


def test_a_snakemake_that_may_not_be_executed_is_told(tmp_path: Path) -> None:
    path = engines.python_program(tmp_path / "snakemake", "#!/bin/sh\n")
    path.chmod(0o644)
    assert "cannot be executed" in trouble_with(path, tmp_path)


def test_an_interpreter_without_snakemake_is_told(tmp_path: Path) -> None:
    python = shutil.which("python3", path=os.defpath)
    if python is None:
        pytest.skip("this machine has no Python of its own")
    path = engines.python_program(tmp_path / "snakemake", f"#!{python}\n")
    assert "has no Snakemake" in trouble_with(path, tmp_path)


def test_a_command_that_is_something_else_is_told_until_it_is_replaced(tmp_path: Path) -> None:
    path = engines.python_program(tmp_path / "snakemake", "#!/bin/sh\necho hello\n")
    engine = SnakemakeEngine(engines.settings(tmp_path, snakemake=str(path)))
    with pytest.raises(EngineUnavailable):
        engine.check()
    engines.python_program(tmp_path / "snakemake", "#!/bin/sh\necho 9.99.1 # another size\n")
    assert engine.check().version == "9.99.1"


def test_a_command_that_never_answers_is_given_up(tmp_path: Path) -> None:
    path = engines.python_program(tmp_path / "snakemake", "#!/bin/sh\nexec sleep 60\n")
    engine = SnakemakeEngine(engines.settings(tmp_path, snakemake=str(path)), answer_within_s=0.2)
    with pytest.raises(EngineUnavailable, match=r"did not answer within 0\.2 s"):
        engine.check()


def test_the_version_is_asked_for_once(tmp_path: Path) -> None:
    count = tmp_path / "count"
    path = engines.python_program(tmp_path / "snakemake", f"#!/bin/sh\necho x >> {count}\necho 9.99.1\n")
    engine = SnakemakeEngine(engines.settings(tmp_path, snakemake=str(path)))
    assert engine.check() == engine.check()
    assert count.read_text() == "x\n"


def test_a_command_for_a_missing_snakemake_is_refused(tmp_path: Path) -> None:
    engine = SnakemakeEngine(engines.settings(tmp_path, snakemake=str(tmp_path / "nowhere")))
    workflow = engines.workflow_of(engines.BUNDLED / "demo")
    with pytest.raises(EngineUnavailable, match="was not found"):
        engine.command(engines.make_job(JobSpec()), workflow, engines.Bench(engine, tmp_path).files())
    assert engine.warm_spec() is None
