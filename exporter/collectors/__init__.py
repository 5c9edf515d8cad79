"""Collectors: they yield metric families when asked, on the exporter's own clock, never on a scrape.

Flow: `base.CollectorRunner` runs each `Collector` in a task of its own at its own interval, with its own
time-out; what it yields replaces what it yielded before in the registry, so that a row that vanished is gone
from the next snapshot. A collector that fails loses its families (the snapshot writes markers), is
counted, and is logged once until it works again; the others do not notice.

`system` reads psutil; `sql` runs declared queries (`sqlconfig` reads the declarations) on any database that
fits the port in `ports`; `postgres` is a set of such declarations plus the probe behind
`quantum_database_up`. `rows` (pure) turns the rows of a query into families and says which values it refused.
Never two runs of one collector at once. Must not import other edges.
"""
