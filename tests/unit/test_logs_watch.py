from __future__ import annotations

import asyncio
import errno
import os
import shutil
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import asyncinotify
import pytest
import uvloop
from structlog.testing import capture_logs

from runner import log_watch
from runner.logs import SegmentLogStore
from tests.support.log_writer import SegmentWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from runner.log_store import LogWatch

T = TypeVar("T")
DEADLINE_S = 10.0


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, T]], T]:
    def in_loop(main: Coroutine[Any, Any, T]) -> T:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(main)

    return in_loop


async def is_woken(watch: LogWatch, timeout_s: float = DEADLINE_S) -> bool:
    """Whether `changed` returns well before its time is up."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    await watch.changed(timeout_s)
    return loop.time() - start < timeout_s / 2


async def settle(watch: LogWatch) -> None:
    """Use up the wake-ups that are still on their way."""
    for _ in range(100):
        if not await is_woken(watch, 0.04):
            return
    raise AssertionError("it never stops waking")


def descriptors(kind: str = "inotify") -> int:
    links = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            continue
    return sum(kind in link for link in links)


def watched() -> int:
    """Watches the kernel keeps for this process."""
    total = 0
    for fd in os.listdir("/proc/self/fdinfo"):
        try:
            total += Path("/proc/self/fdinfo", fd).read_text().count("inotify wd:")
        except FileNotFoundError:
            continue
    return total


def test_a_follower_is_woken_by_every_append_and_by_a_new_segment(tmp_path: Path, run: Any) -> None:
    writer = SegmentWriter(tmp_path, segment_bytes=10)
    writer.begin()
    writer.write(b"123")

    async def main() -> None:
        log = SegmentLogStore(tmp_path).open("job", 1)
        async with log.watch() as watch:
            writer.write(b"456")
            assert await is_woken(watch)
            await settle(watch)
            writer.write(b"7890ab")
            assert await is_woken(watch)
            assert log.read(0, 100) == (0, b"1234567890ab")

    run(main())


def test_what_was_written_between_two_calls_is_not_missed(tmp_path: Path, run: Any) -> None:
    writer = SegmentWriter(tmp_path, segment_bytes=100)
    writer.begin()

    async def main() -> None:
        async with SegmentLogStore(tmp_path).open("job", 1).watch() as watch:
            writer.write(b"a")
            await asyncio.sleep(0.01)  # the loop sees the event while nobody waits for it
            assert await is_woken(watch)

    run(main())


def test_time_is_up_when_nothing_is_written_to_the_log(tmp_path: Path, run: Any) -> None:
    writer = SegmentWriter(tmp_path, segment_bytes=100)
    writer.begin()

    async def main() -> None:
        async with SegmentLogStore(tmp_path).open("job", 1).watch() as watch:
            os.close(os.open(writer.files.events, os.O_WRONLY | os.O_CREAT))
            assert not await is_woken(watch, 0.1)

    run(main())


@pytest.mark.parametrize("existing", ["nothing", "jobs", "job", "attempts"])
def test_a_pending_job_is_followed_from_before_its_directory_exists(
    tmp_path: Path, run: Any, existing: str
) -> None:
    writer = SegmentWriter(tmp_path, segment_bytes=100)
    above = {
        "nothing": tmp_path,
        "jobs": tmp_path / "jobs",
        "job": tmp_path / "jobs/job",
        "attempts": tmp_path / "jobs/job/attempts",
    }[existing]
    above.mkdir(parents=True, exist_ok=True)

    async def main() -> None:
        log = SegmentLogStore(tmp_path).open("job", 1)
        async with log.watch() as watch:
            assert not await is_woken(watch, 0.05)
            writer.begin()
            writer.write(b"first words")
            async with asyncio.timeout(DEADLINE_S):
                while not log.read(0, 100)[1]:
                    assert await is_woken(watch)
            await settle(watch)
            writer.write(b", and more")
            assert await is_woken(watch)
            assert watched() == 1

    run(main())


def test_other_jobs_do_not_wake_the_follower_of_a_pending_one(tmp_path: Path, run: Any) -> None:
    (tmp_path / "jobs").mkdir()

    async def main() -> None:
        async with SegmentLogStore(tmp_path).open("mine", 1).watch() as watch:
            other = SegmentWriter(tmp_path, segment_bytes=100, job_id="other")
            other.begin()
            other.write(b"x")
            assert not await is_woken(watch, 0.1)

    run(main())


def test_many_followers_share_one_instance_and_one_watch_for_each_directory(tmp_path: Path, run: Any) -> None:
    writers = [SegmentWriter(tmp_path, segment_bytes=100, job_id=f"job-{n}") for n in range(20)]
    for writer in writers:
        writer.begin()

    async def main() -> None:
        store = SegmentLogStore(tmp_path)
        before = descriptors()
        async with AsyncExitStack() as stack:
            one = [await stack.enter_async_context(store.open("job-0", 1).watch()) for _ in range(64)]
            each = [await stack.enter_async_context(store.open(f"job-{n}", 1).watch()) for n in range(20)]
            assert descriptors() == before + 1
            assert watched() == 20
            writers[0].write(b"to all of one")
            assert all(await asyncio.gather(*(is_woken(watch) for watch in (*one, each[0]))))
            for writer in writers[1:]:
                writer.write(b"to each")
            assert all(await asyncio.gather(*(is_woken(watch) for watch in each[1:])))
        assert descriptors() == before

    run(main())


def test_one_who_leaves_does_not_take_the_watch_from_the_others(tmp_path: Path, run: Any) -> None:
    writer = SegmentWriter(tmp_path, segment_bytes=100)
    writer.begin()

    async def main() -> None:
        log = SegmentLogStore(tmp_path).open("job", 1)
        async with log.watch() as stays:
            async with log.watch():
                pass
            writer.write(b"x")
            assert await is_woken(stays)

    run(main())


def test_a_job_that_is_deleted_while_it_is_followed_wakes_and_the_next_one_is_seen(
    tmp_path: Path, run: Any
) -> None:
    writer = SegmentWriter(tmp_path, segment_bytes=100)
    writer.begin()
    writer.write(b"old")

    async def main() -> None:
        log = SegmentLogStore(tmp_path).open("job", 1)
        async with log.watch() as watch:
            shutil.rmtree(writer.files.job_dir)
            assert await is_woken(watch)
            await settle(watch)
            again = SegmentWriter(tmp_path, segment_bytes=100)
            again.begin()
            again.write(b"new")
            async with asyncio.timeout(DEADLINE_S):
                while log.read(0, 100) != (0, b"new"):
                    await watch.changed(DEADLINE_S)

    run(main())


def test_events_that_overflow_the_kernels_queue_wake_everybody(tmp_path: Path, run: Any) -> None:
    quiet = SegmentWriter(tmp_path, segment_bytes=100, job_id="quiet")
    quiet.begin()
    loud = SegmentWriter(tmp_path, segment_bytes=100, job_id="loud")
    loud.begin()
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 40_000:
        pytest.skip(f"too large a queue to fill: {limit} events")

    async def main() -> None:
        store = SegmentLogStore(tmp_path)
        async with store.open("quiet", 1).watch() as watch, store.open("loud", 1).watch():
            files = [
                os.open(loud.files.log_segment(n), os.O_WRONLY | os.O_CREAT | os.O_APPEND) for n in (0, 1)
            ]
            for n in range(limit + 10):  # alternating, so that the kernel does not merge them
                os.write(files[n % 2], b"x")
            for fd in files:
                os.close(fd)
            quiet.write(b"lost in the flood")
            assert await is_woken(watch)

    run(main())


def test_without_inotify_a_follower_polls_and_says_so_once(
    tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SegmentWriter(tmp_path, segment_bytes=100)
    writer.begin()

    def refuse(**_: object) -> None:
        raise OSError(errno.EMFILE, "max_user_instances")

    monkeypatch.setattr(log_watch, "Inotify", refuse)

    async def main() -> None:
        log = SegmentLogStore(tmp_path).open("job", 1)
        async with log.watch() as first, log.watch() as second:
            assert not await is_woken(first, 0.1)
            writer.write(b"x")
            assert await is_woken(first)
            assert await is_woken(second)
            assert not await is_woken(first, 0.1)

    with capture_logs() as logs:
        run(main())
    assert [line["event"] for line in logs] == ["log_watch_polls"]


def test_a_follower_polls_when_the_kernel_has_no_watch_left(
    tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that was waiting above its directory when the last watch was taken."""
    full = False

    class Full(asyncinotify.Inotify):
        def add_watch(self, path: Any, mask: Any) -> Any:
            if full:
                raise OSError(errno.ENOSPC, "max_user_watches")
            return super().add_watch(path, mask)

    monkeypatch.setattr(log_watch, "Inotify", Full)
    writer = SegmentWriter(tmp_path, segment_bytes=100)

    async def main() -> None:
        nonlocal full
        log = SegmentLogStore(tmp_path).open("job", 1)
        async with log.watch() as early:
            full = True
            waiting = asyncio.create_task(is_woken(early))
            await asyncio.sleep(0)
            writer.begin()
            assert await waiting
            async with SegmentLogStore(tmp_path).open("job", 1).watch() as late:
                writer.write(b"x")
                assert await is_woken(late)
            async with asyncio.timeout(DEADLINE_S):
                while not log.read(0, 10)[1]:
                    await early.changed(DEADLINE_S)
            full = False
            await settle(early)
            writer.write(b"y")
            assert await is_woken(early)

    before = descriptors()
    with capture_logs():
        run(main())
    assert descriptors() == before


