"""`python -m benchmarks [--quick] [NAME ...]`: runs all benchmarks, or those named, and prints one table."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.rows import Options, Row, show

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES: Final = (
    "jobs_per_second",
    "snakemake_start",
    "plugin_cost",
    "snakemake_overhead",
    "submit",
    "list_pages",
    "running_jobs",
    "event_latency",
    "task_pages",
    "scrape",
    "logs",
    "log_flood",
)
_ROOT: Final = Path(__file__).resolve().parents[1]


def main(argv: Sequence[str] | None = None) -> int:
    """0 when every benchmark could be run, whatever it measured; 1 when one broke."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: rough figures")
    arguments = parser.parse_args(argv)
    if unknown := sorted(set(arguments.names) - set(NAMES)):
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(NAMES)}")
    rows: list[tuple[str, Row]] = []
    broken = []
    for name in arguments.names or NAMES:
        print(f"{name} ...", flush=True)
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="snakeline-bench-") as directory:
            options = Options(quick=arguments.quick, directory=Path(directory), root=_ROOT)
            try:
                rows += [(name, row) for row in importlib.import_module(f"benchmarks.{name}").run(options)]
            except Exception:  # noqa: BLE001 - the others are still worth their while
                traceback.print_exc()
                broken.append(name)
        print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
    print()
    show(rows)
    if broken:
        print(f"could not be run: {', '.join(broken)}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
