"""docker-compose.yml and what it mounts: pinned, hardened, healthy, without a password in it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.config.load import load_config
from tests.helpers.peers import peer

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
EXAMPLE = (ROOT / "compose" / "env.example").read_text()

each = pytest.mark.parametrize("name", SERVICES)


def test_five_services() -> None:
    """The exporter, the database, and the three peers."""
    assert set(SERVICES) == {"exporter", "postgres", "prometheus", "alertmanager", "grafana"}


@each
def test_images_are_pinned(name: str) -> None:
    """A version down to the patch, never `latest`."""
    assert re.search(r":v?\d+\.\d+(\.\d+)?(-\w+)?$", SERVICES[name]["image"])


@each
def test_services_are_hardened(name: str) -> None:
    """Not root, nothing to write but volumes and /tmp, no capability, no way to gain one."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert int(str(service["user"]).split(":")[0]) > 0
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "/tmp" in service["tmpfs"]
    assert not service.get("privileged")


@each
def test_services_have_health_checks(name: str) -> None:
    """`docker compose up --wait` knows when each is ready."""
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] == "CMD"
    assert {"interval", "timeout", "retries"} <= check.keys()


@each
def test_ports_are_on_loopback(name: str) -> None:
    """Nothing is published to the network by accident."""
    for port in SERVICES[name].get("ports", ()):
        assert port.startswith("127.0.0.1:")


def test_no_password_has_a_default() -> None:
    """Every password comes from the environment, and its absence stops the start with a message."""
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            if "PASSWORD" in key:
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), f"{name}: {key}"
    assert not re.search(r"(?i)password[:=]\s*['\"]?(?!\$)[a-z0-9]+['\"]?\s*$", TEXT, re.M)


def test_example_environment_names_every_required_variable() -> None:
    """compose/env.example has a line for each variable that must be set, and no value for a password."""
    required = set(re.findall(r"\$\{(\w+):\?", TEXT))
    assert required
    for variable in required:
        assert re.search(rf"^{variable}=$", EXAMPLE, re.M), variable


def test_mounted_files_exist() -> None:
    """What a service mounts from the checkout is there."""
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = re.sub(r"\$\{\w+:-([^}]+)\}", r"\1", volume).split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), source
            else:
                assert source in COMPOSE["volumes"], source


def test_overrides_name_known_services() -> None:
    """compose/demo.yml changes services that exist."""
    demo = yaml.safe_load((ROOT / "compose" / "demo.yml").read_text())
    assert set(demo["services"]) <= set(SERVICES)
    assert "--simulate" in demo["services"]["exporter"]["command"]


def test_exporter_configuration_loads() -> None:
    """The configuration that compose mounts is accepted."""
    environment = {"DATABASE_URL": "postgresql://quantum@postgres/quantum"}
    config = load_config(ROOT / "compose" / "exporter.yml", environment)
    assert config.database.url == environment["DATABASE_URL"]
    assert str(config.storage.data_dir) == "/data"


def test_grafana_variables_are_set() -> None:
    """Each variable in the provisioning is set on the Grafana service."""
    text = (ROOT / "grafana/provisioning/datasources/quantum.yml").read_text()
    wanted = set(re.findall(r"\$\{(\w+)\}", text))
    assert wanted <= set(SERVICES["grafana"]["environment"])


def test_prometheus_configuration() -> None:
    """promtool accepts compose/prometheus.yml, and it scrapes the exporter where it listens."""
    done = subprocess.run(
        [peer("promtool"), "check", "config", str(ROOT / "compose/prometheus.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "exporter:9464" in (ROOT / "compose/prometheus.yml").read_text()


def test_alertmanager_configuration() -> None:
    """amtool accepts compose/alertmanager.yml."""
    done = subprocess.run(
        [peer("amtool"), "check-config", str(ROOT / "compose/alertmanager.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.peer
@pytest.mark.parametrize("files", [(), ("compose/demo.yml",)])
def test_docker_compose_takes_the_files(files: tuple[str, ...], tmp_path: Path) -> None:
    """Debian's docker-compose finds nothing wrong; it is too old to know `name`, which is left out for it."""
    (tmp_path / "docker-compose.yml").write_text(re.sub(r"^name:.*\n", "", TEXT, flags=re.M))
    names = [str(tmp_path / "docker-compose.yml"), *(str(ROOT / name) for name in files)]
    command = [peer("docker-compose"), *(word for name in names for word in ("--file", name))]
    required = dict.fromkeys(re.findall(r"\$\{(\w+):\?", TEXT), "secret")
    done = subprocess.run(
        [*command, "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], **required},
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    done = subprocess.run(
        [*command, "config"], capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]}
    )
    assert done.returncode != 0, "a start without passwords must be refused"


def test_init_script_is_executable_and_clean() -> None:
    """The script that makes Grafana's role is valid and stops at the first error."""
    script = ROOT / "compose/postgres/10-grafana-role.sh"
    assert os.access(script, os.X_OK)
    assert "set -eu" in script.read_text()
    assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0


def test_image_holds_what_the_wheel_needs() -> None:
    """The Dockerfile copies, and .dockerignore lets through, everything that the wheel is built from."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    ignored = (ROOT / ".dockerignore").read_text().split()
    for needed in ("pyproject.toml", "README.md", "LICENSE", "exporter", "rules", "sql", "grafana"):
        assert f"!{needed}" in ignored
        assert re.search(rf"^COPY .*\b{re.escape(needed)}\b", dockerfile, re.M)
    assert re.search(r"^USER 10001", dockerfile, re.M)
    assert "HEALTHCHECK" in dockerfile
