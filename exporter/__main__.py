"""`python -m exporter` is the command `quantum-exporter`."""

from __future__ import annotations

from exporter.cli import entry

if __name__ == "__main__":
    entry()
