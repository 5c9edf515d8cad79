"""kill -9, SIGSTOP and lost databases at random moments while alerts flap: what a receiver got of it.

    python benchmarks/crashes.py kill --moments 200 --seed 1        one exporter, killed at each moment
    python benchmarks/crashes.py replicas --moments 200 --seed 1    two, the leader killed, paused or cut off

Real programs, a real Postgres, a receiver that fails now and then. Ends with 1 where a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.helpers.flapping import world
from tests.helpers.postgres import PostgresServer


async def run(what: str, moments: int, seed: int, folder: Path, server: PostgresServer) -> bool:
    names = ("one",) if what == "kill" else ("one", "two")
    began = time.monotonic()
    async with world(seed, folder, names, server) as found:
        await (found.killed(moments) if what == "kill" else found.disturbed(moments))
        await found.calm()
        verdict = found.verdict()
    print(f"{what}, {moments} moments, seed {seed}, {time.monotonic() - began:.0f} s: {verdict}")
    if found.leaderless_s:
        times = sorted(found.leaderless_s)
        print(f"until another leads: median {statistics.median(times):.1f} s, longest {times[-1]:.1f} s")
    for line in verdict.broken:
        print(f"  {line}")
    return not verdict.broken


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("kill", "replicas"))
    parser.add_argument("--moments", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="leave the folder with the logs")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="qe-crashes-"))
    server = PostgresServer()
    server.start()
    try:
        fine = asyncio.run(run(arguments.what, arguments.moments, arguments.seed, folder, server))
    finally:
        server.close()
        if arguments.keep:
            print(f"logs: {folder}")
        else:
            import shutil

            shutil.rmtree(folder, ignore_errors=True)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
