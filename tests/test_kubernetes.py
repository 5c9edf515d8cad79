"""kubernetes/: what the cluster would refuse, or should not be asked to run."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.cli import main
from exporter.config.load import load_config
from tests.helpers.peers import peer

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "kubernetes"
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
MANIFESTS: dict[str, dict[str, Any]] = {
    name: yaml.safe_load((FOLDER / name).read_text()) for name in KUSTOMIZATION["resources"]
}
POD: dict[str, Any] = MANIFESTS["statefulset.yml"]["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
CUSTOM = ("ServiceMonitor", "PrometheusRule")


def test_every_manifest_is_in_the_kustomization() -> None:
    """No file lies about unused."""
    used = {
        *KUSTOMIZATION["resources"],
        *KUSTOMIZATION["configMapGenerator"][0]["files"],
        "kustomization.yaml",
    }
    assert {path.name for path in FOLDER.iterdir()} == used


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_are_valid(name: str) -> None:
    """Kubernetes' own schema of the kind accepts the manifest, unknown keys refused."""
    manifest = MANIFESTS[name]
    if manifest["kind"] in CUSTOM:
        assert manifest["apiVersion"] == "monitoring.coreos.com/v1"
        return
    if os.environ.get("QE_REQUIRE_PEERS") != "1":
        pytest.importorskip("kubernetes_validate")
    import kubernetes_validate

    kubernetes_validate.validate(manifest, "1.33", strict=True)


def test_the_pod_is_hardened() -> None:
    """Not root, nothing writable but its volumes, no capability, no token of the cluster."""
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert POD["automountServiceAccountToken"] is False
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert f"USER {POD['securityContext']['runAsUser']}" in dockerfile
    assert not re.search(r":latest|:main", CONTAINER["image"])


def test_probes_ask_what_the_server_answers() -> None:
    """Probes and the ServiceMonitor use the named port and paths that exist."""
    (port,) = CONTAINER["ports"]
    paths = {CONTAINER[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert paths == {"/-/ready", "/-/healthy"}
    assert {CONTAINER[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "liveness")} == {
        port["name"]
    }
    (endpoint,) = MANIFESTS["servicemonitor.yml"]["spec"]["endpoints"]
    (served,) = MANIFESTS["service.yml"]["spec"]["ports"]
    assert endpoint["port"] == served["name"]
    assert served["targetPort"] == port["name"]


def test_selectors_find_the_pod() -> None:
    """Service, ServiceMonitor and NetworkPolicy select by labels that their objects have."""
    labels = MANIFESTS["statefulset.yml"]["spec"]["template"]["metadata"]["labels"]
    assert MANIFESTS["service.yml"]["spec"]["selector"] == labels
    assert MANIFESTS["networkpolicy.yml"]["spec"]["podSelector"]["matchLabels"] == labels
    wanted = MANIFESTS["servicemonitor.yml"]["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= MANIFESTS["service.yml"]["metadata"]["labels"].items()


def test_the_arguments_are_ones_that_run_takes() -> None:
    """Each flag of the container is a flag of `run`, and the configuration loads."""
    source = (ROOT / "exporter" / "cli" / "run.py").read_text() + '"--config.file"'
    for argument in CONTAINER["args"][1:]:
        assert f'"{argument.split("=")[0]}"' in source
    config = load_config(FOLDER / "config.yml", {"DATABASE_URL": "postgresql://quantum@postgres/quantum"})
    assert {str(config.storage.data_dir)} <= {mount["mountPath"] for mount in CONTAINER["volumeMounts"]}


def test_the_prometheus_rule_is_current(tmp_path: Path) -> None:
    """It is what `export kubernetes` makes of the shipped rules (QE_UPDATE=1 writes it)."""
    folder = FOLDER if os.environ.get("QE_UPDATE") == "1" else tmp_path
    label = "app.kubernetes.io/name=quantum-exporter"
    assert main(["export", "kubernetes", "--force", "--label", label, str(folder)]) == 0
    made, committed = (one / "prometheusrule.yml" for one in (folder, FOLDER))
    assert made.read_text() == committed.read_text(), "run QE_UPDATE=1 pytest tests/test_kubernetes.py"


@pytest.mark.peer
def test_promtool_takes_the_rules() -> None:
    """The spec is a rule file that promtool accepts."""
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        yaml.safe_dump(MANIFESTS["prometheusrule.yml"]["spec"], file)
        file.flush()
        done = subprocess.run(
            [peer("promtool"), "check", "rules", file.name], capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
