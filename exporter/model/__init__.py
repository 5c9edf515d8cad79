"""The words of the field as values: label sets, matchers, samples, staleness markers, durations.

Pure: standard library, numpy and RE2 only. Everything else in the program builds on this package; it
imports nothing but `exporter.errors`. Invariants: label sets are sorted by label name, hold no empty
value, and are hashed once; timestamps are int64 Unix milliseconds; values are float64.
"""
