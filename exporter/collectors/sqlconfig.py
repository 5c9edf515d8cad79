"""Reads SQL collector files: YAML in, frozen declarations or all problems out. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from exporter.config.positions import Reader, YamlNode, parse_yaml
from exporter.errors import ConfigError, InputError

DEFAULT_DATABASE = "default"
DEFAULT_TIMEOUT_MS = 5000
DEFAULT_MAX_ROWS = 1000
TYPES = ("counter", "gauge")

_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*", re.ASCII)
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
_COLLECTOR_NAME = re.compile(r"[a-zA-Z0-9_.:-]+", re.ASCII)
_FROM = re.compile(r'\bfrom\s+(?:only\s+)?"?([a-z_][\w.$]*)(?![\w.$])"?(?!\s*\()', re.IGNORECASE)
_NO_TABLE = re.compile(r"\bextract\s*\(\s*\w+\s+from\b|\bdistinct\s+from\b", re.IGNORECASE)
_WITH = re.compile(r'(?:\bwith(?:\s+recursive)?|,)\s+"?([a-z_]\w*)"?\s*(?:\([^()]*\)\s*)?as\b', re.IGNORECASE)

_COLLECTOR_KEYS = ("name", "query", "interval", "timeout", "database", "max_rows", "metrics")
_METRIC_KEYS = ("name", "type", "help", "labels", "static_labels", "value")


@dataclass(frozen=True, slots=True)
class SqlMetric:
    """One metric of a query: `labels` and `value` name columns, `static_labels` are on each series."""

    name: str
    type: str
    help: str
    value: str = "value"
    labels: tuple[str, ...] = ()
    static_labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class SqlCollectorSpec:
    """A query that yields metrics. `interval_ms` None means the global scrape interval."""

    name: str
    query: str
    metrics: tuple[SqlMetric, ...]
    interval_ms: int | None = None
    timeout_ms: int = DEFAULT_TIMEOUT_MS
    database: str = DEFAULT_DATABASE
    max_rows: int = DEFAULT_MAX_ROWS

    @property
    def table(self) -> str:
        """The first table that the query reads, for the label `table`; the collector's name without one."""
        defined = {name.lower() for name in _WITH.findall(self.query)}
        for name in _FROM.findall(_NO_TABLE.sub("", self.query)):
            if name.lower() not in defined:
                return str(name)
        return self.name


@dataclass(frozen=True, slots=True)
class SqlFile:
    """What one file declares; `databases` are further databases by name."""

    collectors: tuple[SqlCollectorSpec, ...]
    databases: dict[str, str] = field(default_factory=dict)


def read_sql_file(text: str, file: str = "", expand: Callable[[str], str] | None = None) -> SqlFile:
    """The declarations of one file. `expand` puts the environment into database URLs.

    Raises: ConfigError with every problem, each with file, line and column.
    """
    try:
        root = parse_yaml(text, file)
    except InputError as error:
        raise ConfigError(error.problems) from error
    return _FileReader(file, expand).read(root)


