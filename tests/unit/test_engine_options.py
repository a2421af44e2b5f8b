"""Options: what is refused, and that what is let through can only ever be what it says."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from mock_snakemake import cli
from runner.engines import command, options
from runner.engines.offer import Offer
from runner.jobs import JobSpec

if TYPE_CHECKING:
    from pathlib import Path

EVERYTHING = Offer(
    profiles_dir="/profiles", executors=("local", "slurm"), software=("conda", "apptainer", "env-modules")
)
DOCUMENT = Draft202012Validator(options.document())


def pointers(given: dict[str, Any], offer: Offer = EVERYTHING) -> list[str]:
    return [error.pointer for error in options.errors(given, offer)]


@pytest.mark.parametrize(
    ("name", "value", "below"),
    [
        ("nolock", True, ""),
        ("keep_going", 1, ""),
        ("retries", -1, ""),
        ("retries", True, ""),
        ("retries", 101, ""),
        ("force_rules", [], ""),
        ("force_rules", "align", ""),
        ("force_rules", ["ok", "-n"], "/1"),
        ("until", ["a;b"], "/0"),
        ("until", ["a/../b"], "/0"),
        ("omit_from", ["a\n"], "/0"),
        ("omit_from", ["/etc/passwd"], "/0"),
        ("rerun_triggers", ["mtime", "guess"], ""),
        ("rerun_triggers", ["mtime", "mtime"], ""),
        ("resources", {}, ""),
        ("resources", {"_cores": 99}, "/_cores"),
        ("resources", {"-n": 1}, "/-n"),
        ("resources", {"a=1 b": 1}, "/a=1 b"),
        ("resources", {"mem_mb": "16 GB"}, "/mem_mb"),
        ("resources", {"mem": 16}, "/mem"),
        ("resources", {"mem": "0 GB"}, "/mem"),
        ("resources", {"mem": "1 GB", "mem_mib": 5}, "/mem_mib"),
        ("resources", {"slots": 1.5}, "/slots"),
        ("default_resources", {"x": "__import__('os').system('id')"}, "/x"),
        ("default_resources", {"x": 10**13}, "/x"),
        ("set_threads", {"align": 0}, "/align"),
        ("set_threads", {"a b": 1}, "/a b"),
        ("set_threads", ["align=2"], ""),
        ("set_resources", {"align": {"x": "input.size"}}, "/align/x"),
        ("set_resources", {"align": 5}, "/align"),
        ("set_resources", {"a:b": {"x": 5}}, "/a:b"),
        ("batch", {"rule": "a", "part": 3, "of": 2}, "/part"),
        ("batch", {"rule": "a=1/1 --x", "part": 1, "of": 2}, "/rule"),
        ("batch", {"rule": "a", "part": 1}, ""),
        ("profile", "../elsewhere", ""),
        ("profile", "/etc", ""),
        ("profile", "unregistered", ""),
        ("executor", "flux", ""),
        ("executor", "-", ""),
        ("software_deployment", ["docker"], ""),
    ],
)
def test_a_value_that_is_no_such_thing_is_refused_where_it_stands(name: str, value: Any, below: str) -> None:
    assert pointers({name: value}) == [f"/options/{name}{below}"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["mem", "-n", "1 GB"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
names = st.from_regex(r"[A-Za-z]\w{0,5}", fullmatch=True) | st.sampled_from(["mem", "mem_mib", "--cores"])
counts = st.integers(-1, 200)
files = st.lists(st.from_regex(r"[\w/.-]{1,8}", fullmatch=True), max_size=3)
sizes = st.from_regex(r"[0-9]{1,3} ?[MGT]i?B", fullmatch=True)
amounts = st.dictionaries(names, counts | sizes, max_size=3)
# As many that are right as wrong: the same words where they belong.
likely = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("keep_going", "force_all", "dry_run", "touch"), st.booleans()),
        **dict.fromkeys(("force_rules", "until", "omit_from"), files),
        **dict.fromkeys(("resources", "default_resources"), amounts),
        **dict.fromkeys(("profile", "executor"), st.sampled_from(["slurm", "-n", "--x"])),
        "rerun_triggers": st.lists(st.sampled_from(["mtime", "code", "input"]), max_size=3),
        "software_deployment": st.lists(st.sampled_from(["conda", "apptainer"]), max_size=2),
        "retries": counts,
        "set_threads": st.dictionaries(names, counts, max_size=3),
        "set_resources": st.dictionaries(names, amounts, max_size=2),
        "batch": st.fixed_dictionaries({"rule": names, "part": counts, "of": counts}),
    },
)
some_options = likely | st.dictionaries(st.sampled_from([*options.OPTIONS, "mode"]), json_values, max_size=3)


@given(some_options)
def test_no_value_ever_becomes_another_option_or_code(given: dict[str, Any]) -> None:
    given = {name: value for name, value in given.items() if not pointers({name: value}, Everything())}
    words = options.arguments(JobSpec(options=given, memory_mb=64), Everything())
    flags = [word for word in words if word.startswith("-")]
    assert len(flags) == len(set(flags))
    for word in words:
        assert re.fullmatch(r"--[a-z-]+|[A-Za-z0-9_/][A-Za-z0-9_./~=+@:-]*", word)
    # Read back, each flag holds what it was given and nothing has moved elsewhere.
    seen = vars(cli._PARSER.parse_args([*words, "--scheduler", "greedy", "--", "target"]))
    assert seen["targets"] == ["target"]
    assert seen["forcerun"] == list(given.get("force_rules", []))
    assert seen["until"] == list(given.get("until", []))
    assert seen["retries"] == given.get("retries", 0)
    assert seen["dry_run"] == given.get("dry_run", False)


class Everything(Offer):
    """Whatever is well-formed."""

    def refusal(self, *_: Any) -> str | None:
        return None

    def profile_folder(self, name: str) -> str:
        return f"/profiles/{name}"


@given(some_options)
def test_what_the_documentation_allows_is_allowed_and_the_rest_is_not(given: dict[str, Any]) -> None:
    found = list(options.errors(given, Everything()))
    across = {"is told twice, in other units", "must be an integer from 1 to `of`"}
    if DOCUMENT.is_valid(given):
        # What a schema cannot say of two values together.
        assert {error.detail for error in found} <= across or ".." in str(given)
    else:
        assert found


@pytest.mark.parametrize(
    ("given", "memory_mb", "expected"),
    [
        ({}, None, []),
        ({}, 512, ["--resources", "mem_mb=512"]),
        ({"resources": {"mem_mb": 100}}, 512, ["--resources", "mem_mb=100"]),
        ({"resources": {"mem": "4 GiB", "slots": 2}}, 512, ["--resources", "mem_mb=512", "slots=2"]),
        ({"resources": {"mem": "4GiB"}}, None, ["--resources", "mem_mb=4295"]),
        ({"resources": {"mem_mib": 100}}, None, ["--resources", "mem_mb=105"]),
        ({"set_resources": {"a": {"disk": "1 TB"}}}, None, ["--set-resources", "a:disk_mb=1000000"]),
        ({"dry_run": True, "touch": True, "executor": "slurm"}, None, ["--dry-run"]),
        ({"touch": True, "executor": "slurm"}, None, ["--touch"]),
        ({"executor": "slurm"}, None, ["--executor", "slurm", "--jobs", "3"]),
        ({"executor": "local", "keep_going": False}, None, ["--executor", "local"]),
    ],
)
def test_options_become_these_arguments(
    given: dict[str, Any], memory_mb: int | None, expected: list[str]
) -> None:
    words = options.arguments(JobSpec(options=given, memory_mb=memory_mb, cores=3), Offer())
    place = words.index("--profile")
    assert sorted(words[:place]) == sorted(expected)
    assert words[place:] == ["--profile", "none", "--workflow-profile", "none"]


class TestTheOffer:
    def detail(self, offer: Offer, **given: Any) -> str:
        (error,) = options.errors(given, offer)
        return error.detail

    def test_a_profile_is_a_registered_folder(self, tmp_path: Path) -> None:
        (tmp_path / "lab").mkdir()
        (tmp_path / "lab/config.v9+.yaml").write_text("retries: 3\n")
        (tmp_path / "empty").mkdir()
        offer = Offer(profiles_dir=str(tmp_path))
        assert pointers({"profile": "lab"}, offer) == []
        words = options.arguments(JobSpec(options={"profile": "lab"}), offer)
        assert words[words.index("--profile") + 1] == str(tmp_path / "lab")
        assert self.detail(offer, profile="empty") == "empty is not registered: there are lab"
        assert "SNAKELINE_PROFILES_DIR" in self.detail(Offer(), profile="lab")
        assert "SNAKELINE_PROFILES_DIR" in self.detail(Offer(profiles_dir="/no/folder"), profile="lab")

    def test_an_executor_is_allowed_and_installed(self) -> None:
        assert self.detail(Offer(), executor="slurm") == "slurm is not allowed: there are local"
        allowed = Offer(executors=("local", "slurm"), installed_executors=frozenset({"drmaa"}))
        assert "snakemake-executor-plugin-slurm" in self.detail(allowed, executor="slurm")
        assert pointers({"executor": "local"}, allowed) == []
        assert pointers({"executor": "slurm"}, Offer(executors=("slurm",))) == []

    def test_software_is_allowed_and_installed(self, tmp_path: Path) -> None:
        assert "SNAKELINE_SOFTWARE_DEPLOYMENT" in self.detail(Offer(), software_deployment=["conda"])
        allowed = Offer(software=("conda", "apptainer"), search_path=str(tmp_path))
        assert "no apptainer or singularity" in self.detail(allowed, software_deployment=["apptainer"])
        shutil.copy("/bin/true", tmp_path / "singularity")
        assert pointers({"software_deployment": ["apptainer"]}, allowed) == []

    def test_modules_are_known_to_the_shells_of_a_run_that_uses_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        offer = Offer(software=("env-modules",), search_path="/bin")
        monkeypatch.setattr("runner.engines.offer._MODULE_INITS", (str(tmp_path / "modules.sh"),))
        assert "are not installed" in self.detail(offer, software_deployment=["env-modules"])
        (tmp_path / "modules.sh").write_text("")
        assert pointers({"software_deployment": ["env-modules"]}, offer) == []
        spec = JobSpec(options={"software_deployment": ["env-modules"]})
        assert command._modules(spec) == {"BASH_ENV": str(tmp_path / "modules.sh")}
        assert command._modules(JobSpec()) == {}
