"""The configuration: what is read, what is refused and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.config.load import load_config, masked
from exporter.errors import ConfigError


def load(tmp_path: Path, text: str, **environ: str):
    path = tmp_path / "config.yml"
    path.write_text(text)
    return load_config(path, environ)


def problems(tmp_path: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, **environ)
    return [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems]


def test_no_file_is_needed() -> None:
    """The built-in configuration: embedded Postgres, shipped rules, providers that need no key."""
    config = load_config(None, {})
    assert config.database.url == ""
    assert config.global_.scrape_interval_ms == 15_000
    assert {name for name, provider in config.collect.providers.items() if provider.enabled} == {
        "coingecko",
        "kraken",
        "blockchain",
    }
    assert config.notification.route.receiver == "log"


def test_the_environment_is_read_without_a_file() -> None:
    """DATABASE_URL, CRON_SECRET and the providers' keys need no file."""
    config = load_config(
        None, {"DATABASE_URL": "postgresql://a@b/c", "CRON_SECRET": "s", "LUNARCRUSH_API_KEY": "k"}
    )
    assert config.database.url == "postgresql://a@b/c"
    assert config.dashboard_api.cron_secret == "s"
    assert config.collect.providers["lunarcrush"].enabled


def test_variables_expand_with_defaults(tmp_path: Path) -> None:
    """`${VAR}` is the value, `${VAR:-default}` the default where it is unset or empty."""
    text = (
        "global: {scrape_interval: '${EVERY:-20s}'}\n"
        "database: {url: '${URL}'}\n"
        "query:\n  max_samples: ${MOST:-7}\n"
    )
    config = load(tmp_path, text, URL="postgresql://x@y/z", EVERY="")
    assert (config.global_.scrape_interval_ms, config.database.url) == (20_000, "postgresql://x@y/z")
    assert config.query.max_samples == 7


def test_an_unset_variable_is_an_error_with_its_place(tmp_path: Path) -> None:
    """The message names the variable and shows how to give a default."""
    assert problems(tmp_path, "database:\n  url: ${NOWHERE}\n") == [
        (
            "config.yml:2:8: the environment variable NOWHERE is not set"
            " (allowed: a default, as in ${NAME:-value})"
        )
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("globl: {}", '1:1: unknown key "globl" in the configuration, did you mean "global"?'),
        ("global:\n  scrape_interval: 15", '2:20: global.scrape_interval: not a valid duration string: "15"'),
        ("database: {url: 'mysql://x'}", "1:17: database.url is not a Postgres URL"),
        ("rule_files: [missing.yml]", "1:14: no such file"),
        ("query: {url: 'ftp://x'}", '1:14: query.url: "ftp://x" is not a URL'),
        ("collect: {system: maybe}", "1:19: collect.system must be true or false"),
        ("collect: {target: []}", '1:11: unknown key "target" in collect, did you mean "targets"?'),
        ("collect: {targets: [{}]}", "1:21: a job of collect.targets needs a job_name"),
        ("route: {receiver: nobody}", "nobody"),
        ("global: [", "not valid YAML"),
        ("global: {}\nglobal: {}", 'key "global" is given twice, first in line 1'),
    ],
)
def test_faults_name_their_place_and_what_is_right(tmp_path: Path, text: str, message: str) -> None:
    """file:line:column, what is wrong, what is allowed."""
    found = problems(tmp_path, text)
    assert any(message in problem for problem in found), found
    assert all(problem.startswith("config.yml") for problem in found)


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    """One run of the check shows every problem, in file order."""
    found = problems(tmp_path, "global: {scrape_interval: x}\nstorage: {head_window: y}\nfoo: 1\n")
    assert [problem.split(":")[1] for problem in found] == ["1", "2", "3"]


def test_files_are_relative_to_the_configuration(tmp_path: Path) -> None:
    """Globs expand beside the file that names them."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.yml").write_text("groups: []\n")
    config = load(tmp_path, "rule_files: ['mine/*.yml']\n")
    assert config.rule_files == (tmp_path / "mine" / "a.yml",)


def test_secrets_are_masked_on_the_status_page() -> None:
    """Values of keys, secrets, passwords and URLs are hidden; variables stay as written."""
    shown = masked("api_key: abc\nurl: postgresql://u:p@h/d\ncron_secret: ${CRON_SECRET:-}\nretention: 30d\n")
    assert shown == "api_key: <secret>\nurl: <secret>\ncron_secret: ${CRON_SECRET:-}\nretention: 30d\n"


def test_a_secret_can_come_from_a_file(tmp_path: Path) -> None:
    """VAR_FILE names the file that holds VAR; VAR itself wins, an empty VAR does not."""
    secret = tmp_path / "secret"
    secret.write_text("from the file\n")
    text = "dashboard_api: {cron_secret: '${CRON:-default}'}\n"
    for environ, wanted in (
        ({"CRON_FILE": str(secret)}, "from the file"),
        ({"CRON_FILE": str(secret), "CRON": ""}, "from the file"),
        ({"CRON_FILE": str(secret), "CRON": "set"}, "set"),
        ({"CRON_FILE": ""}, "default"),
    ):
        assert load(tmp_path, text, **environ).dashboard_api.cron_secret == wanted


def test_a_secret_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing file is a problem, even where there is a default."""
    text = "dashboard_api:\n  cron_secret: '${CRON:-default}'\n"
    (problem,) = problems(tmp_path, text, CRON_FILE=str(tmp_path / "missing"))
    assert problem.startswith("config.yml:2:16: CRON_FILE: cannot read missing: No such file")
