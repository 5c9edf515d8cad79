"""`python -m exporter.dashboards [FOLDER]`: writes the shipped dashboards as JSON."""

from __future__ import annotations

import sys
from pathlib import Path

from exporter.dashboards.files import text_of
from exporter.dashboards.shipped import shipped


def main(folder: Path) -> None:
    """Write every dashboard below `folder`; what is there under the same name is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, dashboard in shipped().items():
        (folder / f"{name}.json").write_text(text_of(dashboard), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "grafana/dashboards"))
