"""The client with a service, a proxy or an address that does not do what it should."""

from __future__ import annotations

import gzip
import os
from typing import TYPE_CHECKING

import pytest

from snakeline import Client, Problem, UnexpectedAnswer, Unreachable
from tests.support.scripted_service import Scripted, Step, scripted_service
from tests.support.tls_balancer import make_certificate, tls_balancer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

JOB_ID = "019ab5f0-1c2d-7e3f-8a4b-5c6d7e8f9a0b"
FIRST = {"ETag": '"one"'}


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    with scripted_service() as server:
        yield server


@pytest.fixture
def client(scripted: Scripted) -> Iterator[Client]:
    with Client(scripted.url, retry_for_s=5) as client:
        client.workflows()
        scripted.headers.clear()
        yield client


@pytest.mark.parametrize(
    "body", [b"<html>Sign in</html>", b"[]", b"\xff\xfe", b"{}", b"null", b'{"detail": "hello"}']
)
@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.workflows(),
        lambda client: client.list(),
        lambda client: list(client.jobs()),
        lambda client: client.get(JOB_ID),
        lambda client: client.submit("demo"),
        lambda client: list(client.outputs(JOB_ID)),
        lambda client: list(client.follow_log(JOB_ID)),
    ],
)
def test_what_is_no_snakeline_service_is_called_so(
    client: Client, scripted: Scripted, call: Callable[[Client], object], body: bytes
) -> None:
    scripted.script = [Step(200, body=body)]
    with pytest.raises(UnexpectedAnswer, match="is no Snakeline service"):
        call(client)


@pytest.mark.parametrize("errors", [["text"], "text", {"a": 1}, [None, 7]])
def test_errors_in_no_form_of_ours_are_left_out(errors: object) -> None:
    problem = Problem(422, {"title": "No", "errors": errors})
    assert (problem.errors, str(problem)) == ([], "422 No")


@pytest.mark.parametrize("address", ["localhost:8000", "ftp://x", "", "http://a:b:c"])
def test_what_is_no_address_is_refused_before_anything_is_sent(address: str) -> None:
    with pytest.raises(ValueError, match="is no address"):
        Client(address)


