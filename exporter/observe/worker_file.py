"""The numbers of one process in files that other processes read: nothing is lost however it ends.

Two files: NAME.keys says in lines of JSON which numbers there are, NAME.values holds them as doubles, mapped
into memory, so that an increment is in the file when it returns. The process holds a lock on NAME.keys for as
long as it lives; the kernel releases it, also after kill -9.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import mmap
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from exporter.errors import StorageError
from exporter.observe.worker_merge import (
    Definition,
    Part,
    Row,
    definition_from_json,
    definition_to_json,
)

log = logging.getLogger(__name__)
_FIRST_SIZE: Final = 4096
_DOUBLE: Final = 8
_SPARE_RETIRED: Final = 100
_SPARE: Final = 2  # doubles at the start of a file that belong to no row
KEYS: Final = ".keys"
VALUES: Final = ".values"
NEW: Final = ".new"


class SharedValue:
    """One number, in the shape of prometheus_client's values. Exemplars stay in the process."""

    __slots__ = ("_exemplar", "at", "file", "stamped")

    def __init__(self, file: WorkerFile, at: int, *, stamped: bool) -> None:
        self.file = file
        self.at = at
        self.stamped = stamped
        self._exemplar: Any = None

    def inc(self, amount: float) -> None:
        """Add."""
        file = self.file
        with file.lock:
            file.view[self.at] += amount

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Set, with the time where the gauge goes by it."""
        file = self.file
        with file.lock:
            file.view[self.at] = value
            if self.stamped:
                file.view[self.at + 1] = timestamp or 0.0

    def get(self) -> float:
        """What this process has counted in its file."""
        file = self.file
        with file.lock:
            return float(file.view[self.at])

    def set_exemplar(self, exemplar: Any) -> None:
        """Keep an exemplar."""
        self._exemplar = exemplar

    def get_exemplar(self) -> Any:
        """The last exemplar."""
        return self._exemplar


@dataclass(slots=True)
class _Child:
    """A row of an instrument and where its numbers stand."""

    at: int
    values: list[SharedValue]
    retired: bool = False


class WorkerFile:
    """The files of this process. Safe in threads; after a fork the child calls `begin_anew`.

    Where the files cannot be made or grow no further (a full disk), the numbers are kept in this process
    alone, and the log says so once.
    """

    def __init__(self, folder: Path, now: Callable[[], float] = time.time) -> None:
        # may be taken again by a signal handler or a finalizer that counts while its thread counts
        self.lock = threading.RLock()
        self._folder = folder
        self._now = now
        self._children: dict[Definition, dict[Row, _Child]] = {}
        self._gone = self._held = 0
        self._told = False
        self._open()

    def allocate(self, definition: Definition, row: Row) -> list[SharedValue]:
        """The numbers of a row, `definition.width` of them (a gauge's time has no object of its own)."""
        with self.lock:
            known = self._children.setdefault(definition, {})
            child = known.get(row)
            if child is None:
                child = known[row] = self._place(definition, row, [])
            elif child.retired:  # it goes on where it stood
                child.retired = False
                self._held, self._gone = self._held + 1, self._gone - 1
                self._write({"back": child.at})
            return child.values

    def retire(self, definition: Definition, rows: list[Row]) -> bool:
        """The process no longer holds these rows. Returns whether it is time for `begin_anew`."""
        with self.lock:
            own = self._children.get(definition, {})
            for row in rows:
                child = own.get(row)
                if child is not None and not child.retired:
                    child.retired = True
                    self._held, self._gone = self._held - 1, self._gone + 1
                    self._write({"retired": child.at, "time": self._now()})
            return self._gone > self._held + _SPARE_RETIRED

    def begin_anew(self, *, keep_gauges: bool) -> None:
        """Leave the files to whoever adds ended processes up, and go on in new ones, from zero.

        Call with `self.lock` held, and where this process lives on with the folder's lock, so that nobody
        sees a gauge twice.
        """
        old, old_view = self._children, self.view
        fds, mapped = (self._keys_fd, self._values_fd), self._map
        self._children = {}
        self._open()
        for definition, own in old.items():
            for row, child in own.items():
                if child.retired:  # whoever still holds its objects counts into the spare room
                    for value in child.values:
                        value.at = 0
                    continue
                before = list(old_view[child.at : child.at + definition.width])
                self._children.setdefault(definition, {})[row] = fresh = self._place(
                    definition, row, child.values
                )
                if keep_gauges and definition.kind == "gauge":
                    for at, number in enumerate(before):
                        self.view[fresh.at + at] = number
        old_view.release()
        _close(mapped, *fds)

    def close(self) -> None:
        """Let go of the files; what they hold is added to the totals by the next reader."""
        with self.lock:
            self._unmap()

    def _open(self) -> None:
        self._used, self._held, self._gone = _SPARE, 0, 0
        self._definitions: dict[Definition, int] = {}
        self._map: mmap.mmap | None = None
        self._keys_fd = self._values_fd = -1
        self.view = memoryview(bytearray(_FIRST_SIZE)).cast("d")
        self.name = f"{os.getpid()}-{secrets.token_hex(4)}"
        keys, values = self._folder / f"{self.name}{KEYS}", self._folder / f"{self.name}{VALUES}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            # locked and complete before it has the name under which readers look for it
            hidden = keys.with_suffix(NEW)
            self._keys_fd = os.open(hidden, flags, 0o600)
            fcntl.flock(self._keys_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._values_fd = os.open(values, flags, 0o600)
            self._map_values(_FIRST_SIZE)
            self._write({"version": 1, "pid": os.getpid(), "begun": self._now()})
            hidden.rename(keys)
        except OSError as error:
            self._alone(error)

    def _map_values(self, size: int) -> None:
        if sys.platform == "darwin":
            os.ftruncate(self._values_fd, size)
        else:  # a full disk must be an error here, not a signal later
            os.posix_fallocate(self._values_fd, 0, size)
        mapped = mmap.mmap(self._values_fd, size)
        view = memoryview(mapped).cast("d")
        old_view, old_map = self.view, self._map
        self.view, self._map = view, mapped
        old_view.release()
        if old_map is not None:
            old_map.close()

    def _place(self, definition: Definition, row: Row, values: list[SharedValue]) -> _Child:
        """Room for a row, behind what there is; `values` are its objects where it has some already."""
        width = definition.width
        at, self._used = self._used, self._used + width
        if self._used > len(self.view):
            self._grow()
        stamped = definition.mode == "mostrecent"
        if not values:
            places = range(at, at + (1 if stamped else width))
            values = [SharedValue(self, place, stamped=stamped) for place in places]
        else:
            for offset, value in enumerate(values):
                value.at = at + offset
        self._held += 1
        number = self._definitions.get(definition)
        if number is None:
            number = self._definitions[definition] = len(self._definitions)
            self._write({"define": definition_to_json(definition)})
        self._write({"row": row, "of": number, "at": at})
        return _Child(at, values)

    def _grow(self) -> None:
        size = max(2 * len(self.view), self._used) * _DOUBLE
        if self._map is not None:
            try:
                self._map_values(size)
                return
            except OSError as error:
                self._alone(error)
        larger = bytearray(size)
        larger[: len(self.view) * _DOUBLE] = self.view.cast("B")
        self.view.release()
        self.view = memoryview(larger).cast("d")

    def _write(self, line: dict[str, object]) -> None:
        """One line, in one call: whoever reads beside it sees all of it, or no line end."""
        if self._keys_fd >= 0:
            try:
                os.write(self._keys_fd, json.dumps(line).encode() + b"\n")
            except OSError as error:
                self._alone(error)

    def _alone(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            log.error("measurements are kept in this process alone: %s: %s", self._folder, error)
        self._unmap()

    def _unmap(self) -> None:
        """Go on in memory of this process alone."""
        self.view, shared = memoryview(bytearray(self.view)).cast("d"), self.view
        shared.release()
        _close(self._map, self._keys_fd, self._values_fd)
        self._map, self._keys_fd, self._values_fd = None, -1, -1


def _close(mapped: mmap.mmap | None, *fds: int) -> None:
    if mapped is not None:
        mapped.close()
    for fd in fds:
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)


@dataclass(slots=True)
class FileReader:
    """Reads the files of one process again and again; only new lines of the keys are read."""

    keys: Path
    _fd: int = -1
    _offset: int = 0
    _rest: bytes = b""
    _head: dict[str, Any] = field(default_factory=dict)
    _definitions: list[Definition] = field(default_factory=list)
    _rows: dict[int, tuple[Definition, Row, float | None]] = field(default_factory=dict)

    def ended(self) -> bool:
        """Whether the process is gone: then nobody holds the lock. Raises: OSError."""
        if self._fd < 0:
            self._fd = os.open(self.keys, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def read(self) -> Part:
        """What the process holds now.

        Raises: OSError; StorageError for a version that is not known; ValueError, KeyError, TypeError or
            IndexError for a damaged file.
        """
        if self._fd < 0:
            self._fd = os.open(self.keys, os.O_RDONLY | os.O_CLOEXEC)
        self._read_keys()
        numbers = np.frombuffer(self._numbers(), np.float64)
        part = Part(int(self._head["pid"]), float(self._head["begun"]))
        for at, (definition, row, retired_s) in self._rows.items():
            found = numbers[at : at + definition.width].tolist()
            if retired_s is None:
                part.live.setdefault(definition, {})[row] = found
            else:
                part.retired.setdefault(definition, {})[row] = (found, retired_s)
        return part

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            # said aloud: a child that was forked just now has the lock too
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = -1

    def forget(self) -> None:
        """Close the file in a forked child, without touching a lock that the parent may hold."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _numbers(self) -> bytes:
        data = self.keys.with_suffix(VALUES).read_bytes()
        return data[: len(data) // _DOUBLE * _DOUBLE]

    def _read_keys(self) -> None:
        while piece := os.pread(self._fd, 1 << 20, self._offset):
            self._offset += len(piece)
            lines = (self._rest + piece).split(b"\n")
            self._rest = lines.pop()  # a line that is not complete
            for line in lines:
                self._line(json.loads(line))

    def _line(self, line: dict[str, Any]) -> None:
        if "row" in line:
            definition, row = self._definitions[line["of"]], tuple(line["row"])
            if len(row) != len(definition.labels):
                raise ValueError(f"a row of {definition.name} has another shape")
            self._rows[line["at"]] = (definition, row, None)
        elif "define" in line:
            self._definitions.append(definition_from_json(line["define"]))
        elif "retired" in line:
            definition, row, _ = self._rows[line["retired"]]
            self._rows[line["retired"]] = (definition, row, float(line["time"]))
        elif "back" in line:
            definition, row, _ = self._rows[line["back"]]
            self._rows[line["back"]] = (definition, row, None)
        elif line["version"] == 1:
            self._head = line
        else:
            raise StorageError(f"its version {line['version']} is not known")
