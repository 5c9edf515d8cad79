"""Observation: what the program measures itself, and how a registry becomes samples.

Data flow: `Monitor` times API calls and queries into prometheus_client instruments (`metrics`) and into
events (`model.events.EventSink`); `families` reads a registry into columns; `snapshot` turns these into
`SampleBatch`es for the head and for Postgres.

Several processes of one app share a `workers.WorkerRegistry`: each counts into memory-mapped doubles of its
own (`worker_file`), whoever is asked adds all of them up (`worker_merge`, pure). A process that has ended is
told by its file's lock, which the kernel releases; its counts are moved into one file of totals, under the
folder's lock, and the totals name what they hold, so that a kill at any point counts nothing twice.

Invariants: the overhead of one timed call stays under 5 us; exceptions of timed code are raised on,
unchanged; the label sets of a snapshot are the same tuple object until the set of series changes.
`families` and `snapshot` are pure: no clock, no loop, no files. They read private fields of
prometheus_client's instruments where those are as expected, and fall back to `collect()` where not.
Must not import other edges; where events go and where history is read are ports (`ports`).
"""

from exporter.observe.monitor import Monitor

__all__ = ["Monitor"]
