"""The stand-in as an engine: same arguments as Snakemake, nothing to install."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import mock_snakemake
from mock_snakemake import parameters as mock_parameters
from runner.engines import command
from runner.engines.json_pointer import escape
from runner.engines.offer import Offer
from runner.engines.snakemake_dialect import SnakemakeDialect
from runner.errors import EngineUnavailable, FieldError
from runner.ports import Command, EngineInfo, WarmSpec

if TYPE_CHECKING:
    from runner.attempt_files import AttemptFiles
    from runner.jobs import Job, JobSpec
    from runner.ports import Workflow
    from runner.settings import RunnerSettings

_FOLDER = os.path.dirname(os.path.abspath(mock_snakemake.__file__))
_PARAMETER = "mock"


class MockEngine(SnakemakeDialect):
    """Runs `mock_snakemake` with the service's own interpreter."""

    name = "mock"

    def __init__(self, settings: RunnerSettings) -> None:
        self._python = settings.python
        self._mock = settings.mock
        self._offer = Offer.of(settings)

    def check(self) -> EngineInfo:
        if not os.access(self._python, os.X_OK):
            raise EngineUnavailable(f"The Python interpreter {self._python} cannot be executed.")
        return EngineInfo(self.name, "mock", is_mock=True)

    def warm_spec(self) -> WarmSpec:
        runner = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        return WarmSpec(
            python=self._python,
            isolated=True,
            packages={"runner": runner, "mock_snakemake": _FOLDER},
            preload="mock_snakemake.cli:preload",
        )

    def validate(self, spec: JobSpec) -> list[FieldError]:
        found = command.validate(spec, self._offer)
        if _PARAMETER in spec.parameters:
            for key, detail in mock_parameters.problems(spec.parameters[_PARAMETER])[: command.MAX_ERRORS]:
                found.append(FieldError(f"/parameters/{_PARAMETER}" + (key and "/" + escape(key)), detail))
        return found

    def _command(
        self, job: Job, workflow: Workflow, files: AttemptFiles, *, report_to: str | None = None
    ) -> Command:
        program = (self._python, "-I", "-S", os.path.join(_FOLDER, "__main__.py"))
        prepare = (*program, *command.unlock_arguments(workflow, files))
        environment = command.environment(job, files, bin_dir=os.path.dirname(self._python))
        return Command(
            argv=(*program, *command.arguments(job, workflow, files, self._offer, report_to=report_to)),
            environment={**environment, **self._behaviour()},
            title=command.title(workflow, self.name),
            prepare=(prepare,) if command.is_locked(files) else (),
            files={files.config: command.config(job.spec)},
            warm_entry="mock_snakemake.cli:main",
        )

    def _behaviour(self) -> dict[str, str]:
        # Not on the command line, so that both engines take the same one.
        mock = self._mock
        behaviour = {
            "MOCK_SNAKEMAKE_MIN_S": str(mock.min_s),
            "MOCK_SNAKEMAKE_MAX_S": str(mock.max_s),
            "MOCK_SNAKEMAKE_SUCCESS_RATE": str(mock.success_rate),
        }
        return behaviour if mock.seed is None else {**behaviour, "MOCK_SNAKEMAKE_SEED": str(mock.seed)}
