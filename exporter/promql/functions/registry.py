"""Names, argument types and result types of all functions of Prometheus 3, experimental ones included.

Source: Prometheus' "Query functions" page. `holt_winters` is the old name of
`double_exponential_smoothing` and has its signature.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from exporter.promql.ast import ValueType


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function takes and returns.

    `variadic` 0: exactly `args`. n > 0: the last of `args` may be left out or stand up to n times.
    -1: the last of `args` may be left out or stand any number of times.
    """

    name: str
    args: tuple[ValueType, ...]
    variadic: int
    returns: ValueType


_S = ValueType.SCALAR
_V = ValueType.VECTOR
_M = ValueType.MATRIX
_T = ValueType.STRING

_VECTOR_TO_VECTOR: Final = (
    "abs absent acos acosh asin asinh atan atanh ceil cos cosh deg exp floor histogram_avg histogram_count "
    "histogram_stddev histogram_stdvar histogram_sum ln log10 log2 rad sgn sin sinh sort sort_desc sqrt tan "
    "tanh timestamp"
)
_TIME_PARTS: Final = "day_of_month day_of_week day_of_year days_in_month hour minute month year"
_RANGE_TO_VECTOR: Final = (
    "absent_over_time avg_over_time changes count_over_time delta deriv first_over_time idelta increase "
    "irate last_over_time mad_over_time max_over_time min_over_time present_over_time rate resets "
    "stddev_over_time stdvar_over_time sum_over_time ts_of_first_over_time "
    "ts_of_last_over_time ts_of_max_over_time ts_of_min_over_time"
)
_NO_ARGUMENTS: Final = "end pi range start step time"
_OTHERS: Final = (
    Signature("clamp", (_V, _S, _S), 0, _V),
    Signature("clamp_max", (_V, _S), 0, _V),
    Signature("clamp_min", (_V, _S), 0, _V),
    Signature("double_exponential_smoothing", (_M, _S, _S), 0, _V),
    Signature("histogram_fraction", (_S, _S, _V), 0, _V),
    Signature("histogram_quantile", (_S, _V), 0, _V),
    Signature("histogram_quantiles", (_V, _T, _S, _S), 9, _V),
    Signature("holt_winters", (_M, _S, _S), 0, _V),
    Signature("info", (_V, _V), 1, _V),
    Signature("label_join", (_V, _T, _T, _T), -1, _V),
    Signature("label_replace", (_V, _T, _T, _T, _T), 0, _V),
    Signature("max_of", (_S, _S), 0, _S),
    Signature("min_of", (_S, _S), 0, _S),
    Signature("predict_linear", (_M, _S), 0, _V),
    Signature("quantile_over_time", (_S, _M), 0, _V),
    Signature("round", (_V, _S), 1, _V),
    Signature("scalar", (_V,), 0, _S),
    Signature("sort_by_label", (_V, _T), -1, _V),
    Signature("sort_by_label_desc", (_V, _T), -1, _V),
    Signature("vector", (_S,), 0, _V),
)


def _all() -> Iterable[Signature]:
    for name in _VECTOR_TO_VECTOR.split():
        yield Signature(name, (_V,), 0, _V)
    for name in _TIME_PARTS.split():
        yield Signature(name, (_V,), 1, _V)
    for name in _RANGE_TO_VECTOR.split():
        yield Signature(name, (_M,), 0, _V)
    for name in _NO_ARGUMENTS.split():
        yield Signature(name, (), 0, _S)
    yield from _OTHERS


SIGNATURES: Final[Mapping[str, Signature]] = MappingProxyType(
    {signature.name: signature for signature in sorted(_all(), key=lambda signature: signature.name)}
)
