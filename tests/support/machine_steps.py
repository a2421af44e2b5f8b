"""The steps a state machine took, as it took them: hypothesis tells only of what it could repeat."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol, TypeVar, cast

Step = TypeVar("Step", bound=Callable[..., None])


class Stepping(Protocol):
    steps: list[str]


class Failed(AssertionError):
    """What went wrong in an example, and the steps that led there."""


def told(step: Step) -> Step:
    """Have the machine remember in `steps` that it took this one, and with what."""

    @wraps(step)
    def remembered(self: Stepping, **arguments: Any) -> None:
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        self.steps.append(f"{step.__name__}({given})")
        step(self, **arguments)

    return cast("Step", remembered)
