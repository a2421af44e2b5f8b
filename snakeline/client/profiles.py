"""Which service is meant, and with which key: arguments, environment, the file with profiles.

The file is `snakeline/profiles.toml` in `$XDG_CONFIG_HOME`, else in `~/.config`. As a netrc file it is
refused where others than its owner may read it.
"""

from __future__ import annotations

import os
import stat
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from snakeline.client.errors import ProfileError

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_URL: Final = "http://127.0.0.1:8000"
_FIELDS: Final = frozenset({"url", "api_key"})


@dataclass(frozen=True, slots=True)
class Service:
    """An address and what opens it."""

    url: str
    api_key: str | None = field(repr=False)


def service_of(
    *, url: str | None = None, profile: str | None = None, environ: Mapping[str, str] | None = None
) -> Service:
    """The first that is there: `url`, `profile`, SNAKELINE_URL, SNAKELINE_PROFILE, the file's default, here.

    A profile that is named brings its own key, or none. To any other service goes the key in
    SNAKELINE_API_KEY, else that of the profile with the same address. Raises ProfileError.
    """
    environ = os.environ if environ is None else environ  # noqa: TID251 - a client's, not settings of the service
    if url is None and profile is None:
        url = environ.get("SNAKELINE_URL") or None
        profile = None if url else environ.get("SNAKELINE_PROFILE") or None
    file = profiles_file(environ)
    if url is None and profile is not None:
        profiles, _ = read_profiles(file)
        if profile not in profiles:
            there = ", ".join(sorted(profiles)) or "none"
            raise ProfileError(f"there is no profile {profile!r} in {file}; there are: {there}")
        return profiles[profile]
    api_key = environ.get("SNAKELINE_API_KEY") or None
    if url is not None and api_key is not None:
        return Service(url, api_key)
    profiles, default = read_profiles(file)
    if url is None:
        found = profiles.get(default) if default else None
        url = found.url if found else DEFAULT_URL
    if api_key is None:
        same = (each.api_key for each in profiles.values() if each.url.rstrip("/") == url.rstrip("/"))
        api_key = next(same, None)
    return Service(url, api_key)


def profiles_file(environ: Mapping[str, str]) -> str:
    folder = environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(folder, "snakeline", "profiles.toml")


def read_profiles(file: str) -> tuple[dict[str, Service], str | None]:
    """The profiles by name, and the default one's name; none where there is no file. Raises ProfileError."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return {}, None
    except OSError as error:
        raise ProfileError(f"{file} cannot be read: {error.strerror}") from error
    with open(descriptor, "rb") as opened:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ProfileError(f"{file} is no plain file")
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise ProfileError(
                f"{file} can be read or changed by others: chown it to yourself and chmod 600 it"
            )
        try:
            document = tomllib.loads(opened.read().decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise ProfileError(f"{file}: {error}") from error
    return _parsed(file, document)


def _parsed(file: str, document: Mapping[str, Any]) -> tuple[dict[str, Service], str | None]:
    profiles: dict[str, Service] = {}
    default = document.get("default")
    if default is not None and not isinstance(default, str):
        raise ProfileError(f"{file}: `default` must be the name of a profile")
    for name, given in document.items():
        if name == "default":
            continue
        if not isinstance(given, dict) or not given.keys() <= _FIELDS:
            raise ProfileError(f"{file}: [{name}] must have `url` and `api_key` alone")
        if not isinstance(given.get("url"), str) or not isinstance(given.get("api_key", ""), str):
            raise ProfileError(f"{file}: [{name}] needs a `url`, and texts only")
        profiles[name] = Service(given["url"], given.get("api_key") or None)
    if default is not None and default not in profiles:
        raise ProfileError(f"{file}: there is no profile {default!r}, which `default` names")
    return profiles, default
