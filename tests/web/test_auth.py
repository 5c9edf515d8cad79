"""Who gets in: basic authentication, TLS settings, and who may change state."""

from __future__ import annotations

import base64
from pathlib import Path

import bcrypt
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from exporter.errors import ConfigError
from exporter.web.auth import BasicAuth, WebConfig, changes_state, is_loopback, load_web_config
from exporter.web.server import parse_listen_address

HASH = bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode()


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        (basic("ops", "right"), True),
        (basic("ops", "wrong"), False),
        (basic("nobody", "nobody"), False),
        ("Basic !!!", False),
        ("Bearer abc", False),
        (None, False),
        ("", False),
    ],
)
async def test_only_the_right_password_of_a_user_passes(header: str | None, allowed: bool) -> None:
    """Anything else is refused; an unknown user is checked against a hash as well."""
    auth = BasicAuth({"ops": HASH})
    assert await auth.allows(header) is allowed
    assert await auth.allows(header) is allowed


def test_a_web_config_is_read(tmp_path: Path) -> None:
    """Files are relative to it; headers and users are taken."""
    path = tmp_path / "web.yml"
    path.write_text(
        "tls_server_config: {cert_file: a.crt, key_file: a.key, min_version: TLS13}\n"
        "http_server_config: {headers: {X-Frame-Options: deny}}\n"
        f"basic_auth_users: {{ops: '{HASH}'}}\n"
    )
    config = load_web_config(path)
    assert (config.cert_file, config.key_file) == (tmp_path / "a.crt", tmp_path / "a.key")
    assert config.users == {"ops": HASH}
    assert config.headers == {"X-Frame-Options": "deny"}
    with pytest.raises(ConfigError, match=r"cannot load .*a\.crt"):
        config.ssl_context()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "tls_server_config: {cert_file: a}",
            "web.yml:1:20: tls_server_config needs both cert_file and key_file",
        ),
        ("basic_auth_users: {ops: secret}", 'web.yml:1:25: the password of "ops" is not a bcrypt hash'),
        ("tls_server_confg: {}", 'web.yml:1:1: unknown key "tls_server_confg"'),
        ("tls_server_config: {min_version: SSL3}", 'web.yml:1:34: min_version must not be "SSL3"'),
    ],
)
def test_faults_have_their_place(tmp_path: Path, text: str, message: str) -> None:
    """file:line:column and what would be right."""
    path = tmp_path / "web.yml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_web_config(path)
    assert message in str(caught.value).replace(f"{tmp_path}/", "")


def test_plain_http_needs_no_file() -> None:
    """The default has neither TLS nor users."""
    assert WebConfig().ssl_context() is None


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("", False),
        ("10.1.2.3", False),
    ],
)
def test_loopback_is_this_machine_only(host: str, loopback: bool) -> None:
    """An empty host means every interface."""
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("method", "path", "changes"),
    [
        ("GET", "/api/v1/alerts", False),
        ("POST", "/api/v1/query", False),
        ("POST", "/api/quantum/cron-monitoring", False),
        ("POST", "/-/reload", True),
        ("POST", "/api/v1/alerts/abc/ack", True),
        ("DELETE", "/api/v2/silence/abc", True),
    ],
)
def test_queries_by_post_change_nothing(method: str, path: str, changes: bool) -> None:
    """Reading is reading, whatever the method; the cron endpoint has its own secret."""
    request: web.Request = make_mocked_request(method, path)
    assert changes_state(request) is changes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        (":9464", ("", 9464)),
        ("[::1]:80", ("::1", 80)),
        ("localhost:0", ("localhost", 0)),
    ],
)
def test_listen_addresses(text: str, expected: tuple[str, int]) -> None:
    """HOST:PORT, :PORT and [IPV6]:PORT."""
    assert parse_listen_address(text) == expected


@pytest.mark.parametrize("text", ["9464", "127.0.0.1", "host:port", "::1:80", "a:70000", ""])
def test_other_listen_addresses_are_refused(text: str) -> None:
    """The message shows what is allowed."""
    with pytest.raises(ConfigError, match="allowed: HOST:PORT"):
        parse_listen_address(text)
