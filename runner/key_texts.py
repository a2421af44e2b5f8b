"""API keys as text: `prefix.secret`, made here, shown once, and known afterwards by a digest alone."""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Final

MARK: Final = "snk_"
_PREFIX_LETTERS: Final = string.ascii_lowercase + string.digits
_PREFIX_LENGTH: Final = 10
_SECRET_BYTES: Final = 32
PREFIX_PATTERN: Final = MARK + r"[a-z0-9]{10}"
KEY_PATTERN: Final = rf"({PREFIX_PATTERN})\.([A-Za-z0-9_-]{{43}})"
_TEXT: Final = re.compile(KEY_PATTERN)
_NO_SECRET: Final = bytes(32)  # the digest of nothing anybody could send


@dataclass(frozen=True, slots=True)
class KeyText:
    """A key that has just been made. `prefix` names it for ever; `text` is what its holder sends."""

    prefix: str
    text: str = field(repr=False)
    secret_sha256: bytes = field(repr=False)


def new_key_text() -> KeyText:
    """A new key with 256 random bits. A plain digest is enough for those: nothing can be guessed."""
    prefix = MARK + "".join(secrets.choice(_PREFIX_LETTERS) for _ in range(_PREFIX_LENGTH))
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    return KeyText(prefix, f"{prefix}.{secret}", secret_digest(secret))


def split_key_text(text: str) -> tuple[str, str] | None:
    """The prefix and the secret, or None where `text` is no key."""
    found = _TEXT.fullmatch(text)
    return (found[1], found[2]) if found else None


def is_key_prefix(text: str) -> bool:
    return re.fullmatch(PREFIX_PATTERN, text) is not None


def looks_like_a_key(text: str) -> bool:
    """Whether `text` is meant as one of our keys, well-formed or not."""
    return text.startswith(MARK)


def secret_digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("ascii")).digest()


def is_secret(secret: str, sha256: bytes | None) -> bool:
    """Whether this is the secret with that digest; None, for an unknown key, takes as long to say no."""
    return compare_digest(secret_digest(secret), _NO_SECRET if sha256 is None else sha256)
