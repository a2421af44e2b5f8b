"""API keys as text."""

from __future__ import annotations

import hashlib
import re

import pytest

from runner.key_texts import is_secret, looks_like_a_key, new_key_text, secret_digest, split_key_text


def test_a_key_is_a_prefix_and_256_random_bits() -> None:
    made = [new_key_text() for _ in range(200)]
    for key in made:
        assert re.fullmatch(r"snk_[a-z0-9]{10}\.[A-Za-z0-9_-]{43}", key.text)
        assert key.text.startswith(f"{key.prefix}.")
    assert len({key.prefix for key in made}) == len({key.text[-43:] for key in made}) == 200


def test_only_the_digest_of_the_secret_is_kept() -> None:
    key = new_key_text()
    prefix, secret = key.text.split(".")
    assert key.secret_sha256 == hashlib.sha256(secret.encode()).digest() == secret_digest(secret)
    assert split_key_text(key.text) == (prefix, secret)
    assert secret not in repr(key)
    assert repr(key.secret_sha256) not in repr(key)


def test_a_secret_is_right_for_its_own_digest_alone() -> None:
    key, other = new_key_text(), new_key_text()
    secret = key.text.split(".")[1]
    assert is_secret(secret, key.secret_sha256)
    assert not is_secret(secret, other.secret_sha256)
    assert not is_secret(secret, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "snk_",
        "snk_abcdefghij",
        "snk_abcdefghij.",
        f"snk_abcdefghij.{'A' * 42}",
        f"snk_abcdefghij.{'A' * 44}",
        f"snk_ABCDEFGHIJ.{'A' * 43}",
        f"snk_abcdefghij.{'A' * 43}\n",
        f"snk_abcdefghij.{'A' * 42}=",
        f"snx_abcdefghij.{'A' * 43}",
        f"snk_abcdefghij.{'é' * 43}",
    ],
)
def test_what_is_not_of_that_form_is_none(text: str) -> None:
    assert split_key_text(text) is None
    assert looks_like_a_key(text) == text.startswith("snk_")
