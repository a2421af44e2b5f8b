"""What is installed for Snakemake: a change of it is noticed, so that a warm process is renewed."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.engines import make_engine, python_program

if TYPE_CHECKING:
    from pathlib import Path


def installation(root: Path, packages: str) -> Path:
    """As installers lay it out: the command, the interpreter, a folder of packages."""
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "python3").symlink_to(sys.executable)
    (root / packages).mkdir(parents=True)
    return python_program(root / "bin" / "snakemake", f"#!{root}/bin/python3\n")


@pytest.mark.parametrize("packages", ["lib/python3.11/site-packages", "lib/python3/dist-packages"])
def test_a_package_that_is_installed_or_removed_makes_it_another_engine(
    tmp_path: Path, packages: str
) -> None:
    program = installation(tmp_path / "env", packages)
    engine = make_engine("snakemake", tmp_path, snakemake=str(program))

    def signature() -> str:
        spec = engine.warm_spec()
        assert spec is not None
        return spec.signature

    seen = [signature()]
    assert signature() == seen[0]
    metadata = tmp_path / "env" / packages / "plugin-1.0.dist-info"
    metadata.mkdir()
    seen.append(signature())
    metadata.rename(metadata.with_name("plugin-1.1.dist-info"))
    # An upgrade takes longer than the clock of a file system that counts in whole ticks.
    os.utime(metadata.parent, ns=(0, 1))
    seen.append(signature())
    assert len(set(seen)) == len(seen)
