"""The syntax tree of PromQL: frozen nodes with the place of each in the text.

Produced by `parse.parse_expr`, read by the engine, the printer and the rule linter. Durations and times
are integer milliseconds. A duration that the text gives as an expression (`[5m * 2]`, `offset step()`) is
kept as a node in the matching `*_expr` field, and its plain field is 0 until the engine has evaluated it:
NumberLiteral (seconds), Paren, Unary `-`, Binary `+ - * / % ^`, or Call of `step`, `range` (no argument),
`min_of`, `max_of`, `min`, `max` (two arguments).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from exporter.model.labels import Matcher


class ValueType(Enum):
    """The four types of a PromQL value, with Prometheus' spelling."""

    SCALAR = "scalar"
    VECTOR = "vector"
    MATRIX = "matrix"
    STRING = "string"


@dataclass(frozen=True, slots=True)
class Span:
    """Half-open range of byte offsets into the query text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class At:
    """An `@` modifier: a fixed time, or the start or end of the query range."""

    kind: str  # "time", "start" or "end"
    ts_ms: int = 0


@dataclass(frozen=True, slots=True)
class NumberLiteral:
    """A number; `is_duration` where it was written as one (`5m` is 300)."""

    value: float
    span: Span
    is_duration: bool = False


@dataclass(frozen=True, slots=True)
class StringLiteral:
    """A quoted string, escapes resolved."""

    value: str
    span: Span


@dataclass(frozen=True, slots=True)
class VectorSelector:
    """An instant vector selector. `matchers` hold `__name__` too where a name was given.

    `name` is the bare metric name as written ('' without one). `anchored` and `smoothed` are Prometheus 3's
    modifiers (here they matter for an instant selector with `smoothed` only; ranges carry them as well).
    """

    name: str
    matchers: tuple[Matcher, ...]
    span: Span
    offset_ms: int = 0
    offset_expr: Expr | None = None
    at: At | None = None
    anchored: bool = False
    smoothed: bool = False


@dataclass(frozen=True, slots=True)
class MatrixSelector:
    """A range vector selector; offset, @, anchored and smoothed stand on the inner selector."""

    selector: VectorSelector
    range_ms: int
    span: Span
    range_expr: Expr | None = None


@dataclass(frozen=True, slots=True)
class Subquery:
    """`expr[range:step]`; step_ms 0 means the evaluation interval."""

    expr: Expr
    range_ms: int
    step_ms: int
    span: Span
    range_expr: Expr | None = None
    step_expr: Expr | None = None
    offset_ms: int = 0
    offset_expr: Expr | None = None
    at: At | None = None


@dataclass(frozen=True, slots=True)
class Paren:
    """A parenthesised expression."""

    expr: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class Unary:
    """`+expr` or `-expr`."""

    op: str
    expr: Expr
    span: Span


class Cardinality(Enum):
    """How the series of two sides may pair."""

    ONE_TO_ONE = "one-to-one"
    MANY_TO_ONE = "many-to-one"
    ONE_TO_MANY = "one-to-many"
    MANY_TO_MANY = "many-to-many"


@dataclass(frozen=True, slots=True)
class VectorMatching:
    """on/ignoring, group_left/group_right with included labels, and the fill modifiers' values."""

    cardinality: Cardinality = Cardinality.ONE_TO_ONE
    on: bool = False
    labels: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    fill_left: float | None = None
    fill_right: float | None = None


@dataclass(frozen=True, slots=True)
class Binary:
    """A binary operation; `matching` is set where both sides are instant vectors."""

    op: str  # + - * / % ^ atan2 == != > < >= <= and or unless, and Prometheus 3's trims </ >/
    lhs: Expr
    rhs: Expr
    span: Span
    return_bool: bool = False
    matching: VectorMatching | None = None


@dataclass(frozen=True, slots=True)
class Aggregate:
    """An aggregation; `grouping` is `by` unless `without`; `param` for topk, quantile and the like."""

    op: str
    expr: Expr
    span: Span
    param: Expr | None = None
    grouping: tuple[str, ...] = ()
    without: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """A function call, argument types already checked."""

    func: str
    args: tuple[Expr, ...]
    span: Span


Expr = (
    NumberLiteral
    | StringLiteral
    | VectorSelector
    | MatrixSelector
    | Subquery
    | Paren
    | Unary
    | Binary
    | Aggregate
    | Call
)
