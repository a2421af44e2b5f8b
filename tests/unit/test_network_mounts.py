"""A folder on a network file system is known by the table of mounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.network_mounts import network_file_system

TABLE = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 27 0:40 / /data rw,relatime shared:7 master:2 - nfs4 127.0.0.1:/ rw,vers=4.1
41 27 0:41 / /data/local rw,relatime - ext4 /dev/vdb rw
42 27 0:42 / /with\040space rw,relatime - cifs //server/share rw
43 27 0:43 / /covered rw,relatime - nfs server:/a rw
44 43 0:44 / /covered rw,relatime - tmpfs tmpfs rw
45 27 0:45 / /remote rw,relatime - fuse.sshfs somebody@server: rw
"""


@pytest.fixture
def mounts(tmp_path: Path) -> str:
    path = tmp_path / "mountinfo"
    path.write_text(TABLE)
    return str(path)


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/data", "nfs4"),
        ("/data/snakeline", "nfs4"),
        ("/data/local/snakeline", None),
        ("/database", None),
        ("/with space/x", "cifs"),
        ("/covered/x", None),
        ("/remote/x", "fuse.sshfs"),
        ("/srv", None),
    ],
)
def test_the_mount_that_a_folder_is_reached_by_decides(mounts: str, folder: str, kind: str | None) -> None:
    assert network_file_system(Path(folder), mounts=mounts) == kind


def test_what_cannot_be_found_out_is_no_trouble(tmp_path: Path) -> None:
    assert network_file_system(Path("/data"), mounts=str(tmp_path / "none")) is None
    (tmp_path / "odd").write_text("not a table\n")
    assert network_file_system(Path("/data"), mounts=str(tmp_path / "odd")) is None
    (tmp_path / "foreign").write_bytes(b"45 27 0:45 / /data rw - fuse.\xff x rw\n")  # FUSE takes any name
    assert network_file_system(Path("/data"), mounts=str(tmp_path / "foreign")) is None


def test_a_folder_of_this_machine_is_local(tmp_path: Path) -> None:
    assert network_file_system(tmp_path) is None
