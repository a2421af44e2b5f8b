"""`snakeline workflows`: on the machine of the service, while it runs or not."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json
from rich.console import Console

from api import settings as api_settings
from runner import bootstrap
from runner.engines.choice import engine_of
from runner.errors import WorkflowNotFound
from runner.git_checkouts import FetchFailed, fetch, is_fetched
from runner.workflow_checks import CheckedWorkflow, check_workflow
from snakeline.failures import Failed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runner.git_pins import GitPin
    from runner.workflows import FolderRegistry

_MARKS = {"error": "[red]error[/red]", "warning": "[yellow]warning[/yellow]", "note": "[dim]note[/dim]"}


def check(name: str | None) -> Iterator[CheckedWorkflow]:
    """Every workflow that is or should be registered, or the one called so. Raises Failed, SettingsError."""
    settings = api_settings.from_environment().runner()
    registry = bootstrap.registry(settings)
    engine = engine_of(settings)
    names = _names(registry, name, settings.workflows_dir)
    must_be_one = name is not None
    return (check_workflow(each, registry, engine, settings, must_be_one=must_be_one) for each in names)


def fetch_pinned(name: str | None) -> Iterator[tuple[GitPin, str, bool]]:
    """Each workflow of a git repository with what became of it, and whether it is there now.

    Raises Failed, SettingsError.
    """
    settings = api_settings.from_environment().runner()
    registry = bootstrap.registry(settings)
    pins = [pin for pin in registry.pins() if name in (None, pin.name)]
    if name is not None and not pins:
        raise Failed(f"there is no usable {name}.git.toml in {settings.workflows_dir}")
    environment = dict(os.environ)  # noqa: TID251 - git is the operator's, with proxies and ssh as set up
    for pin in pins:
        try:
            is_new = fetch(pin, registry.checkouts_dir, environment=environment)
        except FetchFailed as error:
            yield pin, str(error), False
        else:
            yield pin, "fetched" if is_new else "is here already", True


def listed() -> list[dict[str, Any]]:
    """What is registered, as plain JSON. Raises Failed, SettingsError."""
    settings = api_settings.from_environment().runner()
    registry = bootstrap.registry(settings)
    pins = {pin.name: pin for pin in registry.pins()}
    documents = []
    for name in _names(registry, None, settings.workflows_dir):
        pin = pins.get(name)
        try:
            description, usable = registry.get(name).description, True
        except WorkflowNotFound:
            description, usable = "", False
        documents.append(
            {
                "name": name,
                "usable": usable,
                "source": "folder" if pin is None else "git",
                "repository": pin and pin.repository,
                "commit": pin and pin.commit,
                "fetched": None if pin is None else is_fetched(pin, registry.checkouts_dir),
                "description": description,
            }
        )
    return documents


def show_checked(
    checked: Iterable[CheckedWorkflow], *, as_json: bool, strict: bool, quiet: bool = False
) -> bool:
    """Print what was found, each as soon as it is known; whether all is well.

    With `strict` a warning is as bad as an error. With `quiet` those are told alone that are not well.
    """
    bad = ("error", "warning") if strict else ("error",)
    documents, all_ok = [], True
    console = Console(highlight=False, soft_wrap=True)
    for each in checked:
        ok = not any(finding.level in bad for finding in each.findings)
        all_ok = all_ok and ok
        documents.append({**asdict(each), "ok": ok})
        if not as_json and not (quiet and ok):
            console.print(f"{'[green]ok[/green]' if ok else '[red]not ok[/red]'}  {each.name}")
            for finding in each.findings:
                console.print(f"    {_MARKS[finding.level]}  {finding.about}:", end=" ")
                console.print(finding.text.replace("\n", "\n        "), markup=False)
    if as_json:
        print(to_json({"items": documents, "ok": all_ok}, indent=2).decode())
    return all_ok


def _names(registry: FolderRegistry, name: str | None, where: object) -> tuple[str, ...]:
    names = registry.candidates()
    if name is None:
        if not names:
            raise Failed(f"there are no workflows in {where}: set SNAKELINE_WORKFLOWS_DIR")
        return names
    if name not in names:
        raise Failed(f"there is no workflow {name!r} in {where}; there are: {', '.join(names) or 'none'}")
    return (name,)
