"""Fill in the task definition: `python3 deploy/ecs/render.py --image URI --outputs FILE > rendered.json`.

FILE has what `aws cloudformation describe-stacks --query "Stacks[0].Outputs"` tells. Each `${Name}` in the
task definition is the stack's output of that name; `${Image}` is the image. Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TEMPLATE = Path(__file__).with_name("task-definition.json")
_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")


class NothingToFillIn(Exception):
    """A placeholder has no value; the text says which."""


def placeholders(template: str) -> set[str]:
    """The names of all placeholders in the text."""
    return set(_PLACEHOLDER.findall(template))


def render(template: str, values: Mapping[str, str]) -> Any:
    """The task definition with every placeholder filled in. Raises NothingToFillIn."""
    missing = sorted(name for name in placeholders(template) if not values.get(name))
    if missing:
        raise NothingToFillIn(f"no value for {', '.join(missing)}: is the stack up to date?")

    def filled(value: Any) -> Any:
        # In the parsed document, so that no value has to be quoted.
        match value:
            case str():
                return _PLACEHOLDER.sub(lambda found: values[found[1]], value)
            case list():
                return [filled(item) for item in value]
            case dict():
                return {key: filled(item) for key, item in value.items()}
            case _:
                return value

    return filled(json.loads(template))


def values_of(outputs: Sequence[Mapping[str, str]], image: str) -> dict[str, str]:
    """What the placeholders stand for."""
    return {output["OutputKey"]: output["OutputValue"] for output in outputs} | {"Image": image}


def main() -> int:
    parser = argparse.ArgumentParser(description="Fill in the task definition for Amazon ECS.")
    parser.add_argument("--image", required=True, help="the image's address with its digest")
    parser.add_argument("--outputs", required=True, type=Path, help="the stack's outputs, as JSON")
    options = parser.parse_args()
    try:
        values = values_of(json.loads(options.outputs.read_text()), options.image)
        definition = render(TEMPLATE.read_text(), values)
    except (OSError, ValueError, NothingToFillIn) as error:
        print(f"render: {error}", file=sys.stderr)
        return 1
    print(json.dumps(definition, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
