"""The file of what an attempt has used: small for ever, and nothing that is in it does harm."""

from __future__ import annotations

import os
import zlib
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.attempt_files import AttemptFiles
from runner.usage_samples import MOST, SIZE, UsageSample, UsageSamples, add_sample, read_samples

if TYPE_CHECKING:
    from collections.abc import Callable

DAY_S = 86_400
PEAK = UsageSample(
    elapsed_s=3001.0, cpu_s=1500.5, rss_bytes=7 << 30, processes=99, read_bytes=0, written_bytes=0
)


def sample(elapsed_s: float, **changes: int) -> UsageSample:
    """Half a core, all the time."""
    values = {"rss_bytes": 2**20, "processes": 2, "read_bytes": 0, "written_bytes": int(elapsed_s), **changes}
    return UsageSample(elapsed_s=elapsed_s, cpu_s=elapsed_s / 2, **values)


@pytest.fixture
def files(tmp_path: Path) -> AttemptFiles:
    found = AttemptFiles.of(tmp_path, "one", 1)
    os.makedirs(found.directory)
    return found


def add(files: AttemptFiles, *samples: UsageSample) -> None:
    for each in samples:
        add_sample(files, each, started_at=1e9)


def kept(files: AttemptFiles) -> list[float]:
    found = read_samples(files)
    return [each.elapsed_s for each in found.samples] if found is not None else []


def test_samples_are_read_back_as_they_were_added(files: AttemptFiles) -> None:
    assert read_samples(files) is None
    added = [sample(2.0), sample(4.02, read_bytes=2**40), sample(6.5, rss_bytes=0)]
    add(files, *added)
    assert read_samples(files) == UsageSamples(1e9, 0.0, tuple(added))
    assert os.stat(files.usage).st_size == 4 * SIZE
    assert os.stat(files.usage).st_mode & 0o777 == 0o600
    assert os.listdir(files.directory) == ["usage.samples"]


def test_a_days_job_fits_and_loses_neither_its_peak_nor_a_second_of_the_processor(
    files: AttemptFiles,
) -> None:
    due_s = 0.0
    for elapsed_s in range(2, DAY_S + 1, 2):
        if elapsed_s + 1 >= due_s:
            now = PEAK if elapsed_s == 3002 else sample(float(elapsed_s))
            due_s = elapsed_s + add_sample(files, now, started_at=1e9)
    assert os.stat(files.usage).st_size <= (1 + MOST) * SIZE
    found = read_samples(files)
    assert found is not None
    assert found.started_at == 1e9
    assert MOST / 2 <= len(found.samples) <= MOST
    assert max(each.rss_bytes for each in found.samples) == 7 << 30
    assert max(each.processes for each in found.samples) == 99
    assert DAY_S - found.samples[-1].elapsed_s <= 64
    assert found.samples[-1].cpu_s == found.samples[-1].elapsed_s / 2
    apart = [after.elapsed_s - before.elapsed_s for before, after in pairwise(found.samples)]
    assert max(apart) <= 2.1 * min(apart)
    assert os.listdir(files.directory) == ["usage.samples"]


def test_a_sample_is_written_over_one_that_was_torn(files: AttemptFiles) -> None:
    add(files, sample(2.0), sample(4.0))
    os.truncate(files.usage, 3 * SIZE - 7)
    assert kept(files) == [2.0]
    add(files, sample(6.0))
    assert kept(files) == [2.0, 6.0]
    assert os.stat(files.usage).st_size == 3 * SIZE


def test_what_a_power_cut_has_left_empty_is_passed_over(files: AttemptFiles) -> None:
    add(files, sample(2.0), sample(4.0), sample(6.0))
    with open(files.usage, "r+b") as file:
        file.seek(2 * SIZE)
        file.write(bytes(SIZE))
    assert kept(files) == [2.0, 6.0]


def test_a_file_that_is_none_of_ours_is_begun_anew(files: AttemptFiles) -> None:
    Path(files.usage).write_bytes(b"something else" * 1000)
    assert read_samples(files) is None
    add(files, sample(2.0))
    assert kept(files) == [2.0]
    assert os.stat(files.usage).st_size == 2 * SIZE


