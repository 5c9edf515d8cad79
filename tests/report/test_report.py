"""`quantum-exporter report` on a database whose figures are known."""

from __future__ import annotations

import asyncio
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.cli import main
from exporter.report.facts import alert_figures, begun
from exporter.report.html import html, plot
from exporter.report.markdown import markdown
from exporter.report.model import Episode, Facts, Period, Report
from exporter.report.sections import percent, sections, spark
from tests.drawing.places import outside, overlaps
from tests.helpers.postgres import PostgresServer
from tests.report.history import DAY_MS, END_MS, fill

PERIOD = Period.ending("day", END_MS)


@pytest.fixture(scope="module")
def url(postgres_server: PostgresServer, migrated_template: str) -> Any:
    name = postgres_server.create_database(migrated_template)
    asyncio.run(fill(postgres_server.url(name)))
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


def run(url: str, *more: str) -> int:
    return main(["report", "--period", "day", "--to", "2026-03-04", "--database", url, *more])


@pytest.fixture(scope="module")
def document(url: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("report") / "report.json"
    assert run(url, "-o", "json", "--file", str(path)) == 0
    return json.loads(path.read_text())


def test_availability(document: Any) -> None:
    """36 of 1440 minutes without the database, 144 without kraken; the day before knew neither."""
    now, before = document["now"], document["before"]
    assert now["coverage"] == before["coverage"] == 1
    assert now["database_up"] == pytest.approx(1 - 36 / 1440, abs=1e-3)
    assert now["provider_up"] == pytest.approx({"kraken": 0.9, "coingecko": 1.0}, abs=1e-3)
    assert before["database_up"] == 1


def test_error_budget(document: Any) -> None:
    """1 of 10 of kraken's calls failed: twice what an objective of 95 % allows."""
    now = document["now"]
    assert now["calls"] == pytest.approx({"kraken": 14_400, "coingecko": 5760}, rel=2e-3)
    assert now["errors"] == pytest.approx({"kraken": 1440, "coingecko": 0}, rel=2e-3)
    assert document["before"]["errors"]["kraken"] == 0


def test_latency(document: Any) -> None:
    """Exact quantiles of the measured calls; a call without a provider goes by its endpoint."""
    times = document["now"]["times"]
    assert times["kraken"] == pytest.approx(
        {"count": 100, "mean_ms": 505.0, "p50_ms": 505.0, "p95_ms": 950.5, "p99_ms": 990.1}
    )
    assert times["/own"]["count"] == 1
    assert document["before"]["times"]["kraken"]["p95_ms"] == pytest.approx(95.05)
    steps = document["plots"]["Latency"]["kraken"]
    assert all((at - PERIOD.start_ms) % PERIOD.step_ms == 0 for at, _ in steps)
    assert PERIOD.start_ms < steps[0][0] <= steps[-1][0] <= PERIOD.end_ms


def test_limits(document: Any) -> None:
    """The highest use at any snapshot, though it lasted a minute."""
    assert document["now"]["limit_use"] == {"kraken / minute": 0.75}
    assert document["before"]["limit_use"] == {"kraken / minute": 0.1}


def test_alerts(document: Any) -> None:
    """Sorted by notifications, cut at the period's begin, without the dead man's switch."""
    high, quiet = document["now"]["alerts"]
    assert high == {
        "name": "High", "severity": "warning", "episodes": 4, "instances": 2, "flapping": 3,
        "firing_s": 4800.0, "longest_s": 3600.0, "sent": 3, "held_back": 2, "by_hand": 1, "open": 0,
    }  # fmt: skip
    assert (quiet["name"], quiet["open"], quiet["longest_s"]) == ("Quiet", 1, 1800.0)
    assert {one["name"] for one in document["before"]["alerts"]} == {"High", "Gone"}


def test_markdown_says_it_in_words(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What a tired reader wants first, then the tables."""
    assert run(url) == 0
    text = capsys.readouterr().out
    for words in (
        "# The day to 2026-03-04 00:00 UTC",
        "- The database answered 97.5 % of the time, worse than the 100 % of the day before.",
        "- 1 of 2 providers missed the objective of 95 % successful calls: kraken. Worst: kraken with 90 %.",
        "- The slowest provider was kraken: 95 of 100 calls took up to 950 ms.",
        "- 5 alert episodes (3 the day before), 4 notifications sent, 2 held back by cooldowns.",
        "Loudest: High with 4 episodes and 3 notifications.",
        "- The tightest limit was kraken / minute: at most 75 % of it was used.",
        "Fired the day before and not now: Gone.",
        "kraken     ▁▁▅█████████████████████  0% to 100%",
        "/own    ▅                         5 ms",
        "| kraken | 14400 | 1440 | 90 % | 100 % | 200 % |",
    ):
        assert words in text
    assert "Watchdog" not in text


class Tags(HTMLParser):
    """Checks that every tag is closed in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_is_one_whole_file(url: str, tmp_path: Path) -> None:
    """Well-formed, with its plots in it, and nothing fetched from anywhere."""
    path = tmp_path / "report.html"
    assert run(url, "-o", "html", "--file", str(path)) == 0
    text = path.read_text()
    tags = Tags()
    tags.feed(text)
    assert not tags.open
    assert tags.seen.count("svg") == 5
    assert "script" not in tags.seen
    assert not re.search(r"(src|href)=", text)


def test_an_empty_database_gives_an_honest_report(
    migrated_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing observed is said, and is not "100 %"."""
    assert run(migrated_url) == 0
    text = capsys.readouterr().out
    assert "The exporter observed 0 % of the day" in text
    assert "100 %" not in text
    assert "No alert fired." in text


@pytest.mark.parametrize(
    ("words", "message"),
    [(("--objective", "100"), "--objective must be"), (("--to", "soon"), '--to: "soon" is not a time')],
)
def test_wrong_use(words: tuple[str, str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be meant is refused before anything is read."""
    assert main(["report", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(None, "–"), (1.0, "100 %"), (0.99999, "99.99 %"), (0.9995, "99.95 %"), (0.5, "50 %"), (2.0, "200 %")],
)
def test_nearly_all_is_not_all(ratio: float | None, text: str) -> None:
    """Only what never failed has 100 %."""
    assert percent(ratio) == text


EPISODES = st.builds(
    Episode,
    alert=st.sampled_from("AB"),
    severity=st.sampled_from(["critical", "warning", "info"]),
    instance=st.sampled_from("xyz"),
    start_ms=st.integers(PERIOD.start_ms - DAY_MS, PERIOD.end_ms - 1),
    end_ms=st.none(),
    sent=st.integers(0, 5),
    held_back=st.integers(0, 5),
    by_hand=st.booleans(),
)


@given(st.lists(EPISODES, max_size=20))
def test_every_episode_is_counted_once(episodes: list[Episode]) -> None:
    """Episodes and notifications add up, no alert fires longer than the period for each episode, and the
    plot has each episode that began inside."""
    found = alert_figures(PERIOD, episodes)
    assert sum(one.episodes for one in found) == len(episodes)
    assert sum(one.sent for one in found) == sum(one.sent for one in episodes)
    assert all(one.longest_s <= DAY_MS / 1000 for one in found)
    inside = sum(one.start_ms >= PERIOD.start_ms for one in episodes)
    assert sum(count for points in begun(PERIOD, episodes).values() for _, count in points) == inside
    report = Report(PERIOD, 0.95, Facts(alerts=found), Facts(), {"Noisiest alerts": begun(PERIOD, episodes)})
    assert markdown(report)
    assert html(report)
    for section in sections(report):
        drawn = plot(section, report)
        assert not outside(drawn)
        assert not overlaps(drawn)


def test_sparks_span_their_own_range() -> None:
    """From the lowest value to the highest; a gap is a gap, a flat line is in the middle."""
    assert spark([1.0, float("nan"), 3.0, 2.0]) == "▁ █▅"
    assert spark([5.0, 5.0]) == "▅▅"
    assert spark([]) == ""
