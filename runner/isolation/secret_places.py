"""Where secrets of the service and of its user usually are: a job is to see none of them."""

from __future__ import annotations

import os
import pwd
from typing import Final

# Docker and Kubernetes mount a container's secrets there, systemd a unit's credentials.
_OF_MACHINE: Final = ("/run/secrets", "/var/run/secrets", "/run/credentials")
_OF_USER: Final = (
    ".aws",
    ".azure",
    ".config/gcloud",
    ".config/gh",
    ".config/rclone",
    ".docker",
    ".git-credentials",
    ".gnupg",
    ".kube",
    ".netrc",
    ".pgpass",
    ".pypirc",
    ".ssh",
)


def secret_places(home: str | None = None) -> list[str]:
    """Those of the machine, and those that exist in `home`, by default this user's."""
    if home is None:
        try:
            home = pwd.getpwuid(os.geteuid()).pw_dir
        except KeyError:
            home = ""
    mine = [os.path.join(home, name) for name in _OF_USER] if os.path.isabs(home) else []
    return [*_OF_MACHINE, *(path for path in mine if os.path.lexists(path))]
