"""Our HTTP API against Debian's prometheus 2.42 over the same samples: status and body, byte for byte."""

from __future__ import annotations

import asyncio
import http.client
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event, Thread

import pytest

from exporter.model.labels import LabelSet
from exporter.rules.evaluation import GroupView
from exporter.storage import MemoryStorage
from tests.helpers.peers import peer
from tests.promql.prometheus import Prometheus
from tests.web.api_server import api_server

T0 = 1_772_409_600_000
T = T0 // 1000
STEP = 15_000

Params = Sequence[tuple[str, str]]
Case = tuple[str, str, Params]


def series(name: str, values: Sequence[float], **labels: str) -> tuple[LabelSet, list[tuple[int, float]]]:
    points = [(T0 + STEP * at, value) for at, value in enumerate(values)]
    return LabelSet.of({"__name__": name, **labels}), points


INF, NAN = float("inf"), float("nan")
DATA = dict(
    [
        series("up", [1.0] * 80, job="a", instance="x:1"),
        series("up", [0.0] * 80, job="b", instance='é"\\ tab\t'),
        series("calls_total", [7.0 * at for at in range(80)], job="a", code="200"),
        series("calls_total", [at / 3 for at in range(80)], job="a", code="500"),
        series("gaps", [1.0, 2.0], job="a"),
        *(
            series("odd", [value] * 3, kind=str(at))
            for at, value in enumerate(
                [INF, -INF, NAN, 1.5e300, -1e-9, 1e21, 123456789012345680000.0, 1e-7, 0.1, -0.0, 5e-324]
            )
        ),
    ]
)


def q(path: str, *pairs: tuple[str, str], method: str = "GET") -> Case:
    return method, path, pairs


AT = ("time", str(T + 30))
RANGE = (("start", str(T)), ("end", str(T + 60)), ("step", "15"))
TIMES = (
    "", "0", "1.5", "-1", "1e3", "1E3", " 1", "1 ", "x", "NaN", "Inf", "-Inf", "+Inf", "0x10", "1_000",
    "infinity", "2026-03-02T00:00:30Z", "2026-03-02T00:00:30.1234567Z", "2026-03-02T01:00:30+01:00",
    "2026-03-02T00:00:30", "2026-03-02", "2026-02-30T00:00:00Z", "2026-03-02t00:00:30z",
    "2026-03-02T00:00:60Z", "2026-03-02T24:00:00Z", "-292273086-05-16T16:47:06Z",
    "292277025-08-18T07:12:54.999999999Z", "1e10", "1e14", "1e17", "1e300", "1772409630.0005",
    "1772409630.0004", "1772409630.9996", "٣", ".5", "5.", "+5", "1e", "nan",
)  # fmt: skip
DURATIONS = (
    "", "0", "1", "0.5", "0.001", "0.0001", "-1", "1m", "1h30m", "30m1h", "1d", "1y", "1ms", "1.5m", "-1m",
    "x", "NaN", "Inf", "1e3", "9223372037", "1e300", "300y", "0x10", " 1", "1 m", "1m1m", "0s", "1_0", ".5",
    "5.",
)  # fmt: skip
QUERIES = (
    "up", "odd", "sum(up)", "1", "-1e-9", "1e21", "1/0", "0/0", '"text"', '"<\u2028&\\n\\u0001é"', "time()",
    "up[1m]", "nothing", "calls_total / 3", "rate(calls_total[1m])", "up{", "", "sum(", "up + ", "foo bar",
    'up{a=~"("}', "{}", '{a=~".*"}', "up[0s]", "up offset", 'up{job="a",}', "sum by (job, (up)", "rate(up)",
    "unknown(up)", "up and 1", "up * on(job) up", "up * up[5m]", 'up{instance="<&>"} <',
    'nothing{instance="<&>"} / on(a) group_left(a) x', "'single'", "`raw`", "topk(1, up)", "up == bool",
    'label_replace(up, "a", "b", "c", "(")', "histogram_quantile(0.9, up)", "up or odd", "count(odd)",
    "up\n+\n(", "sum(up) by", '1 + "a"', "up[5m:1m]", "-up", "up % 0", "vector(1) * on() group_left() up",
    "sum without (instance) (up)", "up @ 1772409600", "up @ x", "# only a comment", "up # comment", "\x00",
    "é", "up * on(job) group_left odd", "odd > 1", 'label_join(up, "x y", ",", "job")', "quantile(2, up)",
    'count_values("a b", up)', "scalar(up)", 'absent(nothing{a="b"})', "month()", "sort_desc(odd)",
    "9" * 400,
)  # fmt: skip
SELECTORS = (
    "up", '{job="a"}', "up{", "", "{}", '{job=~".*"}', "rate(up[1m])", "up[1m]", "nothing",
    '{__name__=~"o.*"}', 'up{job="a"} offset 1m', "1", 'up{job!=""}',
)  # fmt: skip
LIMITS = ("", "0", "1", "-1", "x", "1.5", "99999999999999999999", " 1", "+1")

