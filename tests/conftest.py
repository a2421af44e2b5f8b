"""What tests of every tier may ask for."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.support.server import running_server

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from tests.support.client import ContractClient
    from tests.support.server import LiveServer

# In a fresh checkout the first text that is drawn waits for tables to be made: seconds, on a busy machine.
settings.register_profile("patient", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# Every worker and every service that a test starts would else compile all modules again: half a second each.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # noqa: TID251 - for children, no setting of ours


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak-minutes", type=float, default=10, help="how long the state machine runs")
    parser.addoption("--soak-seed", type=int, help="repeat this one of its rounds")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected stays to the end: looking for garbage in it each time took a tenth of the run."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """The service with a quick stand-in that always succeeds; shared, so never stop it."""
    with running_server(tmp_path_factory.mktemp("service"), MAX_CORES="16", STOP_GRACE_S="1") as server:
        yield server


@pytest.fixture
def client(server: LiveServer) -> ContractClient:
    return server.client
