"""Checksums of files that may change while they are read."""

from __future__ import annotations

import asyncio
import hashlib
import os
from contextlib import closing
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from api import checksums
from api.checksums import Checksums, wants_sha256
from api.problems import Problem
from api.turns import Turns
from runner import job_files
from runner.job_files import OpenedFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from starlette.requests import Request

    from runner.callers_jobs import CallersJobs

JOBS = cast("CallersJobs", SimpleNamespace(caller=SimpleNamespace(visible_tenant="a")))


class Asked:
    """Asks of a file of four parts; `between` is done before each, and says whether the client has gone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content = os.urandom(4000)
        self.path.write_bytes(self.content)
        self.parts = 0
        self.between: Callable[[int], bool] = lambda _parts: False
        self.checksums = Checksums(Turns(1), most=2)

    def sha256(self) -> bytes:
        async def is_disconnected() -> bool:
            self.parts += 1
            return self.between(self.parts)

        request = cast("Request", SimpleNamespace(method="GET", is_disconnected=is_disconnected))
        with closing(OpenedFile.of(os.open(self.path, os.O_RDONLY))) as file:
            return asyncio.run(self.checksums.sha256(request, JOBS, file))


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    monkeypatch.setattr(checksums, "_PART_BYTES", 1000)
    monkeypatch.setattr(job_files, "_SETTLED_S", -3600.0)  # every file is at rest
    return Asked(tmp_path / "file")


def test_a_file_at_rest_is_read_once_part_by_part(asked: Asked) -> None:
    digest = hashlib.sha256(asked.content).digest()
    assert [asked.sha256(), asked.sha256()] == [digest, digest]
    assert asked.parts == 4


def test_a_file_that_has_just_changed_is_read_again(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_files, "_SETTLED_S", 3600.0)
    assert asked.sha256() == asked.sha256() == hashlib.sha256(asked.content).digest()
    assert asked.parts == 8


@pytest.mark.parametrize("change", ["shorter", "longer", "gone"])
def test_a_file_that_changes_meanwhile_has_none(asked: Asked, change: str) -> None:
    def meanwhile(parts: int) -> bool:
        if parts == 3 and change != "gone":
            os.truncate(asked.path, 1000 if change == "shorter" else 5000)
        return parts == 3 and change == "gone"  # the client

    asked.between = meanwhile
    with pytest.raises(Problem) as caught:
        asked.sha256()
    assert caught.value.kind.slug == ("client-gone" if change == "gone" else "output-changed")
    assert asked.parts <= 4


def test_few_are_remembered(asked: Asked) -> None:
    files = []
    for n in range(3):
        asked.path = asked.path.with_name(f"file{n}")
        asked.path.write_bytes(asked.content)
        files.append(asked.path)
        asked.sha256()
    read = asked.parts
    for path, again in ((files[2], 0), (files[1], 0), (files[0], 4)):
        asked.path = path
        asked.sha256()
        assert asked.parts - read == again


@pytest.mark.parametrize("header", ["sha-256=1", "sha-512=9, sha-256=10", "x, sha-256=3"])
def test_a_digest_is_wanted_by_its_name(header: str) -> None:
    assert wants_sha256(header)


@pytest.mark.parametrize(
    "header", ["", "sha-256", "sha-256=0", "sha-256=x", "sha-256=²", "SHA-256=1", "sha-2567=1", "sha-512=1"]
)
def test_another_digest_or_none_is_not(header: str) -> None:
    assert not wants_sha256(header)
