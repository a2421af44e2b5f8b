"""A job that looks for secrets wherever one could be, in Snakemake's place. Standard library only.

A secret looks like `planted-` and 32 hexadecimal digits, or like an API key. The job's `parameters` are
the `data_dir` and the `pid` of the service, and addresses (`urls`) to ask. `probe.json` in the working
directory tells where some were found (`found`) and how often it looked where (`tried`).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import re
import stat
import struct
import sys
import urllib.error
import urllib.request
from typing import Any, Final

SECRET: Final = re.compile(rb"planted-[0-9a-f]{32}|snk_[a-z0-9]{10}\.[A-Za-z0-9_-]{43}")
_BEGINNINGS: Final = (b"planted-", b"snk_")
_PIECE_BYTES: Final = 2**22
_PTRACE_SEIZE: Final = 0x4206
_CLONE_NEWUSER_NEWNS: Final = 0x10000000 | 0x00020000
_MS_BIND: Final = 4096
_FILES_AT_MOST: Final = 5000


class Probe:
    def __init__(self, parameters: dict[str, Any]) -> None:
        self.found: dict[str, set[str]] = {}
        self.tried: dict[str, int] = {}
        self._data_dir: str = parameters["data_dir"]
        self._service: int = parameters["pid"]
        self._urls: list[str] = parameters.get("urls", [])
        self._libc = ctypes.CDLL(None, use_errno=True)

    def look_everywhere(self) -> None:
        self._environment()
        self._keys()
        self._descriptors("self", "own descriptor")
        self._memory("self", "own memory")
        for name, pid in self._others().items():
            self._process(name, str(pid))
        self._files()
        self._ways_round()
        self._devices()
        self._addresses()

    # ------------------------------------------------------------ where to look

    def _environment(self) -> None:
        for name, value in os.environ.items():  # noqa: TID251 - what it is about
            self._see("own environment", f"{name}={value}".encode())

    def _keys(self) -> None:
        """The session's and the user's keyring, and the keys in them."""
        keyctl, read, link = 250 if platform.machine() == "x86_64" else 219, 11, 8

        def content(key: int) -> bytes:
            room = ctypes.create_string_buffer(65536)
            size = self._libc.syscall(keyctl, read, key, room, len(room))
            return room.raw[: max(0, size)]

        self._libc.syscall(keyctl, link, -4, -3)  # who has the user's may read what is in it
        ring = content(-3) + content(-4)
        for (key,) in struct.iter_unpack("=i", ring[: len(ring) // 4 * 4]):
            self._see("keyring", content(key))
        self._count("keyring")

    def _others(self) -> dict[str, int]:
        """The service, what it started, and those this process descends from."""
        others = {"service": self._service}
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{self._service}/task"):
                with open(f"/proc/{self._service}/task/{task}/children") as file:
                    others.update({f"child {pid}": int(pid) for pid in file.read().split()})
        pid, whose = os.getppid(), "job's own"
        while pid not in (self._service, 1, 0):
            name, parent = _name_and_parent(pid)
            if name.startswith("snakeline"):
                whose = name
            others[f"{whose} {pid}" if whose == "job's own" else whose] = pid
            pid = parent
        return others

    def _process(self, name: str, pid: str) -> None:
        for file in ("environ", "cmdline", "stack", "auxv"):
            self._read(f"{name}: {file}", f"/proc/{pid}/{file}")
        self._descriptors(pid, f"{name}: descriptor")
        self._memory(pid, f"{name}: memory")
        for link in ("root", "cwd"):
            self._listing(f"{name}: {link}", f"/proc/{pid}/{link}{self._data_dir if link == 'root' else ''}")
        if name.startswith("job's own"):
            return
        if self._libc.ptrace(_PTRACE_SEIZE, int(pid), None, None) == 0:
            self._tell(f"{name}: ptrace", b"attached")

    def _descriptors(self, pid: str, what: str) -> None:
        for number in self._names(f"/proc/{pid}/fd"):
            path = f"/proc/{pid}/fd/{number}"
            with contextlib.suppress(OSError):
                self._see(what, os.readlink(path).encode(errors="replace"))
                if stat.S_ISREG(os.stat(path).st_mode):
                    self._read(what, path)

    def _memory(self, pid: str, what: str) -> None:
        try:
            with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
                for line in maps:
                    place, rights, *_ = line.split()
                    if rights.startswith("rw"):
                        first, _, last = place.partition("-")
                        self._pages(what, memory, int(first, 16), int(last, 16))
        except OSError:
            self._count(what)

    def _pages(self, what: str, memory: Any, first: int, last: int) -> None:
        with contextlib.suppress(OSError, OverflowError):
            for at in range(first, last, _PIECE_BYTES):
                if what in self.found:
                    return  # one is enough, and memory is large
                memory.seek(at)
                self._see(what, memory.read(min(_PIECE_BYTES, last - at)))

    def _files(self) -> None:
        here = os.path.dirname(os.getcwd())
        seen = 0
        for top in (self._data_dir, "/dev/shm", "/run"):
            for folder, folders, files in os.walk(top):
                if folder == here:
                    folders.clear()  # its own
                    continue
                self._see("file names", "\n".join([folder, *folders, *files]).encode(errors="replace"))
                for name in files:
                    seen += 1
                    path = os.path.join(folder, name)
                    with contextlib.suppress(OSError):
                        if stat.S_ISREG(os.lstat(path).st_mode) and seen < _FILES_AT_MOST:
                            self._read("files", path)
        for guess in ("snakeline.db", "snakeline.db-wal", "secret", "lock"):
            self._read("files", os.path.join(self._data_dir, guess))

    def _ways_round(self) -> None:
        target = os.path.join(self._data_dir, "secret")
        for what, way in (("hard link", os.link), ("rename", os.rename), ("symbolic link", os.symlink)):
            with contextlib.suppress(OSError):
                way(target, "taken")
            self._read(what, "taken")
            with contextlib.suppress(OSError):
                os.rename("taken", target) if what == "rename" else os.unlink("taken")
        os.makedirs("mounted", exist_ok=True)
        if os.fork() == 0:  # another mount, in a user namespace where it may
            self._libc.unshare(_CLONE_NEWUSER_NEWNS)
            self._libc.mount(self._data_dir.encode(), b"mounted", None, _MS_BIND, None)
            os._exit(0 if SECRET.search(_content("mounted/secret")) else 1)
        if os.wait()[1] == 0:
            self._tell("another mount", b"read")
        self._count("another mount")

    def _devices(self) -> None:
        for folder in ("/dev", "/dev/block", "/dev/disk/by-id"):
            for name in self._names(folder):
                path = os.path.join(folder, name)
                with contextlib.suppress(OSError):
                    if not stat.S_ISBLK(os.stat(path).st_mode):
                        continue
                    self._count("block devices")
                    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
                    self._tell("block devices", path.encode())
        for path in ("/dev/mem", "/dev/kmem", "/proc/kcore"):
            with contextlib.suppress(OSError):
                os.close(os.open(path, os.O_RDONLY))
                self._tell("memory of the machine", path.encode())
            self._count("memory of the machine")

    def _addresses(self) -> None:
        for url in self._urls:
            try:
                with urllib.request.urlopen(url, timeout=10) as answer:
                    self._see("API", answer.read(_PIECE_BYTES))
            except urllib.error.HTTPError as refusal:
                self._see("API", refusal.read(_PIECE_BYTES))
            except OSError:
                self._count("API")

    # ------------------------------------------------------------ what is seen

    def _names(self, folder: str) -> list[str]:
        try:
            return os.listdir(folder)
        except OSError:
            return []

    def _listing(self, what: str, folder: str) -> None:
        for name in self._names(folder):
            self._see(what, name.encode(errors="replace"))
            self._read(what, os.path.join(folder, name))

    def _read(self, what: str, path: str) -> None:
        self._see(what, _content(path))

    def _see(self, what: str, content: bytes) -> None:
        self._count(what)
        if not any(begin in content for begin in _BEGINNINGS):
            return  # far quicker than the pattern
        for secret in SECRET.findall(content):
            self._tell(what, secret)

    def _count(self, what: str) -> None:
        self.tried[what] = self.tried.get(what, 0) + 1

    def _tell(self, what: str, found: bytes) -> None:
        self.found.setdefault(what, set()).add(found.decode(errors="replace"))


def _name_and_parent(pid: int) -> tuple[str, int]:
    try:
        with open(f"/proc/{pid}/stat") as file:
            before, _, after = file.read().rpartition(") ")
    except OSError:
        return "", 0
    return before.partition("(")[2], int(after.split()[1])


def _content(path: str) -> bytes:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            return file.read(_PIECE_BYTES)
    except OSError:
        return b""


def main(argv: list[str]) -> None:
    if argv == ["--version"]:
        print("9.0.0")  # noqa: T201 - as Snakemake answers
        return
    with open(argv[argv.index("--configfile") + 1], encoding="utf-8") as file:
        parameters = json.load(file)
    if "text" in parameters:  # a job that has a secret of its own
        print(parameters["text"], flush=True)  # noqa: T201
        with open("result.txt", "w", encoding="utf-8") as result:
            result.write(parameters["text"])
        return
    probe = Probe(parameters)
    probe.look_everywhere()
    with open("probe.json", "w", encoding="utf-8") as file:
        json.dump({"found": {k: sorted(v) for k, v in probe.found.items()}, "tried": probe.tried}, file)


if __name__ == "__main__":
    main(sys.argv[1:])