@pytest.mark.parametrize("size", [2**31, 5 * SIZE * MOST])
def test_one_that_was_made_huge_is_made_small_again(files: AttemptFiles, size: int) -> None:
    add(files, sample(2.0))
    os.truncate(files.usage, size)
    assert kept(files) == [2.0]
    add(files, sample(4.0))
    assert kept(files) == [2.0, 4.0]
    assert os.stat(files.usage).st_size == 3 * SIZE


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    content=st.lists(
        st.one_of(
            st.binary(max_size=2 * SIZE),
            st.builds(
                lambda *numbers: UsageSample(numbers[0] / 1000, numbers[1] / 1000, *numbers[2:]).dump(),
                *[st.integers(0, 2**63)] * 3,
                st.integers(0, 2**32 - 1),
                *[st.integers(0, 2**63)] * 2,
            ),
        ),
        max_size=6,
    ),
    with_header=st.booleans(),
)
def test_whatever_is_in_it_the_samples_read_go_forward_and_can_be_told(
    files: AttemptFiles, content: list[bytes], *, with_header: bool
) -> None:
    header = UsageSamples(1e9, 0.0).dump() if with_header else b""
    Path(files.usage).write_bytes(header + b"".join(content))
    times = kept(files)
    assert times == sorted(set(times))
    add_sample(files, sample(1.0), started_at=1e9)


def test_no_distance_that_a_job_has_written_there_keeps_the_next_one_from_being_written(
    files: AttemptFiles,
) -> None:
    full = UsageSamples(1e9, 0.0, tuple(sample(2.0 * n) for n in range(1, MOST + 1))).dump()
    forged = bytearray(full)
    forged[16:24] = b"\xff" * 8
    forged[SIZE - 4 : SIZE] = zlib.crc32(forged[: SIZE - 4]).to_bytes(4, "little")
    Path(files.usage).write_bytes(forged)
    assert add_sample(files, sample(1e6), started_at=1e9) == 0.0
    assert kept(files) == [1e6]


@pytest.mark.parametrize("name", ["rss_bytes", "read_bytes", "written_bytes"])
def test_a_number_that_cannot_be_told_is_passed_over(files: AttemptFiles, name: str) -> None:
    add(files, sample(2.0), sample(4.0, **{name: 2**53}), sample(6.0, **{name: 2**53 - 1}))
    assert kept(files) == [2.0, 6.0]


def _symlink(place: str, other: Path) -> None:
    os.symlink(other, place)


def _hard_link(place: str, other: Path) -> None:
    os.link(other, place)


def _fifo(place: str, _: Path) -> None:
    os.mkfifo(place)


def _folder(place: str, _: Path) -> None:
    os.mkdir(place)


@pytest.mark.parametrize("put", [_symlink, _hard_link, _fifo, _folder])
def test_nothing_that_a_job_puts_in_its_place_is_written_to(
    files: AttemptFiles, tmp_path: Path, put: Callable[[str, Path], None]
) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"somebody else's")
    put(files.usage, other)
    with pytest.raises(OSError, match=r"."):
        add_sample(files, sample(2.0), started_at=1e9)
    assert other.read_bytes() == b"somebody else's"
    assert read_samples(files) is None


def test_a_folder_that_was_moved_and_linked_to_is_not_written_to(files: AttemptFiles, tmp_path: Path) -> None:
    os.rename(files.directory, tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", files.directory)
    with pytest.raises(FileNotFoundError):
        add_sample(files, sample(2.0), started_at=1e9)
    assert os.listdir(tmp_path / "elsewhere") == []


def test_when_half_of_a_full_one_cannot_be_written_it_stays_as_it_is(files: AttemptFiles) -> None:
    full = UsageSamples(1e9, 0.0, tuple(sample(2.0 * n) for n in range(1, MOST + 1))).dump()
    Path(files.usage).write_bytes(full)
    os.mkdir(files.usage + ".new")  # in its way
    for _ in range(2):
        with pytest.raises(OSError, match=r"."):
            add(files, sample(1e6))
    assert Path(files.usage).read_bytes() == full
    os.rmdir(files.usage + ".new")
    Path(files.usage + ".new").write_text("left by a service that was killed")
    add(files, sample(1e6))
    assert kept(files)[-1] == 1e6
    assert os.listdir(files.directory) == ["usage.samples"]
