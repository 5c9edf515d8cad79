"""Relabelling: rules that rewrite, keep or drop label sets, of targets and of samples.

Source: Prometheus' configuration page, relabel_config; Go's regexp.Expand for `$1` and `${name}`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from exporter.model.regex import anchored_test, compile_anchored

DEFAULT_REGEX: Final = "(.*)"
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
_TARGET = re.compile(r"(?:[a-zA-Z_]|\$(?:\{\w+\}|\w+))+\w*(?:\$(?:\{\w+\}|\w+)\w*)*", re.ASCII)
_REFERENCE = re.compile(r"\$(?:\$|\{(\w+)\}|(\w+))", re.ASCII)


class RelabelAction(Enum):
    """What a rule does; the value is its name in the configuration."""

    REPLACE = "replace"
    KEEP = "keep"
    DROP = "drop"
    KEEPEQUAL = "keepequal"
    DROPEQUAL = "dropequal"
    HASHMOD = "hashmod"
    LABELMAP = "labelmap"
    LABELDROP = "labeldrop"
    LABELKEEP = "labelkeep"
    LOWERCASE = "lowercase"
    UPPERCASE = "uppercase"


_WITH_TARGET = (
    RelabelAction.REPLACE,
    RelabelAction.KEEPEQUAL,
    RelabelAction.DROPEQUAL,
    RelabelAction.HASHMOD,
    RelabelAction.LOWERCASE,
    RelabelAction.UPPERCASE,
)
_BARE = {
    RelabelAction.KEEPEQUAL: ("source_labels", "target_label"),
    RelabelAction.DROPEQUAL: ("source_labels", "target_label"),
    RelabelAction.LABELDROP: ("regex",),
    RelabelAction.LABELKEEP: ("regex",),
}


@dataclass(frozen=True, slots=True)
class RelabelRule:
    """One rule, with Prometheus' defaults."""

    action: RelabelAction = RelabelAction.REPLACE
    source_labels: tuple[str, ...] = ()
    separator: str = ";"
    regex: str = DEFAULT_REGEX
    target_label: str = ""
    replacement: str = "$1"
    modulus: int = 0


def fault_of(rule: RelabelRule, given: Sequence[str] = ()) -> str:
    """What is wrong with a rule, empty where nothing is; `given` are the keys that were written."""
    action = rule.action
    name = action.value
    try:
        compile_anchored(rule.regex)
    except ValueError as error:
        return str(error)
    if action in _BARE:
        extra = sorted(set(given) - {"action", *_BARE[action]})
        if extra:
            return f"{name} takes only {' and '.join(_BARE[action])}, not {', '.join(extra)}"
    if action is RelabelAction.HASHMOD and rule.modulus == 0:
        return "hashmod needs a modulus that is not 0"
    if action in _WITH_TARGET and not rule.target_label:
        return f"{name} needs target_label"
    pattern = _TARGET if action is RelabelAction.REPLACE else _LABEL
    if action in _WITH_TARGET and pattern.fullmatch(rule.target_label) is None:
        return f'target_label "{rule.target_label}" is not a label name'
    if action is RelabelAction.LABELMAP and _TARGET.fullmatch(rule.replacement) is None:
        return f'replacement "{rule.replacement}" of labelmap does not give a label name'
    return ""


def relabel(labels: Mapping[str, str], rules: Sequence[RelabelRule]) -> dict[str, str] | None:
    """The labels after all rules, in order; None where a rule drops them. An empty value is no label."""
    found = {name: value for name, value in labels.items() if value}
    for rule in rules:
        if not _apply(rule, found):
            return None
    return found


def _apply(rule: RelabelRule, labels: dict[str, str]) -> bool:
    """Change the labels in place; False drops them."""
    source = rule.separator.join(labels.get(name, "") for name in rule.source_labels)
    match rule.action:
        case RelabelAction.REPLACE:
            _replace(rule, source, labels)
        case RelabelAction.KEEP:
            return anchored_test(rule.regex)(source)
        case RelabelAction.DROP:
            return not anchored_test(rule.regex)(source)
        case RelabelAction.KEEPEQUAL:
            return labels.get(rule.target_label, "") == source
        case RelabelAction.DROPEQUAL:
            return labels.get(rule.target_label, "") != source
        case RelabelAction.HASHMOD:
            digest = hashlib.md5(source.encode(), usedforsecurity=False).digest()
            labels[rule.target_label] = str(int.from_bytes(digest[8:], "big") % rule.modulus)
        case RelabelAction.LOWERCASE:
            _set(labels, rule.target_label, source.lower())
        case RelabelAction.UPPERCASE:
            _set(labels, rule.target_label, source.upper())
        case RelabelAction.LABELMAP:
            _map(rule, labels)
        case RelabelAction.LABELDROP | RelabelAction.LABELKEEP:
            test = anchored_test(rule.regex)
            dropped = rule.action is RelabelAction.LABELDROP
            for name in [name for name in labels if test(name) is dropped]:
                del labels[name]
    return True


def _replace(rule: RelabelRule, source: str, labels: dict[str, str]) -> None:
    matched = compile_anchored(rule.regex).fullmatch(source)
    if matched is None:
        return
    target = expand(rule.target_label, matched)
    if _LABEL.fullmatch(target) is not None:
        _set(labels, target, expand(rule.replacement, matched))


def _map(rule: RelabelRule, labels: dict[str, str]) -> None:
    pattern = compile_anchored(rule.regex)
    for name, value in list(labels.items()):
        matched = pattern.fullmatch(name)
        if matched is not None:
            _set(labels, expand(rule.replacement, matched), value)


def _set(labels: dict[str, str], name: str, value: str) -> None:
    if value:
        labels[name] = value
    else:
        labels.pop(name, None)


def expand(template: str, matched: Any) -> str:
    """A template with `$1`, `${1}` and `${name}` replaced by groups, as Go does: an unknown one is empty."""
    if "$" not in template:
        return template

    def group(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name is None:
            return "$"
        if name.isdigit():
            number = int(name)
            return (matched.group(number) or "") if number <= len(matched.groups()) else ""
        return matched.groupdict().get(name) or ""

    return _REFERENCE.sub(group, template)
