"""What can be read from a Snakefile without running it: rules, their plain files, what they wait for."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from mock_snakemake.errors import WorkflowError

_MAX_BYTES = 2**20
_MAX_INCLUDES = 32
_RULE = re.compile(
    r"^([ \t]*)(?:(?:rule|checkpoint)[ \t]*(\w*)|use[ \t]+rule[ \t]+\w+.*?\bas[ \t]+(\w+).*?)[ \t]*:"
)
_INCLUDE = re.compile(r"^[ \t]*include[ \t]*:[ \t]*[\"']([^\"'{}\n]+)[\"']")
_DIRECTIVE = re.compile(r"^[ \t]+(\w+)[ \t]*:(.*)$")
_ITEM = re.compile(r"(?:[^,()\"']|\"[^\"\n]*\"|'[^'\n]*'|\([^()]*\))+")
_LITERAL = re.compile(
    r"\s*(?:\w+\s*=\s*)?(?:(?:temp|protected|touch|ancient|report)\(\s*)?[\"']([^\"'\\\n]+)[\"']\s*\)?\s*"
)
_REFERENCE = re.compile(r"\brules\.(\w+)\.output\b")
_NUMBER = re.compile(r"[1-9][0-9]{0,5}")
_WILDCARD = re.compile(r"\{(\w+)[^{}]*\}")


class Rule(NamedTuple):
    """One rule. Only string literals are known: what a function or `expand` makes is left out."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    logs: tuple[str, ...]
    references: tuple[str, ...]  # rules named as `rules.<name>.output`
    benchmarks: tuple[str, ...] = ()
    threads: int = 1
    script: str | None = None  # or notebook, or wrapper
    is_checkpoint: bool = False

    def plain_outputs(self) -> list[str]:
        """The outputs without wildcards that lie below the working directory."""
        return [path for path in self.outputs if _is_plain(path)]

    def plain_logs(self) -> list[str]:
        return [path for path in self.logs if _is_plain(path)]

    def makes(self, path: str) -> bool:
        return any(_matches(pattern, path) for pattern in self.outputs)


def read_rules(path: str) -> list[Rule]:
    """The rules in the order written, those of included files where they are included.

    Raises WorkflowError: the file is missing or cannot be read.
    """
    rules: list[Rule] = []
    _read_into(rules, path, [path])
    return rules


def _read_into(rules: list[Rule], path: str, seen: list[str]) -> None:
    name: str | None = None
    is_checkpoint = False
    indent = 0
    blocks: dict[str, list[str]] = {}
    block: list[str] = []
    for line in _text(path).splitlines():
        text = line.split("#", 1)[0].rstrip() if "#" in line else line.rstrip()
        if not text:
            continue
        depth = len(text) - len(text.lstrip())
        if name is not None and depth <= indent:
            rules.append(_rule(name, blocks, is_checkpoint=is_checkpoint))
            name = None
        if found := _RULE.match(text):
            if name is not None:
                rules.append(_rule(name, blocks, is_checkpoint=is_checkpoint))
            name = found[2] or found[3] or str(len(rules) + 1)
            is_checkpoint = text.lstrip().startswith("checkpoint")
            indent, blocks, block = depth, {}, []
        elif name is None:
            included = _INCLUDE.match(text)
            if included and len(seen) < _MAX_INCLUDES:
                other = os.path.join(os.path.dirname(path), included[1])
                if other not in seen:
                    seen.append(other)
                    _read_into(rules, other, seen)
        elif directive := _DIRECTIVE.match(text):
            block = blocks.setdefault(directive[1], [])
            block.append(directive[2])
        else:
            block.append(text)
    if name is not None:
        rules.append(_rule(name, blocks, is_checkpoint=is_checkpoint))


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_MAX_BYTES)
    except FileNotFoundError:
        raise WorkflowError(f'Snakefile "{path}" not found.', "Error") from None
    except OSError as error:
        raise WorkflowError(f'Snakefile "{path}" cannot be read: {error.strerror}.', "Error") from None


def _rule(name: str, blocks: dict[str, list[str]], *, is_checkpoint: bool) -> Rule:
    def text(*directives: str) -> str:
        return "\n".join(line for directive in directives for line in blocks.get(directive, ()))

    inputs, threads = text("input"), text("threads").strip()
    scripts = _literals(text("script", "notebook", "wrapper"))
    return Rule(
        name,
        _literals(inputs),
        _literals(text("output")),
        _literals(text("log")),
        tuple(_REFERENCE.findall(inputs)),
        benchmarks=_literals(text("benchmark")),
        threads=int(threads) if _NUMBER.fullmatch(threads) else 1,
        script=scripts[0] if scripts else None,
        is_checkpoint=is_checkpoint,
    )


def _literals(text: str) -> tuple[str, ...]:
    found = (_LITERAL.fullmatch(item) for item in _ITEM.findall(text))
    return tuple(match[1] for match in found if match)


def _is_plain(path: str) -> bool:
    return "{" not in path and not path.startswith("/") and ".." not in path.split("/")


def _matches(pattern: str, path: str) -> bool:
    if "{" not in pattern:
        return pattern == path
    expression, end = "", 0
    for wildcard in _WILDCARD.finditer(pattern):
        expression += re.escape(pattern[end : wildcard.start()]) + ".+"
        end = wildcard.end()
    return re.fullmatch(expression + re.escape(pattern[end:]), path) is not None


def needed_for(rules: list[Rule], targets: list[str]) -> list[Rule]:
    """The rules that the targets need, each behind those it waits for; all of them without a target.

    The first rule comes last, as the default target does. Raises WorkflowError for a target that no
    rule makes.
    """
    by_name = {rule.name: rule for rule in rules}
    if targets:
        wanted = [by_name.get(target) or _maker(rules, target) for target in targets]
    else:
        wanted = [*rules[1:], *rules[:1]]
    ordered: dict[str, Rule] = {}
    waiting: set[str] = set()

    def place(rule: Rule) -> None:
        if rule.name in ordered or rule.name in waiting:
            return
        waiting.add(rule.name)
        for before in waits_for(rule, rules):
            place(before)
        ordered[rule.name] = rule

    for rule in wanted:
        place(rule)
    return list(ordered.values())


def waits_for(rule: Rule, rules: list[Rule]) -> list[Rule]:
    """The rules that make this rule's inputs, as far as plain names tell."""
    return [
        other
        for other in rules
        if other.name != rule.name
        and (other.name in rule.references or any(_feeds(other, path) for path in rule.inputs))
    ]


def _feeds(rule: Rule, path: str) -> bool:
    return path in rule.outputs or ("{" not in path and rule.makes(path))


def _maker(rules: list[Rule], target: str) -> Rule:
    for rule in rules:
        if rule.makes(target):
            return rule
    raise WorkflowError(
        f"No rule to produce {target} (if you use input functions make sure that they don't raise "
        "unexpected exceptions).",
        "MissingRuleException",
    )
