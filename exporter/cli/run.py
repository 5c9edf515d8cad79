"""`quantum-exporter run`: the main job."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

from exporter.app import App, Options
from exporter.cli.logs import configure_logging
from exporter.cli.parsers import add_config_file
from exporter.cli.simulate import HISTORY_VARIABLE
from exporter.config.load import load_config
from exporter.simulate.prices import PriceFeed, read_history
from exporter.web.auth import WebConfig, load_web_config
from exporter.web.server import parse_listen_address

DEFAULT_ADDRESS = "127.0.0.1:9464"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "run",
        help="start the exporter",
        description="Measures, publishes on /metrics, remembers in Postgres, judges the rules and notifies. "
        "Without a configuration file it starts an embedded Postgres and the sources that need no key.",
        epilog="examples:\n"
        "  quantum-exporter run\n"
        "  quantum-exporter run --simulate\n"
        "  quantum-exporter run --config.file config.yml --web.listen-address :9464 --web.config.file w.yml",
    )
    add_config_file(parser)
    parser.add_argument(
        "--web.listen-address",
        dest="listen_address",
        default=DEFAULT_ADDRESS,
        metavar="HOST:PORT",
        help="where to listen (default %(default)s)",
    )
    parser.add_argument(
        "--web.config.file",
        dest="web_config_file",
        type=Path,
        metavar="F",
        help="TLS and basic authentication, in the format of Prometheus' exporters",
    )
    parser.add_argument(
        "--web.external-url",
        dest="external_url",
        default="",
        metavar="URL",
        help="the address under which others reach this server, for links in notifications",
    )
    parser.add_argument(
        "--log.level", dest="log_level", default="info", choices=("debug", "info", "warn", "error")
    )
    parser.add_argument("--log.format", dest="log_format", default="logfmt", choices=("logfmt", "json"))
    parser.add_argument(
        "--simulate",
        action="store_true",
        help="simulated providers and a seeded trading database: for a look, without internet or keys",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run until SIGINT or SIGTERM. Returns 0 after a clean stop.

    Raises: ConfigError, RuleFormatError, StorageError for what keeps it from starting.
    """
    configure_logging(args.log_level, args.log_format)
    host, port = parse_listen_address(args.listen_address)
    web_config = load_web_config(args.web_config_file) if args.web_config_file else WebConfig()
    config = load_config(args.config_file, os.environ)
    options = Options(
        config=config,
        host=host,
        port=port,
        web_config=web_config,
        external_url=args.external_url,
        simulate=args.simulate,
        flags=_flags(args),
        reload_config=lambda: load_config(args.config_file, os.environ),
        price_feed=_history() if args.simulate else None,
    )
    return asyncio.run(_run(options))


async def _run(options: Options) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    app = App(options)
    loop.add_signal_handler(signal.SIGHUP, app.request_reload)
    starting = asyncio.create_task(app.start())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            for line in app.banner():
                print(line, flush=True)
            await app.run_until(stop)
        return 0
    finally:
        starting.cancel()
        stopping.cancel()
        await asyncio.gather(starting, stopping, return_exceptions=True)
        await app.stop()
        if stop.is_set():
            print("stopped", file=sys.stderr, flush=True)


def _history() -> PriceFeed | None:
    folder = os.environ.get(HISTORY_VARIABLE)
    return read_history(Path(folder)) if folder else None


def _flags(args: argparse.Namespace) -> dict[str, str]:
    names = {
        "config.file": args.config_file or "",
        "web.listen-address": args.listen_address,
        "web.config.file": args.web_config_file or "",
        "web.external-url": args.external_url,
        "log.level": args.log_level,
        "log.format": args.log_format,
        "simulate": str(args.simulate).lower(),
    }
    return {name: str(value) for name, value in names.items()}
