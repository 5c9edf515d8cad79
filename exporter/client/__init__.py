"""The client of rate-limited upstream APIs: no call too many, no limit broken, every call measured.

Order of the layers, outside in: cache -> single-flight -> retry [ breaker -> slot -> transport ]. `cache`,
`window`, `limits`, `retry` and `breaker` are pure and take the time as an argument; `gate` (the queue before
a provider), `singleflight`, `batch`, `journal` and `transport` are the edges; `upstream` joins them for one
provider, `client` for all.

Invariants: in no window of a limit's length do more calls go out than it allows, restarts included; an answer
carries its age; a message never holds a key.
"""

from exporter.client.client import ApiClient, ApiResult, CacheStats
from exporter.client.gate import Priority
from exporter.client.metrics import ClientMetrics, ProviderStats

__all__ = ["ApiClient", "ApiResult", "CacheStats", "ClientMetrics", "Priority", "ProviderStats"]
