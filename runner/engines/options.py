"""The options a caller may set: one table of names, types, flags and checks.

What gets through becomes arguments and nothing else: no value begins with `-`, and none is a path, a piece of
shell or of Python. Snakemake evaluates some of these values (`--default-resources`, `--set-resources`), so
amounts are whole numbers, or sizes that are turned into one here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runner.engines.json_pointer import escape
from runner.errors import FieldError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from runner.engines.offer import Offer
    from runner.jobs import JobSpec

_NAME: Final = r"[A-Za-z][A-Za-z0-9_]{0,127}"
_TARGET: Final = r"[A-Za-z0-9_][A-Za-z0-9_./~=+@:-]{0,1023}"
_SIZE: Final = r"[1-9][0-9]{0,8} ?(MB|MiB|GB|GiB|TB|TiB)"
_SIZED: Final = ("mem", "disk")
_UNIT_BYTES: Final = {"MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30, "TB": 10**12, "TiB": 2**40}
_MAX_AMOUNT: Final = 10**12
_MAX_ITEMS: Final = 100
_TRIGGERS: Final = ("mtime", "params", "input", "software-env", "code")
_SOFTWARE: Final = ("conda", "apptainer", "env-modules")

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Option:
    """One option: how it is described, what is wrong with a value, and which arguments one becomes.

    A problem is a pointer below the option's own, and what the value there must be.
    """

    schema: Schema
    problems: Callable[[Any], Iterator[tuple[str, str]]]
    arguments: Callable[[Any], list[str]]


# ------------------------------------------------------------ kinds of values


def _switch(flag: str, description: str) -> Option:
    def problems(value: Any) -> Iterator[tuple[str, str]]:
        if not isinstance(value, bool):
            yield "", "must be true or false"

    return Option(
        {"type": "boolean", "description": description}, problems, lambda value: [flag] if value else []
    )


def _number(flag: str, low: int, high: int, description: str) -> Option:
    def problems(value: Any) -> Iterator[tuple[str, str]]:
        if not _is_integer(value, low, high):
            yield "", f"must be an integer from {low} to {high}"

    schema = {"type": "integer", "minimum": low, "maximum": high, "description": description}
    return Option(schema, problems, lambda value: [flag, str(value)])


def _names(flag: str, pattern: str, what: str, description: str) -> Option:
    """A list of names, given as one flag: one that begins with `-` would be the next flag."""

    def problems(value: Any) -> Iterator[tuple[str, str]]:
        if not isinstance(value, (list, tuple)) or not 0 < len(value) <= _MAX_ITEMS:
            yield "", f"must be a list of 1 to {_MAX_ITEMS} {what}"
            return
        for index, name in enumerate(value):
            if not isinstance(name, str) or not re.fullmatch(pattern, name) or ".." in name.split("/"):
                yield f"/{index}", f"must be one of the {what}: letters, digits and _ . / ~ = + @ : -"

    items = {"type": "string", "pattern": f"^{pattern}$"}
    schema = _array(items, description)
    return Option(schema, problems, lambda value: [flag, *value])


def _choices(flag: str, known: tuple[str, ...], description: str) -> Option:
    def problems(value: Any) -> Iterator[tuple[str, str]]:
        told = "must be a list of one or more of " + ", ".join(known)
        is_list = isinstance(value, (list, tuple)) and 0 < len(value) <= len(known)
        if not is_list or any(not isinstance(name, str) or name not in known for name in value):
            yield "", told
        elif len(set(value)) < len(value):
            yield "", "names one of them twice"

    schema = {**_array({"enum": list(known)}, description), "maxItems": len(known), "uniqueItems": True}
    return Option(schema, problems, lambda value: [flag, *value])


def _registered(flag: str, description: str) -> Option:
    def problems(value: Any) -> Iterator[tuple[str, str]]:
        if not isinstance(value, str) or not re.fullmatch(_REGISTERED, value):
            yield "", "must be a name: letters, digits, _ and -"

    schema = {"type": "string", "pattern": f"^{_REGISTERED}$", "description": description}
    return Option(schema, problems, lambda value: [flag, value])


_REGISTERED: Final = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"


def _amounts(flag: str, description: str) -> Option:
    schema = {**_AMOUNTS_SCHEMA, "description": description}
    return Option(schema, _amount_problems, lambda value: [flag, *_amount_words(value)])


def _threads(flag: str, description: str) -> Option:
    def problems(value: Any) -> Iterator[tuple[str, str]]:
        for pointer, threads in _entries(value):
            if pointer is None:
                yield threads
            elif not _is_integer(threads, 1, 10**6):
                yield pointer, "must be a number of threads, 1 or more"

    threads = {"type": "integer", "minimum": 1, "maximum": 10**6}
    schema = {**_mapping(threads), "description": description}
    return Option(
        schema, problems, lambda value: [flag, *(f"{rule}={number}" for rule, number in value.items())]
    )


def _amounts_of_rules(flag: str, description: str) -> Option:
    def problems(value: Any) -> Iterator[tuple[str, str]]:
        for pointer, amounts in _entries(value):
            if pointer is None:
                yield amounts
            else:
                yield from ((pointer + inner, detail) for inner, detail in _amount_problems(amounts))

    def arguments(value: Any) -> list[str]:
        words = [f"{rule}:{word}" for rule, amounts in value.items() for word in _amount_words(amounts)]
        return [flag, *words]

    schema = {**_mapping(_AMOUNTS_SCHEMA), "description": description}
    return Option(schema, problems, arguments)


def _batch(description: str) -> Option:
    def problems(value: Any) -> Iterator[tuple[str, str]]:
        if not isinstance(value, dict) or value.keys() != {"rule", "part", "of"}:
            yield "", "must be an object with rule, part and of"
        elif not isinstance(value["rule"], str) or not re.fullmatch(_NAME, value["rule"]):
            yield "/rule", "must be the name of a rule"
        elif not _is_integer(value["of"], 1, 10**6):
            yield "/of", "must be an integer from 1 to 1000000"
        elif not _is_integer(value["part"], 1, value["of"]):
            yield "/part", "must be an integer from 1 to `of`"

    count = {"type": "integer", "minimum": 1, "maximum": 10**6}
    schema = {
        "type": "object",
        "required": ["rule", "part", "of"],
        "additionalProperties": False,
        "properties": {"rule": {"type": "string", "pattern": f"^{_NAME}$"}, "part": count, "of": count},
        "description": description,
    }

    def arguments(value: Any) -> list[str]:
        return ["--batch", f"{value['rule']}={value['part']}/{value['of']}"]

    return Option(schema, problems, arguments)


# ------------------------------------------------------------ parts of values


def _array(items: Schema, description: str) -> Schema:
    return {
        "type": "array",
        "items": items,
        "minItems": 1,
        "maxItems": _MAX_ITEMS,
        "description": description,
    }


def _mapping(values: Schema) -> Schema:
    return {
        "type": "object",
        "minProperties": 1,
        "maxProperties": _MAX_ITEMS,
        "propertyNames": {"pattern": f"^{_NAME}$"},
        "additionalProperties": values,
    }


_AMOUNTS_SCHEMA: Final[Schema] = {
    **_mapping({"type": "integer", "minimum": 0, "maximum": _MAX_AMOUNT}),
    "properties": {name: {"type": "string", "pattern": f"^{_SIZE}$"} for name in _SIZED},
}


def _is_integer(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _entries(value: Any) -> Iterator[tuple[str | None, Any]]:
    """The entries of an object with names as keys; what is wrong with it comes with None."""
    if not isinstance(value, dict) or not 0 < len(value) <= _MAX_ITEMS:
        yield None, ("", f"must be an object of 1 to {_MAX_ITEMS} names")
        return
    for name, inner in value.items():
        if re.fullmatch(_NAME, name):
            yield f"/{name}", inner
        else:
            yield None, (f"/{escape(name)}", "is no name: a letter, then letters, digits and _")


def _amount_problems(value: Any) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for pointer, amount in _entries(value):
        if pointer is None:
            yield amount
            continue
        name = pointer[1:]
        if name in _SIZED:
            if not isinstance(amount, str) or not re.fullmatch(_SIZE, amount):
                yield pointer, f"must be a size such as 16 GB; {name}_mb takes a number"
        elif not _is_integer(amount, 0, _MAX_AMOUNT):
            yield pointer, f"must be an integer from 0 to {_MAX_AMOUNT}"
        told = _unit_of(name)[0]
        if told in seen:
            yield pointer, "is told twice, in other units"
        seen.add(told)


def _unit_of(name: str) -> tuple[str, int]:
    """What Snakemake calls that resource, and how many bytes one of it is; 0 where it is no size."""
    for sized in _SIZED:
        if name in (sized, f"{sized}_mb"):
            return f"{sized}_mb", 10**6
        if name == f"{sized}_mib":
            return f"{sized}_mb", 2**20
    return name, 0


def _amount_words(amounts: Mapping[str, int | str]) -> list[str]:
    return [f"{name}={amount}" for name, amount in _plain(amounts).items()]


def _plain(amounts: Mapping[str, int | str]) -> dict[str, int]:
    """Every amount as a whole number; sizes as Snakemake's `mem_mb` and `disk_mb`, rounded up."""
    result: dict[str, int] = {}
    for given, amount in amounts.items():
        name, unit_bytes = _unit_of(given)
        if isinstance(amount, str):
            result[name] = _mb(amount)
        else:
            result[name] = -(-amount * unit_bytes // 10**6) if unit_bytes else amount
    return result


def _mb(size: str) -> int:
    digits = re.match(r"[0-9]+", size)
    assert digits is not None, size
    return -(-int(digits[0]) * _UNIT_BYTES[size[digits.end() :].strip()] // 10**6)


# ------------------------------------------------------------ the table

OPTIONS: Final[Mapping[str, Option]] = {
    "keep_going": _switch("--keep-going", "Go on with tasks that do not depend on a failed one."),
    "force_all": _switch("--forceall", "Run everything again, up to date or not."),
    "force_rules": _names("--forcerun", _TARGET, "rules or files", "Rules or files to run again."),
    "until": _names("--until", _TARGET, "rules or files", "Rules or files to stop behind."),
    "omit_from": _names("--omit-from", _TARGET, "rules or files", "Rules or files to stop before."),
    "rerun_triggers": _choices(
        "--rerun-triggers", _TRIGGERS, "What makes a task run again; all of them if left out."
    ),
    "retries": _number("--retries", 0, 100, "How often a task that fails is tried again within the run."),
    "resources": _amounts("--resources", "How much of each resource the run's tasks may use together."),
    "default_resources": _amounts("--default-resources", "Resources of rules that name none."),
    "set_threads": _threads("--set-threads", "Threads by rule, in place of what the workflow says."),
    "set_resources": _amounts_of_rules(
        "--set-resources", "Resources by rule, in place of what the workflow says."
    ),
    "batch": _batch("Make one part of the inputs of a rule that gathers many."),
    "profile": _registered("--profile", "A profile that the operator has registered."),
    "executor": _registered("--executor", "Where tasks run: an executor that the operator allows."),
    "software_deployment": _choices(
        "--software-deployment-method", _SOFTWARE, "How rules get their software, if allowed here."
    ),
    "dry_run": _switch("--dry-run", "Say what would be run, and run nothing."),
    "touch": _switch("--touch", "Mark existing outputs as up to date, and run nothing."),
}
"""Every option by its name, in the order in which arguments are made of them."""

EXAMPLE: Final[Mapping[str, Any]] = {
    "keep_going": True,
    "force_rules": ["align"],
    "resources": {"mem": "16 GB", "downloads": 2},
    "set_threads": {"align": 8},
}


def document() -> Schema:
    """The JSON Schema of all options together, for whoever writes a job."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: option.schema for name, option in OPTIONS.items()},
        "description": "What Snakemake is told besides.",
        "examples": [dict(EXAMPLE)],
    }


def errors(options: Mapping[str, Any], offer: Offer) -> Iterator[FieldError]:
    """What is wrong with them, with pointers into the request; also what the operator does not offer."""
    for name, value in options.items():
        pointer = f"/options/{escape(name)}"
        option = OPTIONS.get(name)
        if option is None:
            yield FieldError(pointer, "is unknown; known: " + ", ".join(OPTIONS))
            continue
        found = [FieldError(pointer + below, detail) for below, detail in option.problems(value)]
        yield from found
        if not found and (detail := offer.refusal(name, value)) is not None:
            yield FieldError(pointer, detail)


def arguments(spec: JobSpec, offer: Offer) -> list[str]:
    """What checked options become; a job's memory is the most its tasks may ask for together.

    Profiles are switched off unless one is asked for by its name: Snakemake would load one from the
    working directory or the environment, and a profile may run code. A run that runs nothing needs no
    executor.
    """
    given = dict(spec.options)
    if given.get("dry_run"):
        given.pop("touch", None)
    if given.get("dry_run") or given.get("touch"):
        given.pop("executor", None)
    limits = _plain(given.pop("resources", {}))
    if spec.memory_mb is not None:
        limits["mem_mb"] = min(spec.memory_mb, limits.pop("mem_mb", spec.memory_mb))
    result = ["--resources", *(f"{name}={amount}" for name, amount in limits.items())] if limits else []
    profile = given.pop("profile", None)
    for name, option in OPTIONS.items():
        if name in given:
            result += option.arguments(given[name])
    if given.get("executor", "local") != "local":
        # Elsewhere than here cores are counted by whoever has them: so many tasks are there at a time.
        result += ["--jobs", str(spec.cores)]
    folder = "none" if profile is None else offer.profile_folder(profile)
    return [*result, "--profile", folder, "--workflow-profile", "none"]
