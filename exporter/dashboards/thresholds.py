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
API_P95_S: Final = 0.5
QUERY_P95_S: Final = 0.1
CACHE_HIT_RATIO: Final = 0.8
LIMIT_USE_RATIO: Final = 0.8

BY_ALERT: Final = {
    "HighErrorRate": ERROR_RATIO,
    "AllApisFailing": ALL_FAILING_RATIO,
    "ApiReliabilityLow": RELIABILITY_RATIO,
    "SlowResponseTime": SLOW_RESPONSE_S,
    "DataQualityLow": DATA_QUALITY_RATIO,
    "AccuracyDrop": ACCURACY_RATIO,
    "AnomalySpike": ANOMALY_FACTOR,
    "UserEngagementDrop": ENGAGEMENT_RATIO,
}
"""Alert to the threshold in its expression."""
