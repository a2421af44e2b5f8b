"""What the service and its libraries may write into the log, and what messages say of its files."""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any, Literal

import pytest
import structlog

from api.log_format import configure_logging, log_crashes
from api.private_paths import PrivatePaths
from api.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Level = Literal["debug", "info", "warning", "error"]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("runner")
    handlers, levels = list(root.handlers), (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
    structlog.reset_defaults()


@pytest.mark.parametrize("level", ["debug", "info", "warning"])
def test_libraries_only_warn_whatever_the_level(level: Level, capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging(level)
    for name in ("httpcore2.http11", "httpx2", "sqlalchemy.engine", "asyncio", "uvicorn.error"):
        logging.getLogger(name).debug("Authorization: Bearer hunter2")
        logging.getLogger(name).info("GET https://x/?token=hunter2")
        logging.getLogger(name).warning("something is wrong")
    written = capfd.readouterr().err
    assert "hunter2" not in written
    assert written.count("something is wrong") == 5


@pytest.mark.parametrize(("level", "told"), [("debug", True), ("info", True), ("warning", False)])
def test_our_own_modules_follow_the_level(
    level: Level, *, told: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    configure_logging(level)
    logging.getLogger("runner.stores.memory").info("said")
    assert ("said" in capfd.readouterr().err) is told


def json_lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


def test_lines_of_libraries_say_whose_they_are_and_belong_to_the_request(
    capfd: pytest.CaptureFixture[str],
) -> None:
    configure_logging("info")
    with structlog.contextvars.bound_contextvars(request_id="r1", job_id="j1"):
        logging.getLogger("uvicorn.error").warning("something %s", "odd")
        structlog.get_logger("x").info("ours", n=1)
    theirs, ours = json_lines(capfd)
    assert (
        theirs.items()
        >= {
            "event": "something odd",
            "logger": "uvicorn.error",
            "level": "warning",
            "request_id": "r1",
            "job_id": "j1",
        }.items()
    )
    assert ours.items() >= {"event": "ours", "n": 1, "request_id": "r1", "job_id": "j1"}.items()
    assert "logger" not in ours


def fail_with_a_secret() -> None:
    password = "hunter2"
    raise ValueError(f"{len(password)} characters")


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_has_no_values_of_variables(
    form: Literal["json", "console"], capfd: pytest.CaptureFixture[str]
) -> None:
    configure_logging("debug", form)
    for log in (structlog.get_logger("x"), logging.getLogger("some.library")):
        try:
            fail_with_a_secret()
        except ValueError:
            log.exception("failed")
    written = capfd.readouterr().err
    assert written.count("ValueError: 7 characters") == 2
    assert written.count("fail_with_a_secret()") >= 2
    assert "'hunter2'" not in written.replace('password = "hunter2"', "")


def test_for_people_a_line_has_no_braces_and_obeys_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "console")
    structlog.get_logger("x").info("job.ended", file="a\x1b[2Jb\rc\nd")
    logging.getLogger("some.library").warning("red \x1b[31m text")
    first, second = capfd.readouterr().err.splitlines()
    assert "job.ended" in first
    assert r"file=a\x1b[2Jb\x0dc\x0ad" in first
    assert r"red \x1b[31m text" in second
    assert "{" not in first + second
    assert "\x1b" not in first + second


@pytest.mark.parametrize("form", ["auto", "json", "console"])
@pytest.mark.parametrize("on_a_terminal", [True, False])
def test_without_a_word_the_form_is_for_people_on_a_terminal_and_else_for_machines(
    form: str, *, on_a_terminal: bool
) -> None:
    ours, theirs = os.openpty() if on_a_terminal else os.pipe()
    program = (
        "import sys, structlog; from api.log_format import configure_logging;"
        f"configure_logging('info', {form!r}); structlog.get_logger().info('event', a=1)"
    )
    subprocess.run([sys.executable, "-c", program], stderr=theirs, check=True, timeout=60)
    os.close(theirs)
    written = os.read(ours, 10_000).decode()
    os.close(ours)
    for_people = form == "console" or (form == "auto" and on_a_terminal)
    assert written.startswith("{") is not for_people
    assert ("\x1b[" in written) is (for_people and on_a_terminal)


def test_a_thread_that_fails_and_a_warning_are_lines_of_the_log(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    configure_logging("info")
    log_crashes()
    try:
        thread = threading.Thread(target=fail_with_a_secret, name="a thread")
        thread.start()
        thread.join()
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("deprecated", stacklevel=1)
    finally:
        logging.captureWarnings(capture=False)
    failed, warned = json_lines(capfd)
    assert failed.items() >= {"event": "thread_failed", "thread": "a thread", "level": "error"}.items()
    assert "ValueError: 7 characters" in failed["exception"]
    assert (warned["logger"], warned["level"]) == ("py.warnings", "warning")


UNREAD = """
import sys, structlog
from api.log_format import configure_logging
configure_logging("info", "json")
log = structlog.get_logger("x")
log.info("cut", text="x" * 200_000)
for number in range(2000):
    log.info("lost", number=number)
print("free", flush=True)
sys.stdin.readline()
log.info("later")
"""


def test_who_stops_reading_the_log_stops_nothing_else_and_may_read_on() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", UNREAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        try:
            assert select.select([child.stdout], [], [], 30)[0], "it waits for its reader"
            first = os.read(child.stderr.fileno(), 2**20)
            child.stdin.write(b"\n")
            child.stdin.flush()
            told = (first + child.stderr.read()).splitlines()
        finally:
            child.kill()
    assert b'"event": "lost"' not in b"".join(told)
    assert [json.loads(line)["event"] for line in told[1:]] == ["later"]


READ_SLOWLY = """
import sys, time, structlog
from api.log_format import configure_logging
configure_logging("info", "json")
log = structlog.get_logger("x")
log.info("filling", text="x" * 60_000)
began = time.monotonic()
for number in range(100):
    log.info("much", text="x" * 3900)
print(time.monotonic() - began, flush=True)
"""


def test_who_reads_the_log_slowly_holds_nothing_up() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", READ_SLOWLY], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        try:
            slow = threading.Event()
            while not select.select([child.stdout], [], [], 0)[0]:
                if select.select([child.stderr], [], [], 0.05)[0]:
                    os.read(child.stderr.fileno(), select.PIPE_BUF)
                    slow.wait(0.1)
            took_s = float(child.stdout.readline())
        finally:
            child.kill()
    assert took_s < 3  # each of a hundred lines would wait for a tenth of a second


def test_messages_name_files_by_their_settings() -> None:
    paths = PrivatePaths(load_settings({"SNAKELINE_DATA_DIR": "/srv/data"}))
    assert paths.hidden("The store /srv/data/snakeline.db is damaged.") == (
        "The store <DATA_DIR>/snakeline.db is damaged."
    )
    elsewhere = {
        "SNAKELINE_DATA_DIR": "/srv/data",
        "SNAKELINE_DATABASE_URL": "sqlite:////fast%20disk/jobs.db",
    }
    paths = PrivatePaths(load_settings(elsewhere))
    assert (
        paths.hidden("/fast disk/jobs.db: gone; /srv/data: full") == "<DATABASE_URL>: gone; <DATA_DIR>: full"
    )


@pytest.mark.parametrize("data_dir", ["/", "//"])
def test_a_message_stays_legible_where_the_root_is_the_data_directory(data_dir: str) -> None:
    paths = PrivatePaths(
        load_settings({"SNAKELINE_DATA_DIR": data_dir, "SNAKELINE_DATABASE_URL": "memory://"})
    )
    assert paths.hidden("a/b") == "a/b"


def test_where_the_data_directory_really_is_stays_private_as_well(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("disk")
    paths = PrivatePaths(load_settings({"SNAKELINE_DATA_DIR": f"{tmp_path}/link/data"}))
    assert paths.hidden(f"{tmp_path}/disk/data/jobs: full; {tmp_path}/link/data: full") == (
        "<DATA_DIR>/jobs: full; <DATA_DIR>: full"
    )
