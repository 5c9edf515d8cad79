"""The head: samples in memory, stored by column.

Data flow: a batch (one time, many series) finds its columns by the identity of its label tuple and is
copied into a row of a `Block`; single samples of one time are collected into a row first; series that
arrive alone go to loose columns that share timelines. A query takes a `Selection` (kept while the series
it names stand), and gets `Grid`s that point into the chunks.

Invariants: samples of a series ascend in time, whichever store holds them; a row is published after it is
written; a chunk's columns never move; falls of tracked columns are noted at ingest, so that a rate needs
the first and the last row only; `clean_from` says from which row on a column has neither gap nor marker.
Absent cells hold a NaN of our own; the staleness marker keeps its bits.

Pure: standard library, numpy, `exporter.model` and the engine's port (`exporter.promql.source`).
"""

from exporter.model.staleness import STALE_NAN
from exporter.storage.head import AppendResult, HeadStats, MemoryStorage

__all__ = ["STALE_NAN", "AppendResult", "HeadStats", "MemoryStorage"]