def test_a_directory_that_appears_while_the_watch_is_laid_is_seen(
    tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SegmentWriter(tmp_path, segment_bytes=100)

    class Slow(asyncinotify.Inotify):
        """As if the attempt began between two looks at the way to it."""

        def add_watch(self, path: Any, mask: Any) -> Any:
            try:
                return super().add_watch(path, mask)
            except FileNotFoundError:
                if str(path) == str(tmp_path / "jobs"):
                    writer.begin()
                raise

    monkeypatch.setattr(log_watch, "Inotify", Slow)

    async def main() -> None:
        async with SegmentLogStore(tmp_path).open("job", 1).watch() as watch:
            assert watched() == 1
            writer.write(b"x")
            assert await is_woken(watch)

    run(main())


def test_a_refused_watch_leaves_no_instance_behind(
    tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(asyncinotify.Inotify):
        def add_watch(self, *_: Any) -> Any:
            raise OSError(errno.ENOSPC, "max_user_watches")

    monkeypatch.setattr(log_watch, "Inotify", Full)

    async def main() -> None:
        before = descriptors()
        async with SegmentLogStore(tmp_path).open("job", 1).watch():
            assert descriptors() == before

    with capture_logs():
        run(main())


def test_a_follower_may_leave_when_the_directory_has_just_been_deleted(tmp_path: Path, run: Any) -> None:
    writer = SegmentWriter(tmp_path, segment_bytes=100)
    writer.begin()

    async def main() -> None:
        before = descriptors()
        async with SegmentLogStore(tmp_path).open("job", 1).watch():
            shutil.rmtree(writer.files.job_dir)
        assert descriptors() == before

    run(main())


def test_a_cancelled_follower_leaves_nothing_behind(tmp_path: Path, run: Any) -> None:
    writer = SegmentWriter(tmp_path, segment_bytes=100)
    writer.begin()

    async def main() -> None:
        async def follow() -> None:
            async with SegmentLogStore(tmp_path).open("job", 1).watch() as watch:
                await watch.changed(60)

        before = descriptors()
        task = asyncio.create_task(follow())
        await asyncio.sleep(0)
        assert descriptors() == before + 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert descriptors() == before

    run(main())
