"""Limits of jobs: what one that names none gets, and the most it may ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from api.schemas import SubmitJob
from api.settings import PREFIX, SettingsError, load_settings
from runner import job_limits
from runner.jobs import JobSpec
from runner.settings import RunnerSettings
from runner.submissions import _fingerprint


def limits(**changes: Any) -> RunnerSettings:
    nowhere = Path("/nowhere")
    values = {"data_dir": nowhere, "database_url": "memory://", "workflows_dir": nowhere, "max_cores": 8}
    return RunnerSettings(**{**values, **changes})


def given(settings: RunnerSettings, **body: Any) -> tuple[float | None, int | None, int]:
    """The timeout, memory and cores of a job submitted with this body."""
    spec = job_limits.with_defaults(SubmitJob(**body).spec(), settings)
    return spec.timeout_s, spec.memory_mb, spec.cores


def refused(settings: RunnerSettings, **body: Any) -> dict[str, str]:
    spec = job_limits.with_defaults(SubmitJob(**body).spec(), settings)
    return {error.pointer: error.detail for error in job_limits.beyond(spec, settings)}


def test_without_settings_a_job_has_one_core_and_no_other_limit() -> None:
    assert given(limits()) == (None, None, 1)


def test_the_defaults_are_for_jobs_that_name_nothing() -> None:
    settings = limits(default_timeout_s=60, default_memory_mb=512, default_cores=2)
    assert given(settings) == (60, 512, 2)
    assert given(settings, cores=None, timeout_s=None, memory_mb=None) == (60, 512, 2)
    assert given(settings, cores=1, timeout_s=5, memory_mb=1024) == (5, 1024, 1)


def test_a_maximum_holds_for_jobs_that_name_nothing_as_well() -> None:
    settings = limits(max_timeout_s=60, max_memory_mb=512)
    assert given(settings) == (60, 512, 1)
    assert given(limits(max_timeout_s=60, default_timeout_s=5)) == (5, None, 1)


def test_beyond_a_maximum_each_limit_is_refused_with_the_setting_that_says_so() -> None:
    settings = limits(max_timeout_s=60, max_memory_mb=512, max_job_cores=4)
    assert refused(settings, timeout_s=60, memory_mb=512, cores=4) == {}
    found = refused(settings, timeout_s=60.5, memory_mb=513, cores=5)
    assert {pointer: detail.partition(":")[0] for pointer, detail in found.items()} == {
        "/cores": "at most 4 for one job here (SNAKELINE_MAX_JOB_CORES)",
        "/timeout_s": "at most 60 s here (SNAKELINE_MAX_TIMEOUT_S)",
        "/memory_mb": "at most 512 MiB here (SNAKELINE_MAX_MEMORY_MB)",
    }


def test_more_cores_than_there_are_is_told_as_such() -> None:
    assert "SNAKELINE_MAX_CORES" in refused(limits(max_job_cores=4), cores=9)["/cores"]


@pytest.mark.parametrize("memory_mb", [15, 0, -1, 16.5, "512", True])
def test_memory_is_a_whole_number_of_at_least_16(memory_mb: object) -> None:
    with pytest.raises(ValueError, match="memory_mb"):
        SubmitJob.model_validate({"memory_mb": memory_mb})


@pytest.mark.parametrize(
    ("default", "limit"),
    [
        ("DEFAULT_TIMEOUT_S", "MAX_TIMEOUT_S"),
        ("DEFAULT_MEMORY_MB", "MAX_MEMORY_MB"),
        ("DEFAULT_CORES", "MAX_JOB_CORES"),
        ("DEFAULT_CORES", "MAX_CORES"),
    ],
)
def test_a_default_that_no_job_could_have_stops_the_start(default: str, limit: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({PREFIX + default: "64", PREFIX + limit: "32"})
    assert str(caught.value) == f"{PREFIX}{default} (64) must not be greater than {PREFIX}{limit} (32)"


def test_the_limits_reach_the_runner() -> None:
    chosen = {"MAX_TIMEOUT_S": 9.5, "DEFAULT_MEMORY_MB": 64, "MAX_MEMORY_MB": 128, "DEFAULT_CORES": 2}
    chosen |= {"MAX_JOB_CORES": 3, "MAX_CORES": 4, "MAX_PROCESSES": 100}
    runner = load_settings({PREFIX + name: str(value) for name, value in chosen.items()}).runner()
    assert {name: getattr(runner, name.lower()) for name in chosen} == chosen


def test_keys_of_earlier_releases_still_know_their_bodies() -> None:
    earlier = "ad0400c749e7897209d001c3ec3a0e76d912b7bcf1aa20c68bc91e429f06e8f7"
    assert _fingerprint(SubmitJob().spec()) == earlier
    assert _fingerprint(SubmitJob(cores=1).spec()) == earlier
    assert _fingerprint(JobSpec(memory_mb=16)) != earlier
    named = SubmitJob(cores=2, timeout_s=5, parameters={"a": 1}, retry_lost=True)
    assert _fingerprint(named.spec()) == "8e6e9496e2f5a3d8a051915df02737f7166a70b5f35a19bb06d7b1d73e7be85d"
