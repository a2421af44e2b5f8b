"""Secrets where services are given them: in the session's and the user's keyring, in a file as Docker mounts.

Executed (`python planted_secrets.py COMMAND…`), it plants what the environment's `PLANTED_KEY` and
`PLANTED_FILE` say, and becomes the command without them. The file is seen by the command alone, and only
where root starts it. Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from typing import Final

# The system calls' numbers: of x86-64, and of every newer architecture.
_ADD_KEY, _KEYCTL = (248, 250) if platform.machine() == "x86_64" else (217, 219)
_JOIN_SESSION_KEYRING, _SESSION = 1, -3
_SET_TIMEOUT, _USER = 15, -4
_LONG_ENOUGH_S: Final = 300  # the user's keyring stays for as long as the machine
_CLONE_NEWNS: Final = 0x00020000
_MS_REC_PRIVATE: Final = 0x4000 | 1 << 18

_libc = ctypes.CDLL(None, use_errno=True)


def _plant_key(secret: bytes) -> None:
    if _libc.syscall(_KEYCTL, _JOIN_SESSION_KEYRING, None) >= 0:
        _libc.syscall(_ADD_KEY, b"user", b"planted", secret, len(secret), _SESSION)
    key = _libc.syscall(_ADD_KEY, b"user", b"planted-%d" % os.getpid(), secret, len(secret), _USER)
    _libc.syscall(_KEYCTL, _SET_TIMEOUT, key, _LONG_ENOUGH_S)


def _plant_file(secret: str) -> None:
    done = [_libc.unshare(_CLONE_NEWNS), _libc.mount(None, b"/", None, _MS_REC_PRIVATE, None)]
    done += [_libc.mount(b"tmpfs", b"/run", b"tmpfs", 0, b"mode=755")]
    if any(done):
        raise OSError(ctypes.get_errno(), "the secret cannot be mounted")
    os.mkdir("/run/secrets")
    with open("/run/secrets/planted", "w", encoding="ascii") as file:
        os.fchmod(file.fileno(), 0o600)  # where anybody may read it, another user alone does not keep it
        file.write(secret)


def main(command: list[str]) -> None:
    environ = os.environ  # noqa: TID251 - handed on
    _plant_key(environ.pop("PLANTED_KEY").encode())
    secret = environ.pop("PLANTED_FILE")
    if os.geteuid() == 0:
        _plant_file(secret)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
