"""Nothing outside of a job's own files is served, not even to who wins every race, nor at others' expense."""

from __future__ import annotations

import http.client
import os
import socket
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.mounts import run_or_skip, unmount
from tests.support.server import running_server
from tests.support.swapping import swapping
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.server import LiveServer

INSIDE, SECRET = b"inside", b"secret"
RACE_S = 2.0
CLIENTS = 4


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A service of its own: others' memory and descriptors would count as well."""
    with running_server(
        tmp_path_factory.mktemp("files"), DATABASE_URL="memory://", LOG_LEVEL="warning"
    ) as service:
        yield service


class EndedJob:
    def __init__(self, service: LiveServer) -> None:
        self.id: str = service.client.run()["id"]
        self.address = service.url.removeprefix("http://")
        self.folder = service.data_dir / "jobs" / self.id
        self.work = self.folder / "work"

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.address, timeout=20)

    def get(self, connection: http.client.HTTPConnection, path: str) -> tuple[int, bytes]:
        """The status, and the body or, of an answer that was broken off, what had come of it."""
        connection.request("GET", f"/jobs/{self.id}/{path}")
        answer = connection.getresponse()
        try:
            return answer.status, answer.read()
        except http.client.IncompleteRead as short:
            connection.close()
            return answer.status, short.partial

    def open_download(self, name: str) -> socket.socket:
        """A client that has asked for a file and takes nothing of the answer."""
        host, port = self.address.split(":")
        client = socket.create_connection((host, int(port)))
        client.sendall(f"GET /jobs/{self.id}/outputs/{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return client


@pytest.fixture
def job(service: LiveServer) -> EndedJob:
    return EndedJob(service)


@pytest.fixture
def outside(service: LiveServer) -> Path:
    """A folder on the same file system with the names that are asked for, and the secret in them."""
    folder = service.data_dir.parent / f"outside-{time.monotonic_ns()}"
    (folder / "x").mkdir(parents=True)
    for name in ("x/file", "x/named secret", "log.0", "file"):
        (folder / name).write_bytes(SECRET)
    return folder


def race(
    job: EndedJob, paths: list[str], judge: Callable[[int, bytes], None], *, for_s: float = RACE_S
) -> int:
    """Ask for these paths with several clients for a while; how many answers were judged."""
    end = time.monotonic() + for_s
    answers: list[int] = []
    failures: list[Exception] = []

    def client() -> None:
        count = 0
        try:
            with closing(job.connection()) as connection:
                while time.monotonic() < end:
                    for path in paths:
                        judge(*job.get(connection, path))
                        count += 1
        except (AssertionError, OSError, http.client.HTTPException) as error:
            failures.append(error)
        answers.append(count)

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    return sum(answers)


def leaks_to_a_check_by_name(work: Path, paths: list[str]) -> bool:
    """Whether who looks where a path leads and opens it then is led outside, in the same race."""
    top = os.path.realpath(work)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for path in paths:
            try:
                place = os.path.realpath(os.path.join(top, path))
                if not place.startswith(top + "/"):
                    continue
                fd = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
            except OSError:
                continue
            content = os.read(fd, 100)
            os.close(fd)
            if content == SECRET:
                return True
    return False


def test_no_race_of_links_leads_outside(job: EndedJob, outside: Path) -> None:
    work = job.work
    (work / "f1").write_bytes(INSIDE)
    (work / "f1.link").symlink_to(outside / "file")
    (work / "f2").write_bytes(INSIDE)
    os.link(outside / "file", work / "f2.hard")
    (work / "f3").write_bytes(INSIDE)
    os.mkfifo(work / "f3.fifo")
    for name in ("d", "e", "e.other"):
        (work / name).mkdir()
    for name in ("d", "e"):
        (work / name / "x").mkdir()
        (work / name / "x" / "file").write_bytes(INSIDE)
    (work / "d.link").symlink_to(outside)
    (work / "e.other" / "x").symlink_to(outside / "x")
    pairs = [("f1", "f1.link"), ("f2", "f2.hard"), ("f3", "f3.fifo"), ("d", "d.link"), ("e", "e.other")]
    paths = ["f1", "f2", "f3", "d/x/file", "e/x/file"]
    served = 0

    def judge(status: int, content: bytes) -> None:
        nonlocal served
        assert SECRET not in content
        assert (status, content) == (200, INSIDE) or status == 404, (status, content)
        served += status == 200

    def judge_page(status: int, content: bytes) -> None:
        assert status == 200
        assert b"named secret" not in content

    with swapping(*((work / one, work / other) for one, other in pairs)):
        answers = race(job, [f"outputs/{path}" for path in paths], judge)
        assert answers > served > answers / 50, (answers, served)
        assert race(job, ["outputs?prefix=d/", "outputs?prefix=e/", "outputs"], judge_page, for_s=1.5)
        assert leaks_to_a_check_by_name(work, paths), "there was no race to win"


def test_no_race_of_links_leads_to_another_log(job: EndedJob, outside: Path) -> None:
    attempt = job.folder / "attempts" / "1"
    log = (attempt / "log.0").read_bytes()
    (attempt / "other").symlink_to(outside / "log.0")
    (job.folder / "attempts" / "other").symlink_to(outside)
    served = 0

    def judge(status: int, content: bytes) -> None:
        nonlocal served
        # It may be gone when it is read, but never another's.
        assert (status, log.startswith(content)) == (200, True), (status, content)
        served += content == log

    with swapping((attempt / "log.0", attempt / "other")):
        race(job, ["logs", "logs?offset=0"], judge, for_s=1)
    with swapping((attempt, job.folder / "attempts" / "other")):
        race(job, ["logs", "logs?tail=1000"], judge, for_s=1)
    assert served


@pytest.mark.root
@pytest.mark.parametrize("name", ["file", "x"])
def test_what_is_mounted_in_a_jobs_folder_is_not_part_of_it(job: EndedJob, outside: Path, name: str) -> None:
    place = job.work / "mounted"
    if name == "x":
        place.mkdir()
    else:
        place.touch()
    run_or_skip("mount", "--bind", str(outside / name), str(place))
    try:
        with closing(job.connection()) as connection:
            for path in ("mounted", "mounted/file"):
                assert job.get(connection, f"outputs/{path}")[0] == 404
            assert b"mounted/" not in job.get(connection, "outputs")[1]
    finally:
        unmount(place)


def test_a_file_that_shrinks_while_it_is_sent_ends_the_answer_short(job: EndedJob) -> None:
    path = job.work / "shrinks"
    path.write_bytes(b"x" * 2**26)
    with closing(job.connection()) as connection:
        connection.request("GET", f"/jobs/{job.id}/outputs/shrinks")
        answer = connection.getresponse()
        assert answer.read(1000) == b"x" * 1000
        os.truncate(path, 2000)
        with pytest.raises(http.client.IncompleteRead) as caught:
            answer.read()
    assert set(caught.value.partial) <= {ord("x")}


def files_open_at(service: LiveServer, path: Path) -> int:
    if os.geteuid() != 0:
        pytest.skip("needs root: the descriptors of the service are nobody's to see")
    return sum(file.path == str(path) for file in psutil.Process(service.process.pid).open_files())


@pytest.mark.root
def test_no_kind_of_answer_leaves_a_file_open(service: LiveServer, job: EndedJob) -> None:
    path = job.work / "Snakefile"
    statuses = []
    with closing(job.connection()) as connection:
        for method, headers in [
            ("GET", {}),
            ("HEAD", {}),
            ("GET", {"Range": "bytes=0-1"}),
            ("GET", {"Range": "bytes=999999-"}),
            ("GET", {"If-None-Match": "*"}),
        ]:
            connection.request(method, f"/jobs/{job.id}/outputs/Snakefile", headers=headers)
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
    assert statuses == [200, 200, 206, 416, 304]
    wait_until(lambda: files_open_at(service, path) == 0, what="the file to be closed")


@pytest.mark.root
def test_clients_who_take_nothing_cost_next_to_nothing(service: LiveServer, job: EndedJob) -> None:
    """Neither memory nor a thread, and in the end no descriptor."""
    path = job.work / "large"
    with path.open("wb") as file:
        file.truncate(2**31)
    process = psutil.Process(service.process.pid)
    with closing(job.connection()) as connection, ExitStack() as clients:
        job.get(connection, "outputs")
        before = process.memory_info().rss
        for _ in range(45):
            clients.enter_context(job.open_download("large"))
        wait_until(lambda: files_open_at(service, path) == 45, what="every download to have begun")
        for _ in range(20):
            connection.request("GET", "/healthz")
            assert connection.getresponse().read()
        assert job.get(connection, "outputs/Snakefile")[0] == 200
        assert process.memory_info().rss - before < 64 * 2**20
    wait_until(lambda: files_open_at(service, path) == 0, what="the files to be closed")
