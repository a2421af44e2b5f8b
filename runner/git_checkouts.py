"""Fetches the commits that `NAME.git.toml` files name: folders `<data_dir>/workflows/git/NAME@COMMIT`.

A repository's content is data: no hook, filter, attribute or setting of it is heeded, no submodule fetched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from runner.file_sync import sync_file_system
from runner.isolation import ownership
from runner.new_files import new_file, write_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.git_pins import GitPin

_WITHIN_S: Final = 1800.0
_PIECE_BYTES: Final = 2**20
_PLAIN, _EXECUTABLE, _LINK, _SUBMODULE = "100644", "100755", "120000", "160000"
_LINK_BYTES: Final = 4096
_SETTINGS: Final = (
    *("-c", "core.hooksPath=/dev/null", "-c", "protocol.allow=never"),
    *(
        "-c",
        "protocol.file.allow=always",
        "-c",
        "protocol.https.allow=always",
        "-c",
        "protocol.ssh.allow=always",
    ),
    *("-c", "fetch.recurseSubmodules=false", "-c", "transfer.fsckObjects=true"),
    *("-c", "gc.auto=0", "-c", "maintenance.auto=false"),
)


class FetchFailed(Exception):
    """Nothing was changed; the text says why, and what to do."""


def is_fetched(pin: GitPin, checkouts: Path) -> bool:
    return pin.checkout(checkouts).is_dir()


def fetch(pin: GitPin, checkouts: Path, *, environment: dict[str, str]) -> bool:
    """Have the pin's commit; whether it was fetched just now. Other commits under its name are removed.

    `environment` is git's: its PATH, and what ssh needs. Raises FetchFailed.
    """
    if is_fetched(pin, checkouts):
        return False
    git = shutil.which("git", path=environment.get("PATH"))
    if git is None:
        raise FetchFailed("git was not found: install it, or put the workflow's folder in place of the file")
    try:
        os.makedirs(checkouts, mode=0o700, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=checkouts) as place:
            repository = _Repository(git, Path(place) / "repository", environment)
            repository.fetch(pin)
            tree = Path(place) / "tree"
            repository.write_out(pin.commit, tree)
            _give_to_owner(checkouts, place)
            sync_file_system(place)
            os.rename(tree, pin.checkout(checkouts))
            _give_to_owner(checkouts.parent.parent, os.fspath(checkouts))
        for other in checkouts.glob(f"{pin.name}@*"):
            if other != pin.checkout(checkouts):
                shutil.rmtree(other, ignore_errors=True)
    except OSError as error:
        raise FetchFailed(f"{error.filename or checkouts}: {error.strerror}") from error
    return True


def _give_to_owner(data_dir: Path, place: str) -> None:
    """As root, for the user whose data directory it is."""
    about = os.stat(data_dir)
    if os.geteuid() != 0 or about.st_uid == 0:
        return
    parent_fd = os.open(os.path.dirname(place), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        ownership.give(
            parent_fd,
            os.path.basename(place),
            owners={0},
            uid=about.st_uid,
            gid=about.st_gid,
            links=False,
        )
    finally:
        os.close(parent_fd)


class _Repository:
    """A bare repository of our own, with one commit of another."""

    def __init__(self, git: str, place: Path, environment: dict[str, str]) -> None:
        self._git = git
        self._place = place
        self._environment = {
            **environment,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": "file:https:ssh",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_LFS_SKIP_SMUDGE": "1",
            "LC_ALL": "C.UTF-8",
        }

    def fetch(self, pin: GitPin) -> None:
        """Raises FetchFailed."""
        form = "sha256" if len(pin.commit) == 64 else "sha1"
        self._run(["init", "--quiet", "--bare", "--template=", f"--object-format={form}", str(self._place)])
        wanted = ["fetch", "--quiet", "--no-tags", "--depth=1", "--", pin.repository, pin.commit]
        try:
            self._run(wanted)
        except FetchFailed:
            # Not every server gives out what no branch or tag ends with.
            everything = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
            self._run(["fetch", "--quiet", "--no-tags", "--", pin.repository, *everything])
        found = self._run(["rev-parse", "--verify", "--end-of-options", pin.commit + "^{commit}"])
        if found.strip() != pin.commit:
            raise FetchFailed(f"{pin.commit} is no commit of {pin.repository}")

    def write_out(self, commit: str, target: Path) -> None:
        """Every file of the commit, byte for byte as it is stored. Raises FetchFailed, OSError."""
        os.mkdir(target, 0o700)
        listing = self._run(["ls-tree", "-r", "-z", "--full-tree", commit])
        entries = list(_entries(listing))
        with subprocess.Popen(
            [self._git, *_SETTINGS, "cat-file", "--batch"],
            cwd=self._place,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                for mode, name, path in entries:
                    process.stdin.write(name.encode() + b"\n")
                    process.stdin.flush()
                    _write(process.stdout, mode, path, target)
            finally:
                process.kill()

    def _run(self, arguments: Sequence[str]) -> str:
        """What git wrote. Raises FetchFailed with what it had against it."""
        where = self._place if self._place.is_dir() else self._place.parent
        try:
            done = subprocess.run(
                [self._git, *_SETTINGS, *arguments],
                cwd=where,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_WITHIN_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise FetchFailed(f"git {arguments[0]} was not done after {_WITHIN_S:g} s") from None
        if done.returncode != 0:
            told = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise FetchFailed(f"git {arguments[0]}: {told[-1] if told else f'exit code {done.returncode}'}")
        return done.stdout.decode("utf-8", "surrogateescape")


def _entries(listing: str) -> Iterator[tuple[str, str, str]]:
    """Mode, object and path of each file. Raises FetchFailed for what is not taken."""
    for line in filter(None, listing.split("\0")):
        about, _, path = line.partition("\t")
        mode, _, name = about.split(" ")
        if mode == _SUBMODULE:
            raise FetchFailed(
                f"{path} is a submodule, which is not fetched: put its files into the repository"
            )
        if mode not in (_PLAIN, _EXECUTABLE, _LINK) or {"", ".", ".."} & set(path.split("/")):
            raise FetchFailed(f"{path} is nothing that can be written out")
        if ".git" in path.lower().split("/"):
            raise FetchFailed(f"{path} would be part of a repository of its own")
        yield mode, name, path


def _stays_inside(path: str, leads_to: str) -> bool:
    """Whether a link at `path` leads to the tree it is in, whatever other links are on its way.

    Up it may go at its beginning alone: there the folders are those that it is in itself.
    """
    names = [name for name in leads_to.split("/") if name not in ("", ".")]
    up = next((number for number, name in enumerate(names) if name != ".."), len(names))
    return not leads_to.startswith("/") and up <= path.count("/") and ".." not in names[up:]


def _write(content: IO[bytes], mode: str, path: str, target: Path) -> None:
    head = content.readline().split()
    if len(head) != 3 or head[1] != b"blob":
        raise FetchFailed(f"{path} is missing in the repository")
    left = int(head[2])
    place = target / path
    os.makedirs(place.parent, mode=0o700, exist_ok=True)
    if mode == _LINK:
        if left > _LINK_BYTES:
            raise FetchFailed(f"{path} is a link that is too long")
        leads_to = os.fsdecode(content.read(left))
        if not _stays_inside(path, leads_to):
            raise FetchFailed(f"{path} is a link that leads out of the repository")
        os.symlink(leads_to, place)
    else:
        with new_file(os.fspath(place), is_executable=mode == _EXECUTABLE) as file:
            while left:
                piece = content.read(min(left, _PIECE_BYTES))
                if not piece:
                    raise FetchFailed(f"{path} is cut short in the repository")
                write_all(file, piece)
                left -= len(piece)
    content.read(1)
