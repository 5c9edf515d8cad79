"""Rule files: YAML to rule groups, or every problem with its place.

Source: Prometheus' recording and alerting rules pages for the format; cooldown, cooldown_by, missing_data
and keep_firing_expr are our additions, on a rule or as a default on its group.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from exporter.config.positions import Reader, YamlNode, parse_yaml
from exporter.errors import InputError, Problem, QueryError, RuleFormatError, TemplateError
from exporter.model.labels import METRIC_NAME
from exporter.promql.ast import Expr
from exporter.promql.parse import parse_expr
from exporter.promql.printer import to_text
from exporter.rules.model import (
    AlertingRule,
    MissingData,
    RecordingRule,
    Rule,
    RuleGroup,
    digest,
    group_key,
    rule_key,
)
from exporter.template import Template

_OUR_KEYS = ("cooldown", "cooldown_by", "missing_data", "keep_firing_expr")
GROUP_KEYS = ("name", "interval", "limit", "query_offset", "labels", "rules", *_OUR_KEYS)
_COMMON_RULE_KEYS = ("record", "alert", "expr", "labels")
ALERT_ONLY_KEYS = ("for", "keep_firing_for", "annotations", *_OUR_KEYS)
RULE_KEYS = (*_COMMON_RULE_KEYS, *ALERT_ONLY_KEYS)

_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*", re.ASCII)
_LABEL_ALLOWED = "letters, digits and _, not a digit first"
_METRIC_ALLOWED = "letters, digits, _ and :, not a digit first"
_QUERY_PLACE = re.compile(r"(\d+):(\d+): ")
_BLOCK_SCALAR = re.compile(r"(?:[&!]\S*\s+)*[|>]")

_NOTHING = YamlNode(0, 0, "tag:yaml.org,2002:null", text="")


def read_rule_file(text: str, file: str) -> tuple[RuleGroup, ...]:
    """The groups of one rule file.

    Raises: RuleFormatError with the problems of the file, in file order; at most a hundred.
    """
    return read_rule_files([(file, text)])


def read_rule_files(files: Iterable[tuple[str, str]]) -> tuple[RuleGroup, ...]:
    """The groups of several rule files, given as (file, text), in order.

    Groups of the same name in files of the same base name get keys with the folder before them, so that
    each key is unique.

    Raises: RuleFormatError with the problems of every file; at most a hundred of each.
    """
    groups: list[RuleGroup] = []
    problems: list[Problem] = []
    for file, text in files:
        try:
            reader = _FileReader(text, file)
            groups.extend(reader.groups(parse_yaml(text, file)))
            problems.extend(sorted(reader.problems, key=lambda problem: (problem.line, problem.column)))
        except InputError as error:
            problems.extend(error.problems)
    if problems:
        raise RuleFormatError(problems)
    return _with_unique_keys(groups)


def _with_unique_keys(groups: list[RuleGroup]) -> tuple[RuleGroup, ...]:
    places: dict[str, set[str]] = {}
    for group in groups:
        places.setdefault(group.key, set()).add(group.file)
    found: list[RuleGroup] = []
    for group in groups:
        if len(places[group.key]) == 1:
            found.append(group)
            continue
        old, new = group.key, f"{group.file};{group.name}"
        rules = tuple(replace(rule, key=new + rule.key[len(old) :]) for rule in group.rules)
        found.append(replace(group, key=new, rules=rules))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Defaults:
    """What a group says for its alerting rules."""

    cooldown_ms: int = 0
    cooldown_by: tuple[str, ...] | None = None
    missing_data: MissingData = MissingData.RESOLVE
    keep_firing_expr: Expr | None = None
    keep_firing_text: str = ""


class _FileReader(Reader):
    """Reads one file; methods return what they could make of a node, faults go to `problems`."""

    def __init__(self, text: str, file: str) -> None:
        super().__init__(file)
        self._lines = text.splitlines()

    def groups(self, root: YamlNode) -> list[RuleGroup]:
        entries = self.mapping(root, "a rule file", ("groups",))
        found: list[RuleGroup] = []
        first: dict[str, YamlNode] = {}
        for node in self.sequence(entries.get("groups", _NOTHING), "groups"):
            if self.is_full:
                break
            group = self._group(node)
            if group is None:
                continue
            name_node = (node.entries or {})["name"]
            if group.name in first:
                line = first[group.name].line
                self.problem(
                    name_node, f'group "{group.name}" is repeated in the same file, first in line {line}'
                )
                continue
            first[group.name] = name_node
            found.append(group)
        return found

    def _group(self, node: YamlNode) -> RuleGroup | None:
        if node.entries is None:
            self.problem(node, f"a rule group must be a mapping, not {node.kind}")
            return None
        entries = self.mapping(node, "a rule group", GROUP_KEYS)
        name = self._required_string(node, entries, "name", "a rule group")
        defaults = self._defaults(entries, "group", _Defaults())
        labels = self._labels(entries, "group labels")
        limit = self._limit(entries)
        interval_ms = self._duration(entries, "interval", "group")
        offset_ms = self._duration(entries, "query_offset", "group")
        rules: list[Rule] = []
        seen: dict[str, int] = {}
        for item in self.sequence(entries.get("rules", _NOTHING), "rules"):
            if self.is_full:
                break
            rule = self._rule(item, name or "", labels, defaults)
            if rule is not None:
                seen[rule.key] = seen.get(rule.key, 0) + 1
                if seen[rule.key] > 1:  # Prometheus allows it; `check rules` warns
                    rule = replace(rule, key=f"{rule.key}#{seen[rule.key]}")
                rules.append(rule)
        if name is None:
            return None
        return RuleGroup(
            name=name,
            file=self.file,
            rules=tuple(rules),
            interval_ms=interval_ms or None,
            limit=limit,
            query_offset_ms=offset_ms,
            labels=labels,
            key=group_key(self.file, name),
            line=node.line,
            column=node.column,
        )

    def _rule(
        self, node: YamlNode, group: str, group_labels: Mapping[str, str], defaults: _Defaults
    ) -> Rule | None:
        if node.entries is None:
            self.problem(node, f"a rule must be a mapping, not {node.kind}")
            return None
        entries = self.mapping(node, "a rule", RULE_KEYS)
        kinds = [kind for kind in ("record", "alert") if _text(entries, kind)]
        if len(kinds) != 1:
            what = "one of record or alert must be set" + (", not both" if kinds else "")
            self.problem(node, what)
            return None
        name = _text(entries, kinds[0])
        what = f'{kinds[0]} "{name}"'
        expr = self._expr(node, entries, what)
        labels = {**group_labels, **self._labels(entries, f"labels of {what}")}
        key = rule_key(self.file, group, name, labels)
        if kinds[0] == "record":
            self._check_record(entries, name, what)
            if expr is None:
                return None
            return RecordingRule(name, expr, to_text(expr), labels, key, node.line, node.column)
        self._check_templates(entries, "labels", name)
        self._check_templates(entries, "annotations", name)
        annotations = self._annotations(entries, what)
        ours = self._defaults(entries, what, defaults)
        for_ms = self._duration(entries, "for", what)
        keep_for_ms = self._duration(entries, "keep_firing_for", what)
        if expr is None:
            return None
        expr_text = to_text(expr)
        return AlertingRule(
            name=name,
            expr=expr,
            expr_text=expr_text,
            for_ms=for_ms or 0,
            keep_firing_for_ms=keep_for_ms or 0,
            labels=labels,
            annotations=annotations,
            cooldown_ms=ours.cooldown_ms,
            cooldown_by=ours.cooldown_by,
            missing_data=ours.missing_data,
            keep_firing_expr=ours.keep_firing_expr,
            keep_firing_text=ours.keep_firing_text,
            key=key,
            expr_digest=digest(expr_text),
            line=node.line,
            column=node.column,
        )

    def _check_record(self, entries: Mapping[str, YamlNode], name: str, what: str) -> None:
        if not _METRIC_NAME.fullmatch(name):
            self.problem(entries["record"], f'invalid recording rule name "{name}"', _METRIC_ALLOWED)
        for key in ALERT_ONLY_KEYS:
            if key in entries and not entries[key].is_null:
                self.problem(
                    entries[key],
                    f'"{key}" has no meaning in a recording rule ({what})',
                    ", ".join(_COMMON_RULE_KEYS),
                )

    def _expr(self, rule: YamlNode, entries: Mapping[str, YamlNode], what: str) -> Expr | None:
        node = entries.get("expr", _NOTHING)
        if node.text is None:
            self.problem(node, f"expr of {what} must be a string, not {node.kind}")
            return None
        if not node.text.strip() or node.is_null:
            self.problem(node if node.line else rule, f"expr of {what} must be set")
            return None
        return self._parsed(node, f"expr of {what}")

    def _parsed(self, node: YamlNode, what: str) -> Expr | None:
        try:
            return parse_expr(node.text or "")
        except QueryError as error:
            found = _QUERY_PLACE.match(str(error))
            place = (int(found[1]), int(found[2])) if found else (1, 1)
            line, column = self._place_in(node, *place)
            self.add(Problem(f"could not parse expression: {error} ({what})", self.file, line, column))
            return None

    def _place_in(self, node: YamlNode, line: int, column: int) -> tuple[int, int]:
        """Where in the file a fault stands that lies at line:column inside the text of a scalar."""
        start = self._lines[node.line - 1][node.column - 1 :] if 0 < node.line <= len(self._lines) else ""
        block = _BLOCK_SCALAR.match(start)
        if block is None:
            if line != 1:  # a folded or escaped line break: only the start is sure
                return node.line, node.column
            return node.line, node.column + column - 1 + (start[:1] in ("'", '"'))
        literal = block[0].endswith("|")
        body = node.line + (line if literal else 1)
        text = self._lines[body - 1] if body <= len(self._lines) else ""
        indent = len(text) - len(text.lstrip())
        return body, indent + (column if literal else 1)

    def _labels(self, entries: Mapping[str, YamlNode], what: str) -> dict[str, str]:
        node = entries.get("labels", _NOTHING)
        for name, key in (node.keys or {}).items():
            if not _LABEL_NAME.fullmatch(name) or name == METRIC_NAME:
                self.problem(key, f'invalid label name "{name}" in {what}', _LABEL_ALLOWED)
        return self.string_map(node, what)

    def _annotations(self, entries: Mapping[str, YamlNode], what: str) -> dict[str, str]:
        node = entries.get("annotations", _NOTHING)
        for name, key in (node.keys or {}).items():
            if not _LABEL_NAME.fullmatch(name):
                self.problem(key, f'invalid annotation name "{name}" in {what}', _LABEL_ALLOWED)
        return self.string_map(node, f"annotations of {what}")

    def _check_templates(self, entries: Mapping[str, YamlNode], key: str, alert: str) -> None:
        singular = key.removesuffix("s")
        for name, node in (entries.get(key, _NOTHING).entries or {}).items():
            if node.text is None or "{{" not in node.text:
                continue
            try:
                Template.parse(node.text, f"__alert_{alert}")
            except TemplateError as error:
                line, column = self._place_in(node, error.line, error.column)
                message = f'template of {singular} "{name}" of alert "{alert}": {error.detail}'
                self.add(Problem(message, self.file, line, column))

    def _defaults(self, entries: Mapping[str, YamlNode], what: str, given: _Defaults) -> _Defaults:
        cooldown_ms = self._duration(entries, "cooldown", what)
        by, missing = given.cooldown_by, given.missing_data
        keep_expr, keep_text = given.keep_firing_expr, given.keep_firing_text
        if "cooldown_by" in entries and not entries["cooldown_by"].is_null:
            by = self.strings(entries["cooldown_by"], f"cooldown_by of {what}")
            for item in entries["cooldown_by"].items or ():
                if item.text is not None and not _LABEL_NAME.fullmatch(item.text):
                    self.problem(item, f'invalid label name "{item.text}" in cooldown_by', _LABEL_ALLOWED)
        if "missing_data" in entries and not entries["missing_data"].is_null:
            word = self.choice(
                entries["missing_data"], f"missing_data of {what}", [policy.value for policy in MissingData]
            )
            missing = MissingData(word) if word else missing
        node = entries.get("keep_firing_expr", _NOTHING)
        if not node.is_null:
            if node.text is None or not node.text.strip():
                self.problem(node, f"keep_firing_expr of {what} must be an expression")
            else:
                keep_expr = self._parsed(node, f"keep_firing_expr of {what}")
                keep_text = to_text(keep_expr) if keep_expr is not None else ""
        return _Defaults(
            given.cooldown_ms if cooldown_ms is None else cooldown_ms, by, missing, keep_expr, keep_text
        )

    def _duration(self, entries: Mapping[str, YamlNode], key: str, what: str) -> int | None:
        node = entries.get(key, _NOTHING)
        return None if node.is_null else self.duration_ms(node, f"{key} of {what}")

    def _limit(self, entries: Mapping[str, YamlNode]) -> int:
        node = entries.get("limit", _NOTHING)
        value = None if node.is_null else self.integer(node, "limit of group")
        return max(0, value or 0)  # 0 and below mean none, as in Prometheus

    def _required_string(
        self, parent: YamlNode, entries: Mapping[str, YamlNode], key: str, what: str
    ) -> str | None:
        node = entries.get(key, _NOTHING)
        text = None if node.is_null else self.string(node, f"{key} of {what}")
        if text:
            return text
        if node.is_null or text == "":
            self.problem(node if node.line else parent, f"{what} needs a {key}")
        return None


def _text(entries: Mapping[str, YamlNode], key: str) -> str:
    node = entries.get(key, _NOTHING)
    return "" if node.is_null else node.text or ""
