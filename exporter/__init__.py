"""quantum-exporter: measures, publishes, remembers, judges and tells.

The public API is imported from here (`Monitor`, `WorkerRegistry`) and from `exporter.client`,
`exporter.promql` and `exporter.storage`. The design of each package stands in its own `__init__`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Monitor", "WorkerRegistry", "__version__"]

if TYPE_CHECKING:
    from exporter.monitoring import Monitor
    from exporter.observe.workers import WorkerRegistry


def __getattr__(name: str) -> Any:
    """`Monitor` is imported when it is asked for: whoever wants the engine alone loads no database driver."""
    if name == "Monitor":
        from exporter.monitoring import Monitor

        return Monitor
    if name == "WorkerRegistry":
        from exporter.observe.workers import WorkerRegistry

        return WorkerRegistry
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
