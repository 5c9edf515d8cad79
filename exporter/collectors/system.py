"""The machine and this process, by psutil."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import threading
from collections.abc import Callable, Iterable

import psutil
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from exporter.clock import Clock
from exporter.collectors.base import Collected, CollectorError

_LAG_PROBE_S = 0.5
# what only exists while a container or a snap is mounted, or mirrors memory, is no disk of the user's
_NO_DISKS = frozenset(
    {"squashfs", "overlay", "tmpfs", "devtmpfs", "ramfs", "iso9660", "autofs", "nsfs", "proc"}
)
_NO_NICS = ("lo", "veth", "docker", "br-")


class SystemCollector:
    """CPU, memory, swap, disks, load, network; memory, CPU, files, threads and loop lag of this process.

    `lag` gives the longest event-loop lag in seconds since it was last asked (`LoopLag.take`). psutil reads
    files, and a dead network mount can hang it: it runs in a worker thread, never twice at a time.
    """

    name = "system"

    def __init__(
        self, *, interval_s: float = 15.0, timeout_s: float = 10.0, lag: Callable[[], float] | None = None
    ) -> None:
        self.interval_s = interval_s
        self.timeout_s = timeout_s
        self._lag = lag
        self._process = psutil.Process()
        self._reading = threading.Lock()
        self._cpu_before = psutil.cpu_times()

    async def collect(self) -> Collected:
        """Measure now. Raises: CollectorError while the reading before still hangs."""
        families = await asyncio.to_thread(self._read)
        if self._lag is not None:
            families.append(
                _gauge(
                    "quantum_event_loop_lag_seconds",
                    "Longest delay of the event loop's timer since the last run.",
                    self._lag(),
                )
            )
        return Collected(families)

    def _read(self) -> list[Metric]:
        if not self._reading.acquire(blocking=False):
            raise CollectorError("the reading before has not ended: psutil hangs")
        try:
            return [
                *self._cpu(),
                *_memory(),
                *_disks(),
                *_disk_io(),
                *_load(),
                *_network(),
                *self._own_process(),
            ]
        finally:
            self._reading.release()

    def _cpu(self) -> Iterable[Metric]:
        before, now = self._cpu_before, psutil.cpu_times()
        self._cpu_before = now
        spent = [max(0.0, new - old) for new, old in zip(now, before, strict=True)]
        # guest time is counted in user time already
        modes = [mode for mode in now._fields if not mode.startswith("guest")]
        by_mode = {mode: spent[now._fields.index(mode)] for mode in modes}
        total = sum(by_mode.values())
        if total > 0:
            idle = by_mode.get("idle", 0.0) + by_mode.get("iowait", 0.0)
            yield _gauge(
                "quantum_system_cpu_usage_ratio",
                "Share of all CPU time since the last run that was not idle.",
                1.0 - idle / total,
            )
        seconds = CounterMetricFamily(
            "quantum_system_cpu_seconds", "CPU time by mode, all CPUs together.", labels=["mode"]
        )
        for mode in modes:
            seconds.add_metric([mode], getattr(now, mode))
        yield seconds
        yield _gauge("quantum_system_cpus", "Logical CPUs.", psutil.cpu_count() or 1)

    def _own_process(self) -> Iterable[Metric]:
        process = self._process
        with process.oneshot():
            memory, cpu = process.memory_info(), process.cpu_times()
            yield _gauge("quantum_process_resident_memory_bytes", "Resident memory.", memory.rss)
            yield _gauge("quantum_process_virtual_memory_bytes", "Virtual memory.", memory.vms)
            yield _counter("quantum_process_cpu_seconds", "User and system CPU time.", cpu.user + cpu.system)
            yield _gauge("quantum_process_threads", "Threads.", process.num_threads())
            yield _gauge(
                "quantum_process_start_time_seconds", "When the process started.", process.create_time()
            )
            with contextlib.suppress(AttributeError, psutil.AccessDenied):
                yield _gauge("quantum_process_open_fds", "Open file descriptors.", process.num_fds())
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if limit != resource.RLIM_INFINITY:
            yield _gauge("quantum_process_max_fds", "Most file descriptors it may open.", limit)


class LoopLag:
    """Measures how late the event loop's timer fires: what blocks the loop shows here."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._longest_s = 0.0

    async def run(self) -> None:
        """Probe twice a second until cancelled."""
        clock = self._clock
        while True:
            start = clock.monotonic()
            await clock.sleep(_LAG_PROBE_S)
            self._longest_s = max(self._longest_s, clock.monotonic() - start - _LAG_PROBE_S)

    def take(self) -> float:
        """The longest lag in seconds since the last call."""
        longest, self._longest_s = self._longest_s, 0.0
        return longest


