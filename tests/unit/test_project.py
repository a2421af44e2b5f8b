"""The project's own promises about its files: locks, names, sizes, documentation."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "runner", "mock_snakemake", "snakeline", "tests", "benchmarks")
LOCKS = sorted([*ROOT.glob("requirements*.lock"), *ROOT.glob("benchmarks/requirements*.lock")])
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
MAX_LINES = {"tests": 500}  # about 400 is what a reader holds; this is where it must be split


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def shown(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_file_names_no_index_host_and_hashes_everything(lock: Path) -> None:
    text = lock.read_text()
    assert not re.findall(r"https?://|file:/|--(?:extra-)?index-url|--find-links", text)
    requirements = re.findall(r"^[a-z0-9][\w.\[\],-]*==\S+.*\n(.*)", text, re.MULTILINE | re.IGNORECASE)
    assert requirements
    assert all("--hash=sha256:" in following for following in requirements)


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock", "requirements-build.lock"])
def test_a_lock_file_holds_every_requirement_of_pyproject(lock: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    of_the_service = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["server"],
    ]
    wanted = {
        "requirements.lock": of_the_service,
        "requirements-build.lock": groups["build"],
        "requirements-dev.lock": [
            *of_the_service,
            *groups["build"],
            *(r for r in groups["dev"] if isinstance(r, str)),
        ],
    }[lock]
    locked = set(re.findall(r"^([\w.-]+)==", (ROOT / lock).read_text(), re.MULTILINE))
    assert {re.split(r"[^\w.-]", requirement)[0] for requirement in wanted} <= locked


def test_a_package_has_one_version_in_all_lock_files_of_the_service() -> None:
    versions: dict[str, set[str]] = {}
    for name in (
        "requirements.lock",
        "requirements-otel.lock",
        "requirements-build.lock",
        "requirements-dev.lock",
    ):
        for package, version in re.findall(r"^([\w.-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE):
            versions.setdefault(package, set()).add(version)
    assert {package: found for package, found in versions.items() if len(found) > 1} == {}


def test_no_module_is_longer_than_a_reader_can_hold() -> None:
    def limit(path: Path) -> int:
        return MAX_LINES.get(path.relative_to(ROOT).parts[0], 450)

    long = [path for path in MODULES if len(path.read_text().splitlines()) > limit(path)]
    assert shown(long) == []


def test_no_module_is_named_after_nothing() -> None:
    nothing = re.compile(r"(^|_)(manager|helpers?|utils?|common|misc)(_|$)|^core$")
    assert shown([path for path in MODULES if nothing.search(path.stem)]) == []


def test_nothing_is_left_for_later() -> None:
    # Put together here so that this file does not find itself.
    words = re.compile(
        "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX", "Not" + "ImplementedError", "/wo" + "rk/"])
    )
    texts = [*MODULES, *PAGES, ROOT / "Makefile", ROOT / "Dockerfile", ROOT / "pyproject.toml"]
    assert shown([path for path in texts if words.search(path.read_text())]) == []


def test_every_make_command_in_the_documentation_is_a_target() -> None:
    for page in PAGES:
        named = set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", page.read_text(), re.MULTILINE))
        assert named <= make_targets(), page.name


def test_the_documentation_names_every_make_target() -> None:
    everything = "".join(page.read_text() for page in PAGES)
    assert {t for t in make_targets() if not re.search(rf"make {t}\b", everything)} == set()


def test_the_architecture_names_every_part_of_the_runner_and_of_the_command() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    parts = [p for package in ("runner", "snakeline") for p in (ROOT / package).iterdir()]
    names = [p.stem for p in parts if p.is_dir() or p.suffix == ".py"]
    assert [n for n in names if not n.startswith("_") and not re.search(rf"\b{n}\b", page)] == []


def test_every_link_in_the_documentation_leads_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)} -> {link}"
        for page in PAGES
        for link in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert broken == []


def test_every_test_that_the_promises_name_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "docs/promises.md").read_text())
    assert named
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not (ROOT / file).is_file() or (test and f"def {test}(" not in (ROOT / file).read_text())
    ]
    assert missing == []


def test_decisions_are_numbered_without_a_gap_and_every_reference_has_its_page() -> None:
    numbers = sorted(path.name[:4] for path in (ROOT / "docs/adr").glob("*.md"))
    assert numbers == [f"{n:04}" for n in range(1, len(numbers) + 1)]
    for path in MODULES:
        assert set(re.findall(r"docs/adr/(\d{4})", path.read_text())) <= set(numbers), path.name


def test_actions_are_pinned_by_commit() -> None:
    for workflow in (ROOT / ".github/workflows").glob("*.yml"):
        for used in re.findall(r"uses: (\S+)", workflow.read_text()):
            ours = used.removeprefix("./.github/workflows/") != used and (ROOT / used).is_file()
            assert ours or re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", used), f"{workflow.name}: {used}"
