"""What integration tests may ask for: a runner of their own, without HTTP, or a store that nobody uses."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.runners import Hold, RunningRunner, settings_for
from tests.support.stores import new_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runner.settings import RunnerSettings
    from runner.stores.sql import SqlStore


@pytest.fixture
def open_runner(tmp_path: Path) -> Iterator[Callable[..., RunningRunner]]:
    with ExitStack() as stack:

        def open_(**changes: Any) -> RunningRunner:
            runner = RunningRunner(settings_for(tmp_path / "data", **changes))
            stack.callback(runner.close)
            return runner

        yield open_


@pytest.fixture
def runner(open_runner: Callable[..., RunningRunner]) -> RunningRunner:
    return open_runner()


@pytest.fixture
def hold(tmp_path: Path) -> Hold:
    return Hold(tmp_path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def settings(data: Path) -> RunnerSettings:
    return settings_for(data)


@pytest.fixture
def store(data: Path) -> Iterator[SqlStore]:
    with closing(new_store(data)) as store:
        yield store
