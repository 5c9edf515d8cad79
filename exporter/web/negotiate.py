"""What a client of /metrics asked for: format, escaping scheme, encoding, part of the families. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Format(Enum):
    """The exposition formats we write."""

    TEXT_0 = "text/plain; version=0.0.4; charset=utf-8"
    TEXT_1 = "text/plain; version=1.0.0; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Escaping(Enum):
    """What becomes of names outside the classic character set."""

    UNDERSCORES = "underscores"
    DOTS = "dots"
    VALUES = "values"
    ALLOW_UTF8 = "allow-utf-8"


@dataclass(frozen=True, slots=True)
class Offer:
    """The format and escaping scheme of an answer."""

    format: Format
    escaping: Escaping = Escaping.UNDERSCORES

    @property
    def content_type(self) -> str:
        """The header's value. Only versions that know escaping schemes name theirs."""
        if self.format is Format.TEXT_0:
            return str(self.format.value)
        return f"{self.format.value}; escaping={self.escaping.value}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The parameters of a request; the default is everything.

    `names` (name[]) keeps samples and families so named, `collect` (collect[]) the families of these
    subsystems, `exclude` (exclude[]) all but theirs. `created` adds the times at which series began.
    """

    names: tuple[str, ...] = ()
    collect: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    created: bool = False

    @property
    def everything(self) -> bool:
        """Whether no family is left out."""
        return not (self.names or self.collect or self.exclude)


class Encoding(Enum):
    """How a body is compressed; the value is the name in Content-Encoding."""

    IDENTITY = ""
    GZIP = "gzip"
    ZSTD = "zstd"


def subsystem(name: str) -> str:
    """The word of a metric's name behind the program's prefix: `api` of quantum_api_requests_total."""
    return name.removeprefix("quantum_").partition("_")[0]


DEFAULT_OFFER = Offer(Format.TEXT_0)
_OPENMETRICS_VERSIONS = frozenset({"", "0.0.1", "1.0.0"})


def choose_offer(accept: str) -> Offer:
    """The best format of an Accept header by quality value, at equal quality the one named first.

    A client that accepts nothing of ours gets text 0.0.4, as from every Prometheus library.
    Source: RFC 9110 section 12.5.1; Prometheus' content negotiation page.
    """
    best, best_quality = DEFAULT_OFFER, 0.0
    for item in accept.split(","):
        kind, parameters = _media_range(item)
        quality = _quality(parameters)
        offer = _offer(kind, parameters)
        if offer is not None and quality > best_quality:
            best, best_quality = offer, quality
    return best


def choose_encoding(accept_encoding: str) -> Encoding:
    """The best encoding of an Accept-Encoding header; at equal quality zstd, which costs a third of gzip.

    `*` stands for gzip, which everybody reads. Source: RFC 9110 section 12.5.3; RFC 8878 section 7.2.
    """
    found: dict[str, float] = {}
    for item in accept_encoding.split(","):
        coding, parameters = _media_range(item)
        found[coding.removeprefix("x-")] = _quality(parameters)
    zstd, gzip = found.get("zstd", 0.0), found.get("gzip", found.get("*", 0.0))
    if max(zstd, gzip) < found.get("identity", 0.0) or max(zstd, gzip) == 0.0:
        return Encoding.IDENTITY
    return Encoding.ZSTD if zstd >= gzip else Encoding.GZIP


def _media_range(item: str) -> tuple[str, dict[str, str]]:
    kind, *rest = item.split(";")
    parameters = {}
    for part in rest:
        name, _, value = part.partition("=")
        parameters[name.strip().lower()] = value.strip().strip('"')
    return kind.strip().lower(), parameters


def _quality(parameters: dict[str, str]) -> float:
    try:
        quality = float(parameters.get("q", "1"))
    except ValueError:
        return 0.0
    return quality if 0.0 <= quality <= 1.0 else 0.0


def _offer(kind: str, parameters: dict[str, str]) -> Offer | None:
    version = parameters.get("version", "")
    if kind == "application/openmetrics-text" and version in _OPENMETRICS_VERSIONS:
        return Offer(Format.OPENMETRICS, _escaping(parameters))
    if kind == "text/plain":
        if version == "1.0.0":
            return Offer(Format.TEXT_1, _escaping(parameters))
        return DEFAULT_OFFER if version in ("", "0.0.4") else None
    return DEFAULT_OFFER if kind in ("text/*", "*/*") else None


def _escaping(parameters: dict[str, str]) -> Escaping:
    try:
        return Escaping(parameters.get("escaping", Escaping.UNDERSCORES.value))
    except ValueError:
        return Escaping.UNDERSCORES
