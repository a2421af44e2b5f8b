"""Whether this process runs in a container, which ends with the service and takes the jobs with it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# Docker, Podman and CRI-O make the files; Podman, LXC and systemd-nspawn set `container`; ECS and
# Kubernetes are known by what they tell every container of theirs.
_FILES = ("/.dockerenv", "/run/.containerenv")
_VARIABLES = ("container", "ECS_CONTAINER_METADATA_URI_V4", "KUBERNETES_SERVICE_HOST")


def in_container(root: str = "/", environ: Mapping[str, str] | None = None) -> bool:
    """True where any of the usual signs is there; there is no general way to know."""
    environ = os.environ if environ is None else environ  # noqa: TID251 - set by the machine: no setting
    files = (os.path.join(root, name.lstrip("/")) for name in _FILES)
    return any(map(os.path.exists, files)) or any(environ.get(name) for name in _VARIABLES)
