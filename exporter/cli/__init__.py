"""The command line: one module per command, each with `add_parser(subparsers)` and `run(args) -> exit code`.

No logic here: a command parses its arguments, calls the package that does the work, prints, and returns 0
(fine), 1 (a check failed) or 2 (wrong use). A fault of the user's never shows a traceback.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Sequence

from exporter import __version__
from exporter.cli.parsers import Parser
from exporter.errors import ExporterError

# command -> module
COMMANDS = {
    "init": "init",
    "run": "run",
    "check": "check",
    "test": "test",
    "query": "query",
    "migrate": "migrate",
    "alerts": "alerts",
    "why": "why",
    "maintain": "maintain",
    "simulate": "simulate",
    "receive": "receive",
    "backtest": "backtest",
    "tune": "tune",
    "export": "export",
    "import": "import_openmetrics",
    "draw": "draw",
    "report": "report",
    "completion": "completion",
}


def build_parser(commands: Iterable[str] = tuple(COMMANDS)) -> Parser:
    """The parser of these commands; only their modules are imported."""
    parser = Parser(
        prog="quantum-exporter",
        description="Watches an app that lives on rate-limited APIs and Postgres: measures, publishes, "
        "remembers, judges and tells.",
        epilog="examples:\n  quantum-exporter init\n  quantum-exporter run --simulate\n"
        "  quantum-exporter COMMAND --help",
    )
    parser.add_argument("--version", action="version", version=f"quantum-exporter {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in commands:
        importlib.import_module(f"exporter.cli.{COMMANDS[name]}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `quantum-exporter`; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    first = words[0] if words else ""
    if first in COMMANDS:
        parser = build_parser([first])  # a command does not wait for the imports of the others
    else:
        parser = build_parser(() if first == "--version" else COMMANDS)
    args = parser.parse_args(words)
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
