"""Rules: from a rule file to samples, alert instances and their transitions.

Flow: `format` turns YAML into `model` rules, or all problems at once; `schedule` says when a group is due;
`group.evaluate_group` runs its rules in order through a query function, `recording` and `alert.advance` turn
each vector into samples and transitions; `ruletest` drives the same path over made-up series.

Invariants: time is an argument everywhere; a query or template that fails leaves the state of its rule
untouched; the state machine exists once, for live runs, rule tests and backtests. PURE: no clock, no IO.
"""
