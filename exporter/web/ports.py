"""What the HTTP handlers need from the rest of the program."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from exporter.clock import Clock
from exporter.ingest.scrape_parser import Metadata
from exporter.model.found import Found
from exporter.model.labels import LabelSet, Matcher
from exporter.promql.explain import Step
from exporter.promql.values import Result
from exporter.rules.evaluation import GroupView
from exporter.web.negotiate import Wanted


class QueryService(Protocol):
    """PromQL and label queries, evaluated off the event loop. All raise QueryError."""

    def instant_now(
        self, text: str, ts_ms: int, *, timeout_s: float | None = None, lookback_delta_ms: int | None = None
    ) -> Result | None:
        """As `instant` where that is a matter of microseconds, else None."""

    async def instant(
        self, text: str, ts_ms: int, *, timeout_s: float | None = None, lookback_delta_ms: int | None = None
    ) -> Result:
        """Evaluate at one time."""

    async def range(
        self,
        text: str,
        start_ms: int,
        end_ms: int,
        step_ms: int,
        *,
        timeout_s: float | None = None,
        lookback_delta_ms: int | None = None,
    ) -> Result:
        """Evaluate at each step of a range."""

    async def explain(self, text: str, ts_ms: int, *, timeout_s: float | None = None) -> tuple[Result, Step]:
        """The answer of an instant query and the tree of its sub-expressions."""

    async def series(
        self, matcher_sets: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int
    ) -> Found[LabelSet]:
        """The series that match any set, in label order."""

    async def label_names(
        self, matcher_sets: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int
    ) -> Found[str]:
        """The label names of the matching series, sorted."""

    async def label_values(
        self, name: str, matcher_sets: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int
    ) -> Found[str]:
        """The values of one label, sorted."""


class RuleService(Protocol):
    """The rules that run."""

    def groups(self) -> Sequence[GroupView]:
        """All groups, in file and group order."""


class Exposition(Protocol):
    """Renders /metrics."""

    async def render(
        self, accept: str, accept_encoding: str, wanted: Wanted
    ) -> tuple[bytes, Mapping[str, str]]:
        """The body and its headers for one request. Raises: InputError for a part that is not there."""


class AlertActions(Protocol):
    """What people may see and do about alerts. Raises: NotFoundError and other ExporterErrors, ValueError."""

    async def alerts(self, matchers: Sequence[Matcher] = ()) -> Sequence[Mapping[str, Any]]:
        """Pending and firing instances with their outlook."""

    async def alerts_v2(self, matchers: Sequence[Matcher] = ()) -> list[dict[str, Any]]:
        """Firing instances as Alertmanager shows them."""

    async def find(self, **wanted: Any) -> Sequence[Mapping[str, Any]]:
        """Episodes that fit the filters."""

    async def acknowledge(self, alert_id: str, by: str, notes: str = "") -> Mapping[str, Any]:
        """Stop the repetitions of an episode."""

    async def resolve(self, alert_id: str, by: str, notes: str = "") -> Mapping[str, Any]:
        """Resolve an episode by hand."""

    def silences(self, matchers: Sequence[Matcher] = ()) -> Sequence[Mapping[str, Any]]:
        """All silences."""

    def silence(self, silence_id: str) -> Mapping[str, Any]:
        """One silence."""

    async def set_silence(self, document: object) -> str:
        """Make or change a silence; returns its id."""

    async def expire_silence(self, silence_id: str) -> None:
        """End a silence."""


class WhyAnswers(Protocol):
    """Explains why an alert did, or did not, fire or notify."""

    async def why(
        self, alert: str, at_ms: int | None = None, matchers: Sequence[Matcher] = ()
    ) -> Mapping[str, Any]:
        """One document. Raises: NotFoundError, QueryError."""


class ReplicaService(Protocol):
    """Which replica of this database notifies."""

    def leader_url(self) -> str:
        """Where the replica is that notifies in this one's place; '' where it is this one, or not known."""

    def document(self) -> Mapping[str, Any]:
        """What this replica tells the others of itself."""


@dataclass(frozen=True, slots=True)
class Status:
    """Facts for /api/v1/status/* and the metadata endpoint."""

    started_ms: int
    config_yaml: Callable[[], str]
    flags: Mapping[str, str]
    runtime: Callable[[], Mapping[str, Any]]
    head_stats: Callable[[], Mapping[str, Any]]  # may be slow: called in a thread
    metadata: Callable[[], Mapping[str, tuple[str, str, str]]]  # name -> (type, help, unit)
    alertmanagers: Callable[[], Sequence[str]]
    targets: Callable[[], Mapping[str, Any]]
    scrape_pools: Callable[[], Sequence[str]] = tuple
    scraped_metadata: Callable[[], Sequence[tuple[LabelSet, Mapping[str, Metadata]]]] = tuple  # by target


@dataclass(frozen=True, slots=True)
class Deps:
    """Everything the application is built from."""

    clock: Clock
    queries: QueryService
    rules: RuleService
    exposition: Exposition
    status: Status
    alerts: Callable[[], AlertActions]
    ready: Callable[[], str]  # '' when ready, else what is missing
    reload: Callable[[], Awaitable[None]]  # raises InputError
    dashboard: Callable[[], Awaitable[Mapping[str, Any]]]
    run_checks: Callable[[], Awaitable[Mapping[str, Any]]]
    cron_secret: Callable[[], str]
    why: WhyAnswers | None = None
    replicas: ReplicaService | None = None
    cache_stats: Callable[[], Mapping[str, Any]] = dict  # of the upstream client
    rate_limits: Callable[[], Mapping[str, Any]] = dict
