"""WorkerRegistry: one exposition of an app that runs as several processes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary
from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString

from exporter.errors import StorageError
from exporter.observe.worker_file import KEYS, NEW, VALUES, FileReader, SharedValue, WorkerFile
from exporter.observe.worker_merge import (
    Definition,
    Merged,
    Part,
    Row,
    Totals,
    expire,
    fold,
    from_json,
    merge,
    to_json,
)

log = logging.getLogger(__name__)
_KINDS: Final = (Counter, Gauge, Histogram, Summary)
_LOCK_TRIES: Final = 1000
_LOCK_PAUSE_S: Final = 0.005
_ABANDONED_S: Final = 60.0


class WorkerRegistry(CollectorRegistry):
    """A registry whose instruments count into files in `folder`; `collect()` is the sum over all processes.

    Give every process of one app the same folder, made by the app's user alone, best on a file system in
    memory. Forked and spawned processes may share it. A count is in the file when the call returns: no way in
    which a process ends loses one. Counters, histograms and summaries of ended processes stay in the sum;
    their gauges go. A gauge is merged by its `multiprocess_mode` (`all` adds the label `pid`).

    A label set that no process has used for `keep_s` seconds since the last process that had it ended or
    removed it is dropped. `now` gives Unix seconds.

    Raises: StorageError from `collect()` where the folder cannot be read. ValueError from `register` for
    collectors that no other process can read.
    """

    def __init__(
        self, folder: Path | str, *, keep_s: float = 86_400.0, now: Callable[[], float] = time.time
    ) -> None:
        super().__init__(auto_describe=True)
        self._folder = Path(folder).absolute()
        self._keep_s = keep_s
        self._now = now
        self._readers: dict[str, FileReader] = {}
        self._reading = threading.Lock()
        self._told: set[str] = set()
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"the folder {self._folder} cannot be made: {error.strerror}") from error
        self._file = WorkerFile(self._folder, now)
        self._classes = {kind: _shared(kind, self) for kind in _KINDS}
        _follow_forks(self)
        with contextlib.suppress(StorageError):  # the next reader tells
            self._gather()  # what ended before has its files added up, also where nobody reads

    def register(self, collector: Any) -> None:
        """Add an instrument; from now on it counts into the files."""
        shared = self._classes.get(type(collector))
        if shared is None:
            names = ", ".join(kind.__name__ for kind in _KINDS)
            raise ValueError(
                f"{type(collector).__name__} cannot be shared by processes (allowed: {names});"
                " register it in another registry"
            )
        super().register(collector)
        collector.__class__ = shared
        if not collector._labelnames:
            collector._metric_init()

    def unregister(self, collector: Any) -> None:
        """Remove an instrument of this process."""
        super().unregister(collector)
        children = collector._metrics if collector._labelnames else ((),)
        self.retire(collector, list(children))

    def collect(self) -> Iterator[Metric]:
        """The families over all processes, and how many processes there are."""
        parts, totals = self._gather()
        merged, ignored = merge(parts, totals, self._now(), self._keep_s)
        for family in merged:
            yield _metric(family)
        yield from _own(len(parts), ignored, totals)

    def restricted_registry(self, names: Iterable[str]) -> Any:
        """What `collect` gives, less what is not named."""
        return _Restricted(self, frozenset(names))

    def close(self) -> None:
        """This process is done, as if it had ended; its instruments count on for nobody."""
        self._file.close()

    def allocate(self, instrument: Any) -> list[SharedValue]:
        """The numbers of an instrument without labels, or of one child."""
        return self._file.allocate(_definition(instrument), instrument._labelvalues)

    def retire(self, instrument: Any, rows: list[Row]) -> None:
        """Rows that an instrument of this process has removed."""
        if self._file.retire(_definition(instrument), rows):
            with self._locked(), self._file.lock:
                self._file.begin_anew(keep_gauges=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """The folder's lock: one process at a time adds up what has ended. Raises: StorageError."""
        with self._reading:
            try:
                fd = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise StorageError(f"the folder {self._folder} cannot be read: {error.strerror}") from error
            try:
                for left in reversed(range(_LOCK_TRIES)):
                    try:
                        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        break
                    except BlockingIOError:
                        if not left:
                            raise StorageError(f"{self._folder}/lock is held by another process") from None
                        time.sleep(_LOCK_PAUSE_S)
                yield
            finally:
                with contextlib.suppress(OSError):  # a child forked meanwhile must not hold it on
                    fcntl.flock(fd, fcntl.LOCK_UN)
                os.close(fd)

    def _gather(self) -> tuple[list[Part], Totals]:
        """What the processes that live hold, and the totals; files of ended ones are added to these."""
        try:
            with self._locked():
                return self._read_all()
        except OSError as error:
            raise StorageError(f"the folder {self._folder} cannot be read: {error.strerror}") from error

    def _read_all(self) -> tuple[list[Part], Totals]:
        before = totals = self._read_totals()
        names = {path.stem for path in self._folder.iterdir() if path.suffix == KEYS}
        for name in self._readers.keys() - names:
            self._readers.pop(name).close()
        parts: list[Part] = []
        done: list[str] = []
        for name in sorted(names):
            reader = self._readers.setdefault(name, FileReader(self._folder / f"{name}{KEYS}"))
            ended = reader.ended()
            try:
                part = reader.read()
            except StorageError as error:  # of a newer version, which will add it up itself
                self._tell(f"{reader.keys} is left out: {error}")
                self._readers.pop(name).close()
                continue
            except (ValueError, KeyError, TypeError, IndexError) as error:
                self._tell(f"{reader.keys} is damaged and left out: {error!r}")
                self._readers[name] = FileReader(reader.keys)
                reader.close()
                if ended:
                    done.append(name)
                continue
            if ended:
                totals = fold(totals, part, name, self._now())
                done.append(name)
            else:
                parts.append(part)
        totals = expire(totals, parts, self._now(), self._keep_s)
        if done or totals is not before:
            # in this order: killed in between, the next one finds the name in the totals and only removes
            totals.folded = tuple(name for name in totals.folded if name in names)
            self._write_totals(totals)
        for name in done:
            (self._folder / f"{name}{VALUES}").unlink(missing_ok=True)
            (self._folder / f"{name}{KEYS}").unlink(missing_ok=True)
            self._readers.pop(name).close()
        self._tidy()
        return parts, totals

    def _read_totals(self) -> Totals:
        path = self._folder / "totals"
        try:
            return from_json(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return Totals()
        except (ValueError, KeyError, TypeError) as error:
            aside = path.with_name("totals.damaged")
            path.replace(aside)
            self._tell(f"{aside} cannot be read, the counts of ended processes begin anew: {error!r}")
            return Totals()

    def _write_totals(self, totals: Totals) -> None:
        path = self._folder / "totals"
        fresh = path.with_suffix(NEW)
        fresh.write_text(json.dumps(to_json(totals)))
        fresh.replace(path)

    def _tidy(self) -> None:
        """Remove what a process left that was killed while it began."""
        before_s = time.time() - _ABANDONED_S  # the file system's clock
        for path in list(self._folder.iterdir()):
            alone = path.suffix == NEW or (
                path.suffix == VALUES
                and not path.with_suffix(KEYS).exists()
                and not path.with_suffix(NEW).exists()
                and not path.with_suffix(KEYS).exists()
            )
            with contextlib.suppress(FileNotFoundError):
                if alone and path.stat().st_mtime < before_s:
                    path.unlink()

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            log.error("%s", text)

    def before_fork(self) -> None:
        """No other thread may hold a lock that the child would then wait for."""
        self._reading.acquire()
        self._file.lock.acquire()

    def after_fork(self, *, child: bool) -> None:
        """The child goes on in files of its own, from zero."""
        if child:
            self._file.begin_anew(keep_gauges=False)
            for reader in self._readers.values():
                reader.forget()
            self._readers.clear()
        self._file.lock.release()
        self._reading.release()


class _Restricted:
    """Some samples of a registry."""

    def __init__(self, registry: WorkerRegistry, names: frozenset[str]) -> None:
        self._registry = registry
        self._names = names

    def collect(self) -> Iterator[Metric]:
        """The samples so named."""
        for metric in self._registry.collect():
            kept = metric._restricted_metric(self._names)  # type: ignore[no-untyped-call]
            if kept:
                yield kept


def _follow_forks(registry: WorkerRegistry) -> None:
    """Call the registry at each fork, for as long as it exists; the system keeps such hooks for ever."""
    found = weakref.ref(registry)
    held: list[WorkerRegistry] = []

    def before() -> None:
        own = found()
        if own is not None:
            own.before_fork()
            held.append(own)

    def after(*, child: bool) -> None:
        while held:
            held.pop().after_fork(child=child)

    os.register_at_fork(
        before=before,
        after_in_parent=lambda: after(child=False),
        after_in_child=lambda: after(child=True),
    )


def _definition(instrument: Any) -> Definition:
    kind = instrument._type
    bounds: Sequence[float] = instrument._upper_bounds if kind == "histogram" else ()
    mode = instrument._multiprocess_mode.removeprefix("live") if kind == "gauge" else ""
    return Definition(
        instrument._name,
        kind,
        instrument._labelnames,
        tuple(floatToGoString(bound) for bound in bounds),  # type: ignore[no-untyped-call]
        mode,
        instrument._documentation,
        instrument._unit,
    )


def _shared(kind: type, registry: WorkerRegistry) -> type:
    """The instrument's class with numbers in the registry's file."""

    def scalar(self: Any) -> None:
        (self._value,) = registry.allocate(self)
        self._created = 0.0

    def histogram(self: Any) -> None:
        *self._buckets, self._sum = registry.allocate(self)
        self._created = 0.0

    def summary(self: Any) -> None:
        self._count, self._sum = registry.allocate(self)
        self._created = 0.0

    def retire(self: Any, before: Iterable[Row]) -> None:
        gone = [row for row in before if row not in self._metrics]
        if gone:
            registry.retire(self, gone)

    def remove(self: Any, *values: Any) -> None:
        kind.remove(self, *values)  # type: ignore[attr-defined]
        retire(self, [tuple(map(str, values))])

    def removing(name: str) -> Callable[..., None]:
        base = getattr(kind, name)

        def remove_many(self: Any, *args: Any) -> None:
            before = list(self._metrics) if self._labelnames else []
            base(self, *args)
            retire(self, before)

        return remove_many

    def set_function(self: Any, _: Callable[[], float]) -> None:
        raise ValueError(f"{self}: a function is read by its own process only; use set()")

    bind = histogram if kind is Histogram else summary if kind is Summary else scalar
    members: dict[str, Any] = {
        "_metric_init": bind,
        "remove": remove,
        **{name: removing(name) for name in ("remove_by_labels", "clear") if hasattr(kind, name)},
    }
    if kind is Gauge:
        members["set_function"] = set_function
    return type(kind.__name__, (kind,), members)


def _metric(family: Merged) -> Metric:
    definition = family.definition
    names = definition.labels
    if definition.mode == "all":
        names = (*names, "pid")
    metric = Metric(definition.name, definition.help, definition.kind, definition.unit)
    for row, numbers in family.rows:
        labels = dict(zip(names, row, strict=True))
        if definition.kind == "histogram":
            total = 0.0
            for bound, number in zip(definition.bounds, numbers[:-1], strict=True):
                total += number
                metric.add_sample(f"{definition.name}_bucket", {**labels, "le": bound}, total)
            metric.add_sample(f"{definition.name}_count", labels, total)
            if float(definition.bounds[0]) >= 0:
                metric.add_sample(f"{definition.name}_sum", labels, numbers[-1])
        elif definition.kind == "summary":
            metric.add_sample(f"{definition.name}_count", labels, numbers[0])
            metric.add_sample(f"{definition.name}_sum", labels, numbers[1])
        else:
            suffix = "_total" if definition.kind == "counter" else ""
            metric.add_sample(definition.name + suffix, labels, numbers[0])
    return metric


def _own(live: int, ignored: int, totals: Totals) -> Iterator[Metric]:
    """What the registry says about itself."""
    for name, kind, help_text, value in (
        ("quantum_workers", "gauge", "Processes that count into the shared folder.", live),
        ("quantum_workers_ended", "counter", "Processes that ended; their counts stay.", totals.ended),
        (
            "quantum_worker_label_sets_expired",
            "counter",
            "Label sets of ended processes dropped because nobody used them for long.",
            totals.expired,
        ),
        (
            "quantum_worker_definitions_ignored",
            "gauge",
            "Declarations of a metric that differ from the newest process's, and are left out.",
            ignored,
        ),
    ):
        metric = Metric(name, help_text, kind)
        metric.add_sample(name + ("_total" if kind == "counter" else ""), {}, float(value))
        yield metric
