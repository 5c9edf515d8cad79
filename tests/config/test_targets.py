"""`collect.targets` is read under Prometheus' names; anything else is refused with its place."""

from __future__ import annotations

import pytest

from exporter.config.positions import Reader, parse_yaml
from exporter.config.targets import (
    DEFAULT_BODY_LIMIT,
    DEFAULT_SAMPLE_LIMIT,
    ScrapeJob,
    TargetGroup,
    check_timing,
    read_target_file,
    read_targets,
)
from exporter.errors import InputError
from exporter.ingest.relabel import RelabelAction, RelabelRule
from exporter.ingest.target import Limits


def read(text: str) -> tuple[tuple[ScrapeJob, ...], list[str]]:
    reader = Reader("c.yml")
    jobs = read_targets(reader, parse_yaml(text, "c.yml"))
    return jobs, [str(problem) for problem in reader.problems]


def test_defaults() -> None:
    """Prometheus' defaults, and bounds on size where it has none."""
    (job,), problems = read("[{job_name: node, static_configs: [{targets: ['h:1']}]}]")
    assert problems == []
    assert job == ScrapeJob("node", static=(TargetGroup(("h:1",)),))
    assert (job.metrics_path, job.scheme, job.honor_labels, job.honor_timestamps) == (
        "/metrics",
        "http",
        False,
        True,
    )
    assert (job.limits, job.body_size_limit) == (Limits(DEFAULT_SAMPLE_LIMIT), DEFAULT_BODY_LIMIT)
    assert (job.timing(15_000), job.timing(5_000)) == ((15_000, 10_000), (5_000, 5_000))


def test_every_key() -> None:
    """All keys that are taken, together."""
    (job,), problems = read("""
- job_name: all
  static_configs: [{targets: ["h:1", "h:2"], labels: {zone: z1}}]
  file_sd_configs: [{files: ["t/*.json", "/etc/t.yml"], refresh_interval: 5m}]
  scrape_interval: 30s
  scrape_timeout: 5s
  metrics_path: /m
  scheme: https
  params: {module: [a, b]}
  honor_labels: true
  honor_timestamps: false
  relabel_configs:
    - {source_labels: [__address__, zone], separator: "-", regex: "(.*)-z1", target_label: at}
  metric_relabel_configs:
    - {action: Drop, source_labels: [__name__], regex: go_.*}
    - {action: hashmod, source_labels: [a], target_label: b, modulus: 8}
  sample_limit: 0
  label_limit: 1
  label_name_length_limit: 2
  label_value_length_limit: 3
  body_size_limit: 10MB
  basic_auth: {username: u, password_file: p}
  tls_config: {ca_file: ca, insecure_skip_verify: true, server_name: s}
  follow_redirects: false
""")
    assert problems == []
    assert job.static == (TargetGroup(("h:1", "h:2"), (("zone", "z1"),)),)
    assert job.files == ("t/*.json", "/etc/t.yml")
    assert (job.interval_ms, job.timeout_ms) == (30_000, 5_000)
    assert job.params == (("module", ("a", "b")),)
    assert (job.honor_labels, job.honor_timestamps) == (True, False)
    assert job.relabel == (
        RelabelRule(RelabelAction.REPLACE, ("__address__", "zone"), "-", "(.*)-z1", "at", "$1"),
    )
    assert [rule.action for rule in job.metric_relabel] == [RelabelAction.DROP, RelabelAction.HASHMOD]
    assert (job.limits, job.body_size_limit) == (Limits(0, 1, 2, 3), 10 * 1024**2)
    assert (job.http.username, job.http.password_file, job.http.follow_redirects) == ("u", "p", False)
    assert (job.http.ca_file, job.http.server_name, job.http.insecure_skip_verify) == ("ca", "s", True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{}]", "c.yml:1:2: a job of collect.targets needs a job_name"),
        ("{}", "must be a list"),
        ("[{job_name: a}, {job_name: a}]", 'c.yml:1:17: the job_name "a" is given twice'),
        ("[{job_name: a, kubernetes_sd_configs: []}]", 'c.yml:1:16: unknown key "kubernetes_sd_configs"'),
        ("[{job_name: a, static_configs: [{targets: ['http://h/']}]}]", "without scheme or path"),
        ("[{job_name: a, static_configs: [{targets: [h], labels: {a-b: c}}]}]", '"a-b" is not a label name'),
        ("[{job_name: a, scheme: ftp}]", 'scheme must not be "ftp"'),
        ("[{job_name: a, scrape_interval: 0s}]", "scrape_interval must be at least"),
        ("[{job_name: a, scrape_interval: 1s, scrape_timeout: 2s}]", "must not be longer"),
        ("[{job_name: a, sample_limit: -1}]", "sample_limit must be 0 or more"),
        ("[{job_name: a, body_size_limit: lots}]", 'body_size_limit: "lots" is not a size'),
        ("[{job_name: a, file_sd_configs: [{}]}]", "file_sd_configs needs files"),
        ("[{job_name: a, file_sd_configs: [{files: [x.txt]}]}]", "must end in .json, .yml or .yaml"),
        ("[{job_name: a, file_sd_configs: [{files: ['*/x.json']}]}]", "* only in the last part"),
        ("[{job_name: a, relabel_configs: [{action: nothing}]}]", '"nothing" is not an action'),
        ("[{job_name: a, relabel_configs: [{action: replace}]}]", "replace needs target_label"),
        ("[{job_name: a, relabel_configs: [{regex: '(', target_label: b}]}]", "error parsing regexp"),
        ("[{job_name: a, relabel_configs: [{action: hashmod, target_label: b}]}]", "hashmod needs a modulus"),
        (
            "[{job_name: a, relabel_configs: [{action: labeldrop, regex: a, target_label: b}]}]",
            "labeldrop takes only regex, not target_label",
        ),
        ("[{job_name: a, relabel_configs: [{target_label: 'a-b'}]}]", '"a-b" is not a label name'),
        ("[{job_name: a, basic_auth: {user: x}}]", 'unknown key "user"'),
        ("[{job_name: a, basic_auth: {}, authorization: {}}]", "one of authorization and basic_auth"),
    ],
)
def test_faults(text: str, message: str) -> None:
    """Place, fault, and what would be right."""
    _, problems = read(text)
    assert any(message in problem for problem in problems), problems
    assert all(problem.startswith("c.yml:1:") for problem in problems)


def test_a_timeout_beyond_the_global_interval() -> None:
    """A job without an interval is checked against the one of `global`."""
    reader = Reader("c.yml")
    node = parse_yaml("[{job_name: a, scrape_timeout: 20s}]", "c.yml")
    check_timing(reader, node, read_targets(reader, node), 15_000)
    assert "longer than global.scrape_interval" in str(reader.problems[0])


def test_target_files() -> None:
    """YAML and JSON; a bad one is refused whole, with the place."""
    groups = (TargetGroup(("h:1",), (("a", "b"),)),)
    assert read_target_file('[{"targets": ["h:1"], "labels": {"a": "b"}}]', "t.json") == groups
    assert read_target_file("- targets: [h:1]\n  labels: {a: b}\n", "t.yml") == groups
    for text in ("[{", "{}", "- target: [h]\n", "- targets: [h/x]\n"):
        with pytest.raises(InputError, match=r"t\.yml:[12]:"):
            read_target_file(text, "t.yml")
