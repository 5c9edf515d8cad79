"""The demo, started as a user starts it and asked real questions over HTTP.

These tests watch a real program for some minutes: real processes, real time, shipped rules. They share one
demo, and go in the order of the file.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import asyncpg
import psutil
import pytest

from tests.acceptance.program import (
    ROOT,
    Program,
    database_url,
    free_port,
    post,
    simulator_url,
    wait_for,
)
from tests.helpers.peers import peer

pytestmark = [pytest.mark.acceptance]

TWELVE = {
    "SystemSuspended", "FatalAnomaly", "DatabaseConnectionLost", "AllApisFailing", "MetricsPipelineStalled",
    "DataQualityLow", "ApiReliabilityLow", "HighErrorRate", "SlowResponseTime", "AccuracyDrop",
    "AnomalySpike", "UserEngagementDrop",
}  # fmt: skip

CONFIG = """\
global: {{scrape_interval: 2s, evaluation_interval: 2s}}
storage: {{data_dir: {data}}}
collect:
  providers:
    kraken: {{interval: 2s}}
dashboard_api: {{cron_secret: open-sesame}}
route:
  receiver: log
  routes:
    - {{matchers: ['alertname=~"ApiReliabilityLow|DatabaseConnectionLost"'], receiver: hook}}
receivers:
  - {{name: log}}
  - {{name: hook, webhook_configs: [{{url: "http://127.0.0.1:{hook}/hook", send_resolved: true}}]}}
"""


class Hook:
    """A webhook receiver that remembers what it got."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.received.append(json.loads(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def alerts(self, name: str, status: str) -> list[dict[str, Any]]:
        return [
            alert
            for message in list(self.received)
            for alert in message["alerts"]
            if alert["labels"]["alertname"] == name and alert["status"] == status
        ]


@pytest.fixture(scope="module")
def hook() -> Iterator[Hook]:
    found = Hook()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture(scope="module")
def demo(hook: Hook) -> Iterator[Program]:
    # not under pytest's own folder, which it closes to other accounts: root's Postgres runs as another one
    with tempfile.TemporaryDirectory(prefix="quantum-demo-") as name:
        folder = Path(name)
        program = Program("demo", folder, CONFIG.format(data=folder / "data", hook=hook.port))
        yield program
        program.stop()
        print(program.log()[-20_000:])


async def rows(program: Program, query: str) -> list[Any]:
    connection = await asyncpg.connect(database_url(program))
    try:
        return list(await connection.fetch(query))
    finally:
        await connection.close()


def test_it_is_ready_within_90_seconds(demo: Program) -> None:
    """From the command to /-/ready, installing included."""
    wait_for("ready", demo.ready, 90)
    assert time.monotonic() - demo.started < 90


def test_the_first_lines_say_where_things_are(demo: Program) -> None:
    """Metrics, API, database, rules, and what is off and why."""
    log = demo.log()
    for word in (f"{demo.base}/metrics", f"{demo.base}/api/v1", "database", "rules", "simulator"):
        assert word in log


def test_metrics_pass_promtool(demo: Program) -> None:
    """promtool check metrics finds nothing."""
    promtool = peer("promtool")
    text = demo.get_text("/metrics")
    assert "quantum_build_info" in text
    found = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def test_the_twelve_rules_are_judged(demo: Program) -> None:
    """All stand at /api/v1/rules with health ok."""

    def health() -> dict[str, str]:
        groups = demo.get("/api/v1/rules", type="alert")["data"]["groups"]
        found = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
        assert found.keys() >= TWELVE
        return found if set(found.values()) == {"ok"} else {}

    wait_for("all rules ok", health, 60)


def test_providers_and_trades_are_measured(demo: Program) -> None:
    """Prices of several providers, trades of the seeded database, the system."""
    wait_for("prices", lambda: len(demo.query("quantum_btc_price_usd")) >= 4, 60)
    wait_for("trades", lambda: demo.value("quantum_trades_active") > 0, 60)
    assert demo.value("quantum_database_up") == 1
    assert 0 < demo.value("quantum_system_memory_usage_ratio") < 1
    assert demo.value("min(quantum_provider_up)") == 1


def test_ranges_labels_and_series_answer(demo: Program) -> None:
    """The API that Grafana uses."""
    now = time.time()
    found = demo.get(
        "/api/v1/query_range",
        query="rate(quantum_api_requests_total[1m])",
        start=str(now - 60),
        end=str(now),
        step="5",
    )
    assert found["data"]["resultType"] == "matrix"
    assert "provider" in demo.get("/api/v1/labels")["data"]
    assert "kraken" in demo.get("/api/v1/label/provider/values")["data"]
    series = demo.get("/api/v1/series", **{"match[]": "quantum_provider_up"})["data"]
    assert {one["provider"] for one in series} >= {"kraken", "coingecko", "blockchain"}


