"""The numbers at which a panel changes colour: those of the shipped rules. A test compares them."""

from __future__ import annotations

from typing import Final

ERROR_RATIO: Final = 0.05  # HighErrorRate
ALL_FAILING_RATIO: Final = 0.9  # AllApisFailing
RELIABILITY_RATIO: Final = 0.9  # ApiReliabilityLow
SLOW_RESPONSE_S: Final = 10.0  # SlowResponseTime
DATA_QUALITY_RATIO: Final = 0.7  # DataQualityLow
ACCURACY_RATIO: Final = 0.6  # AccuracyDrop
ANOMALY_FACTOR: Final = 1.5  # AnomalySpike
ENGAGEMENT_RATIO: Final = 0.75  # UserEngagementDrop
API_P95_S: Final = 0.5  # ApiLatencyHigh
QUERY_P95_S: Final = 0.1  # QueryLatencyHigh
CACHE_HIT_RATIO: Final = 0.8  # CacheHitRatioLow
LIMIT_USE_RATIO: Final = 0.8  # RateLimitNearlyUsed
PRICE_DEVIATION_RATIO: Final = 0.02  # PriceDisagrees

BY_ALERT: Final = {
    "HighErrorRate": ERROR_RATIO,
    "AllApisFailing": ALL_FAILING_RATIO,
    "ApiReliabilityLow": RELIABILITY_RATIO,
    "SlowResponseTime": SLOW_RESPONSE_S,
    "DataQualityLow": DATA_QUALITY_RATIO,
    "AccuracyDrop": ACCURACY_RATIO,
    "AnomalySpike": ANOMALY_FACTOR,
    "UserEngagementDrop": ENGAGEMENT_RATIO,
    "ApiLatencyHigh": API_P95_S,
    "QueryLatencyHigh": QUERY_P95_S,
    "CacheHitRatioLow": CACHE_HIT_RATIO,
    "RateLimitNearlyUsed": LIMIT_USE_RATIO,
    "PriceDisagrees": PRICE_DEVIATION_RATIO,
}
"""Alert to the threshold in its expression."""
