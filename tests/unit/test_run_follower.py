"""One thread follows the events of all runs: soon, fairly, and in quiet when there is nothing new."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
import structlog.testing

from runner import inotify, run_follower
from runner.engines.run_events import EventsReader
from runner.jobs import Progress
from runner.ports import Handle
from runner.run_follower import PIECE_BYTES, RunFollower
from runner.run_watches import RunWatches
from tests.support.event_files import EventsFile
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from runner.ports import RunReader
    from runner.samples import Sample

PADDING = b'{"v": 2, "event": "nothing of interest", "t": 1}\n'


class Following:
    """A follower, and what it has told of each job."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.told: dict[str, list[Progress | None]] = {}
        self.follower = RunFollower(self._hear)

    def _hear(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            self.told.setdefault(sample.handle.job_id, []).append(sample.progress)

    def run(self, job_id: str, *, has_begun: bool = True) -> EventsFile:
        """Follow a run from now on; one that has not begun has no events file yet."""
        events = EventsFile(self.root, job_id)
        if has_begun:
            events.append(b"")
        self.follower.add(Handle(job_id, 1), events.files, EventsReader(events.files))
        return events

    def wait_for(self, job_id: str, done: int) -> None:
        def seen() -> bool:
            return any(p is not None and p.done == done for p in self.told.get(job_id, ()))

        wait_until(seen, timeout_s=20, what=f"{job_id} has {done} tasks done")

    def wait_for_quiet(self) -> None:
        wait_until(lambda: self.follower._next_in_s() is None, timeout_s=20, what="nothing is left to do")


@pytest.fixture
def following(tmp_path: Path) -> Iterator[Following]:
    following = Following(tmp_path)
    following.follower.start()
    yield following
    following.follower.close()


def tell(events: EventsFile, done: int, total: int = 9) -> None:
    events.tell("progress", done=done, total=total)


def test_what_runs_tell_is_seen_and_nothing_is_looked_at_in_between(following: Following) -> None:
    runs = [following.run(f"job{number}", has_begun=number > 0) for number in range(3)]
    for done in (1, 2):
        for events in runs:
            tell(events, done)
        for number in range(3):
            following.wait_for(f"job{number}", done)
        following.wait_for_quiet()
    assert not following.follower._watches.unwatched


def test_a_run_that_is_finished_is_followed_no_more(following: Following) -> None:
    events, other = following.run("job"), following.run("other")
    tell(events, 1)
    following.wait_for("job", 1)
    reader = following.follower.finish(Handle("job", 1))
    assert reader is not None
    assert reader.progress == Progress(9, 1)
    assert following.follower.finish(Handle("job", 1)) is None
    tell(events, 2)
    tell(other, 1)
    following.wait_for("other", 1)
    assert [p.done for p in following.told["job"] if p] == [1]
    wait_until(lambda: len(following.follower._watches._by_number) == 1, what="its watch is gone")


def test_a_run_that_writes_without_end_keeps_no_other_from_being_seen(
    following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_follower, "_LONGEST_REST_S", 0.02)
    flood = EventsFile(following.root, "flood")
    flood.append(PADDING * (40 * PIECE_BYTES // len(PADDING)))
    tell(flood, 1)
    following.run("flood")
    quiet = following.run("quiet")
    for done in (1, 2, 3):
        tell(quiet, done)
        following.wait_for("quiet", done)
    assert "flood" not in following.told
    reader = following.follower.finish(Handle("flood", 1))
    assert isinstance(reader, EventsReader)
    assert 0 < reader._lines.offset < os.stat(flood.files.events).st_size


def test_progress_goes_back_for_nobody_when_a_run_is_found_again(following: Following) -> None:
    events = EventsFile(following.root, "job")
    for done in (1, 2, 3):
        tell(events, done)
        events.append(PADDING * (2 * PIECE_BYTES // len(PADDING)))
    following.run("job")
    following.wait_for("job", 3)
    assert [p.done for p in following.told["job"] if p] == [3]


def test_a_file_that_is_replaced_is_followed_on(following: Following) -> None:
    events = following.run("job")
    tell(events, 1)
    following.wait_for("job", 1)
    following.wait_for_quiet()
    with open(events.files.events, "rb") as file:
        content = file.read()
    os.unlink(events.files.events)
    events.append(content)
    tell(events, 2)
    following.wait_for("job", 2)


def test_where_no_watch_is_to_be_had_it_looks(following: Following, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "max_user_watches")

    with structlog.testing.capture_logs() as logged:
        with monkeypatch.context() as refusing:
            refusing.setattr(inotify.Inotify, "add", refuse)
            runs = [following.run(f"job{number}") for number in range(2)]
            for number, events in enumerate(runs):
                tell(events, 1)
                following.wait_for(f"job{number}", 1)
        wait_until(lambda: not following.follower._watches.unwatched, timeout_s=20, what="all are watched")
    assert [entry["event"] for entry in logged] == ["run_watch_polls"]
    tell(runs[0], 2)
    following.wait_for("job0", 2)


def test_without_inotify_at_all_it_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: inotify.Inotify) -> None:
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr(inotify.Inotify, "__init__", refuse)
    following = Following(tmp_path)
    following.follower.start()
    try:
        tell(following.run("job"), 1)
        following.wait_for("job", 1)
    finally:
        following.follower.close()


def test_when_the_kernel_has_lost_count_every_run_is_looked_at_and_watched_anew(tmp_path: Path) -> None:
    watches = RunWatches()
    try:
        runs = [EventsFile(tmp_path, name) for name in ("a", "b", "quiet", "late")]
        for events in runs:
            if events is not runs[-1]:
                events.append(b"")
            watches.watch(Handle(os.path.basename(events.files.job_dir), 1), events.files)
        with open("/proc/sys/fs/inotify/max_queued_events", encoding="ascii") as file:
            limit = int(file.read())
        a, b = (os.open(events.files.events, os.O_WRONLY | os.O_APPEND) for events in runs[:2])
        for _ in range(limit // 2 + 1):  # in turns: what is the same twice in a row counts once
            os.write(a, b"\n")
            os.write(b, b"\n")
        os.close(a)
        os.close(b)
        runs[-1].append(b"")  # its file is made, and nobody is told
        seen: set[str] = set()
        while found := list(watches.changed()):
            seen |= {handle.job_id for handle in found}
        assert seen == {"a", "b", "quiet", "late"}
        runs[-1].append(b"\n")
        assert list(watches.changed()) == [Handle("late", 1)]
    finally:
        watches.close()


def test_an_ended_run_is_read_to_its_end_in_turns(following: Following) -> None:
    events = EventsFile(following.root, "ended")
    events.append(PADDING * (5 * PIECE_BYTES // len(PADDING)))
    tell(events, 7)
    read = threading.Event()
    found: list[RunReader] = []

    def when_read(reader: RunReader) -> None:
        found.append(reader)
        read.set()

    following.follower.read_out(Handle("ended", 1), events.files, EventsReader(events.files), when_read)
    assert read.wait(20)
    assert [reader.progress for reader in found] == [Progress(9, 7)]
    assert following.told == {}
    following.wait_for_quiet()


def test_chores_are_done_in_pieces_and_keep_nobody_waiting(following: Following) -> None:
    events, hold = following.run("job"), threading.Event()
    done: list[int] = []

    def chore() -> bool:
        done.append(len(done))
        return not hold.is_set()

    following.follower.do_later(chore)
    wait_until(lambda: len(done) > 2, timeout_s=20, what="some pieces are done")
    tell(events, 1)
    following.wait_for("job", 1)
    hold.set()
    following.wait_for_quiet()


def test_a_reader_that_breaks_ends_neither_the_thread_nor_the_others(following: Following) -> None:
    class Broken(EventsReader):
        def advance(self, limit_bytes: int = 0) -> bool:
            raise ValueError(limit_bytes)

    broken, read = EventsFile(following.root, "broken"), threading.Event()
    with structlog.testing.capture_logs() as logged:
        following.follower.read_out(
            Handle("broken", 1), broken.files, Broken(broken.files), lambda _: read.set()
        )
        assert read.wait(20)
        tell(following.run("job"), 1)
        following.wait_for("job", 1)
    assert [entry["event"] for entry in logged] == ["run_follower.unreadable"]
