"""`make pictures`: what the documentation shows, drawn from a demo in which some things go wrong.

    python -m tests.acceptance.pictures [FOLDER]

Starts the demo, plays a story of faults with the simulator's switches, and draws the dashboards, a backtest
of the shipped rules over the minutes that were stored, and `why` as a terminal shows it.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from exporter.cli.picture import png
from exporter.drawing.ink import Ink
from exporter.drawing.shapes import Box, Label, Picture, Shape
from tests.acceptance.program import (
    ROOT,
    Program,
    database_url,
    free_port,
    post,
    simulator_url,
    wait_for,
)
from tests.helpers.peers import peer

FOLDER = ROOT / "docs" / "pictures"
CONFIG = """\
global: {{scrape_interval: 5s, evaluation_interval: 5s}}
storage: {{data_dir: {data}}}
collect: {{targets: [{{job_name: node, static_configs: [{{targets: ["127.0.0.1:{node}"]}}]}}]}}
"""
# minute, what happens
STORY: Sequence[tuple[float, str, dict[str, object]]] = (
    (1.0, "faults", {"provider": "kraken", "kind": "latency", "latency_ms": 700, "ratio": 0.6}),
    (2.0, "clear", {}),
    (2.2, "faults", {"provider": "kraken", "kind": "status_500", "ratio": 0.7}),
    (2.8, "scenarios", {"name": "quality_drop", "on": True}),
    (3.2, "clear", {}),
    (3.4, "scenarios", {"name": "anomaly_spike", "on": True}),
    (4.0, "scenarios", {"name": "quality_drop", "on": False}),
    (4.2, "faults", {"provider": "coingecko", "kind": "rate_limit_429", "ratio": 0.6, "retry_after_s": 10}),
    (4.6, "scenarios", {"name": "anomaly_spike", "on": False}),
    (5.0, "clear", {}),
    (5.2, "faults", {"provider": "blockchain", "kind": "latency", "latency_ms": 1500, "ratio": 0.7}),
    (6.0, "clear", {}),
    (6.8, "faults", {"provider": "kraken", "kind": "status_500", "ratio": 0.7}),
)
MINUTES = 8
COLUMNS, SIZE = 118, 14


def main() -> None:
    """Play the story and draw."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="quantum-pictures-") as name:
        node = free_port()
        config = CONFIG.format(data=Path(name) / "data", node=node)
        target = subprocess.Popen(
            [peer("prometheus-node-exporter"), f"--web.listen-address=127.0.0.1:{node}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        program = Program("demo", Path(name), config, variables=("HISTORY=",))
        try:
            wait_for("the demo", program.ready, 120)
            play(program, time.monotonic())
            draw(program, folder)
        finally:
            program.stop()
            target.terminate()
            target.wait(10)


def play(program: Program, began: float) -> None:
    """The story, in real time, while somebody scrapes and looks."""
    simulator = simulator_url(program)
    for minute, path, body in (*STORY, (MINUTES, "", {})):
        while (left_s := began + 60 * minute - time.monotonic()) > 0:
            program.get_text("/metrics")
            program.query("quantum_provider_up")
            time.sleep(min(10.0, left_s))
        if path == "clear":
            post(f"{simulator}/_control/faults", method="DELETE")
        elif path:
            post(f"{simulator}/_control/{path}", body)
        print(f"minute {minute:g}: {path} {body}", flush=True)


def draw(program: Program, folder: Path) -> None:
    """Every picture, by the commands that a user has."""
    sources = ["--url", program.base, "--database", database_url(program), "--period", f"{MINUTES}m"]
    command("draw", *sources, "--folder", folder)
    command(
        "draw", *sources, "--folder", folder / "dark", "--theme", "dark", "grafana/dashboards/overview.json"
    )
    command(
        "backtest", "--rules", "rules/apis.yml", "rules/feeds.yml", "rules/trading.yml", "rules/pipeline.yml",
        "--from", f"{MINUTES}m", "--interval", "5s", "--database", database_url(program),
        "-o", "png", "--file", folder / "backtest.png",
    )  # fmt: skip
    words = ["why", "ApiReliabilityLow", "--labels", 'provider="kraken"', "--url", program.base]
    shown = in_terminal(words)
    (folder / "why.png").write_bytes(png(terminal(shown, words), dark=True))


def command(*words: str | Path) -> None:
    """Run a command of the program; its output is ours."""
    subprocess.run([sys.executable, "-m", "exporter", *map(str, words)], cwd=ROOT, check=True)


def in_terminal(words: Sequence[str]) -> str:
    """What a command prints on a terminal, colours included."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 60, COLUMNS, 0, 0))
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    process = subprocess.Popen(
        [sys.executable, "-m", "exporter", *words], cwd=ROOT, stdout=theirs, stderr=theirs, env=environ
    )
    os.close(theirs)
    out = bytearray()
    while True:
        try:
            data = os.read(ours, 65_536)
        except OSError:  # the other side is closed
            break
        if not data:
            break
        out += data
    os.close(ours)
    process.wait(30)
    return out.decode().replace("\r\n", "\n").replace(str(ROOT) + "/", "")


def terminal(text: str, words: Sequence[str]) -> Picture:
    """A terminal with a command and its output."""
    asked = Text.assemble(("$ ", "green"), ("quantum-exporter " + " ".join(words[:-2]), "bold"))
    console = Console(width=COLUMNS, color_system="standard", force_terminal=True)
    options = console.options.update(no_wrap=True, overflow="crop")
    lines = [
        *console.render_lines(asked, options, pad=False),
        *console.render_lines(Text.from_ansi(text.rstrip("\n")), options, pad=False),
    ]
    width, row, left = round(COLUMNS * SIZE * 0.6) + 40, 21, 20
    height = len(lines) * row + 64
    shapes: list[Shape] = [Box(0, 0, width, 34, Ink.PANEL)]
    shapes += [
        Box(18 + 22 * at, 11, 12, 12, ink, radius=6)
        for at, ink in enumerate((Ink.RED, Ink.YELLOW, Ink.GREEN))
    ]
    for number, line in enumerate(lines):
        shapes += row_of(line, left, 34 + 14 + row * (number + 1) - 6)
    return Picture("why", width, height, tuple(shapes), Ink.PAPER)


def row_of(line: Sequence[Segment], left: float, base: float) -> Iterator[Shape]:
    """One line of a terminal."""
    at = 0
    for segment in line:
        style = segment.style or Style()
        if segment.text.strip():
            x = left + at * SIZE * 0.6022
            yield Label(x, base, segment.text, ink_of(style), size=SIZE, bold=bool(style.bold), mono=True)
        at += len(segment.text)


def ink_of(style: Style) -> Ink:
    """The ink of a terminal's colour."""
    if style.dim:
        return Ink.MUTED
    number = style.color.number if style.color else None
    known = {1: Ink.RED, 2: Ink.GREEN, 3: Ink.YELLOW, 4: Ink.BLUE, 6: Ink.SERIES_6}
    return known.get(number if number is not None else -1, Ink.TEXT)


if __name__ == "__main__":
    main()
