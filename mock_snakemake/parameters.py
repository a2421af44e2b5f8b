"""What one run is told to do: `parameters.mock` of the job, and defaults from the environment."""

from __future__ import annotations

import json
import os
import signal
from typing import Any, NamedTuple

from mock_snakemake.errors import WorkflowError

_MAX_CHILDREN = 64
_MAX_BYTES = 2**40
_MAX_MEMORY_MB = 2**20
_CAUGHT_BY_NOBODY = (signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH)


class Parameters(NamedTuple):
    """Everything `parameters.mock` may say; docs/workflows.md explains each."""

    seconds: float | None = None
    exit_code: int | None = None
    signal: int | None = None
    ignore_term: bool = False
    spawn_children: int = 0
    setsid_children: int = 0
    output_bytes: int = 0
    lines: int = 0
    stderr_text: str | None = None
    hold: str | None = None
    touch: str | None = None
    count_starts: str | None = None
    fail_rule: str | None = None
    fail_times: int | None = None
    memory_mb: int = 0
    rule_memory_mb: int = 0


class Defaults(NamedTuple):
    """How runs behave that are told nothing: how long they take, and how many of them succeed."""

    min_s: float = 10.0
    max_s: float = 30.0
    success_rate: float = 0.8
    seed: str | None = None
    job_id: str = ""
    attempt: str = ""


def _number(value: Any) -> str | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return None if is_number and 0 <= value < 1e9 else "must be a number of seconds, 0 or more"


def _integer(low: int, high: int) -> Any:
    def check(value: Any) -> str | None:
        return (
            None
            if type(value) is int and low <= value <= high
            else f"must be an integer from {low} to {high}"
        )

    return check


def _signal(value: Any) -> str | None:
    ends = type(value) is int and value in set(signal.valid_signals()) - set(_CAUGHT_BY_NOBODY)
    return None if ends else "must be the number of a signal that ends a process"


def _boolean(value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) and value and "\0" not in value else "must be a text"


_CHECKS: dict[str, Any] = {
    "seconds": _number,
    "exit_code": _integer(0, 255),
    "signal": _signal,
    "ignore_term": _boolean,
    "spawn_children": _integer(0, _MAX_CHILDREN),
    "setsid_children": _integer(0, _MAX_CHILDREN),
    "output_bytes": _integer(0, _MAX_BYTES),
    "lines": _integer(0, 10**9),
    "stderr_text": _text,
    "hold": _text,
    "touch": _text,
    "count_starts": _text,
    "fail_rule": _text,
    "fail_times": _integer(0, 1000),
    "memory_mb": _integer(0, _MAX_MEMORY_MB),
    "rule_memory_mb": _integer(0, _MAX_MEMORY_MB),
}


def problems(mock: Any) -> list[tuple[str, str]]:
    """What is wrong with `parameters.mock`: pairs of a key ("" for the whole) and what it must be."""
    if not isinstance(mock, dict):
        return [("", "must be an object")]
    found: list[tuple[str, str]] = []
    for key, value in mock.items():
        check = _CHECKS.get(key)
        if check is None:
            found.append((str(key), "is unknown; known: " + ", ".join(_CHECKS)))
        elif detail := check(value):
            found.append((key, detail))
    return found


def read_parameters(config_path: str | None) -> Parameters:
    """The config file's `mock`. Raises WorkflowError when the file or the value makes no sense."""
    if config_path is None:
        return Parameters()
    try:
        with open(config_path, "rb") as file:
            config = json.load(file)
    except OSError as error:
        raise WorkflowError(f"Config file {config_path} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise WorkflowError(f"Config file {config_path} is not valid JSON.") from None
    if not isinstance(config, dict):
        raise WorkflowError("Config file must be given as JSON with keys at top level.")
    mock = config.get("mock", {})
    for key, detail in problems(mock):
        raise WorkflowError(f"parameters.mock{key and '.' + key} {detail}.")
    return Parameters(**mock)


def read_defaults() -> Defaults:
    """The settings the service passes in the environment. Raises WorkflowError for nonsense."""
    get = os.environ.get
    try:
        return Defaults(
            min_s=float(get("MOCK_SNAKEMAKE_MIN_S", "10")),
            max_s=float(get("MOCK_SNAKEMAKE_MAX_S", "30")),
            success_rate=float(get("MOCK_SNAKEMAKE_SUCCESS_RATE", "0.8")),
            seed=get("MOCK_SNAKEMAKE_SEED"),
            job_id=get("SNAKELINE_JOB_ID", ""),
            attempt=get("SNAKELINE_ATTEMPT", ""),
        )
    except ValueError:
        raise WorkflowError("MOCK_SNAKEMAKE_MIN_S, _MAX_S and _SUCCESS_RATE must be numbers.") from None
