"""What people are told of a run that failed, by what real Snakemake says of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runner.jobs import JobSpec, Progress
from runner.tasks import MissingInput
from tests.support import engines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.ports import Engine

pytestmark = engines.NEEDS_SNAKEMAKE

RULE = 'rule a:\n    output: "a.txt"\n    shell: "touch {output}"\n'
SCHEMA = """
$schema: "https://json-schema.org/draft/2020-12/schema"
type: object
properties: {samples: {type: integer}}
required: [samples]
"""

# The Snakefile, what else there is, and the lines that must be told, the first of them first.
BEFORE_ANY_RULE: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "a keyword without its colon": (
        'rule a:\n    output: "a.txt"\n    shell "true"\n',
        {},
        ['SyntaxError in file "Snakefile", line ', "Colon expected after keyword shell."],
    ),
    "an error that Snakemake cannot tell of": (
        'rule all:\n    input "a.txt"\n',
        {},
        ["SyntaxError: Colon expected after keyword input.", '"Snakefile", line 2'],
    ),
    "a keyword that there is not": (
        'rule all:\n    inputs: "a.txt"\n',
        {},
        ["SyntaxError: Unexpected keyword inputs in rule definition", '"Snakefile", line 2'],
    ),
    "a bracket that is not closed": (
        f'samples = ["a", "b"\n{RULE}',
        {},
        ['TokenError in file "Snakefile", line 5:', "EOF in multi-line statement"],
    ),
    "a bracket that is not closed, in another file": (
        'include: "rules/a.smk"\n',
        {"files": {"rules/a.smk": "samples = [\n"}},
        ['TokenError in file "rules/a.smk", line 2:', "EOF in multi-line statement"],
    ),
    "a line that is indented by too little": (
        'rule a:\n    output: "a.txt"\n  shell: "true"\n',
        {},
        ['IndentationError in file "Snakefile", line 3:', "unindent does not match any outer indentation"],
    ),
    "a name that there is not": (
        f"{RULE}samples = undefined + 1\n",
        {},
        ['NameError in file "Snakefile", line 4:', "name 'undefined' is not defined"],
    ),
    "a parameter that is missing": (
        'rule a:\n    input: config["samples"]\n    output: "a.txt"\n',
        {},
        ['KeyError in file "Snakefile", line 2:', "'samples'"],
    ),
    "input that nothing makes": (
        'rule a:\n    input: "in/{s}.txt", "in/b.txt"\n    output: "out/{s}.txt"\n',
        {"targets": ("out/x.txt",)},
        ["MissingInputException in rule a", "wildcards: s=x", "        in/b.txt", "        in/x.txt"],
    ),
    "a target that nothing makes": (
        RULE,
        {"targets": ("nowhere.txt",)},
        ["MissingRuleException:", "No rule to produce nowhere.txt"],
    ),
    "parameters that the schema refuses": (
        'from snakemake.utils import validate\nvalidate(config, "schema.yaml")\n' + RULE,
        {"files": {"schema.yaml": SCHEMA}},
        ['WorkflowError in file "Snakefile", line 2:', "'samples' is a required property"],
    ),
    "a file of parameters that is none": (
        'configfile: "bad.yaml"\n' + RULE,
        {"files": {"bad.yaml": "a: [1, 2\nb: }\n"}},
        ['WorkflowError in file "Snakefile", line 1:', "Config file is not valid JSON or YAML"],
    ),
    "a locked directory": (
        RULE,
        {"files": {".snakemake/locks/0.output.lock": "a.txt\n"}},
        ["LockException:", "Directory cannot be locked"],
    ),
    "two rules for one file": (
        'rule a:\n    output: "{x}.txt"\nrule b:\n    output: "{y}.txt"\n',
        {"targets": ("z.txt",)},
        ["AmbiguousRuleException:", "are ambiguous for the file z.txt."],
    ),
    "rules in a circle": (
        'rule a:\n    input: "b"\n    output: "a"\nrule b:\n    input: "a"\n    output: "b"\n',
        {},
        ["CyclicGraphException in rule", "Cyclic dependency on rule"],
    ),
    "a module that is not there": (
        'module other:\n    snakefile: "nowhere.smk"\nuse rule * from other\n',
        {},
        ['FileNotFoundError in file "Snakefile", line 3:', "No such file or directory: 'nowhere.smk'"],
    ),
    "an order of rules that there are not": (
        f"ruleorder: a > nosuch\n{RULE}",
        {},
        ["UnknownRuleException:", "There is no rule named nosuch."],
    ),
    "a function that raises": (
        'def f(w):\n    raise ValueError("no sheet")\nrule a:\n    input: f\n    output: "a.txt"\n',
        {},
        ["InputFunctionException in rule a", "ValueError: no sheet"],
    ),
    "an exit with a text": ('import sys\nsys.exit("no samples given")\n', {}, ["no samples given"]),
}

SAMPLES = """
rule all:
    input: "1.txt", "2.txt", "3.txt"
