"""Snakemake's logger plugin: bounded, whatever it is given, and no matter to the run it watches."""

from __future__ import annotations

import os
import resource
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator

from tests.support import logger_plugin
from tests.support.logger_plugin import Task, handler, job_info, record, told

if TYPE_CHECKING:
    from pathlib import Path

MIB = 2**20
VALID = Draft202012Validator(logger_plugin.SCHEMA)


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no words for it")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def finished(number: int) -> Any:
    return record("job_finished", job_id=number)


class TestTheFile:
    @pytest.mark.parametrize("place", ["fifo", "read fifo", "folder", "link", "nowhere", "device", "none"])
    def test_anything_but_a_plain_file_is_left_alone(self, tmp_path: Path, path: Path, place: str) -> None:
        other = tmp_path / "other"
        other.write_text("")
        where: Path | str | None = path
        reader = None
        if place.endswith("fifo"):
            os.mkfifo(path)
            reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if place == "read fifo" else None
        elif place == "folder":
            path.mkdir()
        elif place == "link":
            path.symlink_to(other)
        else:
            others: dict[str, Path | str | None] = {"nowhere": tmp_path / "no/x", "device": "/dev/full"}
            where = others.get(place)
        plugin = handler(where)
        plugin.emit(finished(1))
        plugin.close()
        assert other.read_text() == ""
        if reader is not None:
            assert os.read(reader, 1) == b""
            os.close(reader)

    def test_a_full_disk_costs_what_did_not_fit(self, path: Path) -> None:
        plugin = handler(path)
        plugin.emit(finished(1))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, hard))
        try:
            for number in (2, 3, 4):
                plugin.emit(finished(number))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        plugin.emit(finished(5))
        plugin.close()
        first, torn, last = path.read_bytes().splitlines()
        assert b'"jobid":1' in first
        assert len(torn) == 10
        assert b'"jobid":5' in last

    def test_a_line_that_an_earlier_writer_has_not_ended_is_ended(self, path: Path) -> None:
        path.write_bytes(b'{"v":2,"eve')
        plugin = handler(path)
        plugin.emit(finished(1))
        assert path.read_bytes().splitlines()[1].endswith(b'"jobid":1}')

    def test_a_file_of_the_workflow_that_took_its_descriptor_is_not_written_to(
        self, tmp_path: Path, path: Path
    ) -> None:
        plugin = handler(path)
        number = plugin._file._fd
        os.close(number)
        theirs = os.open(tmp_path / "theirs", os.O_WRONLY | os.O_CREAT)
        if theirs != number:
            os.dup2(theirs, number)
        plugin.emit(finished(1))
        plugin.close()
        assert (tmp_path / "theirs").stat().st_size == 0
        os.fstat(number)  # and still open
        for fd in {theirs, number}:
            os.close(fd)

    def test_lines_do_not_pile_up_before_they_are_written(self, path: Path) -> None:
        file = logger_plugin.part("events_file").EventsFile(str(path))
        for _ in range(300):
            file.append(b"x" * 1023)
        assert file.used_bytes - path.stat().st_size < 50 * 2**10
        file.flush()
        assert path.stat().st_size == file.used_bytes == 300 * 2**10

    @pytest.mark.parametrize(
        ("used_mib", "expected"),
        [
            (31, ["tasks_planned", "job_info", "progress", "job_finished", "job_error", "error"]),
            (33, ["brief job_info", "job_finished", "job_error", "error"]),
            (57, ["job_finished", "job_error", "error"]),
            (62.5, ["job_error", "error"]),
            (63.8, ["error"]),
            (64, []),
        ],
    )
    def test_details_give_way_to_errors_as_it_fills_up(
        self, path: Path, used_mib: float, expected: list[str]
    ) -> None:
        limit = int(used_mib * MIB)
        with open(path, "wb") as file:
            file.truncate(limit - 2)
            file.seek(limit - 1)
            file.write(b"\n")
        plugin = handler(path)
        if used_mib == 31:
            limit = 15 * MIB
            plugin._file.used_bytes = limit
        plugin.emit(record("tasks_planned", snakeline={"tasks": [[1, "align", {}]]}))
        plugin._file.used_bytes = int(used_mib * MIB)
        plugin.emit(job_info(1))
        plugin.emit(record("progress", done=17, total=20_000))
        plugin.emit(finished(2))
        plugin.emit(record("job_error", jobid=1, rule_name="align"))
        plugin.emit(record("error", msg="WorkflowError:\nno room"))
        with open(path, "rb") as file:
            file.seek(int(used_mib * MIB))
            lines = file.read().splitlines()
        names = [name for line in lines for name in NAMES if f'"event":"{name}"'.encode() in line]
        brief = [("brief " if b"job_info" in line and b"threads" not in line else "") for line in lines]
        assert [mark + name for mark, name in zip(brief, names, strict=True)] == expected
        assert path.stat().st_size <= 64 * MIB


