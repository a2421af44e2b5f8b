"""Who may see the page's content, what operators do on it, and the form for a new job."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.support.browser import barriers
from tests.support.engines import BUNDLED
from tests.support.keys import KeyedServer, keyed_server
from tests.support.page_views import page_workflows, sign_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.support.browser import Visit


pytestmark = pytest.mark.soak
TAKING = """
rule all:
    output: "done.txt"
    shell: "cat input/* > {output}"
"""


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyedServer]:
    folder = tmp_path_factory.mktemp("workflows")
    page_workflows(folder)
    (folder / "wordcount").symlink_to(BUNDLED / "wordcount")
    (folder / "taking").mkdir()
    (folder / "taking" / "Snakefile").write_text(TAKING)
    (folder / "taking" / "snakeline.toml").write_text("[attachments]\nmax_files = 3\n")
    with keyed_server(tmp_path_factory.mktemp("page"), WORKFLOWS_DIR=str(folder)) as server:
        yield server


def signed_in(visit: Callable[..., Visit], keyed: KeyedServer, place: str = "/") -> Page:
    page = visit(permissions=["clipboard-read", "clipboard-write"]).open(keyed.server, place)
    sign_in(page, keyed.first_key)
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    return page


def test_keys_are_made_replaced_and_revoked(keyed: KeyedServer, visit: Callable[..., Visit]) -> None:
    page = signed_in(visit, keyed, "/admin/keys")
    page.get_by_role("button", name="New key").click()
    dialog = page.get_by_role("dialog", name="New key")
    dialog.get_by_label("Name").fill("Not A Name")
    dialog.get_by_role("button", name="Make it").click()
    expect(dialog.get_by_text("must match")).to_be_visible()
    dialog.get_by_label("Name").fill("lims")
    dialog.get_by_label("Days until it expires").fill("30")
    dialog.get_by_role("button", name="Make it").click()
    made = page.get_by_role("dialog", name="The new key").locator("pre").text_content()
    assert made
    assert keyed.client(made).get("/jobs").status_code == 200
    assert keyed.client(made).get("/keys").status_code == 403
    page.get_by_role("button", name="Done").click()
    row = page.get_by_role("row", name=re.compile("lims"))
    expect(row).to_contain_text("read, submit")
    page.get_by_role("button", name="Replace lims").click()
    page.get_by_role("button", name="Back", exact=True).click()
    expect(row).to_have_count(1)
    page.get_by_role("button", name="Replace lims").click()
    page.get_by_role("button", name="Replace it").click()
    fresh = page.get_by_role("dialog", name="The new key").locator("pre").text_content()
    page.get_by_role("button", name="Done").click()
    expect(row).to_have_count(2)
    assert fresh
    assert fresh != made
    assert [keyed.client(key).get("/jobs").status_code for key in (made, fresh)] == [200, 200]
    expect(row.filter(has_text=made.split(".")[0])).to_contain_text(
        re.compile("in (23|24) hr|tomorrow|in 1 day")
    )
    page.reload()
    row = row.filter(has_text=fresh.split(".")[0])
    made = fresh
    row.get_by_role("button", name="Revoke lims").click()
    page.get_by_role("button", name="Revoke it").click()
    expect(row).to_contain_text("revoked")
    assert keyed.client(made).get("/jobs").status_code == 401
    assert barriers(page) == []


def test_files_are_sent_with_a_job_by_the_form(
    keyed: KeyedServer, visit: Callable[..., Visit], tmp_path: Path
) -> None:
    page = signed_in(visit, keyed, "/new?workflow=taking")
    expect(page.get_by_text("At most 3 files")).to_be_visible()
    files = []
    for name in ("a.txt", "b.txt", "c.txt", "d.txt"):
        (tmp_path / name).write_text(f"from {name}\n")
        files.append(tmp_path / name)
    chosen = page.get_by_label("Input files")
    chosen.set_input_files(files)
    page.get_by_label("Name", exact=True).fill("with files")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("alert").filter(has_text="3")).to_be_visible()
    chosen.set_input_files(files[:2])
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("heading", name="with files")).to_be_visible()
    expect(page.get_by_role("heading", name="Files that came with it")).to_be_visible()
    job = keyed.admin.get("/jobs?limit=1").json()["items"][0]
    assert [(each["name"], each["size"]) for each in job["attachments"]] == [("a.txt", 11), ("b.txt", 11)]
    keyed.admin.wait_for(job["id"], "completed")
    work = keyed.server.data_dir / "jobs" / job["id"] / "work"
    assert (work / "input" / "b.txt").read_text() == "from b.txt\n"


def test_operators_read_names_where_the_service_tells_paths(
    keyed: KeyedServer, visit: Callable[..., Visit]
) -> None:
    page = signed_in(visit, keyed, "/admin/service")
    expect(page.get_by_role("row", name=re.compile("^store"))).to_contain_text("good")
    named = """texts => {
      const app = document.querySelector('script[type=module]').src;
      return import(app.replace('app.js', 'admin.js')).then(admin => texts.map(admin.named)); }"""
    texts = {
        "The store /srv/line/data/snakeline.db cannot be read (EIO).": (
            "The store snakeline.db cannot be read (EIO)."
        ),
        "/srv/line/data is mounted read-only: look there": "data is mounted read-only: look there",
        "7 cannot use /opt/a-b/bin/python (EPERM); /root": "7 cannot use python (EPERM); root",
        "12 MiB and/or https://issuer.example/path": "12 MiB and/or https://issuer.example/path",
    }
    assert page.evaluate(named, list(texts)) == list(texts.values())


def test_quotas_are_set_and_every_change_is_on_record(
    keyed: KeyedServer, visit: Callable[..., Visit]
) -> None:
    page = signed_in(visit, keyed, "/admin/tenants")
    page.get_by_role("button", name="Set a quota").click()
    page.get_by_role("textbox", name="Tenant").fill("atlas")
    page.get_by_label("Pending jobs").fill("12")
    page.get_by_role("button", name="Set it").click()
    expect(page.get_by_role("row", name=re.compile("atlas"))).to_contain_text("12")
    page.get_by_role("link", name="Audit").click()
    page.get_by_label("Action").select_option("quota.set")
    expect(page.get_by_role("row", name=re.compile("quota.set"))).to_contain_text("atlas")
    page.get_by_role("link", name="Service").click()
    expect(page.get_by_text("a stand-in: no real pipelines run")).to_be_visible()
    expect(page.get_by_text("Disk free")).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("^store"))).to_contain_text("good")
    assert barriers(page) == []


def test_who_may_only_look_is_told_so(keyed: KeyedServer, visit: Callable[..., Visit]) -> None:
    page = visit().open(keyed.server, "/admin/keys")
    expect(page.get_by_label("API key or token")).to_be_focused()
    assert barriers(page) == []
    sign_in(page, keyed.key("read", name="looker"))
    expect(page.get_by_text("Your key does not allow this")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_job_is_submitted_with_a_form_made_from_the_workflows_schema(
    keyed: KeyedServer, visit: Callable[..., Visit], scheme: str
) -> None:
    page = visit(color_scheme=scheme).open(keyed.server, "/new")
    sign_in(page, keyed.first_key)
    page.get_by_label("Workflow").select_option("wordcount")
    top = page.get_by_label("top_n")
    expect(top).to_have_value("12")
    expect(page.get_by_text("How many words the table and the chart show.")).to_be_visible()
    top.fill("lots")
    page.get_by_label("Name", exact=True).focus()
    expect(page.get_by_text("must be a number")).to_be_visible()
    top.fill("500")
    expect(page.get_by_text("must be at most 50")).to_be_visible()
    page.get_by_role("button", name="Submit").click()
    expect(top).to_be_focused()
    expect(page.get_by_text("Something is not right yet")).to_be_visible()
    assert barriers(page) == []
    top.fill("5")
    page.get_by_text("Limits, targets and labels").click()
    page.get_by_label("Labels").fill("project:atlas")
    page.get_by_label("Cores").fill("100000")
    page.get_by_label("Name", exact=True).fill(f"from the form, {scheme}")
    page.get_by_role("button", name="Submit").click()
    cores = page.get_by_label("Cores")
    expect(cores).to_be_focused()
    expect(cores).to_have_attribute("aria-invalid", "true")
    cores.fill("1")
    page.get_by_role("button", name="Preview the plan").click()
    expect(page.get_by_role("heading", name=re.compile(r"^The plan: \d+ task"))).to_be_visible()
    expect(page.locator(".graph svg text.name").first).to_be_visible()
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("heading", name=f"from the form, {scheme}")).to_be_visible()
    job = keyed.admin.get("/jobs?limit=1").json()["items"][0]
    assert (job["workflow"], job["parameters"]["top_n"], job["labels"]) == (
        "wordcount",
        5,
        {"project": "atlas"},
    )
    expect(page.locator(".title .status.completed")).to_be_visible()
    page.get_by_role("link", name="Clone with changes").click()
    expect(page.get_by_label("top_n")).to_have_value("5")
    expect(page.get_by_label("Labels")).to_have_value("project:atlas")
