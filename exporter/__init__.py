"""quantum-exporter: measures, publishes, remembers, judges and tells.

The public API is imported from here (`Monitor`) and from `exporter.client`, `exporter.promql` and
`exporter.storage`. The design of each package stands in its own `__init__`.
"""

__version__ = "0.1.0"
