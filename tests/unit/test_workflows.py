"""The registry reads workflows from folders, and lets nothing through that their schemas refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from runner.errors import WorkflowNotFound
from runner.workflows import FolderRegistry
from tests.support.engines import BUNDLED

SNAKEFILE = 'rule a:\n    output: "a.txt"\n    shell: "touch {output}"\n'


class Root:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.registry = FolderRegistry(path)

    def add(
        self, name: str, *, schema: Any = None, snakefile: str = SNAKEFILE, at: str = "Snakefile"
    ) -> Path:
        folder = self.path / name
        (folder / at).parent.mkdir(parents=True, exist_ok=True)
        (folder / at).write_text(snakefile)
        if schema is not None:
            text = schema if isinstance(schema, str) else json.dumps(schema)
            (folder / "parameters.schema.json").write_text(text)
        return folder

    def errors(self, name: str, **parameters: Any) -> list[tuple[str, str]]:
        found = self.registry.validate(self.registry.get(name), parameters)
        return [(error.pointer, error.detail) for error in found]


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "workflows")


def test_a_missing_folder_of_workflows_registers_none(root: Root) -> None:
    assert root.registry.names() == ()


def test_folders_with_a_snakefile_are_workflows(root: Root) -> None:
    root.add("one")
    root.add("two", at="workflow/Snakefile")
    (root.path / "empty").mkdir()
    (root.path / "file").write_text("")
    for name in (".hidden", "-option", "with space", "ünicode", "dot.ted"):
        root.add(name)
    assert root.registry.names() == ("one", "two")
    assert root.registry.get("one").snakefile == "Snakefile"
    assert root.registry.get("two").snakefile == "workflow/Snakefile"


@pytest.mark.parametrize("name", ["nowhere", "..", ".", "", "one/../one", "-x", "a\0", "one\n", "dot.ted"])
def test_an_unknown_name_is_told_with_the_known_ones(root: Root, name: str) -> None:
    root.add("one")
    root.add("dot.ted")
    with pytest.raises(WorkflowNotFound, match="known: one"):
        root.registry.get(name)


def test_names_that_callers_make_up_are_not_remembered(root: Root) -> None:
    root.add("one")
    for number in range(10):
        with pytest.raises(WorkflowNotFound):
            root.registry.get(f"made-up-{number}")
    assert list(root.registry._entries) == ["one"]


def test_a_new_a_changed_and_a_removed_folder_count_at_once(root: Root) -> None:
    root.add("one", schema={"properties": {"n": {"type": "integer"}}})
    assert root.errors("one", n="x") != []
    root.add("two")
    assert root.registry.names() == ("one", "two")
    root.add("one", schema={"properties": {"n": {"type": "string"}}})
    assert root.errors("one", n="x") == []
    (root.path / "two/Snakefile").unlink()
    assert root.registry.names() == ("one",)


def test_without_a_schema_every_parameter_passes(root: Root) -> None:
    root.add("one")
    assert root.registry.get("one").parameters_schema is None
    assert root.errors("one", anything={"at": ["all"]}) == []


def test_what_a_schema_refuses_is_told_with_escaped_pointers(root: Root) -> None:
    schema = {
        "properties": {
            "n": {"type": "integer"},
            "deep": {"properties": {"a/b~c": {"items": {"type": "string"}}}},
        },
        "required": ["must"],
        "additionalProperties": False,
    }
    root.add("one", schema=schema)
    found = root.errors("one", n="7", deep={"a/b~c": ["x", 1]}, extra=1)
    assert sorted(pointer for pointer, _ in found) == [
        *("/parameters", "/parameters/deep/a~1b~0c/1", "/parameters/extra", "/parameters/n")
    ]
    details = " ".join(detail for _, detail in found)
    assert "'must' is a required property" in details
    assert dict(found)["/parameters/extra"] == "is unknown; known: n, deep"


def test_the_number_and_the_length_of_errors_are_bounded(root: Root) -> None:
    root.add("one", schema={"properties": {"many": {"items": {"type": "integer"}}}})
    found = root.errors("one", many=["x" * 10_000] * 1000)
    assert len(found) == 20
    assert all(len(detail) <= 300 for _, detail in found)


def test_parameters_nested_without_end_are_refused(root: Root) -> None:
    root.add(
        "one",
        schema={
            "properties": {"deep": {"$ref": "#/$defs/list"}},
            "$defs": {"list": {"items": {"$ref": "#/$defs/list"}}},
        },
    )
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert root.errors("one", deep=deep) == [("/parameters", "is nested too deeply")]
    while deep:  # taken apart by hand: the interpreter would recurse
        deep = deep[0]


@pytest.mark.parametrize(
    "schema",
    [
        "{",
        "[]",
        '{"type": "nonsense"}',
        '{"properties": {"a": {"pattern": "("}}}',
        '{"$ref": "#/$defs/nowhere"}',
        '{"$ref": "https://example.org/schema.json"}',
        '{"$ref": "#"}',
        "[" * 100_000,
    ],
)
def test_a_workflow_with_a_broken_schema_is_left_out_and_logged_once(root: Root, schema: str) -> None:
    root.add("good")
    root.add("broken", schema=schema)
    with capture_logs() as lines:
        assert root.registry.names() == ("good",)
        assert root.registry.names() == ("good",)
    assert [(line["event"], line["workflow"]) for line in lines] == [("workflow.left_out", "broken")]


def test_a_schema_without_end_is_not_read(root: Root) -> None:
    root.add("large", schema='{"x": "' + "x" * 2**20 + '"}')
    with capture_logs() as lines:
        assert root.registry.names() == ()
    assert lines[0]["reason"] == "it is larger than 1048576 bytes"


def test_the_end_of_a_pattern_is_the_end_of_the_text(root: Root) -> None:
    root.add(
        "one", schema={"properties": {"a": {"pattern": "^[a-z$]+$"}}, "patternProperties": {"^p$": False}}
    )
    assert root.errors("one", a="ab$") == []
    assert root.errors("one", a="ab\n") != []
    assert root.errors("one", **{"p\n": 1}) == []
    assert root.errors("one", p=1) != []


def test_values_in_a_schema_are_no_patterns(root: Root) -> None:
    root.add("one", schema={"properties": {"pattern": {"const": {"pattern": "x$"}}}})
    assert root.errors("one", pattern={"pattern": "x$"}) == []


def test_the_description_is_the_readmes_first_paragraph(root: Root) -> None:
    folder = root.add(
        "one", snakefile="#!/usr/bin/env snakemake\n# From the comment,\n# two lines.\n\n# not this\n"
    )
    assert root.registry.get("one").description == "From the comment, two lines."
    (folder / "README.md").write_text("# Title\n\nFrom the *README*,\ntwo lines.\n\nNot this.\n")
    assert root.registry.get("one").description == "From the *README*, two lines."


def test_a_workflow_without_words_has_an_empty_description(root: Root) -> None:
    root.add("one")
    assert root.registry.get("one").description == ""


@pytest.mark.parametrize("name", ["demo", "wordcount", "failing"])
def test_the_bundled_workflows_are_complete(name: str) -> None:
    registry = FolderRegistry(BUNDLED)
    workflow = registry.get(name)
    assert workflow.description
    assert workflow.parameters_schema is not None
    properties = workflow.parameters_schema["properties"]
    defaults = {key: value["default"] for key, value in properties.items()}
    assert registry.validate(workflow, defaults) == []
    assert json.loads((workflow.folder / "config.json").read_text()) == defaults
    assert registry.validate(workflow, {"surprise": 1}) != []
