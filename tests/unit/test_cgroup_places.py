"""Where attempts' control groups can be made, by what the kernel's files say."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from runner.isolation import cgroup_places
from runner.isolation.cgroup_places import Hierarchy, hierarchies, prepare

if TYPE_CHECKING:
    from pathlib import Path

PURE = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
MIXED = (
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
    "40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
    "42 31 8:1 / /data rw,relatime - ext4 /dev/sda1 rw\n"
    "no mount at all\n"
)


def by_mount(mountinfo: str, own: str) -> dict[str, Hierarchy]:
    return {found.mount: found for found in hierarchies(mountinfo, own)}


def test_in_version_2_there_is_one_group() -> None:
    found = hierarchies(PURE, "0::/system.slice/snakeline.service\n")
    own = "/sys/fs/cgroup/system.slice/snakeline.service"
    assert found == [Hierarchy(is_unified=True, controllers=frozenset(), mount="/sys/fs/cgroup", own=own)]


def test_in_the_mixture_each_controller_has_its_own() -> None:
    own = "9:name=systemd:/x\n4:memory:/docker/abc\n2:cpu,cpuacct:/\n0::/\n"
    found = by_mount(MIXED, own)
    assert found["/sys/fs/cgroup/memory"].own == "/sys/fs/cgroup/memory/docker/abc"
    assert found["/sys/fs/cgroup/memory"].controllers == {"memory"}
    assert found["/sys/fs/cgroup/cpu,cpuacct"].controllers == {"cpu", "cpuacct"}
    assert found["/sys/fs/cgroup/cpu,cpuacct"].own == "/sys/fs/cgroup/cpu,cpuacct"
    assert found["/sys/fs/cgroup/unified"].is_unified
    assert "/data" not in found


@pytest.mark.parametrize(
    ("root", "group", "own"),
    [
        ("/", "/a/b", "/sys/fs/cgroup/a/b"),
        ("/a", "/a/b", "/sys/fs/cgroup/b"),
        ("/a/b", "/a/b", "/sys/fs/cgroup"),
        ("/a", "/ab", None),  # another's, whose name only begins so
        ("/other", "/a/b", None),
        ("/", "/../a", None),  # outside of the namespace
    ],
)
def test_a_mount_may_show_a_part_and_must_show_our_own(root: str, group: str, own: str | None) -> None:
    mount = f"30 23 0:26 {root} /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    assert [found.own for found in hierarchies(mount, f"0::{group}\n")] == ([own] if own else [])


def test_names_with_spaces_and_colons_are_taken_as_they_are() -> None:
    mount = "30 23 0:26 / /mnt/with\\040space rw - cgroup2 cgroup2 rw\n"
    assert hierarchies(mount, "0::/a:b\n")[0].own == "/mnt/with space/a:b"


def test_two_data_directories_never_share_a_name(tmp_path: Path) -> None:
    one, other, link = tmp_path / "one", tmp_path / "other", tmp_path / "link"
    one.mkdir()
    other.mkdir()
    link.symlink_to(one)
    assert cgroup_places.identity(str(one)) == cgroup_places.identity(str(link))
    assert cgroup_places.identity(str(one)) != cgroup_places.identity(str(other))
    before = cgroup_places.identity(str(one))
    one.rename(tmp_path / "kept")  # so that its number is not used again
    one.mkdir()
    assert cgroup_places.identity(str(one)) != before


class Group:
    """What a version 2 group looks like, as plain files."""

    def __init__(self, folder: Path, *, processes: str, controllers: str = "cpu memory pids") -> None:
        folder.mkdir()
        self.folder = folder
        (folder / "cgroup.type").write_text("domain\n")
        (folder / "cgroup.procs").write_text(processes)
        (folder / "cgroup.controllers").write_text(controllers)
        (folder / "cgroup.subtree_control").write_text("")

    def prepared(self, aside: str | None = "snakeline-x.service") -> dict[str, str]:
        hierarchy = Hierarchy(
            is_unified=True, controllers=frozenset(), mount=str(self.folder), own=str(self.folder)
        )
        return prepare([hierarchy], aside=aside)


def test_controllers_are_taken_where_no_process_stands_in_the_way(tmp_path: Path) -> None:
    group = Group(tmp_path / "group", processes="")
    folder = str(group.folder)
    assert group.prepared() == dict.fromkeys(("unified", "memory", "pids", "cpu"), folder)


def test_a_group_with_foreign_processes_is_left_as_it_is_and_used_to_kill(tmp_path: Path) -> None:
    group = Group(tmp_path / "group", processes=f"1\n{os.getpid()}\n{2**22}\n")
    assert group.prepared() == {"unified": str(group.folder)}
    assert (group.folder / "cgroup.subtree_control").read_text() == ""


def test_who_only_asks_moves_nowhere(tmp_path: Path) -> None:
    group = Group(tmp_path / "group", processes=f"{os.getpid()}\n")
    assert group.prepared(aside=None) == {"unified": str(group.folder)}
    assert not (group.folder / "snakeline-x.service").exists()


def test_a_service_found_where_an_earlier_one_moved_makes_its_groups_above(tmp_path: Path) -> None:
    above = Group(tmp_path / "group", processes="")
    own = above.folder / "snakeline-x.service"
    own.mkdir()
    hierarchy = Hierarchy(is_unified=True, controllers=frozenset(), mount=str(tmp_path), own=str(own))
    assert prepare([hierarchy], aside="snakeline-x.service")["memory"] == str(above.folder)


def test_version_1_fills_in_for_what_version_2_does_not_have(tmp_path: Path) -> None:
    group = Group(tmp_path / "group", processes="", controllers="")
    memory, freezer = tmp_path / "memory", tmp_path / "freezer"
    memory.mkdir()
    freezer.mkdir()
    old = [
        Hierarchy(is_unified=False, controllers=frozenset({name}), mount=str(place), own=str(place))
        for name, place in (("memory", memory), ("freezer", freezer))
    ]
    unified = Hierarchy(
        is_unified=True, controllers=frozenset(), mount=str(group.folder), own=str(group.folder)
    )
    assert prepare([unified, *old], aside=None) == {"unified": str(group.folder), "memory": str(memory)}
    assert prepare(old, aside=None) == {"memory": str(memory), "freezer": str(freezer)}
