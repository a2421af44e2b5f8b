"""`snakeline workflows`: what is wrong with a workflow is said before a job finds out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from runner import checkup
from runner.bootstrap import registry
from runner.engines.choice import engine_of
from runner.workflow_checks import check_workflow
from tests.support.command import snakeline
from tests.support.engines import snakemake_command
from tests.support.runners import settings_for

if TYPE_CHECKING:
    from pathlib import Path

SNAKEFILE = 'rule a:\n    output: "a.txt"\n    shell: "touch {output}"\n'
MISSING = 'rule a:\n    input: "{where}/b.txt"\n    output: "a.txt"\n    shell: "cp {{input}} {{output}}"\n'


class Root:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.workflows = path / "workflows"
        self.workflows.mkdir()

    def add(self, name: str, snakefile: str = SNAKEFILE, **files: Any) -> None:
        folder = self.workflows / name
        folder.mkdir()
        if snakefile:
            (folder / "Snakefile").write_text(snakefile)
        for file, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / file.replace("_", ".")).write_text(text)

    def findings(self, name: str, **settings: Any) -> list[tuple[str, str, str]]:
        given = settings_for(self.path / "data", workflows_dir=self.workflows, **settings)
        checked = check_workflow(name, registry(given), engine_of(given), given)
        assert checked.ok is not any(finding.level == "error" for finding in checked.findings)
        return [(finding.level, finding.about, finding.text) for finding in checked.findings]


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


@pytest.mark.parametrize(
    ("schema", "level", "told"),
    [
        ({"properties": {"n": {"type": "integer", "default": "x"}}}, "error", "/parameters/n"),
        ({"properties": {"n": {"type": "integer"}}, "examples": [{"n": "x"}]}, "error", "/parameters/n"),
        ({"examples": [1]}, "error", "no object"),
        ({"required": ["n"]}, "note", "not tried"),
        ({"properties": {"-n": {"default": 1}}}, "error", "the engine refuses"),
        ("[", "error", "not JSON"),
    ],
)
def test_a_schema_that_does_not_fit_its_own_defaults_is_told(
    root: Root, schema: Any, level: str, told: str
) -> None:
    root.add("one", README_md="words", parameters_schema_json=schema)
    found = root.findings("one")
    assert [each[:2] for each in found if each[1] != "lint"] == [(level, "parameters.schema.json")]
    assert told in found[0][2]


def test_what_a_workflow_lacks_is_told(root: Root) -> None:
    root.add("bare")
    root.add("empty", snakefile="")
    root.add("odd", snakeline_toml="[attachments]\nmax_mb = -1\n")
    assert [each[:2] for each in root.findings("bare")] == [
        ("warning", "README.md"),
        ("warning", "parameters.schema.json"),
        ("note", "lint"),
    ]
    assert [each[:2] for each in root.findings("empty")] == [("error", "Snakefile")]
    assert root.findings("odd") == [
        ("error", "snakeline.toml", "attachments: `max_mb` must be a number above 0")
    ]


def test_the_check_of_everything_names_workflows_that_are_left_out(root: Root) -> None:
    root.add("good")
    root.add("bad", parameters_schema_json="[")
    root.add("shared", snakefile="")
    found = checkup._check_workflows(settings_for(root.path / "data", workflows_dir=root.workflows))
    assert (found.ok, found.detail) == (True, "good; left out: bad (snakeline workflows check)")


@pytest.mark.snakemake
@pytest.mark.skipif(snakemake_command() is None, reason="real Snakemake is missing: make snakemake-env")
def test_real_snakemake_lints_and_plans_with_the_example_and_leaves_the_folder_alone(root: Root) -> None:
    schema = {
        "properties": {"where": {"type": "string"}},
        "required": ["where"],
        "examples": [{"where": "data"}],
    }
    snakefile = MISSING.format(where="data").replace('"data/b.txt"', 'config["where"] + "/b.txt"')
    root.add("one", snakefile, README_md="words", parameters_schema_json=schema)
    found = root.findings("one", engine="snakemake", snakemake=snakemake_command())
    assert ("warning", "lint", "rule a (line 1): No log directive defined") in found
    errors = [text for level, about, text in found if (level, about) == ("error", "dry run")]
    assert len(errors) == 1
    assert "data/b.txt" in errors[0]
    assert str(root.path) not in errors[0]
    assert sorted(path.name for path in (root.workflows / "one").iterdir()) == [
        *("README.md", "Snakefile", "parameters.schema.json")
    ]


def test_the_command_lists_and_checks_and_says_by_its_exit_code_what_came_of_it(root: Root) -> None:
    root.add("good", README_md="Some words.", parameters_schema_json={})
    root.add("bad", parameters_schema_json="[")
    root.add("shared", snakefile="")
    (root.workflows / "LICENSE").write_text("no workflow")
    (root.workflows / "far.git.toml").write_text(f'repository = "/nowhere"\ncommit = "{"a" * 40}"\n')

    def run(*arguments: str) -> tuple[int, str]:
        done = snakeline("workflows", *arguments, cwd=root.path, WORKFLOWS_DIR=str(root.workflows))
        return done.returncode, done.stdout + done.stderr

    code, text = run("check", "--json")
    document = json.loads(text[text.index("{") :])
    assert (code, document["ok"]) == (1, False)
    assert {each["name"]: each["ok"] for each in document["items"]} == {
        "good": True,
        "bad": False,
        "far": False,
        "shared": True,
    }
    code, text = run("fetch")
    assert (code, text.count("\n")) == (1, 1)
    assert text.startswith("far aaaaaaaaaaaa: git fetch: ")
