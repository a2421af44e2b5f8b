"""TAB in a real bash: what the service knows is offered, and quickly nothing where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from tests.support.server import service_environment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.server import LiveServer

# As bash does it on TAB: the words so far, then the function that `complete` knows for the command. It waits
# for 0.3 s: who offers nothing on a busy machine is asked again.
PRESS_TAB = """
eval "$(_SNAKELINE_COMPLETE=source_bash snakeline)"
press_tab() {
    local function=$(complete -p snakeline | sed 's/.*-F \\([^ ]*\\).*/\\1/') tries
    for tries in $(seq $TRIES); do
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
        $function snakeline
        [ ${#COMPREPLY[@]} = 0 ] || break
    done
    printf '%s ' "${COMPREPLY[@]}"; printf '\\n'
}
"""


def offered(tmp_path: Path, url: str, *lines: str, tries: int) -> list[list[str]]:
    """What each line, its last word unfinished, is completed to."""
    command = tmp_path / "snakeline"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m snakeline "$@"\n')
    command.chmod(0o755)
    environment = service_environment({"URL": url}) | {"TRIES": str(tries)}
    done = subprocess.run(
        ["bash", "--norc", "-c", PRESS_TAB + "".join(f"press_tab {line}\n" for line in lines)],
        env=environment | {"PATH": f"{tmp_path}{os.pathsep}{environment['PATH']}"},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert done.stderr == ""
    return [line.split() for line in done.stdout.splitlines()]


def test_jobs_workflows_labels_and_files_are_offered_behind_tab(server: LiveServer, tmp_path: Path) -> None:
    labels = {"completes": "this", "not": "a b $(touch x)"}
    job_id = server.client.run(name="$(touch x)", labels=labels)["id"]
    shown, workflows, labelled, files = offered(
        tmp_path,
        server.url,
        f"snakeline show {job_id[:30]}",
        "snakeline submit de",
        "snakeline list --label com",
        f"snakeline outputs get {job_id[:30]} results/rep",
        tries=20,
    )
    assert shown == [job_id]
    assert workflows == ["demo"]
    assert labelled == ["completes=this"]
    assert files == ["results/report.txt"]


def test_without_a_service_nothing_is_offered_and_nothing_said(tmp_path: Path) -> None:
    began = time.monotonic()
    nobody, silent = offered(
        tmp_path,
        "http://127.0.0.1:9",
        "snakeline show ''",
        "snakeline show --url http://192.0.2.1 ''",
        tries=1,
    )
    assert (nobody, silent) == ([], [])
    # Three starts of the command and 0.3 s of waiting: far from the two minutes that a connection may take.
    assert time.monotonic() - began < 60
