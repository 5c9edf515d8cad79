"""Renders /metrics from prepared lines: only what changed since the last rendering is formatted again.

Flow of one request: negotiate -> join the rendering of this kind that runs already, or start one -> read
the instruments on the event loop (some 60 ns a sample, so that no observation falls between the buckets of
one histogram) -> format and compress, in a worker thread when there is much of it.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import zstandard
from prometheus_client import CollectorRegistry

from exporter.births import mass_birth
from exporter.clock import Clock, SystemClock
from exporter.errors import InputError
from exporter.model.samples import Float64s
from exporter.observe.families import FamilyValues, Layout, RegistryReader, Source
from exporter.web import exposition_text as text
from exporter.web.metrics import ExpositionMetrics
from exporter.web.negotiate import Encoding, Format, Offer, Wanted, choose_encoding, choose_offer, subsystem

_BLOCK = 4096  # lines joined by one C call, which nothing can interrupt: under 2 ms
_INLINE_SAMPLES = 2000  # below this a hop into a thread costs more than the rendering
_LEVEL = 1  # half the time of gzip's level 6 for a tenth more bytes, on the wire between neighbours

_READ_SLICE = 20_000  # samples read on the event loop in one go, some 2 ms

_Key: TypeAlias = tuple[Offer, Encoding, Wanted]


class ExpositionPage:
    """/metrics of one registry. Belongs to one event loop.

    `on_error` hears of collectors that raised; their families are missing from the page. `metrics` are of the
    page itself, timed by `clock`.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        on_error: Callable[[object, Exception], None] | None = None,
        *,
        metrics: ExpositionMetrics | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._metrics = metrics or ExpositionMetrics(CollectorRegistry())
        self._clock = clock or SystemClock()
        self._reader = RegistryReader(registry, on_error)
        self._renderers: dict[tuple[Offer, bool], Renderer] = {}
        self._running: dict[_Key, asyncio.Task[bytes]] = {}
        self._lock = asyncio.Lock()  # the reader and the prepared lines serve one rendering at a time

    async def render(
        self, accept: str, accept_encoding: str, wanted: Wanted | None = None
    ) -> tuple[bytes, Mapping[str, str]]:
        """The body and headers for one request; `wanted` is everything by default.

        A request that comes while an equal one is being answered gets the same bytes.
        Raises: InputError where `collect` or `exclude` names an unknown subsystem, or both are given.
        """
        offer, encoding = choose_offer(accept), choose_encoding(accept_encoding)
        wanted = wanted or Wanted()
        if wanted.collect and wanted.exclude:
            raise InputError("collect[] and exclude[] cannot be given together")
        self._metrics.requests.inc()
        # shielded: one client that hangs up must not cancel the others' answer
        body = await asyncio.shield(self._shared((offer, encoding, wanted)))
        headers = {"Content-Type": offer.content_type, "Vary": "Accept, Accept-Encoding"}
        if encoding is not Encoding.IDENTITY:
            headers["Content-Encoding"] = encoding.value
        return body, headers

    def _shared(self, key: _Key) -> asyncio.Task[bytes]:
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(self._answer(key), name="render exposition")
            self._running[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        return task

    def _forget(self, key: _Key, task: asyncio.Task[bytes]) -> None:
        self._running.pop(key, None)
        if not task.cancelled():
            task.exception()  # nobody may be left who waits for it

    async def _answer(self, key: _Key) -> bytes:
        offer, encoding, wanted = key
        if encoding is Encoding.IDENTITY:
            async with self._lock:
                started = self._clock.monotonic()
                body = await self._render(offer, wanted)
                self._metrics.duration.observe(self._clock.monotonic() - started)
                return body
        plain = await asyncio.shield(self._shared((offer, Encoding.IDENTITY, wanted)))
        return await asyncio.to_thread(_compressed, plain, encoding)

    async def _render(self, offer: Offer, wanted: Wanted) -> bytes:
        extras = {"exemplars": offer.format is Format.OPENMETRICS, "created": wanted.created}
        sources = self._reader.sources()
        read: list[Sequence[FamilyValues] | Source] = []
        since = 0
        for source in sources:
            if not source.quick:
                read.append(source)
                continue
            families = self._reader.read_source(source, **extras)
            read.append(families)
            since += sum(len(family.values) for family in families)
            if since >= _READ_SLICE:  # between two families others may run
                since = 0
                await asyncio.sleep(0)
        renderer = self._renderers.setdefault((offer, wanted.created), Renderer(offer))
        if all(source.quick for source in sources) and _samples(read) <= _INLINE_SAMPLES:
            return self._finish(renderer, read, extras, wanted)
        return await asyncio.to_thread(self._finish_many, renderer, read, extras, wanted)

    def _finish_many(
        self,
        renderer: Renderer,
        read: Sequence[Sequence[FamilyValues] | Source],
        extras: Mapping[str, bool],
        wanted: Wanted,
    ) -> bytes:
        with mass_birth():
            return self._finish(renderer, read, extras, wanted)

    def _finish(
        self,
        renderer: Renderer,
        read: Sequence[Sequence[FamilyValues] | Source],
        extras: Mapping[str, bool],
        wanted: Wanted,
    ) -> bytes:
        families: list[FamilyValues] = []
        for item in read:
            # a foreign collect() may read files or take its time: not on the event loop
            found = item if isinstance(item, Sequence) else self._reader.read_source(item, **extras)
            families.extend(found)
        if wanted.everything:
            self._metrics.samples.set(sum(len(family.values) for family in families))
            return renderer.render(families)
        if wanted.collect or wanted.exclude:
            families = _of_subsystems(families, wanted)
        if wanted.names:
            families = _named(families, frozenset(wanted.names))
        return Renderer(renderer.offer).render(families)


def _compressed(plain: bytes, encoding: Encoding) -> bytes:
    if encoding is Encoding.ZSTD:
        return zstandard.ZstdCompressor(level=_LEVEL).compress(plain)
    return gzip.compress(plain, _LEVEL, mtime=0)


def _samples(read: Sequence[Sequence[FamilyValues] | Source]) -> int:
    return sum(len(family.values) for item in read if isinstance(item, Sequence) for family in item)


def _of_subsystems(families: Sequence[FamilyValues], wanted: Wanted) -> list[FamilyValues]:
    """The families that collect[] or exclude[] leave. Raises: InputError for an unknown subsystem."""
    known = {subsystem(family.layout.name) for family in families}
    for name in (*wanted.collect, *wanted.exclude):
        if name not in known:
            raise InputError(f'missing collector: "{name}" (allowed: {", ".join(sorted(known))})')
    return [
        family
        for family in families
        if (subsystem(family.layout.name) in wanted.collect if wanted.collect
            else subsystem(family.layout.name) not in wanted.exclude)
    ]  # fmt: skip


def _named(families: Sequence[FamilyValues], names: frozenset[str]) -> list[FamilyValues]:
    kept = []
    for family in families:
        layout = family.layout
        if layout.name in names:
            kept.append(family)
            continue
        rows = [row for row, (name, _) in enumerate(layout.keys) if name in names]
        if rows:
            keys = tuple(layout.keys[row] for row in rows)
            part = Layout(layout.name, layout.kind, layout.help, layout.unit, keys, layout.starts_at_zero)
            stamps = family.timestamps
            kept.append(
                FamilyValues(
                    part,
                    family.values[rows],
                    tuple(stamps[row] for row in rows) if stamps else None,
                    {at: family.exemplars[row] for at, row in enumerate(rows) if row in family.exemplars},
                )
            )
    return kept


class Renderer:
    """Renders one registry in one format again and again, keeping the lines of each family."""

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        self._pages: list[_FamilyPage] = []

    def render(self, families: Sequence[FamilyValues]) -> bytes:
        """The exposition of these families."""
        known = {page.layout: page for page in self._pages}
        by_name = {page.layout.name: page for page in self._pages}
        self._pages = []
        chunks: list[bytes] = []
        for family in families:
            page = known.get(family.layout) or _FamilyPage(
                family.layout, self.offer, by_name.get(family.layout.name)
            )
            self._pages.append(page)
            chunks.extend(page.render(family))
        if self.offer.format is Format.OPENMETRICS:
            chunks.append(b"# EOF\n")
        return b"".join(chunks)


@dataclass(slots=True)
class _Block:
    """Rows lo..hi of a family and their lines as bytes."""

    lo: int
    hi: int
    lines: bytes = b""


class _FamilyPage:
    """The lines of one family: prefixes, value texts and joined blocks; valid for one layout."""

    def __init__(self, layout: Layout, offer: Offer, old: _FamilyPage | None) -> None:
        self.layout = layout
        self._offer = offer
        self._head = text.family_head(layout, offer).encode()
        self._apart = text.apart(layout, offer)
        self._prefixes = self._prepare(old)
        self._values: Float64s | None = None
        self._texts: list[str] = []
        self._blocks = [
            _Block(lo, min(lo + _BLOCK, len(layout.keys))) for lo in range(0, len(layout.keys), _BLOCK)
        ]

    def _prepare(self, old: _FamilyPage | None) -> list[str]:
        keys = self.layout.keys
        known: list[str] = []
        if old is not None:
            size = len(old.layout.keys)
            if keys[:size] == old.layout.keys:  # the usual change: series were added at the end
                known = old._prefixes
            else:
                table = dict(zip(old.layout.keys, old._prefixes, strict=True))
                return [table.get(key) or text.line_prefix(*key, self._offer) for key in keys]
        return known + [text.line_prefix(*key, self._offer) for key in keys[len(known) :]]

    def render(self, family: FamilyValues) -> list[bytes]:
        """The family as chunks of bytes."""
        if self._apart or family.timestamps is not None or family.exemplars:
            self._values = None
            return [self._head, self._line_by_line(family)]
        changed = self._update(family.values)
        for block in self._blocks:
            if changed is None or changed[block.lo : block.hi].any():
                lines = text.join_lines(self._prefixes[block.lo : block.hi], self._texts[block.lo : block.hi])
                block.lines = lines.encode()
        return [self._head, *(block.lines for block in self._blocks)]

    def _update(self, values: Float64s) -> npt.NDArray[np.bool_] | None:
        """Bring the value texts up to date; which rows changed, or None for all."""
        old, self._values = self._values, values
        if old is None or len(old) != len(values):
            self._texts = []
            for lo in range(0, len(values), _BLOCK):
                self._texts += text.value_texts(values[lo : lo + _BLOCK])
            return None
        # compared as bits: NaN equals itself, and 0.0 differs from -0.0
        changed: npt.NDArray[np.bool_] = old.view(np.uint64) != values.view(np.uint64)
        for block in self._blocks:
            rows = np.flatnonzero(changed[block.lo : block.hi])
            if len(rows) * 2 > block.hi - block.lo:
                self._texts[block.lo : block.hi] = text.value_texts(values[block.lo : block.hi])
            elif len(rows):
                rows += block.lo
                for row, value in zip(rows.tolist(), text.value_texts(values[rows]), strict=True):
                    self._texts[row] = value
        return changed

    def _line_by_line(self, family: FamilyValues) -> bytes:
        stamps = family.timestamps
        tails = text.value_texts(family.values)
        for row in range(len(tails)):
            if stamps is not None:
                tails[row] += text.timestamp_text(stamps[row], self._offer)
            if row in family.exemplars and self._offer.format is Format.OPENMETRICS:
                tails[row] += text.exemplar_text(family.exemplars[row])
        elsewhere = {row for rows in self._apart.values() for row in rows}
        rows = [row for row in range(len(tails)) if row not in elsewhere]
        parts = [text.join_lines(text.pick(self._prefixes, rows), text.pick(tails, rows))]
        for name, own in self._apart.items():
            parts.append(text.head_apart(name, self.layout, self._offer))
            parts.append(text.join_lines(text.pick(self._prefixes, own), text.pick(tails, own)))
        return "".join(parts).encode()
