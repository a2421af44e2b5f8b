"""Which service is meant, and which key goes to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from snakeline.client.errors import ProfileError
from snakeline.client.profiles import DEFAULT_URL, Service, service_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LAB = Service("https://lab.example", "snk_lab.secret")
FILE = """
default = "lab"
[lab]
url = "https://lab.example"
api_key = "snk_lab.secret"
[open]
url = "http://open.example:8000"
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "snakeline"
    folder.mkdir()
    (folder / "profiles.toml").write_text(FILE)
    (folder / "profiles.toml").chmod(0o600)
    return {"XDG_CONFIG_HOME": str(tmp_path)}


KEY = {"SNAKELINE_API_KEY": "snk_env.secret"}
URL = {"SNAKELINE_URL": "http://env.example"}


@pytest.mark.parametrize(
    ("more", "url", "profile", "meant"),
    [
        ({}, None, None, LAB),
        ({"SNAKELINE_PROFILE": "open"}, None, None, Service("http://open.example:8000", None)),
        ({**KEY, "SNAKELINE_PROFILE": "open"}, None, None, Service("http://open.example:8000", None)),
        (KEY, None, "open", Service("http://open.example:8000", None)),
        ({**URL, "SNAKELINE_PROFILE": "lab"}, None, None, Service("http://env.example", None)),
        (URL, None, "lab", LAB),
        ({**URL, **KEY}, None, None, Service("http://env.example", "snk_env.secret")),
        (URL, "https://lab.example/", None, Service("https://lab.example/", "snk_lab.secret")),
        (KEY, "https://lab.example", None, Service("https://lab.example", "snk_env.secret")),
        (KEY, None, None, Service("https://lab.example", "snk_env.secret")),
        ({"SNAKELINE_URL": "", "SNAKELINE_API_KEY": ""}, None, None, LAB),
    ],
)
def test_the_nearest_word_counts_and_a_named_profile_brings_its_own_key(
    environ: dict[str, str], more: Mapping[str, str], url: str | None, profile: str | None, meant: Service
) -> None:
    assert service_of(url=url, profile=profile, environ={**environ, **more}) == meant


def test_without_a_file_it_is_this_machine(tmp_path: Path) -> None:
    assert service_of(environ={"XDG_CONFIG_HOME": str(tmp_path)}) == Service(DEFAULT_URL, None)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o660])
def test_a_file_that_others_may_read_or_change_is_refused(
    environ: dict[str, str], tmp_path: Path, mode: int
) -> None:
    (tmp_path / "snakeline" / "profiles.toml").chmod(mode)
    with pytest.raises(ProfileError, match="chmod 600"):
        service_of(environ=environ)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[lab", "profiles.toml: "),
        ("[lab]\napi_key = 'a'", "needs a `url`"),
        ("[lab]\nurl = 'http://a'\nkey = 'a'", "must have `url` and `api_key` alone"),
        ("lab = 'http://a'", "must have"),
        ("default = 'none'", "no profile 'none'"),
        ("default = 1", "`default` must be"),
    ],
)
def test_a_file_that_is_wrong_says_where(
    environ: dict[str, str], tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "snakeline" / "profiles.toml"
    file.write_text(text)
    with pytest.raises(ProfileError) as refused:
        service_of(environ=environ)
    assert said in str(refused.value)


def test_a_profile_that_is_not_there_names_those_that_are(environ: dict[str, str]) -> None:
    with pytest.raises(ProfileError, match=r"there is no profile 'lap'.*lab, open"):
        service_of(profile="lap", environ=environ)


def test_a_key_is_not_shown_where_a_service_is(environ: dict[str, str]) -> None:
    assert "secret" not in repr(service_of(environ=environ))
