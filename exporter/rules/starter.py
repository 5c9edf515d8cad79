"""The first rule of one's own, and its unit test, that `quantum-exporter init` writes."""

from __future__ import annotations

STARTER_RULES = """\
# Your own rules. Check:  quantum-exporter check rules rules/mine.yml
#                  Test:   quantum-exporter test rules rules/tests/mine_test.yml
#                  Load:   kill -HUP, or POST /-/reload
#                  Ask:    quantum-exporter why BitcoinBelow
groups:
  - name: mine
    rules:
      - alert: BitcoinBelow
        expr: avg(quantum_btc_price_usd) < 20000
        for: 1m                         # it must hold that long before it fires
        cooldown: 30m                   # no second message within this time after one that was delivered
        labels:
          severity: warning             # critical, warning or info
        annotations:
          summary: "Bitcoin is at {{ printf \\"%.0f\\" $value }} USD"
          description: "The mean of the providers' prices is below 20000 USD."
          runbook_url: https://example.org/runbooks/bitcoin-below
"""

STARTER_TEST = """\
# promtool's format; exp_notifications is an addition: what is sent once the cooldown has had its say.
rule_files: [../mine.yml]
evaluation_interval: 15s
tests:
  - name: fires after a minute below 20000
    interval: 15s
    input_series:
      - series: quantum_btc_price_usd{provider="kraken"}
        values: 21000x4 19000x20
    alert_rule_test:
      - alertname: BitcoinBelow
        eval_time: 1m
        exp_alerts: []
      - alertname: BitcoinBelow
        eval_time: 3m
        exp_alerts:
          - exp_labels: {severity: warning}
            exp_annotations:
              summary: Bitcoin is at 19000 USD
              description: The mean of the providers' prices is below 20000 USD.
              runbook_url: https://example.org/runbooks/bitcoin-below
"""
