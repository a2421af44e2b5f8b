"""Whatever somebody packs, nothing but plain new files below the one folder comes of it, and not too much."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.archives import Allowance, Kind, UnusableArchive, kind_of, unpack
from runner.new_files import new_file
from runner.tree_names import ATTACHMENT_NAME, WORKFLOW_NAME, TreeNames, UnusableName

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS: tuple[Kind, ...] = ("tar", "zip")
Member = tuple[str, bytes]


class TooMuch(Exception):
    pass


def packed(kind: Kind, members: list[Member], *, mode: int = 0o644) -> bytes:
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members:
                info = zipfile.ZipInfo(name)
                info.create_system = 3
                info.external_attr = (stat.S_IFREG | mode) << 16
                info.compress_type = zipfile.ZIP_DEFLATED
                with warnings.catch_warnings(action="ignore"):  # a name may be there twice
                    archive.writestr(info, content)
        return out.getvalue()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def one_tar_entry(**fields: Any) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("entry")
        for name, value in fields.items():
            setattr(member, name, value)
        tar.addfile(member)
    return out.getvalue()


class Room:
    """A folder to unpack into, with another beside it that must stay as it is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.target = path / "target"
        self.target.mkdir()
        (path / "outside").write_text("untouched")
        self.spent = 0

    def unpack(
        self,
        content: bytes,
        kind: Kind = "tar",
        *,
        limit: int = 2**20,
        allowance: Allowance | None = None,
        any_name: bool = False,
    ) -> list[str]:
        (self.path / "archive").write_bytes(content)

        def spend(size: int) -> None:
            self.spent += size
            if self.spent > limit:
                raise TooMuch

        names = TreeNames(WORKFLOW_NAME if any_name else ATTACHMENT_NAME)
        return unpack(
            str(self.path / "archive"),
            kind,
            str(self.target),
            names,
            spend=spend,
            allowance=allowance or Allowance(),
        )

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.target)): path.read_bytes()
            for path in self.target.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_files_come_out_as_they_went_in(room: Room, kind: Kind) -> None:
    members = [("a.txt", b"1"), ("./sub/b.txt", b"2" * 100_000), ("sub/deeper/c", b"")]
    assert room.unpack(packed(kind, members), kind) == ["a.txt", "sub/b.txt", "sub/deeper/c"]
    assert room.files() == {"a.txt": b"1", "sub/b.txt": b"2" * 100_000, "sub/deeper/c": b""}
    assert stat.S_IMODE(os.stat(room.target / "a.txt").st_mode) == 0o600


def test_no_file_is_written_over_another(room: Room) -> None:
    new_file(str(room.target / "a")).close()
    with pytest.raises(FileExistsError):
        new_file(str(room.target / "a"))


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_executable_is(room: Room, kind: Kind) -> None:
    room.unpack(packed(kind, [("run.sh", b"x")], mode=0o4777), kind)
    assert stat.S_IMODE(os.stat(room.target / "run.sh").st_mode) == 0o700


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "names",
    [
        ["../outside"],
        ["a/../../outside"],
        ["/etc/passwd"],
        ["a//b"],
        ["a/./b"],
        ["a\\..\\..\\outside"],
        [".hidden"],
        ["-option"],
        ["$(touch x)"],
        ["with space"],
        ["new\nline"],
        ["a" * 300],
        ["/".join("a" * 40)],
        ["same", "same"],
        ["Same", "same"],
        ["a", "a/b"],
        ["a/b", "a"],
        ["A/b", "a/c"],
    ],
)
def test_a_name_that_leads_elsewhere_or_means_something_is_refused(
    room: Room, kind: Kind, names: list[str]
) -> None:
    with pytest.raises(UnusableArchive, match="has an entry"):
        room.unpack(packed(kind, [(name, b"x") for name in names]), kind)
    assert (room.path / "outside").read_text() == "untouched"