async def test_samples_reach_postgres_and_grow(demo: Program) -> None:
    """The count of stored samples grows."""
    first = (await rows(demo, "select count(*) from quantum_samples"))[0][0]
    assert first > 0

    deadline = time.monotonic() + 30
    while (await rows(demo, "select count(*) from quantum_samples"))[0][0] <= first:
        assert time.monotonic() < deadline, "the count does not grow"


async def test_the_health_view_is_filled(demo: Program) -> None:
    """v_system_health_dashboard has a row without holes in what the demo measures."""
    found = await rows(demo, "select * from v_system_health_dashboard")
    assert found
    assert any(value is not None for value in found[0].values())


def test_the_dashboard_document_is_filled(demo: Program) -> None:
    """Every section has its numbers."""
    document = wait_for(
        "the document",
        lambda: (found := demo.get("/api/quantum/monitoring-dashboard"))["trades"]["active"] and found,
        60,
    )
    assert document["systemHealth"]["status"] in ("HEALTHY", "DEGRADED", "CRITICAL")
    assert document["performance"]["requestsPerMinute"] > 0
    assert document["apiReliability"]["kraken"] > 50
    assert set(document["cache"]) == {"hitRate", "totalEntries", "avgTTL"}
    assert set(document["rateLimits"]["kraken"]) == {"current", "max", "utilizationPercent"}


def test_every_dashboard_panel_has_something_to_show(demo: Program) -> None:
    """The queries of all panels, PromQL and SQL, give no error and no empty answer."""
    command = ["check", "dashboards", "--url", demo.base, "--database", database_url(demo), "-o", "json"]

    def findings() -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "exporter", *command],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        found = json.loads(done.stdout)
        assert found["panels"] > 50
        assert not found["findings"], found["findings"]
        return found

    wait_for("no finding", findings, 180, 10)


def test_every_exposed_metric_stands_in_the_reference(demo: Program) -> None:
    """docs/metrics.md names each family of /metrics, with its type."""
    known = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", (ROOT / "docs" / "metrics.md").read_text(), re.M))
    exposed = re.findall(r"^# TYPE (\S+) (\S+)$", demo.get_text("/metrics"), re.M)
    assert len(exposed) > 150
    unknown = [(name, kind) for name, kind in exposed if known.get(name) != kind]
    assert not unknown


def test_dashboards_are_drawn_from_live_data(demo: Program, tmp_path: Path) -> None:
    """`draw` makes a picture of every dashboard; no query fails."""
    command = ["draw", "--url", demo.base, "--database", database_url(demo), "--period", "10m"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "exporter",
            *command,
            "--format",
            "svg",
            "--folder",
            str(tmp_path),
            "-o",
            "json",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["pictures"]) == 6
    for path in tmp_path.glob("*.svg"):
        root = ElementTree.fromstring(path.read_text())
        texts = [node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}text")]
        assert len(texts) > 100
        silent = [texts[at - 1] for at, text in enumerate(texts) if text == "no data"]  # below its title
        assert not silent, path.name