rule a:
    output: "{s}.txt"
    log: "logs/{s}.log"
    priority: lambda wildcards: 10 - int(wildcards.s)
    shell: "echo s{wildcards.s} has no reads > {log}; test {wildcards.s} = 2 && touch {output}"
"""
OF_RULES: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "the first of several": (
        SAMPLES,
        {"options": {"keep_going": True}},
        [
            "Rule a failed (s=1): its command exited with 1",
            "Its command:",
            "    echo s1 has no reads > logs/1.log; test 1 = 2 && touch 1.txt",
            "The end of logs/1.log:",
            "s1 has no reads",
            "And 1 more task failed.",
        ],
    ),
    "a command that says why": (
        'rule a:\n    output: "a.txt"\n    shell: "echo no space left >&2; exit 7"\n',
        {},
        [
            "Rule a failed: its command exited with 7",
            "Its command:",
            "    echo no space left >&2; exit 7",
            "The end of what it wrote:",
            "no space left",
        ],
    ),
    "a command that is killed": (
        'rule a:\n    output: "a.txt"\n    shell: "kill -9 $$"\n',
        {},
        ["Rule a failed: its command was ended by SIGKILL", "Its command:", "    kill -9 $$"],
    ),
    "output that is not as promised": (
        'rule a:\n    output: ensure("a.txt", non_empty=True)\n    shell: "touch {output}"\n',
        {},
        [
            (
                "Rule a failed: Detected unexpected empty output files. Something went wrong in the rule "
                "without an error being reported:"
            ),
            "a.txt (rule a, line 1, Snakefile)",
            "Its command:",
            "    touch a.txt",
        ],
    ),
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return engines.make_engine("snakemake", tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def driver(engine: Engine) -> Iterator[engines.WarmDriver]:
    with engines.warm_driver(engine) as driver:
        yield driver


@pytest.fixture
def bench(engine: Engine, driver: engines.WarmDriver, tmp_path: Path) -> Iterator[engines.Bench]:
    with engines.Bench(engine, tmp_path / "data", driver) as bench:
        yield bench


def run(bench: engines.Bench, folder: Path, snakefile: str, how: dict[str, Any]) -> engines.Finished:
    folder.mkdir()
    (folder / "Snakefile").write_text(snakefile)
    spec = JobSpec(targets=how.get("targets", ()), options=how.get("options", {}))
    command = bench.command(engines.workflow_of(folder), spec)
    for name, content in how.get("files", {}).items():
        (bench.work / name).parent.mkdir(parents=True, exist_ok=True)
        (bench.work / name).write_text(content)
    return bench.start_command(command, command.argv).wait()


@pytest.mark.parametrize("case", BEFORE_ANY_RULE)
def test_an_error_before_any_rule_is_told_in_its_own_words(
    bench: engines.Bench, tmp_path: Path, case: str
) -> None:
    snakefile, how, expected = BEFORE_ANY_RULE[case]
    finished = run(bench, tmp_path / "workflow", snakefile, how)
    assert finished.exit_code == 1
    told = finished.explanation or ""
    assert [text for text in expected if text not in told] == []
    assert "logger_plugin" not in told
    assert len(told.splitlines()) <= 26
    for noise in ("site-packages", str(tmp_path), "Building DAG", "At least one job", "\nNone"):
        assert noise not in told
    if case == "input that nothing makes":
        assert finished.state.missing_input == (MissingInput("a", ("in/b.txt", "in/x.txt")),)


def test_a_run_that_was_to_do_less_has_done_it_all(bench: engines.Bench, tmp_path: Path) -> None:
    chain = 'rule b:\n    input: "a.txt"\n    output: "b.txt"\n    shell: "cp {input} {output}"\n' + RULE
    finished = run(bench, tmp_path / "workflow", chain, {"options": {"until": ["a"]}})
    assert finished.exit_code == 0, finished.log.decode()
    assert finished.state.progress == Progress(1, 1)
    assert bench.engine.remark(JobSpec(), finished.state, finished.log) is None


@pytest.mark.parametrize("case", OF_RULES)
def test_a_failed_rule_is_told_with_its_command_and_what_it_said(
    bench: engines.Bench, tmp_path: Path, case: str
) -> None:
    snakefile, how, expected = OF_RULES[case]
    finished = run(bench, tmp_path / "workflow", snakefile, how)
    assert finished.exit_code == 1
    assert (finished.explanation or "").splitlines() == expected


@pytest.mark.parametrize(
    ("snakefile", "remark"),
    [
        ("import sys\nsys.exit(0)\n", "The workflow ended before any rule ran"),
        ('rule a:\n    output: "Snakefile"\n', None),
        (RULE, None),
    ],
)
def test_a_run_that_ends_well_and_did_nothing_is_remarked_on(
    bench: engines.Bench, tmp_path: Path, snakefile: str, remark: str | None
) -> None:
    finished = run(bench, tmp_path / "workflow", snakefile, {})
    assert finished.exit_code == 0
    found = bench.engine.remark(JobSpec(), finished.state, finished.log)
    assert (found or "").startswith(remark or "")
    assert (found is None) == (remark is None)
