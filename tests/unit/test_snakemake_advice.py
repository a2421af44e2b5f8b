"""Where Snakemake is missing people are told what fits their installation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.engines.snakemake_advice import what_to_do
from tests.support.engines import python_program

if TYPE_CHECKING:
    from pathlib import Path


def test_whoever_has_the_sources_is_told_of_their_make_target(tmp_path: Path) -> None:
    (tmp_path / "requirements-snakemake.lock").touch()
    told = what_to_do("snakemake", prefix=str(tmp_path / "venv"), sources=str(tmp_path))
    assert told == "run `make snakemake-env`, or set SNAKELINE_SNAKEMAKE to its command"


def test_where_make_install_has_put_one_it_is_named_and_where_that_is_broken_it_is_made_again(
    tmp_path: Path,
) -> None:
    (tmp_path / "snakemake" / "bin").mkdir(parents=True)
    command = tmp_path / "snakemake" / "bin" / "snakemake"
    again = "run `make install` again, or set SNAKELINE_SNAKEMAKE to its command"
    assert what_to_do("snakemake", prefix=str(tmp_path), sources=str(tmp_path / "lib")) == again
    python_program(command, "#!/usr/bin/python3\n")
    for tried, told in (("snakemake", f"set SNAKELINE_SNAKEMAKE={command}"), (str(command), again)):
        assert what_to_do(tried, prefix=str(tmp_path), sources=str(tmp_path / "lib")) == told


def test_elsewhere_no_make_target_is_named(tmp_path: Path) -> None:
    told = what_to_do("snakemake", prefix=str(tmp_path), sources=str(tmp_path))
    assert "make" not in told
    assert "SNAKELINE_SNAKEMAKE" in told
