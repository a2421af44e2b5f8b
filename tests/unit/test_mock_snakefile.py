"""What the stand-in reads from a Snakefile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mock_snakemake.errors import WorkflowError
from mock_snakemake.snakefile import needed_for, read_rules
from tests.support.engines import BUNDLED

if TYPE_CHECKING:
    from pathlib import Path

SNAKEFILE = """
include: "rules/more.smk"
configfile: "config.yaml"

rule all:  # the default target
    input:
        rules.join.output,
        "plain.txt",

rule plain:
    output: temp("plain.txt")
    log: "logs/plain.log"
    shell: "echo > {output}"

checkpoint per_sample:
    input: "raw/{sample}.txt"
    output:
        table="tables/{sample}.tsv",
        unknown=expand("x/{y}", y=[1]),
        made=lambda wildcards: "z",
        outside="/etc/passwd",
        above="../x.txt",
    run:
        print("rule: not_a_rule")

if True:
    rule inner:
        output: "inner.txt"

use rule plain as copy with:
    output: "copy.txt"
"""


@pytest.fixture
def snakefile(tmp_path: Path) -> str:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/more.smk").write_text(
        'rule join:\n    input: "tables/a.tsv"\n    output: "joined.txt"\n'
    )
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    return str(tmp_path / "Snakefile")


def test_rules_are_read_in_order_with_included_ones(snakefile: str) -> None:
    names = [rule.name for rule in read_rules(snakefile)]
    assert names == ["join", "all", "plain", "per_sample", "inner", "copy"]


def test_only_plain_files_below_the_directory_are_made(snakefile: str) -> None:
    made = {rule.name: rule.plain_outputs() for rule in read_rules(snakefile)}
    assert made["plain"] == ["plain.txt"]
    assert made["per_sample"] == []
    assert made["inner"] == ["inner.txt"]
    assert made["copy"] == ["copy.txt"]


def test_logs_are_read(snakefile: str) -> None:
    assert {rule.name: rule.plain_logs() for rule in read_rules(snakefile)}["plain"] == ["logs/plain.log"]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("joined.txt", ["per_sample", "join"]),
        ("tables/other.tsv", ["per_sample"]),
        ("all", ["per_sample", "join", "plain", "all"]),
        ("inner.txt", ["inner"]),
    ],
)
def test_a_target_needs_the_rules_that_lead_to_it(snakefile: str, target: str, expected: list[str]) -> None:
    assert [rule.name for rule in needed_for(read_rules(snakefile), [target])] == expected


def test_a_target_that_no_rule_makes_is_an_error(snakefile: str) -> None:
    with pytest.raises(WorkflowError, match=r"No rule to produce nowhere\.txt"):
        needed_for(read_rules(snakefile), ["nowhere.txt"])


def test_a_circle_of_rules_ends(tmp_path: Path) -> None:
    path = tmp_path / "Snakefile"
    path.write_text('rule a:\n    input: "b"\n    output: "a"\nrule b:\n    input: "a"\n    output: "b"\n')
    assert sorted(rule.name for rule in needed_for(read_rules(str(path)), ["a"])) == ["a", "b"]


def test_a_snakefile_that_includes_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(
        'include: "Snakefile"\ninclude: "Snakefile"\nrule a:\n    shell: "true"\n'
    )
    assert [rule.name for rule in read_rules(str(tmp_path / "Snakefile"))] == ["a"]


def test_a_missing_snakefile_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WorkflowError, match="not found"):
        read_rules(str(tmp_path / "Snakefile"))


@pytest.mark.parametrize(
    ("workflow", "expected"),
    [
        ("demo", ["numbers", "shuffle", "checksum", "report", "all"]),
        ("wordcount", ["clean", "count", "summarise", "all"]),
        ("failing", ["prepare", "check", "summary", "all"]),
    ],
)
def test_the_bundled_workflows_are_understood(workflow: str, expected: list[str]) -> None:
    rules = read_rules(str(BUNDLED / workflow / "Snakefile"))
    assert [rule.name for rule in needed_for(rules, [])] == expected