def _memory() -> Iterable[Metric]:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    yield _gauge("quantum_system_memory_total_bytes", "Physical memory.", memory.total)
    yield _gauge(
        "quantum_system_memory_available_bytes", "Memory that programs can get at once.", memory.available
    )
    yield _gauge(
        "quantum_system_memory_used_bytes", "Memory that is not available.", memory.total - memory.available
    )
    yield _gauge(
        "quantum_system_memory_usage_ratio",
        "Share of the physical memory that is not available.",
        1.0 - memory.available / memory.total if memory.total else 0.0,
    )
    yield _gauge("quantum_system_swap_total_bytes", "Swap space.", swap.total)
    yield _gauge("quantum_system_swap_used_bytes", "Swap space in use.", swap.used)


def _disks() -> Iterable[Metric]:
    labels = ["mountpoint"]
    total = GaugeMetricFamily("quantum_system_disk_total_bytes", "Size of the file system.", labels=labels)
    used = GaugeMetricFamily("quantum_system_disk_used_bytes", "Bytes in use.", labels=labels)
    free = GaugeMetricFamily("quantum_system_disk_free_bytes", "Bytes free for users.", labels=labels)
    ratio = GaugeMetricFamily(
        "quantum_system_disk_usage_ratio", "Share in use of what users can have.", labels=labels
    )
    for mountpoint in _mountpoints():
        try:
            usage = psutil.disk_usage(mountpoint)
        except OSError:  # unmounted meanwhile, or not ours to look at
            continue
        total.add_metric([mountpoint], usage.total)
        used.add_metric([mountpoint], usage.used)
        free.add_metric([mountpoint], usage.free)
        ratio.add_metric([mountpoint], usage.percent / 100.0)
    return total, used, free, ratio


def _mountpoints() -> list[str]:
    """Mounted file systems, one mount point for each device, and always the root."""
    found = {"/": "/"}
    with contextlib.suppress(OSError):
        for part in psutil.disk_partitions(all=False):
            usable = part.fstype not in _NO_DISKS and os.path.isdir(part.mountpoint)  # noqa: PTH112 - no Path needed
            if usable and part.mountpoint != "/":
                found.setdefault(part.device, part.mountpoint)
    return sorted(set(found.values()))


def _disk_io() -> Iterable[Metric]:
    io = psutil.disk_io_counters()
    if io is None:  # a container without block devices
        return
    yield _counter("quantum_system_disk_read_bytes", "Bytes read from all disks.", io.read_bytes)
    yield _counter("quantum_system_disk_written_bytes", "Bytes written to all disks.", io.write_bytes)
    yield _counter("quantum_system_disk_reads", "Reads from all disks.", io.read_count)
    yield _counter("quantum_system_disk_writes", "Writes to all disks.", io.write_count)


def _load() -> Iterable[Metric]:
    with contextlib.suppress(OSError, AttributeError):
        one, five, fifteen = os.getloadavg()
        yield _gauge("quantum_system_load1", "Load average of 1 minute.", one)
        yield _gauge("quantum_system_load5", "Load average of 5 minutes.", five)
        yield _gauge("quantum_system_load15", "Load average of 15 minutes.", fifteen)
    yield _gauge("quantum_system_boot_time_seconds", "When the machine started.", psutil.boot_time())


def _network() -> Iterable[Metric]:
    label = ["device"]
    families = {
        "bytes_recv": CounterMetricFamily(
            "quantum_system_network_receive_bytes", "Bytes received.", labels=label
        ),
        "bytes_sent": CounterMetricFamily(
            "quantum_system_network_transmit_bytes", "Bytes sent.", labels=label
        ),
        "errin": CounterMetricFamily(
            "quantum_system_network_receive_errors", "Receive errors.", labels=label
        ),
        "errout": CounterMetricFamily(
            "quantum_system_network_transmit_errors", "Transmit errors.", labels=label
        ),
    }
    for device, counters in sorted(psutil.net_io_counters(pernic=True).items()):
        if device.startswith(_NO_NICS):
            continue
        for field, family in families.items():
            family.add_metric([device], getattr(counters, field))
    return families.values()


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value=value)


def _counter(name: str, help_text: str, value: float) -> Metric:
    return CounterMetricFamily(name, help_text, value=value)
