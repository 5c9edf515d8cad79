"""TLS and basic authentication from a web configuration file, and who may change state.

Source: Prometheus' exporter-toolkit web configuration. Passwords are bcrypt hashes; a password that was
right once is remembered (as a keyed hash, in memory), since bcrypt costs tens of milliseconds by design.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import ipaddress
import secrets
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import bcrypt
from aiohttp import web

from exporter.config.positions import Reader, YamlNode, parse_yaml
from exporter.errors import ConfigError

_VERSIONS = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}
_CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "RequestClientCert": ssl.CERT_OPTIONAL,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAnyClientCert": ssl.CERT_REQUIRED,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
# A hash to check against for a user that does not exist, so that both cost the same time.
_NOBODY = bcrypt.hashpw(b"nobody", bcrypt.gensalt(10))


@dataclass(frozen=True, slots=True)
class WebConfig:
    """What a web configuration file says; the default is plain HTTP without authentication."""

    cert_file: Path | None = None
    key_file: Path | None = None
    client_ca_file: Path | None = None
    client_auth: str = "NoClientCert"
    min_version: str = "TLS12"
    max_version: str = "TLS13"
    headers: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[str, str] = field(default_factory=dict)

    def ssl_context(self) -> ssl.SSLContext | None:
        """The server's TLS context, or None for plain HTTP.

        Raises: ConfigError where a certificate or key cannot be loaded.
        """
        if self.cert_file is None or self.key_file is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = _VERSIONS[self.min_version]
        context.maximum_version = _VERSIONS[self.max_version]
        try:
            context.load_cert_chain(self.cert_file, self.key_file)
            if self.client_ca_file is not None:
                context.load_verify_locations(self.client_ca_file)
        except OSError as error:
            raise ConfigError(f"TLS: cannot load {self.cert_file} and {self.key_file}: {error}") from error
        context.verify_mode = _CLIENT_AUTH[self.client_auth]
        return context


def load_web_config(path: Path) -> WebConfig:
    """Read a web configuration file; file names in it are relative to it.

    Raises: ConfigError with every problem, each with file:line:column.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the web configuration {path}: {error}") from error
    reader = Reader(str(path))
    root = parse_yaml(text, str(path))
    entries = reader.mapping(
        root, "the web configuration", ("tls_server_config", "http_server_config", "basic_auth_users")
    )
    tls = _read_tls(reader, entries.get("tls_server_config"), path.parent)
    headers: dict[str, str] = {}
    if (http := entries.get("http_server_config")) is not None:
        settings = reader.mapping(http, "http_server_config", ("headers",))
        if "headers" in settings:
            headers = reader.string_map(settings["headers"], "headers")
    users: dict[str, str] = {}
    if (node := entries.get("basic_auth_users")) is not None:
        users = reader.string_map(node, "basic_auth_users")
        for name, value in users.items():
            if not value.startswith(("$2a$", "$2b$", "$2y$")):
                reader.problem(
                    (node.entries or {})[name],
                    f'the password of "{name}" is not a bcrypt hash',
                    "the output of htpasswd -nBC 10 USER",
                )
    if reader.problems:
        raise ConfigError(reader.problems)
    return WebConfig(headers=headers, users=users, **tls)  # type: ignore[arg-type]


def _read_tls(reader: Reader, node: YamlNode | None, base: Path) -> dict[str, Path | str]:
    if node is None:
        return {}
    known = ("cert_file", "key_file", "client_ca_file", "client_auth_type", "min_version", "max_version")
    entries = reader.mapping(node, "tls_server_config", known)
    found: dict[str, Path | str] = {}
    for name in ("cert_file", "key_file", "client_ca_file"):
        if name in entries and (text := reader.string(entries[name], name)):
            found[name] = base / text
    if ("cert_file" in found) != ("key_file" in found):
        reader.problem(node, "tls_server_config needs both cert_file and key_file")
    if "client_auth_type" in entries:
        found["client_auth"] = (
            reader.choice(entries["client_auth_type"], "client_auth_type", _CLIENT_AUTH) or "NoClientCert"
        )
    for name in ("min_version", "max_version"):
        if name in entries:
            found[name] = reader.choice(entries[name], name, _VERSIONS) or "TLS12"
    return found


def is_loopback(host: str) -> bool:
    """Whether a listen address is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class BasicAuth:
    """Checks the Authorization header against the users of a web configuration."""

    def __init__(self, users: Mapping[str, str]) -> None:
        self._users = users
        self._key = secrets.token_bytes(32)
        self._right: set[bytes] = set()

    async def allows(self, header: str | None) -> bool:
        """Whether the header names a user with the right password."""
        scheme, _, encoded = (header or "").partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            user, found, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        if not found:
            return False
        token = hmac.digest(self._key, f"{user}:{password}".encode(), hashlib.sha256)
        if token in self._right:
            return True
        stored = self._users[user].encode() if user in self._users else _NOBODY
        right = await asyncio.to_thread(_matches, password.encode(), stored) and user in self._users
        if right and len(self._right) < 1000:
            self._right.add(token)
        return right


def _matches(password: bytes, stored: bytes) -> bool:
    try:
        return bcrypt.checkpw(password[:72], stored)
    except ValueError:
        return False


def changes_state(request: web.Request) -> bool:
    """Whether a request changes something; queries by POST do not, cron has its own secret."""
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return False
    path = request.path
    if path == "/api/quantum/cron-monitoring":
        return False
    reads = (
        "/api/v1/query",
        "/api/v1/query_range",
        "/api/v1/series",
        "/api/v1/labels",
        "/api/v1/format_query",
    )
    return path not in (*reads, "/api/v1/parse_query", "/api/v1/query_exemplars")
