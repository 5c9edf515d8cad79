"""Alerts beyond Prometheus' API: history, acknowledgement, resolution by hand, why, silences."""

from __future__ import annotations
