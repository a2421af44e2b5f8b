"""Snakemake's command line, as far as the service uses it."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from typing import Any, NoReturn

from mock_snakemake import report
from mock_snakemake.errors import Terminated, WorkflowError
from mock_snakemake.parameters import Defaults, Parameters, read_defaults, read_parameters
from mock_snakemake.plan import narrowed
from mock_snakemake.run import Run, report_error, unlock
from mock_snakemake.snakefile import needed_for, read_rules
from mock_snakemake.streams import Console, Events

_LAUNCH_FLAGS = ("-I", "-S")
_FLAG_NAMES = ("keep-going", "forceall", "dry-run", "touch", "rerun-incomplete", "unlock")
_VALUE_NAMES = (
    "snakefile",
    "directory",
    "cores",
    "configfile",
    "resources",
    "report",
    "scheduler",
    "profile",
    "workflow-profile",
    "logger",
    "logger-snakeline-path",
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "mock_snakemake",
        description="Stands in for Snakemake: same arguments, no rule is run.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("targets", nargs="*")
    add("-s", "--snakefile", default="Snakefile")
    add("-d", "--directory", default=".")
    add("-c", "--cores", type=_cores, default=1)
    add("--configfile")
    add("-k", "--keep-going", action="store_true")
    add("-F", "--forceall", action="store_true")
    add("-n", "--dry-run", action="store_true")
    add("-t", "--touch", action="store_true")
    add("-R", "--forcerun", nargs="*", default=[])
    add("-U", "--until", nargs="+", default=[])
    add("-O", "--omit-from", nargs="+", default=[])
    add("--resources", nargs="+", type=_resource)
    _add_ignored(add)
    add("--rerun-incomplete", action="store_true")
    add("--unlock", action="store_true")
    add("--report")
    add("--scheduler", default="greedy")
    add("--profile", default="none")
    add("--workflow-profile", default="none")
    add("--logger")
    add("--logger-snakeline-path")
    add("--version", action="version", version="mock")
    return parser


def _add_ignored(add: Any) -> None:
    """What has no effect where no rule is run, and is still looked at as Snakemake looks at it."""
    triggers = ("code", "input", "mtime", "params", "software-env")
    add("--rerun-triggers", nargs="+", choices=triggers)
    add("--batch", type=_batch)
    add("-T", "--retries", type=int, default=0)
    add("--default-resources", nargs="*", type=_resource)
    add("--set-threads", nargs="+", type=_resource)
    add("--set-resources", nargs="+", type=_rule_resource)
    add("--executor", default="local")
    add("-j", "--jobs", type=_cores)
    add("--software-deployment-method", nargs="+", choices=("conda", "apptainer", "env-modules"))


def _cores(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise argparse.ArgumentTypeError("must be a number of cores, 1 or more")
    return int(text)


def _resource(text: str) -> str:
    name, _, amount = text.partition("=")
    if not (name.isidentifier() and amount):
        raise argparse.ArgumentTypeError("must be NAME=AMOUNT")
    return text


def _rule_resource(text: str) -> str:
    rule, _, resource = text.partition(":")
    if not rule.isidentifier():
        raise argparse.ArgumentTypeError("must be RULE:NAME=AMOUNT")
    _resource(resource)
    return text


def _batch(text: str) -> str:
    found = re.fullmatch(r"\w+=([0-9]+)/([0-9]+)", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError("must be RULE=BATCH/BATCHES")
    return text


# Built once: in a warm process every run that is forked from it finds it made.
_PARSER = _parser()


_FLAGS = {f"--{name}": name.replace("-", "_") for name in _FLAG_NAMES}
_VALUES = {f"--{name}": name.replace("-", "_") for name in _VALUE_NAMES}
_DEFAULTS = vars(_PARSER.parse_args([]))


def _parsed(argv: list[str]) -> argparse.Namespace:
    """What the service writes is read here at a fraction of the price; everything else is for argparse."""
    found = dict(_DEFAULTS)
    words = iter(argv)
    for word in words:
        if word == "--":
            found["targets"] = list(words)
        elif word in _FLAGS:
            found[_FLAGS[word]] = True
        elif word in _VALUES and (value := next(words, "-"))[:1] != "-":
            found[_VALUES[word]] = value
        else:
            return _PARSER.parse_args(argv)
    if found["cores"] != 1:
        try:
            found["cores"] = _cores(found["cores"])
        except argparse.ArgumentTypeError:
            return _PARSER.parse_args(argv)
    if isinstance(found["resources"], str):
        try:
            found["resources"] = [_resource(found["resources"])]
        except argparse.ArgumentTypeError:
            return _PARSER.parse_args(argv)
    return argparse.Namespace(**found)


def preload() -> None:
    """Called once in a process that forks runs: importing this module was all there is to do."""


def main(argv: list[str]) -> int:
    """Run with these arguments (the program's name left out) and return the exit code.

    How an interpreter was told to start this program (`-I -S …/__main__.py`) may still be in front:
    a warm process is given the whole command line. Raises SystemExit(2) for arguments it does not know.
    """
    arguments = _parsed(_own(argv))
    console = Console()
    events = Events(arguments.logger_snakeline_path if arguments.logger == "snakeline" else None)
    try:
        try:
            code = _run(arguments, console, events)
        except Terminated:
            console.line("Terminating processes on user request, this might take some time.")
            code = 1
        except WorkflowError as error:
            report_error(error, console, events)
            code = 1
        except OSError as error:
            report_error(WorkflowError(str(error), type(error).__name__), console, events)
            code = 1
        events.flush()
        console.flush()
    except OSError:
        return 1  # nobody reads what it writes: nothing is left to say it to
    return code


def _own(argv: list[str]) -> list[str]:
    start = 0
    while argv[start : start + 1] and argv[start] in _LAUNCH_FLAGS:
        start += 1
    return argv[start + 1 :] if start else argv


def _run(arguments: Any, console: Console, events: Events) -> int:
    parameters: Parameters = read_parameters(arguments.configfile)
    _handle_signals(ignore=parameters.ignore_term)
    os.makedirs(arguments.directory, exist_ok=True)
    if arguments.unlock:
        unlock(arguments.directory, console)
        return 0
    defaults: Defaults = read_defaults()
    rules = read_rules(arguments.snakefile)
    wanted = narrowed(needed_for(rules, arguments.targets), rules, arguments.until, arguments.omit_from)
    if arguments.report is not None:
        return report.write(arguments.report, wanted, arguments.directory, console)
    run = Run(
        rules=rules,
        wanted=wanted,
        parameters=parameters,
        defaults=defaults,
        arguments=arguments,
        console=console,
        events=events,
    )
    return run.dry() if arguments.dry_run else run.run()


def _handle_signals(*, ignore: bool) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN if ignore else _terminate)


def _terminate(number: int, _frame: object) -> NoReturn:
    # A second signal must not interrupt the orderly end that the first one began.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise Terminated(signal.Signals(number).name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