def test_a_report_tells_what_was_seen(demo: Program) -> None:
    """`report` reads the demo's database: every provider has its calls, times and limits."""
    command = ["report", "--period", "day", "--database", database_url(demo), "-o", "json"]
    done = subprocess.run(
        [sys.executable, "-m", "exporter", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    now = json.loads(done.stdout)["now"]
    assert 0 < now["coverage"] < 0.1
    assert {"kraken", "coingecko", "blockchain"} <= set(now["calls"]) & set(now["provider_up"]) & set(
        now["times"]
    )
    assert now["limit_use"]
    assert all(one["name"] != "Watchdog" for one in now["alerts"])


def test_the_cron_endpoint_needs_its_secret(demo: Program) -> None:
    """401 without the secret; with it every check runs now."""
    with pytest.raises(OSError, match="401"):
        demo.post("/api/quantum/cron-monitoring")
    answer = demo.post("/api/quantum/cron-monitoring", headers={"x-cron-secret": "open-sesame"})
    assert answer["success"] is True
    assert answer["healthChecks"]["database"] is True


def test_prometheus_scrapes_it(demo: Program, tmp_path: Path) -> None:
    """Debian's Prometheus has up = 1 and no scrape error."""
    prometheus = peer("prometheus")
    port = free_port()
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        f"scrape_configs: [{{job_name: qe, static_configs: [{{targets: ['127.0.0.1:{demo.port}']}}]}}]\n"
    )
    arguments = [
        prometheus,
        f"--config.file={tmp_path}/prometheus.yml",
        f"--storage.tsdb.path={tmp_path}/tsdb",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(arguments, stdout=log, stderr=log)
        try:

            def target() -> Any:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/targets", timeout=5) as answer:
                    (one,) = json.load(answer)["data"]["activeTargets"]
                return one if one["health"] != "unknown" else None

            found = wait_for("a scrape", target, 30)
            assert (found["health"], found["lastError"]) == ("up", "")
        finally:
            process.terminate()
            process.wait(10)


def test_a_failing_provider_fires_for_it_alone_and_once(demo: Program, hook: Hook) -> None:
    """ApiReliabilityLow fires for that provider; one webhook, one resolved, none in the cooldown."""
    control = f"{simulator_url(demo)}/_control/faults"
    post(control, {"provider": "kraken", "kind": "status_500", "ratio": 1.0})
    alerts = wait_for("ApiReliabilityLow", lambda: demo.alerts("ApiReliabilityLow"), 90)
    assert {alert["labels"]["provider"] for alert in alerts} == {"kraken"}
    wait_for("the webhook", lambda: hook.alerts("ApiReliabilityLow", "firing"), 30)
    post(control, method="DELETE")
    wait_for("the resolved webhook", lambda: hook.alerts("ApiReliabilityLow", "resolved"), 420)
    post(control, {"provider": "kraken", "kind": "status_500", "ratio": 1.0})
    wait_for("the second firing", lambda: demo.alerts("ApiReliabilityLow"), 90)
    time.sleep(10)  # time in which a second notification would arrive
    assert len(hook.alerts("ApiReliabilityLow", "firing")) == 1
    assert len(hook.alerts("ApiReliabilityLow", "resolved")) == 1
    post(control, method="DELETE")


async def test_a_database_outage_is_told_and_loses_nothing(demo: Program, hook: Hook) -> None:
    """DatabaseConnectionLost within two evaluations; every sample of the outage is stored afterwards."""
    pids = [
        p for p in demo.family() if p.name() == "postgres" and p.parent() and p.parent().name() != "postgres"
    ]
    (postmaster,) = pids
    down = time.time()
    postmaster.terminate()
    psutil.wait_procs([postmaster], timeout=10)
    wait_for("DatabaseConnectionLost", lambda: demo.alerts("DatabaseConnectionLost"), 15, 0.2)
    assert "Healthy" in demo.get_text("/-/healthy")
    wait_for("the webhook", lambda: hook.alerts("DatabaseConnectionLost", "firing"), 15)
    assert demo.query("quantum_provider_up")
    wait_for("the database again", lambda: demo.value("quantum_database_up") == 1, 120)
    up = time.time()
    wait_for("the drained spool", lambda: demo.value("quantum_spool_batches") == 0, 60)
    wait_for("the resolved webhook", lambda: hook.alerts("DatabaseConnectionLost", "resolved"), 60)
    begin_ms, end_ms = round(down * 1000) - 5000, round(up * 1000)
    stored = {
        (row["name"], frozenset(json.loads(row["labels"]).items()), row["ms"])
        for row in await rows(
            demo,
            "select name, labels::text as labels, round(extract(epoch from time) * 1000)::bigint as ms"
            f" from quantum_metrics where time between to_timestamp({down - 6}) and to_timestamp({up + 1})",
        )
    }
    window_s = int(time.time() - down) + 10
    kept = {
        (
            series["metric"]["__name__"],
            frozenset((label, value) for label, value in series["metric"].items() if label != "__name__"),
            round(at * 1000),
        )
        for series in demo.query(f'{{__name__=~".+"}}[{window_s}s]')
        for at, _ in series["values"]
        if begin_ms <= round(at * 1000) <= end_ms
    }
    assert len(kept) > 10_000
    assert not kept - stored, f"{len(kept - stored)} of {len(kept)} samples are not in the tables"


def test_idle_cost_is_small(demo: Program) -> None:
    """Under 200 MB resident; the processor's share is printed."""
    process = demo.exporter()
    process.cpu_percent()
    time.sleep(10)
    share = process.cpu_percent()
    resident = process.memory_info().rss / 1e6
    print(f"\nidle demo: {share:.1f} % of a core at an interval of 2 s, {resident:.0f} MB resident")
    assert resident < 200


def test_sigterm_ends_it_cleanly(demo: Program) -> None:
    """Within five seconds, with no process left behind."""
    family = demo.family()
    took = demo.stop()
    _, alive = psutil.wait_procs(family, timeout=1)
    assert took < 5
    assert not alive
    assert "Traceback" not in demo.log()
