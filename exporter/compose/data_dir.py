"""The folder that belongs to one running exporter, and what it says of it: the id, the URL, the lease."""

from __future__ import annotations

import fcntl
import os
import platform
import uuid
from pathlib import Path
from urllib.parse import urlsplit

from exporter.config.schema import Config
from exporter.errors import ConfigError

_LEASE_MIN_S = 1.0


class DataDir:
    """`storage.data_dir`, held by one process at a time: journals and spool have one writer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock_fd: int | None = None
        self.replica_id = ""

    def open(self) -> None:
        """Make the folder, take it, read the replica's id or make one. Blocks.

        Raises: ConfigError where it cannot be written, or another exporter has it.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock_fd = os.open(self._folder / "exporter.lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.replica_id = self._read_id()
        except BlockingIOError as error:
            raise ConfigError(
                f"storage.data_dir {self._folder} is in use by another exporter: each replica needs its own"
            ) from error
        except OSError as error:
            raise ConfigError(
                f"storage.data_dir {self._folder} cannot be made or written: {error.strerror}"
            ) from error

    def close(self) -> None:
        """Leave the folder to others."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def _read_id(self) -> str:
        path = self._folder / "replica_id"
        try:
            return str(uuid.UUID(path.read_text("ascii").strip()))
        except (FileNotFoundError, ValueError):
            made = str(uuid.uuid4())
            path.write_text(f"{made}\n", "ascii")
            return made


def lease_s(config: Config) -> float:
    """How long a silent leader is waited for: short enough for a takeover within two evaluation intervals."""
    bound_s = config.global_.evaluation_interval_ms / 1500
    return max(_LEASE_MIN_S, min(config.replicas.lease_ms / 1000, bound_s))


def advertised_url(config: Config, base_url: str) -> str:
    """Where other replicas reach the listener at `base_url`."""
    if config.replicas.advertise_url:
        return config.replicas.advertise_url
    parts = urlsplit(base_url)
    if parts.hostname in ("0.0.0.0", "::"):
        return f"{parts.scheme}://{platform.node()}:{parts.port}"
    return base_url
