"""What the page shows of real Snakemake that the stand-in has not: rules' own logs, plans that cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.support.engines import snakemake_command
from tests.support.server import running_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.browser import Visit

SNAKEMAKE = snakemake_command()
pytestmark = [
    pytest.mark.snakemake,
    pytest.mark.soak,
    pytest.mark.skipif(SNAKEMAKE is None, reason="real Snakemake is not installed: make snakemake-env"),
]
NEEDY = """
rule all:
    input: "made.txt"

rule make:
    input: "absent.txt"
    output: "made.txt"
    shell: "cp {input} {output}"
"""
IS_IN_SIGHT = """(box, line) =>
  box.querySelector(line).getBoundingClientRect().bottom <= box.getBoundingClientRect().bottom"""
WORDY = """
rule talk:
    output: "said.txt"
    log: "logs/talk.log"
    shell: "seq 100 > {log}; echo ERROR: the index is missing >> {log}; exit 3"
"""


def test_the_failing_rules_own_log_is_open_and_a_plan_says_which_input_is_missing(
    visit: Callable[..., Visit], tmp_path: Path
) -> None:
    folder = tmp_path / "workflows"
    (folder / "needy").mkdir(parents=True)
    (folder / "needy" / "Snakefile").write_text(NEEDY)
    (folder / "wordy").mkdir()
    (folder / "wordy" / "Snakefile").write_text(WORDY)
    assert SNAKEMAKE is not None
    settings = {"ENGINE": "snakemake", "SNAKEMAKE": SNAKEMAKE, "WORKFLOWS_DIR": str(folder)}
    with running_server(tmp_path, **settings) as server:
        job = server.client.run(workflow="wordy", name="fails")
        assert job["reason"] == "exited_nonzero", job
        page = visit().open(server, f"/jobs/{job['id']}")
        expect(page.get_by_text("The engine is the stand-in")).to_have_count(0)
        log = page.get_by_role("region", name="Log logs/talk.log")
        expect(log.locator(".row.error")).to_have_text("101ERROR: the index is missing")
        told = page.get_by_role("region", name="The error")
        expect(told.locator("b.bad").last).to_have_text("ERROR: the index is missing")
        assert told.evaluate(IS_IN_SIGHT, "b.bad:last-child")
        page.get_by_role("button", name="Log of the job").click()
        expect(page.get_by_role("region", name="Log of the job")).to_contain_text("Error in rule talk:")
        page.get_by_role("alert").get_by_role("link", name="talk").click()
        expect(page.get_by_role("heading", name="This task failed")).to_be_visible()
        assert told.evaluate(IS_IN_SIGHT, "b.bad:last-child")
        page.goto(f"{server.url}/#/new?workflow=needy")
        page.get_by_role("button", name="Preview the plan").click()
        expect(page.get_by_role("heading", name="It cannot be planned")).to_be_visible()
        expect(page.get_by_role("listitem").filter(has_text="absent.txt")).to_contain_text("make")
