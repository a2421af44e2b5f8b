"""Workflows that are commits of git repositories: fetched as data, whatever the repository would like."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from runner import git_checkouts
from runner.errors import WorkflowNotFound
from runner.git_checkouts import FetchFailed, fetch
from runner.git_pins import GitPin, UnusablePin, read_pin
from runner.workflow_pins import FolderPins
from runner.workflow_versions import WorkflowVersions
from runner.workflows import FolderRegistry

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
SNAKEFILE = 'rule a:\n    output: "a.txt"\n    shell: "touch {output}"\n'


class Repository:
    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        names = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "protocol.file.allow=always")
        done = subprocess.run(
            ["git", *names, *arguments],
            cwd=self.path,
            env={**ENVIRONMENT, "HOME": str(self.path), "GIT_CONFIG_NOSYSTEM": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def commit(self, **files: str) -> str:
        for name, text in files.items():
            place = self.path / name.replace("__", "/").replace("_", ".")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "--allow-empty", "--message=x")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def pinned(repository: Repository, commit: str, folder: str = "") -> GitPin:
    return GitPin("one", str(repository.path), commit, folder)


def pin_file(root: Path, repository: Repository, commit: str, **more: str) -> Path:
    root.mkdir(exist_ok=True)
    values = {"repository": str(repository.path), "commit": commit, **more}
    file = root / "one.git.toml"
    file.write_text("".join(f'{name} = "{value}"\n' for name, value in values.items()))
    return file


def test_a_pinned_commit_is_a_workflow_from_when_it_was_fetched(
    tmp_path: Path, repository: Repository
) -> None:
    first = repository.commit(sub__Snakefile=SNAKEFILE, sub__run_sh="x")
    (repository.path / "sub" / "run.sh").chmod(0o755)
    second = repository.commit()
    repository.commit(sub__Snakefile="a branch that went on")
    registry = FolderRegistry(tmp_path / "workflows", tmp_path / "git")
    pins = FolderPins(tmp_path, registry, WorkflowVersions(tmp_path))
    pin_file(tmp_path / "workflows", repository, second, folder="sub")
    with pytest.raises(WorkflowNotFound):
        registry.get("one")
    assert registry.candidates() == ("one",)
    (pin,) = registry.pins()
    assert fetch(pin, registry.checkouts_dir, environment=ENVIRONMENT)
    assert not fetch(pin, registry.checkouts_dir, environment=ENVIRONMENT)
    found = pins.pin("one")
    assert found.workflow.commit == second
    assert (found.workflow.folder / "Snakefile").read_text() == SNAKEFILE
    assert stat.S_IMODE(os.stat(found.workflow.folder / "run.sh").st_mode) & 0o100
    # Another commit is another workflow, and the old one stays for the jobs that have it.
    pin_file(tmp_path / "workflows", repository, first, folder="sub")
    assert registry.names() == ()
    fetch(registry.pins()[0], registry.checkouts_dir, environment=ENVIRONMENT)
    again = pins.pin("one")
    assert again.workflow.commit == first
    assert again.version != found.version
    assert found.workflow.folder.is_dir()
    assert [path.name for path in (tmp_path / "git").iterdir()] == [f"one@{first}"]


def test_nothing_of_a_repository_is_executed_or_heeded(tmp_path: Path, repository: Repository) -> None:
    """Filters, attributes and hooks would run programs, or change what the commit says."""
    marker = tmp_path / "executed"
    repository.git("config", "filter.evil.smudge", f"touch {marker}; cat")
    commit = repository.commit(
        Snakefile="$Id$\r\n", _gitattributes="* filter=evil ident text export-ignore\n"
    )
    hooks = repository.path / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("post-checkout", "pre-receive", "reference-transaction"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {marker}\n")
        (hooks / name).chmod(0o755)
    checkouts = tmp_path / "git"
    stored = repository.git("cat-file", "blob", f"{commit}:Snakefile")
    fetch(pinned(repository, commit), checkouts, environment=ENVIRONMENT)
    assert (checkouts / f"one@{commit}" / "Snakefile").read_text().strip() == stored
    assert not marker.exists()


def test_links_that_stay_inside_are_taken_and_others_refused(tmp_path: Path, repository: Repository) -> None:
    (repository.path / "a" / "b").mkdir(parents=True)
    (repository.path / "a" / "b" / "up").symlink_to("../../Snakefile")
    (repository.path / "deep").symlink_to("a/b")
    commit = repository.commit(Snakefile=SNAKEFILE)
    fetch(pinned(repository, commit), tmp_path / "git", environment=ENVIRONMENT)
    assert (tmp_path / "git" / f"one@{commit}" / "deep" / "up").read_text() == SNAKEFILE
    for leads_to in ("/etc/passwd", "..", "a/../../x", "deep/../../x"):
        (repository.path / "out").unlink(missing_ok=True)
        (repository.path / "out").symlink_to(leads_to)
        commit = repository.commit()
        with pytest.raises(FetchFailed, match="leads out"):
            fetch(pinned(repository, commit), tmp_path / "git", environment=ENVIRONMENT)


def test_what_cannot_be_fetched_changes_nothing_and_is_told(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = repository.commit(Snakefile=SNAKEFILE)
    fetch(pinned(repository, commit), tmp_path / "git", environment=ENVIRONMENT)
    missing = GitPin("one", str(repository.path), "0" * 40)
    with pytest.raises(FetchFailed, match="rev-parse"):
        fetch(missing, tmp_path / "git", environment=ENVIRONMENT)
    with pytest.raises(FetchFailed, match="fetch: "):
        fetch(GitPin("one", "ext::sh -c true", "0" * 40), tmp_path / "git", environment=ENVIRONMENT)
    with pytest.raises(FetchFailed, match="install it"):
        fetch(missing, tmp_path / "git", environment={"PATH": str(tmp_path)})
    inner = Repository(tmp_path / "inner")
    inner.commit(x="x")
    repository.git("submodule", "--quiet", "add", str(inner.path), "module")
    with pytest.raises(FetchFailed, match="submodule"):
        fetch(pinned(repository, repository.commit()), tmp_path / "git", environment=ENVIRONMENT)
    assert [path.name for path in (tmp_path / "git").iterdir()] == [f"one@{commit}"]
    seen: list[str] = []
    monkeypatch.setattr(
        git_checkouts,
        "sync_file_system",
        lambda _: seen.extend(path.name[:5] for path in (tmp_path / "new").iterdir()),
    )
    fetch(pinned(repository, commit), tmp_path / "new", environment=ENVIRONMENT)
    assert seen == [".fetc"]  # durable before it has its name


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('repository = "x"\ncommit = "main"\n', "full commit id"),
        ('repository = "x"\ncommit = "abc123"\n', "full commit id"),
        (f'repository = "--upload-pack=x"\ncommit = "{"a" * 40}"\n', "an address or a path"),
        (f'commit = "{"a" * 40}"\n', "an address or a path"),
        (f'repository = "x"\ncommit = "{"a" * 40}"\nfolder = "../x"\n', "without .."),
        (f'repository = "x"\ncommit = "{"a" * 40}"\nbranch = "main"\n', "unknown"),
        ("[", "as TOML"),
    ],
)
def test_a_pin_that_does_not_name_one_commit_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "one.git.toml").write_text(text)
    with pytest.raises(UnusablePin, match=told):
        read_pin("one", tmp_path / "one.git.toml")
    assert FolderRegistry(tmp_path).names() == ()


def test_a_folder_and_a_pin_of_one_name_are_neither(tmp_path: Path, repository: Repository) -> None:
    pin_file(tmp_path / "workflows", repository, repository.commit(Snakefile=SNAKEFILE))
    registry = FolderRegistry(tmp_path / "workflows", tmp_path / "git")
    fetch(registry.pins()[0], registry.checkouts_dir, environment=ENVIRONMENT)
    assert registry.names() == ("one",)
    (tmp_path / "workflows" / "one").mkdir()
    (tmp_path / "workflows" / "one" / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "workflows" / "uploaded").mkdir()
    (tmp_path / "workflows" / "uploaded" / "Snakefile").write_text(SNAKEFILE)
    assert registry.names() == ()
    shutil.move(tmp_path / "workflows" / "one", tmp_path / "away")
    assert registry.get("one").commit is not None
    shutil.move(tmp_path / "away", tmp_path / "workflows" / "one")
    (tmp_path / "workflows" / "one.git.toml").unlink()
    assert registry.get("one").commit is None
