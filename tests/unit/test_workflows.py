"""The registry reads workflows from folders, and lets nothing through that their schemas refuse."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from runner.errors import WorkflowNotFound
from runner.ports import AttachmentRules
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
        rules = self.registry.get(name).rules
        found = [] if rules is None else rules.errors(parameters)
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


def test_a_name_too_long_for_a_file_is_nothing_to_alarm_anybody_with(root: Root) -> None:
    root.add("y" * 200)
    with capture_logs() as lines, pytest.raises(WorkflowNotFound):
        root.registry.get("x" * 300)
    assert lines == []
    assert root.registry.names() == ("y" * 200,)


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


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ({"type": "integer"}, "hunter2"),
        ({"enum": ["a", "b"]}, "hunter2"),
        ({"pattern": "^a$"}, "hunter2"),
        ({"maxLength": 1}, "hunter2"),
        ({"items": {"type": "integer"}}, ["hunter2"]),
        ({"maxItems": 0}, ["hunter2"]),
        ({"uniqueItems": True}, ["hunter2", "hunter2"]),
        ({"contains": {"type": "integer"}}, ["hunter2"]),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, {"password": "hunter2"}),
        ({"oneOf": [{"type": "string"}, {"minLength": 1}]}, "hunter2"),
        ({"not": {"type": "string"}}, "hunter2"),
        ({"const": 1}, "hunter2"),
    ],
)
def test_a_value_is_never_repeated_since_it_may_be_a_secret(
    root: Root, rule: dict[str, Any], value: object
) -> None:
    root.add("one", schema={"properties": {"n": rule}})
    found = root.errors("one", n=value)
    assert found
    assert "hunter2" not in str(found)


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
        '{"properties": {"a": {"pattern": "a{99999999999999999999}"}}}',
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


def test_defaults_are_filled_in_where_nothing_is_named_at_any_depth(root: Root) -> None:
    schema = {
        "properties": {
            "n": {"type": "integer", "default": 1},
            "list": {"default": [1]},
            "deep": {"default": {}, "properties": {"a": {"default": "x"}, "b": {}}},
            "none": True,
            "hidden": {"anyOf": [{"properties": {"c": {"default": 1}}}]},
        },
        "required": ["n"],
    }
    root.add("one", schema=schema)
    rules = root.registry.get("one").rules
    assert rules is not None
    assert rules.completed({}) == {"n": 1, "list": [1], "deep": {"a": "x"}}
    given = {"n": 2, "deep": {"b": 1}, "hidden": {}, "other": 3}
    assert rules.completed(given) == {**given, "list": [1], "deep": {"a": "x", "b": 1}}
    assert given["deep"] == {"b": 1}
    rules.completed({})["list"].append(2)
    assert rules.completed({"n": None, "deep": 7}) == {"n": None, "deep": 7, "list": [1]}
    assert rules.errors(rules.completed({})) == []


@pytest.mark.parametrize(
    ("options", "rules"),
    [
        ("", None),
        ("[attachments]", AttachmentRules(max_bytes=1000, max_files=1000)),
        ("[attachments]\nmax_mb = 5000", AttachmentRules(max_bytes=1000, max_files=1000)),
        (
            "[attachments]\nmax_mb = 0.0005\nmax_files = 2\nnames = '[a-z]+'\nunpack = true",
            AttachmentRules(max_bytes=524, max_files=2, names="[a-z]+", unpack=True),
        ),
    ],
)
def test_a_workflow_says_which_files_it_takes(
    root: Root, options: str, rules: AttachmentRules | None
) -> None:
    (root.add("one") / "snakeline.toml").write_text(options)
    registry = FolderRegistry(root.path, max_attachment_bytes=1000)
    assert registry.get("one").attachments == rules
    assert root.registry.get("one").attachments is None  # none are taken at all


@pytest.mark.parametrize(
    "options",
    [
        "[",
        "attachments = true",
        "[other]",
        "[attachments]\nmax_bytes = 1",
        "[attachments]\nmax_mb = 0",
        "[attachments]\nmax_mb = nan",
        "[attachments]\nmax_files = 0",
        "[attachments]\nmax_files = 1.5",
        "[attachments]\nnames = '('",
        "[attachments]\nnames = 'a{99999999999999999999}'",
        "[attachments]\nnames = '" + "(" * 1500 + ")" * 1500 + "'",
        "[attachments]\nnames = 1",
        "[attachments]\nunpack = 'yes'",
        ".".join("a" * 30_000) + " = 1",
    ],
)
def test_options_that_make_no_sense_leave_the_workflow_out(root: Root, options: str) -> None:
    (root.add("one") / "snakeline.toml").write_text(options)
    with capture_logs() as lines:
        assert root.registry.names() == ()
    assert [(line["workflow"], line["file"]) for line in lines] == [("one", "snakeline.toml")]


@pytest.mark.parametrize(
    ("items", "are_unique"),
    [
        ([], True),
        ([1, True, "1", None, 0, False, "", [], {}], True),
        ([1, 1.0], False),
        ([{"a": 1, "b": [2.0]}, {"b": [2], "a": 1}], False),
        ([[1, 2], [2, 1]], True),
        ([0, -0.0], False),
        ("aa", True),
    ],
)
def test_items_are_unique_as_json_has_it(root: Root, items: object, *, are_unique: bool) -> None:
    root.add("one", schema={"properties": {"a": {"uniqueItems": True}}})
    assert (root.errors("one", a=items) == []) is are_unique


def test_a_long_list_is_soon_found_to_be_unique(root: Root) -> None:
    root.add("one", schema={"properties": {"a": {"uniqueItems": True}}})
    begun = time.process_time()
    assert root.errors("one", a=[{"a": number} for number in range(10_000)]) == []
    assert time.process_time() - begun < 5  # it was 90


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
    assert workflow.rules is not None
    assert workflow.rules.errors(defaults) == []
    assert json.loads((workflow.folder / "config.json").read_text()) == defaults
    assert workflow.rules.errors({"surprise": 1}) != []
