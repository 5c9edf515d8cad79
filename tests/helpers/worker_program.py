"""An app of several processes, as gunicorn runs it: a master loads the app, forks workers and outlives them.

python -m tests.helpers.worker_program FOLDER WORKERS CALLS END [preload]; prints the exposition at the end.
"""

from __future__ import annotations

import os
import signal
import sys

from prometheus_client import Counter, Gauge, Histogram, generate_latest

from exporter.observe.monitor import Monitor
from exporter.observe.workers import WorkerRegistry


def load(folder: str) -> tuple[WorkerRegistry, Monitor, Counter, Gauge, Histogram]:
    """The app: a Monitor and instruments of its own."""
    registry = WorkerRegistry(folder)
    jobs = Counter("jobs", "Jobs done.", ["kind"], registry=registry)
    busy = Gauge("busy", "Busy workers.", registry=registry, multiprocess_mode="livesum")
    wait = Histogram("wait_seconds", "Waits.", registry=registry)
    return registry, Monitor(registry=registry), jobs, busy, wait


def work(folder: str, number: int, calls: int, end: str, app: object = None) -> None:
    """One worker: counts, then ends as told."""
    _, monitor, jobs, busy, wait = app or load(folder)  # type: ignore[misc]
    busy.set(1)
    for call in range(calls):
        jobs.labels("all").inc()
        jobs.labels(f"of-{number}").inc()
        wait.observe(call % 3)
        with monitor.api_call("/x", "GET"):
            pass
    if end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if end == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    if end == "_exit":
        os._exit(0)
    sys.exit(0)


def main(folder: str, workers: int, calls: int, end: str, preload: bool) -> None:
    app = load(folder) if preload else None
    if app is not None:
        app[2].labels("all").inc()  # the master counts too
    children = []
    for number in range(workers):
        pid = os.fork()
        if pid == 0:
            work(folder, number, calls, end, app)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    print(generate_latest((app or load(folder))[0]).decode())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], "preload" in sys.argv[5:])
