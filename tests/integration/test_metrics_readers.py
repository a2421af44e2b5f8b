"""Those who read `/metrics`: its documentation, the alerts, the dashboard, and Prometheus' own check of it.

All of them are held against what one real service tells.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.held_job import held_job
from tests.support.server import running_server
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
PAGE = (ROOT / "docs/metrics.md").read_text()
ALERTS: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((ROOT / "deploy/grafana/snakeline.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
# Prometheus adds `job` and `instance` to what it scrapes, and makes `up` itself.
EVERYWHERE = {"job", "instance", "le"}


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A service that has done a little of everything: then everything that it can tell is told."""
    directory = tmp_path_factory.mktemp("scraped")
    with running_server(directory, MAX_DATA_GB="1") as server:
        client = server.client
        client.run(parameters={"mock": {"exit_code": 3}}, max_retries=1)
        client.get("/jobs/no-such-job")
        with (
            held_job(client, directory) as (job_id, _),
            client.stream("GET", f"/jobs/{job_id}/logs?follow=true") as answer,
        ):
            log = answer.iter_raw()  # dropped, it would close the connection
            assert next(log)

            def text() -> str:
                found = client.get("/metrics").text
                # The files are measured, and ends are counted, a moment later.
                is_all = "snakeline_job_files_bytes" in found and "_requeued_total{" in found
                return found if is_all and "snakeline_run_seconds_count{" in found else ""

            return wait_until(text, what="everything to be told")


@pytest.fixture(scope="module")
def families(scraped: str) -> dict[str, tuple[str, set[str]]]:
    """Type and labels of each metric, by the name that its samples have, without a histogram's endings."""
    found = {}
    for family in text_string_to_metric_families(scraped):
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert family.samples, f"{name} has no sample"
        found[name] = (family.type, labels)
    return found


@pytest.fixture(scope="module")
def samples(scraped: str) -> dict[str, set[str]]:
    """The labels of each sample's name, as queries use them."""
    found: dict[str, set[str]] = {"up": set(EVERYWHERE)}
    for family in text_string_to_metric_families(scraped):
        for sample in family.samples:
            found.setdefault(sample.name, set(EVERYWHERE)).update(sample.labels)
    return found


def promtool(*arguments: str, standard_input: str | None = None) -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed: Debian has it in the package prometheus")
    return subprocess.run(
        ["promtool", *arguments],
        input=standard_input,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=PROMETHEUS,
    )


# ---------------------------------------------------------------- documentation


def test_the_documentation_tells_every_metric_with_its_type_and_labels(
    families: dict[str, tuple[str, set[str]]],
) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\| ([^|]+) \|$", PAGE, re.MULTILINE)
    documented = {name: (kind, set(re.findall(r"\w+", labels))) for name, kind, labels, _ in rows}
    assert len(documented) == len(rows)
    assert documented == families


def test_prometheus_own_check_has_nothing_to_say(scraped: str) -> None:
    checked = promtool("check", "metrics", standard_input=scraped)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_prometheus_own_check_would_say_it() -> None:
    text = "# TYPE snakeline_wait_milliseconds gauge\nsnakeline_wait_milliseconds 1\n"
    checked = promtool("check", "metrics", standard_input=text)
    assert checked.returncode != 0
    assert "base unit" in checked.stderr


def test_no_path_and_no_identity_is_in_any_label(scraped: str) -> None:
    assert "no-such-job" not in scraped
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-7", scraped)
    assert 'route="/jobs/{job_id}"' in scraped


# ---------------------------------------------------------------- queries


def unknown(query: str, samples: dict[str, set[str]]) -> Iterator[str]:
    """What the query names and no service tells: metrics, and labels of them."""
    query = re.sub(r'"[^"]*"', '""', query)
    named = re.findall(r"\b(?:snakeline|process)_\w+|\bup\b", query)
    yield from (name for name in named if name not in samples)
    labels = set().union(*(samples.get(name, set()) for name in named))
    for name, selector in re.findall(r"\b(\w+)\{([^}]*)\}", query):
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector):
            if label not in samples.get(name, set()):
                yield f"{name}{{{label}}}"
    for grouping in re.findall(r"\bby \(([^)]*)\)", query):
        yield from (label for label in re.findall(r"\w+", grouping) if label not in labels)
    if not named:
        yield f"no metric in {query!r}"


