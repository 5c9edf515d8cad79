"""`quantum-exporter export`: the rules and routes for a Prometheus with an Alertmanager."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from exporter.config.load import load_config
from exporter.errors import ConfigError
from exporter.rules.export import prometheus_rules
from exporter.rules.export_alertmanager import alertmanager_config
from exporter.rules.format import read_rule_files
from exporter.rules.model import RuleGroup

_ALERTMANAGER = "alertmanager.yml"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its kinds."""
    parser = subparsers.add_parser("export", help="write files for other programs")
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    rules = kinds.add_parser(
        "prometheus-rules",
        help="plain Prometheus rule files and an Alertmanager configuration",
        description="Writes the rule files of the configuration in plain Prometheus format, and its routes, "
        "receivers and cooldowns as alertmanager.yml. What these formats cannot say stands in comments. "
        "Secrets of the receivers are written as they are: the file can be read by its owner only.",
    )
    rules.add_argument("directory", metavar="DIR", type=Path, help="made where it does not exist")
    rules.add_argument("--config.file", dest="config_file", type=Path, metavar="F")
    rules.add_argument("--force", action="store_true", help="overwrite files that exist")
    rules.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the files. Raises: ConfigError, RuleFormatError."""
    config = load_config(args.config_file, os.environ)
    groups = read_rule_files([(str(path), path.read_text("utf-8")) for path in config.rule_files])
    by_file: dict[str, list[RuleGroup]] = {str(path): [] for path in config.rule_files}
    for group in groups:
        by_file[group.file].append(group)
    texts: dict[str, str] = {}
    for file, own in by_file.items():
        name = Path(file).name
        if name in texts or name == _ALERTMANAGER:
            name = f"{Path(file).parent.name}-{name}"
        texts[name] = prometheus_rules(own)
    texts[_ALERTMANAGER] = alertmanager_config(config.notification, groups)
    _write(args.directory, texts, force=args.force)
    count = sum(len(group.rules) for group in groups)
    print(f"{count} rules in {len(by_file)} files and {_ALERTMANAGER} written to {args.directory}")
    return 0


def _write(directory: Path, texts: dict[str, str], *, force: bool) -> None:
    there = [name for name in texts if (directory / name).exists()]
    if there and not force:
        raise ConfigError(f"{directory} has {', '.join(there)} already: give --force to overwrite")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            path = directory / name
            if name == _ALERTMANAGER:
                path.touch(mode=0o600)
                path.chmod(0o600)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write to {directory}: {error.strerror}") from error
