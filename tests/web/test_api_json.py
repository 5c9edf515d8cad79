"""What the JSON of version 3 says differently from 2.42's, and what needs no peer to check."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from exporter.ingest.scrape_parser import Metadata
from exporter.model.labels import LabelSet
from exporter.storage import MemoryStorage
from tests.web.api_server import api_server

T = 1_772_409_600


@pytest.fixture
def storage() -> MemoryStorage:
    storage = MemoryStorage()
    for number in range(5):
        storage.append({"__name__": "up", "instance": f"<{number}&>\u2028"}, T * 1000 - 9000, float(number))
    for number in range(5):
        storage.append({"__name__": "up", "instance": f"<{number}&>\u2028"}, T * 1000, float(number))
    return storage


async def get(url: str, path: str, **params: str) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/api/v1/{path}", params=params) as got:
        return got.status, await got.read()


async def test_label_sets_are_not_escaped_for_html_but_strings_are(storage: MemoryStorage) -> None:
    """Version 3 writes label sets by an encoder of its own; everything else goes through Go's."""
    async with api_server(storage) as url:
        _, body = await get(url, "query", query='up{instance=~"<0.*"}', time=str(T))
        assert '"instance":"<0&>\u2028"'.encode() in body
        _, body = await get(url, "query", query='"<&>\u2028"', time=str(T))
        assert rb'"\u003c\u0026\u003e\u2028"' in body
        _, body = await get(url, "label/instance/values")
        assert rb'"\u003c0\u0026\u003e\u2028"' in body
        _, body = await get(url, "format_query", query='up{a="<"}')
        assert rb"up{a=\"\u003c\"}" in body


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("query", {"query": "up", "time": str(T)}),
        ("query_range", {"query": "up", "start": str(T), "end": str(T), "step": "1"}),
        ("series", {"match[]": "up"}),
        ("label/instance/values", {}),
    ],
)
@pytest.mark.parametrize("limit", [0, 4, 5, 6])
async def test_limits_cut_the_answer_and_say_so(
    storage: MemoryStorage, path: str, params: dict[str, str], limit: int
) -> None:
    """0 is no limit; a cut answer carries a warning (a parameter of version 3)."""
    async with api_server(storage) as url:
        _, body = await get(url, path, **params, limit=str(limit))
    document = json.loads(body)
    data: Any = document["data"]
    found = len(data["result"] if isinstance(data, dict) else data)
    assert found == (min(limit, 5) if limit else 5)
    assert document.get("warnings", []) == (["results truncated due to limit"] if limit == 4 else [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-1", "limit must be non-negative"),
        ("x", 'strconv.Atoi: parsing \\"x\\": invalid syntax'),
        ("99999999999999999999", 'strconv.Atoi: parsing \\"99999999999999999999\\": value out of range'),
    ],
)
async def test_bad_limits_are_refused_as_go_words_it(storage: MemoryStorage, text: str, message: str) -> None:
    """Every endpoint that takes a limit reads it first."""
    async with api_server(storage) as url:
        for path in ("query", "query_range", "series?match[]=up", "labels", "label/a/values"):
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"{url}/api/v1/{path}", params={"limit": text}) as got,
            ):
                assert got.status == 400
                assert f'"error":"invalid parameter \\"limit\\": {message}"' in await got.text()


async def test_infos_stand_beside_the_data(storage: MemoryStorage) -> None:
    """An annotation of level info is its own list."""
    async with api_server(storage) as url:
        _, body = await get(url, "query", query="rate(up[1m])", time=str(T))
    (info,) = json.loads(body)["infos"]
    assert info.startswith("PromQL info: metric might not be a counter")


async def test_metadata_is_by_metric_and_limited() -> None:
    """0 gives nothing, a negative limit everything."""
    known = {"a_total": ("counter", "A.", ""), "b_bytes": ("gauge", "B <b>.", "bytes")}
    async with api_server(MemoryStorage(), metadata=known) as url:
        _, body = await get(url, "metadata")
        a, b = (
            b'"a_total":[{"type":"counter","help":"A.","unit":""}]',
            rb'"b_bytes":[{"type":"gauge","help":"B \u003cb\u003e.","unit":"bytes"}]',
        )
        assert body == b'{"status":"success","data":{%b,%b}}' % (a, b)
        assert (await get(url, "metadata", limit="1"))[1] == b'{"status":"success","data":{%b}}' % a
        assert (await get(url, "metadata", limit="-1"))[1] == body
        assert (await get(url, "metadata", limit="0"))[1] == b'{"status":"success","data":{}}'
        assert (await get(url, "metadata", metric="b_bytes"))[1] == b'{"status":"success","data":{%b}}' % b


