"""One run: what happens between the arguments and the exit code."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import Any

from mock_snakemake.errors import WorkflowError
from mock_snakemake.parameters import Defaults, Parameters
from mock_snakemake.plan import Plan, forced
from mock_snakemake.snakefile import Rule
from mock_snakemake.streams import Console, Events, write_all, write_numbered

_CHILD_SLEEP_S = "600"
_HOLD_LOOK_S = 0.01
_TOLD_TO_FAIL = "mock_snakemake makes this rule fail, as it was told to."


class Run:
    """A run of the wanted rules, one after the other."""

    def __init__(
        self,
        *,
        rules: list[Rule],
        wanted: list[Rule],
        parameters: Parameters,
        defaults: Defaults,
        arguments: Any,
        console: Console,
        events: Events,
    ) -> None:
        self._rules = rules
        self._parameters = parameters
        self._defaults = defaults
        self._arguments = arguments
        self._console = console
        self._events = events
        seed = defaults.seed
        # Runs of one job repeat with a fixed seed, different jobs and attempts still differ.
        self._random = random.Random(None if seed is None else f"{seed}/{defaults.job_id}/{defaults.attempt}")
        self._duration_s = self._how_long()
        again = forced(wanted, rules, arguments.forcerun)
        self._plan = Plan(
            rules, wanted, lambda rule: arguments.forceall or rule.name in again or not self._is_made(rule)
        )
        self._todo = self._plan.to_do
        self._done = 0
        self._children: list[int] = []
        self._taken: bytearray | None = None  # memory, held until the run ends

    # ------------------------------------------------------------ what is to be done

    def _how_long(self) -> float:
        given = self._parameters.seconds
        low, high = self._defaults.min_s, max(self._defaults.min_s, self._defaults.max_s)
        rolled = self._random.uniform(low, high)
        if self._arguments.touch:
            return 0
        return rolled if given is None else given

    def _path(self, name: str) -> str:
        return os.path.join(self._arguments.directory, name)

    def _is_made(self, rule: Rule) -> bool:
        outputs = rule.plain_outputs()
        complete = len(outputs) == len(rule.outputs) > 0
        return complete and all(os.path.exists(self._path(path)) for path in outputs)

    def _rule_to_fail(self) -> str | None:
        """The name of the rule that will fail in this run, if one will."""
        parameters = self._parameters
        if self._arguments.touch:
            return None
        rolled = self._random.random() >= self._defaults.success_rate
        victim = self._random.choice(self._todo).name
        if parameters.fail_rule is not None:
            if all(rule.name != parameters.fail_rule for rule in self._rules):
                raise WorkflowError(f"parameters.mock.fail_rule: there is no rule {parameters.fail_rule}.")
            victim = parameters.fail_rule
        if parameters.fail_times is not None:
            return victim if self._count_start() <= parameters.fail_times else None
        if parameters.fail_rule is not None:
            return victim
        fails = rolled if parameters.exit_code is None else parameters.exit_code > 0
        return victim if fails else None

    def _count_start(self) -> int:
        """Which start of a run in this working directory this is, counted in a file there."""
        path = self._path(".snakemake/mock_starts")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "ab") as file:
            file.write(b".")
            file.flush()
            return file.tell()

    # ------------------------------------------------------------ the run

    def dry(self) -> int:
        """Say what would be done; nothing is made, nothing sleeps, nothing fails."""
        self._begin()
        for rule in self._todo:
            self._announce(rule)
        if self._todo:
            self._console.line(
                "This was a dry-run (flag -n). The order of jobs does not reflect the order of execution."
            )
        return 0

    def run(self) -> int:
        self._leave_marks()
        lock = self._lock()
        try:
            return self._run_all()
        finally:
            self._end_children()
            if lock:
                os.unlink(lock)

    def _run_all(self) -> int:
        self._begin()
        self._spawn_children()
        self._print_output()
        if self._parameters.memory_mb:
            self._flush()
            self._taken = _take_memory(self._parameters.memory_mb)
        if self._parameters.hold is not None:
            self._flush()
            _wait_for(self._parameters.hold)
        if not self._todo:
            return self._parameters.exit_code or 0
        failing = self._rule_to_fail()
        failed: set[str] = set()
        for rule, seconds in zip(self._todo, self._shares(), strict=True):
            if failed and not self._arguments.keep_going:
                break
            if self._plan.waits_for_any(rule, failed):
                failed.add(rule.name)
                continue
            if not self._run_rule(rule, seconds, fails=rule.name == failing):
                failed.add(rule.name)
        if not failed:
            return self._parameters.exit_code or 0
        self._console.line("Shutting down, this might take some time.")
        self._console.line("Exiting because a job execution failed. Look above for error messages")
        self._console.line("WorkflowError:\nAt least one job did not complete successfully.")
        self._events.add("error", message="At least one job did not complete successfully.")
        return self._parameters.exit_code or 1

    def _run_rule(self, rule: Rule, seconds: float, *, fails: bool) -> bool:
        jobid = self._plan.number(rule)
        is_last = rule is self._todo[-1]
        self._events.add("job_started", jobids=[jobid])
        self._announce(rule)
        if seconds > 0:
            self._flush()
            time.sleep(seconds)
        if self._parameters.rule_memory_mb and rule is self._todo[0] and self._command_fails():
            self._fail(rule, jobid, "its command was ended by SIGKILL", exit_signal=signal.SIGKILL)
            return False
        if self._parameters.stderr_text is not None and (fails or is_last):
            self._console.line(self._parameters.stderr_text)
        if fails:
            self._fail(rule, jobid, exit_code=1)
            return False
        if self._parameters.signal is not None and is_last:
            self._flush()
            _die_by(self._parameters.signal)
        for path in rule.plain_outputs():
            if self._arguments.touch:
                self._touch(path)
            else:
                self._write(path, f"{rule.name}: a stand-in made by mock_snakemake\n")
        self._done += 1
        total = len(self._todo)
        self._events.add("job_finished", jobid=jobid)
        self._events.add("progress", done=self._done, total=total)
        self._console.line(f"[{time.asctime()}]\nFinished jobid: {jobid} (Rule: {rule.name})")
        self._console.line(f"{self._done} of {total} steps ({100 * self._done // total}%) done")
        return True

    def _command_fails(self) -> bool:
        """Take the memory in a process of its own, as a rule's command would; whether that was killed."""
        self._flush()
        pid = os.fork()
        if pid == 0:
            try:
                _take_memory(self._parameters.rule_memory_mb)
                os._exit(0)
            finally:
                os._exit(1)
        return os.waitpid(pid, 0)[1] != 0

    def _fail(self, rule: Rule, jobid: int, why: str = _TOLD_TO_FAIL, **ended: int) -> None:
        message = self._parameters.stderr_text or why
        logs = rule.plain_logs()
        for path in logs:
            self._write(path, message + "\n")
        console = self._console
        console.line(f'RuleException:\nMockFailure in file "{self._arguments.snakefile}":\n{message}')
        console.line(f"[{time.asctime()}]\nError in rule {rule.name}:\n    message: None\n    jobid: {jobid}")
        if rule.outputs:
            console.line("    output: " + ", ".join(rule.outputs))
        if logs:
            console.line("    log: " + ", ".join(logs) + " (check log file(s) for error details)")
        self._events.add("job_error", jobid=jobid, rule=rule.name, log=logs, **ended)

    # ------------------------------------------------------------ what it shows

    def _begin(self) -> None:
        arguments, todo = self._arguments, self._todo
        self._events.add("workflow_started", snakefile=arguments.snakefile, snakemake_version="mock")
        console = self._console
        console.line("mock_snakemake: a stand-in for Snakemake, no rule is really run.")
        console.line("Building DAG of jobs...")
        self._events.add("rule_graph", **self._plan.rule_graph())
        for tasks in self._plan.tasks():
            self._events.add("tasks_planned", tasks=tasks)
        if not todo:
            console.line("Nothing to be done (all requested files are present and up to date).")
            return
        console.line(f"Provided cores: {arguments.cores}\nJob stats:")
        width = max(5, *(len(rule.name) for rule in todo))
        console.line(f"{'job':{width}}  count\n{'-' * width}  -----")
        for rule in todo:
            console.line(f"{rule.name:{width}}      1")
        console.line(f"{'total':{width}}  {len(todo):5}\n")
        counts = {rule.name: 1 for rule in todo}
        self._events.add("run_info", total=len(todo), rules=counts, cores=arguments.cores)

    def _announce(self, rule: Rule) -> None:
        jobid = self._plan.number(rule)
        console = self._console
        console.line(f"[{time.asctime()}]\nlocalrule {rule.name}:")
        for title, paths in (("input", rule.inputs), ("output", rule.outputs), ("log", rule.logs)):
            if paths:
                console.line(f"    {title}: {', '.join(paths)}")
        console.line(f"    jobid: {jobid}")
        self._events.add("job_info", **self._plan.job_info(rule))

    def _flush(self) -> None:
        self._events.flush()
        self._console.flush()

    def _print_output(self) -> None:
        parameters = self._parameters
        if parameters.lines or parameters.output_bytes:
            self._flush()
            for first in range(1, parameters.lines + 1, 1000):
                last = min(first + 1000, parameters.lines + 1)
                write_all(1, b"".join(b"line %d\n" % number for number in range(first, last)))
            write_numbered(1, parameters.output_bytes)

    # ------------------------------------------------------------ what it leaves

    def _shares(self) -> list[float]:
        """The run's duration cut into one random piece per rule."""
        if self._duration_s == 0:
            return [0.0] * len(self._todo)
        weights = [self._random.uniform(0.5, 1.5) for _ in self._todo]
        return [self._duration_s * weight / sum(weights) for weight in weights]

    def _write(self, name: str, text: str) -> None:
        path = self._path(name)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            write_all(fd, text.encode("utf-8", "replace"))
        finally:
            os.close(fd)

    def _touch(self, name: str) -> None:
        try:
            os.utime(self._path(name))
        except FileNotFoundError:
            self._console.line(f"Output files not touched because they don't exist: {name}")

    def _leave_marks(self) -> None:
        parameters, defaults = self._parameters, self._defaults
        if parameters.touch is not None:
            _append(parameters.touch, b"start %d\n" % os.getpid())
        if parameters.count_starts is not None:
            _append(parameters.count_starts, f"{defaults.job_id}/{defaults.attempt}\n".encode())

    def _lock(self) -> str | None:
        """Snakemake's lock on the working directory, taken by every run that lasts. Raises WorkflowError."""
        directory = self._path(".snakemake/locks")
        if _entries(directory):
            raise WorkflowError(
                "Error: Directory cannot be locked. Please make sure that no other Snakemake process is "
                "trying to create the same files in the following directory:\n"
                + os.path.abspath(self._arguments.directory),
                "LockException",
            )
        if self._duration_s == 0 and self._parameters.hold is None:
            return None
        os.makedirs(directory, exist_ok=True)
        path = os.path.join(directory, "0.output.lock")
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        return path

    def _spawn_children(self) -> None:
        plain, leaving = self._parameters.spawn_children, self._parameters.setsid_children
        for number in range(plain + leaving):
            pid = os.posix_spawnp("sleep", ["sleep", _CHILD_SLEEP_S], os.environ, setsid=number >= plain)
            if number < plain:
                self._children.append(pid)

    def _end_children(self) -> None:
        # Those with a session of their own are left behind, as a daemonised grandchild of a rule would be.
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)  # our own child, not yet waited for: the pid cannot be another's
            os.waitpid(pid, 0)