CASES: list[Case] = [
    *(q("query", ("query", text), AT) for text in QUERIES),
    *(q("query", ("query", text), AT, method="POST") for text in ("up", "up{", "odd")),
    *(q("query_range", ("query", text), *RANGE) for text in QUERIES),
    *(q("query_range", ("query", text), *RANGE, method="POST") for text in ("calls_total", "gaps", "up{")),
    *(q("query", ("query", "vector(1)"), ("time", text)) for text in TIMES if text),
    *(q("query", ("query", "1"), AT, ("timeout", text)) for text in DURATIONS if text),
    *(q("query_range", ("query", "1"), ("start", text), ("end", str(T)), ("step", "1e9")) for text in TIMES),
    *(q("query_range", ("query", "1"), ("start", str(T)), ("end", text), ("step", "1e9")) for text in TIMES),
    *(
        q("query_range", ("query", "vector(1)"), ("start", str(T)), ("end", str(T + 5)), ("step", text))
        for text in DURATIONS
    ),
    *(
        q("query_range", ("query", "1"), ("start", str(T)), ("end", str(T + points)), ("step", "1"))
        for points in (0, -1, 10_999, 11_000, 11_001)
    ),
    q("query_range", ("query", "1"), *RANGE, ("timeout", "x")),
    q("query_range", ("query", "1"), ("start", str(T))),
    q("query_range"),
    q("query"),
    q("query", AT),
    q("query", ("query", "up"), ("query", "odd"), AT),
    q("query", ("query", "up"), AT, ("other", "1")),
    *(q("series", ("match[]", text), *RANGE[:2]) for text in SELECTORS),
    *(q("series", ("match[]", text), *RANGE[:2], method="POST") for text in SELECTORS[:3]),
    q("series", ("match[]", "up"), ("match[]", "odd"), *RANGE[:2]),
    q("series", ("match[]", "up"), ("match[]", 'up{job="a"}')),
    q("series"),
    q("series", ("match[]", "up"), ("start", str(T + 10**6)), ("end", str(T + 10**6 + 10))),
    *(q("series", ("match[]", "up"), ("start", text)) for text in TIMES),
    *(q("series", ("match[]", "up"), ("end", text)) for text in TIMES),
    *(q("labels", ("match[]", text), *RANGE[:2]) for text in SELECTORS),
    *(q("labels", ("start", text)) for text in ("x", str(T))),
    q("labels"),
    q("labels", method="POST"),
    q("labels", ("match[]", "up"), method="POST"),
    q("labels", ("end", "x")),
    *(q("label/job/values", ("match[]", text), *RANGE[:2]) for text in SELECTORS),
    q("label/job/values"),
    q("label/__name__/values"),
    q("label/instance/values"),
    q("label/nothing/values"),
    q("label/a-b/values"),
    q("label/1a/values"),
    q("label/a.b/values"),
    q("label//values"),
    q("label/job/values", ("start", "x")),
    q("label/job/values", ("end", "x")),
    q("label/job/values", method="POST"),
    *(q("metadata", ("limit", text)) for text in LIMITS),
    q("metadata", ("metric", "up")),
    q("metadata", ("metric", "up"), ("limit", "0")),
    q("rules"),
    *(q("rules", ("type", text)) for text in ("alert", "record", "x", "", "ALERT")),
    q("alerts"),
    *(q("format_query", ("query", text)) for text in QUERIES),
    q("format_query", ("query", "sum(up)"), method="POST"),
    q("format_query"),
    q("targets"),
    q("targets", ("scrapePool", "x")),
    q("scrape_pools"),
    q("targets/metadata"),
    q("targets/metadata", ("limit", "x")),
    q("targets/metadata", ("match_target", "{")),
    q("targets/metadata", ("match_target", '{job="x"}'), ("metric", "y")),
    *(q("targets", ("state", text)) for text in ("active", "dropped", "any", "ANY", "x")),
    q("query_exemplars"),
    *(q("query_exemplars", ("query", text), *RANGE[:2]) for text in ("up", "up{", "")),
    q("query_exemplars", ("query", "up"), ("start", "x"), ("end", str(T))),
    q("query_exemplars", ("query", "up"), ("start", str(T)), ("end", "x")),
    q("query_exemplars", ("query", "up"), ("start", str(T)), ("end", str(T - 1))),
    q("nowhere"),
    q("query/"),
    q("query", ("query", "up"), method="PUT"),
    q("query", ("query", "up"), method="DELETE"),
    q("query", ("query", "up"), method="OPTIONS"),
    q("query", ("query", "up"), method="HEAD"),
    q("rules", method="POST"),
    q("series", method="DELETE"),
    q("status/nowhere"),
    q("status/flags", method="POST"),
]  # fmt: skip


