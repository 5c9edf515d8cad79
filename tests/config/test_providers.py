from __future__ import annotations

from collections.abc import Mapping

import pytest

from exporter.config.positions import Reader, parse_yaml
from exporter.config.providers import ProviderConfig, default_providers, read_providers, simulated
from exporter.providers.spec import HedgeSpec


def _read(
    text: str, environ: Mapping[str, str] | None = None
) -> tuple[Mapping[str, ProviderConfig], list[str]]:
    reader = Reader("quantum.yml")
    configs = read_providers(reader, parse_yaml(text), environ or {})
    return configs, [str(problem) for problem in reader.problems]


def test_without_a_file_the_keyless_providers_are_on() -> None:
    """CoinGecko, Kraken and Blockchain.com; the others are off and say why."""
    configs = default_providers()
    assert {name: config.off_reason for name, config in configs.items()} == {
        "coinmarketcap": "no API key (COINMARKETCAP_API_KEY)",
        "coingecko": "",
        "kraken": "",
        "blockchain": "",
        "lunarcrush": "no API key (LUNARCRUSH_API_KEY)",
        "openai": "no API key (OPENAI_API_KEY)",
        "gemini": "no API key (GEMINI_API_KEY)",
    }
    assert [name for name, config in configs.items() if config.enabled] == [
        "coingecko",
        "kraken",
        "blockchain",
    ]


def test_a_key_comes_from_the_file_or_the_environment() -> None:
    """The file's word wins, an empty one too; the key is not shown."""
    environ = {"OPENAI_API_KEY": "from-environment"}
    configs, problems = _read("{gemini: {api_key: from-file}}", environ)
    assert not problems
    assert (configs["openai"].api_key, configs["openai"].enabled) == ("from-environment", True)
    assert (configs["gemini"].api_key, configs["gemini"].enabled) == ("from-file", True)
    assert "from-file" not in repr(configs["gemini"])
    configs, _ = _read("{openai: {api_key: ''}}", environ)
    assert not configs["openai"].enabled


def test_settings_of_the_seven() -> None:
    """Switched off, limits, interval, timeout, plan, base URL."""
    configs, problems = _read(
        """
coingecko: {api_key: k, plan: pro, limits: {minute: 40}, interval: 90s}
kraken: {enabled: false}
blockchain: {timeout: 5s, limits: {day: 500}, base_url: "http://127.0.0.1:1/b/"}
"""
    )
    assert not problems
    gecko, chain = configs["coingecko"], configs["blockchain"]
    assert gecko.spec.base_url == "https://pro-api.coingecko.com/api/v3"
    assert gecko.spec.auth.header == "x-cg-pro-api-key"
    assert [(limit.window, limit.in_force()) for limit in gecko.spec.limits] == [
        ("minute", 40),
        ("month", 10_000),
    ]
    assert gecko.interval_ms == 90_000
    assert configs["kraken"].off_reason == "switched off in the configuration"
    assert chain.timeout_ms == 5000
    assert chain.spec.base_url == "http://127.0.0.1:1/b"
    assert chain.spec.endpoints["quotes"].base_url == ""
    assert [(limit.window, limit.in_force()) for limit in chain.spec.limits] == [("minute", 6), ("day", 500)]


def test_any_other_api_is_declared() -> None:
    """A name that is not of the seven brings its declaration."""
    configs, problems = _read(
        """
weather:
  base_url: https://weather.test
  api_key: k
  auth: {header: X-Key}
  limits: {hour: 10}
  interval: 10m
  endpoints: {now: {path: /now, poll: true, metrics: [{metric: weather_celsius, path: t}]}}
"""
    )
    assert not problems
    assert configs["weather"].enabled
    assert configs["weather"].interval_ms == 600_000
    assert "kraken" in configs


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{kraken: {enabld: true}}", 'quantum.yml:1:11: unknown key "enabld"'),
        ("{kraken: {limits: {minute: many}}}", "must be a whole number"),
        ("{kraken: {interval: 10ms}}", "interval must be at least 1000 ms"),
        ("{kraken: {plan: pro}}", 'provider "kraken" has no plans'),
        ("{kraken: {api_key: abc}}", 'provider "kraken" takes no key'),
        ("{coingecko: {plan: gold}}", 'plan must not be "gold"'),
        ('{openai: {api_key: "a\\nb"}}', "no header may hold"),
        ("{mine: {enabled: true}}", 'provider "mine" needs a base_url'),
        ("{kraken: 5}", 'provider "kraken" must be a mapping'),
    ],
)
def test_faults_are_told_with_their_place(text: str, problem: str) -> None:
    """One problem each, at its line and column."""
    _, problems = _read(text)
    assert any(problem in found for found in problems), problems


def test_simulated_providers_are_all_on_and_all_here() -> None:
    """Every host is replaced by the simulator's, keys are made up; what was switched off stays off."""
    configs, _ = _read("{kraken: {enabled: false}}")
    found = simulated(configs, "http://127.0.0.1:9465/")
    assert [name for name, config in found.items() if not config.enabled] == ["kraken"]
    for config in found.values():
        assert config.spec.base_url == f"http://127.0.0.1:9465/{config.name}"
        assert all(not endpoint.base_url for endpoint in config.spec.endpoints.values())
        assert config.api_key in ("", "simulated")


def test_a_second_call_for_slow_ones_is_configured_by_provider_or_endpoint() -> None:
    """`hedge_after`: p99 or a duration; anything else names what is allowed."""
    reader = Reader("test")
    text = """
kraken: {hedge_after: p99}
coingecko: {hedge_after: 800ms}
own:
  base_url: http://own.test
  hedge_after: 2s
  endpoints:
    fast: {path: /fast, hedge_after: 100ms}
    plain: {path: /plain}
"""
    found = read_providers(reader, parse_yaml(text))
    assert not reader.problems
    assert (found["kraken"].hedge, found["coingecko"].hedge) == (HedgeSpec(), HedgeSpec(0.8))
    assert found["gemini"].hedge is None
    own = found["own"]
    assert own.hedge == HedgeSpec(2.0)
    assert own.spec.endpoints["fast"].hedge == HedgeSpec(0.1)
    assert own.spec.endpoints["plain"].hedge is None
    for wrong in ("p95", "0s", "fast"):
        reader = Reader("test")
        read_providers(reader, parse_yaml(f"kraken: {{hedge_after: {wrong}}}"))
        assert "hedge_after (p99 or a duration)" in str(reader.problems)
