"""Comparing entity tags (RFC 9110, section 8.8.3)."""

from __future__ import annotations


def matches(if_none_match: str, etag: str) -> bool:
    """Whether `If-None-Match` names `etag`, by weak comparison: a proxy that compresses makes tags weak."""
    if if_none_match.strip() == "*":
        return True
    opaque = etag.removeprefix("W/")
    return any(tag.strip().removeprefix("W/") == opaque for tag in if_none_match.split(","))
