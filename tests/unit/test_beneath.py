"""Opening beneath a folder: one suite for both ways down."""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner import beneath
from runner.beneath import by_openat2, look, name_by_name, open_file, open_folder, read_file, resolver
from tests.support.beneath_tree import HAS_OPENAT2, INSIDE, SECRET, WAYS, Tree
from tests.support.mounts import run_or_skip, unmount

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


_LEASE = """
import ctypes, fcntl, os, signal, sys
ctypes.CDLL(None).prctl(1, 9)  # ends with us
signal.signal(signal.SIGIO, signal.SIG_IGN)
fcntl.fcntl(os.open(sys.argv[1], os.O_RDWR), fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
signal.pause()
"""


@pytest.fixture(params=WAYS)
def tree(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Tree]:
    tree = Tree(tmp_path, request.param)
    before = len(os.listdir("/proc/self/fd"))
    yield tree
    assert len(os.listdir("/proc/self/fd")) == before, "a descriptor was left open"
    os.close(tree.fd)


class TestWhatIsThere:
    def test_a_file_is_read_at_any_depth(self, tree: Tree) -> None:
        assert (tree.read(b"file"), tree.read(b"folder/file")) == (INSIDE, INSIDE)

    def test_a_folder_is_listed(self, tree: Tree) -> None:
        assert tree.names(b"folder") == ["file"]

    def test_any_name_that_a_file_can_have_will_do(self, tree: Tree) -> None:
        for name in (b"\xff\xfe", b"a\nb", b"...", b"..a", b"~", b"a\\b", b" ", b"x" * 255):
            (tree.top / os.fsdecode(name)).write_bytes(name[:9])
            assert tree.read(name) == name[:9]

    def test_a_path_may_be_as_long_as_the_system_takes(self, tree: Tree) -> None:
        path = b"/".join([b"d" * 254] * 16 + [b"f" * 15])
        parent, fd = path.rpartition(b"/")[0], os.dup(tree.fd)
        for name in parent.split(b"/"):  # step by step: with the top before it, the path would be too long
            os.mkdir(name, dir_fd=fd)
            below = os.open(name, os.O_PATH | os.O_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = below
        for name in (b"f" * 15, b"f" * 16):
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=fd))
        os.close(fd)
        assert len(path) == beneath.PATH_BYTES
        assert tree.read(path) == b""
        assert tree.is_absent(path + b"f")

    def test_a_descriptor_reads_and_never_writes_or_is_inherited(self, tree: Tree) -> None:
        fd = open_file(tree.fd, b"file", resolve=tree.resolve)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(fd, b"x")
        folder_fd = open_folder(tree.fd, b"folder", resolve=tree.resolve)
        assert not os.get_inheritable(fd)
        assert not os.get_inheritable(folder_fd)
        os.close(fd)
        os.close(folder_fd)

    def test_a_look_tells_what_stands_there_itself(self, tree: Tree) -> None:
        (tree.top / "link").symlink_to(tree.outside / "file")
        found = look(tree.fd, b"link", resolve=tree.resolve)
        assert found.st_ino == (tree.top / "link").lstat().st_ino

    def test_no_more_than_the_limit_is_read(self, tree: Tree) -> None:
        assert (read_file(tree.fd, b"file", 3), read_file(tree.fd, b"file", 100)) == (INSIDE[:3], INSIDE)


