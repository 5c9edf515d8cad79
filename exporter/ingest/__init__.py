"""Samples out of text expositions.

Data flow: `line` reads one sample line; `openmetrics` checks a whole OpenMetrics exposition, family by
family; `text` reads Prometheus' text format; `stream` takes samples with timestamps out of large files, for
backfill and backtests. PURE: text and bytes are arguments.
"""
