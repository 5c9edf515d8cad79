"""`quantum-exporter simulate`: the provider simulator alone."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from pathlib import Path

from exporter.errors import ConfigError
from exporter.simulate.prices import RandomWalk, read_history
from exporter.simulate.providers import ProviderSimulator

HISTORY_VARIABLE = "QUANTUM_EXPORTER_HISTORY"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "simulate",
        help="simulate the upstream providers",
        description="Serves all seven providers on one port, /<provider>/..., with strict limits, "
        "moving prices and faults on request (POST /_control/faults).",
        epilog="examples:\n  quantum-exporter simulate\n"
        "  quantum-exporter simulate --listen-address 127.0.0.1:9500 --seed 7",
    )
    parser.add_argument(
        "--listen-address", default="127.0.0.1:9465", metavar="HOST:PORT", help="default %(default)s"
    )
    parser.add_argument("--seed", type=int, default=1, help="of prices and dice, default %(default)s")
    parser.add_argument(
        "--history",
        type=Path,
        default=Path(os.environ[HISTORY_VARIABLE]) if os.environ.get(HISTORY_VARIABLE) else None,
        metavar="DIR",
        help=f"folder of candles (CSV) to replay instead of a random walk; also ${HISTORY_VARIABLE}",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    host, _, port_text = str(args.listen_address).rpartition(":")
    if not port_text.isdigit() or int(port_text) > 65_535:
        raise ConfigError(f'--listen-address must be HOST:PORT, not "{args.listen_address}"')
    feed = read_history(args.history) if args.history is not None else RandomWalk(args.seed)
    simulator = ProviderSimulator(seed=args.seed, feed=feed)
    asyncio.run(_serve(simulator, host.strip("[]") or "127.0.0.1", int(port_text)))
    return 0


async def _serve(simulator: ProviderSimulator, host: str, port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    base_url = await simulator.start(host, port)
    print(f"providers   {base_url}/<provider>/   ({', '.join(simulator.stats())})", flush=True)
    print(f"faults      {base_url}/_control/faults", flush=True)
    print(f"statistics  {base_url}/_control/stats", flush=True)
    try:
        await stop.wait()
    finally:
        await simulator.stop()