@pytest.mark.parametrize(
    "entry",
    [
        one_tar_entry(type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        one_tar_entry(type=tarfile.LNKTYPE, linkname="../outside"),
        one_tar_entry(type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        one_tar_entry(type=tarfile.BLKTYPE),
        one_tar_entry(type=tarfile.FIFOTYPE),
        one_tar_entry(type=tarfile.GNUTYPE_SPARSE),
        one_tar_entry(type=tarfile.CONTTYPE, linkname="x", name=".."),
    ],
)
def test_links_and_devices_in_a_tar_archive_are_refused(room: Room, entry: bytes) -> None:
    with pytest.raises(UnusableArchive):
        room.unpack(entry)
    assert room.files() == {}


def test_links_encryption_and_odd_packing_in_a_zip_archive_are_refused(room: Room) -> None:
    def changed(change: Callable[[zipfile.ZipInfo], None]) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            info = zipfile.ZipInfo("entry")
            info.create_system = 3
            change(info)
            archive.writestr(info, b"x")
        return out.getvalue()

    link = changed(lambda info: setattr(info, "external_attr", (stat.S_IFLNK | 0o777) << 16))
    bzip2 = changed(lambda info: setattr(info, "compress_type", zipfile.ZIP_BZIP2))
    plain = bytearray(changed(lambda _: None))
    plain[plain.index(b"PK\x01\x02") + 8] |= 1  # encrypted, says the table of contents
    for content, told in ((link, "no plain file"), (bzip2, "unusual"), (bytes(plain), "encrypted")):
        with pytest.raises(UnusableArchive, match=told):
            room.unpack(content, "zip")
    assert room.files() == {}


@pytest.mark.parametrize("kind", KINDS)
def test_no_more_comes_out_than_may(room: Room, kind: Kind) -> None:
    bomb = packed(kind, [("zeros", bytes(16 * 2**20))])
    assert len(bomb) < 2**17
    with pytest.raises(TooMuch):
        room.unpack(bomb, kind, limit=2**20)
    assert sum(map(len, room.files().values())) <= 2**20
    allowance = Allowance(entries=5)
    room.unpack(packed(kind, [(f"f{n}", b"") for n in range(3)]), kind, allowance=allowance)
    with pytest.raises(UnusableArchive, match="too many entries"):  # all archives together
        room.unpack(packed(kind, [(f"g{n}", b"") for n in range(3)]), kind, allowance=allowance)


def test_a_tar_header_of_any_size_takes_no_memory(room: Room) -> None:
    """A name may claim to be gigabytes long, and be packed as nothing."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2**30
    with pytest.raises(UnusableArchive, match="header that is too large"):
        room.unpack(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(2**20)))


def test_an_archive_of_nothing_but_headers_ends(room: Room) -> None:
    folders = one_tar_entry(type=tarfile.DIRTYPE, name="d")[:512] * 200
    with pytest.raises(UnusableArchive, match="mostly headers"):
        room.unpack(folders, allowance=Allowance(header_bytes=2**16))
    claims_much = tarfile.TarInfo("d")
    claims_much.type, claims_much.size = tarfile.DIRTYPE, 2**33
    with pytest.raises(UnusableArchive, match="mostly headers"):  # a folder has no content
        room.unpack(claims_much.tobuf() + folders, allowance=Allowance(header_bytes=2**16))


def test_a_file_in_place_of_the_folder_itself_is_not_passed_over(room: Room) -> None:
    for name in (".", "./"):
        with pytest.raises(UnusableArchive, match="has an entry"):
            room.unpack(packed("tar", [(name, bytes(2**20))]))
    assert room.unpack(one_tar_entry(type=tarfile.DIRTYPE, name="./")) == []


def test_folders_on_the_way_count_as_well(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.tree_names._MAX_NAMES", 100)
    deep = "/".join("d" * 20)
    with pytest.raises(UnusableArchive, match="one too many"):
        room.unpack(packed("tar", [(f"{n}/{deep}/x", b"") for n in range(6)]))
    assert len(list(room.target.rglob("*"))) <= 100


def test_a_zip_table_of_any_size_takes_no_memory(room: Room) -> None:
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 60_000, 60_000, 3 * 2**20, 0, 0)
    with pytest.raises(UnusableArchive, match="table of contents"):
        room.unpack(bytes(3 * 2**20) + end, "zip")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [b"", b"x" * 1000, b"\x1f\x8b" + b"x" * 100, b"PK\5\6" + bytes(18)])
def test_what_is_no_archive_is_said_to_be_none_or_is_empty(room: Room, kind: Kind, content: bytes) -> None:
    try:
        assert room.unpack(content, kind) == []
    except UnusableArchive as error:
        assert "cannot be read" in str(error)  # noqa: PT017 - or no error at all


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_nothing_lands_outside_whatever_is_packed(
    tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    room = Room(tmp_path_factory.mktemp("room"))
    kind = data.draw(st.sampled_from(KINDS))
    part = st.sampled_from(["..", ".", "", "a", "B", "b", ".x", "target", "outside", "é", "/"])
    name = st.lists(part, min_size=1, max_size=4).map("/".join).filter(bool)
    content = bytearray(packed(kind, [(n, b"payload") for n in data.draw(st.lists(name, max_size=4))]))
    if kind == "tar":
        content = bytearray(gzip.decompress(content))
    for _ in range(data.draw(st.integers(0, 3))):  # and then damaged
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(UnusableArchive):
        room.unpack(bytes(content), kind, any_name=data.draw(st.booleans()))
    found = {str(path.relative_to(room.path)) for path in room.path.rglob("*")}
    assert {each for each in found if not each.startswith("target")} == {"archive", "outside"}
    assert all(path.is_dir() or path.is_file() for path in room.target.rglob("*"))
    assert not any(path.is_symlink() for path in room.target.rglob("*"))
    assert (room.path / "outside").read_text() == "untouched"


def test_what_an_archive_is_called_says_what_it_is() -> None:
    assert [kind_of(name) for name in ("a.tar", "a.TGZ", "a.tar.gz", "a.zip", "a.gz", "tar")] == [
        *("tar", "tar", "tar", "zip"),
        *(None, None),
    ]


def test_a_workflow_may_have_names_that_input_may_not() -> None:
    names = TreeNames(WORKFLOW_NAME)
    for path in (".gitignore", ".test/config, old/a b.yaml", "README 1"):
        names.claim(path)
    for path in ("..", ".", "a/..", "a\0", "-x", "a\n"):
        with pytest.raises(UnusableName):
            names.claim(path)
    with pytest.raises(UnusableName, match="capital"):
        names.claim(".GITIGNORE")
