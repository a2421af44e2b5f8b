"""`make mutants`: removes one guard after the other, and fails unless a test then fails.

Every guard of `guards.toml` is removed in a copy of the project, and the tests named for it are run
there. Before that the same tests are run in an untouched copy, where they must pass: a test that fails
anyway proves nothing. Exit code 1 when a guard was not missed, 2 when that could not be found out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mutants.guards import ROOT, Guard, StaleGuard, guards, mutated
from tests.mutants.table import NoPlace, put_into, table
from tests.mutants.tree import copy_project, copy_without
from tests.mutants.trial import Result

if TYPE_CHECKING:
    from collections.abc import Sequence

_BASELINE_LIMIT_S = 1800.0


@dataclass(frozen=True)
class Verdict:
    """`caught` says whether a test missed the guard; `found` which, or what came instead."""

    guard: Guard
    caught: bool
    found: str
    duration_s: float = 0.0
    output: str = ""


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a program's output


_running: set[subprocess.Popen[str]] = set()


def trial(copy: Path, scratch: Path, limit_s: float, arguments: Sequence[str]) -> Result:
    """Run pytest in the copy, in a process that ends all it leaves behind."""
    scratch.mkdir()
    command = [sys.executable, "-m", "tests.mutants.trial", str(copy), str(scratch), str(limit_s), *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        _running.add(process)
        try:
            output, _ = process.communicate()
        finally:
            _running.discard(process)
    if process.returncode:
        return Result(trouble=f"the trial ended with {process.returncode}")
    return Result(**json.loads(output.splitlines()[-1]))


def baseline(chosen: Sequence[Guard], template: Path, jobs: int) -> Result:
    """The tests of all chosen guards, with every guard in place."""
    tests = sorted({test for guard in chosen for test in guard.tests})
    workers = ["-n", str(jobs)] if jobs > 1 else []
    return trial(template, template.with_name("baseline"), _BASELINE_LIMIT_S, [*workers, *tests])


def judge(guard: Guard, template: Path) -> Verdict:
    """Remove the guard and look whether it is missed."""
    place = template.with_name(guard.id)
    place.mkdir()
    try:
        copy_without(guard, template, place / "copy")
        # One test may use up half of the time; the rest is for its fixtures to end.
        options = ["-x", f"--timeout={guard.limit_s / 2:g}", "--timeout-method=signal"]
        result = trial(place / "copy", place / "scratch", guard.limit_s, [*options, *guard.tests])
    except StaleGuard as error:
        return Verdict(guard, False, f"**stale**: {error}")
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return verdict_of(guard, result)


def verdict_of(guard: Guard, result: Result) -> Verdict:
    def said(found: str, *, caught: bool) -> Verdict:
        return Verdict(guard, caught, found, result.duration_s, result.output)

    if result.trouble is not None:
        return said(f"**not found out**: {result.trouble}", caught=False)
    if result.failed or result.hung is not None:
        test = result.failed[0] if result.failed else str(result.hung)
        hangs = " (hangs)" if test == result.hung else ""
        return said(f"`{_without_parameters(test)}`{hangs}", caught=True)
    if not result.passed:
        return said(f"**not found out**: {next(iter(result.skipped.values()), 'no test ran')}", caught=False)
    return said("**nothing: it is not missed**", caught=False)


def _without_parameters(test: str) -> str:
    return test.partition("[")[0]


def run(chosen: Sequence[Guard], *, jobs: int, trust: bool) -> list[Verdict] | None:
    """A verdict for each guard in order; None when the tests fail with every guard in place."""
    with tempfile.TemporaryDirectory(prefix="snakeline-mutants-", ignore_cleanup_errors=True) as scratch:
        template = Path(scratch) / "template"
        template.mkdir()
        copy_project(template)
        subprocess.run([sys.executable, "-m", "compileall", "-q", str(template)], check=False)
        if not trust:
            result = baseline(chosen, template, jobs)
            say(
                f"With every guard in place: {len(result.passed)} tests passed, "
                f"{len(result.skipped)} skipped, {len(result.failed)} failed ({result.duration_s:g} s)."
            )
            if result.failed or result.trouble or result.hung:
                say("\n".join([*dict.fromkeys(result.failed), result.trouble or "", result.output]))
                return None
        return judge_all(chosen, template, jobs)


def judge_all(chosen: Sequence[Guard], template: Path, jobs: int) -> list[Verdict]:
    verdicts = []
    with ThreadPoolExecutor(jobs) as threads:
        try:
            for verdict in threads.map(lambda guard: judge(guard, template), chosen):
                mark = "caught  " if verdict.caught else "SURVIVED"
                say(f"{mark} {verdict.duration_s:5.1f} s  {verdict.guard.id}: {verdict.found}")
                verdicts.append(verdict)
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            for process in tuple(_running):
                process.terminate()
            raise
    return verdicts


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "words", nargs="*", help="only guards of these promises, or whose id or file holds one of these words"
    )
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (default: 2)")
    parser.add_argument("--list", action="store_true", help="show the guards and run nothing")
    parser.add_argument(
        "--trust", action="store_true", help="do not run the tests with every guard in place first"
    )
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="put the table between the marks in this page"
    )
    options = parser.parse_args(arguments)
    if options.words and options.write:
        parser.error("the table in a page is that of all guards")
    chosen = [guard for guard in guards() if _is_meant(guard, options.words)]
    if options.list:
        for guard in chosen:
            say(f"{guard.promise:4} {guard.id}: {guard.what}")
        return 0
    try:
        for guard in chosen:
            mutated(guard, ROOT)
    except StaleGuard as error:
        say(str(error))
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    verdicts = run(chosen, jobs=max(1, options.jobs), trust=options.trust)
    if verdicts is None:
        return 2
    return report(verdicts, page=options.write)


def _is_meant(guard: Guard, words: Sequence[str]) -> bool:
    known = (guard.id, *(edit.file for edit in guard.edits))
    return not words or any(word == guard.promise or word in text for word in words for text in known)


def report(verdicts: Sequence[Verdict], *, page: Path | None) -> int:
    content = table((v.guard, v.found, v.duration_s) for v in verdicts)
    survivors = [v for v in verdicts if not v.caught]
    say(f"\n{content}\n{len(verdicts)} guards removed one at a time, {len(survivors)} not missed.")
    for verdict in survivors:
        say(f"\n{verdict.guard.id}: {verdict.guard.why}\n{verdict.output[-1500:]}")
    if page is not None:
        try:
            put_into(page, content)
        except NoPlace as error:
            say(str(error))
            return 2
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
