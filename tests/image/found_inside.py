"""Run inside the image: what is there, as one JSON document."""

from __future__ import annotations

import importlib.util
import json
import marshal
import os
import shutil
import struct
from typing import Any

LIBRARIES = ("/opt/snakeline/lib", "/opt/snakemake/lib")
TOOLS = ("cc", "c++", "gcc", "g++", "clang", "ld", "as", "make", "cargo", "git", "curl", "pip", "pip3")
LEFT_BY_A_BUILD = (
    "/root/.cache",
    "/src",
    "/dist",
    "/wheels",
    "/app",
    "/opt/build",
    "/requirements-build.lock",
    "/opt/snakeline/bin/pip",
    "/opt/snakemake/bin/pip",
    "/etc/pip.conf",
)


def is_compiled(path: str) -> bool:
    """Whether Python will take the bytecode, by what that notes of its source (PEP 552)."""
    about = os.stat(path)
    try:
        with open(importlib.util.cache_from_source(path), "rb") as compiled:
            noted = struct.unpack("<4sIII", compiled.read(16))
            code = marshal.load(compiled)
    except OSError:
        return False
    time, size = int(about.st_mtime) & 0xFFFFFFFF, about.st_size & 0xFFFFFFFF
    return bool(noted == (importlib.util.MAGIC_NUMBER, 0, time, size)) and code.co_filename == path


def modules() -> list[str]:
    walks = (walk for top in LIBRARIES for walk in os.walk(top))
    return [
        os.path.join(folder, name) for folder, _, names in walks for name in names if name.endswith(".py")
    ]


def found() -> dict[str, Any]:
    lists = "/var/lib/apt/lists"
    there = modules()
    return {
        "modules": len(there),
        "not_compiled": [path for path in there if not is_compiled(path)],
        "tools": [name for name in TOOLS if shutil.which(name, path="/opt/snakeline/bin:/usr/bin:/bin")],
        "left": [path for path in LEFT_BY_A_BUILD if os.path.lexists(path)],
        "package_lists": [n for n in os.listdir(lists) if "_" in n] if os.path.isdir(lists) else [],
        "writable": [
            f for top in ("/opt", "/usr", "/etc") for f, _, _ in os.walk(top) if os.access(f, os.W_OK)
        ],
        "tmp_mode": os.stat("/tmp").st_mode & 0o7777,
    }


if __name__ == "__main__":
    print(json.dumps(found()))  # noqa: T201 - this is the answer
