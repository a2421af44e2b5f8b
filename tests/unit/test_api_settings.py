"""The service's settings: one environment, one clear line for each mistake, one page of documentation."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from api.machine_cores import machine_cores
from api.settings import PREFIX, ServiceSettings, SettingsError, bundled_workflows, load_settings
from runner.stores.sql.store import SqlStore

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def refused(**settings: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings({PREFIX + name: value for name, value in settings.items()})
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_nothing_set_gives_the_defaults() -> None:
    settings = load_settings({"PATH": "/bin", "HOME": "/"})
    runner = settings.runner()
    assert (settings.host, settings.port, settings.engine, settings.auth) == (
        "127.0.0.1",
        8000,
        "mock",
        "auto",
    )
    assert runner.data_dir == Path(".snakeline").absolute()
    assert runner.database_url == f"sqlite:///{runner.data_dir}/snakeline.db"
    assert runner.workflows_dir == bundled_workflows()
    assert (runner.workflows_dir / "demo" / "Snakefile").is_file()
    assert runner.log_limit_bytes == 256 * 2**20
    assert (runner.mock.min_s, runner.mock.max_s, runner.mock.success_rate, runner.mock.seed) == (
        10,
        30,
        0.8,
        None,
    )


def test_every_setting_reaches_where_it_belongs() -> None:
    settings = load_settings(
        {
            PREFIX + name: value
            for name, value in {
                "HOST": "::1",
                "PORT": "0",
                "DATA_DIR": "/data",
                "DATABASE_URL": "memory://",
                "ENGINE": "snakemake",
                "SNAKEMAKE": "/opt/snakemake",
                "WORKFLOWS_DIR": "/flows",
                "PROFILES_DIR": "/usr",
                "EXECUTORS": "local, slurm",
                "SOFTWARE_DEPLOYMENT": "env-modules,conda",
                "MAX_CORES": "12",
                "MAX_PENDING": "7",
                "STOP_GRACE_S": "2.5",
                "LOG_LIMIT_MB": "0.5",
                "DEFAULT_TIMEOUT_S": "60",
                "WARM_START": "false",
                "MOCK_MIN_S": "1",
                "MOCK_MAX_S": "2",
                "MOCK_SUCCESS_RATE": "0.5",
                "MOCK_SEED": "42",
                "LOG_LEVEL": "WARNING",
                "AUTH": "none",
            }.items()
        }
    )
    runner = settings.runner()
    assert (settings.host, settings.port, settings.log_level, settings.auth) == ("::1", 0, "warning", "none")
    assert (runner.data_dir, runner.workflows_dir) == (Path("/data"), Path("/flows"))
    assert (runner.profiles_dir, runner.executors) == (Path("/usr"), ("local", "slurm"))
    assert runner.software_deployment == ("conda", "env-modules")
    assert (runner.database_url, runner.engine, runner.snakemake) == (
        "memory://",
        "snakemake",
        "/opt/snakemake",
    )
    assert (runner.max_cores, runner.max_pending, runner.stop_grace_s) == (12, 7, 2.5)
    assert (runner.log_limit_bytes, runner.default_timeout_s, runner.warm_start) == (2**19, 60, False)
    assert (runner.mock.min_s, runner.mock.max_s, runner.mock.success_rate, runner.mock.seed) == (
        1,
        2,
        0.5,
        42,
    )


def test_an_empty_value_counts_as_unset() -> None:
    assert load_settings({"SNAKELINE_PORT": "", "SNAKELINE_MAX_CORES": " "}).port == 8000


def test_a_misspelt_name_is_met_with_the_closest_one() -> None:
    line = refused(MOCK_MIN="3")
    assert "SNAKELINE_MOCK_MIN is not a setting" in line
    assert "SNAKELINE_MOCK_MIN_S" in line


def test_a_name_like_no_other_points_to_the_documentation() -> None:
    assert "docs/settings.md" in refused(QUUX="3")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "65536"),
        ("PORT", "http"),
        ("ENGINE", "nextflow"),
        ("MAX_CORES", "0"),
        ("PROFILES_DIR", "/no/such/folder"),
        ("EXECUTORS", "local,--x"),
        ("SOFTWARE_DEPLOYMENT", "docker"),
        ("MAX_PENDING", "-1"),
        ("STOP_GRACE_S", "nan"),
        ("STOP_GRACE_S", "inf"),
        ("LOG_LIMIT_MB", "0"),
        ("DEFAULT_TIMEOUT_S", "0"),
        ("WARM_START", "perhaps"),
        ("MOCK_SUCCESS_RATE", "1.1"),
        ("MOCK_SEED", "x"),
        ("LOG_LEVEL", "loud"),
        ("AUTH", "basic"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_setting(name: str, value: str) -> None:
    line = refused(**{name: value})
    assert line.startswith(f"SNAKELINE_{name}: ")
    assert repr(value) in line


def test_a_database_url_is_never_repeated() -> None:
    line = refused(DATABASE_URL="mysql://user:hunter2@db/x")
    assert line.startswith("SNAKELINE_DATABASE_URL: ")
    assert "hunter2" not in line


def test_the_shortest_run_must_not_be_longer_than_the_longest() -> None:
    line = refused(MOCK_MIN_S="5", MOCK_MAX_S="4")
    assert "SNAKELINE_MOCK_MIN_S" in line
    assert "SNAKELINE_MOCK_MAX_S" in line


def test_the_documentation_names_every_setting_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(SNAKELINE_\w+)` \| ([^|]*) \|", PAGE.read_text(), re.MULTILINE))
    assert list(rows) == [PREFIX + name.upper() for name in ServiceSettings.model_fields]
    for name, field in ServiceSettings.model_fields.items():
        default = field.get_default()
        if field.default_factory is None and default is not None:
            text = str(default).lower() if isinstance(default, bool) else str(default)
            assert rows[PREFIX + name.upper()].strip() == f"`{text}`"


def test_the_documentation_says_what_the_model_says() -> None:
    page = PAGE.read_text()
    assert [
        f.description for f in ServiceSettings.model_fields.values() if str(f.description) not in page
    ] == []


class TestMachineCores:
    def test_without_quotas_it_is_the_affinity_mask(self, tmp_path: Path) -> None:
        assert machine_cores(proc=tmp_path, cgroups=tmp_path) == len(os.sched_getaffinity(0))

    @pytest.mark.parametrize(
        ("quota", "cores"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None)]
    )
    def test_a_quota_of_cgroup_v2_counts(self, tmp_path: Path, quota: str, cores: int | None) -> None:
        (tmp_path / "self").mkdir()
        (tmp_path / "self" / "cgroup").write_text("0::/a/b\n")
        (tmp_path / "a" / "b").mkdir(parents=True)
        (tmp_path / "a" / "cpu.max").write_text(quota)  # of the group around ours
        (tmp_path / "a" / "b" / "cpu.max").write_text("max 100000")
        unlimited = machine_cores(proc=tmp_path / "none", cgroups=tmp_path / "none")
        assert machine_cores(proc=tmp_path, cgroups=tmp_path) == (cores or unlimited)

    def test_a_quota_of_cgroup_v1_counts(self, tmp_path: Path) -> None:
        (tmp_path / "self").mkdir()
        (tmp_path / "self" / "cgroup").write_text("4:cpu,cpuacct:/box\n")
        box = tmp_path / "cpu" / "box"
        box.mkdir(parents=True)
        (box / "cpu.cfs_quota_us").write_text("150000")
        (box / "cpu.cfs_period_us").write_text("100000")
        assert machine_cores(proc=tmp_path, cgroups=tmp_path) == 1


@pytest.mark.parametrize("name", ["q?x", "p%20x", "a+b", "dätä dir"])
def test_the_default_store_is_in_the_data_directory_whatever_its_name(tmp_path: Path, name: str) -> None:
    data_dir = tmp_path / name
    settings = load_settings({"SNAKELINE_DATA_DIR": str(data_dir)}).runner()
    data_dir.mkdir()
    SqlStore.open(settings.database_url).close()
    assert (data_dir / "snakeline.db").exists()
    assert [path.name for path in tmp_path.iterdir()] == [name]
