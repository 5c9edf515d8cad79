"""`quantum-exporter draw`: Grafana dashboards as pictures, without Grafana, from live data sources."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from exporter.cli.check_dashboards import add_sources, read_dashboards
from exporter.cli.parsers import add_output
from exporter.cli.picture import png
from exporter.dashboards.queries import Surroundings, annotation_queries, queries_of
from exporter.drawing.shapes import Picture
from exporter.drawing.svg import svg
from exporter.errors import ConfigError
from exporter.pictures.page import page, panels_of
from exporter.query.panels import PanelSources, panel_sources
from exporter.web.params import ParamError, parse_duration_ms

_EXAMPLES = """examples:
  quantum-exporter draw --url http://127.0.0.1:9464 --database "$DATABASE_URL" --folder pictures
  quantum-exporter draw --url http://127.0.0.1:9090 --period 6h --theme dark mine.json"""
_STEPS: Final = 240
_LEAST_STEP_MS: Final = 5000
_WIDTHS: Final = range(600, 4001)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "draw",
        help="draw Grafana dashboards as pictures",
        description="Asks the queries of dashboards of live data sources and draws the panels as Grafana "
        "would, one picture for each dashboard. PNG needs the extra `pictures`.",
        epilog=_EXAMPLES,
    )
    add_sources(parser)
    parser.add_argument("--folder", type=Path, default=Path(), metavar="DIR", help="where to write (here)")
    parser.add_argument("--format", choices=("png", "svg"), default="png", help="(default: png)")
    parser.add_argument("--theme", choices=("light", "dark"), default="light", help="of PNG (default: light)")
    parser.add_argument("--width", type=int, default=1400, metavar="PIXELS", help="(default: %(default)s)")
    add_output(parser, "text", "json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask, draw and write. Raises: ConfigError, QueryError."""
    if args.width not in _WIDTHS:
        raise ConfigError(f"--width must be {_WIDTHS.start} to {_WIDTHS.stop - 1}")
    try:
        period_ms = parse_duration_ms(args.period, "period")
    except ParamError as error:
        raise ConfigError(f"--period: {error}") from error
    dashboards = read_dashboards(args.files)
    now_ms = time.time_ns() // 1_000_000
    pictures = asyncio.run(_pictures(dashboards, args, now_ms - period_ms, now_ms))
    written = [_write(name, picture, args) for name, picture in pictures.items()]
    if args.output == "json":
        print(json.dumps({"pictures": written}, indent=2))
    else:
        for one in written:
            print(f"{one['file']}  {one['width']} x {one['height']}  {one['bytes'] // 1000} kB")
    return 0


def _write(name: str, picture: Picture, args: argparse.Namespace) -> dict[str, Any]:
    """Write one picture; what was written. Raises: ConfigError."""
    path = args.folder / f"{name}.{args.format}"
    dark = args.theme == "dark"
    data = svg(picture).encode() if args.format == "svg" else png(picture, scale=1, dark=dark)
    try:
        args.folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    return {"file": str(path), "width": picture.width, "height": picture.height, "bytes": len(data)}


async def _pictures(
    dashboards: Mapping[Path, Mapping[str, Any]], args: argparse.Namespace, from_ms: int, to_ms: int
) -> dict[str, Picture]:
    step_ms = max(_LEAST_STEP_MS, (to_ms - from_ms) // _STEPS // 1000 * 1000)
    around = Surroundings(from_ms, to_ms, step_ms)
    async with panel_sources(args.url, args.database) as sources:
        return {
            path.stem: await _picture(sources, dashboard, around, args.width)
            for path, dashboard in dashboards.items()
        }


async def _picture(
    sources: PanelSources, dashboard: Mapping[str, Any], around: Surroundings, width: int
) -> Picture:
    own = await sources.surroundings(dashboard, around)
    answers = {
        number: [await sources.ask(query, own) for query in queries_of(panel)]
        for number, panel in enumerate(panels_of(dashboard))
    }
    annotations = [await sources.ask(query, own) for query in annotation_queries(dashboard)]
    return page(dashboard, answers, annotations, around, width=width)
