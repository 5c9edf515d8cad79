"""The unprivileged operating-system account under which root runs the embedded Postgres."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from exporter.errors import StorageError

ACCOUNT = "quantum-postgres"
_SEARCH = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


@dataclass(frozen=True, slots=True)
class OsAccount:
    """A user and group id other than root's."""

    name: str
    uid: int
    gid: int


def server_account() -> OsAccount | None:
    """The account for the server when we are root; None for everybody else, who runs it as themselves.

    Postgres refuses to run as root. An account of its own is made once (`useradd`); where the machine has no
    such command, `nobody` serves.

    Raises: StorageError where neither exists.
    """
    if os.geteuid() != 0:
        return None
    for name in (ACCOUNT, "nobody"):
        if name == ACCOUNT and not _exists(name):
            _create(name)
        if _exists(name):
            entry = pwd.getpwnam(name)
            return OsAccount(name, entry.pw_uid, entry.pw_gid)
    raise StorageError(
        "Postgres does not run as root, and there is no account to run it as: "
        f"start the exporter as another user, create the user {ACCOUNT}, or set database.url"
    )


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _create(name: str) -> None:
    useradd = shutil.which("useradd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if useradd is not None:
        command = [useradd, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name]
        subprocess.run(command, check=False, capture_output=True)


def let_search(path: Path) -> list[Path]:
    """Let other accounts pass through the directories above `path`; returns those that had to be changed.

    Only the search bit is added: names inside stay unlisted and files unreadable.
    """
    changed = []
    for folder in path.resolve().parents:
        mode = folder.stat().st_mode
        if mode & _SEARCH != _SEARCH:
            folder.chmod(stat.S_IMODE(mode) | _SEARCH)
            changed.append(folder)
    return changed


def let_read(root: Path) -> None:
    """Let other accounts read a folder of programs, where a strict umask at installation forbade it."""
    if root.stat().st_mode & stat.S_IROTH and (root / "bin" / "postgres").stat().st_mode & stat.S_IXOTH:
        return
    for path in [root, *root.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        wanted = stat.S_IRGRP | stat.S_IROTH
        if mode & stat.S_IXUSR:
            wanted |= stat.S_IXGRP | stat.S_IXOTH
        path.chmod(mode | wanted)
