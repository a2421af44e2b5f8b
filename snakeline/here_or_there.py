"""Commands that do their work on the machine of the service, or ask the service for it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from snakeline.commands.session import EXIT_USAGE, asking, stop
from snakeline.failures import Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from snakeline.client import Client

T = TypeVar("T")


@contextmanager
def doing_here(code: int = 1) -> Iterator[None]:
    """End with one line on stderr where it cannot be done: with 2 for bad settings, else with `code`."""
    from api.settings import SettingsError  # noqa: PLC0415 - not for one that asks

    try:
        yield
    except SettingsError as error:
        stop(str(error), EXIT_USAGE)
    except Failed as error:
        stop(str(error), code)


def answer_of(
    there: Callable[[Client], T],
    here: Callable[[], T],
    *,
    remote: bool,
    url: str | None,
    profile: str | None,
    quiet: bool,
) -> T:
    """What the service answers, where the command is told to ask one; else what is done `here`."""
    if remote or url is not None or profile is not None:
        with asking(url, profile, quiet=quiet) as client:
            return there(client)
    with doing_here():
        return here()
