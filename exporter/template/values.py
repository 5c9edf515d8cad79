"""The values a template works on, as Go would type them.

Plain Python values stand for Go's basic types (str: string, bool: bool, int: int, float: float64, complex:
complex128); None is Go's invalid or nil value. The classes here add the types that Prometheus' templates
hand out. Source: text/template's use of reflection, and Prometheus' template package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


class Html(str):
    """template.HTML: text marked as safe."""

    __slots__ = ()


class Int64(int):
    """An int64."""


class Byte(int):
    """A uint8, what indexing a string yields."""


class StringMap(dict[str, str]):
    """A map[string]string; a missing key reads as the empty string."""


class AnyMap(dict[str, object]):
    """A map[string]interface{}, what `args` yields."""


@dataclass(slots=True)
class Sample:
    """One result of a query: its labels (metric name as `__name__`) and its value."""

    labels: StringMap
    value: float


class QueryResult(list[Sample]):
    """What `query` yields: samples in the engine's order."""


@dataclass(frozen=True, slots=True)
class NilPointer:
    """A nil pointer, map or slice of a Go type, named as Go names it."""

    type_name: str


@dataclass(frozen=True, slots=True)
class AlertData:
    """The dot of an alert template."""

    labels: StringMap
    external_labels: StringMap
    external_url: str
    value: float

    def fields(self) -> Mapping[str, object]:
        """Field names as templates write them."""
        return {
            "Labels": self.labels,
            "ExternalLabels": self.external_labels,
            "ExternalURL": self.external_url,
            "Value": self.value,
        }


ALERT_DATA_TYPE: Final = (
    "struct { Labels map[string]string; ExternalLabels map[string]string; ExternalURL string; Value float64 }"
)
_NAMES: Final[tuple[tuple[type, str], ...]] = (
    (bool, "bool"),
    (Html, "template.HTML"),
    (str, "string"),
    (Int64, "int64"),
    (Byte, "uint8"),
    (float, "float64"),
    (complex, "complex128"),
    (StringMap, "map[string]string"),
    (AnyMap, "map[string]interface {}"),
    (Sample, "*template.sample"),
    (QueryResult, "template.queryResult"),
    (AlertData, ALERT_DATA_TYPE),
)


def type_name(value: object) -> str:
    """The name of a value's Go type, as %T prints it; `<nil>` for the invalid value."""
    if value is None:
        return "<nil>"
    if isinstance(value, NilPointer):
        return value.type_name
    own = getattr(value, "go_type", None)
    if isinstance(own, str):
        return own
    for cls, name in _NAMES:
        if isinstance(value, cls):
            return name
    return "int" if isinstance(value, int) else type(value).__name__


def is_true(value: object) -> bool:
    """Whether a value counts as true: not the zero value of its type. Structs and pointers are true."""
    if value is None or isinstance(value, NilPointer):
        return False
    if isinstance(value, (bool, int, float, complex)):
        return value != 0
    if isinstance(value, (str, dict, list)):
        return len(value) > 0
    return True


def fields_of(value: object) -> Mapping[str, object] | None:
    """The struct fields of a value by name, in Go's order; None where it is no struct."""
    if isinstance(value, Sample):
        return {"Labels": value.labels, "Value": value.value}
    if isinstance(value, AlertData):
        return value.fields()
    return None