def exposition() -> str:
    """The samples as OpenMetrics text."""
    lines = []
    for labels, points in DATA.items():
        if f"# TYPE {labels.name} unknown" not in lines:
            lines.append(f"# TYPE {labels.name} unknown")
        escaped = (
            (name, value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))
            for name, value in labels
            if name != "__name__"
        )
        pairs = ",".join(f'{name}="{value}"' for name, value in escaped)
        lines += [f"{labels.name}{{{pairs}}} {_number(value)} {at / 1000:.3f}" for at, value in points]
    return "\n".join([*lines, "# EOF\n"])


def _number(value: float) -> str:
    return repr(value).replace("inf", "Inf").replace("nan", "NaN")


def ask(port: int, case: Case) -> tuple[int, str, bytes]:
    """Status, content type and body."""
    method, path, params = case
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    text = urllib.parse.urlencode(params)
    target, body, headers = f"/api/v1/{path}", None, {}
    if method == "POST":
        body, headers = text, {"Content-Type": "application/x-www-form-urlencoded"}
    elif text:
        target += "?" + text
    connection.request(method, target, body, headers)
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    return response.status, response.getheader("Content-Type", ""), answer


class OurServer:
    """Our API on an event loop in a thread of its own."""

    def __init__(self, storage: MemoryStorage, groups: Sequence[GroupView] = ()) -> None:
        self._storage = storage
        self._groups = groups
        self._ready, self._stop = Event(), asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.port = 0

    def __enter__(self) -> OurServer:
        self._thread = Thread(target=asyncio.run, args=(self._run(),))
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with api_server(self._storage, groups=self._groups) as url:
            self.port = int(url.rsplit(":", 1)[1])
            self._ready.set()
            await self._stop.wait()


def our_storage() -> MemoryStorage:
    storage = MemoryStorage()
    for at, labels, value in sorted(
        ((at, labels, value) for labels, points in DATA.items() for at, value in points),
        key=lambda one: one[0],
    ):
        storage.append(labels, at, value)
    return storage


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """The ports of ours and theirs."""
    home: Path = tmp_path_factory.mktemp("prometheus")
    with (
        Prometheus(peer("prometheus"), peer("promtool"), home, exposition()) as theirs,
        OurServer(our_storage()) as ours,
    ):
        yield ours.port, theirs.port


def has(name: str, *values: str) -> Callable[[Case], bool]:
    """Cases with one of these values of a parameter."""
    return lambda case: any((name, value) in case[2] for value in values)


def on(path: str, *more: str) -> Callable[[Case], bool]:
    """Cases of these paths."""
    return lambda case: case[1] in (path, *more)


