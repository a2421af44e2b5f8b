"""Which engine runs jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.engines.mock import MockEngine
from runner.engines.snakemake import SnakemakeEngine

if TYPE_CHECKING:
    from runner.ports import Engine
    from runner.settings import RunnerSettings


def engine_of(settings: RunnerSettings) -> Engine:
    return MockEngine(settings) if settings.engine == "mock" else SnakemakeEngine(settings)
