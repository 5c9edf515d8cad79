"""`quantum-exporter receive`: a receiver to try notifications with."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from exporter.cli.parsers import add_output
from exporter.simulate.receiver import NotificationReceiver, as_json, describe
from exporter.web.server import parse_listen_address


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "receive",
        help="show the notifications that arrive",
        description="Takes every POST, prints what it tells and answers 200: a receiver to try rules and "
        "routes with, for webhook_configs here and in Alertmanager.",
        epilog="examples:\n  quantum-exporter receive\n"
        "  quantum-exporter receive --listen-address 127.0.0.1:9100 --output json",
    )
    parser.add_argument(
        "--listen-address", default="127.0.0.1:9099", metavar="HOST:PORT", help="default %(default)s"
    )
    add_output(parser, "text", "json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what arrives until interrupted."""
    host, port = parse_listen_address(args.listen_address, "--listen-address")
    asyncio.run(_serve(host, port, _tell_json if args.output == "json" else _tell))
    return 0


async def _serve(host: str, port: int, tell: Callable[[bytes], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    receiver = NotificationReceiver(tell)
    base_url = await receiver.start(host, port)
    print(f"receives at {base_url}/", file=sys.stderr, flush=True)
    try:
        await stop.wait()
    finally:
        await receiver.stop()


def _tell(body: bytes) -> None:
    first, *others = describe(body)
    moment = datetime.now(UTC).astimezone().strftime("%H:%M:%S")
    print(f"{moment} {first}", *(f"         {line}" for line in others), sep="\n", flush=True)


def _tell_json(body: bytes) -> None:
    print(as_json(body), flush=True)