def test_what_no_service_tells_is_found_in_a_query(samples: dict[str, set[str]]) -> None:
    assert list(unknown("sum(snakeline_job)", samples)) == ["snakeline_job"]
    assert list(unknown('snakeline_jobs{state="x"}', samples)) == ["snakeline_jobs{state}"]
    assert list(unknown("sum by (why) (snakeline_jobs)", samples)) == ["why"]
    assert list(unknown('rate(snakeline_run_seconds_bucket{workflow=~"a{2}"}[5m])', samples)) == []
    assert list(unknown("vector(1)", samples)) == ["no metric in 'vector(1)'"]


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_is_told_and_leads_to_its_page(
    rule: dict[str, Any], samples: dict[str, set[str]]
) -> None:
    assert list(unknown(rule["expr"], samples)) == []
    name = rule["alert"]
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
    section = re.search(
        rf"^### {name}\n\n(.+?)(?=^##|\Z)",
        (ROOT / "docs/operations.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
    assert section is not None
    assert len(section[1]) > 150, "what it means, what to look at, what to do"
    for metric in re.findall(r"`(snakeline_\w+)", section[1]):
        assert metric in samples or f"{metric}_bucket" in samples, metric


def test_no_page_is_left_of_an_alert_that_is_gone() -> None:
    headings = re.findall(r"^### (Snakeline\w+)$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(rule["alert"] for rule in ALERTS)


def test_every_alert_is_tried_when_it_is_due_and_when_it_is_not() -> None:
    tests = yaml.safe_load((PROMETHEUS / "alerts.test.yml").read_text())["tests"]
    fired: set[str] = set()
    quiet: dict[str, set[int]] = {}
    for number, test in enumerate(tests):
        for check in test["alert_rule_test"]:
            if check["exp_alerts"]:
                fired.add(check["alertname"])
            else:
                quiet.setdefault(check["alertname"], set()).add(number)
    names = {rule["alert"] for rule in ALERTS}
    assert fired == names
    assert {name for name, where in quiet.items() if len(where) >= 2} == names


def test_the_alerts_do_what_their_tests_say() -> None:
    checked = promtool("check", "rules", "alerts.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tried = promtool("test", "rules", "alerts.test.yml")
    assert tried.returncode == 0, tried.stdout + tried.stderr
    assert "SUCCESS" in tried.stdout


def test_the_scrape_configuration_is_one_and_is_called_what_the_alerts_look_for() -> None:
    checked = promtool("check", "config", "--syntax-only", "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    configuration = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    (scrape,) = configuration["scrape_configs"]
    named = {name for rule in ALERTS for name in re.findall(r'job="([^"]*)"', rule["expr"])}
    assert named == {scrape["job_name"]}
    assert all((PROMETHEUS / file).is_file() for file in configuration["rule_files"])


# ---------------------------------------------------------------- the dashboard


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_asks_for_what_is_told(panel: dict[str, Any], samples: dict[str, set[str]]) -> None:
    assert panel["targets"]
    for target in panel["targets"]:
        assert list(unknown(target["expr"], samples)) == []
        assert 'job="$job"' in target["expr"]
        assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        labels = set().union(*(samples.get(name, set()) for name in re.findall(r"\w+", target["expr"])))
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels


def test_the_dashboard_is_whole() -> None:
    assert DASHBOARD["id"] is None
    assert DASHBOARD["uid"] == "snakeline"
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["title"] for panel in panels if panel["type"] == "row"}) >= 5
    defined = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) - {"__rate_interval", "__all"}
    assert used == defined


def test_the_dashboard_shows_every_metric_of_ours(families: dict[str, tuple[str, set[str]]]) -> None:
    shown = json.dumps(DASHBOARD)
    left_out = {name for name in families if name.startswith("snakeline_") and f"{name}" not in shown}
    assert left_out == set()
