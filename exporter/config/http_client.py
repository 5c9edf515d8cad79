"""HTTP client settings of receivers and Alertmanagers, in the names of Prometheus' http_config. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from exporter.config.positions import Reader, YamlNode

HTTP_CLIENT_KEYS = (
    "authorization", "basic_auth", "tls_config", "follow_redirects", "proxy_url", "http_headers",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class HttpClientConfig:
    """How to speak to a server. Secrets are hidden in `repr`; files are read at each use.

    `headers` are (name, value) pairs. An empty string means not set.
    """

    auth_type: str = "Bearer"
    credentials: str = field(default="", repr=False)
    credentials_file: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    password_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    server_name: str = ""
    insecure_skip_verify: bool = False
    follow_redirects: bool = True
    proxy_url: str = field(default="", repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)


def read_http_client(reader: Reader, node: YamlNode, what: str) -> HttpClientConfig:
    """The settings of one mapping."""
    entries = reader.mapping(node, what, HTTP_CLIENT_KEYS)
    if "authorization" in entries and "basic_auth" in entries:
        reader.problem(entries["authorization"], f"{what} takes one of authorization and basic_auth")
    values: dict[str, str] = {}
    for key, known, names in (
        ("authorization", ("type", "credentials", "credentials_file"), {"type": "auth_type"}),
        ("basic_auth", ("username", "password", "password_file"), {}),
    ):
        if key in entries:
            values |= _strings(reader, entries[key], key, known, names)
    insecure, tls = False, {}
    if "tls_config" in entries:
        texts = ("ca_file", "cert_file", "key_file", "server_name")
        inner = reader.mapping(entries["tls_config"], "tls_config", (*texts, "insecure_skip_verify"))
        tls = {key: reader.string(inner[key], key) or "" for key in texts if key in inner}
        if "insecure_skip_verify" in inner:
            insecure = bool(reader.boolean(inner["insecure_skip_verify"], "insecure_skip_verify"))
        if ("cert_file" in tls) != ("key_file" in tls):
            reader.problem(entries["tls_config"], "tls_config needs both cert_file and key_file")
    follow = (
        reader.boolean(entries["follow_redirects"], "follow_redirects")
        if "follow_redirects" in entries
        else True
    )
    return HttpClientConfig(
        **values,
        **tls,
        insecure_skip_verify=insecure,
        follow_redirects=follow is not False,
        proxy_url=(reader.string(entries["proxy_url"], "proxy_url") or "") if "proxy_url" in entries else "",
        headers=_headers(reader, entries["http_headers"]) if "http_headers" in entries else (),
    )


def _strings(
    reader: Reader, node: YamlNode, what: str, known: tuple[str, ...], names: Mapping[str, str]
) -> dict[str, str]:
    entries = reader.mapping(node, what, known)
    found = {key: reader.string(value, key) or "" for key, value in entries.items()}
    secret = known[1]
    if found.get(secret) and found.get(f"{secret}_file"):
        reader.problem(node, f"{what} takes one of {secret} and {secret}_file")
    return {names.get(key, key): value for key, value in found.items()}


def _headers(reader: Reader, node: YamlNode) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for name, value in reader.mapping(node, "http_headers").items():
        if not name or any(char in name for char in " :\r\n"):
            reader.problem(value, f'"{name}" is not a header name')
            continue
        inner = reader.mapping(value, f'"{name}" in http_headers', ("values", "secrets"))
        for key in inner:
            for text in reader.strings(inner[key], key):
                if "\n" in text or "\r" in text:
                    reader.problem(inner[key], "a header's value has no line breaks")
                else:
                    found.append((name, text))
    return tuple(found)
