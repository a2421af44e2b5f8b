"""What a shell may be offered: it expands some of it, and runs what looks like a command to it."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import pytest

from snakeline.commands import completing
from tests.support.scripted_service import Scripted, Step, scripted_service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Context:
    """As much of typer's as completion looks at."""

    def __init__(self, **params: Any) -> None:
        self.params = params


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    monkeypatch.setattr(completing, "_WITHIN_S", 30)  # however busy this machine is
    with scripted_service() as server:
        yield server


def outputs_named(*names: str) -> Step:
    return Step(body=json.dumps({"items": [{"path": name} for name in names]}).encode())


@pytest.mark.parametrize(
    "name",
    [
        *(
            "$(touch x)",
            "`touch x`",
            "a;touch x",
            "a b",
            "*",
            "?",
            "[a]",
            "a\nb",
            'a"b',
            "a'b",
            "a\\",
            "~",
            "",
        ),
        *("a|b", "a&b", "(a)", "{a,b}", "!a", "#a", "a<b", "\x1b[2J", "\u202eevil", "$HOME", "^a"),
    ],
)
def test_a_name_that_means_something_to_a_shell_is_not_offered(scripted: Scripted, name: str) -> None:
    scripted.script = [outputs_named(name, "results/Größe-1.txt", "a=b@c+d%e,f:g")]
    job_id = "019ab5f0-1c2d-7e3f-8a4b-5c6d7e8f9a0b"
    offers = completing.output(Context(url=scripted.url, job=job_id), "")  # type: ignore[arg-type]
    assert [value for value, _ in offers] == ["results/Größe-1.txt", "a=b@c+d%e,f:g"]


def test_of_a_description_only_plain_words_are_left() -> None:
    told = completing._harmless([("a", 'it\'s "$(rm)" `x` \\ a; b: c\n\x1b[2J ok.')])
    assert told == [("a", "it s    rm    x    a  b: c   2J ok.")]


def test_a_job_that_could_lead_elsewhere_is_not_asked_about(scripted: Scripted) -> None:
    for job in ("../../keys/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "short", "0" * 40 + "?x=1"):
        assert completing.output(Context(url=scripted.url, job=job), "") == []  # type: ignore[arg-type]
    assert scripted.heard == []


@pytest.mark.parametrize(
    "step", [None, Step(500), Step(401), Step(200, body=b"<html>"), Step(200, body=b'{"items": [1]}')]
)
def test_where_no_answer_is_to_be_had_nothing_is_offered(scripted: Scripted, step: Step | None) -> None:
    scripted.script = [step]
    assert completing.workflow(Context(url=scripted.url)) == []  # type: ignore[arg-type]


def test_the_file_with_profiles_offers_its_names_unless_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "snakeline" / "profiles.toml"
    file.parent.mkdir()
    file.write_text('[lab]\nurl = "https://lab.example"\n')
    file.chmod(0o600)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert completing.profile() == [("lab", "https://lab.example")]
    file.chmod(0o644)
    assert completing.profile() == []


def test_only_jobs_that_a_command_can_do_something_about_are_asked_for(scripted: Scripted) -> None:
    for complete in (
        completing.any_job,
        completing.active_job,
        completing.retriable_job,
        completing.ended_job,
    ):
        complete(Context(url=scripted.url), "")  # type: ignore[arg-type]
    completing.any_job(Context(url=scripted.url), "019ab5f0-1")  # type: ignore[arg-type]
    assert [path.partition("?limit=100")[2] for _, path, _ in scripted.heard] == [
        "",
        "&status=pending&status=running",
        "&status=failed&status=cancelled",
        "&status=completed&status=failed&status=cancelled",
        "&q=019ab5f0-1",
    ]


def test_one_that_does_not_answer_in_time_offers_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(completing, "_WITHIN_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert completing.workflow(Context(url=url)) == []  # type: ignore[arg-type]
