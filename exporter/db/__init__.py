"""Postgres as the long memory: our own server, connections, migrations, samples, events, history.

Flow: `SampleWriter.put` queues a snapshot -> `batch` gathers and sorts -> `series_ids` turns label sets
into row numbers -> binary COPY into the day's partition; while Postgres is away the batch goes to `spool`
instead, and comes back oldest first. `events` does the same for `performance_metrics`. `history` reads
samples back as columns.

Invariants: putting never blocks and never raises; a sample that was accepted is in memory, in the spool or in
Postgres until it is counted as dropped; every insert may be repeated without effect; metric rows are never
deleted, their day is dropped. asyncpg's exceptions do not leave this package (`pool` translates them).

Imports the standard library, numpy, asyncpg, psutil, prometheus_client, `exporter.model`, `exporter.clock`,
`exporter.errors`; no other edge. `batch` is pure.
"""
