"""The systemd unit, by systemd's own tools; where they are not installed those tests are skipped."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support import deploy_files
from tests.support.deploy_files import UNIT

if TYPE_CHECKING:
    from pathlib import Path

ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
NEW_KEYS = {"DelegateSubgroup": 254}
"""Keys that an older systemd does not know and ignores, with the version that brought them."""
WORST_EXPOSURE = 4.5


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    return subprocess.run([ANALYZE, *arguments], capture_output=True, text=True, check=False, timeout=60)


def version() -> int:
    return int(re.findall(r"\d+", analyze("--version").stdout)[0])


def verified(unit: Path) -> list[str]:
    """What `systemd-analyze verify` finds fault with."""
    lines = analyze("verify", "--man=no", str(unit)).stderr.splitlines()
    ignored = [key for key, since in NEW_KEYS.items() if version() < since]
    return [line for line in lines if not any(f"Unknown key '{key}'" in line for key in ignored)]


@needs_systemd
def test_systemd_finds_no_fault_with_the_unit(tmp_path: Path) -> None:
    # Verified is also whether the program is there.
    program = tmp_path / "snakeline"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    installed = UNIT.read_text().replace("/opt/snakeline/bin/snakeline", str(program))
    unit = tmp_path / "snakeline.service"
    unit.write_text(installed)
    assert verified(unit) == []

    unit.write_text(installed.replace("KillMode=process", "KillMode=proces"))
    assert any("kill mode" in line for line in verified(unit))


@needs_systemd
def test_the_unit_is_as_closed_as_jobs_allow() -> None:
    outcome = analyze("security", "--offline=yes", "--no-pager", str(UNIT))
    [exposure] = re.findall(r"Overall exposure level for snakeline.service: ([\d.]+)", outcome.stdout)
    assert float(exposure) <= WORST_EXPOSURE


def test_nothing_is_closed_that_jobs_need() -> None:
    unit = deploy_files.unit()
    # Each would break some job, or all at a restart; why is in the unit.
    harmful = {
        "MemoryDenyWriteExecute",
        "PrivateDevices",
        "PrivateTmp",
        "ProcSubset",
        "ProtectClock",
        "ProtectControlGroups",
        "ProtectKernelLogs",
        "ProtectKernelTunables",
        "RemoveIPC",
        "RestrictNamespaces",
    }
    assert harmful & set(unit) == set()


def test_no_option_of_a_mount_is_written_as_if_it_were_unescaped() -> None:
    # systemd does not unescape these: with `size=25%%` no service starts, and `verify` finds no fault.
    assert not [each for each in deploy_files.unit()["TemporaryFileSystem"] if "%%" in each]


def test_a_restart_leaves_the_jobs_and_hands_control_groups_over() -> None:
    unit = deploy_files.unit()
    assert unit["KillMode"] == ["process"]
    assert (unit["Delegate"], unit["DelegateSubgroup"]) == (["yes"], ["service"])
    assert unit["OOMPolicy"] == ["continue"]


def test_the_command_has_the_services_settings_where_they_may_be_read(tmp_path: Path) -> None:
    settings, program, command = tmp_path / "env", tmp_path / "program", tmp_path / "snakeline"
    program.write_text('#!/bin/sh\necho "$SNAKELINE_DATA_DIR" "$2"\nexit 3\n')
    program.chmod(0o755)
    text = (UNIT.parent / "snakeline").read_text()
    command.write_text(
        text.replace("/etc/snakeline.env", str(settings)).replace(
            "/opt/snakeline/bin/snakeline", str(program)
        )
    )

    def run() -> tuple[int, str, str]:
        outcome = subprocess.run(
            ["/bin/sh", str(command), "show", "a  b"],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            env={},
        )
        return outcome.returncode, outcome.stdout, outcome.stderr

    assert run() == (3, " a  b\n", "")
    settings.write_text((UNIT.parent / "snakeline.env").read_text())
    assert run() == (3, "/var/lib/snakeline a  b\n", "")
