"""The direction of dependencies and the purity of the core, read from the imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "exporter"

PURE_PACKAGES = (
    "model",
    "promql",
    "storage",
    "template",
    "rules",
    "ingest",
    "providers",
    "drawing",
    "dashboards",
    "pictures",
    "report",
)
PURE_FILES = (
    "errors.py",
    "config/matchers.py",
    "config/positions.py",
    "config/http_client.py",
    "config/targets.py",
    "config/time_intervals.py",
    "config/receivers.py",
    "observe/snapshot.py",
    "observe/families.py",
    "observe/worker_merge.py",
    "client/cache.py",
    "client/window.py",
    "client/limits.py",
    "client/retry.py",
    "client/breaker.py",
    "collectors/sqlconfig.py",
    "notify/records.py",
    "notify/route.py",
    "notify/group.py",
    "notify/gates.py",
    "notify/outgoing.py",
    "notify/message.py",
    "notify/payload.py",
    "notify/silences.py",
    "notify/inhibit.py",
    "notify/flapping.py",
    "notify/instances.py",
    "notify/lanes.py",
    "notify/steps.py",
    "notify/agenda.py",
    "notify/episodes.py",
    "notify/quiet.py",
    "notify/decide.py",
    "notify/outlook.py",
    "notify/outcome.py",
    "notify/book.py",
    "db/batch.py",
    "simulate/trading_plan.py",
    "web/params.py",
    "web/encode.py",
    "web/reply.py",
    "web/rules_json.py",
    "web/negotiate.py",
    "web/exposition_text.py",
)

EDGES = ("observe", "collectors", "client", "notify", "db", "web", "loops", "simulate", "query")
SHARED_BY_EDGES = ("clock", "errors", "config", "assets", "instruments", "births")
COMPOSITION = ("app.py", "monitoring.py", "__init__.py", "__main__.py")
IMPURE_MODULES = {
    "asyncio", "aiohttp", "asyncpg", "psutil", "os", "socket", "logging", "threading", "subprocess",
    "prometheus_client", "apprise", "io", "pathlib", "shutil", "tempfile", "yaml",
}  # fmt: skip
IMPURE_CALLS = {
    ("time", "time"),
    ("time", "monotonic"),
    ("datetime", "now"),
    ("date", "today"),
    ("random", "random"),
}
# What is let through, and why.
EXCEPTIONS = {
    ("model/regex.py", "re2"): "the one importer of RE2",
    ("storage/*", "threading"): "queries read the head from worker threads while it grows",
    ("promql/*", "threading"): "plans and groupings are shared by threads",
    ("observe/snapshot.py", "prometheus_client"): "its input is a registry",
    ("observe/families.py", "prometheus_client"): "its input is a registry",
    ("config/positions.py", "yaml"): "the one importer of YAML",
}


def modules() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if "_data" not in path.parts)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def is_pure(name: str) -> bool:
    package = name.split("/")[0]
    if name.endswith("__main__.py"):
        return False
    return package in PURE_PACKAGES or name in PURE_FILES


def runtime_imports(tree: ast.Module) -> set[str]:
    """Every imported module name; what stands under TYPE_CHECKING counts too, since it is a dependency."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def excepted(name: str, module: str) -> bool:
    package = name.split("/")[0]
    names = {module, module.split(".")[0]}  # an excepted package includes its modules
    return any((place, part) in EXCEPTIONS for place in (name, f"{package}/*") for part in names)


PURE = [path for path in modules() if is_pure(relative(path))]
EDGE_FILES = [path for path in modules() if relative(path).split("/")[0] in EDGES]


@pytest.mark.parametrize("path", PURE, ids=relative)
def test_pure_code_imports_pure_code_only(path: Path) -> None:
    """Pure code imports the standard library's pure part, numpy and pure code of ours."""
    name = relative(path)
    for module in runtime_imports(ast.parse(path.read_text())):
        if excepted(name, module):
            continue
        top = module.split(".")[0]
        assert top not in IMPURE_MODULES, f"{name} imports {module}"
        if top == "exporter" and module != "exporter":
            inner = module.removeprefix("exporter.").replace(".", "/")
            pure = any(is_pure(candidate) for candidate in (f"{inner}.py", f"{inner}/__init__.py"))
            assert pure, f"{name} imports {module}, which is not pure"


@pytest.mark.parametrize("path", PURE, ids=relative)
def test_pure_code_reads_no_clock(path: Path) -> None:
    """Time and chance are arguments: pure code calls no clock and no global random."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            base = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
            assert (base, node.func.attr) not in IMPURE_CALLS, f"{relative(path)}:{node.lineno}"


@pytest.mark.parametrize("path", EDGE_FILES, ids=relative)
def test_edges_do_not_import_each_other(path: Path) -> None:
    """An edge imports pure code, the shared few and itself; app.py joins edges."""
    name = relative(path)
    own = name.split("/")[0]
    for module in runtime_imports(ast.parse(path.read_text())):
        if not module.startswith("exporter."):
            continue
        inner = module.removeprefix("exporter.").replace(".", "/")
        package = inner.split("/")[0]
        allowed = (
            package == own
            or package in SHARED_BY_EDGES
            or is_pure(f"{inner}.py")
            or is_pure(f"{inner}/__init__.py")
        )
        assert allowed, f"{name} imports {module}"


def test_layers_inside_the_core_point_inwards() -> None:
    """model knows nobody; promql and template know model; rules knows these; storage knows the port."""
    may = {
        "model": {"model", "errors"},
        "template": {"model", "errors", "template"},
        "promql": {"model", "errors", "promql"},
        "storage": {"model", "errors", "storage", "promql"},
        "rules": {"model", "errors", "promql", "template", "storage", "rules", "config", "drawing"},
        "drawing": {"model", "drawing"},
        "pictures": {"drawing", "dashboards", "pictures"},
        "report": {"drawing", "report"},
        "ingest": {"model", "errors", "ingest"},
        "providers": {"model", "errors", "providers", "config"},
    }
    for path in modules():
        package = relative(path).split("/")[0]
        if package not in may:
            continue
        for module in runtime_imports(ast.parse(path.read_text())):
            if module.startswith("exporter."):
                target = module.split(".")[1]
                assert target in may[package], f"{relative(path)} imports {module}"


def test_only_the_composition_root_knows_every_edge() -> None:
    """Modules at the top of the package that import edges are the composition root and nothing else."""
    for path in sorted(ROOT.glob("*.py")):
        edges = {
            module.split(".")[1]
            for module in runtime_imports(ast.parse(path.read_text()))
            if module.startswith("exporter.") and module.split(".")[1] in EDGES
        }
        assert not edges or path.name in COMPOSITION, f"{path.name} imports {sorted(edges)}"
