from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.errors import ApiErrorKind
from exporter.providers import builtin_providers
from exporter.providers.failures import (
    RawAnswer,
    Reset,
    Scope,
    classify_status,
    go_duration_s,
    plain,
    retry_after_s,
)
from exporter.providers.resets import next_reset_ms

K = ApiErrorKind


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (301, K.HTTP, False),
        (400, K.HTTP, False),
        (401, K.AUTH, False),
        (402, K.BILLING, False),
        (403, K.AUTH, False),
        (404, K.HTTP, False),
        (408, K.TIMEOUT, True),
        (429, K.RATE_LIMITED, True),
        (500, K.HTTP, True),
        (501, K.HTTP, False),
        (503, K.HTTP, True),
    ],
)
def test_the_status_alone_tells_the_kind(status: int, kind: ApiErrorKind, retryable: bool) -> None:
    """Without a readable body the status decides."""
    failure = classify_status(RawAnswer(status))
    assert failure is not None
    assert (failure.kind, failure.retryable) == (kind, retryable)


@pytest.mark.parametrize("status", [200, 204, 299])
def test_below_300_is_no_failure(status: int) -> None:
    """Success is None."""
    assert classify_status(RawAnswer(status)) is None


def _cmc(code: object, status: int = 200) -> RawAnswer:
    return RawAnswer(status, data={"status": {"error_code": code, "error_message": "text"}})


@pytest.mark.parametrize(
    ("provider", "answer", "kind", "reset", "scope"),
    [
        ("coinmarketcap", _cmc(1001, 401), K.AUTH, None, Scope.PROVIDER),
        ("coinmarketcap", _cmc("1002", 401), K.AUTH, None, Scope.PROVIDER),
        ("coinmarketcap", _cmc(1003, 402), K.BILLING, None, Scope.PROVIDER),
        ("coinmarketcap", _cmc(1004, 402), K.BILLING, None, Scope.PROVIDER),
        ("coinmarketcap", _cmc(1005, 403), K.BILLING, None, Scope.PROVIDER),
        ("coinmarketcap", _cmc(1006, 403), K.BILLING, None, Scope.ENDPOINT),
        ("coinmarketcap", _cmc(1007, 403), K.BILLING, None, Scope.PROVIDER),
        ("coinmarketcap", _cmc(1008, 429), K.RATE_LIMITED, None, Scope.PROVIDER),
        ("coinmarketcap", _cmc(1008, 200), K.RATE_LIMITED, None, Scope.PROVIDER),
        ("coinmarketcap", _cmc("1009", 429), K.QUOTA, Reset.UTC_DAY, Scope.PROVIDER),
        ("coinmarketcap", _cmc(1010, 429), K.QUOTA, Reset.UTC_MONTH, Scope.PROVIDER),
        ("coinmarketcap", _cmc(1011, 429), K.RATE_LIMITED, None, Scope.PROVIDER),
        ("coinmarketcap", _cmc(400, 200), K.HTTP, None, Scope.CALL),
        ("coingecko", RawAnswer(429, text="Throttled"), K.RATE_LIMITED, None, Scope.PROVIDER),
        ("coingecko", RawAnswer(200, text="Throttled", data=None), None, None, None),
        (
            "coingecko",
            RawAnswer(401, data={"error": {"status": {"error_code": 10005, "error_message": "plan"}}}),
            K.BILLING,
            None,
            Scope.ENDPOINT,
        ),
        ("coingecko", RawAnswer(401, data={"status": {"error_code": 10002}}), K.AUTH, None, Scope.PROVIDER),
        ("coingecko", RawAnswer(400, data={"error_code": 10011}), K.AUTH, None, Scope.PROVIDER),
        ("coingecko", RawAnswer(404, data={"error": "coin not found"}), K.HTTP, None, Scope.CALL),
        ("coingecko", RawAnswer(200, data={"error": "text"}), K.HTTP, None, Scope.CALL),
        ("coingecko", RawAnswer(403, text="<html>1020</html>"), K.RATE_LIMITED, None, Scope.PROVIDER),
        ("kraken", RawAnswer(200, data={"error": ["EService:Unavailable"]}), K.HTTP, None, Scope.CALL),
        ("kraken", RawAnswer(200, data={"error": ["EQuery:Unknown asset pair"]}), K.HTTP, None, Scope.CALL),
        ("kraken", RawAnswer(200, data={"error": ["WDatabase:stale"], "result": {}}), None, None, None),
        ("kraken", RawAnswer(200, data={"error": [], "result": {}}), None, None, None),
        ("kraken", RawAnswer(429), K.RATE_LIMITED, None, Scope.PROVIDER),
        ("blockchain", RawAnswer(429, text="<html>"), K.RATE_LIMITED, None, Scope.PROVIDER),
        ("blockchain", RawAnswer(503, text="busy"), K.HTTP, None, Scope.PROVIDER),
        ("blockchain", RawAnswer(200, data={"status": "not-found"}), K.HTTP, None, Scope.CALL),
        ("lunarcrush", RawAnswer(402, data={"error": "Upgrade"}), K.BILLING, None, Scope.PROVIDER),
        ("lunarcrush", RawAnswer(200, data={"error": "plan too low"}), K.BILLING, None, Scope.PROVIDER),
        ("lunarcrush", RawAnswer(401, data={"error": "No balance left"}), K.BILLING, None, Scope.PROVIDER),
        ("lunarcrush", RawAnswer(429, data={"error": "daily limit"}), K.QUOTA, Reset.UTC_DAY, Scope.PROVIDER),
        ("lunarcrush", RawAnswer(429, data={"error": "slow down"}), K.RATE_LIMITED, None, Scope.PROVIDER),
        ("lunarcrush", RawAnswer(200, data={"error": "unknown coin"}), K.HTTP, None, Scope.CALL),
        (
            "openai",
            RawAnswer(429, data={"error": {"type": "insufficient_quota"}}),
            K.BILLING,
            None,
            Scope.PROVIDER,
        ),
        ("openai", RawAnswer(401, data={"error": {"code": "invalid_api_key"}}), K.AUTH, None, Scope.PROVIDER),
        ("openai", RawAnswer(503, data={"error": {"message": "overloaded"}}), K.HTTP, None, Scope.CALL),
        (
            "gemini",
            RawAnswer(429, data={"error": {"message": "Quota exceeded, limit: 0, model: x"}}),
            K.BILLING,
            None,
            Scope.ENDPOINT,
        ),
        (
            "gemini",
            RawAnswer(400, data={"error": {"message": "x", "details": [{"reason": "API_KEY_INVALID"}]}}),
            K.AUTH,
            None,
            Scope.PROVIDER,
        ),
        ("gemini", RawAnswer(400, data={"error": {"message": "bad page"}}), K.HTTP, None, Scope.CALL),
    ],
)
def test_the_body_tells_what_a_refusal_means(
    provider: str, answer: RawAnswer, kind: ApiErrorKind | None, reset: Reset | None, scope: Scope | None
) -> None:
    """Rate, quota, bill, key: each provider's own words, as its documents give them."""
    failure = builtin_providers()[provider].classify(answer)
    found = (None, None, None) if failure is None else (failure.kind, failure.reset, failure.scope)
    assert found == (kind, reset, scope)