class _FileReader:
    def __init__(self, file: str, expand: Callable[[str], str] | None) -> None:
        self._reader = Reader(file)
        self._expand = expand
        self._names: dict[str, YamlNode] = {}
        self._types: dict[str, tuple[str, YamlNode]] = {}

    def read(self, root: YamlNode) -> SqlFile:
        reader = self._reader
        top = reader.mapping(root, "the file", ("collectors", "databases"))
        databases = self._databases(top["databases"]) if "databases" in top else {}
        if "collectors" not in top:
            reader.problem(root, "the file declares no collectors", "collectors: a list")
        items = reader.sequence(top["collectors"], "collectors") if "collectors" in top else ()
        read = [self._collector(item, databases) for item in items]
        if reader.problems:
            raise ConfigError(sorted(reader.problems, key=lambda found: (found.line, found.column)))
        return SqlFile(tuple(spec for spec in read if spec is not None), databases)

    def _databases(self, node: YamlNode) -> dict[str, str]:
        found = {}
        for name, value in self._reader.mapping(node, "databases").items():
            url = self._reader.string(value, f"the URL of {name}")
            if name == DEFAULT_DATABASE:
                self._reader.problem(value, '"default" is the exporter\'s own database (database.url)')
            elif url:
                found[name] = self._expanded(url, value)
            elif url == "":
                self._reader.problem(value, f"the URL of {name} is empty", "a postgresql:// URL")
        return found

    def _expanded(self, url: str, node: YamlNode) -> str:
        if self._expand is None:
            return url
        try:
            return self._expand(url)
        except ValueError as error:
            self._reader.problem(node, str(error))
            return url

    def _collector(self, node: YamlNode, databases: dict[str, str]) -> SqlCollectorSpec | None:
        reader = self._reader
        before = len(reader.problems)
        keys = reader.mapping(node, "a collector", _COLLECTOR_KEYS)
        name = self._required(node, keys, "name", "a collector")
        query = self._required(node, keys, "query", "a collector")
        if name and not _COLLECTOR_NAME.fullmatch(name):
            reader.problem(keys["name"], f'"{name}" is no collector name', "letters, digits and _ . : -")
        elif name and name in self._names:
            line = self._names[name].line
            reader.problem(keys["name"], f'collector "{name}" is declared twice, first in line {line}')
        elif name:
            self._names[name] = keys["name"]
        if query.rstrip().rstrip(";").count(";") and not _quoted_only(query):
            reader.problem(keys["query"], "a query is one statement")
        interval = timeout = rows = None
        if "interval" in keys:
            interval = reader.duration_ms(keys["interval"], "interval", minimum_ms=1000)
        if "timeout" in keys:
            timeout = reader.duration_ms(keys["timeout"], "timeout", minimum_ms=1)
        if "max_rows" in keys:
            rows = reader.integer(keys["max_rows"], "max_rows", minimum=1)
        database = DEFAULT_DATABASE
        if "database" in keys:
            allowed = (DEFAULT_DATABASE, *databases)
            database = reader.choice(keys["database"], "database", allowed) or DEFAULT_DATABASE
        metrics = self._metrics(node, keys)
        if len(reader.problems) > before:
            return None
        return SqlCollectorSpec(
            name,
            query.strip().rstrip(";"),
            metrics,
            interval,
            timeout or DEFAULT_TIMEOUT_MS,
            database,
            rows or DEFAULT_MAX_ROWS,
        )

    def _metrics(self, node: YamlNode, keys: dict[str, YamlNode]) -> tuple[SqlMetric, ...]:
        if "metrics" not in keys:
            self._reader.problem(node, "a collector needs metrics", "metrics: a list")
            return ()
        items = self._reader.sequence(keys["metrics"], "metrics")
        if not items and keys["metrics"].items is not None:
            self._reader.problem(keys["metrics"], "a collector needs at least one metric")
        return tuple(metric for item in items if (metric := self._metric(item)) is not None)

    def _metric(self, node: YamlNode) -> SqlMetric | None:
        reader = self._reader
        before = len(reader.problems)
        keys = reader.mapping(node, "a metric", _METRIC_KEYS)
        name = self._required(node, keys, "name", "a metric")
        help_text = self._required(node, keys, "help", "a metric")
        kind = self._required(node, keys, "type", "a metric")
        if kind and kind not in TYPES:
            reader.problem(keys["type"], f'type must not be "{kind}"', ", ".join(TYPES))
        if name and not _METRIC_NAME.fullmatch(name):
            reader.problem(keys["name"], f'"{name}" is no metric name', "[a-zA-Z_:][a-zA-Z0-9_:]*")
        if name and kind == "counter" and not name.endswith("_total"):
            reader.problem(keys["name"], f'the counter "{name}" must end in _total')
        if name and kind == "gauge" and name.endswith("_total"):
            reader.problem(keys["name"], f'the gauge "{name}" must not end in _total')
        if name and kind:
            self._same_type(name, kind, keys["name"])
        value = reader.string(keys["value"], "value") if "value" in keys else "value"
        labels = reader.strings(keys["labels"], "labels") if "labels" in keys else ()
        static = reader.string_map(keys["static_labels"], "static_labels") if "static_labels" in keys else {}
        self._label_names(labels, keys.get("labels", node))
        self._label_names(tuple(static), keys.get("static_labels", node), labels)
        if len(reader.problems) > before:
            return None
        return SqlMetric(name, kind, help_text, value or "value", labels, tuple(static.items()))

    def _same_type(self, name: str, kind: str, node: YamlNode) -> None:
        known = self._types.setdefault(name, (kind, node))
        if known[0] != kind:
            self._reader.problem(node, f'"{name}" is a {known[0]} in line {known[1].line}, here a {kind}')

    def _label_names(self, names: tuple[str, ...], node: YamlNode, taken: tuple[str, ...] = ()) -> None:
        for at, name in enumerate(names):
            if not _LABEL_NAME.fullmatch(name) or name.startswith("__"):
                self._reader.problem(
                    node, f'"{name}" is no label name', "[a-zA-Z_][a-zA-Z0-9_]*, no leading __"
                )
            elif name in names[:at] or name in taken:
                self._reader.problem(node, f'label "{name}" is given twice')

    def _required(self, node: YamlNode, keys: dict[str, YamlNode], key: str, what: str) -> str:
        if key not in keys:
            self._reader.problem(node, f'{what} needs "{key}"')
            return ""
        text = self._reader.string(keys[key], key)
        if text is not None and not text.strip():
            self._reader.problem(keys[key], f"{key} must not be empty")
        return text or ""


def _quoted_only(query: str) -> bool:
    """Whether every semicolon before the end stands in a string, a quoted name or a comment."""
    bare = re.sub(r"'(?:[^']|'')*'|\"[^\"]*\"|--[^\n]*|/\*.*?\*/|\$\$.*?\$\$", "", query, flags=re.DOTALL)
    return ";" not in bare.rstrip().rstrip(";")