async def test_statuses_have_the_fields_that_clients_read() -> None:
    """Key order as Go writes it."""
    storage = MemoryStorage()
    storage.append(LabelSet.of({"__name__": "up", "job": "a"}), T * 1000, 1.0)
    async with api_server(storage) as url:
        _, body = await get(url, "status/buildinfo")
        assert list(json.loads(body)["data"]) == [
            "version", "revision", "branch", "buildUser", "buildDate", "goVersion",
        ]  # fmt: skip
        _, body = await get(url, "status/tsdb")
        assert list(json.loads(body)["data"]) == [
            "headStats", "seriesCountByMetricName", "labelValueCountByLabelName", "memoryInBytesByLabelName",
            "seriesCountByLabelValuePair",
        ]  # fmt: skip
        _, body = await get(url, "status/runtimeinfo")
        assert list(json.loads(body)["data"])[:5] == [
            "startTime", "CWD", "hostname", "serverTime", "reloadConfigSuccess",
        ]  # fmt: skip
        assert (await get(url, "status/config"))[1] == b'{"status":"success","data":{"yaml":"global: {}\\n"}}'
        assert (await get(url, "status/flags"))[1] == b'{"status":"success","data":{"config.file":""}}'


async def test_explain_gives_the_tree(storage: MemoryStorage) -> None:
    """Each sub-expression with type, series, samples and times; a value where there is one."""
    async with api_server(storage) as url:
        status, body = await get(url, "query_explain", query="sum(up) + 1", time=str(T))
        assert status == 200
        tree = json.loads(body)["data"]["tree"]
        assert (tree["expr"], tree["value"], tree["series"]) == ("sum(up) + 1", "11", 1)
        total, one = tree["parts"]
        assert (total["expr"], total["parts"][0]["series"]) == ("sum(up)", 5)
        assert (one["type"], one["value"]) == ("scalar", "1")
        status, body = await get(url, "query_explain", query="sum(", time=str(T))
        assert (status, b'invalid parameter \\"query\\": 1:5' in body) == (400, True)


async def test_targets_of_one_pool(storage: MemoryStorage) -> None:
    """scrapePool keeps one job's targets, state active or dropped ones; scrape_pools names the jobs."""
    active = [{"scrapePool": pool, "health": "up"} for pool in ("a", "b")]
    dropped = [{"discoveredLabels": {"job": pool}} for pool in ("a", "b")]
    document = {"activeTargets": active, "droppedTargets": dropped, "droppedTargetCounts": {"a": 1, "b": 1}}
    async with api_server(storage, targets=document) as url:
        for params, wanted in (
            ({}, (active, dropped)),
            ({"scrapePool": "b"}, (active[1:], dropped[1:])),
            ({"scrapePool": "b", "state": "active"}, (active[1:], [])),
            ({"state": "dropped"}, ([], dropped)),
            ({"scrapePool": "x"}, ([], [])),
        ):
            data = json.loads((await get(url, "targets", **params))[1])["data"]
            assert (data["activeTargets"], data["droppedTargets"]) == wanted
        data = json.loads((await get(url, "scrape_pools"))[1])["data"]
        assert data == {"scrapePools": ["a", "b"]}


async def test_metadata_of_targets(storage: MemoryStorage) -> None:
    """metadata joins our own and what targets tell, each once; targets/metadata says it by target."""
    first, second = (LabelSet.of({"job": "a", "instance": text}) for text in ("h:1", "h:2"))
    kind = Metadata("counter", "Calls.")
    scraped = ((first, {"calls": kind, "up": Metadata("gauge", "Up.", "s")}), (second, {"calls": kind}))
    async with api_server(storage, scraped=scraped, metadata={"calls": ("gauge", "Own.", "")}) as url:
        data = json.loads((await get(url, "metadata", metric="calls"))[1])["data"]
        own, told = ({"type": kind, "help": text, "unit": ""} for kind, text in
                     (("gauge", "Own."), ("counter", "Calls.")))  # fmt: skip
        assert data == {"calls": [own, told]}
        found = json.loads((await get(url, "targets/metadata", metric="calls"))[1])["data"]
        assert found == [{"target": one.as_dict(), **told} for one in (first, second)]
        found = json.loads((await get(url, "targets/metadata", match_target='{instance="h:1"}'))[1])["data"]
        assert [entry["metric"] for entry in found] == ["calls", "up"]
        assert json.loads((await get(url, "targets/metadata", metric="none"))[1])["data"] == []
        assert (await get(url, "targets/metadata", match_target="{"))[0] == 400
