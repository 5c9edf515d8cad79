"""Where the shipped rules, SQL and dashboards are: packed in the wheel, or the folders of a checkout."""

from __future__ import annotations

from pathlib import Path


def asset_dir(name: str) -> Path:
    """The directory of shipped files: `rules`, `sql` or `grafana`.

    Raises: FileNotFoundError where the installation lacks it, which is a packaging fault.
    """
    package = Path(__file__).parent
    for candidate in (package / "_data" / name, package.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"the installation lacks its {name} folder")