def asks(*texts: str, only: str = "") -> Callable[[Case], bool]:
    """Cases with one of these queries."""
    return lambda case: has("query", *texts)(case) and (not only or case[1] == only)


# What differs from 2.42, and why.
DIFFERENT: list[tuple[str, Callable[[Case], bool]]] = [
    ("3: an empty query has no position", lambda case: case[1] in ("query", "query_range", "format_query",
     "query_exemplars") and not dict(case[2]).get("query")),
    ("3: an empty selector has no position", has("match[]", "")),
    ("3: a regular expression is parsed as it was written", asks('up{a=~"("}')),
    ("3: offsets are expressions, too", asks("up offset")),
    (
        "3: the two series of a many-to-many match stand in label order",
        asks("vector(1) * on() group_left() up", "up * on(job) group_left odd"),
    ),
    ("3: warnings and infos", asks("histogram_quantile(0.9, up)", "quantile(2, up)")),
    ("3: label names are any UTF-8", asks('label_join(up, "x y", ",", "job")', 'count_values("a b", up)')),
    ("3: label names are any UTF-8", on("label/a-b/values", "label/1a/values", "label/a.b/values")),
    ("3: ranges are open on the left", asks("rate(calls_total[1m])", only="query_range")),
    ("3: numbers are laid out without an exponent", asks("-1e-9", "1e21", only="format_query")),
    ("3: droppedTargetCounts", on("targets")),
    (
        "ours: a time that is no number or that nanoseconds in 64 bits do not hold; there it wraps around",
        lambda case: any(
            has(name, "NaN", "nan", "Inf", "-Inf", "+Inf", "infinity", "1e10", "1e14", "1e17", "1e300")(case)
            for name in ("time", "start", "end")
        ),
    ),
    (
        "ours: the ends of time are the ends of time; there they wrap around",
        lambda case: any(
            has(name, "-292273086-05-16T16:47:06Z", "292277025-08-18T07:12:54.999999999Z")(case)
            for name in ("time", "start", "end")
        ),
    ),
    (
        "ours: a timeout of nothing ends each query at the same place",
        has("timeout", "0", "0.0001", "-1", "0s", "NaN"),
    ),
    ("ours: a step is at least a millisecond", has("step", "0.0001")),
    ("ours: no redirect from a path that is none", on("query/", "label//values")),
    ("ours: series are not deleted, there is no such route", lambda case: case[:2] == ("DELETE", "series")),
]  # fmt: skip


def as_version_3(case: Case, body: bytes) -> bytes:
    """What 2.42 answered, as version 3 words it: a range query names the parameter that is wrong."""
    bare = b'{"status":"error","errorType":"bad_data","error":"'
    if case[1] != "query_range" or not body.startswith(bare):
        return body
    if b"invalid parameter" in body or b"exceeded maximum resolution" in body:
        return body
    return body.replace(bare, bare + rb"invalid parameter \"query\": ", 1)


def describe(case: Case) -> str:
    return f"{case[0]} {case[1]}?{urllib.parse.urlencode(case[2])}"


def test_answers_are_those_of_prometheus(ports: tuple[int, int]) -> None:
    """Status, content type and body of each case, byte for byte, but for what is listed with its reason."""
    wrong = []
    for case in CASES:
        if any(matches(case) for _, matches in DIFFERENT):
            continue
        ours, theirs = ask(ports[0], case), ask(ports[1], case)
        if ours != (theirs[0], theirs[1], as_version_3(case, theirs[2])):
            wrong.append(f"{describe(case)}\n  ours   {ours}\n  theirs {theirs}")
    assert not wrong, "\n".join(wrong[:20])


def test_each_listed_difference_is_one(ports: tuple[int, int]) -> None:
    """The list holds nothing that has become equal."""
    for reason, matches in DIFFERENT:
        cases = [case for case in CASES if matches(case)]
        assert cases, reason
        assert any(ask(ports[0], case) != ask(ports[1], case) for case in cases), reason


def test_no_difference_is_a_server_error(ports: tuple[int, int]) -> None:
    """Whatever is asked, nothing answers 500."""
    assert [describe(case) for case in CASES if ask(ports[0], case)[0] == 500] == []
