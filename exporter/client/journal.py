"""Sends on the disk, so that a quota survives restart and kill; and the ports for other stores.

One text file per provider, one line per send: its Unix milliseconds, or with a minus sign the send that was
taken back. A line is written before the call goes out, by one unbuffered write: a killed process loses
nothing. Where a limit is as long as an hour it is also forced to the disk, so that a power cut loses nothing
either; minute windows are shorter than a reboot. A torn last line means that its call never went out.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path
from typing import Protocol

from exporter.errors import StorageError
from exporter.model.quota import SharedSlot, Windows

_COMPACT_LINES = 1000


class QuotaJournal(Protocol):
    """Remembers when calls were sent."""

    def load(self, provider: str, since_ms: int) -> list[int]:
        """Unix milliseconds of all sends after a time, ascending."""

    def record(self, provider: str, at_ms: int) -> None:
        """A call goes out."""

    def release(self, provider: str, at_ms: int) -> None:
        """The call recorded with that time never went out."""

    async def commit(self, provider: str) -> None:
        """Return when all records of a provider would survive a power cut."""

    def close(self) -> None:
        """Give up the files."""


class SharedQuota(Protocol):
    """A quota that several processes share: each call takes its slot in a common store first.

    `scope` is the same for all who share: the provider, and a fingerprint of its key.
    """

    async def claim(
        self, scope: str, windows: Windows, within_s: float, replaces: SharedSlot | None = None
    ) -> SharedSlot:
        """Take the next slot that is free in every window, at most `within_s` seconds from now.

        `replaces` is an earlier slot that was not used in time and goes back. Must be atomic among all
        processes, judge by the store's own clock, and never raise where the store is away.
        """

    async def release(self, scope: str, slot: SharedSlot) -> None:
        """The call of a slot never went out. Never raises."""


class NoJournal:
    """Remembers nothing."""

    def load(self, provider: str, since_ms: int) -> list[int]:
        """Nothing."""
        del provider, since_ms
        return []

    def record(self, provider: str, at_ms: int) -> None:
        """Forget it."""

    def release(self, provider: str, at_ms: int) -> None:
        """Forget it."""

    async def commit(self, provider: str) -> None:
        """Return at once."""

    def close(self) -> None:
        """Nothing to give up."""


class FileJournal:
    """The journal as files `<provider>.sends` in one folder, which it creates."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, int] = {}

    def load(self, provider: str, since_ms: int) -> list[int]:
        """Sends after a time; the file is rewritten without older ones when it has grown.

        Raises: StorageError where the folder or the file cannot be used.
        """
        path = self._path(provider)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
            sends = _sends(lines[:-1], since_ms)  # what follows the last newline is torn
            if lines[-1] or len(lines) > len(sends) + _COMPACT_LINES:
                self._rewrite(path, sends)
            if provider in self._files:
                os.close(self._files.pop(provider))
            self._files[provider] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise StorageError(f"quota journal {path}: {error.strerror or error}") from error
        return sends

    def record(self, provider: str, at_ms: int) -> None:
        """Append one send.

        Raises: StorageError where it cannot be written.
        """
        self._append(provider, at_ms)

    def release(self, provider: str, at_ms: int) -> None:
        """Append that a send is taken back."""
        self._append(provider, -at_ms)

    async def commit(self, provider: str) -> None:
        """Force the provider's file to the disk, in a worker thread.

        Raises: StorageError where the disk refuses.
        """
        if (file := self._files.get(provider)) is None:
            return
        try:
            await asyncio.to_thread(os.fdatasync, file)
        except OSError as error:
            raise StorageError(f"quota journal of {provider}: {error.strerror or error}") from error

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def _append(self, provider: str, value: int) -> None:
        try:
            if provider not in self._files:
                self.load(provider, 0)
            os.write(self._files[provider], b"%d\n" % value)
        except OSError as error:
            raise StorageError(f"quota journal of {provider}: {error.strerror or error}") from error

    def _rewrite(self, path: Path, sends: list[int]) -> None:
        fresh = path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(b"".join(b"%d\n" % at_ms for at_ms in sends))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _path(self, provider: str) -> Path:
        safe = "".join(c if c.isalnum() or c in "-_" else f"%{ord(c):x}" for c in provider)
        return self._folder / f"{safe}.sends"


def _sends(lines: list[bytes], since_ms: int) -> list[int]:
    counts: Counter[int] = Counter()
    for line in lines:
        try:
            value = int(line)
        except ValueError:
            continue  # a damaged line: the others still count
        counts[abs(value)] += 1 if value > 0 else -1
    return sorted(at_ms for at_ms in counts.elements() if at_ms > since_ms)