def test_kraken_throttled_until_a_time() -> None:
    """EService:Throttled names the Unix second at which calls may go on."""
    data = {"error": ["EService:Throttled: 1000"]}
    failure = builtin_providers()["kraken"].classify(RawAnswer(200, data=data, now_s=960.0))
    assert failure is not None
    assert failure.wait_s == 40.0


@pytest.mark.parametrize(
    ("given_header", "wait_s"),
    [
        ("30", 30.0),
        ("0", 0.0),
        ("-5", 0.0),
        ("1e9", 31 * 86_400.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 100.0),
        ("soon", None),
        ("nan", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(given_header: str, wait_s: float | None) -> None:
    """Both forms of the header; nonsense is nothing, and the wait is bounded."""
    answer = RawAnswer(429, {"retry-after": given_header}, now_s=1445412480.0 - 100)
    assert retry_after_s(answer) == wait_s


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12ms", 0.012),
        ("6m0s", 360.0),
        ("34.4s", 34.4),
        ("1h2m3s", 3723.0),
        ("", None),
        ("abc", None),
        ("5", None),
    ],
)
def test_go_durations(text: str, seconds: float | None) -> None:
    """As Go prints them; anything else is None."""
    assert go_duration_s(text) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("reset", "now", "then"),
    [
        (Reset.UTC_DAY, 1_767_225_599_000, 1_767_225_600_000),  # 2025-12-31 23:59:59
        (Reset.UTC_DAY, 1_767_225_600_000, 1_767_312_000_000),
        (Reset.UTC_MONTH, 1_767_225_599_000, 1_767_225_600_000),
        (Reset.UTC_MONTH, 1_769_904_000_000, 1_772_323_200_000),  # 2026-02-01 -> 2026-03-01
        (Reset.PACIFIC_DAY, 1_767_225_600_000, 1_767_254_400_000),  # winter: 08:00 UTC
        (Reset.PACIFIC_DAY, 1_782_864_000_000, 1_782_889_200_000),  # summer: 07:00 UTC
        (Reset.PACIFIC_DAY, 1_773_014_400_000, 1_773_039_600_000),  # 2026-03-09 00:00 UTC is after the change
    ],
)
def test_resets(reset: Reset, now: int, then: int) -> None:
    """Midnight UTC, the first of the month, midnight Pacific with its summer time."""
    assert next_reset_ms(reset, now) == then


def test_html_is_named_not_shown() -> None:
    """An error page does not get into a message; control characters neither."""
    assert plain("<!DOCTYPE html><h1>x</h1>") == "an HTML page"
    assert plain("a\x00b\r\nc") == "a b c"
    assert len(plain("x" * 5000)) == 200


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["error", "status", "message", "code", "error_code", "details", "violations", "data"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150)
@given(status=st.sampled_from([200, 302, 400, 401, 403, 429, 500]), data=_json, text=st.text(max_size=30))
def test_no_body_breaks_a_classifier(status: int, data: object, text: str) -> None:
    """Whatever the body holds, the answer is a failure or none, never an exception."""
    for spec in builtin_providers().values():
        spec.classify(RawAnswer(status, {"retry-after": text}, data, text, 1e9))
