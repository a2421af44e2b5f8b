"""What a run tells of itself is the same form, whoever writes it: Snakemake's versions and the stand-in."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from jsonschema import Draft202012Validator

from runner.jobs import JobSpec
from tests.support import engines, eventful
from tests.support.logger_plugin import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.ports import Engine
    from tests.support.eventful import Told

COMMANDS = {"newest": engines.snakemake_command(), "oldest": engines.oldest_snakemake_command()}
MISSING = {
    "newest": "no Snakemake: run make snakemake-env or set SNAKELINE_SNAKEMAKE",
    "oldest": "not the oldest supported Snakemake: run make snakemake-env-oldest",
}
VALID = {
    name: Draft202012Validator({**SCHEMA, "oneOf": [{"$ref": f"#/$defs/{name}"}]})
    for name, definition in SCHEMA["$defs"].items()
    if "event" in definition.get("properties", ())
}
KEEP_GOING = JobSpec(targets=("bad",), options={"keep_going": True}, cores=4)


def assert_valid(told: Told) -> None:
    for event in told.events:
        VALID[event["event"]].validate(event)
    assert max(map(len, told.lines)) < 512 * 2**10


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert len(VALID) == len(SCHEMA["oneOf"])


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            name,
            marks=[pytest.mark.snakemake, pytest.mark.skipif(command is None, reason=MISSING[name])],
        )
        for name, command in COMMANDS.items()
    ],
)
def version(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def engine(version: str, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return engines.make_engine("snakemake", tmp_path_factory.mktemp("engine"), snakemake=COMMANDS[version])


@pytest.fixture(scope="module")
def driver(engine: Engine) -> Iterator[engines.WarmDriver]:
    """The oldest version is seen to start warm as well."""
    with engines.warm_driver(engine) as driver:
        yield driver


@pytest.fixture(scope="module")
def told(engine: Engine, driver: engines.WarmDriver, tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("run")
    with engines.Bench(engine, folder / "data", driver) as bench:
        return eventful.run(bench, eventful.write(folder / "w"), KEEP_GOING)


class TestSnakemake:
    def test_every_line_is_of_the_form(self, told: Told) -> None:
        assert told.exit_code == 1
        assert_valid(told)
        told_of = {event["event"] for event in told.events}
        # Groups' errors are told to handlers since 9.15; their tasks' errors always were.
        assert told_of | {"group_error"} == VALID.keys() - {"tasks_dropped", "task_external"}

    @pytest.mark.parametrize(
        ("rule", "expected"),
        [
            ("bad_shell", {"exit_code": 7, "log": ["logs/bad_shell.log"]}),
            ("bad_signal", {"exit_signal": 9}),
            ("bad_script", {"exit_code": 1}),
            ("bad_run", {}),
            ("bad_ensure", {"message": "empty"}),
            ("bad_missing", {"message": "bad_missing.txt"}),
            ("bad_consume", {"exit_code": 5}),
            ("bad_produce", {"knock_on": True}),
            ("flaky", {"exit_code": 3}),
        ],
    )
    def test_a_failed_task_says_why(self, told: Told, rule: str, expected: dict[str, object]) -> None:
        (error,) = told.of("job_error", rule=rule)
        assert [error["jobid"]] == told.numbers(rule)
        for name in ("exit_code", "exit_signal", "message", "log", "knock_on"):
            if name == "message" and name in expected:
                assert str(expected[name]) in error[name]
            elif not (rule == "bad_produce" and name == "exit_signal"):  # it may not have ended yet
                assert error.get(name) == expected.get(name), name

    def test_an_error_that_is_a_tasks_names_it(self, told: Told) -> None:
        about = {event["jobid"] for event in told.of("error") if "jobid" in event}
        assert about >= {told.numbers(rule)[0] for rule in ("bad_shell", "bad_signal", "bad_script")}
        assert {event["rule"] for event in told.of("error") if "rule" in event} == {
            "bad_ensure",
            "bad_missing",
        }

    def test_a_task_that_is_tried_again_is_told_again(self, told: Told) -> None:
        (number,) = told.numbers("flaky")
        names = [event["event"] for event in told.events if event.get("jobid") == number and "rule" in event]
        assert names == ["job_info", "job_error", "job_info"]
        assert sum(number in event["jobids"] for event in told.of("job_started")) == 2

    def test_everything_of_a_task_is_told(self, told: Told) -> None:
        infos = {event["wildcards"]["name"]: event for event in told.of("job_info", rule="part")}
        info = infos["b"]
        del info["t"], info["jobid"], info["reason"]
        assert info.pop("resources").items() >= {"mem_mb": 10, "mem_mib": 10}.items()
        assert info == {
            "v": 2,
            "event": "job_info",
            "rule": "part",
            "wildcards": {"name": "b"},
            "threads": 2,
            "priority": 3,
            "shellcmd": "echo b > made/b.txt 2> logs/b.log",
            "message": "Makes made/b.txt",
            "local": True,
            "input": ["parts/b.txt"],
            "output": ["made/b.txt"],
            "log": ["logs/b.log"],
            "benchmark": ["benchmarks/b.tsv"],
        }
        assert told.of("job_info", rule="bad_script")[0]["script"] == "bad.py"
        assert told.of("job_info", rule="split")[0]["checkpoint"]
        assert told.of("job_info", rule="produce")[0]["output"] == ["stream.txt"]

    def test_the_graph_and_the_plan_follow_the_checkpoint(self, told: Told) -> None:
        first, last = told.of("rule_graph")[0], told.of("rule_graph")[-1]
        needed = {node["rule"]: (node["needed"], node["up_to_date"]) for node in last["rules"]}
        assert needed["part"] == (2, 0)
        assert needed["split"] == (1, 0)
        assert needed["old"] == (0, 1)
        assert "part" not in {node["rule"] for node in first["rules"]}
        assert ["split", "gather"] in first["edges"]
        assert {("part", "gather"), ("gather", "bad"), ("produce", "consume")} <= set(
            map(tuple, last["edges"])
        )
        planned = [task[0] for line in told.of("tasks_planned") for task in line["tasks"]]
        assert max(Counter(planned).values()) == 1
        started = {number for line in told.of("job_started") for number in line["jobids"]}
        assert set(planned) - started == set(told.numbers("bad"))
        (info,) = told.of("run_info")
        assert info["total"] == len(told.of("tasks_planned")[0]["tasks"])
        assert info["total"] == sum(node["needed"] for node in first["rules"])
        assert told.of("progress")[-1]["total"] == len(planned)

    def test_tasks_that_run_together_are_a_group(self, told: Told) -> None:
        groups = {frozenset(event["jobids"]): event["group"] for event in told.of("group_info")}
        pair = frozenset(told.numbers("produce") + told.numbers("consume"))
        assert {
            event["group"] for event in told.events if event.get("jobid") in pair and "group" in event
        } == {groups[pair]}

    def test_a_command_that_cannot_be_made_is_its_tasks_error(
        self, engine: Engine, driver: engines.WarmDriver, tmp_path: Path
    ) -> None:
        with engines.Bench(engine, tmp_path / "data", driver) as bench:
            told = eventful.run(bench, eventful.write(tmp_path / "w", eventful.UNREADABLE), JobSpec())
        assert_valid(told)
        (error,) = told.of("job_error")
        assert (error["jobid"], error["rule"]) == (0, "a")
        assert "unknown" in error["message"]


class TestTheStandIn:
    @pytest.fixture
    def bench(self, tmp_path: Path) -> Iterator[engines.Bench]:
        with engines.Bench(engines.make_engine("mock", tmp_path), tmp_path / "data") as bench:
            yield bench

    def test_every_line_is_of_the_form(self, bench: engines.Bench, tmp_path: Path) -> None:
        spec = JobSpec(parameters={"mock": {"fail_rule": "bad_shell"}}, options={"keep_going": True})
        told = eventful.run(bench, eventful.write(tmp_path / "w"), spec)
        assert told.exit_code == 1
        assert_valid(told)
        (graph,) = told.of("rule_graph")
        assert ["flaky", "final"] in graph["edges"]
        assert [node["rule"] for node in graph["rules"] if node.get("checkpoint")] == ["split"]
        assert [node["rule"] for node in graph["rules"] if node["up_to_date"]] == ["old"]
        planned = [task for line in told.of("tasks_planned") for task in line["tasks"]]
        assert len(planned) == told.of("run_info")[0]["total"] == len(graph["rules"]) - 1
        (part,) = told.of("job_info", rule="part")
        assert (part["threads"], part["log"]) == (2, ["logs/{name}.log"])
        assert told.of("job_info", rule="bad_script")[0]["script"] == "bad.py"
        (error,) = told.of("job_error")
        assert (error["rule"], error["exit_code"]) == ("bad_shell", 1)

    def test_a_dry_run_tells_the_whole_plan(self, bench: engines.Bench, tmp_path: Path) -> None:
        told = eventful.run(bench, eventful.write(tmp_path / "w"), JobSpec(options={"dry_run": True}))
        assert_valid(told)
        planned = [task for line in told.of("tasks_planned") for task in line["tasks"]]
        assert [event["jobid"] for event in told.of("job_info")] == [task[0] for task in planned]
        assert not told.of("job_started")
