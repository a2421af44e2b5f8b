"""Telling a container from a machine of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from api.container import in_container
from api.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("sign", [".dockerenv", "run/.containerenv"])
def test_a_file_of_the_container_runtime_tells(tmp_path: Path, sign: str) -> None:
    assert not in_container(str(tmp_path), {})
    (tmp_path / sign).parent.mkdir(exist_ok=True)
    (tmp_path / sign).touch()
    assert in_container(str(tmp_path), {})


@pytest.mark.parametrize("name", ["container", "ECS_CONTAINER_METADATA_URI_V4", "KUBERNETES_SERVICE_HOST"])
def test_so_does_what_the_runtime_puts_into_the_environment(tmp_path: Path, name: str) -> None:
    assert in_container(str(tmp_path), {name: "x"})
    assert not in_container(str(tmp_path), {name: ""})


def test_running_jobs_are_stopped_only_where_they_would_end_with_the_container() -> None:
    assert load_settings({}).runner().on_shutdown == ("stop" if in_container() else "detach")


@pytest.mark.parametrize("how", ["detach", "drain", "stop"])
def test_what_is_asked_for_counts_everywhere(how: str) -> None:
    assert load_settings({"SNAKELINE_ON_SHUTDOWN": how.upper()}).runner().on_shutdown == how
