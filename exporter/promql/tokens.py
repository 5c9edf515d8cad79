"""Kinds of tokens in PromQL, the keywords, and how an error message names a token."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from exporter.promql.gotext import quote, quote_prefix


class Kind(Enum):
    """What a token is."""

    EOF = auto()
    IDENTIFIER = auto()  # a name without a colon
    METRIC_IDENTIFIER = auto()  # a name with a colon
    NUMBER = auto()
    DURATION = auto()
    STRING = auto()
    PUNCTUATION = auto()  # ( ) { } [ ] , : =
    OPERATOR = auto()  # binary operators, matchers' operators and @
    KEYWORD = auto()  # by, on, bool, offset, ...
    AGGREGATOR = auto()
    PREPROCESSOR = auto()  # start, end, step, range, min_of, max_of


OPERATOR_WORDS: Final = frozenset({"and", "or", "unless", "atan2"})
AGGREGATORS: Final = frozenset(
    {
        "sum",
        "avg",
        "count",
        "min",
        "max",
        "group",
        "stddev",
        "stdvar",
        "topk",
        "bottomk",
        "count_values",
        "quantile",
        "limitk",
        "limit_ratio",
    }
)
AGGREGATORS_WITH_PARAMETER: Final = frozenset(
    {"topk", "bottomk", "count_values", "quantile", "limitk", "limit_ratio"}
)
FILL_WORDS: Final = frozenset({"fill", "fill_left", "fill_right"})
KEYWORDS: Final = FILL_WORDS | {
    "offset",
    "smoothed",
    "anchored",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "bool",
}
DURATION_CALLS: Final = frozenset({"step", "range"})
DURATION_PAIRS: Final = frozenset({"min_of", "max_of", "min", "max"})
PREPROCESSORS: Final = frozenset({"start", "end", "step", "range", "min_of", "max_of"})
NUMBER_WORDS: Final = frozenset({"inf", "nan"})

WORD_KINDS: Final = {
    **dict.fromkeys(OPERATOR_WORDS, Kind.OPERATOR),
    **dict.fromkeys(AGGREGATORS, Kind.AGGREGATOR),
    **dict.fromkeys(KEYWORDS, Kind.KEYWORD),
    **dict.fromkeys(PREPROCESSORS, Kind.PREPROCESSOR),
    **dict.fromkeys(NUMBER_WORDS, Kind.NUMBER),
}

# Words that name a metric where an expression may begin, and a label inside by(...), on(...) and the like.
METRIC_NAME_WORDS: Final = (
    (OPERATOR_WORDS - {"atan2"})
    | AGGREGATORS
    | PREPROCESSORS
    | {"by", "offset", "without", "anchored", "smoothed"}
)
LABEL_NAME_WORDS: Final = OPERATOR_WORDS | AGGREGATORS | PREPROCESSORS | (KEYWORDS - {"without"})

_DESCRIPTIONS: Final = {
    Kind.IDENTIFIER: "identifier",
    Kind.METRIC_IDENTIFIER: "metric identifier",
    Kind.NUMBER: "number",
    Kind.DURATION: "duration",
    Kind.STRING: "string",
}


@dataclass(slots=True)
class Token:
    """One token; `start` and `end` are byte offsets, `key` is the text in lower case for words."""

    kind: Kind
    text: str
    start: int
    end: int
    key: str

    def describe(self) -> str:
        """How Prometheus names this token in `unexpected ...`."""
        kind = self.kind
        if kind is Kind.EOF:
            return "end of input"
        if kind is Kind.KEYWORD:
            return f"<{self.text}>"
        if kind is Kind.OPERATOR:
            return f"<op:{self.text}>"
        if kind is Kind.AGGREGATOR:
            return f"<aggr:{self.text}>"
        if kind in (Kind.PUNCTUATION, Kind.PREPROCESSOR):
            return quote(self.text)
        shown = quote(self.text) if kind in (Kind.IDENTIFIER, Kind.METRIC_IDENTIFIER) else ""
        return f"{_DESCRIPTIONS[kind]} {shown or quote_prefix(self.text, 10)}"
