"""What Postgres cannot take now, kept on disk in append-only segments, oldest first. Blocking calls.

A segment is a file of frames, each `length, crc32, kind, rows, payload`. Each append is handed to the
operating system at once, so that kill -9 loses nothing; it is forced to the disk at most once a second and
when a segment ends, so that a power cut loses a second. A torn last frame is where reading a segment ends. A
segment is deleted when all of it has been committed; after a crash in between it is drained again from its
start: at least once, which idempotent inserts make exactly once.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

from exporter.clock import Clock
from exporter.errors import StorageError

T = TypeVar("T")
T_in = TypeVar("T_in", contravariant=True)
T_out = TypeVar("T_out", covariant=True)

_MAGIC: Final = b"QESPOOL1"
_FRAME: Final = struct.Struct("<IIBI")  # payload bytes, crc32 of the rest, kind, rows
_CHECKED: Final = struct.Struct("<BI")
_SYNC_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Frame:
    """One record: `rows` counts what would be lost with it."""

    kind: int
    rows: int
    payload: bytes


class Encoder(Protocol[T_in]):
    """Turns items into frames of one segment; may refer to frames that it wrote earlier into the same one."""

    def encode(self, items: Sequence[T_in]) -> Iterator[Frame]:
        """The frames to append."""


class Decoder(Protocol[T_out]):
    """Reads the frames of one segment in order."""

    def decode(self, frame: Frame) -> Sequence[T_out]:
        """The items of a frame, none for one that only defines things.

        Raises: ValueError for a payload that makes no sense.
        """


class Codec(Protocol[T]):
    """Makes an encoder or a decoder for each segment."""

    def encoder(self) -> Encoder[T]:
        """For a new segment."""

    def decoder(self) -> Decoder[T]:
        """For a segment read from its start."""


@dataclass(slots=True)
class _Segment:
    path: Path
    since_ms: int
    size_bytes: int = 0
    frames: int = 0
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Portion(Generic[T]):
    """Items read for draining, and where reading goes on once they are committed."""

    items: tuple[T, ...]
    rows: int
    _segment: Path = field(repr=False)
    _offset: int = field(repr=False)
    _frames: int = field(repr=False)


class Spool(Generic[T]):
    """A queue of items on disk. One process, one thread at a time.

    Args: folder of the segments; codec; max_bytes bounds all segments together: the oldest go beyond it.

    Raises: StorageError where another process uses the folder.
    """

    def __init__(
        self,
        folder: Path,
        codec: Codec[T],
        clock: Clock,
        *,
        max_bytes: int = 1 << 30,
        segment_bytes: int = 8 << 20,
    ) -> None:
        self._folder = folder
        self._codec = codec
        self._clock = clock
        self._max_bytes = max_bytes
        self._segment_bytes = max(1, min(segment_bytes, max_bytes // 4))
        self._segments: deque[_Segment] = deque()
        self._number = 0
        self._file: int | None = None
        self._encoder: Encoder[T] | None = None
        self._synced_s = clock.monotonic()
        self._dirty = False
        self._offset = 0  # how far the oldest segment is committed
        self.dropped_rows = 0  # since the start, for want of space
        self.corrupt_rows = 0  # since the start, in frames that do not fit their checksum, and behind them
        folder.mkdir(parents=True, exist_ok=True)
        self._lock_fd = self._lock()
        self._scan()

    def __repr__(self) -> str:
        return f"<Spool {self.batches} batches, {self.rows} rows, {self.size_bytes} bytes>"

    @property
    def batches(self) -> int:
        """Frames not yet committed."""
        return sum(segment.frames for segment in self._segments)

    @property
    def rows(self) -> int:
        """Rows not yet committed."""
        return sum(segment.rows for segment in self._segments)

    @property
    def size_bytes(self) -> int:
        """Size of all segments."""
        return sum(segment.size_bytes for segment in self._segments)

    @property
    def is_empty(self) -> bool:
        """Whether everything has been committed."""
        return not self._segments

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest segment was begun (Unix milliseconds)."""
        return self._segments[0].since_ms if self._segments else None

    def append(self, items: Sequence[T]) -> int:
        """Keep items; returns the rows that were dropped to make room.

        Raises: OSError where the disk refuses; the frames written so far stay.
        """
        if not items:
            return 0
        if self._file is None or self._segments[-1].size_bytes >= self._segment_bytes:
            self._begin_segment()
        assert self._encoder is not None
        assert self._file is not None
        segment = self._segments[-1]
        frames = list(self._encoder.encode(items))
        buffer = b"".join(_pack(frame) for frame in frames)
        try:
            _write_all(self._file, buffer)
        except OSError:
            # the encoder now believes in definitions that are not on the disk
            self._end_segment()
            raise
        segment.size_bytes += len(buffer)
        segment.frames += sum(1 for frame in frames if frame.rows)
        segment.rows += sum(frame.rows for frame in frames)
        self._dirty = True
        self.sync_if_due()
        return self._make_room()

    def read(self, max_rows: int) -> Portion[T] | None:
        """The oldest items, of one segment, about max_rows of them; None where there are none.

        Without a `commit` the next call returns the same again.
        """
        while self._segments:
            segment = self._segments[0]
            if len(self._segments) == 1:
                self._end_segment()
            portion = self._read_segment(segment, max_rows)
            if portion is not None:
                return portion
            self.corrupt_rows += segment.rows  # read to its end: what it still counts is unreadable
            self._remove_oldest()
        return None

    def commit(self, portion: Portion[T]) -> None:
        """The items of a portion are safe elsewhere; their segment goes when it holds nothing else."""
        if not self._segments or self._segments[0].path != portion._segment:
            return  # dropped for want of space meanwhile
        segment = self._segments[0]
        self._offset = portion._offset
        segment.frames -= portion._frames
        segment.rows -= portion.rows
        if self._offset >= segment.size_bytes:
            self._remove_oldest()

    def sync_if_due(self) -> None:
        """Force what was appended to the disk, unless that was done within the last second."""
        if self._dirty and self._clock.monotonic() - self._synced_s >= _SYNC_EVERY_S:
            self._sync()

    def close(self) -> None:
        """Force everything to the disk and let another process have the folder."""
        self._end_segment()
        os.close(self._lock_fd)

    # --- segments --------------------------------------------------------------------------------

    def _lock(self) -> int:
        fd = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            raise StorageError(f"the spool {self._folder} is in use by another exporter") from error
        return fd

    def _scan(self) -> None:
        for path in sorted(self._folder.glob("*.spool")):
            stat = path.stat()
            segment = _Segment(path, int(stat.st_mtime * 1000), stat.st_size)
            with path.open("rb") as file:
                if file.read(len(_MAGIC)) == _MAGIC:
                    while len(head := file.read(_FRAME.size)) == _FRAME.size:
                        length, _, _, rows = _FRAME.unpack(head)
                        if file.seek(length, os.SEEK_CUR) > stat.st_size:
                            break
                        segment.rows += rows
                        segment.frames += rows > 0
            self._number = max(self._number, int(path.stem))
            if segment.rows:
                self._segments.append(segment)
            else:
                path.unlink()

    def _begin_segment(self) -> None:
        self._end_segment()
        self._number += 1
        path = self._folder / f"{self._number:012d}.spool"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._segments.append(_Segment(path, self._clock.now_ms()))
        self._encoder = self._codec.encoder()
        _write_all(self._file, _MAGIC)
        self._segments[-1].size_bytes = len(_MAGIC)

    def _end_segment(self) -> None:
        if self._file is not None:
            try:
                self._sync()
            finally:
                os.close(self._file)
                self._file = None
                self._encoder = None

    def _sync(self) -> None:
        if self._file is not None and self._dirty:
            os.fdatasync(self._file)
            self._dirty = False
        self._synced_s = self._clock.monotonic()

    def _make_room(self) -> int:
        dropped = 0
        while len(self._segments) > 1 and self.size_bytes > self._max_bytes:
            dropped += self._segments[0].rows
            self._remove_oldest()
        self.dropped_rows += dropped
        return dropped

    def _remove_oldest(self) -> None:
        if len(self._segments) == 1:
            self._end_segment()
        segment = self._segments.popleft()
        segment.path.unlink(missing_ok=True)
        self._offset = 0

    def _read_segment(self, segment: _Segment, max_rows: int) -> Portion[T] | None:
        """What stands behind the committed offset; None where nothing readable is left."""
        data = segment.path.read_bytes()
        decoder = self._codec.decoder()
        items: list[T] = []
        rows = frames = 0
        offset = len(_MAGIC)
        if data[: len(_MAGIC)] != _MAGIC:
            return None
        # from the start even where the front is committed: later frames may refer to definitions in it
        while offset + _FRAME.size <= len(data) and rows < max_rows:
            length, crc, kind, count = _FRAME.unpack_from(data, offset)
            lo = offset + _FRAME.size
            if lo + length > len(data):
                break  # torn
            payload = data[lo : lo + length]
            if zlib.crc32(payload, zlib.crc32(_CHECKED.pack(kind, count))) != crc:
                break
            try:
                decoded = decoder.decode(Frame(kind, count, payload))
            except ValueError:
                break
            offset = lo + length
            if offset > self._offset and count:
                items.extend(decoded)
                rows += count
                frames += 1
        if not items:
            return None
        return Portion(tuple(items), rows, segment.path, offset, frames)


def _pack(frame: Frame) -> bytes:
    crc = zlib.crc32(frame.payload, zlib.crc32(_CHECKED.pack(frame.kind, frame.rows)))
    return _FRAME.pack(len(frame.payload), crc, frame.kind, frame.rows) + frame.payload


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
