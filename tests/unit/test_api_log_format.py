"""What the service and its libraries may write into the log, and what messages say of its files."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

import pytest
import structlog

from api.log_format import configure_logging
from api.private_paths import PrivatePaths
from api.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Level = Literal["debug", "info", "warning", "error"]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("runner")
    handlers, levels = list(root.handlers), (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
    structlog.reset_defaults()


@pytest.mark.parametrize("level", ["debug", "info", "warning"])
def test_libraries_only_warn_whatever_the_level(level: Level, capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging(level)
    for name in ("httpcore2.http11", "httpx2", "sqlalchemy.engine", "asyncio", "uvicorn.error"):
        logging.getLogger(name).debug("Authorization: Bearer hunter2")
        logging.getLogger(name).info("GET https://x/?token=hunter2")
        logging.getLogger(name).warning("something is wrong")
    written = capfd.readouterr().err
    assert "hunter2" not in written
    assert written.count("something is wrong") == 5


@pytest.mark.parametrize(("level", "told"), [("debug", True), ("info", True), ("warning", False)])
def test_our_own_modules_follow_the_level(
    level: Level, *, told: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    configure_logging(level)
    logging.getLogger("runner.stores.memory").info("said")
    assert ("said" in capfd.readouterr().err) is told


def test_messages_name_files_by_their_settings() -> None:
    paths = PrivatePaths(load_settings({"SNAKELINE_DATA_DIR": "/srv/data"}))
    assert paths.hidden("The store /srv/data/snakeline.db is damaged.") == (
        "The store <DATA_DIR>/snakeline.db is damaged."
    )
    elsewhere = {
        "SNAKELINE_DATA_DIR": "/srv/data",
        "SNAKELINE_DATABASE_URL": "sqlite:////fast%20disk/jobs.db",
    }
    paths = PrivatePaths(load_settings(elsewhere))
    assert (
        paths.hidden("/fast disk/jobs.db: gone; /srv/data: full") == "<DATABASE_URL>: gone; <DATA_DIR>: full"
    )


@pytest.mark.parametrize("data_dir", ["/", "//"])
def test_a_message_stays_legible_where_the_root_is_the_data_directory(data_dir: str) -> None:
    paths = PrivatePaths(
        load_settings({"SNAKELINE_DATA_DIR": data_dir, "SNAKELINE_DATABASE_URL": "memory://"})
    )
    assert paths.hidden("a/b") == "a/b"


def test_where_the_data_directory_really_is_stays_private_as_well(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("disk")
    paths = PrivatePaths(load_settings({"SNAKELINE_DATA_DIR": f"{tmp_path}/link/data"}))
    assert paths.hidden(f"{tmp_path}/disk/data/jobs: full; {tmp_path}/link/data: full") == (
        "<DATA_DIR>/jobs: full; <DATA_DIR>: full"
    )
