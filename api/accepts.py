"""What a client says it takes (RFC 9110, section 12.5.1)."""

from __future__ import annotations


def accepts(header: str, media_type: str) -> bool:
    """Whether `Accept` names this very type, and does not refuse it; `*/*` is no word for it."""
    for each in header.split(","):
        name, *parameters = (part.strip().lower() for part in each.split(";"))
        if name == media_type:
            return not any(_is_zero(parameter) for parameter in parameters)
    return False


def _is_zero(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip() == "q" and value.strip().rstrip("0") in ("0.", "")
