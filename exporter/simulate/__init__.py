"""Stand-ins for the outer world: the upstream providers, and a trading platform's database.

Used by `--simulate`, `quantum-exporter simulate` and the tests. Deterministic for a seed; imports only pure
code, the clock and errors.
"""