NAMES = ("tasks_planned", "job_info", "progress", "job_finished", "job_error", "error")


class TestEvents:
    @pytest.fixture
    def plugin(self, path: Path) -> Any:
        return handler(path)

    @pytest.mark.parametrize(
        "odd",
        [
            {"shellcmd": Unprintable()},
            {"resources": {"a": float("nan"), "b": 10**5000, "c": {1, 2}, "d": True, "e": Unprintable}},
            {"wildcards": {"x": "\udcff\0\n\u2028", "y": 3}},
            {"input": None, "log": "one.log", "reason": None, "threads": "many", "priority": "highest"},
            {"input": [f"{'x' * 100}{n}" for n in range(5000)], "shellcmd": "ä" * 100_000},
            {"output": ["x" * MIB], "resources": {f"r{n}": "\x01" * 4096 for n in range(1000)}},
            {"input": 7, "wildcards": 7},
        ],
    )
    def test_a_value_that_no_reader_could_take_costs_no_more_than_itself(
        self, plugin: Any, path: Path, odd: dict[str, Any]
    ) -> None:
        plugin.emit(job_info(7, **odd))
        plugin.emit(finished(7))
        info, end = told(path)
        assert (info["jobid"], info["rule"], end["jobid"]) == (7, "align", 7)
        for line in path.read_bytes().splitlines():
            assert len(line) < 512 * 2**10
        VALID.validate(info)

    def test_a_graph_that_is_too_wide_for_a_line_loses_its_edges(self, plugin: Any, path: Path) -> None:
        rules = [{"rule": f"rule{number:04}", "needed": 1, "up_to_date": 0} for number in range(2000)]
        edges = [[f"rule{number:04}", f"rule{number // 10:04}"] for number in range(1, 20_000)]
        plugin.emit(record("rule_graph", snakeline={"rules": rules, "edges": edges}))
        (event,) = told(path)
        assert (event["rules"], "edges" in event) == (rules, False)

    def test_paths_that_are_not_told_are_counted(self, plugin: Any, path: Path) -> None:
        plugin.emit(job_info(1, input=[f"a{n}" for n in range(1200)], output=["b" * 30_000] * 2))
        (info,) = told(path)
        assert (len(info["input"]), len(info["output"])) == (1000, 1)
        assert info["left_out"] == {"input": 200, "output": 1}

    @pytest.mark.parametrize(
        ("shown", "expected"),
        [
            ("a.txt (pipe)", "a.txt"),
            ("s3://b/a.txt (send to storage)", "s3://b/a.txt"),
            ("a.txt (access: random, in storage)", "a.txt"),
            ("a (1).txt", "a (1).txt"),
            ("a ()", "a ()"),
        ],
    )
    def test_a_path_is_told_without_what_snakemake_says_of_it(
        self, plugin: Any, path: Path, shown: str, expected: str
    ) -> None:
        plugin.emit(job_info(1, output=[shown]))
        assert told(path)[0]["output"] == [expected]

    @pytest.mark.parametrize(
        ("message", "expected"),
        [
            ('SyntaxError in file "/w/Snakefile", line 5:\nx', {"file": "/w/Snakefile", "line": 5}),
            (
                'MissingInputException in rule b in file "/w/S", line 3:\nx',
                {"rule": "b", "file": "/w/S", "line": 3},
            ),
            ('RuleException:\nNameError in file "/w/S", line 9:\nx', {"file": "/w/S", "line": 9}),
            ('WorkflowError:\nsays in file "/w/S", line 9: x', {}),
            ("", {}),
        ],
    )
    def test_an_error_names_its_rule_and_its_place(
        self, plugin: Any, path: Path, message: str, expected: dict[str, Any]
    ) -> None:
        plugin.emit(record("error", msg=message))
        (event,) = told(path)
        assert {name: event.get(name) for name in ("rule", "file", "line") if name in event} == expected

    def test_ten_thousand_tasks_are_told_whole(self, plugin: Any, path: Path) -> None:
        for number in range(100):
            plugin.emit(record("job_started", jobs=[number]))
            plugin.emit(job_info(number))
            plugin.emit(finished(number))
            plugin.emit(record("progress", done=number, total=100))
        assert path.stat().st_size * 100 < 32 * MIB
        for event in told(path):
            VALID.validate(event)

    def test_what_a_cluster_says_of_a_failed_task_is_told_as_the_workflow_would(
        self, plugin: Any, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(path.parent)
        words = "SLURM-job '7' failed, SLURM status is: 'TIMEOUT'."
        advice = "For further error details see the cluster/cloud log and the log files of the rule(s)."
        logs = ["logs/align.log", f"{path.parent}/.snakemake/slurm_logs/7.log", "/var/log/other"]
        plugin.emit(job_info(1))
        plugin.emit(record("job_error", jobid=1, rule_name="align", rule_msg=words + advice, log=logs))
        error = told(path)[-1]
        assert error["message"] == words
        assert error["log"] == ["logs/align.log", ".snakemake/slurm_logs/7.log", "/var/log/other"]

    def test_an_error_is_told_once_for_each_try(self, plugin: Any, path: Path) -> None:
        error = record("job_error", jobid=1, rule_name="align")
        for _ in range(2):
            plugin.emit(job_info(1))
            plugin.emit(error)
            plugin.emit(error)  # as older versions do at the end of a run
        assert [event["event"] for event in told(path)] == ["job_info", "job_error"] * 2

    def test_what_was_gathered_is_told_once_and_in_order_also_at_the_end(
        self, plugin: Any, path: Path
    ) -> None:
        records = [job_info(1), record("progress", done=1, total=9), record("progress", done=2, total=9)]
        call, *_ = [each for each in (*records, finished(1)) if plugin._gathering.take(each)]
        plugin.emit(finished(0))  # it was on its way before
        plugin.emit(call)
        assert plugin._gathering.take(finished(2))
        plugin._gathering._handed_out = 10_000  # so much that it would wait for more
        plugin._gathering._pause = None
        plugin.close()
        events = [(event["event"], event.get("jobid", event.get("done"))) for event in told(path)]
        assert sorted(events[:3]) == [("job_finished", 0), ("job_finished", 1), ("job_info", 1)]
        assert events[3:] == [("progress", 2), ("job_finished", 2)]

    def test_who_was_ended_for_another_of_the_group_is_no_cause(self, plugin: Any, path: Path) -> None:
        for numbers in ((1, 2), (3, 4)):  # two groups of one name
            plugin.emit(record("group_info", group_id="pair", jobs=[Task(number) for number in numbers]))
        plugin._failures.note(Task(2), subprocess.CalledProcessError(5, "x"))
        for number in (1, 2, 3):
            plugin.emit(record("job_error", jobid=number, rule_name="align"))
        errors = [event for event in told(path) if event["event"] == "job_error"]
        assert [event.get("knock_on") for event in errors] == [True, None, None]
        assert [event["jobids"] for event in told(path) if event["event"] == "job_started"] == [
            [1, 2],
            [3, 4],
        ]