def _append(path: str, line: bytes) -> None:
    """One write, so that runs which share the file do not mix their lines."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    os.write(fd, line)
    os.close(fd)


def _take_memory(size_mb: int) -> bytearray:
    """So much memory, each page of it written: room that is only asked for costs nothing."""
    taken = bytearray()
    piece = b"\1" * 2**20
    for _ in range(size_mb):
        taken += piece
    return taken


def _wait_for(path: str) -> None:
    """Return once a FIFO has been opened for writing, or once a file has something in it."""
    while True:
        try:
            with open(path, "rb") as file:
                if file.read(1) or not file.seekable():
                    return
        except FileNotFoundError:
            pass
        time.sleep(_HOLD_LOOK_S)


def _die_by(number: int) -> None:
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def _entries(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def unlock(directory: str, console: Console) -> None:
    """Take away the lock that a killed run has left."""
    locks = os.path.join(directory, ".snakemake/locks")
    for name in _entries(locks):
        os.unlink(os.path.join(locks, name))
    console.line("Unlocked working directory.")


def report_error(error: WorkflowError, console: Console, events: Events) -> None:
    """Tell of an error as Snakemake does: its kind and its text."""
    if error.kind == "Error":
        console.line(f"Error: {error}")
    else:
        console.line(f"{error.kind}:\n{error}")
    events.add("error", message=str(error))
