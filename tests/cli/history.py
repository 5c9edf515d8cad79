"""An OpenMetrics file with a day of incidents, for the commands that read history."""

from __future__ import annotations

from pathlib import Path

START_S = 1_700_000_000
STEPS = 1440  # a minute apart
END_S = START_S + 60 * (STEPS - 1)

RULES = """
groups:
- name: g
  interval: 1m
  rules:
  - {alert: High, expr: level > 0.5, for: 2m, cooldown: 1h, labels: {severity: warning}}
  - {alert: Down, expr: up == 0, cooldown: 30m, labels: {severity: critical}}
  - {record: level:max, expr: max(level)}
  - {alert: Never, expr: level:max > 5, labels: {severity: info}}
"""


def write_history(folder: Path) -> Path:
    """level{a="1"} is 0.9 for half an hour of every four; up is 0 for ten minutes."""
    lines = []
    for a in ("1", "2"):
        for at in range(STEPS):
            value = 0.9 if a == "1" and at % 240 >= 210 else 0.1 + 0.0001 * (at % 97)
            lines.append(f'level{{a="{a}"}} {value!r} {START_S + 60 * at}')
    lines += [f"up {int(not 700 <= at < 710)} {START_S + 60 * at}" for at in range(STEPS)]
    lines += [f"unread {at} {START_S + 60 * at}" for at in range(STEPS)]
    path = folder / "history.txt"
    path.write_text("\n".join([*lines, "# EOF\n"]))
    (folder / "rules.yml").write_text(RULES)
    (folder / "other.yml").write_text(RULES.replace("> 0.5", "> 0.95"))
    return path
