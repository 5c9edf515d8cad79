from __future__ import annotations

import pytest

from exporter.errors import ConfigError
from exporter.providers import builtin_providers
from exporter.providers.declare import read_declaration
from exporter.providers.results import Declared, Quotes
from exporter.providers.spec import CachePolicy, DataKind, LimitSpec

DECLARED = """
base_url: https://api.example.test/v1/
auth: {header: X-Key, prefix: "Token ", required: true, env: EXAMPLE_KEY}
limits: {second: 5, day: {ceiling: 1000, safe: 100, plan: true}}
headers: {window: second, limit: RateLimit-Limit, remaining: RateLimit-Remaining}
interval: 2m
timeout: 5s
assets: {BTC: xbt}
endpoints:
  price:
    path: /price
    params: {coins: xbt}
    data: market
    ttl: 45s
    poll: true
    batch: {param: coins, max: 10}
    quote: {price: "{id}.last", updated_ms: "{id}.t"}
  gas:
    path: /gas
    data: indicator
    metrics:
      - {metric: example_gas_price_wei, path: "result.fast[0]", scale: 1000000000, help: Gas price.}
"""


def test_a_declaration_says_everything() -> None:
    """Base URL, auth, limits, headers, times, endpoints, paths."""
    spec = read_declaration("example", DECLARED)
    assert (spec.name, spec.base_url, spec.interval_s, spec.timeout_s) == (
        "example",
        "https://api.example.test/v1",
        120.0,
        5.0,
    )
    assert (spec.auth.header, spec.auth.prefix, spec.auth.required) == ("X-Key", "Token ", True)
    assert spec.limits == (LimitSpec("second", 5), LimitSpec("day", 1000, 100, plan=True))
    assert spec.headers is not None
    assert spec.headers.limit == "ratelimit-limit"
    price, gas = spec.endpoints["price"], spec.endpoints["gas"]
    assert price.policy == CachePolicy(45.0, swr_s=30.0, stale_s=300.0, negative_s=30.0)
    assert gas.kind is DataKind.INDICATOR
    assert gas.policy.ttl_s == 60.0
    assert gas.read is not None
    assert gas.read({"result": {"fast": ["7"]}}, {}) == Declared({"example_gas_price_wei": 7e9})
    assert price.read is not None
    quotes = price.read({"xbt": {"last": "1.5", "t": 99}}, {"coins": "xbt,eth"})
    assert isinstance(quotes, Quotes)
    quote = quotes.symbol("BTC")
    assert quote is not None
    assert (quote.price_usd, quote.updated_ms) == (1.5, 99)


def test_the_table_of_the_seven() -> None:
    """Ceilings, keys and cache times are those of the contract; the base of each is https."""
    specs = builtin_providers()
    ceilings = {
        name: [(limit.window, limit.ceiling) for limit in spec.limits] for name, spec in specs.items()
    }
    assert ceilings == {
        "coinmarketcap": [("minute", 333), ("month", None)],
        "coingecko": [("minute", 50), ("month", None)],
        "kraken": [("second", 15)],
        "blockchain": [("minute", 100)],
        "lunarcrush": [("minute", 10), ("day", 100)],
        "openai": [("minute", 1000)],
        "gemini": [("minute", 60)],
    }
    assert {name: spec.auth.env for name, spec in specs.items() if spec.auth.required} == {
        "coinmarketcap": "COINMARKETCAP_API_KEY",
        "lunarcrush": "LUNARCRUSH_API_KEY",
        "openai": "OPENAI_API_KEY",
        "gemini": "GEMINI_API_KEY",
    }
    times = {DataKind.MARKET: 30.0, DataKind.ONCHAIN: 60.0, DataKind.WHALE: 120.0, DataKind.SENTIMENT: 300.0}
    for spec in specs.values():
        assert spec.base_url.startswith("https://")
        for endpoint in spec.endpoints.values():
            assert endpoint.policy.ttl_s >= times.get(endpoint.kind, 0.0)
            assert endpoint.read is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "needs a base_url"),
        ("base_url: https://a.test\nendponts: {}", 'did you mean "endpoints"'),
        ("base_url: ftp://a.test\nendpoints: {}", "base_url must not be"),
        ("base_url: https://user:pw@a.test\nendpoints: {}", "base_url must not be"),
        ("base_url: https://a.test?key=1\nendpoints: {}", "base_url must not be"),
        ("base_url: https://a.test\nendpoints: {x: {}}", 'endpoint "x" needs a path'),
        ("base_url: https://a.test\nendpoints: {x: {path: y}}", "path must start with /"),
        ("base_url: https://a.test\nendpoints: {x: {path: /y, data: cheese}}", 'data must not be "cheese"'),
        ("base_url: https://a.test\nendpoints: {x: {path: /y, ttl: 5}}", "ttl"),
        ("base_url: https://a.test\nendpoints: {x: {path: /y, quote: {}}}", "path of a price"),
        ("base_url: https://a.test\nendpoints: {x: {path: /y, quote: {price: 'a['}}}", "not a JSON path"),
        (
            "base_url: https://a.test\nendpoints: {x: {path: /y, metrics: [{metric: 1a, path: b}]}}",
            "not a metric name",
        ),
        (
            "base_url: https://a.test\nendpoints: {x: {path: /y, metrics: [{path: b}]}}",
            "needs metric and path",
        ),
        (
            "base_url: https://a.test\nendpoints: {x: {path: /y, reader: special}}",
            'reader must not be "special"',
        ),
        ("base_url: https://a.test\nlimits: {week: 5}\nendpoints: {}", 'unknown key "week"'),
        ("base_url: https://a.test\nlimits: {day: 0}\nendpoints: {}", "must be 1 or more"),
        (
            "base_url: https://a.test\nlimits: {day: {plan: true}}\nendpoints: {}",
            "needs a ceiling or a safe value",
        ),
        ("base_url: https://a.test\nauth: {}\nendpoints: {}", "auth needs a header"),
    ],
)
def test_a_fault_is_told_with_its_place(text: str, message: str) -> None:
    """file:line:column, what is wrong and what is allowed."""
    with pytest.raises(ConfigError) as caught:
        read_declaration("example", text, file="providers.yml")
    assert message in str(caught.value)
    assert all(problem.file == "providers.yml" and problem.line for problem in caught.value.problems)


def test_all_faults_are_told_at_once() -> None:
    """Two faults, one error."""
    with pytest.raises(ConfigError) as caught:
        read_declaration("example", "base_url: x\nlimits: {day: 0}\nendpoints: {}")
    assert len(caught.value.problems) == 2
