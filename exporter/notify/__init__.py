"""From rule evaluations to notifications that arrive: decided once, kept until delivered.

Flow: `dispatch.Dispatcher.handle` gives each evaluation to the `book` (synchronous: routing, cooldown gates,
silences, inhibition; what comes of it is an `outcome.Outcome`), the `store` writes the changes in one
transaction (Postgres, or the journal on disk while it is away), then the new notifications enter the
`outbox`, one lane for each destination; what a lane reports back goes through the book again and is recorded
the same way.

Invariants: nothing is sent before it is recorded; a cooldown is armed in the transaction that records the
delivery; a notification keeps its id over every retry and restart; a slow destination delays no other.

Pure files: the book and its parts (episodes, quiet, agenda, decide, outlook, outcome), records, route, gates,
group, instances, outgoing, message, payload, silences, inhibit, flapping, lanes. The rest are edges; a
receiver (`receivers/`) only renders and posts, retry and order are the outbox's.
Must not import: other edges (db implements `ports.AlertStore`; app.py joins them).
"""
