"""Jobs of which everything is known beforehand: exit code, log, and how often each may start."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from mock_snakemake.streams import numbered

WORKFLOW: Final = "single"
_SNAKEFILE: Final = 'rule one:\n    shell: "true"\n'
_STAND_IN: Final = Path(__file__).parents[2] / "mock_snakemake" / "__main__.py"
_TIME: Final = re.compile(rb"^\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d [\d:]{8} \d{4}\]$", re.MULTILINE)
_SNAKEFILE_PATH: Final = re.compile(rb'in file "[^"]*"')
_VARYING: Final = (b"[", b"MockFailure in file ")
_UNLOCKED: Final = b"Unlocked working directory.\n"
_STOPPED: Final = b"Terminating processes on user request, this might take some time.\n"


def make_workflows(directory: Path) -> Path:
    """A folder of workflows with the one that has a single rule: each run of it says the same."""
    folder = directory / "workflows" / WORKFLOW
    folder.mkdir(parents=True)
    (folder / "Snakefile").write_text(_SNAKEFILE)
    return folder.parent


@dataclass(frozen=True)
class Plan:
    """What a job will do. It appends `<job id>/<attempt>` to the file `count` at each start.

    `output_bytes` is made of whole lines of 16 bytes, so that what is printed behind them starts a line.
    """

    exit_code: int
    output_bytes: int
    count: Path
    seconds: float = 0.0
    hold: Path | None = None
    children: int = 0
    max_retries: int = 0
    retry_lost: bool = False

    @property
    def body(self) -> dict[str, Any]:
        mock: dict[str, Any] = {
            "exit_code": self.exit_code,
            "output_bytes": self.output_bytes,
            "seconds": self.seconds,
            "count_starts": str(self.count),
        }
        if self.hold is not None:
            mock["hold"] = str(self.hold)
        if self.children:
            mock["spawn_children"] = self.children
        body: dict[str, Any] = {"workflow": WORKFLOW, "parameters": {"mock": mock}}
        if self.max_retries:
            body |= {"max_retries": self.max_retries, "retry_lost": self.retry_lost}
        return body

    @property
    def status(self) -> str:
        return "failed" if self.exit_code else "completed"

    def log_is_exact(self, log: bytes) -> bool:
        """Whether this is the log of a run that nobody disturbed, but for the times of day in it.

        A run that finds the lock of one that was killed takes it away first, and says so.
        """
        return _timeless(log.removeprefix(_UNLOCKED)) == self._log

    def log_is_cut(self, log: bytes) -> bool:
        """Whether it is the beginning of that log, as of a run that was ended from outside.

        One that was told to end says so in its last line.
        """
        whole, newline, cut = log.removeprefix(_UNLOCKED).removesuffix(_STOPPED).rpartition(b"\n")
        expected = self._log
        begun = _timeless(whole + newline)
        # A line with a time or a path in it may have been cut within that.
        return expected.startswith(begun + cut) or (expected.startswith(begun) and cut.startswith(_VARYING))

    @property
    def _log(self) -> bytes:
        before, after = _frame(fails=self.exit_code > 0)
        return before + _numbers(self.output_bytes) + after


class Starts:
    """The starts that the jobs themselves have counted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()  # only what is there can be opened to jobs

    def counted(self) -> Counter[tuple[str, int]]:
        """How often each attempt of each job was started."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return Counter(
            (job_id, int(attempt)) for job_id, _, attempt in (line.partition("/") for line in lines)
        )


def _timeless(log: bytes) -> bytes:
    return _SNAKEFILE_PATH.sub(b"in the Snakefile", _TIME.sub(b"[time]", log))


def _numbers(size_bytes: int) -> bytes:
    return numbered(0, size_bytes // 16 + 1)[:size_bytes]


@cache
def _frame(*, fails: bool) -> tuple[bytes, bytes]:
    """What a run says before and after the bytes it was told to print: asked of the stand-in itself."""
    mark = _numbers(16)
    with TemporaryDirectory() as directory:
        (Path(directory) / "Snakefile").write_text(_SNAKEFILE)
        config = Path(directory) / "config.json"
        config.write_text(f'{{"mock": {{"exit_code": {int(fails)}, "output_bytes": 16, "seconds": 0}}}}')
        done = subprocess.run(
            [sys.executable, str(_STAND_IN), "--cores", "1", "--configfile", str(config)],
            check=False,  # it fails where it is told to
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=30,
        )
    assert done.returncode == int(fails), done.stdout
    before, found, after = _timeless(done.stdout).partition(mark)
    assert found == mark
    return before, after
