"""`quantum-exporter init`: a commented configuration and rules to begin with."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from exporter.assets import asset_dir
from exporter.cli.parsers import add_output
from exporter.config.starter import starter_config
from exporter.errors import ConfigError
from exporter.rules.starter import STARTER_RULES, STARTER_TEST


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "init",
        help="write a commented configuration and rules to begin with",
        description="Writes config.yml (every option with its default and meaning), the shipped rules with "
        "their unit tests, and rules/mine.yml with a first alert of your own and its test. Nothing that "
        "exists is overwritten without --force.",
        epilog="examples:\n  quantum-exporter init\n  quantum-exporter init /etc/quantum-exporter\n"
        "  quantum-exporter run --config.file config.yml",
    )
    parser.add_argument(
        "directory", nargs="?", default=Path(), type=Path, metavar="DIR", help="default: the current one"
    )
    parser.add_argument("--force", action="store_true", help="overwrite files that exist")
    add_output(parser, "text", "json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the files. Raises: ConfigError where one exists already or cannot be written."""
    folder: Path = args.directory
    files = {"config.yml": starter_config(), **_rules()}
    there = [name for name in files if (folder / name).exists()]
    if there and not args.force:
        some = ", ".join(there[:3]) + (f" and {len(there) - 3} more" if len(there) > 3 else "")
        raise ConfigError(f"{folder} has {some} already: give --force to overwrite, or another directory")
    try:
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror}") from error
    if args.output == "json":
        print(json.dumps({"files": [str(folder / name) for name in files]}, indent=2))
        return 0
    print(f"wrote {folder / 'config.yml'}, and {len(files) - 1} files of rules and their tests\n\nnext:")
    for command in (
        f"check config {folder / 'config.yml'}",
        f"test rules {folder / 'rules/tests/mine_test.yml'}",
        f"run --config.file {folder / 'config.yml'}",
    ):
        print(f"  quantum-exporter {command}")
    return 0


def _rules() -> dict[str, str]:
    """Relative path -> text of the rules to begin with."""
    shipped = asset_dir("rules")
    found = {
        f"rules/{path.relative_to(shipped)}": path.read_text("utf-8")
        for path in sorted([*shipped.glob("*.yml"), *shipped.glob("tests/*_test.yml")])
    }
    return {**found, "rules/mine.yml": STARTER_RULES, "rules/tests/mine_test.yml": STARTER_TEST}