def test_certificates_are_the_machines_own_or_those_that_are_named(
    scripted: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = tmp_path / "own.pem"
    make_certificate(certificate)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with tls_balancer(scripted.url, certificate) as url:
        with Client(url) as client, pytest.raises(Unreachable, match=r"(?i)certificate"):
            client.workflows()
        assert scripted.heard == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with Client(url) as client:
            assert client.workflows() == []
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
        with pytest.raises(ValueError, match="SSL_CERT_FILE"):
            Client(url)


def test_neither_proxies_nor_keys_that_lie_about_are_used(
    scripted: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with Client(scripted.url) as client:
        assert client.workflows() == []
    assert "authorization" not in scripted.headers[-1]


def test_streams_of_an_address_that_never_answered_are_not_waited_for() -> None:
    paused: list[object] = []
    with Client("http://127.0.0.1:9", on_wait=paused.append) as nobody:
        for call in (
            lambda: next(nobody.events()),
            lambda: next(nobody.follow_log(JOB_ID, attempt=1)),
            lambda: nobody.download(JOB_ID, "a", "/dev/null/a"),
            nobody.latest_change,
        ):
            with pytest.raises((Unreachable, NotADirectoryError)):
                call()
    assert paused == []


def test_a_stream_of_no_events_is_no_stream(client: Client, scripted: Scripted) -> None:
    scripted.script = [Step(200, {"Content-Type": "text/html"}, b"<html>Sign in</html>")]
    with pytest.raises(UnexpectedAnswer, match="no events"):
        next(client.events())


def test_what_is_secret_in_an_address_is_not_told(scripted: Scripted) -> None:
    secret = scripted.url.replace("//", "//lab:hunter2@")
    scripted.script = [Step(body=b"[]")]
    with Client(secret) as client, pytest.raises(UnexpectedAnswer) as stranger:
        client.workflows()
    with Client("http://lab:hunter2@127.0.0.1:9") as client, pytest.raises(Unreachable) as nobody:
        client.workflows()
    assert "hunter2" not in f"{stranger.value}{nobody.value}"


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_files_are_sent_whole_each_time_also_those_that_can_be_read_once(
    client: Client, scripted: Scripted, tmp_path: Path, kind: str
) -> None:
    content = b"reads " * 5_000
    reader, writer = os.pipe()
    os.write(writer, content)
    os.close(writer)
    (tmp_path / "a").write_bytes(content)
    scripted.script = [None, Step(503, {"Retry-After": "0"}), Step(422)]
    with pytest.raises(Problem):
        client.submit("demo", files={"a": f"/dev/fd/{reader}" if kind == "pipe" else tmp_path / "a"})
    os.close(reader)
    assert [body.count(b"reads ") for body in scripted.bodies[-3:]] == [5_000] * 3
    assert len({key for _, _, key in scripted.heard[-3:]}) == 1


def test_what_is_no_plain_file_is_not_replaced(client: Client, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/null")
    with pytest.raises(FileExistsError, match="no plain file"):
        client.download(JOB_ID, "a", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()


def test_a_file_that_is_there_already_is_never_touched_by_one_that_comes(
    client: Client, scripted: Scripted, tmp_path: Path
) -> None:
    for name in ("saved", "saved.part"):
        (tmp_path / name).write_text("mine")
    scripted.script = [Step(404)]
    with pytest.raises(Problem):
        client.download(JOB_ID, "a", tmp_path / "saved")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "saved": "mine",
        "saved.part": "mine",
    }
    scripted.script = [Step(200, body=b"new")]
    client.download(JOB_ID, "a", tmp_path / "saved")
    assert (tmp_path / "saved").read_text() == "new"
    assert (tmp_path / "saved.part").read_text() == "mine"


def test_a_file_may_have_a_name_as_long_as_names_can_be(client: Client, tmp_path: Path) -> None:
    client.download(JOB_ID, "a", tmp_path / ("n" * 255))
    assert (tmp_path / ("n" * 255)).stat().st_size > 0
    with pytest.raises(IsADirectoryError):
        client.download(JOB_ID, "a", tmp_path)


def test_nobody_on_the_way_is_asked_to_pack_a_file(client: Client, scripted: Scripted) -> None:
    assert b"".join(client.read(JOB_ID, "a"))
    assert scripted.headers[-1]["accept-encoding"] == "identity"
    scripted.script = [Step(200, {"Content-Encoding": "gzip"}, gzip.compress(b"packed all the same"))]
    assert b"".join(client.read(JOB_ID, "a")) == b"packed all the same"


def test_a_file_that_is_read_goes_on_where_it_broke(client: Client, scripted: Scripted) -> None:
    there = {"Content-Range": "bytes 4-9/10", **FIRST}
    scripted.script = [Step(200, FIRST, b"0123456789", cut_at=4), Step(206, there, b"456789")]
    assert b"".join(client.read(JOB_ID, "a")) == b"0123456789"
    assert (scripted.headers[-1]["range"], scripted.headers[-1]["if-range"]) == ("bytes=4-", '"one"')


def test_a_part_from_another_place_is_not_taken(client: Client, scripted: Scripted, tmp_path: Path) -> None:
    elsewhere = {"Content-Range": "bytes 0-5/10", **FIRST}
    there = {"Content-Range": "bytes 4-9/10", **FIRST}
    scripted.script = [
        Step(200, FIRST, b"0123456789", cut_at=4),
        Step(206, elsewhere, b"012345"),
        Step(206, there, b"456789"),
    ]
    client.download(JOB_ID, "a", tmp_path / "saved")
    assert (tmp_path / "saved").read_bytes() == b"0123456789"


def test_a_break_behind_the_last_byte_is_no_failure(
    client: Client, scripted: Scripted, tmp_path: Path
) -> None:
    # Of a body without a length, which says only at its end that it is whole.
    chunked = {"Transfer-Encoding": "chunked", **FIRST}
    scripted.script = [Step(200, chunked, b"4\r\n0123\r\n", cut_at=9), Step(416)]
    client.download(JOB_ID, "a", tmp_path / "saved")
    assert (tmp_path / "saved").read_bytes() == b"0123"


def test_a_file_that_has_changed_is_not_read_on(client: Client, scripted: Scripted) -> None:
    scripted.script = [Step(200, FIRST, b"0123456789", cut_at=4), Step(200, {"ETag": '"two"'}, b"abc")]
    with pytest.raises(Unreachable, match="changed"):
        b"".join(client.read(JOB_ID, "a"))
