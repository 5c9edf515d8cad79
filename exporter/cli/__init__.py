"""The command line: one module per command, each with `add_parser(subparsers)` and `run(args) -> exit code`.

No logic here: a command parses its arguments, calls the package that does the work, prints, and returns 0
(fine), 1 (a check failed) or 2 (wrong use). A fault of the user's never shows a traceback.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from exporter import __version__
from exporter.errors import ExporterError

_COMMANDS = (
    "run",
    "check",
    "test",
    "query",
    "migrate",
    "alerts",
    "why",
    "maintain",
    "simulate",
    "backtest",
    "tune",
    "export",
    "import_openmetrics",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `quantum-exporter`; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="quantum-exporter",
        description="Watches an app that lives on rate-limited APIs and Postgres: measures, publishes, "
        "remembers, judges and tells.",
    )
    parser.add_argument("--version", action="version", version=f"quantum-exporter {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in _COMMANDS:
        importlib.import_module(f"exporter.cli.{name}").add_parser(subparsers)
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except ExporterError as error:
        print(f"quantum-exporter: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        return 130


def entry() -> None:
    """The console script."""
    sys.exit(main())
