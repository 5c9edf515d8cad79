"""PromQL: parser, planner and engine.

Data flow: text -> syntax tree (`parse`) -> plan (`planner`: durations evaluated, constants folded, equal
parts given equal keys) -> operands (`evaluate`) -> `Result`. An instant vector at all steps of a query is
one `StepMatrix`: a `SeriesSet`, values (S, T) and presence (S, T). Samples come through the port in
`source`: grids of series that share their timestamps are evaluated where they lie, others are padded.

Invariants: absence is `present`, never NaN; operators do not write into what they were given; labels are
worked on once for a set of series and the work is kept on the `SeriesSet`; metric names are dropped at the
end, as Prometheus does; the answer does not depend on the order in which series were born. Kernels return
flags, the nodes that know names and places turn them into notes. Every limit is checked before memory is
taken, time and cancellation at every node and piece of work.

Source: Prometheus' "Querying" pages. Pure: standard library, numpy, `exporter.model`, `exporter.errors`;
no clock, no IO. Native histograms are refused (`QueryErrorKind.UNSUPPORTED`).
"""

from exporter.errors import QueryError, QueryErrorKind
from exporter.promql.engine import Engine, Prepared
from exporter.promql.memo import EvaluationMemo
from exporter.promql.values import InstantVector, RangeMatrix, Result, ScalarValue, StringValue

__all__ = [
    "Engine",
    "EvaluationMemo",
    "InstantVector",
    "Prepared",
    "QueryError",
    "QueryErrorKind",
    "RangeMatrix",
    "Result",
    "ScalarValue",
    "StringValue",
]
