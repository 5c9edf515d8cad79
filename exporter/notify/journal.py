"""A journal on disk: records appended as checksummed lines, read back in order, replaced at once.

A torn or damaged line is skipped and counted. The methods block; callers run them in a thread.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any


class Journal:
    """One file of JSON records; made, with its folder, at the first append."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0  # lines skipped by the last read
        self._file: IO[bytes] | None = None

    @property
    def size_bytes(self) -> int:
        """The size of the file; 0 where there is none."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def read(self) -> list[dict[str, Any]]:
        """Every intact record, oldest first.

        Raises: OSError where the file is there and cannot be read.
        """
        self.damaged = 0
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            if not line:
                continue
            mark, _, body = line.partition(b" ")
            try:
                if int(mark, 16) != zlib.crc32(body):
                    raise ValueError("checksum")
                found.append(json.loads(body))
            except ValueError:
                self.damaged += 1
        return found

    def append(self, text: str, *, sync: bool) -> None:
        """Add one record, given as JSON in one line; with `sync` it is on the disk when this returns.

        Raises: OSError.
        """
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
            if self._file.tell():
                self._file.write(b"\n")  # ends a line that a crash has torn
        self._file.write(_line(text))
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())

    def replace(self, texts: Iterable[str]) -> None:
        """Put other records in the place of all, in one step.

        Raises: OSError, and then the old ones are still there.
        """
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(".new")
        with fresh.open("wb") as file:
            for text in texts:
                file.write(_line(text))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        """Close the file; a later append opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _line(text: str) -> bytes:
    body = text.encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)
