"""`quantum-exporter export`: the rules and routes for a Prometheus with an Alertmanager."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from exporter.cli.parsers import add_config_file, add_output
from exporter.config.load import load_config
from exporter.config.schema import Config
from exporter.errors import ConfigError
from exporter.rules.export import prometheus_rules
from exporter.rules.export_alertmanager import alertmanager_config
from exporter.rules.export_kubernetes import prometheus_rule
from exporter.rules.format import read_rule_files
from exporter.rules.model import RuleGroup

_ALERTMANAGER = "alertmanager.yml"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its kinds."""
    parser = subparsers.add_parser(
        "export",
        help="write files for other programs",
        description="Writes what is configured here in the formats of other programs.",
        epilog="examples:\n  quantum-exporter export prometheus-rules out\n"
        "  quantum-exporter export kubernetes out",
    )
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    rules = kinds.add_parser(
        "prometheus-rules",
        help="plain Prometheus rule files and an Alertmanager configuration",
        description="Writes the rule files of the configuration in plain Prometheus format, and its routes, "
        "receivers and cooldowns as alertmanager.yml. What these formats cannot say stands in comments. "
        "Secrets of the receivers are written as they are: the file can be read by its owner only.",
        epilog="examples:\n  quantum-exporter export prometheus-rules out\n"
        "  quantum-exporter export prometheus-rules --config.file config.yml --force out",
    )
    rules.set_defaults(run=_prometheus_rules)
    kubernetes = kinds.add_parser(
        "kubernetes",
        help="the rules as a PrometheusRule for Prometheus' operator",
        description="Writes the rules of the configuration as prometheusrule.yml, for a Prometheus that its "
        "operator runs. The keys that are ours stand in comments.",
        epilog="examples:\n  quantum-exporter export kubernetes out\n"
        "  quantum-exporter export kubernetes --label release=kube-prometheus-stack --name quantum out",
    )
    kubernetes.add_argument("--name", default="quantum-exporter", help="of the object (%(default)s)")
    kubernetes.add_argument(
        "--label",
        action="append",
        default=[],
        type=_label,
        metavar="NAME=VALUE",
        help="label of the object, as the operator's ruleSelector wants it; repeatable",
    )
    kubernetes.set_defaults(run=_kubernetes)
    for one in (rules, kubernetes):
        one.add_argument("directory", metavar="DIR", type=Path, help="made where it does not exist")
        one.add_argument("--force", action="store_true", help="overwrite files that exist")
        add_config_file(one)
        add_output(one, "text", "json")


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _prometheus_rules(args: argparse.Namespace) -> int:
    """Write the files. Raises: ConfigError, RuleFormatError."""
    config, groups = _read(args)
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
    return _write(args, groups, texts)


def _kubernetes(args: argparse.Namespace) -> int:
    """Write the manifest. Raises: ConfigError, RuleFormatError."""
    _, groups = _read(args)
    return _write(args, groups, {"prometheusrule.yml": prometheus_rule(groups, args.name, dict(args.label))})


def _read(args: argparse.Namespace) -> tuple[Config, Sequence[RuleGroup]]:
    config = load_config(args.config_file, os.environ)
    return config, read_rule_files([(str(path), path.read_text("utf-8")) for path in config.rule_files])


def _write(args: argparse.Namespace, groups: Sequence[RuleGroup], texts: dict[str, str]) -> int:
    directory: Path = args.directory
    there = [name for name in texts if (directory / name).exists()]
    if there and not args.force:
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
    count = sum(len(group.rules) for group in groups)
    if args.output == "json":
        print(json.dumps({"rules": count, "files": [str(directory / name) for name in texts]}, indent=2))
    else:
        print(f"{count} rules written to {', '.join(str(directory / name) for name in texts)}")
    return 0