class TestWhatCountsAsAbsent:
    @pytest.mark.parametrize(
        "path",
        [
            b"", b".", b"..", b"/", b"nothing", b"file/", b"file/x", b"folder/", b"folder//file", b"./file",
            b"folder/../file", b"../outside/file", b"folder/../../outside/file", b"/etc/passwd", b"file\0",
            b"fi\0le", b"x" * 256, b"a/" * 2048 + b"a",
        ],
    )  # fmt: skip
    def test_a_path_that_does_not_lead_straight_down(self, tree: Tree, path: bytes) -> None:
        assert tree.is_absent(path)

    def test_an_absolute_path_even_to_what_is_below(self, tree: Tree) -> None:
        assert tree.is_absent(os.fsencode(tree.top / "file"))

    def test_a_folder_is_no_file_and_a_file_no_folder(self, tree: Tree) -> None:
        with pytest.raises(FileNotFoundError):
            tree.read(b"folder")
        with pytest.raises(FileNotFoundError):
            tree.names(b"file")

    @pytest.mark.parametrize("target", ["file", "folder", "../outside/file", "/proc/self/root", "loop", ""])
    def test_a_link_wherever_it_leads(self, tree: Tree, target: str) -> None:
        (tree.top / "loop").symlink_to(target or tree.outside)
        for path in (b"loop", b"loop/file", b"loop/outside/file"):
            assert tree.is_absent(path)

    def test_a_magic_link_of_proc(self, tree: Tree) -> None:
        with open(tree.outside / "file", "rb") as secret:
            (tree.top / "magic").symlink_to(f"/proc/self/fd/{secret.fileno()}")
            assert tree.is_absent(b"magic")
        proc = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY)
        with pytest.raises(FileNotFoundError):
            open_file(proc, b"exe", resolve=tree.resolve)
        os.close(proc)

    def test_a_file_with_a_second_name(self, tree: Tree) -> None:
        os.link(tree.outside / "file", tree.top / "hard")
        assert tree.is_absent(b"hard")
        (tree.outside / "file").unlink()
        assert tree.read(b"hard") == SECRET  # moved, one might say: it is the only name now

    def test_a_socket(self, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tree.top)  # the address of a socket must be short
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket")
            assert tree.is_absent(b"socket")

    def test_a_fifo_and_whoever_waits_at_it_goes_on_waiting(self, tree: Tree) -> None:
        os.mkfifo(tree.top / "fifo")
        opened: list[int] = []
        writer = threading.Thread(target=lambda: opened.append(os.open(tree.top / "fifo", os.O_WRONLY)))
        writer.start()
        for _ in range(1000):
            assert tree.is_absent(b"fifo")
        assert not opened
        reader = os.open(tree.top / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        writer.join()
        for fd in (reader, *opened):
            os.close(fd)

    @pytest.mark.timeout(20)
    def test_a_file_whose_owner_would_make_us_wait(self, tree: Tree) -> None:
        """A lease (fcntl(2)) holds up who opens the file, for 45 s if its holder pleases."""
        argv = [sys.executable, "-S", "-c", _LEASE, str(tree.top / "file")]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            try:
                if holder.stdout.readline() != b"held\n":
                    pytest.skip("no leases on this file system")
                with pytest.raises(FileNotFoundError):
                    tree.read(b"file")
            finally:
                holder.kill()

    @pytest.mark.root
    @pytest.mark.parametrize("major_minor", [(1, 3), (1, 5), (5, 0)], ids=["null", "zero", "tty"])
    def test_a_device(self, tree: Tree, major_minor: tuple[int, int]) -> None:
        run_or_skip("mknod", str(tree.top / "device"), "c", *map(str, major_minor))
        assert tree.is_absent(b"device")

    @pytest.mark.root
    @pytest.mark.parametrize("name", ["file", "folder"])
    def test_what_is_mounted_there_even_from_the_same_file_system(self, tree: Tree, name: str) -> None:
        run_or_skip("mount", "--bind", str(tree.outside / name), str(tree.top / name))
        try:
            assert tree.is_absent(name.encode())
            if name == "folder":
                assert tree.is_absent(b"folder/file")
                across = open_folder(tree.fd, b"folder", across=True, resolve=tree.resolve)
                assert read_file(across, b"file", 100) == SECRET
                os.close(across)
        finally:
            unmount(tree.top / name)


class TestTrouble:
    def test_what_may_not_be_read_is_told_apart(self, tree: Tree) -> None:
        def refuse(*_: object) -> int:
            raise PermissionError(errno.EACCES, "refused")

        with pytest.raises(PermissionError):
            open_file(tree.fd, b"file", resolve=refuse)

    def test_a_lack_of_descriptors_is_not_taken_for_a_missing_file(self, tree: Tree) -> None:
        def exhausted(*_: object) -> int:
            raise OSError(errno.EMFILE, "too many")

        with pytest.raises(OSError, match="too many") as caught:
            open_file(tree.fd, b"file", resolve=exhausted)
        assert not isinstance(caught.value, FileNotFoundError)


# ---------------------------------------------------------------- which way is taken

_FILTERED = """
import ctypes, os, struct, sys
sys.path.insert(0, sys.argv[1])
# A seccomp filter (seccomp(2)): openat2 (437) fails with this error, all else is allowed.
code = b"".join(struct.pack("HBBI", *step) for step in
    [(0x20, 0, 0, 0), (0x15, 0, 1, 437), (0x06, 0, 0, 0x50000 | int(sys.argv[3])), (0x06, 0, 0, 0x7FFF0000)])
held = ctypes.create_string_buffer(code, len(code))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(held)))
prctl = ctypes.CDLL(None, use_errno=True).prctl
assert prctl(38, 1, 0, 0, 0) == 0
if prctl(22, 2, program, 0, 0): sys.exit("no seccomp")
from runner.beneath import resolver, read_file
fd = os.open(sys.argv[2], os.O_PATH)
print(resolver().__name__, read_file(fd, b"folder/file", 10).decode())
"""


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_where_the_call_is_filtered_it_goes_name_by_name(tmp_path: Path, number: int) -> None:
    top = Tree(tmp_path, name_by_name).top
    root = os.path.dirname(os.path.dirname(os.path.abspath(beneath.__file__)))
    argv = [sys.executable, "-c", _FILTERED, root, str(top), str(number)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if "no seccomp" in done.stderr:
        pytest.skip("no seccomp filters here")
    assert done.stdout == "name_by_name inside\n", done.stderr


def test_trouble_while_probing_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> int:
        raise OSError(errno.EMFILE, "too many")

    chosen = resolver()
    resolver.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(beneath, "by_openat2", exhausted)
        with pytest.raises(OSError, match="too many"):
            resolver()
    assert resolver() is chosen


@pytest.mark.skipif(not HAS_OPENAT2, reason="no openat2 here")
@pytest.mark.parametrize("times", [1, 63, 64])
def test_a_rename_in_the_way_is_tried_again_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    call = beneath._system_call()
    left = itertools.count(times, -1)

    def again(*args: object) -> int:
        if next(left) > 0:
            ctypes.set_errno(errno.EAGAIN)
            return -1
        return int(call(*args))

    monkeypatch.setattr(beneath, "_system_call", lambda: again)
    tree = Tree(tmp_path, by_openat2)
    if times < 64:
        assert look(tree.fd, b"file", resolve=by_openat2).st_size == len(INSIDE)
    else:
        with pytest.raises(FileNotFoundError):
            look(tree.fd, b"file", resolve=by_openat2)
    os.close(tree.fd)


_UNDUMPABLE = """
import ctypes, os, sys
sys.path.insert(0, sys.argv[1])
from runner.beneath import read_file
fd = os.open(sys.argv[2], os.O_PATH)
if os.geteuid() == 0:
    os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
assert ctypes.CDLL(None).prctl(4, 0, 0, 0, 0) == 0
print(read_file(fd, b"file", 10).decode())
"""


def test_a_process_that_may_not_be_dumped_can_open_files_too(tmp_path: Path) -> None:
    top = Tree(tmp_path, name_by_name).top
    for path in (top, top / "file"):
        path.chmod(0o755)
    root = os.path.dirname(os.path.dirname(os.path.abspath(beneath.__file__)))
    argv = [sys.executable, "-c", _UNDUMPABLE, root, str(top)]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "inside\n"


# ---------------------------------------------------------------- any path

_NAMES = st.sampled_from(
    [b"", b".", b"..", b"file", b"folder", b"link", b"up", b"hard", b"\0", b"x" * 256, b"outside", b"\xff"]
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.one_of(st.lists(_NAMES, max_size=6).map(b"/".join), st.binary(max_size=20)))
def test_no_path_leads_outside(tree: Tree, path: bytes) -> None:
    if not (tree.top / "link").is_symlink():
        (tree.top / "link").symlink_to(tree.outside)
        (tree.top / "up").symlink_to("..")
        os.link(tree.outside / "file", tree.top / "hard")
    try:
        found = tree.read(path)
    except FileNotFoundError:
        return
    assert found == INSIDE
    assert path in (b"file", b"folder/file")
