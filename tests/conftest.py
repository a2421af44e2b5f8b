"""What tests of every tier may ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.server import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.client import ContractClient
    from tests.support.server import LiveServer


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak-minutes", type=float, default=10, help="how long the state machine runs")
    parser.addoption("--soak-seed", type=int, help="repeat this one of its rounds")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """The service with a quick stand-in that always succeeds; shared, so never stop it."""
    with running_server(tmp_path_factory.mktemp("service"), MAX_CORES="16", STOP_GRACE_S="1") as server:
        yield server


@pytest.fixture
def client(server: LiveServer) -> ContractClient:
    return server.client
