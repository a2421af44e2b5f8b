"""Empty files in place of those that would come with a job, for its plan."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from runner.errors import FieldError, InvalidSpec
from runner.tree_names import ATTACHMENT_NAME, TreeNames, UnusableName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.attempt_files import AttemptFiles
    from runner.ports import AttachmentRules


def empty_attachments(
    names: Sequence[str], rules: AttachmentRules | None, files: AttemptFiles
) -> dict[str, bytes]:
    """What is to be written for these paths below `input/`; those of an archive as it would be unpacked.

    Raises InvalidSpec for what the workflow would not take with a job.
    """
    taken = TreeNames(ATTACHMENT_NAME)
    errors = []
    for number, name in enumerate(names):
        if detail := _refusal(name, number, rules, taken):
            errors.append(FieldError(f"/attachments/{number}", detail))
    if errors:
        raise InvalidSpec(tuple(errors))
    return {f"{files.attachments}/{name}": b"" for name in names}


def _refusal(name: str, number: int, rules: AttachmentRules | None, taken: TreeNames) -> str | None:
    if rules is None:
        return "cannot be given: this workflow takes no files"
    if number >= rules.max_files:
        return f"is one too many: {rules.max_files} files are the most"
    try:
        taken.claim(name)
    except UnusableName as error:
        return str(error)
    if rules.names is not None and not re.fullmatch(rules.names, name):
        return "is no name for a file that this workflow takes"
    return None
